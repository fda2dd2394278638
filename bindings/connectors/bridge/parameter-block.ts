import type { MemorySpace } from "../../memory/space.js";

/** Room for the largest block that is copied in. */
const SIZE = 64;

/**
 * A guest's parameter block, as the bridge reads it: copied once into the arena, where no guest can change it, and looked at
 * only there. Addresses come in two 32-bit halves and are translated in 64 bits.
 */
export class ParameterBlock {
  readonly #copy: number;

  /** @throws VbusError ENOMEM when the arena is exhausted */
  constructor(private readonly memory: MemorySpace) {
    this.#copy = memory.allocate(SIZE, 64);
  }

  /** Where a guest range lies, 0 when any byte of it is outside of the guest's memory. */
  translate(low: number, high: number, length: number): number {
    const { memory } = this;
    return memory.engine.exports.translate(memory.regionTable, low, high, length) >>> 0;
  }

  /** Copies a block of at most 64 bytes, which is never read again. False: it is outside of the guest's memory. double fetch: this is the only one */
  fetch(low: number, high: number, length: number): boolean {
    const address = this.translate(low, high, length);
    if (address === 0) return false;
    this.memory.bytes.copyWithin(this.#copy, address, address + length);
    return true;
  }

  /** 32 bits of the copy, unsigned. */
  word(offset: number): number {
    return this.memory.engine.data.getUint32(this.#copy + offset, true);
  }

  /** A 64-bit address of the copy. Inexact above 2^53, where no guest has memory: translation fails there. */
  gpa(offset: number): number {
    return this.word(offset) + this.word(offset + 4) * 2 ** 32;
  }

  /** Where a member of the copy lies in the memory. Valid until the next {@link ParameterBlock.fetch}. */
  address(offset: number): number {
    return this.#copy + offset;
  }

  /** Stores 64 bits, of which 32 mean something, into the guest's own block, which was translated. */
  store64(address: number, low: number, high: number, offset: number, value: number): void {
    const { memory } = this;
    memory.engine.data.setUint32(address + offset, value, true);
    memory.engine.data.setUint32(address + offset + 4, 0, true);
    memory.noteWrite(low + high * 2 ** 32 + offset, 8);
  }

  /** Gives the copy's room back. */
  close(): void {
    this.memory.free(this.#copy);
  }
}
