/** Most ranges kept. */
const RANGES_MAX = 256;

/** A set of numbers as ranges [start, end), in order, none touching another: what came out of order, or was acknowledged so. */
export class Ranges {
  readonly starts: number[] = [];
  readonly ends: number[] = [];

  get count(): number {
    return this.starts.length;
  }

  /** Numbers in the set. */
  get total(): number {
    let sum = 0;
    for (let i = 0; i < this.count; i++) sum += this.ends[i]! - this.starts[i]!;
    return sum;
  }

  /** End of the last range, 0 when there is none. */
  get end(): number {
    return this.ends[this.count - 1] ?? 0;
  }

  /** Adds [start, end). False, and nothing is added, when there are too many ranges already. */
  add(start: number, end: number): boolean {
    if (start >= end) return true;
    const { starts, ends } = this;
    let i = 0;
    while (i < starts.length && ends[i]! < start) i++;
    let j = i;
    while (j < starts.length && starts[j]! <= end) j++;
    if (i === j && starts.length >= RANGES_MAX) return false;
    if (j > i) {
      start = Math.min(start, starts[i]!);
      end = Math.max(end, ends[j - 1]!);
    }
    starts.splice(i, j - i, start);
    ends.splice(i, j - i, end);
    return true;
  }

  /** First number >= `from` that is not in the set. */
  gapFrom(from: number): number {
    for (let i = 0; i < this.count; i++) {
      if (from < this.starts[i]!) return from;
      if (from < this.ends[i]!) from = this.ends[i]!;
    }
    return from;
  }

  /** Start of the first range behind `from`, Infinity when there is none. */
  nextStart(from: number): number {
    for (const start of this.starts) if (start > from) return start;
    return Infinity;
  }

  /** Forgets everything below `limit`. */
  dropBelow(limit: number): void {
    while (this.count > 0 && this.ends[0]! <= limit) {
      this.starts.shift();
      this.ends.shift();
    }
    if (this.count > 0 && this.starts[0]! < limit) this.starts[0] = limit;
  }

  clear(): void {
    this.starts.length = 0;
    this.ends.length = 0;
  }
}
