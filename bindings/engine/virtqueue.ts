import {
  VQ_DRIVER,
  VQ_EVENT_INDEX,
  VQ_IN_ORDER,
  VQ_INDIRECT,
  VQ_OFF_BROKEN,
  VQ_OFF_BYTES,
  VQ_OFF_CHAINS,
  VQ_OFF_DEFERRED,
  VQ_OFF_IN_FLIGHT,
  VQ_OFF_NOTIFIED,
  VQ_OFF_SLOTS,
  VQ_OFF_SUPPRESSED,
  VQ_OFF_VIOLATIONS,
  VQ_ORDER_SIZE,
  VQ_PACKED,
  VQ_RECORD_SIZE,
  VQ_STATE_SIZE,
} from "../../assembly/abi/arena-virtq.js";
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
  VIRTQ_MAX_SIZE,
} from "../../assembly/abi/virtio.js";
import { ENOSPC } from "../../assembly/abi/errno.js";
import { checkResult, VbusError } from "../errors.js";
import type { MemorySpace } from "../memory/space.js";
import { ChainTable } from "./chain-table.js";
import type { BurstTable } from "./table.js";

/** Layout of a virtqueue: three areas with two rings (virtio 1.2, 2.7), or one ring (2.8). */
export type VirtQueueFormat = "split" | "packed";

/** Where a virtqueue lies and what was negotiated for it. Both sides need the same, but for what is one side's own. */
export interface VirtQueueOptions {
  /** Layout. */
  format: VirtQueueFormat;
  /** Number of descriptors: a power of two up to 32768 (split), 1 to 32768 (packed). */
  size: number;
  /** Guest-physical address of the descriptor area, a multiple of 16. */
  descriptors: number;
  /** Guest-physical address of the driver area: a multiple of 2 (split: available ring), of 4 (packed: driver event area). */
  driver: number;
  /** Guest-physical address of the device area, a multiple of 4: used ring (split), device event area (packed). */
  device: number;
  /** VIRTIO_F_EVENT_IDX was negotiated. Default false. */
  eventIndex?: boolean;
  /** VIRTIO_F_INDIRECT_DESC was negotiated. Default false. */
  indirect?: boolean;
  /** VIRTIO_F_IN_ORDER was negotiated: the device completes chains in the order in which they were made available. Default false. */
  inOrder?: boolean;
  /** Device: most pieces of a chain, and most descriptors of an indirect table. Default 1024, without `indirect` no more than `size`. */
  maxPieces?: number;
  /** Driver: memory for indirect tables, one for each descriptor of the queue. Without it all chains are direct. */
  tables?: {
    /** Guest-physical address of {@link DriverVirtQueue.tablesSize} bytes. */
    gpa: number;
    /** Most pieces of a chain that goes into a table; longer ones are direct. */
    pieces: number;
  };
}

/** Why a virtqueue broke, by the engine's numbers. */
export const VIRTQUEUE_VIOLATION_NAMES = [
  "none",
  "index",
  "head",
  "loop",
  "indirect",
  "order",
  "empty",
  "address",
  "pieces",
  "overflow",
  "length",
  "request",
] as const;

/**
 * What a peer did to break a virtqueue: `index`: its index is further ahead than there are descriptors; `head`: a
 * number that is no descriptor, or none in flight; `loop`: a chain longer than the queue; `indirect`: a table that was
 * not negotiated, lies in another one, has an impossible length or something behind it; `order`: a readable buffer
 * behind a writable one; `empty`: a buffer of no bytes; `address`: one outside the guest's memory; `pieces`: more of
 * them than the device takes; `overflow`: more in flight than the queue has; `length`: 2^32 bytes or more, or more
 * written than there was room; `request`: what the device itself refused ({@link DeviceVirtQueue.violate}).
 */
export type VirtQueueViolation = Exclude<(typeof VIRTQUEUE_VIOLATION_NAMES)[number], "none">;

/** What one side of a virtqueue counted since it was bound. */
export interface VirtQueueCounters {
  /** Chains completed (device) or reaped (driver). */
  chains: number;
  /** Bytes that the device wrote, as it said. */
  bytes: number;
  /** Bursts after which the peer wanted to be notified. */
  notified: number;
  /** Bursts after which it did not. */
  suppressed: number;
  /** Times that enable found something there already. */
  deferred: number;
  /** Violations of the peer by kind; only kinds that occurred. */
  violations: Partial<Record<VirtQueueViolation, number>>;
}

/** Length and alignment of an area of a virtqueue, in bytes. */
export interface VirtQueueArea {
  /** Length. */
  size: number;
  /** The guest-physical address is a multiple of this. */
  align: number;
}

const high = (gpa: number): number => Math.floor(gpa / 2 ** 32);

/** What both sides have in common: the private state, who broke it, what was counted. */
abstract class VirtQueue {
  /** Number of descriptors. */
  readonly size: number;
  /** Layout. */
  readonly format: VirtQueueFormat;
  #closed = false;
  readonly #pool: number;

  /** Binds a new endpoint. */
  protected constructor(
    /** The memory of the queue. */
    readonly space: MemorySpace,
    options: VirtQueueOptions,
    driverSide: boolean,
  ) {
    const { format, size, descriptors, driver, device, eventIndex, indirect, inOrder } = options;
    const most = Math.min(indirect === true ? 1024 : size, 1024);
    const { maxPieces = driverSide ? VIRTQ_MAX_SIZE : most } = options;
    for (const gpa of [descriptors, driver, device]) checkAddress(gpa);
    if (
      !Number.isSafeInteger(size) ||
      size < 1 ||
      size > VIRTQ_MAX_SIZE ||
      (format === "split" && (size & (size - 1)) !== 0)
    ) {
      throw new VbusError(
        "EINVAL",
        `a ${format} virtqueue of ${size} descriptors; give ${format === "split" ? "a power of two from 1" : "1"} to ${VIRTQ_MAX_SIZE}`,
      );
    }
    if (!Number.isSafeInteger(maxPieces) || maxPieces < 1 || maxPieces > VIRTQ_MAX_SIZE) {
      throw new VbusError("EINVAL", `chains of up to ${maxPieces} pieces; give 1 to ${VIRTQ_MAX_SIZE}`);
    }
    this.size = size;
    this.format = format;
    const record = driverSide ? VQ_RECORD_SIZE : inOrder === true ? VQ_ORDER_SIZE : 0;
    this.address = space.allocate(VQ_STATE_SIZE + size * record, 64);
    this.#pool = record === 0 ? 0 : this.address + VQ_STATE_SIZE;
    const flags =
      (driverSide ? VQ_DRIVER : 0) |
      (format === "packed" ? VQ_PACKED : 0) |
      (eventIndex === true ? VQ_EVENT_INDEX : 0) |
      (indirect === true ? VQ_INDIRECT : 0) |
      (inOrder === true ? VQ_IN_ORDER : 0);
    try {
      checkResult(
        space.engine.exports.virtqBind(
          this.address,
          space.regionTable,
          flags,
          size,
          maxPieces,
          this.#pool,
          descriptors >>> 0,
          high(descriptors),
          driver >>> 0,
          high(driver),
          device >>> 0,
          high(device),
        ),
        `no ${format} virtqueue of ${size} descriptors at guest addresses 0x${descriptors.toString(16)}, ` +
          `0x${driver.toString(16)}, 0x${device.toString(16)}: they have to be aligned and inside the guest's memory`,
      );
    } catch (error) {
      space.free(this.address);
      throw error;
    }
  }

  /** Address of the endpoint's private state in the arena. */
  readonly address: number;

  /** A word of the private state. */
  protected word(offset: number): number {
    return this.space.engine.words[(this.address + offset) >>> 2] as number;
  }

  /** Passes results through and turns negative ones into errors. */
  protected check(result: number): number {
    if (result >= 0) return result;
    const reason = this.broken;
    return checkResult(
      result,
      reason === null
        ? this.misuse(result)
        : `the peer broke the protocol of this virtqueue (${reason}); reset the device or the queue`,
    );
  }

  /** What the caller did wrong when the peer did nothing. */
  protected abstract misuse(result: number): string;

  /** Why the queue is broken, or null. */
  get broken(): VirtQueueViolation | null {
    const kind = this.word(VQ_OFF_BROKEN);
    return kind === 0 ? null : ((VIRTQUEUE_VIOLATION_NAMES[kind] ?? "request") as VirtQueueViolation);
  }

  /** True when the peer has put something there that this side has not taken. */
  get hasWork(): boolean {
    return this.space.engine.exports.virtqHasWork(this.address) !== 0;
  }

  /** Chains in flight: taken and not completed (device), made available and not reaped (driver). */
  get inFlight(): number {
    return this.word(VQ_OFF_IN_FLIGHT);
  }

  /** Asks for as few notifications as possible. One may still arrive. */
  disable(): void {
    this.space.engine.exports.virtqDisable(this.address);
  }

  /** Breaks the queue for a reason that the caller found, and counts it. */
  violate(kind: VirtQueueViolation): void {
    this.space.engine.exports.virtqViolate(this.address, VIRTQUEUE_VIOLATION_NAMES.indexOf(kind));
  }

  /** What was counted since the endpoint was bound. */
  counters(): VirtQueueCounters {
    const { engine } = this.space;
    const violations: Partial<Record<VirtQueueViolation, number>> = {};
    for (const [kind, name] of VIRTQUEUE_VIOLATION_NAMES.entries()) {
      const n = this.word(VQ_OFF_VIOLATIONS + kind * 4);
      if (n !== 0 && name !== "none") violations[name] = n;
    }
    return {
      chains: engine.counter(this.address + VQ_OFF_CHAINS),
      bytes: engine.counter(this.address + VQ_OFF_BYTES),
      notified: engine.counter(this.address + VQ_OFF_NOTIFIED),
      suppressed: engine.counter(this.address + VQ_OFF_SUPPRESSED),
      deferred: engine.counter(this.address + VQ_OFF_DEFERRED),
      violations,
    };
  }

  /** Rebuilds cached addresses after the guest's regions moved. @throws VbusError EFAULT when an area is gone. */
  rebase(): void {
    checkResult(
      this.space.engine.exports.virtqRebase(this.address),
      "the virtqueue's areas are no longer in any region",
    );
  }

  /** True after `close`. */
  get closed(): boolean {
    return this.#closed;
  }

  /** Gives the private state back; the shared areas stay as they are. Closing twice is harmless. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.space.free(this.address);
  }
}

/** No guest has memory at an address that is no whole number. @throws VbusError EFAULT */
function checkAddress(gpa: number): void {
  if (!Number.isSafeInteger(gpa) || gpa < 0) {
    throw new VbusError(
      "EFAULT",
      `a virtqueue at guest address ${gpa}: give a whole number from 0 to 2^53 - 1`,
    );
  }
}

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
  private constructor(space: MemorySpace, options: VirtQueueOptions) {
    super(space, options, false);
  }

  /**
   * Binds to a queue that the driver formatted and enabled; both positions start at 0.
   * @throws VbusError EINVAL (size, alignment, maxPieces), EFAULT (an area outside the guest's memory), ENOMEM
   */
  static attach(space: MemorySpace, options: VirtQueueOptions): DeviceVirtQueue {
    return new DeviceVirtQueue(space, options);
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
  private constructor(space: MemorySpace, options: VirtQueueOptions) {
    super(space, options, true);
  }

  /**
   * Formats the three areas and binds to them.
   * @throws VbusError EINVAL (size, alignment, tables), EFAULT (an area outside the guest's memory), ENOMEM
   */
  static create(space: MemorySpace, options: VirtQueueOptions): DriverVirtQueue {
    const queue = new DriverVirtQueue(space, options);
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
