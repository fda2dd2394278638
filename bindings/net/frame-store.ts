import {
  ENTRY_OFF_COOKIE,
  ENTRY_OFF_FLAGS,
  ENTRY_OFF_HEAD,
  ENTRY_OFF_LENGTH,
  ENTRY_HEAD_SIZE,
  ENTRY_SIZE,
  FRAME_CSUM_VALID,
  FRAME_TOO_LONG,
} from "../../assembly/abi/arena.js";
import { BurstTable } from "../engine/table.js";
import { bytesCopied, copyOffload, moveFrames } from "../engine/transfer.js";
import { VbusError } from "../errors.js";
import { checkSpace, type MemorySpace } from "../memory/space.js";
import { Batch } from "./batch.js";

/** Longest frame that a store keeps, in bytes: MTU 65000, header and tags fit. */
export const FRAME_LENGTH_MAX = 65536;

/*
 * A block:
 *
 *     +0   table entry of the frame (ENTRY_SIZE); its cookie word holds the block's size class
 *     +64  the frame, up to the size of the class
 *
 * A handle is the address of a block. Tables that hold retained frames point at +64.
 */
const CLASS_SIZES = [
  64,
  128,
  256,
  512,
  1024,
  1536,
  2048,
  4096,
  8192,
  16384,
  32768,
  FRAME_LENGTH_MAX,
] as const;
const SLAB_SIZE = 65536;

/**
 * Keeps copies of frames in one memory (the host's, `MemorySpace.host()`), with their offload data. Blocks come from free
 * lists by size class and go back to them; memory goes back to the space at {@link FrameStore.close}. The store does not
 * limit itself: whoever keeps frames in it has a bound of his own (an egress queue, a delay line).
 *
 * One thread. A handle is valid from `keep` to `release`.
 */
export class FrameStore {
  readonly #free: number[][] = CLASS_SIZES.map(() => []);
  readonly #slabs: number[] = [];
  readonly #scratch: BurstTable;
  #frames = 0;
  #closed = false;

  /**
   * @param space - memory that the copies live in
   * @throws VbusError EINVAL for anything that is none, such as a promise of one
   */
  constructor(readonly space: MemorySpace) {
    checkSpace(space, "`space` is", "await MemorySpace.host()");
    this.#scratch = BurstTable.allocate(space, 1);
    space.bytes.fill(0, this.#scratch.address, this.#scratch.address + ENTRY_SIZE);
  }

  /** Bytes copied so far to keep frames: once each, or three times where frames of another memory were staged. */
  copiedBytes = 0;

  /** Frames kept at this moment. */
  get frames(): number {
    return this.#frames;
  }

  /** Bytes taken from the space, free blocks included. */
  get footprint(): number {
    return this.#slabs.reduce((sum, slab) => sum + slabSize(this.#slabClass.get(slab) ?? 0), 0);
  }

  readonly #slabClass = new Map<number, number>();

  /**
   * A block for a frame of `length` bytes, or 0 when the space has no memory left; its contents are undefined. For
   * tables that the caller fills himself.
   * @throws VbusError EINVAL for a longer frame than FRAME_LENGTH_MAX; ENOTCONN after close
   */
  block(length: number): number {
    this.#checkOpen();
    const sizeClass = classOf(length);
    const free = this.#free[sizeClass] as number[];
    if (free.length === 0 && !this.#addSlab(sizeClass, free)) return 0;
    this.#frames++;
    return free.pop() as number;
  }

  #checkOpen(): void {
    if (this.#closed) throw new VbusError("ENOTCONN", "the frame store is closed; make a new one");
  }

  #addSlab(sizeClass: number, free: number[]): boolean {
    const blockSize = ENTRY_SIZE + (CLASS_SIZES[sizeClass] as number);
    const size = slabSize(sizeClass);
    const slab = tryAllocate(this.space, size);
    if (slab === 0) return false;
    this.#slabs.push(slab);
    this.#slabClass.set(slab, sizeClass);
    const { words } = this.space.engine;
    for (let at = slab + size - blockSize; at >= slab; at -= blockSize) {
      words[(at + ENTRY_OFF_COOKIE) >>> 2] = sizeClass;
      free.push(at);
    }
    return true;
  }

  /** Where the frame of a block lies. */
  frameAddress(handle: number): number {
    return handle + ENTRY_SIZE;
  }

  /** Block of a frame that lies at `address`. */
  handleAt(address: number): number {
    return address - ENTRY_SIZE;
  }

  /**
   * Copies frame i of a batch. The handle is yours until {@link FrameStore.release}; 0: no memory left.
   * @throws VbusError as `block`
   */
  keep(batch: Batch, i: number): number {
    const length = batch.length(i);
    const handle = this.block(length);
    if (handle === 0) return 0;
    const scratch = this.#scratch;
    scratch.setBuffer(0, this.frameAddress(handle), length);
    const { staged } = moveFrames(batch.table, i, i + 1, scratch, 0, 1);
    this.copiedBytes += bytesCopied(length, staged);
    this.describe(batch, i, scratch, 0);
    this.space.bytes.copyWithin(handle, scratch.address, scratch.address + ENTRY_OFF_COOKIE);
    return handle;
  }

  /** Keeps a finished frame of these bytes. Yours until {@link FrameStore.release}; 0: no memory left. @throws VbusError as `block` */
  keepBytes(frame: Uint8Array): number {
    const handle = this.block(frame.length);
    if (handle === 0) return 0;
    const { bytes, words } = this.space.engine;
    const address = this.frameAddress(handle);
    bytes.set(frame, address);
    bytes.fill(0, handle, handle + ENTRY_OFF_COOKIE);
    words[handle >>> 2] = address;
    words[(handle + ENTRY_OFF_LENGTH) >>> 2] = frame.length;
    bytes.fill(0, handle + ENTRY_OFF_HEAD, handle + ENTRY_OFF_HEAD + ENTRY_HEAD_SIZE);
    bytes.set(frame.subarray(0, ENTRY_HEAD_SIZE), handle + ENTRY_OFF_HEAD);
    return handle;
  }

  /** Copies a kept frame. Yours until {@link FrameStore.release}; 0: no memory left. */
  duplicate(handle: number): number {
    const length = this.length(handle);
    const copy = this.block(length);
    if (copy === 0) return 0;
    const { bytes } = this.space;
    bytes.copyWithin(copy, handle, handle + ENTRY_OFF_COOKIE);
    bytes.copyWithin(copy + ENTRY_SIZE, handle + ENTRY_SIZE, handle + ENTRY_SIZE + length);
    this.copiedBytes += length;
    this.space.engine.words[copy >>> 2] = this.frameAddress(copy);
    return copy;
  }

  /**
   * Points entries [j, j + n) of a table of this memory at new blocks, as long as frames [from, from + n) of a batch.
   * Returns n, or 0 when there is not enough memory.
   * @throws VbusError as `block`
   */
  prepare(batch: Batch, from: number, table: BurstTable, j: number, n: number): number {
    for (let k = 0; k < n; k++) {
      const length = batch.length(from + k);
      const handle = this.block(length);
      if (handle === 0) {
        while (k-- > 0) this.release(this.handleAt(table.bufferAddress(j + k)));
        return 0;
      }
      table.setBuffer(j + k, this.frameAddress(handle), length);
    }
    return n;
  }

  /** Copies the offload data of frame i to entry j; results of other receivers do not go with it. */
  describe(batch: Batch, i: number, table: BurstTable, j: number): void {
    copyOffload(batch.table, i, table, j);
    table.setFlags(j, table.flags(j) & ~FRAME_TOO_LONG);
  }

  /** Length of a kept frame in bytes. */
  length(handle: number): number {
    return this.space.engine.words[(handle + ENTRY_OFF_LENGTH) >>> 2] as number;
  }

  /** Copies the description of a kept frame to entry j of a table of this memory. */
  place(handle: number, table: BurstTable, j: number): void {
    this.space.bytes.copyWithin(table.entry(j), handle, handle + ENTRY_SIZE);
  }

  /** Inverts one bit of a kept frame, in its private head copy too; nobody may call its checksum verified any more. */
  flipBit(handle: number, bit: number): void {
    const at = bit >>> 3;
    const { bytes, words } = this.space.engine;
    const value = (bytes[handle + ENTRY_SIZE + at] as number) ^ (1 << (bit & 7));
    bytes[handle + ENTRY_SIZE + at] = value;
    if (at < ENTRY_HEAD_SIZE) bytes[handle + ENTRY_OFF_HEAD + at] = value;
    const flags = (handle + ENTRY_OFF_FLAGS) >>> 2;
    words[flags] = (words[flags] as number) & ~FRAME_CSUM_VALID;
  }

  /** Gives a frame back. */
  release(handle: number): void {
    if (this.#closed) return;
    const sizeClass = this.space.engine.words[(handle + ENTRY_OFF_COOKIE) >>> 2] as number;
    (this.#free[sizeClass] as number[]).push(handle);
    this.#frames--;
  }

  /**
   * Copies frames [from, to) of a batch into a batch of their own. Yours until its `release()`.
   * @throws VbusError ENOMEM; EINVAL and ENOTCONN as `block`
   */
  retain(batch: Batch, from: number, to: number): RetainedBatch {
    this.#checkOpen();
    for (let i = from; i < to; i++) classOf(batch.length(i)); // before anything is allocated
    const n = Math.max(0, to - from);
    const table = BurstTable.allocate(this.space, Math.max(1, n));
    if (this.prepare(batch, from, table, 0, n) < n) {
      table.close();
      throw new VbusError("ENOMEM", `no memory left to retain ${n} frames; release some`);
    }
    const { staged } = moveFrames(batch.table, from, to, table, 0, n);
    this.copiedBytes += bytesCopied(batch.byteCount(from, to), staged);
    for (let j = 0; j < n; j++) this.describe(batch, from + j, table, j);
    return new RetainedBatch(this, table, n);
  }

  /** Gives all memory back to the space; every handle is dead. Closing twice is harmless. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const slab of this.#slabs) this.space.free(slab);
    this.#slabs.length = 0;
    this.#slabClass.clear();
    this.#scratch.close();
    this.#frames = 0;
  }
}

function tryAllocate(space: MemorySpace, size: number): number {
  try {
    return space.allocate(size, 64);
  } catch (error) {
    if (error instanceof VbusError && error.code === "ENOMEM") return 0; // callers push back or drop, and count it
    throw error;
  }
}

function classOf(length: number): number {
  for (let i = 0; i < CLASS_SIZES.length; i++) if (length <= (CLASS_SIZES[i] as number)) return i;
  throw new VbusError(
    "EINVAL",
    `a frame of ${length} bytes; the longest that is kept has ${FRAME_LENGTH_MAX}`,
  );
}

function slabSize(sizeClass: number): number {
  const blockSize = ENTRY_SIZE + (CLASS_SIZES[sizeClass] as number);
  return Math.max(1, Math.floor(SLAB_SIZE / blockSize)) * blockSize;
}

/** Frames that were copied to the host's memory (`Batch.retain`). Valid until {@link RetainedBatch.release}. */
export class RetainedBatch extends Batch {
  #released = false;

  /** Made by `Batch.retain` and `FrameStore.retain`. */
  constructor(
    private readonly store: FrameStore,
    table: BurstTable,
    count: number,
  ) {
    super(table);
    this.count = count;
  }

  /** Gives the frames back. Twice is harmless. */
  release(): void {
    if (this.#released) return;
    this.#released = true;
    for (let i = 0; i < this.count; i++) this.store.release(this.store.handleAt(this.table.bufferAddress(i)));
    this.count = 0;
    this.table.close();
  }
}
