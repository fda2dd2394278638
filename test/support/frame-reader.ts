import {
  Checksum,
  ENTRY_OFF_FRAGMENT_LIST,
  ENTRY_OFF_FRAGMENTS,
  PIECE_OFF_LENGTH,
  PIECE_SIZE,
} from "vbus/engine";
import type { MemorySpace } from "vbus/memory";
import type { Batch } from "vbus/net";
import { matchesPattern, PATTERN_PERIOD } from "./pattern.js";

const checksums = new WeakMap<MemorySpace, Checksum>();

/** The engine's checksum over a memory. */
export function checksumOf(space: MemorySpace): Checksum {
  let checksum = checksums.get(space);
  if (checksum === undefined) {
    checksum = new Checksum(space);
    checksums.set(space, checksum);
  }
  return checksum;
}

/**
 * One received frame where its sender put it, in one piece or scattered. Nothing is copied until somebody asks for it.
 * Valid as long as the batch.
 */
export class FrameReader {
  length = 0;
  #space!: MemorySpace;
  #count = 0;
  readonly #addresses: number[] = [];
  readonly #lengths: number[] = [];

  /** Turns to frame i of a batch. */
  load(batch: Batch, i: number): void {
    const { table, space } = batch;
    const { words } = space.engine;
    const entry = table.entry(i) >>> 2;
    this.#space = space;
    this.length = table.length(i);
    const pieces = words[entry + (ENTRY_OFF_FRAGMENTS >>> 2)]! >>> 16;
    if (pieces <= 1) {
      this.#count = 1;
      this.#addresses[0] = words[entry]!;
      this.#lengths[0] = this.length;
      return;
    }
    this.#count = pieces;
    let at = words[entry + (ENTRY_OFF_FRAGMENT_LIST >>> 2)]! >>> 2;
    for (let k = 0; k < pieces; k++, at += PIECE_SIZE >>> 2) {
      this.#addresses[k] = words[at]!;
      this.#lengths[k] = words[at + (PIECE_OFF_LENGTH >>> 2)]!;
    }
  }

  /** Copies [at, at + length) of the frame. */
  copy(at: number, length: number, target: Uint8Array, to = 0): void {
    const { bytes } = this.#space; // anew: the memory grows when blocks are allocated
    for (let k = 0; k < this.#count && length > 0; k++) {
      const piece = this.#lengths[k]!;
      if (at < piece) {
        const n = Math.min(piece - at, length);
        const address = this.#addresses[k]! + at;
        target.set(bytes.subarray(address, address + n), to);
        to += n;
        length -= n;
        at = 0;
      } else {
        at -= piece;
      }
    }
  }

  /** One's complement sum of [at, at + length), as 16-bit words in network order, folded. */
  sum(at: number, length: number): number {
    const checksum = checksumOf(this.#space);
    let sum = 0;
    let odd = false;
    for (let k = 0; k < this.#count && length > 0; k++) {
      const piece = this.#lengths[k]!;
      if (at < piece) {
        const n = Math.min(piece - at, length);
        const part = checksum.range(this.#addresses[k]! + at, n);
        sum += odd ? checksum.swap(part) : part;
        if ((n & 1) !== 0) odd = !odd;
        length -= n;
        at = 0;
      } else {
        at -= piece;
      }
    }
    while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
    return ((sum & 0xff) << 8) | (sum >>> 8);
  }

  /** True when [at, at + length) is the pattern from `position` on. */
  matches(at: number, length: number, position: number): boolean {
    const { bytes } = this.#space;
    for (let k = 0; k < this.#count && length > 0; k++) {
      const piece = this.#lengths[k]!;
      if (at < piece) {
        const n = Math.min(piece - at, length);
        if (!matchesPattern(bytes, this.#addresses[k]! + at, n, position)) return false;
        position = (position + n) % PATTERN_PERIOD;
        length -= n;
        at = 0;
      } else {
        at -= piece;
      }
    }
    return true;
  }
}
