import { EXT_LAZY_INDEXES, IOQ_OFF_SIGNAL } from "../../../assembly/abi/ioq.js";
import {
  ETH_ADDRESS_SIZE,
  VENET_CAPABILITIES_OFF_BITS,
  VENET_CAPABILITIES_SIZE,
  VENET_EVQQUERY,
  VENET_FLUSHRX,
  VENET_L4ROQUERY,
  VENET_LINKDOWN,
  VENET_LINKUP,
  VENET_MACQUERY,
  VENET_NEGCAP,
  VENET_PMTDQUERY,
  VENET_QUERY_SIZE,
  VENET_QUEUE_RX,
  VENET_QUEUE_TX,
  VENET_SEGMENT_EVENT_POOL,
  VENET_SEGMENT_EVENT_QUEUE,
  VENET_SEGMENT_L4RO_PAGE_QUEUE,
  VENET_SEGMENT_L4RO_POOL,
  VENET_SEGMENT_PMTD_POOL,
} from "../../../assembly/abi/venet.js";
import type { Connection, HostSignal, SharedSegment } from "../../bus/types.js";
import { Queue, type QueueCounters, type QueueRole } from "../../engine/queue.js";
import { VbusError } from "../../errors.js";
import type { MemorySpace } from "../../memory/space.js";
import type { Batch } from "../../net/batch.js";
import type { PortPeer } from "../../net/port.js";
import type { Timer } from "../../scheduler.js";
import { ReceiveSide } from "./receive.js";
import { dropFrames } from "./statistics.js";
import { TransmitSide, type TransmitEnvironment } from "./transmit.js";

/** Size of a venet event record, told by EVQQUERY whether or not events are granted. */
const EVENT_SIZE = 24;
/** How often a link that is up looks for wake-ups that a guest of 2009 lost. */
const RECHECK_MS = 100;

/** What a connection needs of its device. */
export interface VenetEnvironment extends TransmitEnvironment {
  /** The guest's MAC address, 6 bytes. */
  readonly clientMac: Uint8Array;
  /** True when rings may write their indexes lazily, should the guest offer it. */
  readonly lazyIndexes: boolean;
  /** The session ended. */
  closed(): void;
}

/**
 * One session of a guest with a NIC: the calls and segments of `docs/abi/venet.md` sections 2 and 3, in linear mode
 * (no capability is granted, which NEGCAP says; it is no prerequisite of anything).
 */
export class VenetConnection implements Connection, PortPeer {
  #rx: ReceiveSide | null = null;
  #tx: TransmitSide | null = null;
  #pages: { queue: Queue; signal: HostSignal } | null = null;
  #linkUp = false;
  #recheck: Timer | null = null;

  constructor(
    private readonly memory: MemorySpace,
    private readonly environment: VenetEnvironment,
  ) {}

  /** True between LINKUP and LINKDOWN. */
  get linkUp(): boolean {
    return this.#linkUp;
  }

  /** Counters of the rings that are there, by this side; RX and TX are the guest's. */
  queueCounters(): { rx: QueueCounters | null; tx: QueueCounters | null } {
    return { rx: this.#rx?.counters() ?? null, tx: this.#tx?.counters() ?? null };
  }

  /** {@inheritDoc Connection.call} */
  call(func: number, gpa: number, length: number): number {
    switch (func) {
      case VENET_LINKUP:
        return this.#up();
      case VENET_LINKDOWN:
        if (!this.#linkUp) throw new VbusError("ENOENT", "the link is not up");
        this.#down();
        return 0;
      case VENET_MACQUERY:
        requireLength(length, ETH_ADDRESS_SIZE, "MACQUERY");
        this.memory.copyTo(gpa, this.environment.clientMac);
        return 0;
      case VENET_NEGCAP: {
        requireLength(length, VENET_CAPABILITIES_SIZE, "NEGCAP");
        this.#requireLinkDown();
        // wanted AND available, and nothing is available in any group
        const block = this.memory.copyFrom(gpa, length);
        new DataView(block.buffer).setUint32(VENET_CAPABILITIES_OFF_BITS, 0, true);
        this.memory.copyTo(gpa, block);
        return 0;
      }
      case VENET_FLUSHRX:
        // with the link down the original refuses, which stops the kernel of a guest that changes its MTU (V11)
        if (this.#linkUp) this.#rx?.flush();
        return 0;
      case VENET_PMTDQUERY:
        return VENET_SEGMENT_PMTD_POOL;
      case VENET_EVQQUERY:
        return this.#query(gpa, length, [EVENT_SIZE, VENET_SEGMENT_EVENT_POOL, VENET_SEGMENT_EVENT_QUEUE]);
      case VENET_L4ROQUERY:
        return this.#query(gpa, length, [VENET_SEGMENT_L4RO_POOL, VENET_SEGMENT_L4RO_PAGE_QUEUE]);
      default:
        throw new VbusError("EINVAL", `venet has no call ${func}`);
    }
  }

  /** EVQQUERY and L4ROQUERY: flags must be 0; answers follow the flags word. */
  #query(gpa: number, length: number, answers: readonly number[]): number {
    requireLength(length, VENET_QUERY_SIZE, "query");
    this.#requireLinkDown();
    const block = this.memory.copyFrom(gpa, length);
    const view = new DataView(block.buffer);
    if (view.getUint32(0, true) !== 0) throw new VbusError("EINVAL", "the flags of a query must be 0");
    for (const [i, answer] of answers.entries()) view.setUint32(4 + i * 4, answer, true);
    this.memory.copyTo(gpa, block);
    return 0;
  }

  #requireLinkDown(): void {
    if (this.#linkUp) throw new VbusError("EINVAL", "negotiate before LINKUP");
  }

  #up(): number {
    if (this.#linkUp) throw new VbusError("EEXIST", "the link is up already");
    if (this.#rx === null || this.#tx === null)
      throw new VbusError("EINVAL", "share the RX and TX rings before LINKUP");
    this.#linkUp = true; // before attach, for the port may have frames at once
    try {
      this.environment.port?.attach(this);
    } catch (error) {
      this.#linkUp = false;
      throw error;
    }
    this.#tx.start();
    this.#scheduleRecheck();
    return 0;
  }

  #down(): void {
    this.#linkUp = false;
    this.#recheck?.cancel();
    this.#recheck = null;
    this.#tx?.stop();
    this.#rx?.stop();
    this.environment.port?.detach();
  }

  #scheduleRecheck(): void {
    this.#recheck = this.environment.scheduler.after(RECHECK_MS, () => {
      if (!this.#linkUp) return;
      this.#tx?.recheck();
      this.#rx?.recheck();
      this.#scheduleRecheck();
    });
  }

  /** {@inheritDoc Connection.shm} */
  shm(id: number, segment: SharedSegment, signal: HostSignal | null): number {
    switch (id) {
      case VENET_QUEUE_RX:
        if (this.#rx !== null) throw new VbusError("EEXIST", "there is an RX ring already");
        this.#rx = this.#attach(
          segment,
          signal,
          "southReceive",
          (queue, own) => new ReceiveSide(queue, own, this.environment),
        );
        return 0;
      case VENET_QUEUE_TX:
        if (this.#tx !== null) throw new VbusError("EEXIST", "there is a TX ring already");
        this.#tx = this.#attach(
          segment,
          signal,
          "southTransmit",
          (queue, own) => new TransmitSide(queue, own, this.environment),
        );
        return 0;
      case VENET_SEGMENT_L4RO_PAGE_QUEUE:
        // not gated by a capability in the ABI; without L4RO nothing ever takes a page from it
        if (this.#pages !== null) throw new VbusError("EEXIST", "there is a page queue already");
        this.#pages = this.#attach(segment, signal, "southFeed", (queue, own) => ({ queue, signal: own }));
        return 0;
      default:
        throw new VbusError(
          "EINVAL",
          `segment ${id} is not accepted: its capability was not granted, or venet has no such segment`,
        );
    }
  }

  #attach<T>(
    segment: SharedSegment,
    signal: HostSignal | null,
    role: QueueRole,
    build: (queue: Queue, signal: HostSignal) => T,
  ): T {
    if (signal === null || signal.offset !== IOQ_OFF_SIGNAL) {
      throw new VbusError("EINVAL", "a ring needs the signal that is embedded in its header (offset 8)");
    }
    let queue: Queue;
    try {
      queue = Queue.attach(this.memory, {
        gpa: segment.gpa,
        length: segment.length,
        role,
        accept: this.environment.lazyIndexes ? EXT_LAZY_INDEXES : 0,
      });
    } catch (error) {
      // a ring whose indexes are out of range is a bad ring, for the guest: -EINVAL like any other
      if (error instanceof VbusError && error.code === "EPROTO")
        throw new VbusError("EINVAL", error.message, { cause: error });
      throw error;
    }
    try {
      return build(queue, signal);
    } catch (error) {
      queue.close();
      throw error;
    }
  }

  /** {@inheritDoc PortPeer.receive} */
  receive(batch: Batch, from: number, to: number): number {
    if (this.#rx === null || !this.#linkUp) {
      dropFrames(this.environment.statistics.rx, "no-link", to - from);
      return to - from;
    }
    return this.#rx.deliver(batch, from, to);
  }

  /** {@inheritDoc PortPeer.writable} */
  writable(): void {
    this.#tx?.resume();
  }

  /** The NIC got a port, or is about to lose it (`null`), while the link is up. */
  portChanged(attached: boolean): void {
    if (!this.#linkUp) return;
    if (attached) this.environment.port?.attach(this);
    else this.environment.port?.detach();
    this.#tx?.resume(); // frames that nobody took while there was no port (V9), or that wait for one that went
  }

  /** {@inheritDoc Connection.close} */
  close(): void {
    try {
      if (this.#linkUp) this.#down();
    } finally {
      // whatever a port does: the guest's memory is let go of, and the NIC is free for the next one
      this.#tx?.close();
      this.#rx?.close();
      this.#pages?.queue.close();
      this.#pages?.signal.release();
      this.#tx = null;
      this.#rx = null;
      this.#pages = null;
      this.environment.closed();
    }
  }
}

function requireLength(length: number, wanted: number, what: string): void {
  if (length !== wanted) throw new VbusError("EINVAL", `${what} takes ${wanted} bytes, not ${length}`);
}
