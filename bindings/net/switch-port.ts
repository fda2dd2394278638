import type { Scheduler, Timer } from "../scheduler.js";
import type { Batch } from "./batch.js";
import { Egress, type EgressLimits } from "./egress.js";
import type { FrameStore } from "./frame-store.js";
import type { MacEntry } from "./mac-table.js";
import { clearResults, type OffloadCounters } from "./offload.js";
import {
  checkAttach,
  OFFLOAD_ALL,
  type DropReason,
  type Port,
  type PortCounters,
  type PortPeer,
} from "./port.js";
import { FrameTally } from "./tally.js";

/** What a port needs of its switch. */
export interface SwitchCore {
  readonly scheduler: Scheduler;
  readonly store: FrameStore;
  readonly limits: EgressLimits;
  readonly stallMs: number;
  readonly totals: FrameTally;
  readonly offloads: OffloadCounters;
  /** Frames from a port. */
  transmit(source: SwitchPort, batch: Batch, from: number, to: number): number;
  /** Runs what calls peers, with `transmit` refused meanwhile. */
  guarded(action: () => void): void;
  /** The port is closed. */
  remove(port: SwitchPort): void;
}

/*
 * The stall rule. A port is *waited for* while its queue holds frames or a source was pushed back because of it. From
 * that moment it has stallMs to take a frame; each frame taken gives it stallMs more. When the time is over the port is
 * *stalled*: what waits is dropped, and so is all further traffic for it, except that each unicast run is offered once
 * more. `ready()` ends the stall on probation: the clock is not reset until a frame is really taken, so that a guest that
 * rings its doorbell but never makes room cannot hold others up for stallMs again and again.
 *
 * The clock counts ticks, not time: a thread that was away for long (a busy machine, a page in the background) has had one
 * tick at most, for the peer had no chance to take anything either.
 */

/** In stallMs. */
const TICKS = 4;

/** A port of a switch; made by `Switch.addPort`. */
export class SwitchPort implements Port {
  readonly tally: FrameTally;
  readonly egress: Egress;
  /** Everything: what the receiving port's peer does not take is finished there. */
  readonly offloads = OFFLOAD_ALL;
  /** True while frames for this port are dropped because it makes no progress. */
  stalled = false;
  /** True after {@link SwitchPort.close}. */
  closed = false;
  /** Entry of the last source address seen here: flows repeat. */
  sourceEntry: MacEntry<SwitchPort> | null = null;
  /** Entry of the last destination address sent to from here. */
  destinationEntry: MacEntry<SwitchPort> | null = null;

  /** Ports that were pushed back because of this one, the longest waiting first. */
  readonly #waiters = new Set<SwitchPort>();
  #waitingFor: SwitchPort | null = null;
  #wakePosted = false;
  #drainPosted = false;
  #timer: Timer | null = null;
  /** Ticks since somebody began to wait, or the last frame was taken since; -1: the clock is not running. */
  #clock = -1;
  /** A frame was taken since the last tick: the next one is no whole one. */
  #moved = false;
  /** Ticks since somebody last waited. */
  #quiet = 0;

  /** Made by `Switch.addPort`. */
  constructor(
    private readonly core: SwitchCore,
    readonly name: string,
    peerOffloads: number,
  ) {
    this.tally = new FrameTally(core.totals);
    this.egress = new Egress(
      core.store,
      core.scheduler,
      this.tally,
      peerOffloads,
      core.limits,
      core.offloads,
    );
  }

  /** {@inheritDoc Port.transmit} */
  transmit(batch: Batch, from: number, to: number): number {
    return this.core.transmit(this, batch, from, to);
  }

  /** {@inheritDoc Port.attach} */
  attach(peer: PortPeer): void {
    checkAttach(this.name, this.egress.peer, this.closed);
    this.egress.peer = peer;
    this.egress.blocked = false;
    this.stalled = false;
    this.#clock = -1;
  }

  /** {@inheritDoc Port.detach} */
  detach(): void {
    this.egress.whenIdle(() => {
      this.#unplug("no-link");
    });
  }

  #unplug(reason: DropReason): void {
    this.egress.close(reason);
    this.#stopWaiting();
    this.#clock = -1;
    this.stalled = false;
    this.#timer?.cancel();
    this.#timer = null;
    this.#wake();
  }

  /** {@inheritDoc Port.ready} */
  ready(): void {
    this.egress.whenIdle(() => {
      this.egress.blocked = false;
      this.stalled = false;
      if (this.#drainPosted || this.closed) return;
      this.#drainPosted = true;
      this.core.scheduler.post(() => {
        this.#drainPosted = false;
        if (this.egress.waiting > 0) {
          this.core.guarded(() => {
            this.#drain();
          });
        }
        this.#wake();
      });
    });
  }

  /**
   * Hands unicast frames over, as far as the peer takes them at once. Returns how many are gone. A stalled port gets a
   * chance each time.
   */
  offer(batch: Batch, from: number, to: number): number {
    const { egress, tally } = this;
    const before = tally.delivered;
    if (this.stalled) egress.blocked = false;
    else if (egress.waiting > 0) this.#drain();
    const n = egress.offer(batch, from, to);
    if (tally.delivered !== before) this.#progress();
    else if (this.stalled) egress.discard("stalled"); // finished copies that were refused once more
    return n;
  }

  /** Copies frames to the queue, as many as there is room for. Returns how many are gone. */
  enqueue(batch: Batch, from: number, to: number): number {
    const n = this.egress.enqueue(batch, from, to);
    if (this.egress.waiting > 0) this.#startClock();
    return n;
  }

  /** Delivers a copy of flooded frames, as far as it goes without anybody waiting. */
  flood(batch: Batch, from: number, to: number): void {
    const n = to - from;
    if (this.stalled) {
      this.tally.drop("stalled", n);
      return;
    }
    clearResults(batch, from, to);
    let i = from + this.offer(batch, from, to);
    if (i < to && this.egress.peer !== null) i += this.enqueue(batch, i, to);
    if (i < to) this.tally.drop(this.refusal ?? "queue-full", to - i);
  }

  /** Why frames for this port are dropped at this moment; null when it takes them, or will. */
  get refusal(): DropReason | null {
    if (this.closed) return "closed";
    if (this.egress.peer === null) return "no-link";
    return this.stalled ? "stalled" : null;
  }

  /** A source cannot go on because of this port. False: it can, for the port is stalled now and frames are dropped. */
  pushBack(source: SwitchPort): boolean {
    this.#startClock();
    if (this.#clock >= TICKS) {
      this.#stall();
      return false;
    }
    if (source.#waitingFor !== this) {
      source.#stopWaiting();
      source.#waitingFor = this;
      this.#waiters.add(source);
    }
    return true;
  }

  #stopWaiting(): void {
    if (this.#waitingFor !== null) this.#waitingFor.#waiters.delete(this);
    this.#waitingFor = null;
  }

  #drain(): void {
    if (this.egress.drain() > 0) this.#progress();
  }

  #progress(): void {
    this.stalled = false;
    if (this.#clock === -1) return;
    const waitedFor = this.egress.waiting > 0 || this.#waiters.size > 0;
    this.#clock = waitedFor ? 0 : -1;
    this.#moved = true;
    this.#wake();
  }

  #startClock(): void {
    this.#quiet = 0;
    if (this.#clock === -1) this.#clock = 0;
    this.#startTick();
  }

  #startTick(): void {
    if (this.#timer !== null) return;
    this.#moved = false;
    this.#timer = this.core.scheduler.after(this.core.stallMs / TICKS, this.#tick);
  }

  readonly #tick = (): void => {
    this.#timer = null;
    if (this.#clock === -1 || this.closed) return;
    const waitedFor = this.egress.waiting > 0 || this.#waiters.size > 0;
    if (!this.#moved) this.#clock++;
    this.#quiet = waitedFor ? 0 : this.#quiet + 1;
    if (waitedFor && this.#clock >= TICKS) this.#stall();
    else if (this.#quiet < TICKS) this.#startTick();
    else this.#clock = -1; // those who waited have lost interest
  };

  #stall(): void {
    this.stalled = true;
    this.egress.discard("stalled");
    this.#wake();
  }

  /**
   * Tells the longest waiting source to try again, and the next one when that one has had its turn and left room: sources
   * take turns, however small the room is.
   */
  #wake(): void {
    if (this.#wakePosted || this.#waiters.size === 0 || !this.#accepts()) return;
    this.#wakePosted = true;
    this.core.scheduler.post(() => {
      this.#wakePosted = false;
      if (!this.#accepts()) return;
      const [source] = this.#waiters;
      if (source === undefined) return;
      source.#stopWaiting();
      try {
        source.egress.peer?.writable();
      } finally {
        this.#wake();
      }
    });
  }

  #accepts(): boolean {
    return this.refusal !== null || this.egress.open;
  }

  /** {@inheritDoc Port.counters} */
  counters(): PortCounters {
    const { received, receivedBytes, delivered, deliveredBytes, drops } = this.tally;
    const inFlight = this.egress.waiting;
    return { received, receivedBytes, delivered, deliveredBytes, drops: { ...drops }, inFlight };
  }

  /** {@inheritDoc Port.close} */
  close(): void {
    this.egress.whenIdle(() => {
      if (this.closed) return;
      this.closed = true;
      this.#unplug("closed");
      this.sourceEntry = null;
      this.destinationEntry = null;
      this.core.remove(this);
    });
  }
}
