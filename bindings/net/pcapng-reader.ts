import { captureError, type CapturedFrame, type CaptureFile, type CaptureInterface } from "./capture-file.js";
import {
  BLOCK_ENHANCED_PACKET,
  BLOCK_INTERFACE,
  BLOCK_OVERHEAD,
  BLOCK_PACKET,
  BLOCK_SECTION,
  BLOCK_SIMPLE_PACKET,
  BLOCK_STATISTICS,
  BYTE_ORDER_MAGIC,
  DIRECTION_INBOUND,
  DIRECTION_OUTBOUND,
  OPT_COMMENT,
  OPT_END,
  OPT_INTERFACE_DESCRIPTION,
  OPT_INTERFACE_NAME,
  OPT_INTERFACE_TSOFFSET,
  OPT_INTERFACE_TSRESOL,
  OPT_PACKET_FLAGS,
  OPT_STATISTICS_DROPPED,
  OPT_STATISTICS_RECEIVED,
} from "./pcapng-format.js";

const NANOSECONDS = 1_000_000_000n;
const MICROSECONDS = 6; // if_tsresol when the option is absent

/** How the stamps of an interface count. */
interface Clock {
  unitsPerSecond: bigint;
  offsetNs: bigint;
}

const pad = (n: number): number => Math.ceil(n / 4) * 4;
const utf8 = new TextDecoder();

/**
 * Reads an uncompressed pcapng file: several sections, each in its own byte order, and interfaces; enhanced, simple and
 * obsolete packet blocks; every resolution of stamps. Blocks of other types are skipped.
 * @throws VbusError EINVAL as `readCapture`
 */
export function readPcapng(bytes: Uint8Array<ArrayBuffer>): CaptureFile {
  return new PcapngReader(bytes).read();
}

class PcapngReader {
  readonly #data: DataView;
  readonly #file: CaptureFile = { format: "pcapng", comments: [], interfaces: [], frames: [] };
  readonly #clocks: Clock[] = [];
  #little = true;
  /** Number, in the whole file, of the section's first interface. */
  #firstInterface = 0;

  constructor(private readonly bytes: Uint8Array<ArrayBuffer>) {
    this.#data = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  read(): CaptureFile {
    for (let at = 0; at < this.bytes.length;) at += this.#block(at);
    return this.#file;
  }

  #u16(at: number): number {
    return this.#data.getUint16(at, this.#little);
  }

  #u32(at: number): number {
    return this.#data.getUint32(at, this.#little);
  }

  #u64(at: number): bigint {
    return this.#data.getBigUint64(at, this.#little);
  }

  /** Reads the block at `at`; returns its length. */
  #block(at: number): number {
    const left = this.bytes.length - at;
    if (left < BLOCK_OVERHEAD) throw captureError(at, `truncated: ${left} bytes where a block begins`);
    const isSection = this.#u32(at) === BLOCK_SECTION;
    if (isSection) this.#byteOrder(at);
    const length = this.#u32(at + 4);
    if (length < BLOCK_OVERHEAD || length % 4 !== 0) {
      throw captureError(
        at,
        `a block of ${length} bytes; blocks have at least ${BLOCK_OVERHEAD}, in multiples of 4`,
      );
    }
    if (length > left)
      throw captureError(at, `a block of ${length} bytes, but the file ends after ${left}; it is truncated`);
    const again = this.#u32(at + length - 4);
    if (again !== length)
      throw captureError(at, `a block of ${length} bytes that ends with length ${again}: it is damaged`);
    const end = at + length - 4;
    switch (this.#u32(at)) {
      case BLOCK_SECTION:
        this.#section(at, end);
        break;
      case BLOCK_INTERFACE:
        this.#interface(at, end);
        break;
      case BLOCK_ENHANCED_PACKET:
      case BLOCK_PACKET:
        this.#packet(at, end);
        break;
      case BLOCK_SIMPLE_PACKET:
        this.#simplePacket(at, end);
        break;
      case BLOCK_STATISTICS:
        this.#statistics(at, end);
        break;
      default: // other blocks say nothing about frames
    }
    return length;
  }

  #byteOrder(at: number): void {
    this.#little = true;
    if (this.#u32(at + 8) === BYTE_ORDER_MAGIC) return;
    this.#little = false;
    if (this.#u32(at + 8) !== BYTE_ORDER_MAGIC) {
      throw captureError(
        at + 8,
        `byte-order magic 0x${this.#u32(at + 8).toString(16)}; this is not pcapng, or damaged`,
      );
    }
  }

  #need(at: number, end: number, size: number, what: string): void {
    if (at + size > end)
      throw captureError(at, `${what} of ${end - at + 4} bytes; too short for its members`);
  }

  #section(at: number, end: number): void {
    this.#need(at, end, 24, "a section header");
    const major = this.#u16(at + 12);
    if (major !== 1) throw captureError(at + 12, `version ${major} of pcapng; this reads version 1`);
    this.#firstInterface = this.#file.interfaces.length;
    this.#options(at + 24, end, (code, value, length) => {
      if (code === OPT_COMMENT) this.#file.comments.push(this.#text(value, length));
    });
  }

  #text(at: number, length: number): string {
    return utf8.decode(this.bytes.subarray(at, at + length)).replace(/\0+$/, "");
  }

  #options(at: number, end: number, use: (code: number, value: number, length: number) => void): void {
    while (at + 4 <= end) {
      const code = this.#u16(at);
      const length = this.#u16(at + 2);
      if (code === OPT_END) return;
      if (at + 4 + pad(length) > end)
        throw captureError(at, `option ${code} of ${length} bytes goes beyond its block`);
      use(code, at + 4, length);
      at += 4 + pad(length);
    }
  }

  #interface(at: number, end: number): void {
    this.#need(at, end, 16, "an interface description");
    const description: CaptureInterface = { linkType: this.#u16(at + 8), snapLength: this.#u32(at + 12) };
    let resolution = MICROSECONDS;
    let offsetSeconds = 0n;
    this.#options(at + 16, end, (code, value, length) => {
      if (code === OPT_INTERFACE_NAME) description.name = this.#text(value, length);
      else if (code === OPT_INTERFACE_DESCRIPTION) description.description = this.#text(value, length);
      else if (code === OPT_INTERFACE_TSRESOL && length >= 1) resolution = this.#data.getUint8(value);
      else if (code === OPT_INTERFACE_TSOFFSET && length >= 8)
        offsetSeconds = BigInt.asIntN(64, this.#u64(value));
    });
    const exponent = BigInt(resolution & 0x7f);
    this.#file.interfaces.push(description);
    this.#clocks.push({
      unitsPerSecond: (resolution & 0x80) === 0 ? 10n ** exponent : 2n ** exponent,
      offsetNs: offsetSeconds * NANOSECONDS,
    });
  }

  #interfaceNumber(at: number, id: number): number {
    const number = this.#firstInterface + id;
    if (number >= this.#file.interfaces.length) {
      throw captureError(at, `interface ${id}, which the section does not describe before`);
    }
    return number;
  }

  #packet(at: number, end: number): void {
    this.#need(at, end, 28, "a packet block");
    // the obsolete block has a 16-bit interface and a 16-bit drop count where the enhanced one has 32 bits
    const obsolete = this.#u32(at) === BLOCK_PACKET;
    const number = this.#interfaceNumber(at + 8, obsolete ? this.#u16(at + 8) : this.#u32(at + 8));
    const { unitsPerSecond, offsetNs } = this.#clocks[number] as Clock;
    const units = (BigInt(this.#u32(at + 12)) << 32n) | BigInt(this.#u32(at + 16));
    const length = this.#u32(at + 20);
    const frame = this.#frame(at + 28, end, length, this.#u32(at + 24), number);
    frame.timestampNs = (units * NANOSECONDS) / unitsPerSecond + offsetNs;
    this.#options(at + 28 + pad(length), end, (code, value, size) => {
      if (code !== OPT_PACKET_FLAGS || size < 4) return;
      const direction = this.#u32(value) & 3;
      if (direction === DIRECTION_INBOUND) frame.direction = "inbound";
      if (direction === DIRECTION_OUTBOUND) frame.direction = "outbound";
    });
  }

  #simplePacket(at: number, end: number): void {
    this.#need(at, end, 12, "a simple packet block");
    const number = this.#interfaceNumber(at, 0);
    const originalLength = this.#u32(at + 8);
    const { snapLength } = this.#file.interfaces[number] as CaptureInterface;
    const length = snapLength === 0 ? originalLength : Math.min(originalLength, snapLength);
    this.#frame(at + 12, end, length, originalLength, number);
  }

  #frame(at: number, end: number, length: number, originalLength: number, number: number): CapturedFrame {
    if (length > end - at)
      throw captureError(at, `a frame of ${length} bytes goes beyond its block (${end - at} left)`);
    if (length > originalLength) {
      throw captureError(
        at,
        `${length} bytes recorded of a frame of ${originalLength}: the block is damaged`,
      );
    }
    const frame: CapturedFrame = {
      data: this.bytes.subarray(at, at + length),
      timestampNs: 0n,
      interface: number,
      originalLength,
      truncated: length < originalLength,
    };
    this.#file.frames.push(frame);
    return frame;
  }

  #statistics(at: number, end: number): void {
    this.#need(at, end, 20, "interface statistics");
    const description = this.#file.interfaces[
      this.#interfaceNumber(at + 8, this.#u32(at + 8))
    ] as CaptureInterface;
    this.#options(at + 20, end, (code, value, length) => {
      if (length < 8) return;
      if (code === OPT_STATISTICS_RECEIVED) description.received = Number(this.#u64(value));
      if (code === OPT_STATISTICS_DROPPED) description.dropped = Number(this.#u64(value));
    });
  }
}
