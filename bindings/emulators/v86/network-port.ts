import type { MemorySpace } from "../../memory/space.js";
import { Egress } from "../../net/egress.js";
import type { Batch } from "../../net/batch.js";
import { FRAME_LENGTH_MAX, FrameStore } from "../../net/frame-store.js";
import { HostFrames } from "../../net/host-frames.js";
import {
  checkAttach,
  countDrop,
  type DropReason,
  type Port,
  type PortCounters,
  type PortPeer,
} from "../../net/port.js";
import { FrameTally, type FrameBalance } from "../../net/tally.js";
import { EventLoopScheduler, type Scheduler, type Timer } from "../../scheduler.js";
import { checkShape, refuse, SCHEDULER } from "../validation.js";
import {
  instructionClock,
  networkBuses,
  receiveBuffers,
  type V86Bus,
  type V86Emulator,
} from "./internals.js";

/** Frames of v86's that are handed on at once. */
const BURST = 64;
/** A frame that comes so many instructions after the last is handed on at once; others wait until the burst is over. */
const PAUSE_INSTRUCTIONS = 8000;
/** Longest that what such a frame sets off runs at once, in ms. */
const IMMEDIATE_BUDGET_MS = 1;
/** How often a NIC without buffers is looked at again, in ms. It cannot tell when it has some. */
const LOOK_MS = 1;

/** What a {@link V86NetworkPort} is made of. */
export interface V86NetworkOptions {
  /** The scheduler of v86's thread: that of `attachVbus`. */
  readonly scheduler: Scheduler;
  /** The host's memory: where frames wait. */
  readonly space: MemorySpace;
  /**
   * Which end of v86's network the port's peer plays. `nic`: another network card of the machine's, next to v86's own,
   * served by v86's network back ends (fetch, wsproxy, wisp, inbrowser); give the port to venet. `network`: what v86's
   * own network card is plugged into; attach a switch's cable or a peer of yours.
   */
  readonly as: "nic" | "network";
  /** Number of v86's network; default 0. */
  readonly id?: number;
  /** Name for people; default `v86-net0-nic` or `v86-net0`. */
  readonly name?: string;
  /** Most frames that wait for the peer; default 1024. */
  readonly maxFrames?: number;
  /** Most bytes of those; default 4 MiB. */
  readonly maxBytes?: number;
}

function checkOptions(options: V86NetworkOptions): void {
  checkShape("options", options, {}, "give scheduler, space and as");
  const { scheduler, space, as, id = 0, maxFrames = 1, maxBytes = 1 } = options;
  if (!["nic", "network"].includes(as))
    refuse(
      "as",
      as,
      'give "nic" (the peer is another card of the machine\'s) or "network" (it is what v86\'s card is plugged into)',
    );
  checkShape("scheduler", scheduler, SCHEDULER, "give the EventLoopScheduler that attachVbus has");
  checkShape(
    "space",
    space,
    { allocate: "function" },
    "give a MemorySpace; MemorySpace.host() is to be awaited",
  );
  if (!(Number.isSafeInteger(id) && id >= 0))
    refuse("id", id, "give the number of v86's network, 0 for the first");
  if (!(typeof maxFrames === "number" && maxFrames >= 1))
    refuse("maxFrames", maxFrames, "give a number of frames");
  if (!(typeof maxBytes === "number" && maxBytes >= 1))
    refuse("maxBytes", maxBytes, "give a number of bytes");
}

/**
 * A port on v86's own network bus (its messages `net0-send` and `net0-receive`). Frames from v86 wait here while the peer
 * does not take them, and are dropped and counted when there are too many: v86 knows no back-pressure. Towards v86's own
 * virtio-net there is some: while it has no buffers, `transmit` takes nothing.
 *
 * It takes finished frames only. Used by v86's thread.
 */
export class V86NetworkPort implements Port {
  readonly name: string;
  /** v86 takes finished frames only. */
  readonly offloads = 0;
  readonly #emulator: V86Emulator;
  readonly #options: V86NetworkOptions;
  readonly #scheduler: Scheduler;
  readonly #outbound: V86Bus;
  readonly #inbound: V86Bus;
  readonly #outboundName: string;
  readonly #inboundName: string;
  readonly #listener: (frame: never) => void;
  readonly #store: FrameStore;
  readonly #frames: HostFrames;
  /** From the peer to v86. */
  readonly #out = new FrameTally();
  /** From v86 to the peer. */
  readonly #in = new FrameTally();
  readonly #egress: Egress;
  #handing = false;
  readonly #clock: () => number;
  #lastFrame = 0;
  #pushedBack = false;
  #look: Timer | null = null;
  #drainPosted = false;
  #closed = false;

  /** @throws VbusError EINVAL; EOPNOTSUPP for a v86 of another layout; ENOMEM */
  constructor(emulator: V86Emulator, options: V86NetworkOptions) {
    const { devices, host } = networkBuses(emulator);
    checkOptions(options);
    const { scheduler, space, as, id = 0, maxFrames = 1024, maxBytes = 4 << 20 } = options;
    this.#emulator = emulator;
    this.#options = options;
    this.#scheduler = scheduler;
    this.name = options.name ?? (as === "nic" ? `v86-net${id}-nic` : `v86-net${id}`);
    // "send" is what a card sends, "receive" what it receives: seen from the card, whoever says it
    [this.#outbound, this.#outboundName] =
      as === "nic" ? [devices, `net${id}-send`] : [host, `net${id}-receive`];
    [this.#inbound, this.#inboundName] =
      as === "nic" ? [devices, `net${id}-receive`] : [host, `net${id}-send`];
    this.#store = new FrameStore(space);
    this.#frames = new HostFrames(space, BURST, 2 * FRAME_LENGTH_MAX);
    this.#egress = new Egress(this.#store, scheduler, this.#in, 0, { frames: maxFrames, bytes: maxBytes });
    this.#clock = instructionClock(emulator);
    this.#lastFrame = this.#clock() - PAUSE_INSTRUCTIONS - 1;
    this.#listener = (frame: Uint8Array) => {
      this.#take(frame);
    };
    this.#inbound.register(this.#inboundName, this.#listener, this);
  }

  /** As `Port.transmit` says. */
  transmit(batch: Batch, from: number, to: number): number {
    if (this.#closed) {
      this.#out.take(to - from, batch.byteCount(from, to));
      this.#out.drop("closed", to - from);
      return to - from;
    }
    const room = this.#options.as === "network" ? receiveBuffers(this.#emulator) : Infinity;
    const end = Math.min(to, from + room);
    for (let i = from; i < end; i++) this.#outbound.send(this.#outboundName, batch.copy(i));
    if (end > from) {
      const bytes = batch.byteCount(from, end);
      this.#out.take(end - from, bytes);
      this.#out.deliver(end - from, bytes);
    }
    if (end < to) this.#lookAgain();
    return end - from;
  }

  #lookAgain(): void {
    this.#pushedBack = true;
    this.#look ??= this.#scheduler.after(LOOK_MS, () => {
      this.#look = null;
      if (!this.#pushedBack || this.#closed) return;
      if (receiveBuffers(this.#emulator) === 0) {
        this.#lookAgain();
        return;
      }
      this.#pushedBack = false;
      this.#egress.peer?.writable();
    });
  }

  /** A frame from v86: not ours, valid for this call only. */
  #take(frame: Uint8Array): void {
    this.#in.take(1, frame.length);
    if (this.#egress.peer === null) {
      this.#in.drop("no-link", 1);
      return;
    }
    if (frame.length > FRAME_LENGTH_MAX) {
      this.#in.drop("oversize", 1);
      return;
    }
    if (this.#handing || !this.#frames.add(frame)) {
      this.#in.drop("queue-full", 1);
      return;
    }
    const now = this.#clock();
    const paused = (now - this.#lastFrame) >>> 0 > PAUSE_INSTRUCTIONS;
    this.#lastFrame = now;
    // what v86 sends in one go comes frame by frame: the first makes a short round trip, the others a burst
    if (!paused && this.#frames.batch.count < BURST) {
      this.#post();
      return;
    }
    this.#handOn();
    if (paused && this.#scheduler instanceof EventLoopScheduler)
      this.#scheduler.runPending(IMMEDIATE_BUDGET_MS);
  }

  #handOn(): void {
    const { batch } = this.#frames;
    const n = batch.count;
    if (n === 0) return;
    this.#handing = true;
    try {
      let done = this.#egress.offer(batch, 0, n);
      if (done < n && this.#egress.peer !== null) done += this.#egress.enqueue(batch, done, n);
      this.#in.drop(
        this.#closed ? "closed" : this.#egress.peer === null ? "no-link" : "queue-full",
        n - done,
      );
    } finally {
      this.#handing = false;
      this.#frames.clear();
    }
  }

  /** Drops what was collected. While it is being handed on, that accounts for it. */
  #discard(reason: DropReason): void {
    if (this.#handing) return;
    this.#in.drop(reason, this.#frames.batch.count);
    this.#frames.clear();
  }

  #post(): void {
    if (this.#drainPosted) return;
    this.#drainPosted = true;
    this.#scheduler.post(() => {
      this.#drainPosted = false;
      if (this.#closed) return;
      this.#egress.drain();
      this.#handOn();
    });
  }

  /** As `Port.attach` says. */
  attach(peer: PortPeer): void {
    checkAttach(this.name, this.#egress.peer, this.#closed);
    this.#egress.peer = peer;
  }

  /** As `Port.detach` says. */
  detach(): void {
    this.#egress.whenIdle(() => {
      this.#egress.close("no-link");
      this.#discard("no-link");
      this.#pushedBack = false;
    });
  }

  /** As `Port.ready` says. */
  ready(): void {
    this.#egress.whenIdle(() => {
      this.#egress.blocked = false;
      this.#post();
    });
  }

  /** As `Port.counters` says. */
  counters(): PortCounters {
    const { received, receivedBytes } = this.#out;
    const { delivered, deliveredBytes } = this.#in;
    const { drops } = this.balance();
    return { received, receivedBytes, delivered, deliveredBytes, drops, inFlight: this.#inFlight };
  }

  /** The frame equation, of both directions together: what v86 took counts as delivered, too. */
  balance(): FrameBalance {
    const out = this.#out.balance(0);
    const into = this.#in.balance(this.#inFlight);
    const drops = { ...out.drops };
    for (const [reason, n] of Object.entries(into.drops)) countDrop(drops, reason as DropReason, n);
    return {
      received: out.received + into.received,
      replicated: out.replicated + into.replicated,
      delivered: out.delivered + into.delivered,
      drops,
      inFlight: into.inFlight,
      balanced: out.balanced && into.balanced,
    };
  }

  get #inFlight(): number {
    return this.#egress.waiting + this.#frames.batch.count;
  }

  /** As `Port.close` says. */
  close(): void {
    this.#egress.whenIdle(() => {
      if (this.#closed) return;
      this.#closed = true;
      this.#inbound.unregister(this.#inboundName, this.#listener);
      this.#look?.cancel();
      this.#egress.close("closed");
      this.#discard("closed");
      this.#frames.close();
      this.#store.close();
    });
  }
}
