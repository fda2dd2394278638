import type { GuestMemory } from "../../memory/guest.js";

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

  /** Makes sure that a position has a buffer of exactly `size` bytes. @throws VbusError ENOMEM (the old buffer stays) */
  prepare(position: number, size: number): void {
    if (this.#size[position] === size) return;
    const gpa = this.memory.ram.allocate(size, 64);
    const old = this.#gpa[position] as number;
    if (old !== 0) this.memory.ram.free(old);
    this.#gpa[position] = gpa;
    this.#size[position] = size;
    this.#address[position] = this.memory.space.translate(gpa, size);
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

  /** Gives all buffers back. The host must have let go of the ring. */
  close(): void {
    for (const gpa of this.#gpa) if (gpa !== 0) this.memory.ram.free(gpa);
    this.#gpa.fill(0);
    this.#size.fill(0);
  }
}
