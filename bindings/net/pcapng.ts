import { VbusError } from "../errors.js";
import {
  BLOCK_ENHANCED_PACKET,
  BLOCK_INTERFACE,
  BLOCK_OVERHEAD,
  BLOCK_SECTION,
  BLOCK_STATISTICS,
  BYTE_ORDER_MAGIC,
  DIRECTION_INBOUND,
  DIRECTION_OUTBOUND,
  LINKTYPE_ETHERNET,
  OPT_COMMENT,
  OPT_END,
  OPT_INTERFACE_DESCRIPTION,
  OPT_INTERFACE_NAME,
  OPT_INTERFACE_TSRESOL,
  OPT_PACKET_FLAGS,
  OPT_SECTION_APPLICATION,
  OPT_STATISTICS_DROPPED,
  OPT_STATISTICS_END,
  OPT_STATISTICS_RECEIVED,
} from "./pcapng-format.js";

/** Gets a piece of the file; the chunks are the sink's to keep. What it throws ends the capture. */
export type CaptureSink = (chunk: Uint8Array<ArrayBuffer>) => void;

/** What a {@link PcapngWriter} writes, and where. */
export interface PcapngOptions {
  /** Gets the file in pieces, in order. */
  sink: CaptureSink;
  /** Clock in milliseconds that stamps are taken from: a `Scheduler`, or `performance`. */
  clock: { now(): number };
  /** Nanoseconds since 1970 at this moment; default the system's time. */
  epochNs?: bigint;
  /** Comment for the whole file. */
  comment?: string;
  /** Most bytes of a frame that are written; default 262144, more than any frame has. */
  snapLength?: number;
  /** Size of the chunks; all the memory that the writer uses. Default 64 KiB; grows to what one frame needs. */
  bufferSize?: number;
}

/** An interface of a capture file. */
export interface CaptureInterfaceOptions {
  /** Its name. */
  name: string;
  /** A sentence about it. */
  description?: string;
  /** A comment. */
  comment?: string;
}

const NANOSECONDS = 9; // if_tsresol: 10^-9
const OPTION_HEADER = 4;
const FLAGS_OPTIONS = OPTION_HEADER + 4 + OPTION_HEADER; // the flags and the end of options
const PACKET_BODY = 20;
const U32 = 2 ** 32;

const pad = (n: number): number => (n + 3) & ~3;
const utf8 = new TextEncoder();

/**
 * Writes a pcapng file: Ethernet interfaces with nanosecond stamps, frames with their direction, statistics with drop
 * counts. Works in browsers: bytes go to a callback (`fileSink` of `vbus/net/node-file` writes a file in Node).
 *
 * A sink that throws (a full disk) ends the capture, not the traffic: frames are no longer recorded but counted in
 * {@link PcapngWriter.lost}, and {@link PcapngWriter.close} throws the error.
 */
export class PcapngWriter {
  readonly #sink: CaptureSink;
  readonly #clock: { now(): number };
  readonly #snapLength: number;
  readonly #start: number;
  readonly #epochHigh: number;
  readonly #epochLow: number;
  #buffer: Uint8Array<ArrayBuffer>;
  #data: DataView;
  #used = 0;
  #interfaces = 0;
  #error: unknown = null;
  #failed = false;
  #closed = false;
  readonly #endings: (() => void)[] = [];
  /** Frames that were not recorded because the sink had failed. */
  lost = 0;

  /** Writes the section header into the buffer. */
  constructor(options: PcapngOptions) {
    this.#sink = options.sink;
    this.#clock = options.clock;
    this.#snapLength = options.snapLength ?? 262_144;
    this.#start = options.clock.now();
    const epoch = options.epochNs ?? BigInt(Date.now()) * 1_000_000n;
    this.#epochHigh = Number(epoch >> 32n);
    this.#epochLow = Number(epoch & 0xffff_ffffn);
    this.#buffer = new Uint8Array(options.bufferSize ?? 65536);
    this.#data = new DataView(this.#buffer.buffer);
    const application = text("vbus");
    const comment = text(options.comment);
    this.#block(BLOCK_SECTION, 16 + optionSize(application) + optionSize(comment) + OPTION_HEADER, () => {
      this.#u32(BYTE_ORDER_MAGIC);
      this.#u16(1); // version 1.0
      this.#u16(0);
      this.#u32(0xffffffff); // length of the section: not known
      this.#u32(0xffffffff);
      this.#option(OPT_SECTION_APPLICATION, application);
      this.#option(OPT_COMMENT, comment);
      this.#u32(OPT_END);
    });
  }

  /** Describes an interface. Returns its number. @throws VbusError ENOTCONN after close */
  addInterface(options: CaptureInterfaceOptions): number {
    this.#checkOpen();
    const name = text(options.name);
    const description = text(options.description);
    const comment = text(options.comment);
    const options_ = optionSize(name) + optionSize(description) + optionSize(comment) + 8 + OPTION_HEADER;
    this.#block(BLOCK_INTERFACE, 8 + options_, () => {
      this.#u16(LINKTYPE_ETHERNET);
      this.#u16(0);
      this.#u32(this.#snapLength);
      this.#option(OPT_COMMENT, comment);
      this.#option(OPT_INTERFACE_NAME, name);
      this.#option(OPT_INTERFACE_DESCRIPTION, description);
      this.#option(OPT_INTERFACE_TSRESOL, Uint8Array.of(NANOSECONDS));
      this.#u32(OPT_END);
    });
    return this.#interfaces++;
  }

  /**
   * Records a frame with the time of this moment. `direction` is seen from whoever is plugged into the interface.
   * The bytes are copied. After close, nothing happens.
   */
  frame(interfaceId: number, bytes: Uint8Array, direction: "inbound" | "outbound"): void {
    if (this.#closed) return;
    if (this.#failed) {
      this.lost++;
      return;
    }
    const length = Math.min(bytes.length, this.#snapLength);
    this.#block(BLOCK_ENHANCED_PACKET, PACKET_BODY + pad(length) + FLAGS_OPTIONS, () => {
      this.#u32(interfaceId);
      this.#stamp();
      this.#u32(length);
      this.#u32(bytes.length);
      this.#bytes(length < bytes.length ? bytes.subarray(0, length) : bytes);
      this.#u16(OPT_PACKET_FLAGS);
      this.#u16(4);
      this.#u32(direction === "inbound" ? DIRECTION_INBOUND : DIRECTION_OUTBOUND);
      this.#u32(OPT_END);
    });
  }

  /** Writes an interface's statistics. @throws VbusError ENOTCONN after close */
  statistics(interfaceId: number, received: number, dropped: number): void {
    this.#checkOpen();
    this.#block(BLOCK_STATISTICS, 12 + 3 * (OPTION_HEADER + 8) + OPTION_HEADER, () => {
      this.#u32(interfaceId);
      this.#stamp();
      this.#u16(OPT_STATISTICS_END);
      this.#u16(8);
      this.#stamp();
      for (const [code, value] of [
        [OPT_STATISTICS_RECEIVED, received],
        [OPT_STATISTICS_DROPPED, dropped],
      ] as const) {
        this.#u16(code);
        this.#u16(8);
        this.#u32(value % U32);
        this.#u32(Math.floor(value / U32));
      }
      this.#u32(OPT_END);
    });
  }

  /** Registers something to run at close, before the file ends: who records writes statistics then. */
  beforeClose(ending: () => void): void {
    this.#endings.push(ending);
  }

  #checkOpen(): void {
    if (this.#closed) throw new VbusError("ENOTCONN", "the capture is closed; make a new writer");
  }

  #block(type: number, bodyLength: number, body: () => void): void {
    if (this.#failed) return;
    const length = bodyLength + BLOCK_OVERHEAD;
    if (this.#used + length > this.#buffer.length) {
      this.flush();
      if (length > this.#buffer.length) {
        this.#buffer = new Uint8Array(length);
        this.#data = new DataView(this.#buffer.buffer);
      }
    }
    this.#u32(type);
    this.#u32(length);
    body();
    this.#u32(length);
  }

  #u16(value: number): void {
    this.#data.setUint16(this.#used, value, true);
    this.#used += 2;
  }

  #u32(value: number): void {
    this.#data.setUint32(this.#used, value, true);
    this.#used += 4;
  }

  /** The time of this moment as two halves, the high one first: numbers, for a BigInt per frame would cost more. */
  #stamp(): void {
    const elapsed = Math.max(0, Math.round((this.#clock.now() - this.#start) * 1e6));
    const low = this.#epochLow + (elapsed % U32);
    this.#u32(this.#epochHigh + Math.floor(elapsed / U32) + (low >= U32 ? 1 : 0));
    this.#u32(low % U32);
  }

  #bytes(bytes: Uint8Array): void {
    this.#buffer.set(bytes, this.#used);
    const end = this.#used + pad(bytes.length);
    this.#buffer.fill(0, this.#used + bytes.length, end);
    this.#used = end;
  }

  #option(code: number, value: Uint8Array | null): void {
    if (value === null) return;
    this.#u16(code);
    this.#u16(value.length);
    this.#bytes(value);
  }

  /** Hands what is buffered to the sink. */
  flush(): void {
    if (this.#used === 0 || this.#failed) return;
    const chunk = this.#buffer.slice(0, this.#used);
    this.#used = 0;
    try {
      this.#sink(chunk);
    } catch (error) {
      this.#failed = true;
      this.#error = error;
    }
  }

  /**
   * Writes the statistics of those who record, and what is buffered. Closing twice is harmless.
   * @throws VbusError EIO when the sink failed: the file is incomplete
   */
  close(): void {
    if (this.#closed) return;
    for (const ending of this.#endings) ending();
    this.flush();
    this.#closed = true;
    if (this.#failed) {
      throw new VbusError(
        "EIO",
        `the capture is incomplete, ${this.lost} frames are missing: its sink failed`,
        {
          cause: this.#error,
        },
      );
    }
  }
}

function text(value: string | undefined): Uint8Array | null {
  return value === undefined ? null : utf8.encode(value).subarray(0, 0xfffc);
}

function optionSize(value: Uint8Array | null): number {
  return value === null ? 0 : OPTION_HEADER + pad(value.length);
}
