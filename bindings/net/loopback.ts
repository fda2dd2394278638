import type { MemorySpace } from "../memory/space.js";
import type { Scheduler } from "../scheduler.js";
import type { Batch } from "./batch.js";
import { Egress } from "./egress.js";
import { FrameStore } from "./frame-store.js";
import { checkAttach, OFFLOAD_ALL, type Port, type PortCounters, type PortPeer } from "./port.js";
import { FrameTally, type FrameBalance } from "./tally.js";

/** What a {@link Loopback} is made of. */
export interface LoopbackOptions {
  /** Where deferred work of this thread runs. */
  scheduler: Scheduler;
  /** The host's memory: where frames wait. */
  space: MemorySpace;
  /** Name for people; default `loopback`. */
  name?: string;
  /** What the peer takes unfinished (`OFFLOAD_…` bits); default 0. */
  offloads?: number;
  /** Most frames on their way back; default 256. */
  maxFrames?: number;
  /** Most bytes of those; default 512 KiB. */
  maxBytes?: number;
}

/**
 * A port that gives every frame back to its own peer, unchanged, soon. When the peer does not take them the queue fills,
 * and it is pushed back.
 */
export class Loopback implements Port {
  readonly name: string;
  /** Everything: what the peer does not take back unfinished is finished here. */
  readonly offloads = OFFLOAD_ALL;
  readonly #scheduler: Scheduler;
  readonly #store: FrameStore;
  readonly #tally = new FrameTally();
  readonly #egress: Egress;
  #pushedBack = false;
  #drainPosted = false;
  #closed = false;

  /** Allocates its books in the space. @throws VbusError ENOMEM */
  constructor(options: LoopbackOptions) {
    const {
      scheduler,
      space,
      name = "loopback",
      offloads = 0,
      maxFrames = 256,
      maxBytes = 512 * 1024,
    } = options;
    this.name = name;
    this.#scheduler = scheduler;
    this.#store = new FrameStore(space);
    this.#egress = new Egress(this.#store, scheduler, this.#tally, offloads, {
      frames: maxFrames,
      bytes: maxBytes,
    });
  }

  /** {@inheritDoc Port.transmit} */
  transmit(batch: Batch, from: number, to: number): number {
    let n = to - from;
    if (this.#closed || this.#egress.peer === null) {
      this.#tally.drop(this.#closed ? "closed" : "no-link", n);
    } else {
      n = this.#egress.enqueue(batch, from, to);
      if (from + n < to) this.#pushedBack = true;
      this.#post();
    }
    this.#tally.take(n, batch.byteCount(from, from + n));
    return n;
  }

  #post(): void {
    if (this.#drainPosted) return;
    this.#drainPosted = true;
    this.#scheduler.post(() => {
      this.#drainPosted = false;
      this.#egress.drain();
      if (!this.#pushedBack || !this.#egress.open) return;
      this.#pushedBack = false;
      this.#egress.peer?.writable();
    });
  }

  /** {@inheritDoc Port.attach} */
  attach(peer: PortPeer): void {
    checkAttach(this.name, this.#egress.peer, this.#closed);
    this.#egress.peer = peer;
  }

  /** {@inheritDoc Port.detach} */
  detach(): void {
    this.#egress.whenIdle(() => {
      this.#egress.close("no-link");
      this.#pushedBack = false;
    });
  }

  /** {@inheritDoc Port.ready} */
  ready(): void {
    this.#egress.whenIdle(() => {
      this.#egress.blocked = false;
      this.#post();
    });
  }

  /** {@inheritDoc Port.counters} */
  counters(): PortCounters {
    const { received, receivedBytes, delivered, deliveredBytes, drops } = this.#tally;
    const inFlight = this.#egress.waiting;
    return { received, receivedBytes, delivered, deliveredBytes, drops: { ...drops }, inFlight };
  }

  /** The frame equation. */
  balance(): FrameBalance {
    return this.#tally.balance(this.#egress.waiting);
  }

  /** {@inheritDoc Port.close} */
  close(): void {
    this.#egress.whenIdle(() => {
      if (this.#closed) return;
      this.#closed = true;
      this.#egress.close("closed");
      this.#store.close();
    });
  }
}
