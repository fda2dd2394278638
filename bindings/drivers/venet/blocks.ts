import { VbusError } from "../../errors.js";
import type { ProxyDevice } from "../proxy.js";

/** Size of a block: with 16 of them, fewer than a VSG has pieces, the longest superframe fits. */
export const BLOCK_SIZE = 4096;
/** Blocks that guest memory is taken for at once: one of the longest superframes. */
const CHUNK = 16;

/**
 * Blocks of guest memory for superframes: taken from the guest as they are needed, up to a limit, used again and again,
 * and given back with the device. Blocks that lie next to each other come out in that order as long as they were given
 * back in the order in which they came, so that most superframes are few pieces.
 */
export class BlockPool {
  readonly #free: number[] = [];
  #total = 0;
  #used = 0;
  readonly #most: number;

  /**
   * @param device - opened; owns the memory
   * @param limit - most bytes, at least one longest superframe
   */
  constructor(
    private readonly device: ProxyDevice,
    limit: number,
  ) {
    this.#most = Math.floor(limit / (CHUNK * BLOCK_SIZE)) * CHUNK;
  }

  /** Blocks in use. */
  get used(): number {
    return this.#used;
  }

  /**
   * Takes the blocks for `length` bytes: guest-physical addresses. Null while too many are in use.
   * @throws VbusError ENOMEM when the guest has no memory for them and none is in use that could come back
   */
  take(length: number): number[] | null {
    const wanted = Math.ceil(length / BLOCK_SIZE);
    while (this.#free.length < wanted) if (!this.#grow()) return null;
    this.#used += wanted;
    return this.#free.splice(this.#free.length - wanted, wanted).reverse();
  }

  #grow(): boolean {
    if (this.#total + CHUNK > this.#most) return false;
    let gpa: number;
    try {
      gpa = this.device.lend(CHUNK * BLOCK_SIZE, BLOCK_SIZE);
    } catch (error) {
      if (this.#used === 0 || !(error instanceof VbusError) || error.code !== "ENOMEM") throw error;
      return false;
    }
    this.#total += CHUNK;
    for (let i = CHUNK - 1; i >= 0; i--) this.#free.push(gpa + i * BLOCK_SIZE);
    return true;
  }

  /** Gives blocks back that {@link BlockPool.take} gave. */
  give(blocks: readonly number[]): void {
    this.#used -= blocks.length;
    for (let i = blocks.length - 1; i >= 0; i--) this.#free.push(blocks[i] as number);
  }
}
