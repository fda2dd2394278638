import { EXT_COMPACT, EXT_LAZY_INDEXES, IOQ_OFF_SIGNAL } from "../../../assembly/abi/ioq.js";
import {
  ETH_ADDRESS_SIZE,
  VENET_CAPABILITIES_OFF_BITS,
  VENET_CAPABILITIES_OFF_GID,
  VENET_CAPABILITIES_SIZE,
  VENET_EVENT_SIZE,
  VENET_EVQQUERY,
  VENET_L4RO_POOL_MAX,
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
import type { Connection, HostSignal, SessionQueue, SharedSegment } from "../../bus/types.js";
import { Queue, type QueueCounters, type QueueRole } from "../../engine/queue.js";
import type { DescriptorPool } from "../../engine/vsg.js";
import { VbusError } from "../../errors.js";
import type { MemorySpace } from "../../memory/space.js";
import type { Batch } from "../../net/batch.js";
import type { PortPeer } from "../../net/port.js";
import type { Timer } from "../../scheduler.js";
import { shownQueues } from "../queues.js";
import { ReceiveSide } from "../ethernet/receive.js";
import { dropFrames } from "../ethernet/statistics.js";
import { TransmitSide } from "../ethernet/transmit.js";
import { Capabilities, type CapabilityPolicy } from "./capabilities.js";
import { EventSide } from "./events.js";
import { L4roBuffers, PageQueue } from "./l4ro.js";
import { ReceiveRing } from "./receive-ring.js";
import { TransmitRing } from "./transmit-ring.js";
import type { VenetDataEnvironment } from "./environment.js";

/** How often a link that is up looks for wake-ups that a guest of 2009 lost. */
const RECHECK_MS = 100;
/** Receive descriptors filled at once. */
const BURST = 64;

/** What a connection needs of its device. */
export interface VenetEnvironment extends VenetDataEnvironment {
  /** The guest's MAC address, 6 bytes. */
  readonly clientMac: Uint8Array;
  /** True when rings may write their indexes lazily, should the guest offer it. */
  readonly lazyIndexes: boolean;
  /** True when rings may have compact descriptors, should the guest offer it. */
  readonly compactDescriptors: boolean;
  /** What may be granted. */
  readonly policy: CapabilityPolicy;
  /** The session ended. */
  closed(): void;
  /** {@inheritDoc NicEnvironment.failed} */
  failed(queue: "rx" | "tx" | "event", error: unknown): void;
}

/** A ring and the side of the data path that works on it. */
interface RingSide<Ring, Side> {
  readonly ring: Ring;
  readonly side: Side;
}

/**
 * One session of a guest with a NIC: the calls and segments of `docs/abi/venet.md` sections 2 and 3. NEGCAP is no
 * prerequisite of anything: without it everything is linear.
 */
export class VenetConnection implements Connection, PortPeer {
  #rx: RingSide<ReceiveRing, ReceiveSide> | null = null;
  #rxQueue: Queue | null = null;
  #tx: RingSide<TransmitRing, TransmitSide> | null = null;
  #pages: PageQueue | null = null;
  #events: EventSide | null = null;
  /** Segments without a signal, by id. */
  readonly #pools = new Map<number, DescriptorPool>();
  readonly #capabilities: Capabilities;
  #l4ro: L4roBuffers | null = null;
  #linkUp = false;
  /** The guest was told that it has a carrier. */
  #toldUp = false;
  #attached = false;
  #recheck: Timer | null = null;

  constructor(
    private readonly memory: MemorySpace,
    private readonly environment: VenetEnvironment,
  ) {
    this.#capabilities = new Capabilities(environment.policy);
  }

  /** What the guest takes unfinished at this moment (`OFFLOAD_…` bits). */
  get offloads(): number {
    return this.#rx?.side.offloads ?? 0;
  }

  /** True between LINKUP and LINKDOWN. */
  get linkUp(): boolean {
    return this.#linkUp;
  }

  /** Counters of the rings that are there, by this side; RX and TX are the guest's. */
  queueCounters(): { rx: QueueCounters | null; tx: QueueCounters | null; events: QueueCounters | null } {
    return {
      rx: this.#rx?.ring.counters() ?? null,
      tx: this.#tx?.ring.counters() ?? null,
      events: this.#events?.counters() ?? null,
    };
  }

  /** {@inheritDoc Connection.queues} */
  queues(): readonly SessionQueue[] {
    return shownQueues({ rx: this.#rx?.ring, tx: this.#tx?.ring, events: this.#events, pages: this.#pages });
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
        const block = this.memory.copyFrom(gpa, length);
        const view = new DataView(block.buffer);
        const group = view.getUint32(VENET_CAPABILITIES_OFF_GID, true);
        const wanted = view.getUint32(VENET_CAPABILITIES_OFF_BITS, true);
        view.setUint32(VENET_CAPABILITIES_OFF_BITS, this.#capabilities.negotiate(group, wanted), true);
        this.memory.copyTo(gpa, block);
        return 0;
      }
      case VENET_FLUSHRX:
        // with the link down the original refuses, which stops the kernel of a guest that changes its MTU (V11)
        if (this.#linkUp && this.#rx !== null) {
          this.#rx.ring.flush();
          this.#rx.side.congest();
        }
        return 0;
      case VENET_PMTDQUERY:
        return VENET_SEGMENT_PMTD_POOL;
      case VENET_EVQQUERY:
        return this.#query(gpa, length, [
          VENET_EVENT_SIZE,
          VENET_SEGMENT_EVENT_POOL,
          VENET_SEGMENT_EVENT_QUEUE,
        ]);
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
    if (this.#rx === null || this.#tx === null || this.#rxQueue === null)
      throw new VbusError("EINVAL", "share the RX and TX rings before LINKUP");
    const capabilities = this.#capabilities;
    let l4ro: L4roBuffers | null = null;
    if (capabilities.l4ro) {
      const pool = this.#pools.get(VENET_SEGMENT_L4RO_POOL);
      if (pool === undefined)
        throw new VbusError("EINVAL", "share the pool of L4RO before LINKUP, which was granted");
      l4ro = this.#l4ro ??= new L4roBuffers(this.#rxQueue, pool, () => this.#pages, BURST);
    }
    this.#linkUp = true; // first: the port may hand over what waits while it is being attached
    try {
      this.#rx.ring.configure({ l4ro, offloads: capabilities.receiveOffloads });
      const { carrier } = this.environment;
      if (carrier) this.#attach();
      // the guest hears of its carrier before it hears of anything that was sent; without a queue nobody is told (V6)
      if (capabilities.linkState && (carrier || this.#toldUp)) this.#tellLink(carrier);
      this.#tx.ring.configure({
        scatterGather: capabilities.scatterGather,
        pool: this.#pools.get(VENET_SEGMENT_PMTD_POOL) ?? null,
        kinds: capabilities.transmitKinds,
        completions: capabilities.completions ? this.#events : null,
      });
      this.#tx.side.start();
    } catch (error) {
      this.#down();
      throw error;
    }
    this.#scheduleRecheck();
    return 0;
  }

  #tellLink(up: boolean): void {
    if (this.#events === null) return;
    this.#toldUp = up;
    this.#events.linkState(up);
  }

  #attach(): void {
    if (this.#attached || this.environment.port === null) return;
    this.environment.port.attach(this);
    this.#attached = true;
  }

  #detach(): void {
    if (!this.#attached) return;
    this.#attached = false;
    this.environment.port?.detach();
  }

  #down(): void {
    this.#linkUp = false;
    this.#recheck?.cancel();
    this.#recheck = null;
    this.#tx?.side.stop();
    this.#rx?.side.stop();
    this.#detach();
  }

  /** The administrator took the carrier away, or gave it back. */
  carrierChanged(up: boolean): void {
    if (!this.#linkUp) return;
    if (up) this.#attach();
    else this.#detach();
    if (this.#capabilities.linkState) this.#tellLink(up);
    this.#tx?.side.resume(); // frames that nobody took, or that wait for a port that is out of reach now
  }

  #scheduleRecheck(): void {
    this.#recheck = this.environment.scheduler.after(RECHECK_MS, () => {
      if (!this.#linkUp) return;
      this.#tx?.side.recheck();
      this.#rx?.ring.recheck(this.#rx.side.congested);
      this.#scheduleRecheck();
    });
  }

  /** {@inheritDoc Connection.shm} */
  shm(id: number, segment: SharedSegment, signal: HostSignal | null): number {
    const { environment } = this;
    switch (id) {
      case VENET_QUEUE_RX:
        if (this.#rx !== null) throw new VbusError("EEXIST", "there is an RX ring already");
        this.#rx = this.#ring(segment, signal, "southReceive", (queue, own) => {
          this.#rxQueue = queue;
          const ring = new ReceiveRing(queue, own, environment);
          return { ring, side: new ReceiveSide(ring, environment) };
        });
        return 0;
      case VENET_QUEUE_TX:
        if (this.#tx !== null) throw new VbusError("EEXIST", "there is a TX ring already");
        this.#tx = this.#ring(segment, signal, "southTransmit", (queue, own) => {
          const ring = new TransmitRing(queue, own, environment);
          return { ring, side: new TransmitSide(ring, environment) };
        });
        return 0;
      case VENET_SEGMENT_PMTD_POOL:
        this.#pool(id, segment, signal, this.#capabilities.pool, 2 ** 32);
        return 0;
      case VENET_SEGMENT_EVENT_POOL:
        this.#pool(id, segment, signal, this.#capabilities.events, 2 ** 32);
        return 0;
      case VENET_SEGMENT_L4RO_POOL:
        this.#pool(id, segment, signal, this.#capabilities.l4roAny, VENET_L4RO_POOL_MAX);
        return 0;
      case VENET_SEGMENT_EVENT_QUEUE:
        this.#eventQueue(segment, signal);
        return 0;
      case VENET_SEGMENT_L4RO_PAGE_QUEUE:
        // not gated by a capability in the ABI; without L4RO nothing ever takes a page from it
        if (this.#pages !== null) throw new VbusError("EEXIST", "there is a page queue already");
        this.#pages = this.#ring(
          segment,
          signal,
          "southFeed",
          (queue, own) =>
            new PageQueue(
              queue,
              own,
              environment.scheduler,
              () => environment.port?.ready(),
              (error) => {
                environment.failed("rx", error);
              },
            ),
        );
        return 0;
      default:
        throw new VbusError("EINVAL", `venet has no segment ${id}`);
    }
  }

  /** A segment without a signal that descriptors point into. */
  #pool(
    id: number,
    segment: SharedSegment,
    signal: HostSignal | null,
    granted: boolean,
    limit: number,
  ): void {
    if (this.#pools.has(id)) throw new VbusError("EEXIST", `there is a segment ${id} already`);
    if (!granted) throw new VbusError("EINVAL", `segment ${id} needs a capability that was not granted`);
    if (signal !== null) throw new VbusError("EINVAL", `segment ${id} is a pool; share it without a signal`);
    if (segment.length === 0 || segment.length > limit)
      throw new VbusError("EINVAL", `a pool of ${segment.length} bytes; give it 1 to ${limit}`);
    this.#pools.set(id, { gpa: segment.gpa, length: segment.length });
  }

  #eventQueue(segment: SharedSegment, signal: HostSignal | null): void {
    if (this.#events !== null) throw new VbusError("EEXIST", "there is an event queue already");
    const pool = this.#pools.get(VENET_SEGMENT_EVENT_POOL);
    if (pool === undefined) throw new VbusError("EINVAL", "share the event pool before the event queue");
    this.#events = this.#ring(segment, signal, "southReceive", (queue, own) => {
      if (queue.count * VENET_EVENT_SIZE !== pool.length) {
        throw new VbusError(
          "EINVAL",
          `an event pool of ${pool.length} bytes for ${queue.count} events of ${VENET_EVENT_SIZE}`,
        );
      }
      const { environment } = this;
      return new EventSide(queue, own, pool, {
        scheduler: environment.scheduler,
        told: (n) => {
          environment.statistics.events += n;
        },
        eventsDrained: () => this.#tx?.side.resume(),
        failed: (what, error) => {
          environment.failed(what, error);
        },
      });
    });
  }

  #ring<T>(
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
        accept:
          (this.environment.lazyIndexes ? EXT_LAZY_INDEXES : 0) |
          (this.environment.compactDescriptors ? EXT_COMPACT : 0),
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
    return this.#rx.side.deliver(batch, from, to);
  }

  /** {@inheritDoc PortPeer.writable} */
  writable(): void {
    this.#tx?.side.resume();
  }

  /** The NIC got a port, or is about to lose it, while the link is up. */
  portChanged(attached: boolean): void {
    if (!this.#linkUp) return;
    if (!attached) this.#detach();
    else if (this.environment.carrier) this.#attach();
    this.#tx?.side.resume(); // frames that nobody took while there was no port (V9), or that wait for one that went
  }

  /** {@inheritDoc Connection.close} */
  close(): void {
    try {
      if (this.#linkUp) this.#down();
    } finally {
      // whatever a port does: the guest's memory is let go of, and the NIC is free for the next one
      this.#tx?.side.close();
      this.#rx?.side.close();
      this.#pages?.close();
      this.#events?.close();
      this.#tx = null;
      this.#rx = null;
      this.#rxQueue = null;
      this.#pages = null;
      this.#events = null;
      this.#pools.clear();
      this.environment.closed();
    }
  }
}

function requireLength(length: number, wanted: number, what: string): void {
  if (length !== wanted) throw new VbusError("EINVAL", `${what} takes ${wanted} bytes, not ${length}`);
}
