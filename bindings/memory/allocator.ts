import { VbusError } from "../errors.js";

/** Where an allocation must lie: at an address ≡ `offset` (mod `align`). */
export interface Placement {
  /** Power of two, at least 1. */
  align: number;
  /** Less than `align`. Rings start ≡ 8 (mod 64), so that no descriptor straddles a cache line. */
  offset?: number;
}

/**
 * First-fit allocator over a range of numbers (addresses or guest-physical addresses). It keeps its books in JavaScript,
 * out of everybody's reach, and touches no memory.
 */
export class RangeAllocator {
  /** Free blocks by start, in order; neighbours are merged. */
  #free: { start: number; size: number }[];
  #used = new Map<number, number>();

  /**
   * @param start - first number of the range; must not be 0, which means "none" everywhere
   * @param size - length of the range
   * @param what - name for messages, such as "arena"
   */
  constructor(
    readonly start: number,
    readonly size: number,
    readonly what: string,
  ) {
    this.#free = [{ start, size }];
  }

  /**
   * Takes `size` numbers. Freed with {@link RangeAllocator.free}.
   * @throws VbusError ENOMEM when no block is large enough; EINVAL for a size below 1
   */
  allocate(size: number, placement: number | Placement = 16): number {
    if (!Number.isSafeInteger(size) || size < 1) {
      throw new VbusError(
        "EINVAL",
        `cannot allocate ${size} bytes from the ${this.what}; ask for a whole number above 0`,
      );
    }
    const { align, offset = 0 } = typeof placement === "number" ? { align: placement } : placement;
    for (let i = 0; i < this.#free.length; i++) {
      const block = this.#free[i] as { start: number; size: number };
      const at = Math.ceil((block.start - offset) / align) * align + offset;
      const skipped = at - block.start;
      if (block.size < skipped + size) continue;
      const rest = block.size - skipped - size;
      const parts = [];
      if (skipped > 0) parts.push({ start: block.start, size: skipped });
      if (rest > 0) parts.push({ start: at + size, size: rest });
      this.#free.splice(i, 1, ...parts);
      this.#used.set(at, size);
      return at;
    }
    throw new VbusError(
      "ENOMEM",
      `the ${this.what} has no ${size} bytes left in one piece (${this.available} free in all); make it larger`,
    );
  }

  /** Gives an allocation back. @throws VbusError EINVAL when nothing starts there. */
  free(start: number): void {
    const size = this.#used.get(start);
    if (size === undefined)
      throw new VbusError("EINVAL", `nothing was allocated at ${start} in the ${this.what}`);
    this.#used.delete(start);
    let low = 0;
    let high = this.#free.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#free[middle] as { start: number }).start < start) low = middle + 1;
      else high = middle;
    }
    const before = this.#free[low - 1];
    const after = this.#free[low];
    const joinsBefore = before !== undefined && before.start + before.size === start;
    const joinsAfter = after !== undefined && start + size === after.start;
    if (joinsBefore && joinsAfter) {
      before.size += size + after.size;
      this.#free.splice(low, 1);
    } else if (joinsBefore) {
      before.size += size;
    } else if (joinsAfter) {
      after.start = start;
      after.size += size;
    } else {
      this.#free.splice(low, 0, { start, size });
    }
  }

  /** Adds the numbers that follow the range, after the memory behind it grew. */
  extend(size: number): void {
    const start = this.end;
    this.#extra += size;
    this.#used.set(start, size);
    this.free(start);
  }

  #extra = 0;

  /** First number behind the range. */
  get end(): number {
    return this.start + this.size + this.#extra;
  }

  /** Numbers free in all. */
  get available(): number {
    return this.#free.reduce((sum, block) => sum + block.size, 0);
  }
}
