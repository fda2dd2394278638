import type { Scheduler } from "../scheduler.js";
import type { Batch } from "./batch.js";
import { FrameQueue } from "./frame-queue.js";
import { FRAME_LENGTH_MAX, type FrameStore } from "./frame-store.js";
import { emptyOffloadCounters, OffloadStage, type OffloadCounters } from "./offload.js";
import type { DropReason, PortPeer } from "./port.js";
import type { FrameTally } from "./tally.js";

/** Limits of an egress queue. */
export interface EgressLimits {
  /** Most frames that wait. */
  frames: number;
  /** Most bytes of those. */
  bytes: number;
}

/**
 * The way out of a port: its peer, and the bounded queue of frames that the peer did not take yet. Frames are handed
 * over directly while the queue is empty, through the queue otherwise: order is always kept. Frames that the peer does
 * not take as they are (`offloads`) are finished at the moment they are handed over, for what a peer takes may change
 * while they wait (a guest runs out of pages); malformed superframes are dropped as "bad-offload".
 *
 * Peers run inside the delivery methods; what they do to the port meanwhile (`ready`, `detach`, `close`) waits until the
 * delivery has been counted ({@link Egress.whenIdle}).
 */
export class Egress {
  /** Who gets the frames. */
  peer: PortPeer | null = null;
  /** The peer took fewer frames than offered, and has not said `ready` since. */
  blocked = false;
  /** Frames that wait. */
  readonly queue: FrameQueue;
  readonly #stage: OffloadStage;
  /** Segments of a waiting superframe that the peer did not take all of: they come before the queue. */
  #rest: FrameQueue | null = null;
  #delivering = false;
  #later: (() => void)[] = [];

  /**
   * @param store - where frames wait
   * @param scheduler - where errors of peers surface
   * @param tally - counts deliveries and drops
   * @param offloads - what a peer takes unfinished that does not say (`OFFLOAD_…` bits)
   * @param limits - of the queue
   * @param counters - of what is finished in software
   */
  constructor(
    private readonly store: FrameStore,
    private readonly scheduler: Scheduler,
    private readonly tally: FrameTally,
    private readonly offloads: number,
    limits: EgressLimits,
    counters: OffloadCounters = emptyOffloadCounters(),
  ) {
    this.queue = new FrameQueue(store, limits.frames, limits.bytes);
    this.#stage = new OffloadStage(counters);
  }

  /** True when frames may be handed to the peer directly. */
  get open(): boolean {
    return !this.blocked && this.peer !== null && this.waiting === 0;
  }

  /** Frames that wait. */
  get waiting(): number {
    return this.queue.count + (this.#rest?.count ?? 0);
  }

  /** Runs an action now, or, when the peer is being called at this moment, right after that. */
  whenIdle(action: () => void): void {
    if (this.#delivering) this.#later.push(action);
    else action();
  }

  /** What the peer takes unfinished at this moment. */
  get #takes(): number {
    return this.peer?.offloads ?? this.offloads;
  }

  readonly #refuse = (n: number): void => {
    this.tally.drop("bad-offload", n);
  };

  readonly #grown = (n: number): void => {
    this.tally.replicate(n);
  };

  readonly #handOpen = (batch: Batch, from: number, to: number): number => {
    if (!this.open) return 0;
    const n = this.#hand(batch, from, to);
    this.#settle();
    return n;
  };

  /** Keeps the rest of a superframe: it was taken as a whole, so the limits do not count. */
  readonly #keep = (batch: Batch, from: number, to: number): number => {
    const n = this.peer === null ? 0 : this.queue.appendAll(batch, from, to);
    this.tally.drop(this.peer === null ? "no-link" : "queue-full", to - from - n);
    return to - from;
  };

  /**
   * Hands frames [from, to) to the peer, as long as it takes them. Returns how many are gone: handed over, dropped, or
   * (the rest of a superframe that was cut) waiting in the queue. 0 when not {@link Egress.open}.
   */
  offer(batch: Batch, from: number, to: number): number {
    if (!this.open) return 0;
    // even if the peer says ready meanwhile: not another round from in here
    return this.#stage.hand(
      batch,
      from,
      to,
      this.#takes,
      this.#handOpen,
      this.#keep,
      this.#refuse,
      this.#grown,
    );
  }

  /** Copies frames [from, to) to the queue. Returns how many are gone: queued or dropped. Fewer: there is no room. */
  enqueue(batch: Batch, from: number, to: number): number {
    let i = from;
    while (i < to) {
      let end = i;
      while (end < to && batch.length(end) <= FRAME_LENGTH_MAX) end++;
      if (end > i) {
        i += this.queue.append(batch, i, end);
        if (i < end) break;
      } else {
        this.tally.drop("oversize", 1);
        i++;
      }
    }
    return i - from;
  }

  readonly #handWaiting = (batch: Batch, from: number, to: number): number =>
    this.blocked ? 0 : this.#hand(batch, from, to);

  /** Keeps the rest of a superframe that waited: ahead of everything that waits behind it. */
  readonly #keepWaiting = (batch: Batch, from: number, to: number): number => {
    this.#rest ??= new FrameQueue(this.store, Infinity, Infinity);
    const n = this.#rest.appendAll(batch, from, to);
    this.tally.drop("queue-full", to - from - n); // the store has no memory left
    return to - from;
  };

  /** Hands waiting frames to the peer until it takes no more. Returns how many it took. */
  drain(): number {
    const before = this.tally.delivered;
    while (!this.blocked && this.peer !== null && this.waiting > 0) {
      const queue = this.#rest !== null && this.#rest.count > 0 ? this.#rest : this.queue;
      const { start, run, batch } = queue;
      const n = this.#stage.hand(
        batch,
        start,
        start + run,
        this.#takes,
        this.#handWaiting,
        this.#keepWaiting,
        this.#refuse,
        this.#grown,
      );
      queue.shift(n);
      const sum = this.tally.delivered - before;
      this.#settle(); // what the peer did to the port meanwhile, now that all is counted
      if (n < run) return sum;
    }
    if (this.peer === null) this.discard("no-link");
    return this.tally.delivered - before;
  }

  #hand(batch: Batch, from: number, to: number): number {
    const peer = this.peer;
    if (peer === null) return 0;
    const offered = to - from;
    this.#delivering = true;
    let taken: number;
    try {
      taken = Math.max(0, Math.min(offered, peer.receive(batch, from, to) >>> 0));
    } catch (error) {
      // A peer that throws breaks its own port only: it gets nothing more, and the error surfaces where the thread's
      // errors do, not in the innocent sender.
      this.#delivering = false;
      this.peer = null;
      this.tally.drop("broken", offered);
      this.scheduler.post(() => {
        throw error;
      });
      return offered;
    }
    this.#delivering = false;
    this.tally.deliver(taken, batch.byteCount(from, from + taken));
    if (taken < offered) this.blocked = true;
    return taken;
  }

  #settle(): void {
    while (this.#later.length > 0) {
      const actions = this.#later;
      this.#later = [];
      for (const action of actions) action();
    }
  }

  /** Takes everything out that waits. Returns how many frames there were: the caller counts them. */
  clear(): number {
    return this.queue.clear() + (this.#rest?.clear() ?? 0);
  }

  /** Drops everything that waits. */
  discard(reason: DropReason): void {
    this.tally.drop(reason, this.clear());
  }

  /** Drops everything that waits, and gives the queue's memory back. */
  close(reason: DropReason): void {
    this.discard(reason);
    this.queue.close();
    this.#rest?.close();
    this.#rest = null;
    this.peer = null;
    this.blocked = false;
  }
}
