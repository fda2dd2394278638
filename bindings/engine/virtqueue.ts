import { ENOSPC } from "../../assembly/abi/errno.js";
import { VQ_OFF_SLOTS } from "../../assembly/abi/arena-virtq.js";
import {
  PACKED_EVENT_ALIGN,
  PACKED_EVENT_AREA_SIZE,
  SPLIT_AVAIL_ALIGN,
  SPLIT_AVAIL_ENTRY_SIZE,
  SPLIT_EVENT_SIZE,
  SPLIT_RING_OFF_ENTRIES,
  SPLIT_USED_ALIGN,
  SPLIT_USED_ENTRY_SIZE,
  VIRTQ_DESC_ALIGN,
  VIRTQ_DESC_SIZE,
} from "../../assembly/abi/virtio.js";
import { checkResult, VbusError } from "../errors.js";
import type { MemorySpace } from "../memory/space.js";
import { ChainTable } from "./chain-table.js";
import type { BurstTable } from "./table.js";
import {
  bindNew,
  bindState,
  checkState,
  checkAddress,
  high,
  VirtQueue,
  type VirtQueueArea,
  type VirtQueueFormat,
  type VirtQueueOptions,
} from "./virtqueue-side.js";

export {
  VIRTQUEUE_VIOLATION_NAMES,
  VirtQueue,
  type VirtQueueArea,
  type VirtQueueCounters,
  type VirtQueueFormat,
  type VirtQueueOptions,
  type VirtQueueViolation,
} from "./virtqueue-side.js";

/**
 * The device's side of a virtqueue, for one thread: the typed door to an engine endpoint.
 *
 * The drain loop of a device that finishes chains in the order in which it takes them:
 *
 * ```ts
 * for (let n; (n = queue.peek(chains, chains.capacity)) > 0; ) {
 *   use(chains, n);                                  // borrowed from the guest until they are completed
 *   if (queue.release(chains, n)) interrupt();
 * }
 * ```
 *
 * A driver that breaks the protocol breaks this queue only: every later call throws EPROTO, `broken` says why.
 */
export class DeviceVirtQueue extends VirtQueue {
  /**
   * Binds to a queue that the driver formatted and enabled; both positions start at 0.
   * @throws VbusError EINVAL (size, alignment, maxPieces), EFAULT (an area outside the guest's memory), ENOMEM
   */
  static attach(space: MemorySpace, options: VirtQueueOptions): DeviceVirtQueue {
    return new DeviceVirtQueue(bindNew(space, options, false));
  }

  /**
   * Rebuilds an endpoint from `exportState`, which is validated as hostile input.
   * @param expected - the queue that it must be of; default: whatever the state says
   * @throws VbusError ENOENT (other format or version), EINVAL (contradicts itself or the queue), EFAULT (areas not in memory)
   */
  static importState(space: MemorySpace, state: Uint8Array, expected?: VirtQueueOptions): DeviceVirtQueue {
    const bound = bindState(space, state, false);
    const queue = new DeviceVirtQueue(bound);
    if (expected === undefined) return queue;
    try {
      checkState(state, expected);
      return queue;
    } catch (error) {
      queue.close();
      throw error;
    }
  }

  protected override misuse(): string {
    return "fewer chains were peeked or are in flight than this call says, or (in order) others come before them";
  }

  /**
   * Looks for up to `max` chains, copies and checks them. They stay available until {@link DeviceVirtQueue.advance}, and
   * are looked at anew by every peek. Returns how many (at most the table's capacity). @throws VbusError EPROTO
   */
  peek(chains: ChainTable, max: number): number {
    const limit = Math.max(0, Math.min(max, chains.capacity));
    const n = this.check(
      this.space.engine.exports.virtqPeek(
        this.address,
        chains.table.address,
        limit,
        chains.lists,
        chains.piecesPerChain,
      ),
    );
    return n > limit ? limit : n; // even a scribbled-on engine state cannot lead callers out of their table
  }

  /**
   * Takes the first n peeked chains: they are in flight until they are completed. The others stay peeked, and their
   * entries stay where they are. @throws VbusError EINVAL (fewer were peeked), EPROTO
   */
  advance(n: number): void {
    this.check(this.space.engine.exports.virtqAdvance(this.address, n));
  }

  /**
   * Completes the chains `from` … `to - 1` of a table, in this order, with one publication. True: interrupt the driver.
   * In order: they are the oldest in flight; chains that were written completely share a used element with the next one.
   * @throws VbusError EINVAL (fewer in flight, other order), EPROTO
   */
  complete(chains: ChainTable, from: number, to: number): boolean {
    if (!(from >= 0 && from <= to && to <= chains.capacity)) {
      throw new VbusError(
        "EINVAL",
        `chains ${from} to ${to} of a table of ${chains.capacity}; give the table that was peeked`,
      );
    }
    return (
      this.check(
        this.space.engine.exports.virtqComplete(this.address, chains.table.entry(from), to - from),
      ) === 1
    );
  }

  /** {@link DeviceVirtQueue.advance}, then {@link DeviceVirtQueue.complete} of the table's first n chains, which were just peeked. */
  release(chains: ChainTable, n: number): boolean {
    if (n > chains.capacity) {
      throw new VbusError(
        "EINVAL",
        `${n} chains from a table of ${chains.capacity}; give the table that was peeked`,
      );
    }
    return this.check(this.space.engine.exports.virtqRelease(this.address, chains.table.address, n)) === 1;
  }

  /**
   * Completes one chain that was taken, by its id and slots (see {@link ChainTable}); for devices that finish in any order.
   * True: interrupt the driver. @throws VbusError EINVAL (none in flight, not in order), EPROTO
   */
  completeOne(id: number, slots: number, used: number): boolean {
    return this.check(this.space.engine.exports.virtqCompleteOne(this.address, id, slots, used)) === 1;
  }

  /**
   * Asks for kicks, then looks once more. True: something is available already, and for that no kick will come.
   * `pastPeeked`: what the last peek found and no advance took does not count; for devices that wait for more than there is.
   */
  enable(pastPeeked = false): boolean {
    return this.space.engine.exports.virtqEnable(this.address, pastPeeked ? 1 : 0) !== 0;
  }
}

/**
 * The driver's side of a virtqueue, for one thread: for drivers in TypeScript and for benchmarks.
 *
 * ```ts
 * table.setGpa(0, gpa); table.setLength(0, 2048); table.setFlags(0, CHAIN_WRITABLE); table.setCookie(0, 7);
 * if (queue.add(table, 1)) kick();
 * …
 * for (let n; (n = queue.reap(table, table.capacity)) > 0; ) use(table, n); // cookie(i), length(i) = bytes written
 * ```
 */
export class DriverVirtQueue extends VirtQueue {
  /**
   * Formats the three areas and binds to them.
   * @throws VbusError EINVAL (size, alignment, tables), EFAULT (an area outside the guest's memory), ENOMEM
   */
  static create(space: MemorySpace, options: VirtQueueOptions): DriverVirtQueue {
    const queue = new DriverVirtQueue(bindNew(space, options, true));
    const { tables, indirect } = options;
    if (tables === undefined) return queue;
    try {
      if (indirect !== true) {
        throw new VbusError("EINVAL", "memory for indirect tables, which were not negotiated");
      }
      checkAddress(tables.gpa);
      checkResult(
        space.engine.exports.virtqTables(queue.address, tables.gpa >>> 0, high(tables.gpa), tables.pieces),
        `${DriverVirtQueue.tablesSize(options.size, tables.pieces)} bytes for indirect tables at guest address 0x${tables.gpa.toString(16)}`,
      );
      return queue;
    } catch (error) {
      queue.close();
      throw error;
    }
  }

  /**
   * Rebuilds an endpoint from `exportState`, which is validated as hostile input.
   * @throws VbusError ENOENT (other format or version), EINVAL (contradicts itself or the queue), EFAULT (areas not in memory)
   */
  static importState(space: MemorySpace, state: Uint8Array): DriverVirtQueue {
    return new DriverVirtQueue(bindState(space, state, true));
  }

  /** Lengths and alignments of the three areas of a queue (virtio 1.2, 2.7 and 2.8.10). */
  static areaSizes(
    format: VirtQueueFormat,
    size: number,
  ): { descriptors: VirtQueueArea; driver: VirtQueueArea; device: VirtQueueArea } {
    const descriptors = { size: size * VIRTQ_DESC_SIZE, align: VIRTQ_DESC_ALIGN };
    if (format === "packed") {
      const event = { size: PACKED_EVENT_AREA_SIZE, align: PACKED_EVENT_ALIGN };
      return { descriptors, driver: event, device: { ...event } };
    }
    const ring = SPLIT_RING_OFF_ENTRIES + SPLIT_EVENT_SIZE;
    return {
      descriptors,
      driver: { size: ring + size * SPLIT_AVAIL_ENTRY_SIZE, align: SPLIT_AVAIL_ALIGN },
      device: { size: ring + size * SPLIT_USED_ENTRY_SIZE, align: SPLIT_USED_ALIGN },
    };
  }

  /** Bytes for the indirect tables of a queue: one of `pieces` descriptors for each of its own. */
  static tablesSize(size: number, pieces: number): number {
    return size * pieces * VIRTQ_DESC_SIZE;
  }

  protected override misuse(result: number): string {
    return result === -ENOSPC
      ? "the queue has not that many free descriptors; reap first"
      : "a chain without pieces or with a piece of no bytes, of 2^32 bytes or more, or longer than the queue";
  }

  /** Free descriptors. A chain takes one for each of its pieces, or one in all when it goes into an indirect table. */
  get free(): number {
    return this.size - this.word(VQ_OFF_SLOTS);
  }

  /**
   * Makes the first n chains of a table available with one publication, or none of them. An entry is one piece (address,
   * length, `CHAIN_WRITABLE` when the device writes it), or what {@link ChainTable.setChain} made. True: kick the device.
   * @throws VbusError ENOSPC (too few free descriptors), EINVAL (a chain that no queue takes), EPROTO
   */
  add(chains: ChainTable | BurstTable, n: number): boolean {
    const table = chains instanceof ChainTable ? chains.table : chains;
    if (n > table.capacity) {
      throw new VbusError(
        "EINVAL",
        `${n} chains from a table of ${table.capacity}; give the table that was filled`,
      );
    }
    return this.check(this.space.engine.exports.virtqAdd(this.address, table.address, n)) === 1;
  }

  /**
   * Takes up to `max` chains that the device has used: `cookie(i)` says which, `length(i)` how many bytes it wrote.
   * Returns how many (at most the table's capacity). @throws VbusError EPROTO
   */
  reap(table: BurstTable, max: number): number {
    const limit = Math.max(0, Math.min(max, table.capacity));
    const n = this.check(this.space.engine.exports.virtqReap(this.address, table.address, limit));
    return n > limit ? limit : n;
  }

  /** Asks for interrupts, then looks once more. True: something has been used already, and for that no interrupt will come. */
  enable(): boolean {
    return this.space.engine.exports.virtqEnable(this.address, 0) !== 0;
  }

  /**
   * {@link DriverVirtQueue.enable} for drivers that are in no hurry to reap: with an event index the interrupt comes
   * when three quarters of what is in flight have been used. True: that, or (packed) any at all, has been used already.
   */
  enableDelayed(): boolean {
    return this.space.engine.exports.virtqEnableDelayed(this.address) !== 0;
  }
}
