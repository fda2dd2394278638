import { EXT_COMPACT, EXT_LAZY_INDEXES } from "../../../assembly/abi/ioq.js";
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
import type {
  Connection,
  HostSignal,
  RestoredSignals,
  SavedSignals,
  SessionQueue,
  SharedSegment,
} from "../../bus/types.js";
import type { Queue, QueueCounters, QueueRole } from "../../engine/queue.js";
import type { DescriptorPool } from "../../engine/vsg.js";
import { VbusError } from "../../errors.js";
import type { MemorySpace } from "../../memory/space.js";
import type { Batch } from "../../net/batch.js";
import type { PortPeer } from "../../net/port.js";
import type { Timer } from "../../scheduler.js";
import { shownQueues } from "../queues.js";
import { SessionRings, type RingBuilder } from "../session-rings.js";
import type { StateReader, StateValue } from "../../state/reader.js";
import { announcement } from "../ethernet/announcement.js";
import { ReceiveSide } from "../ethernet/receive.js";
import { dropFrames } from "../ethernet/statistics.js";
import { TransmitSide } from "../ethernet/transmit.js";
import { Capabilities, type CapabilityPolicy } from "./capabilities.js";
import { EventSide } from "./events.js";
import { isSlotSize, L4roBuffers, PageQueue } from "./l4ro.js";
import { ReceiveRing } from "./receive-ring.js";
import { TransmitRing, type TransmitMode } from "./transmit-ring.js";
import type { VenetDataEnvironment } from "./environment.js";

/** How often a link that is up looks for wake-ups that a guest of 2009 lost. */
const RECHECK_MS = 100;
/** Segments without a signal. */
const POOLS = new Set([VENET_SEGMENT_PMTD_POOL, VENET_SEGMENT_EVENT_POOL, VENET_SEGMENT_L4RO_POOL]);
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
  /** The session goes on, which may be one that was restored. */
  resumed(): void;
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
  #held = false;
  /** It was restored, and the network does not know yet where the card is. */
  #restored = false;
  /** Frames were offered while the session was held. */
  #refused = false;
  readonly #sessionRings: SessionRings;

  constructor(
    private readonly memory: MemorySpace,
    private readonly environment: VenetEnvironment,
  ) {
    this.#sessionRings = new SessionRings(memory);
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
    const l4ro = this.#slots(this.#rxQueue, 0);
    this.#linkUp = true; // first: the port may hand over what waits while it is being attached
    try {
      this.#rx.ring.configure({ l4ro, offloads: capabilities.receiveOffloads });
      const { carrier } = this.environment;
      if (carrier) this.#attach();
      // the guest hears of its carrier before it hears of anything that was sent; without a queue nobody is told (V6)
      if (capabilities.linkState && (carrier || this.#toldUp)) this.#tellLink(carrier);
      this.#tx.ring.configure(this.#transmitMode());
      this.#tx.side.start();
    } catch (error) {
      this.#down();
      throw error;
    }
    this.#scheduleRecheck();
    return 0;
  }

  /** Receive buffers in slots, when L4RO was granted. @throws VbusError EINVAL without a pool, ENOMEM */
  #slots(queue: Queue, slotSize: number): L4roBuffers | null {
    if (!this.#capabilities.l4ro) return null;
    const pool = this.#pools.get(VENET_SEGMENT_L4RO_POOL);
    if (pool === undefined)
      throw new VbusError("EINVAL", "share the pool of L4RO before LINKUP, which was granted");
    return (this.#l4ro ??= new L4roBuffers(queue, pool, () => this.#pages, BURST, slotSize));
  }

  #transmitMode(): TransmitMode {
    const capabilities = this.#capabilities;
    return {
      scatterGather: capabilities.scatterGather,
      pool: this.#pools.get(VENET_SEGMENT_PMTD_POOL) ?? null,
      kinds: capabilities.transmitKinds,
      completions: capabilities.completions ? this.#events : null,
    };
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
    switch (id) {
      case VENET_QUEUE_RX:
        if (this.#rx !== null) throw new VbusError("EEXIST", "there is an RX ring already");
        this.#rx = this.#ring(segment, signal, "southReceive", this.#buildReceive);
        return 0;
      case VENET_QUEUE_TX:
        if (this.#tx !== null) throw new VbusError("EEXIST", "there is a TX ring already");
        this.#tx = this.#ring(segment, signal, "southTransmit", this.#buildTransmit);
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
        this.#pages = this.#ring(segment, signal, "southFeed", this.#buildPages);
        return 0;
      default:
        throw new VbusError("EINVAL", `venet has no segment ${id}`);
    }
  }

  readonly #buildReceive = (queue: Queue, own: HostSignal): RingSide<ReceiveRing, ReceiveSide> => {
    this.#rxQueue = queue;
    const ring = new ReceiveRing(queue, own, this.environment);
    return { ring, side: new ReceiveSide(ring, this.environment) };
  };

  readonly #buildTransmit = (queue: Queue, own: HostSignal): RingSide<TransmitRing, TransmitSide> => {
    const ring = new TransmitRing(queue, own, this.environment);
    return { ring, side: new TransmitSide(ring, this.environment) };
  };

  readonly #buildPages = (queue: Queue, own: HostSignal): PageQueue => {
    const { environment } = this;
    return new PageQueue(
      queue,
      own,
      environment.scheduler,
      () => environment.port?.ready(),
      (error) => {
        environment.failed("rx", error);
      },
    );
  };

  readonly #buildEvents = (queue: Queue, own: HostSignal): EventSide => {
    const { environment } = this;
    const pool = this.#pools.get(VENET_SEGMENT_EVENT_POOL);
    if (pool === undefined || queue.count * VENET_EVENT_SIZE !== pool.length) {
      throw new VbusError(
        "EINVAL",
        `an event pool of ${pool?.length ?? 0} bytes for ${queue.count} events of ${VENET_EVENT_SIZE}`,
      );
    }
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
  };

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
    if (!this.#pools.has(VENET_SEGMENT_EVENT_POOL))
      throw new VbusError("EINVAL", "share the event pool before the event queue");
    this.#events = this.#ring(segment, signal, "southReceive", this.#buildEvents);
  }

  #ring<T extends object>(
    segment: SharedSegment,
    signal: HostSignal | null,
    role: QueueRole,
    build: RingBuilder<T>,
  ): T {
    const { lazyIndexes, compactDescriptors } = this.environment;
    const accept = (lazyIndexes ? EXT_LAZY_INDEXES : 0) | (compactDescriptors ? EXT_COMPACT : 0);
    return this.#sessionRings.attach(segment, signal, role, build, accept);
  }

  /** {@inheritDoc PortPeer.receive} */
  receive(batch: Batch, from: number, to: number): number {
    if (this.#held) {
      this.#refused = true;
      return 0;
    }
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

  /** {@inheritDoc Connection.hold} */
  hold(): void {
    this.#held = true;
    this.#events?.hold();
  }

  /** {@inheritDoc Connection.resume} */
  resume(): void {
    if (!this.#held) return;
    this.#held = false;
    this.environment.resumed();
    this.#events?.resume();
    if (!this.#linkUp) return;
    this.#rx?.side.resume();
    this.#tx?.side.resume();
    this.#pages?.resume();
    if (this.#restored && this.#attached) this.#tx?.side.send(announcement(this.environment.clientMac));
    this.#restored = false;
    if (this.#refused) this.environment.port?.ready();
    this.#refused = false;
  }

  /** {@inheritDoc Connection.save} */
  save(signals: SavedSignals): StateValue {
    const number = (ring: object): number => this.#sessionRings.signalOf(ring, signals);
    const rx = this.#rx;
    const tx = this.#tx;
    return {
      capabilities: this.#capabilities.save(),
      pools: [...this.#pools].map(([id, { gpa, length }]) => [id, gpa, length]),
      linkUp: this.#linkUp,
      toldUp: this.#toldUp,
      rx: rx && { signal: number(rx), ring: rx.ring.save(), side: rx.side.save() },
      tx: tx && { signal: number(tx), ring: tx.ring.save(), side: tx.side.save() },
      pages: this.#pages && { signal: number(this.#pages), ring: this.#pages.save() },
      events: this.#events && { signal: number(this.#events), ring: this.#events.save() },
    };
  }

  /** The session that was saved; held. @throws StateError; VbusError ENOMEM; what the port throws that refuses the NIC */
  static restore(
    memory: MemorySpace,
    environment: VenetEnvironment,
    state: StateReader,
    signals: RestoredSignals,
  ): VenetConnection {
    const connection = new VenetConnection(memory, environment);
    connection.#held = true;
    connection.#restored = true;
    try {
      connection.#restore(state, signals);
    } catch (error) {
      connection.close();
      throw error;
    }
    return connection;
  }

  #restore(state: StateReader, signals: RestoredSignals): void {
    this.#capabilities.restore(state.get("capabilities"));
    this.#restorePools(state.get("pools"));
    const rings = this.#sessionRings;
    const events = rings.restore(state, "events", signals, "southReceive", this.#buildEvents);
    this.#events = events?.side ?? null;
    this.#events?.hold();
    if (events !== null) this.#events?.restore(events.saved.get("ring"));
    this.#pages = rings.restore(state, "pages", signals, "southFeed", this.#buildPages)?.side ?? null;
    const rx = rings.restore(state, "rx", signals, "southReceive", this.#buildReceive);
    this.#rx = rx?.side ?? null;
    const tx = rings.restore(state, "tx", signals, "southTransmit", this.#buildTransmit);
    this.#tx = tx?.side ?? null;
    rx?.side.side.restore(rx.saved.get("side"));
    tx?.side.side.restore(tx.saved.get("side"));
    tx?.side.ring.restore(tx.saved.get("ring").get("unsignalled").number(0, 0xffffffff));
    this.#toldUp = state.get("toldUp").boolean();
    const slotSize = rx === null ? null : rx.saved.get("ring").get("slotSize");
    if (slotSize !== null && this.#rxQueue !== null && slotSize.number(0, 0xffffffff) !== 0) {
      const size = slotSize.number(0, 0xffffffff);
      if (!this.#capabilities.l4ro || !isSlotSize(this.#rxQueue, size))
        slotSize.fail("no slot has that size");
      const queue = this.#rxQueue;
      slotSize.rebuild("the receive slots", () => this.#slots(queue, size));
    }
    if (!state.get("linkUp").boolean()) return;
    if (rx === null || tx === null || this.#rxQueue === null) state.fail("a link without rings");
    this.#linkUp = true;
    const queue = this.#rxQueue;
    const l4ro = state.rebuild("the receive slots", () => this.#slots(queue, 0));
    rx.side.ring.configure({ l4ro, offloads: this.#capabilities.receiveOffloads });
    tx.side.ring.configure(this.#transmitMode());
    const { carrier } = this.environment;
    if (carrier) this.#attach();
    // the carrier is this host's affair, and may be another one than when the state was saved
    if (this.#capabilities.linkState && carrier !== this.#toldUp) this.#tellLink(carrier);
    tx.side.side.start();
    this.#scheduleRecheck();
  }

  #restorePools(state: StateReader): void {
    for (const item of state.items(POOLS.size)) {
      const [id, gpa, length] = item.tuple(3).map((at) => at.number(0, Number.MAX_SAFE_INTEGER)) as [
        number,
        number,
        number,
      ];
      if (!POOLS.has(id) || this.#pools.has(id) || length === 0) item.fail("no such pool can be shared");
      if (id === VENET_SEGMENT_L4RO_POOL && length > VENET_L4RO_POOL_MAX) item.fail("the pool is too large");
      item.rebuild("a pool", () => this.memory.translate(gpa, length));
      this.#pools.set(id, { gpa, length });
    }
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
