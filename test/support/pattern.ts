import type { MemorySpace } from "vbus/memory";

/*
 * The pattern that all test streams consist of.
 *
 *     table[i], 0 <= i < 65521, comes from a linear congruential generator:
 *
 *         uint32_t x = 1;
 *         for (i = 0; i < 65521; i++) {
 *             x = x * 1664525u + 1013904223u;
 *             table[i] = x >> 24;
 *         }
 *
 *     byte `offset` of a stream with seed `seed`  =  table[(offset + seed) % 65521]
 *
 * Offsets count from 0 at the first byte of a TCP stream, in each direction on its own; they do not wrap at 2^32. A
 * program without 64-bit division keeps `position = (offset + seed) % 65521` and, after n <= 65521 bytes, does
 * `position += n; if (position >= 65521) position -= 65521`. With the table twice in a row in memory, any 65521 bytes of
 * a stream are one block of it.
 *
 * A datagram with number n (from 0) starts with n as 4 bytes in network order; each byte k >= 4 of it (k counted from the
 * start of the datagram) is table[(n + k + seed) % 65521]. Datagrams of fewer than 4 bytes have no number; they are
 * the first bytes of the number 0.
 *
 * 65521 is a prime, so that no loss or repetition of whole segments, pages or windows goes unnoticed.
 */

/** Length of the table: the pattern repeats after so many bytes. */
export const PATTERN_PERIOD = 65521;
/** Length of a datagram's number. */
export const SERIAL_LENGTH = 4;

/** The table twice in a row: any {@link PATTERN_PERIOD} bytes of a stream are one block of it. */
const block = new Uint8Array(2 * PATTERN_PERIOD);
for (let i = 0, x = 1; i < block.length; i++) {
  if (i === PATTERN_PERIOD) x = 1;
  x = (Math.imul(x, 1664525) + 1013904223) >>> 0;
  block[i] = x >>> 24;
}

/** Whether `n` bytes at `at` are those of the table at `start`. */
type Equals = (bytes: Uint8Array, at: number, n: number, start: number) => boolean;

function equalsByLoop(bytes: Uint8Array, at: number, n: number, start: number): boolean {
  for (let i = 0; i < n; i++) if (bytes[at + i] !== block[start + i]) return false;
  return true;
}

/** Node compares memory in one call; pages have nothing of the kind. */
function equalsInNode(): Equals {
  const table = Buffer.from(block.buffer);
  return (bytes, at, n, start) => table.compare(bytes, at, at + n, start, start + n) === 0;
}

const equals: Equals = "Buffer" in globalThis ? equalsInNode() : equalsByLoop;

/** Place in the table of a byte of a stream. */
export function patternPosition(offset: number, seed: number): number {
  return (offset + seed) % PATTERN_PERIOD;
}

/** True when `length` bytes at `at` are what follows `position` (of {@link patternPosition}). */
export function matchesPattern(bytes: Uint8Array, at: number, length: number, position: number): boolean {
  for (let done = 0; done < length;) {
    const n = Math.min(length - done, PATTERN_PERIOD);
    const start = (position + done) % PATTERN_PERIOD;
    if (!equals(bytes, at + done, n, start)) return false;
    done += n;
  }
  return true;
}

/** A copy of `length` bytes of a stream. Yours. */
export function patternBytes(offset: number, seed: number, length: number): Uint8Array<ArrayBuffer> {
  const copy = new Uint8Array(length);
  for (let done = 0; done < length; done += PATTERN_PERIOD) {
    const start = patternPosition(offset + done, seed);
    copy.set(block.subarray(start, start + Math.min(PATTERN_PERIOD, length - done)), done);
  }
  return copy;
}

/** The pattern in a memory, so that frames can consist of slices of it: nobody ever copies what is sent. */
export class PatternMemory {
  readonly #address: number;

  /** @throws VbusError ENOMEM */
  constructor(private readonly space: MemorySpace) {
    this.#address = space.allocate(block.length, 64);
    space.bytes.set(block, this.#address);
  }

  /** Address of up to {@link PATTERN_PERIOD} bytes of a stream. Nobody may write there. */
  at(offset: number, seed: number): number {
    return this.#address + patternPosition(offset, seed);
  }

  /** Gives the memory back. */
  close(): void {
    this.space.free(this.#address);
  }
}
