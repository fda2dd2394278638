import {
  BURST_HEAD,
  BURST_NOFLIP,
  BURST_STRICT,
  BURST_TRANSLATE,
  ENTRY_SIZE,
  EP_OFF_BROKEN,
  EP_OFF_BYTES,
  EP_OFF_COUNT,
  EP_OFF_EXTENSIONS,
  EP_OFF_POPPED,
  EP_OFF_PUSHED,
  EP_OFF_STRIDE,
  EP_OFF_VIOLATIONS,
  EP_STATE_SIZE,
  OWNS_INUSE_HEAD,
  OWNS_INUSE_TAIL,
  OWNS_VALID_HEAD,
  OWNS_VALID_TAIL,
  STATE_SIZE,
} from "../../assembly/abi/arena.js";
import {
  IDX_BOTH,
  IDX_INUSE,
  IDX_VALID,
  IOQ_DESC_SIZE,
  IOQ_DESC_SIZE_ILP32,
  IOQ_MAX_COUNT,
  IOQ_OFF_RING,
  IOQ_OFF_RING_ILP32,
} from "../../assembly/abi/ioq.js";
import { checkResult, VbusError } from "../errors.js";
import type { MemorySpace } from "../memory/space.js";
import { readSignalCounters, type SignalCounters } from "./signal.js";
import type { BurstTable } from "./table.js";

/** Which ring index a burst works on (`docs/abi/ioq.md` section 3). */
export type QueueIndex = "valid" | "inuse" | "both";

const INDEX_NUMBER: Record<QueueIndex, number> = { valid: IDX_VALID, inuse: IDX_INUSE, both: IDX_BOTH };

/** What a side does on a ring: which index ends it moves (`docs/abi/ioq.md` section 6). */
export const QUEUE_ROLES = {
  /** (a) north transmits with reclaim. */
  northTransmit: OWNS_VALID_HEAD | OWNS_VALID_TAIL | OWNS_INUSE_TAIL,
  /** (a) south consumes what north transmits. */
  southTransmit: OWNS_INUSE_HEAD,
  /** (b), (c) north posts buffers or event records and harvests them. */
  northReceive: OWNS_VALID_HEAD | OWNS_VALID_TAIL | OWNS_INUSE_HEAD,
  /** (b), (c) south fills them. */
  southReceive: OWNS_INUSE_TAIL,
  /** (d), (e) north feeds through inuse alone. */
  northFeed: OWNS_INUSE_TAIL,
  /** (d), (e) south takes what north feeds. */
  southFeed: OWNS_INUSE_HEAD,
} as const;

/** Name of a role. */
export type QueueRole = keyof typeof QUEUE_ROLES;

/** Why a queue broke, by the engine's numbers. */
export const VIOLATION_NAMES = [
  "none",
  "index",
  "owner",
  "address",
  "tails",
  "extension",
  "descriptor",
] as const;
/** Name of a violation. */
export type ViolationName = (typeof VIOLATION_NAMES)[number];

/** What an endpoint counted since it was bound. */
export interface QueueCounters extends SignalCounters {
  /** Descriptors pushed by this side. */
  pushed: number;
  /** Descriptors popped by this side. */
  popped: number;
  /** Bytes written to descriptor lengths by this side. */
  bytes: number;
  /** Violations of the peer by kind; only kinds that occurred. */
  violations: Partial<Record<ViolationName, number>>;
}

/** How to create a ring (north). */
export interface CreateQueueOptions {
  /** Guest-physical address of the segment; ≡ 8 (mod 64) is fastest. At least 4-byte aligned. */
  gpa: number;
  /** Number of descriptors, at least 1. */
  count: number;
  /** What this side does on the ring. */
  role: QueueRole;
  /** True: the 28-byte descriptors of 32-bit guests of 2009. */
  ilp32?: boolean;
  /** Extension bits to offer (`EXT_…`); default none: strict v4. */
  offer?: number;
}

/** How to attach to a ring (south). */
export interface AttachQueueOptions {
  /** Guest-physical address of the segment. */
  gpa: number;
  /** Announced length of the segment. */
  length: number;
  /** What this side does on the ring. */
  role: QueueRole;
  /** Most descriptors accepted; default 2048, `Infinity` for no limit. */
  limit?: number;
  /** Extension bits to accept when offered (`EXT_…`); default none: strict v4. */
  accept?: number;
}

/** Length of a ring segment in bytes. */
export function queueSegmentLength(count: number, ilp32 = false): number {
  return ilp32 ? IOQ_OFF_RING_ILP32 + IOQ_DESC_SIZE_ILP32 * count : IOQ_OFF_RING + IOQ_DESC_SIZE * count;
}

/** What a caller may be granted: never more than its table holds. */
function grantLimit(table: BurstTable | null, max: number): number {
  return Math.max(0, Math.min(max, table === null ? 0x7fffffff : table.capacity));
}

/** No guest has memory at an address that is no whole number. @throws VbusError EFAULT */
function checkAddress(gpa: number): void {
  if (!Number.isSafeInteger(gpa) || gpa < 0) {
    throw new VbusError("EFAULT", `a ring at guest address ${gpa}: give a whole number from 0 to 2^53 - 1`);
  }
}

const high = (gpa: number): number => Math.floor(gpa / 2 ** 32);

/**
 * One side of one ring, for one thread: the typed door to an engine endpoint.
 *
 * The drain loop of a consumer (south of a transmit ring), with a table of n entries:
 *
 * ```ts
 * for (let n; (n = queue.peek("inuse", table, table.capacity, BURST_TRANSLATE)) > 0; ) {
 *   use(table, n);                                   // borrowed from the guest until release
 *   if (queue.release("inuse", n, BURST_SIGNAL)) ringDoorbell();
 * }
 * ```
 *
 * A peer that breaks the protocol breaks this queue only: every later call throws EPROTO, {@link Queue.broken} says why.
 */
export class Queue {
  /** Number of descriptors. */
  readonly count: number;
  #closed = false;

  private constructor(
    /** The memory of the ring. */
    readonly space: MemorySpace,
    /** Address of the endpoint's private state in the arena. */
    readonly address: number,
  ) {
    this.count = this.#word(EP_OFF_COUNT);
  }

  /** North: formats a segment and binds to it. @throws VbusError EINVAL (count, alignment, offer), EFAULT (range), ENOMEM */
  static create(space: MemorySpace, options: CreateQueueOptions): Queue {
    const { gpa, count, role, ilp32 = false, offer = 0 } = options;
    checkAddress(gpa);
    if (!Number.isSafeInteger(count) || count < 1 || count > 2 ** 27) {
      throw new VbusError(
        "EINVAL",
        `a ring of ${count} descriptors; use 1 to ${IOQ_MAX_COUNT} (devices accept no more)`,
      );
    }
    return Queue.#bind(
      space,
      `cannot create a ring of ${count} descriptors at guest address 0x${gpa.toString(16)}`,
      (state) =>
        space.engine.exports.ringCreate(
          state,
          space.regionTable,
          gpa >>> 0,
          high(gpa),
          count,
          ilp32 ? 1 : 0,
          QUEUE_ROLES[role],
          offer,
        ),
    );
  }

  /**
   * South: checks a segment that north announced and binds to it (`docs/abi/ioq.md` sections 2 and 9).
   * @throws VbusError EINVAL (signal, magic, version, count, length, alignment), EFAULT (range), EPROTO (index out of range)
   */
  static attach(space: MemorySpace, options: AttachQueueOptions): Queue {
    const { gpa, length, role, limit = IOQ_MAX_COUNT, accept = 0 } = options;
    const most = Math.min(limit, 0xffffffff);
    checkAddress(gpa);
    if (!Number.isSafeInteger(length) || length < 0 || length >= 2 ** 32) {
      throw new VbusError("EINVAL", `a ring segment of ${length} bytes: give a whole number below 2^32`);
    }
    return Queue.#bind(
      space,
      `no acceptable ring at guest address 0x${gpa.toString(16)} + ${length}`,
      (state) =>
        space.engine.exports.ringAttach(
          state,
          space.regionTable,
          gpa >>> 0,
          high(gpa),
          length,
          most,
          QUEUE_ROLES[role],
          accept,
        ),
    );
  }

  /**
   * Rebuilds an endpoint from {@link Queue.exportState}, which is validated as hostile input.
   * @throws VbusError ENOENT (other format or version), EINVAL (contradictory), EFAULT (segment not in memory)
   */
  static importState(space: MemorySpace, state: Uint8Array): Queue {
    if (state.length !== STATE_SIZE) {
      throw new VbusError(
        "ENOENT",
        `a queue state has ${STATE_SIZE} bytes in this version, this one has ${state.length}`,
      );
    }
    const image = space.allocate(STATE_SIZE, 16);
    try {
      space.bytes.set(state, image);
      return Queue.#bind(space, "cannot import the queue's state", (endpoint) =>
        space.engine.exports.ringImport(endpoint, space.regionTable, image),
      );
    } finally {
      space.free(image);
    }
  }

  static #bind(space: MemorySpace, what: string, bind: (state: number) => number): Queue {
    const state = space.allocate(EP_STATE_SIZE, 64);
    try {
      checkResult(bind(state), what);
      return new Queue(space, state);
    } catch (error) {
      space.free(state);
      throw error;
    }
  }

  #word(offset: number): number {
    return this.space.engine.words[(this.address + offset) >>> 2] as number;
  }

  #check(result: number): number {
    if (result >= 0) return result;
    const reason = this.broken;
    return checkResult(
      result,
      reason === null
        ? "the queue operation does not fit its role, or takes more descriptors than were granted"
        : `the peer broke the protocol of this queue (${reason}); close the device and open it again`,
    );
  }

  #granted(result: number, max: number): number {
    const n = this.#check(result);
    return n > max ? max : n; // the door clamps: even a scribbled-on engine state cannot lead callers out of their table
  }

  #checkTable(table: BurstTable | null, n: number): void {
    if (table !== null && n > table.capacity) {
      throw new VbusError(
        "EINVAL",
        `${n} descriptors from a table of ${table.capacity}; give the table that was filled`,
      );
    }
  }

  /** Size of a descriptor: 32, or 28 for a 32-bit guest of 2009. */
  get stride(): number {
    return this.#word(EP_OFF_STRIDE);
  }

  /** Why the queue is broken, or null. */
  get broken(): ViolationName | null {
    const kind = this.#word(EP_OFF_BROKEN);
    return kind === 0 ? null : (VIOLATION_NAMES[kind] ?? "none");
  }

  /** Extension bits in force. */
  get extensions(): number {
    return this.#word(EP_OFF_EXTENSIONS);
  }

  /** Breaks the queue for a reason that a device found (such as `"descriptor"`), and counts it. */
  violate(kind: Exclude<ViolationName, "none">): void {
    this.space.engine.exports.violate(this.address, VIOLATION_NAMES.indexOf(kind));
  }

  /** North, after DEVSHM returned: learns which extensions south accepted. @throws VbusError EPROTO */
  negotiated(): number {
    return this.#check(this.space.engine.exports.ringNegotiated(this.address));
  }

  /** Descriptors on an index. @throws VbusError EPROTO */
  countOf(index: "valid" | "inuse"): number {
    return this.#check(this.space.engine.exports.ringCount(this.address, INDEX_NUMBER[index]));
  }

  /** Free places on an index: count - {@link Queue.countOf}. @throws VbusError EPROTO */
  remain(index: "valid" | "inuse"): number {
    return this.count - this.countOf(index);
  }

  /**
   * Looks for descriptors to push at an index's tail. Fills the table with address, capacity and cookie of each.
   * `flags`: `BURST_TRANSLATE` (south: check and translate buffers), `BURST_STRICT`. Returns how many (0 … max).
   * They stay this side's until {@link Queue.commit}. @throws VbusError EPROTO, EINVAL
   */
  reserve(index: QueueIndex, table: BurstTable | null, max: number, flags = 0): number {
    const limit = grantLimit(table, max);
    const number = INDEX_NUMBER[index];
    return this.#granted(
      this.space.engine.exports.pushReserve(this.address, number, table?.address ?? 0, limit, flags),
      limit,
    );
  }

  /**
   * Pushes the first n reserved descriptors, publishing them at once. `flags`: `BURST_LENGTH`, `BURST_POINTER`,
   * `BURST_COOKIE`, `BURST_SET_VALID` write that member from the table; `BURST_SIGNAL` signals the peer.
   * True: ring the doorbell. @throws VbusError EPROTO, EINVAL
   */
  commit(index: QueueIndex, table: BurstTable | null, n: number, flags: number): boolean {
    this.#checkTable(table, n);
    return (
      this.#check(
        this.space.engine.exports.pushCommit(
          this.address,
          INDEX_NUMBER[index],
          table?.address ?? 0,
          n,
          flags,
        ),
      ) === 1
    );
  }

  /** Looks for descriptors to pop from an index's head; as {@link Queue.reserve}, also `BURST_HEAD`. They stay until {@link Queue.release}. */
  peek(index: "valid" | "inuse", table: BurstTable | null, max: number, flags = 0): number {
    const limit = grantLimit(table, max);
    const number = INDEX_NUMBER[index];
    return this.#granted(
      this.space.engine.exports.popPeek(this.address, number, table?.address ?? 0, limit, flags),
      limit,
    );
  }

  /** Pops the first n peeked descriptors; flags and result as {@link Queue.commit}, also `BURST_NOFLIP`, `BURST_CLEAR_VALID`. */
  release(index: "valid" | "inuse", table: BurstTable | null, n: number, flags: number): boolean {
    this.#checkTable(table, n);
    return (
      this.#check(
        this.space.engine.exports.popRelease(
          this.address,
          INDEX_NUMBER[index],
          table?.address ?? 0,
          n,
          flags,
        ),
      ) === 1
    );
  }

  /**
   * Pushes one descriptor: {@link Queue.reserve} and {@link Queue.commit} in one call, for who has one frame to send.
   * Entry `entry` of the table describes it, flags as for commit. Grants of an earlier reserve end. `ONE_DONE`, with
   * `ONE_DOORBELL` when the doorbell must be rung; 0: no room. @throws VbusError EPROTO, EINVAL
   */
  pushOne(index: QueueIndex, table: BurstTable, flags: number, entry = 0): number {
    const at = this.#entry(table, entry);
    return this.#check(this.space.engine.exports.ringPush(this.address, INDEX_NUMBER[index], at, flags));
  }

  /**
   * Copies the next descriptor to be popped to an entry of the table; it stays until {@link Queue.releaseOne}. Flags as for
   * {@link Queue.peek}. `ONE_DONE`, or 0: there is none. @throws VbusError EPROTO, EINVAL
   */
  peekOne(index: "valid" | "inuse", table: BurstTable, flags = 0, entry = 0): number {
    const at = this.#entry(table, entry);
    return this.#check(this.space.engine.exports.ringPeek(this.address, INDEX_NUMBER[index], at, flags));
  }

  /** Pops one peeked descriptor; flags as for {@link Queue.release}. `ONE_DONE`, with `ONE_DOORBELL` when it must be rung. @throws VbusError EPROTO, EINVAL */
  releaseOne(index: "valid" | "inuse", table: BurstTable, flags: number, entry = 0): number {
    const at = this.#entry(table, entry);
    return this.#check(this.space.engine.exports.ringRelease(this.address, INDEX_NUMBER[index], at, flags));
  }

  /**
   * {@link Queue.peekOne} and {@link Queue.releaseOne} in one call, for who needs no more than the copy in the entry: a
   * driver that reclaims. `ONE_DONE`, with `ONE_DOORBELL` when it must be rung; 0: there is none. @throws VbusError EPROTO, EINVAL
   */
  takeOne(index: "valid" | "inuse", table: BurstTable, flags: number, entry = 0): number {
    const at = this.#entry(table, entry);
    return this.#check(this.space.engine.exports.ringTake(this.address, INDEX_NUMBER[index], at, flags));
  }

  #entry(table: BurstTable, entry: number): number {
    if (entry >= 0 && entry < table.capacity && Number.isInteger(entry))
      return table.address + entry * ENTRY_SIZE;
    throw new VbusError(
      "EINVAL",
      `entry ${entry} of a table of ${table.capacity}; give a whole number below that`,
    );
  }

  /** Tells the peer to look. True: ring the doorbell. */
  inject(): boolean {
    return this.space.engine.exports.signalInject(this.address) !== 0;
  }

  /** Unmasks, then looks at the ring (`RECHECK_…`). True: schedule a wakeup. */
  enable(recheck: number): boolean {
    return this.space.engine.exports.ringEnable(this.address, recheck) !== 0;
  }

  /** Masks. A doorbell already rung may still arrive. */
  disable(): void {
    this.space.engine.exports.signalDisable(this.address);
  }

  /** Begins a wakeup: WAKEUP_DONE, WAKEUP_RUN (run the notifier, then {@link Queue.wakeupNext}) or WAKEUP_BUDGET (schedule another). */
  wakeupBegin(budget: number, recheck: number): number {
    return this.space.engine.exports.ringWakeupBegin(this.address, budget, recheck);
  }

  /** Continues after the notifier ran. */
  wakeupNext(recheck: number): number {
    return this.space.engine.exports.ringWakeupNext(this.address, recheck);
  }

  /** True when a descriptor with payload waits at inuse.head. */
  get hasPayload(): boolean {
    return this.space.engine.exports.ringHasPayload(this.address) !== 0;
  }

  /** Writes the shared copies of the indexes that this side moves (matters for lazy queues only). */
  sync(): void {
    this.space.engine.exports.ringSync(this.address);
  }

  /** What was counted since the endpoint was bound. */
  counters(): QueueCounters {
    const { engine } = this.space;
    const violations: Partial<Record<ViolationName, number>> = {};
    for (const [kind, name] of VIOLATION_NAMES.entries()) {
      const n = this.#word(EP_OFF_VIOLATIONS + kind * 4);
      if (n !== 0) violations[name] = n;
    }
    return {
      ...readSignalCounters(engine, this.address),
      pushed: engine.counter(this.address + EP_OFF_PUSHED),
      popped: engine.counter(this.address + EP_OFF_POPPED),
      bytes: engine.counter(this.address + EP_OFF_BYTES),
      violations,
    };
  }

  /** Rebuilds cached addresses after the guest's regions moved. @throws VbusError EFAULT when the segment is gone. */
  rebase(): void {
    checkResult(
      this.space.engine.exports.ringRebase(this.address),
      "the queue's segment is no longer in any region",
    );
  }

  /** The endpoint's relocatable state (versioned; import it with {@link Queue.importState}). Reserved and peeked descriptors count as not taken. */
  exportState(): Uint8Array {
    const out = this.space.allocate(STATE_SIZE, 16);
    try {
      this.space.engine.exports.ringExport(this.address, out);
      return this.space.bytes.slice(out, out + STATE_SIZE);
    } finally {
      this.space.free(out);
    }
  }

  /** True after {@link Queue.close}. */
  get closed(): boolean {
    return this.#closed;
  }

  /** Gives the private state back; the shared segment stays as it is. Closing twice is harmless. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.space.free(this.address);
  }
}

/** Flags of a host that reads guest buffers as frames. */
export const PEEK_FRAMES = BURST_TRANSLATE | BURST_HEAD;
/** Flags of a host that fills guest buffers. */
export const RESERVE_BUFFERS = BURST_TRANSLATE | BURST_STRICT;
/** Flags of a driver that reclaims: north already owns the descriptor. */
export const RECLAIM = BURST_NOFLIP;
