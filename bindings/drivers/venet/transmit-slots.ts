import {
  VSG_IOV_OFF_LEN,
  VSG_IOV_OFF_PTR,
  VSG_IOV_SIZE,
  VSG_OFF_COOKIE,
  VSG_OFF_COUNT,
  VSG_OFF_CSUM_START,
  VSG_OFF_FLAGS,
  VSG_OFF_GSO_SIZE,
  VSG_OFF_GSO_TYPE,
  VSG_OFF_LEN,
  VSG_SIZE_FIXED,
} from "../../../assembly/abi/venet.js";
import type { MemorySpace } from "../../memory/space.js";
import type { OutgoingFrame } from "./frames.js";

/** Pieces that a slot has room for: the fragment limit of a kernel with 4 KiB pages. */
export const SLOT_PIECES = 18;
/** Size of a slot (`docs/abi/venet.md` sections 5.2 and 7). */
export const SLOT_SIZE = VSG_SIZE_FIXED + SLOT_PIECES * VSG_IOV_SIZE;

/** A frame without anything to do. */
const PLAIN: Omit<OutgoingFrame, "parts" | "length"> = {
  flags: 0,
  checksumStart: 0,
  checksumOffset: 0,
  type: 0,
  headerLength: 0,
  segmentSize: 0,
};

/**
 * The scatter-gather descriptors of a TX ring: one slot for each ring position, rewritten for each frame
 * (`docs/abi/venet.md` section 5.3). The host copies a slot before it looks at it.
 */
export class TransmitSlots {
  readonly #address: number;

  /**
   * @param space - the guest's memory
   * @param gpa - where the slots lie, a multiple of 64
   * @param count - number of slots
   * @param pooled - the host knows the slots as a pool: descriptors hold offsets
   */
  constructor(
    private readonly space: MemorySpace,
    private readonly gpa: number,
    count: number,
    private readonly pooled: boolean,
  ) {
    this.#address = space.translate(gpa, count * SLOT_SIZE);
  }

  /** What the descriptor at a ring position points to. */
  pointer(position: number): number {
    const offset = position * SLOT_SIZE;
    return this.pooled ? offset : this.gpa + offset;
  }

  /** Describes a frame in one piece. Returns the length of the descriptor. */
  writePlain(position: number, gpa: number, length: number): number {
    this.#head(position, PLAIN, length);
    this.#piece(position, 0, gpa, length);
    return this.#finish(position, 1);
  }

  /** Describes a frame in one piece that leaves work to the host. Returns the length of the descriptor. */
  writeSingle(position: number, frame: OutgoingFrame, gpa: number): number {
    this.#head(position, frame, frame.length);
    this.#piece(position, 0, gpa, frame.length);
    return this.#finish(position, 1);
  }

  /**
   * Describes a frame in blocks of `size` bytes each, the last one less; neighbours become one piece. Returns the length
   * of the descriptor.
   */
  writeBlocks(position: number, frame: OutgoingFrame, blocks: readonly number[], size: number): number {
    this.#head(position, frame, frame.length);
    let count = 0;
    let left = frame.length;
    for (let i = 0; i < blocks.length;) {
      const gpa = blocks[i] as number;
      let run = 1;
      while (blocks[i + run] === gpa + run * size) run++;
      const length = Math.min(left, run * size);
      this.#piece(position, count++, gpa, length);
      left -= length;
      i += run;
    }
    return this.#finish(position, count);
  }

  #head(position: number, frame: Omit<OutgoingFrame, "parts" | "length">, length: number): void {
    const { words } = this.space.engine;
    const at = (this.#address + position * SLOT_SIZE) >>> 2;
    words[at + (VSG_OFF_COOKIE >>> 2)] = position + 1;
    words[at + (VSG_OFF_COOKIE >>> 2) + 1] = 0;
    words[at + (VSG_OFF_FLAGS >>> 2)] = frame.flags;
    words[at + (VSG_OFF_LEN >>> 2)] = length;
    // two 16-bit members to a word: checksum start and offset; type and header length; segment size and padding
    words[at + (VSG_OFF_CSUM_START >>> 2)] = frame.checksumStart | (frame.checksumOffset << 16);
    words[at + (VSG_OFF_GSO_TYPE >>> 2)] = frame.type | (frame.headerLength << 16);
    words[at + (VSG_OFF_GSO_SIZE >>> 2)] = frame.segmentSize;
  }

  #piece(position: number, i: number, gpa: number, length: number): void {
    const { words } = this.space.engine;
    const at = (this.#address + position * SLOT_SIZE + VSG_SIZE_FIXED + i * VSG_IOV_SIZE) >>> 2;
    words[at + (VSG_IOV_OFF_LEN >>> 2)] = length;
    words[at + (VSG_IOV_OFF_PTR >>> 2)] = gpa >>> 0;
    words[at + (VSG_IOV_OFF_PTR >>> 2) + 1] = Math.floor(gpa / 2 ** 32);
  }

  #finish(position: number, count: number): number {
    const { words } = this.space.engine;
    words[(this.#address + position * SLOT_SIZE + VSG_OFF_COUNT) >>> 2] = count;
    const size = VSG_SIZE_FIXED + count * VSG_IOV_SIZE;
    this.space.noteWrite(this.gpa + position * SLOT_SIZE, size);
    return size;
  }
}
