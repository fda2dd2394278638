import { Checksum } from "../engine/checksum.js";
import type { Scheduler } from "../scheduler.js";
import type { Batch } from "./batch.js";
import { FrameQueue } from "./frame-queue.js";
import { FRAME_LENGTH_MAX, type FrameStore } from "./frame-store.js";
import { completeChecksum, firstUnfinished, isCompletable, takesFrame } from "./offload.js";
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
 * not take as they are (`offloads`) are finished in a copy, or dropped as "bad-offload".
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
  readonly #checksum: Checksum;
  #delivering = false;
  #later: (() => void)[] = [];

  /**
   * @param store - where frames wait
   * @param scheduler - where errors of peers surface
   * @param tally - counts deliveries and drops
   * @param offloads - what the peer takes unfinished (`OFFLOAD_…` bits)
   * @param limits - of the queue
   */
  constructor(
    store: FrameStore,
    private readonly scheduler: Scheduler,
    private readonly tally: FrameTally,
    private readonly offloads: number,
    limits: EgressLimits,
  ) {
    this.queue = new FrameQueue(store, limits.frames, limits.bytes);
    this.#checksum = new Checksum(store.space);
  }

  /** True when frames may be handed to the peer directly. */
  get open(): boolean {
    return !this.blocked && this.peer !== null && this.queue.count === 0;
  }

  /** Runs an action now, or, when the peer is being called at this moment, right after that. */
  whenIdle(action: () => void): void {
    if (this.#delivering) this.#later.push(action);
    else action();
  }

  /**
   * Hands frames [from, to) to the peer, as long as it takes them. Returns how many are gone: handed over, waiting in the
   * queue (finished copies that were refused), or dropped. 0 when not {@link Egress.open}.
   */
  offer(batch: Batch, from: number, to: number): number {
    let i = from;
    while (i < to && this.open) {
      const end = firstUnfinished(this.offloads, batch, i, to);
      if (end > i) {
        i += this.#hand(batch, i, end);
        this.#settle();
        if (i < end) break; // even if the peer said ready meanwhile: not another round from in here
      } else {
        const n = this.enqueue(batch, i, i + 1);
        if (n === 0) break;
        i += n;
        this.drain();
      }
    }
    return i - from;
  }

  /** Copies frames [from, to) to the queue. Returns how many are gone: queued or dropped. Fewer: there is no room. */
  enqueue(batch: Batch, from: number, to: number): number {
    let i = from;
    while (i < to) {
      const length = batch.length(i);
      if (length > FRAME_LENGTH_MAX) {
        this.tally.drop("oversize", 1);
        i++;
        continue;
      }
      if (takesFrame(this.offloads, batch, i)) {
        let end = i + 1;
        while (end < to && batch.length(end) <= FRAME_LENGTH_MAX && takesFrame(this.offloads, batch, end))
          end++;
        const n = this.queue.append(batch, i, end);
        i += n;
        if (i < end) break;
        continue;
      }
      if (!isCompletable(batch, i)) {
        this.tally.drop("bad-offload", 1);
      } else {
        if (!this.queue.fits(length) || this.queue.append(batch, i, i + 1) === 0) break;
        const { start, count, batch: ring } = this.queue;
        completeChecksum(this.#checksum, ring, (start + count - 1) % ring.table.capacity);
      }
      i++;
    }
    return i - from;
  }

  /** Hands waiting frames to the peer until it takes no more. Returns how many it took. */
  drain(): number {
    let sum = 0;
    while (this.queue.count > 0 && !this.blocked && this.peer !== null) {
      const { start, run, batch } = this.queue;
      const n = this.#hand(batch, start, start + run);
      this.queue.shift(n);
      sum += n;
      this.#settle();
      if (n < run) break;
    }
    if (this.peer === null) this.discard("no-link");
    return sum;
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

  /** Drops everything that waits. */
  discard(reason: DropReason): void {
    this.tally.drop(reason, this.queue.clear());
  }

  /** Drops everything that waits, and gives the queue's memory back. */
  close(reason: DropReason): void {
    this.discard(reason);
    this.queue.close();
    this.peer = null;
    this.blocked = false;
  }
}
