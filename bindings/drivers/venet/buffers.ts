import { VbusError } from "../../errors.js";
import type { GuestMemory } from "../../memory/guest.js";

/** Buffers start at cache lines. */
const ALIGN = 64;

/**
 * One frame buffer for each position of a ring, allocated when a position is first used and replaced when the wanted
 * size changed (MTU), so that a new MTU needs no moment at which all buffers change.
 */
export class RingBuffers {
  readonly #gpa: number[];
  readonly #size: number[];
  readonly #address: number[];

  constructor(
    private readonly memory: GuestMemory,
    count: number,
  ) {
    this.#gpa = new Array<number>(count).fill(0);
    this.#size = new Array<number>(count).fill(0);
    this.#address = new Array<number>(count).fill(0);
  }

  /**
   * Makes sure that a position has a buffer, of `size` bytes if there is memory for it. Without, it keeps one of the old
   * size, provided that this is at least `minimum`. Returns whether it has the size wanted.
   * @throws VbusError ENOMEM (an old buffer stays)
   */
  prepare(position: number, size: number, minimum: number): boolean {
    const oldSize = this.#size[position] as number;
    if (oldSize === size) return true;
    try {
      const old = this.#gpa[position] as number;
      const gpa = this.memory.ram.allocate(size, ALIGN);
      if (old !== 0) this.memory.ram.free(old);
      this.#set(position, gpa, size);
      return true;
    } catch (error) {
      if (!(error instanceof VbusError) || error.code !== "ENOMEM" || oldSize === 0) throw error;
      return this.#exchange(position, size, minimum);
    }
  }

  /** Memory is short: the new buffer may fit where the old one was, together with what is free next to it. */
  #exchange(position: number, size: number, minimum: number): boolean {
    const { ram } = this.memory;
    const oldSize = this.#size[position] as number;
    ram.free(this.#gpa[position] as number);
    try {
      this.#set(position, ram.allocate(size, ALIGN), size);
      return true;
    } catch (error) {
      this.#set(position, ram.allocate(oldSize, ALIGN), oldSize); // fits where it just was, at least
      if (oldSize < minimum) throw error;
      return false;
    }
  }

  #set(position: number, gpa: number, size: number): void {
    this.#gpa[position] = gpa;
    this.#size[position] = size;
    this.#address[position] = this.memory.space.translate(gpa, size);
  }

  /** Bytes that the ring takes more when every position has a buffer of `size` bytes. */
  growth(size: number): number {
    const each = Math.ceil(size / ALIGN) * ALIGN;
    return this.#size.reduce((sum, old) => sum + each - old, 0);
  }

  /** Guest-physical address of a position's buffer. */
  gpa(position: number): number {
    return this.#gpa[position] as number;
  }

  /** Its size in bytes. */
  size(position: number): number {
    return this.#size[position] as number;
  }

  /** Where it lies in the memory. */
  address(position: number): number {
    return this.#address[position] as number;
  }

  /** Gives all buffers back. The host must have let go of the ring. Twice is harmless. */
  close(): void {
    for (const gpa of this.#gpa) if (gpa !== 0) this.memory.ram.free(gpa);
    this.#gpa.fill(0);
    this.#size.fill(0);
  }
}
