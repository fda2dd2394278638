/** Smallest buffer. */
const SIZE_MIN = 4096;
/** Free buffers kept of each size. */
const KEPT = 16;

/** Host memory for requests' data, in powers of two, used again. */
export class BufferPool {
  readonly #free = new Map<number, Uint8Array<ArrayBuffer>[]>();

  /** A buffer of at least `length` bytes; its contents are undefined. */
  take(length: number): Uint8Array<ArrayBuffer> {
    const size = 2 ** Math.ceil(Math.log2(Math.max(SIZE_MIN, length)));
    return this.#free.get(size)?.pop() ?? new Uint8Array(size);
  }

  /** Gives one back that nobody touches any more. */
  give(buffer: Uint8Array<ArrayBuffer>): void {
    let free = this.#free.get(buffer.length);
    if (free === undefined) this.#free.set(buffer.length, (free = []));
    if (free.length < KEPT) free.push(buffer);
  }
}
