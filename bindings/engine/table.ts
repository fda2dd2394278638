import {
  ENTRY_OFF_ADDRESS,
  ENTRY_OFF_COOKIE,
  ENTRY_OFF_FLAGS,
  ENTRY_OFF_FRAGMENT_LIST,
  ENTRY_OFF_FRAGMENTS,
  ENTRY_OFF_GPA,
  ENTRY_OFF_HEAD,
  ENTRY_OFF_LENGTH,
  ENTRY_OFF_POSITION,
  ENTRY_SIZE,
  PIECE_OFF_ADDRESS,
  PIECE_OFF_GPA,
  PIECE_OFF_LENGTH,
  PIECE_SIZE,
} from "../../assembly/abi/arena.js";
import type { MemorySpace } from "../memory/space.js";

/**
 * A burst table in an arena: up to `capacity` entries of 64 bytes that the engine fills and reads
 * (layout: `assembly/abi/arena.ts`). Entry numbers are 0 … capacity-1; callers pass only numbers that the engine granted.
 * Lengths and addresses come out unsigned. Used by one thread; valid until {@link BurstTable.close}.
 */
export class BurstTable {
  #closed = false;

  private constructor(
    /** The memory that holds the table and what its entries point to. */
    readonly space: MemorySpace,
    /** Address of entry 0. */
    readonly address: number,
    /** Number of entries. */
    readonly capacity: number,
  ) {}

  /** Allocates a table of `capacity` entries in the space's arena. @throws VbusError ENOMEM */
  static allocate(space: MemorySpace, capacity: number): BurstTable {
    return new BurstTable(space, space.allocate(capacity * ENTRY_SIZE, 64), capacity);
  }

  /** Address of an entry. */
  entry(i: number): number {
    return this.address + i * ENTRY_SIZE;
  }

  /** Where the buffer lies in the memory; 0: outside the guest's memory (never dereference). */
  bufferAddress(i: number): number {
    return this.space.engine.words[(this.entry(i) + ENTRY_OFF_ADDRESS) >>> 2] as number;
  }

  /** Payload length, or a posted buffer's capacity, in bytes. */
  length(i: number): number {
    return this.space.engine.words[(this.entry(i) + ENTRY_OFF_LENGTH) >>> 2] as number;
  }

  /** Sets the length that a commit writes to the descriptor. */
  setLength(i: number, length: number): void {
    this.space.engine.words[(this.entry(i) + ENTRY_OFF_LENGTH) >>> 2] = length;
  }

  /** `FRAME_…` flags. */
  flags(i: number): number {
    return this.space.engine.words[(this.entry(i) + ENTRY_OFF_FLAGS) >>> 2] as number;
  }

  /** Sets the flags. */
  setFlags(i: number, flags: number): void {
    this.space.engine.words[(this.entry(i) + ENTRY_OFF_FLAGS) >>> 2] = flags;
  }

  /** Ring position of the descriptor. */
  position(i: number): number {
    return this.space.engine.words[(this.entry(i) + ENTRY_OFF_POSITION) >>> 2] as number;
  }

  /** Guest-physical address of the buffer (exact below 2^53). */
  gpa(i: number): number {
    const at = (this.entry(i) + ENTRY_OFF_GPA) >>> 2;
    const words = this.space.engine.words;
    return (words[at] as number) + (words[at + 1] as number) * 2 ** 32;
  }

  /** Sets the guest-physical address that a commit writes to the descriptor. */
  setGpa(i: number, gpa: number): void {
    const at = (this.entry(i) + ENTRY_OFF_GPA) >>> 2;
    const words = this.space.engine.words;
    words[at] = gpa >>> 0;
    words[at + 1] = Math.floor(gpa / 2 ** 32);
  }

  /** Low half of the cookie: all that a TypeScript driver uses. South never needs it. */
  cookie(i: number): number {
    return this.space.engine.words[(this.entry(i) + ENTRY_OFF_COOKIE) >>> 2] as number;
  }

  /** Sets the cookie to a 32-bit number. */
  setCookie(i: number, cookie: number): void {
    const at = (this.entry(i) + ENTRY_OFF_COOKIE) >>> 2;
    const words = this.space.engine.words;
    words[at] = cookie;
    words[at + 1] = 0;
  }

  /** Sets address and length of a buffer that this thread vouches for (it lies inside the memory). */
  setBuffer(i: number, address: number, length: number): void {
    const at = this.entry(i) >>> 2;
    const words = this.space.engine.words;
    words[at + (ENTRY_OFF_ADDRESS >>> 2)] = address;
    words[at + (ENTRY_OFF_LENGTH >>> 2)] = length;
    // flags, checksum positions, segmentation, fragments: an ordinary frame in one piece
    words.fill(0, at + (ENTRY_OFF_FLAGS >>> 2), at + (ENTRY_OFF_POSITION >>> 2));
  }

  /** Byte `offset` (0 … 15) of the private copy of the frame's head (filled by peeks with `BURST_HEAD`). */
  headByte(i: number, offset: number): number {
    return this.space.engine.bytes[this.entry(i) + ENTRY_OFF_HEAD + offset] as number;
  }

  /** Number of pieces that a frame is scattered over, at least 1. */
  fragments(i: number): number {
    return Math.max(1, this.space.engine.data.getUint16(this.entry(i) + ENTRY_OFF_FRAGMENTS, true));
  }

  /** Where piece k of a frame lies, and how long it is. Borrowed like the frame. */
  piece(i: number, k: number): { address: number; length: number; gpa: number } {
    const { words } = this.space.engine;
    const entry = this.entry(i);
    if (this.fragments(i) === 1)
      return { address: this.bufferAddress(i), length: this.length(i), gpa: this.gpa(i) };
    const at = ((words[(entry + ENTRY_OFF_FRAGMENT_LIST) >>> 2] as number) + k * PIECE_SIZE) >>> 2;
    return {
      address: words[at + (PIECE_OFF_ADDRESS >>> 2)] as number,
      length: words[at + (PIECE_OFF_LENGTH >>> 2)] as number,
      gpa:
        (words[at + (PIECE_OFF_GPA >>> 2)] as number) +
        (words[at + (PIECE_OFF_GPA >>> 2) + 1] as number) * 2 ** 32,
    };
  }

  /**
   * The frame's bytes. In one piece: borrowed from the guest, valid until its descriptor is released or the memory
   * grows. Scattered: a copy.
   */
  bytes(i: number): Uint8Array {
    const pieces = this.fragments(i);
    const { bytes } = this.space.engine;
    if (pieces === 1) {
      const address = this.bufferAddress(i);
      return bytes.subarray(address, address + (address === 0 ? 0 : this.length(i)));
    }
    const copy = new Uint8Array(this.length(i));
    for (let k = 0, at = 0; k < pieces && at < copy.length; k++) {
      const { address, length } = this.piece(i, k);
      const n = Math.min(length, copy.length - at);
      copy.set(bytes.subarray(address, address + n), at);
      at += n;
    }
    return copy;
  }

  /** Gives the table's memory back. Closing twice is harmless. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.space.free(this.address);
  }
}
