import { ENTRY_SIZE } from "../../assembly/abi/arena.js";
import { BurstTable } from "../engine/table.js";
import { bytesCopied, moveFrames } from "../engine/transfer.js";
import { Batch } from "./batch.js";
import type { FrameStore } from "./frame-store.js";

const FIRST_CAPACITY = 16;

/**
 * A bounded queue of retained frames. Its entries lie in a burst table used as a ring, so that what waits can be handed
 * over as a batch without building one: frames [`start`, `start + run`) of {@link FrameQueue.batch}.
 *
 * The table is allocated at the first frame and grows up to the limit: a thousand queues that nobody fills cost nothing.
 */
export class FrameQueue {
  #table: BurstTable | null = null;
  #batch: Batch | null = null;
  #start = 0;
  #count = 0;
  #bytes = 0;

  /**
   * @param store - where the frames are kept
   * @param maxFrames - most frames
   * @param maxBytes - most bytes of frames
   */
  constructor(
    readonly store: FrameStore,
    readonly maxFrames: number,
    readonly maxBytes: number,
  ) {}

  /** Frames waiting. */
  get count(): number {
    return this.#count;
  }

  /** Bytes of those. */
  get bytes(): number {
    return this.#bytes;
  }

  /** True when a frame of `length` bytes fits. */
  fits(length: number): boolean {
    return this.#count < this.maxFrames && this.#bytes + length <= this.maxBytes;
  }

  /** Number of the oldest frame in {@link FrameQueue.batch}. */
  get start(): number {
    return this.#start;
  }

  /** Frames from `start` on that lie next to each other; 0 when the queue is empty. */
  get run(): number {
    return this.#table === null ? 0 : Math.min(this.#count, this.#table.capacity - this.#start);
  }

  /** The ring as a batch; only entries of waiting frames mean anything. Valid until the next append, push or close. */
  get batch(): Batch {
    if (this.#batch === null) this.#reserve(1); // never otherwise: growing moves `start`, which callers have read
    return this.#batch as Batch;
  }

  /** Copies frames [from, to) to the end, as many as fit. Returns how many. @throws VbusError as `FrameStore.block` */
  append(batch: Batch, from: number, to: number): number {
    return this.#append(batch, from, this.#fitting(batch, from, to));
  }

  /**
   * {@link FrameQueue.append} whatever the limits say: for the rest of a superframe whose first segments are gone
   * already. Returns how many; fewer only when the store has no memory.
   */
  appendAll(batch: Batch, from: number, to: number): number {
    return this.#append(batch, from, to);
  }

  #fitting(batch: Batch, from: number, to: number): number {
    let end = from;
    let bytes = this.#bytes;
    for (const limit = Math.min(to, from + this.maxFrames - this.#count); end < limit; end++) {
      const length = batch.length(end);
      if (bytes + length > this.maxBytes) break;
      bytes += length;
    }
    return end;
  }

  #append(batch: Batch, from: number, end: number): number {
    if (end <= from) return 0;
    const table = this.#reserve(end - from);
    for (let i = from; i < end;) {
      const slot = (this.#start + this.#count) % table.capacity;
      const n = Math.min(end - i, table.capacity - slot);
      if (this.store.prepare(batch, i, table, slot, n) < n) return i - from; // no memory: as good as full
      const { staged } = moveFrames(batch.table, i, i + n, table, slot, slot + n);
      for (let k = 0; k < n; k++) this.store.describe(batch, i + k, table, slot + k);
      this.#count += n;
      const bytes = batch.byteCount(i, i + n);
      this.#bytes += bytes;
      this.store.copiedBytes += bytesCopied(bytes, staged);
      i += n;
    }
    return end - from;
  }

  /** Puts a kept frame at the end; the queue owns it from now on. The caller made sure that it {@link FrameQueue.fits}. */
  push(handle: number): void {
    const table = this.#reserve(1);
    this.store.place(handle, table, (this.#start + this.#count) % table.capacity);
    this.#count++;
    this.#bytes += this.store.length(handle);
  }

  #reserve(n: number): BurstTable {
    const old = this.#table;
    if (old !== null && this.#count + n <= old.capacity) return old;
    const { space } = this.store;
    const wanted = Math.max(this.#count + n, old === null ? FIRST_CAPACITY : 2 * old.capacity);
    const table = BurstTable.allocate(space, Math.max(this.#count + n, Math.min(wanted, this.maxFrames)));
    space.bytes.fill(0, table.address, table.entry(table.capacity));
    if (old !== null) {
      for (let i = 0; i < this.#count; i++) {
        const from = old.entry((this.#start + i) % old.capacity);
        space.bytes.copyWithin(table.entry(i), from, from + ENTRY_SIZE);
      }
      old.close();
    }
    this.#table = table;
    this.#batch = new Batch(table);
    this.#batch.count = table.capacity;
    this.#start = 0;
    return table;
  }

  /** Takes the n oldest frames out and gives them back to the store. */
  shift(n: number): void {
    const table = this.#table;
    if (table === null) return;
    for (let i = 0; i < n; i++) {
      this.#bytes -= table.length(this.#start);
      this.store.release(this.store.handleAt(table.bufferAddress(this.#start)));
      this.#start = this.#start + 1 === table.capacity ? 0 : this.#start + 1;
    }
    this.#count -= n;
    if (this.#count === 0) this.#start = 0; // the longest runs
  }

  /** Takes all frames out. Returns how many there were. */
  clear(): number {
    const n = this.#count;
    this.shift(n);
    return n;
  }

  /** Takes all frames out and gives the table back. The queue may be used again. */
  close(): void {
    this.clear();
    this.#table?.close();
    this.#table = null;
    this.#batch = null;
  }
}
