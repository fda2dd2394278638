import type { Packet } from "./packet.js";
import { patternPosition, SERIAL_LENGTH } from "./pattern.js";
import type { PeerCounters } from "./peer-counters.js";

/** How far behind the latest datagram a number may be to be recognized as new or as a repetition. */
const WINDOW = 65536;

/** Counts and verifies numbered datagrams of the pattern (`pattern.ts`). */
export class DatagramSink {
  datagrams = 0;
  bytes = 0;
  /** Datagrams that were not the pattern. */
  patternErrors = 0;
  /** Datagrams with a number that was there before. */
  duplicates = 0;
  /** Datagrams behind one with a higher number. */
  late = 0;
  /** When the first one and the last one came, in the scheduler's milliseconds. */
  firstAt = -1;
  lastAt = -1;
  #highest = -1;
  /** Bit n % WINDOW: number n was seen. */
  readonly #seen = new Uint32Array(WINDOW >>> 5);

  constructor(
    private readonly seed: number,
    private readonly counters: PeerCounters,
  ) {}

  /** Numbers below the highest that never came. */
  get missing(): number {
    return this.#highest + 1 - (this.#numbered - this.duplicates);
  }

  #numbered = 0;

  /** One datagram, which lies at [at, at + length) of the frame. */
  accept(packet: Packet, at: number, length: number, now: number): void {
    this.datagrams++;
    this.bytes += length;
    if (this.firstAt === -1) this.firstAt = now;
    this.lastAt = now;
    const numbered = length >= SERIAL_LENGTH;
    const serial = numbered ? this.#serial(packet, at) : 0;
    if (numbered) this.#note(serial);
    const skipped = numbered ? SERIAL_LENGTH : 0;
    const position = patternPosition(serial + skipped, this.seed);
    if (!packet.reader.matches(at + skipped, length - skipped, position)) {
      this.patternErrors++;
      this.counters.patternErrors++;
    }
  }

  readonly #number = new Uint8Array(SERIAL_LENGTH);
  readonly #view = new DataView(this.#number.buffer);

  #serial(packet: Packet, at: number): number {
    packet.reader.copy(at, SERIAL_LENGTH, this.#number);
    return this.#view.getUint32(0);
  }

  #note(serial: number): void {
    this.#numbered++;
    const seen = this.#seen;
    if (serial > this.#highest) {
      if (serial - this.#highest >= WINDOW) seen.fill(0);
      else for (let n = this.#highest + 1; n < serial; n++) this.#clear(n);
      this.#highest = serial;
    } else {
      this.late++;
      if (this.#highest - serial >= WINDOW) return;
      if ((seen[(serial % WINDOW) >>> 5]! & (1 << (serial & 31))) !== 0) this.duplicates++;
    }
    seen[(serial % WINDOW) >>> 5]! |= 1 << (serial & 31);
  }

  #clear(serial: number): void {
    this.#seen[(serial % WINDOW) >>> 5]! &= ~(1 << (serial & 31));
  }
}
