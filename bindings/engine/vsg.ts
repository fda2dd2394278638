import { PIECE_SIZE } from "../../assembly/abi/arena.js";
import { VSG_IOVS_MAX, VSG_SIZE_MAX } from "../../assembly/abi/venet.js";
import { checkResult } from "../errors.js";
import type { MemorySpace } from "../memory/space.js";
import type { Queue } from "./queue.js";
import { BurstTable } from "./table.js";

/** A segment without a signal that descriptors point into by offset. */
export interface DescriptorPool {
  /** Guest-physical address. */
  readonly gpa: number;
  /** Length in bytes. */
  readonly length: number;
}

const low = (gpa: number): number => gpa >>> 0;
const high = (gpa: number): number => Math.floor(gpa / 2 ** 32);
const BROKEN = "the guest broke the protocol of this ring; it must open the device again";

/** A table, or none of both. @throws VbusError ENOMEM */
function tableOrFree(space: MemorySpace, capacity: number, lists: number): BurstTable {
  try {
    return BurstTable.allocate(space, capacity);
  } catch (error) {
    space.free(lists);
    throw error;
  }
}

/** South of a TX ring whose descriptors are scatter-gather descriptors (`docs/abi/venet.md` 5.2 to 5.4). */
export class VsgReader {
  /** What the last peek found; bad ones have FRAME_BAD_… flags and no address. */
  readonly table: BurstTable;
  readonly #lists: number;
  readonly #scratch: number;

  /** @throws VbusError ENOMEM */
  constructor(
    private readonly queue: Queue,
    capacity: number,
  ) {
    const { space } = queue;
    this.#lists = space.allocate(capacity * VSG_IOVS_MAX * PIECE_SIZE + VSG_SIZE_MAX, 16);
    this.table = tableOrFree(space, capacity, this.#lists);
    this.#scratch = this.#lists + capacity * VSG_IOVS_MAX * PIECE_SIZE;
  }

  /**
   * Peeks up to `max` descriptors and decodes them. `granted` has bit 1 << GSO_… for each kind that was negotiated, and
   * bit 0 for ECN. Returns how many; they stay until `queue.release`. @throws VbusError EPROTO
   */
  peek(max: number, pool: DescriptorPool | null, granted: number): number {
    const { space, address } = this.queue;
    const limit = Math.min(max, this.table.capacity);
    const n = space.engine.exports.vsgPeek(
      address,
      this.table.address,
      limit,
      this.#lists,
      low(pool?.gpa ?? 0),
      high(pool?.gpa ?? 0),
      pool?.length ?? 0,
      this.#scratch,
      granted,
    );
    return Math.min(checkResult(n, BROKEN), limit);
  }

  /** Gives the memory back. */
  close(): void {
    this.table.close();
    this.queue.space.free(this.#lists);
  }
}

/** South of an RX ring whose descriptors are slots of a pool of scatter-gather descriptors (`docs/abi/venet.md` 7). */
export class VsgWriter {
  /** Posted buffers of the last reserve. */
  readonly table: BurstTable;
  readonly #lists: number;

  /** @throws VbusError ENOMEM */
  constructor(
    private readonly queue: Queue,
    private readonly pool: DescriptorPool,
    capacity: number,
  ) {
    const { space } = queue;
    this.#lists = space.allocate(capacity * VSG_IOVS_MAX * PIECE_SIZE, 16);
    this.table = tableOrFree(space, capacity, this.#lists);
  }

  /** Reserves up to `max` descriptors with slots of `slotSize` bytes. Returns how many. @throws VbusError EPROTO, EINVAL */
  reserve(max: number, slotSize: number): number {
    const { space, address } = this.queue;
    const limit = Math.min(max, this.table.capacity);
    const { gpa, length } = this.pool;
    const n = space.engine.exports.vsgReserve(
      address,
      this.table.address,
      limit,
      low(gpa),
      high(gpa),
      length,
      slotSize,
    );
    return Math.min(checkResult(n, BROKEN), limit);
  }

  /** Adds the first `count` buffers of a table (at most 18) to entry `i`. */
  extend(i: number, pages: BurstTable, count: number): void {
    const list = this.#lists + i * VSG_IOVS_MAX * PIECE_SIZE;
    this.queue.space.engine.exports.vsgExtend(this.table.entry(i), list, pages.address, count);
  }

  /** Writes the slots of entries [from, to), ready for `queue.commit`. Extended ones quote the cookies of `pages`. */
  finish(from: number, to: number, pages: BurstTable): void {
    const { space, address } = this.queue;
    space.engine.exports.vsgFinish(address, this.table.entry(from), to - from, pages.address);
  }

  /** Gives the memory back. */
  close(): void {
    this.table.close();
    this.queue.space.free(this.#lists);
  }
}
