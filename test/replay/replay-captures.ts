/** Capture files for tests of the job. */
import { PcapngWriter } from "vbus/net";

/** Address of station n. */
export const mac = (n: number): number[] => [2, 0, 0, 0, 1, n];
export const ALL = [255, 255, 255, 255, 255, 255];

/** A frame with a payload that depends on `serial`; `tags` are 802.1Q tags, outermost first: [EtherType, tag]. */
export function frame(
  to: number[],
  from: number[],
  length: number,
  serial: number,
  tags: [number, number][] = [],
): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length);
  const header = [...to, ...from];
  for (const [type, tag] of tags) header.push(type >>> 8, type & 0xff, tag >>> 8, tag & 0xff);
  header.push(0x88, 0xb5);
  bytes.set(header.slice(0, length));
  for (let i = header.length; i < length; i++) bytes[i] = (serial * 31 + i * 7 + (serial >>> 8)) & 0xff;
  return bytes;
}

/** What may be unusual about a pcap file. */
export interface PcapOptions {
  linkType?: number;
  /** Bytes that each frame had on the wire beyond those recorded. */
  cut?: number;
}

/** A classic pcap file. */
export function pcap(
  frames: readonly Uint8Array[],
  { linkType = 1, cut = 0 }: PcapOptions = {},
): Uint8Array<ArrayBuffer> {
  const size = frames.reduce((sum, { length }) => sum + 16 + length, 24);
  const bytes = new Uint8Array(size);
  const data = new DataView(bytes.buffer);
  data.setUint32(0, 0xa1b2c3d4, true);
  data.setUint16(4, 2, true);
  data.setUint16(6, 4, true);
  data.setUint32(16, 65535, true);
  data.setUint32(20, linkType, true);
  let at = 24;
  for (const [i, frame] of frames.entries()) {
    data.setUint32(at, 1_700_000_000 + i, true);
    data.setUint32(at + 8, frame.length, true);
    data.setUint32(at + 12, frame.length + cut, true);
    bytes.set(frame, at + 16);
    at += 16 + frame.length;
  }
  return bytes;
}

/** A pcapng file of one interface. */
export function pcapng(frames: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const chunks: Uint8Array[] = [];
  const writer = new PcapngWriter({ clock: performance, sink: (chunk) => chunks.push(chunk) });
  writer.addInterface({ name: "eth0" });
  for (const bytes of frames) writer.frame(0, bytes, "inbound");
  writer.close();
  return new Uint8Array(Buffer.concat(chunks));
}
