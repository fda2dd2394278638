import { STATE_OFF_IMAGE } from "../../assembly/abi/arena.js";
import {
  VQ_DRIVER,
  VQ_EVENT_INDEX,
  VQ_INDIRECT,
  VQ_IN_ORDER,
  VQ_OFF_BROKEN,
  VQ_OFF_BYTES,
  VQ_OFF_CHAINS,
  VQ_OFF_DEFERRED,
  VQ_OFF_DESC_GPA,
  VQ_OFF_DEVICE_GPA,
  VQ_OFF_DRIVER_GPA,
  VQ_OFF_FLAGS,
  VQ_OFF_IN_FLIGHT,
  VQ_OFF_NOTIFIED,
  VQ_OFF_SIZE,
  VQ_OFF_SUPPRESSED,
  VQ_OFF_VIOLATIONS,
  VQ_ORDER_SIZE,
  VQ_PACKED,
  VQ_RECORD_SIZE,
  VQ_STATE_SIZE,
} from "../../assembly/abi/arena-virtq.js";
import { VIRTQ_MAX_SIZE } from "../../assembly/abi/virtio.js";
import { checkResult, VbusError } from "../errors.js";
import type { MemorySpace } from "../memory/space.js";

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
    /** Guest-physical address of `DriverVirtQueue.tablesSize()` bytes. */
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
 * written than there was room; `request`: what the device itself refused (`violate`).
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

/** High half of an address. */
export const high = (gpa: number): number => Math.floor(gpa / 2 ** 32);

/** Bytes behind an endpoint's state: the driver's records, or the list that keeps a device in order. */
function poolSize(driverSide: boolean, size: number, inOrder: boolean): number {
  return size * (driverSide ? VQ_RECORD_SIZE : inOrder ? VQ_ORDER_SIZE : 0);
}

/** Binds an endpoint whose state and pool lie at these addresses. */
type Bind = (state: number, pool: number) => number;

/** Checks what can be told without the engine, and returns what binds. @throws VbusError EINVAL, EFAULT */
function binder(space: MemorySpace, options: VirtQueueOptions, driverSide: boolean): Bind {
  const { format, size, descriptors, driver, device, eventIndex, indirect, inOrder } = options;
  const most = indirect === true ? 1024 : Math.min(size, 1024);
  const { maxPieces = driverSide ? VIRTQ_MAX_SIZE : most } = options;
  for (const gpa of [descriptors, driver, device]) checkAddress(gpa);
  const split = format === "split";
  if (
    !Number.isSafeInteger(size) ||
    size < 1 ||
    size > VIRTQ_MAX_SIZE ||
    (split && (size & (size - 1)) !== 0)
  ) {
    throw new VbusError(
      "EINVAL",
      `a ${format} virtqueue of ${size} descriptors; give ${split ? "a power of two from 1" : "1"} to ${VIRTQ_MAX_SIZE}`,
    );
  }
  if (!Number.isSafeInteger(maxPieces) || maxPieces < 1 || maxPieces > VIRTQ_MAX_SIZE) {
    throw new VbusError("EINVAL", `chains of up to ${maxPieces} pieces; give 1 to ${VIRTQ_MAX_SIZE}`);
  }
  const flags =
    (driverSide ? VQ_DRIVER : 0) |
    (split ? 0 : VQ_PACKED) |
    (eventIndex === true ? VQ_EVENT_INDEX : 0) |
    (indirect === true ? VQ_INDIRECT : 0) |
    (inOrder === true ? VQ_IN_ORDER : 0);
  return (state, pool) =>
    space.engine.exports.virtqBind(
      state,
      space.regionTable,
      flags,
      size,
      maxPieces,
      pool,
      descriptors >>> 0,
      high(descriptors),
      driver >>> 0,
      high(driver),
      device >>> 0,
      high(device),
    );
}

/** Where a new endpoint lies, for {@link VirtQueue}'s constructor. */
export interface Bound {
  space: MemorySpace;
  address: number;
}

/** Allocates and binds. @throws VbusError for what `bind` returns, ENOMEM */
function bound(space: MemorySpace, pool: number, what: string, bind: Bind): Bound {
  const address = space.allocate(VQ_STATE_SIZE + pool, 64);
  try {
    checkResult(bind(address, pool === 0 ? 0 : address + VQ_STATE_SIZE), what);
    return { space, address };
  } catch (error) {
    space.free(address);
    throw error;
  }
}

/** Binds to the areas that the options name. @throws VbusError EINVAL, EFAULT, ENOMEM */
export function bindNew(space: MemorySpace, options: VirtQueueOptions, driverSide: boolean): Bound {
  const { format, size, descriptors, driver, device } = options;
  const bind = binder(space, options, driverSide);
  return bound(
    space,
    poolSize(driverSide, size, options.inOrder === true),
    `no ${format} virtqueue of ${size} descriptors at guest addresses 0x${descriptors.toString(16)}, ` +
      `0x${driver.toString(16)}, 0x${device.toString(16)}: they have to be aligned and inside the guest's memory`,
    bind,
  );
}

/** Binds by an exported state. @throws VbusError ENOENT, EINVAL, EFAULT, ENOMEM */
export function bindState(space: MemorySpace, state: Uint8Array, driverSide: boolean): Bound {
  const least = STATE_OFF_IMAGE + VQ_STATE_SIZE;
  if (state.length < least) {
    throw new VbusError(
      "ENOENT",
      `a virtqueue's state has at least ${least} bytes, this one has ${state.length}`,
    );
  }
  const view = new DataView(state.buffer, state.byteOffset, state.length);
  const flags = view.getUint32(STATE_OFF_IMAGE + VQ_OFF_FLAGS, true);
  const size = view.getUint32(STATE_OFF_IMAGE + VQ_OFF_SIZE, true);
  const pool = poolSize(driverSide, size, (flags & VQ_IN_ORDER) !== 0);
  if (((flags & VQ_DRIVER) !== 0) !== driverSide || state.length !== least + pool) {
    throw new VbusError(
      "EINVAL",
      `${state.length} bytes that are no state of a ${driverSide ? "driver" : "device"}'s side of a virtqueue of ${size}`,
    );
  }
  const image = space.allocate(state.length, 16);
  try {
    space.bytes.set(state, image);
    return bound(space, pool, "cannot import the virtqueue's state", (address, place) =>
      space.engine.exports.virtqImport(address, space.regionTable, image, state.length, place),
    );
  } finally {
    space.free(image);
  }
}

/**
 * An exported state must be of just the queue that the options say: its place and what was negotiated for it.
 * @throws VbusError EINVAL
 */
export function checkState(state: Uint8Array, options: VirtQueueOptions): void {
  const { format, size, descriptors, driver, device, eventIndex, indirect, inOrder } = options;
  const view = new DataView(state.buffer, state.byteOffset, state.length);
  const word = (offset: number): number => view.getUint32(STATE_OFF_IMAGE + offset, true);
  const gpa = (offset: number): number => word(offset) + word(offset + 4) * 2 ** 32;
  const flags =
    (format === "split" ? 0 : VQ_PACKED) |
    (eventIndex === true ? VQ_EVENT_INDEX : 0) |
    (indirect === true ? VQ_INDIRECT : 0) |
    (inOrder === true ? VQ_IN_ORDER : 0);
  if (
    word(VQ_OFF_FLAGS) !== flags ||
    word(VQ_OFF_SIZE) !== size ||
    gpa(VQ_OFF_DESC_GPA) !== descriptors ||
    gpa(VQ_OFF_DRIVER_GPA) !== driver ||
    gpa(VQ_OFF_DEVICE_GPA) !== device
  )
    throw new VbusError("EINVAL", "a virtqueue's state that is none of the queue that was set up");
}

/** What both sides have in common: the private state, who broke it, what was counted. */
export abstract class VirtQueue {
  /** The memory of the queue. */
  readonly space: MemorySpace;
  /** Number of descriptors. */
  readonly size: number;
  /** Layout. */
  readonly format: VirtQueueFormat;
  #closed = false;

  /** Takes over an endpoint that was bound. */
  protected constructor({ space, address }: Bound) {
    this.space = space;
    this.address = address;
    this.size = this.word(VQ_OFF_SIZE);
    this.format = (this.word(VQ_OFF_FLAGS) & VQ_PACKED) === 0 ? "split" : "packed";
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

  /**
   * The endpoint's relocatable state (versioned; import it with `importState`). Peeked chains count as not taken. Chains
   * in flight stay so: whoever imports a device's state completes them, by the ids that it kept.
   */
  exportState(): Uint8Array {
    const flags = this.word(VQ_OFF_FLAGS);
    const length =
      STATE_OFF_IMAGE +
      VQ_STATE_SIZE +
      poolSize((flags & VQ_DRIVER) !== 0, this.size, (flags & VQ_IN_ORDER) !== 0);
    const out = this.space.allocate(length, 16);
    try {
      this.space.engine.exports.virtqExport(this.address, out);
      return this.space.bytes.slice(out, out + length);
    } finally {
      this.space.free(out);
    }
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
export function checkAddress(gpa: number): void {
  if (!Number.isSafeInteger(gpa) || gpa < 0) {
    throw new VbusError(
      "EFAULT",
      `a virtqueue at guest address ${gpa}: give a whole number from 0 to 2^53 - 1`,
    );
  }
}
