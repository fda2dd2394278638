import { VbusError } from "../errors.js";
import { captureError, type CapturedFrame, type CaptureFile } from "./capture-file.js";
import { BLOCK_SECTION } from "./pcapng-format.js";
import { readPcapng } from "./pcapng-reader.js";

/*
 *     file:   magic u32 | version u16 u16 | zone i32 | accuracy u32 | snapshot length u32 | link type u32 | records
 *     record: seconds u32 | micro- or nanoseconds u32 | recorded length u32 | original length u32 | bytes
 */
const MAGIC_MICRO = 0xa1b2c3d4;
const MAGIC_NANO = 0xa1b23c4d;
const FILE_HEADER = 24;
const RECORD_HEADER = 16;
/** Bits of the link type word that are the link type; the others say things about the FCS. */
const LINKTYPE_MASK = 0x0fffffff;

/**
 * Reads a capture file: pcap (micro- and nanoseconds, both byte orders) or pcapng, gzip-compressed or not.
 * @param bytes - the whole file; frames of an uncompressed one are views on it
 * @throws VbusError EINVAL that names the offset and what is wrong: not a capture file, truncated, impossible lengths
 */
export async function readCapture(bytes: Uint8Array<ArrayBuffer>): Promise<CaptureFile> {
  const plain = bytes[0] === 0x1f && bytes[1] === 0x8b ? await gunzip(bytes) : bytes;
  if (plain.length < 4)
    throw captureError(0, `only ${plain.length} bytes; a capture file begins with a magic number`);
  const data = new DataView(plain.buffer, plain.byteOffset, plain.byteLength);
  const magic = data.getUint32(0, true);
  if (magic === BLOCK_SECTION) return readPcapng(plain);
  for (const little of [true, false]) {
    const value = data.getUint32(0, little);
    if (value === MAGIC_MICRO) return readPcap(plain, data, little, 1000n);
    if (value === MAGIC_NANO) return readPcap(plain, data, little, 1n);
  }
  const hex = data.getUint32(0).toString(16).padStart(8, "0");
  throw captureError(0, `begins with 0x${hex}, which is neither pcap nor pcapng (nor gzip)`);
}

async function gunzip(bytes: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>> {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  try {
    return new Uint8Array(await new Response(stream).arrayBuffer());
  } catch (cause) {
    throw new VbusError(
      "EINVAL",
      "capture file: the gzip data is damaged or truncated; fetch the file again",
      { cause },
    );
  }
}

function readPcap(
  bytes: Uint8Array<ArrayBuffer>,
  data: DataView,
  little: boolean,
  unitNs: bigint,
): CaptureFile {
  if (bytes.length < FILE_HEADER) {
    throw captureError(0, `truncated: ${bytes.length} bytes of a file header of ${FILE_HEADER}`);
  }
  const major = data.getUint16(4, little);
  if (major !== 2) throw captureError(4, `version ${major} of pcap; this reads version 2`);
  const snapLength = data.getUint32(16, little);
  const linkType = data.getUint32(20, little) & LINKTYPE_MASK;
  const frames: CapturedFrame[] = [];
  let at = FILE_HEADER;
  while (at < bytes.length) {
    const left = bytes.length - at;
    if (left < RECORD_HEADER)
      throw captureError(at, `truncated: ${left} bytes of a record header of ${RECORD_HEADER}`);
    const seconds = data.getUint32(at, little);
    const fraction = data.getUint32(at + 4, little);
    const length = data.getUint32(at + 8, little);
    const originalLength = data.getUint32(at + 12, little);
    if (length > left - RECORD_HEADER) {
      throw captureError(
        at,
        `a frame of ${length} bytes, but the file ends after ${left - RECORD_HEADER} more; it is truncated`,
      );
    }
    if (length > originalLength) {
      throw captureError(
        at,
        `${length} bytes recorded of a frame of ${originalLength}: the record is damaged`,
      );
    }
    frames.push({
      data: bytes.subarray(at + RECORD_HEADER, at + RECORD_HEADER + length),
      timestampNs: BigInt(seconds) * 1_000_000_000n + BigInt(fraction) * unitNs,
      interface: 0,
      originalLength,
      truncated: length < originalLength,
    });
    at += RECORD_HEADER + length;
  }
  return { format: "pcap", comments: [], interfaces: [{ linkType, snapLength }], frames };
}
