import {
  BELL_RING_ATTACHED,
  BELL_RING_FRAMES,
  BELL_RING_READY,
  BELL_RING_ROOM,
  LINK_ABSENT,
  LINK_ATTACHED,
  LINK_GONE,
} from "../../../assembly/abi/worker-wire.js";
import { HeartbeatWatch } from "../../doorbells/heartbeat.js";
import { DoorbellPage } from "../../doorbells/page.js";
import { DoorbellWaiter } from "../../doorbells/waiter.js";
import { VbusError } from "../../errors.js";
import { GuestMemory, openHostView } from "../../memory/guest.js";
import type { MemorySpace } from "../../memory/space.js";
import { EventLoopScheduler, type Scheduler, type Timer } from "../../scheduler.js";
import type { Batch } from "../batch.js";
import { Egress } from "../egress.js";
import { FRAME_LENGTH_MAX, FrameStore } from "../frame-store.js";
import { emptyOffloadCounters, type OffloadCounters } from "../offload.js";
import { checkAttach, OFFLOAD_ALL, type DropReason, type Port, type PortPeer } from "../port.js";
import type { FrameBalance } from "../tally.js";
import { ThreadPortTally, type ThreadPortCounters } from "./counters.js";
import { frameFault } from "./fault.js";
import { linkPlaces, type FrameLink, type FrameLinkSide } from "./frame-link.js";
import { IncomingRing } from "./incoming-ring.js";
import { OutgoingRing } from "./outgoing-ring.js";

/** Bursts per run before other work of the thread gets its turn. */
const BURSTS_PER_RUN = 8;
const HEADER_LENGTH = 14;

/** How an end of a frame link is opened. */
export interface WorkerPortOptions {
  /** Which end. */
  readonly side: FrameLinkSide;
  /** This thread's scheduler; in an emulator's thread that of the emulator's adapter. */
  readonly scheduler: Scheduler;
  /** Name for people; default `worker-host` or `worker-guest`. */
  readonly name?: string;
  /** What the peer takes unfinished (`OFFLOAD_…` bits) when it does not say; default 0. */
  readonly offloads?: number;
  /** Polls of the doorbells before sleeping; default 0, about 2000 where a core is free for it. */
  readonly spin?: number;
  /** How long the other end's heartbeat may stand still, in ms, before it counts as dead; default 0: for ever. */
  readonly otherTimeoutMs?: number;
  /** Told once that the other end closed, died or broke the link, and why. */
  readonly onLost?: (error: VbusError) => void;
  /** True: wait for doorbells by timer even where `Atomics.waitAsync` exists. For tests. */
  readonly poll?: boolean;
}

/**
 * One end of a connection between two threads: what a peer transmits here, the peer of the other end receives, and the
 * other way round. Each end is a port in its own thread; join one to a switch with `joinPorts`, give the other to a network
 * card. The threads share rings and nothing else (`docs/abi/worker-wire.md` section 7).
 *
 * - Superframes and partial checksums cross untouched, in one copy into the link's memory; what the receiving peer does not
 *   take is finished on its side. Frames are validated where they arrive.
 * - Back-pressure goes all the way: what the receiving peer does not take stays in the ring, and when that is full `transmit`
 *   takes no more.
 * - Until the other end is there, and after it is gone, frames are dropped and counted ("no-link").
 * - What one end counts as acknowledged is what the other end counts as arrived, always when both were closed in order. When
 *   a thread was killed, frames in the ring are counted by the end that is left ("closed"); what the dead thread had taken
 *   out is acknowledged.
 */
export class WorkerPort implements Port {
  readonly name: string;
  /** Everything: what the peer at the other end does not take is finished there. */
  readonly offloads = OFFLOAD_ALL;
  readonly #page: DoorbellPage;
  readonly #side: FrameLinkSide;
  readonly #other: FrameLinkSide;
  readonly #options: WorkerPortOptions;
  readonly #scheduler: Scheduler;
  readonly #tally = new ThreadPortTally();
  readonly #finished: OffloadCounters = emptyOffloadCounters();
  readonly #out: OutgoingRing;
  readonly #store: FrameStore;
  readonly #egress: Egress;
  readonly #waiter: DoorbellWaiter;
  readonly #heart: HeartbeatWatch;
  readonly #poll: Timer | null;
  #in: IncomingRing | null = null;
  /** Frames may be sent. */
  #up = false;
  #pushedBack = false;
  #draining = false;
  #drainPosted = false;
  #otherGone = false;
  /** The end has come, and this is what frames that are left are counted as. */
  #ending: DropReason | null = null;
  #closed = false;
  /** Why it ended by itself. */
  #lost: VbusError | null = null;
  #whenUp: { resolve: () => void; reject: (error: VbusError) => void }[] = [];

  private constructor(
    private readonly link: FrameLink,
    private readonly space: MemorySpace,
    page: DoorbellPage,
    options: WorkerPortOptions,
  ) {
    const { side, scheduler, spin = 0, poll = false, otherTimeoutMs = 0, offloads = 0 } = options;
    this.name = options.name ?? `worker-${side}`;
    this.#page = page;
    this.#side = side;
    this.#other = side === "host" ? "guest" : "host";
    this.#options = options;
    this.#scheduler = scheduler;
    const broken = (error: unknown): void => {
      this.#break(error);
    };
    this.#out = new OutgoingRing({
      space,
      places: linkPlaces(link, this.#other),
      count: link.frames,
      bytes: link.bytes,
      scheduler,
      ring: () => {
        page.ring(this.#other, BELL_RING_FRAMES);
      },
      room: () => {
        this.#makeRoom();
      },
      broken,
    });
    this.#store = new FrameStore(space);
    const limits = { frames: link.frames, bytes: link.bytes };
    this.#egress = new Egress(this.#store, scheduler, this.#tally.in, offloads, limits, this.#finished);
    this.#heart = new HeartbeatWatch(page, this.#other, otherTimeoutMs);
    this.#waiter = new DoorbellWaiter({
      page,
      side,
      scheduler,
      spin,
      poll,
      serve: (bell) => {
        this.#serve(bell);
      },
      look: () => {
        this.#look();
      },
      tick: () => {
        page.beat(side);
        if (this.#in !== null && this.#heart.expired()) this.otherDied();
      },
      onError: broken,
    });
    this.#poll =
      scheduler instanceof EventLoopScheduler
        ? scheduler.addPoll(() => {
            this.#waiter.poll();
          })
        : null;
    page.ring(this.#other, BELL_RING_READY);
    this.#waiter.start();
  }

  /**
   * Opens one end of a link, in the thread that will use it. It is a working port at once; the connection is up when the
   * other end has been opened, too ({@link WorkerPort.whenUp}).
   * @throws VbusError EBUSY when this end is, or was, open in some thread; EINVAL for what is no frame link; EOPNOTSUPP, ENOMEM
   */
  static async open(link: FrameLink, options: WorkerPortOptions): Promise<WorkerPort> {
    const { side } = options;
    const page = DoorbellPage.at(link);
    page.check();
    linkPlaces(link, side);
    const space = side === "host" ? await openHostView(link) : (await GuestMemory.open(link)).space;
    if (!page.claim(side)) {
      throw new VbusError(
        "EBUSY",
        `the ${side} end of this link is open already, or was; make another link with createFrameLink()`,
      );
    }
    try {
      return new WorkerPort(link, space, page, options);
    } catch (error) {
      page.setState(side, LINK_GONE);
      page.wake(side === "host" ? "guest" : "host");
      throw error;
    }
  }

  /** True while frames reach the other end. */
  get up(): boolean {
    return this.#up;
  }

  /** Why the connection ended, when it did so by itself; null before. */
  get lost(): VbusError | null {
    return this.#lost;
  }

  /** Resolves when frames reach the other end. @throws VbusError ENOTCONN when this end was closed, or the other one lost, before */
  whenUp(): Promise<void> {
    if (this.#up) return Promise.resolve();
    if (this.#ending !== null || this.#otherGone) return Promise.reject(this.#lost ?? this.#closedError());
    return new Promise((resolve, reject) => {
      this.#whenUp.push({ resolve, reject });
    });
  }

  #closedError(): VbusError {
    return new VbusError("ENOTCONN", `port ${this.name} is closed; make another link with createFrameLink()`);
  }

  #settleUp(error: VbusError | null): void {
    const waiting = this.#whenUp;
    this.#whenUp = [];
    for (const { resolve, reject } of waiting) {
      if (error === null) resolve();
      else reject(error);
    }
  }

  /* ---- doorbells ------------------------------------------------------------------------------- */

  #serve(bell: number): void {
    if (this.#ending !== null) return;
    if (bell === BELL_RING_FRAMES) this.#in?.doorbell();
    else if (bell === BELL_RING_ROOM) {
      if (this.#up) this.#out.doorbell();
    } else if (bell === BELL_RING_READY) this.#attachRing();
    else if (bell === BELL_RING_ATTACHED) this.#goUp();
    else this.#tally.violations++;
  }

  #attachRing(): void {
    if (this.#in !== null) {
      this.#tally.violations++; // a ring is made once
      return;
    }
    this.#in = new IncomingRing({
      space: this.space,
      places: linkPlaces(this.link, this.#side),
      count: this.link.frames,
      scheduler: this.#scheduler,
      ring: () => {
        this.#page.ring(this.#other, BELL_RING_ROOM);
      },
      frames: () => {
        this.#drain();
      },
      broken: (error) => {
        this.#break(error);
      },
    });
    this.#page.ring(this.#other, BELL_RING_ATTACHED);
    this.#post();
  }

  #goUp(): void {
    if (this.#up || this.#otherGone) {
      this.#tally.violations++;
      return;
    }
    this.#out.attached();
    this.#up = true;
    this.#settleUp(null);
  }

  /** Looks at the states. */
  #look(): void {
    if (this.#ending !== null) return;
    if (this.#page.state(this.#side) !== LINK_ATTACHED) {
      this.#break(new VbusError("ENOTCONN", "the other thread declared this end of the link dead"));
    } else if (!this.#otherGone) {
      const state = this.#page.state(this.#other);
      if (state === LINK_GONE || (state === LINK_ABSENT && this.#in !== null)) {
        this.#loseOther(new VbusError("ENOTCONN", "the other end of the link was closed"));
      }
    }
  }

  /**
   * The embedder knows that the other thread is dead (`exit` of a worker, `watchLife` of `vbus/connectors/worker`): frames that
   * it left in the ring are delivered, those that it did not take are counted. Harmless afterwards.
   */
  otherDied(): void {
    if (this.#ending !== null || this.#otherGone) return;
    this.#page.setState(this.#other, LINK_GONE);
    this.#loseOther(new VbusError("ENOTCONN", "the thread at the other end of the link died"));
  }

  #loseOther(error: VbusError): void {
    this.#otherGone = true;
    this.#up = false;
    this.#lost ??= error;
    try {
      this.#settleSent("closed");
    } catch (cause) {
      this.#break(cause);
      return;
    }
    this.#post(); // what is left in its ring is still delivered
    if (this.#pushedBack) this.#makeRoom(); // they are dropped from now on
    this.#settleUp(error);
    this.#options.onLost?.(error);
  }

  /** Accounts for frames in the ring towards an end that is over, unless that end did. @throws VbusError EPROTO */
  #settleSent(reason: DropReason): void {
    if (this.#out.outstanding === 0) return;
    const mine = this.#page.state(this.#other) !== LINK_ATTACHED && this.#page.claimLeftovers(this.#other);
    this.#acknowledge();
    const rest = this.#tally.sent - this.#tally.out.delivered;
    if (mine) {
      this.#tally.sent -= rest;
      this.#tally.out.drop(reason, rest);
    } else {
      this.#tally.out.deliver(rest, 0); // theirs to account for
    }
  }

  /* ---- from the peer to the other end ---------------------------------------------------------- */

  /** As `Port.transmit` says. */
  transmit(batch: Batch, from: number, to: number): number {
    let n = to - from;
    if (this.#ending !== null || !this.#up) this.#tally.out.drop(this.#ending ?? "no-link", n);
    else n = this.#send(batch, from, to);
    this.#tally.out.take(n, batch.byteCount(from, from + n));
    return n;
  }

  #send(batch: Batch, from: number, to: number): number {
    let at = from;
    try {
      while (at < to) {
        let end = at;
        while (end < to && isValid(batch.length(end))) end++;
        if (end > at) {
          const { skipped } = this.#out;
          const n = this.#out.push(batch, at, end);
          const grown = this.#out.skipped - skipped;
          this.#tally.out.drop("oversize", grown);
          this.#tally.sent += n - grown;
          at += n;
          if (at < end) {
            this.#pushedBack = true;
            this.#out.waitForRoom();
            break;
          }
        } else {
          this.#tally.out.drop(batch.length(at) < HEADER_LENGTH ? "undersize" : "oversize", 1);
          at++;
        }
      }
      this.#acknowledge();
    } catch (error) {
      this.#tally.out.drop("broken", to - at);
      this.#break(error);
      return to - from;
    }
    return at - from;
  }

  #acknowledge(): void {
    this.#out.reclaim();
    const acknowledged = this.#tally.sent - this.#out.outstanding;
    this.#tally.out.deliver(acknowledged - this.#tally.out.delivered, 0);
  }

  #makeRoom(): void {
    if (this.#ending !== null) return;
    if (!this.#otherGone) this.#acknowledge();
    if (!this.#pushedBack) return;
    this.#pushedBack = false;
    this.#scheduler.post(() => {
      this.#egress.peer?.writable();
    });
  }

  /* ---- from the other end to the peer ---------------------------------------------------------- */

  #post(): void {
    if (this.#drainPosted) return;
    this.#drainPosted = true;
    this.#scheduler.post(() => {
      this.#drainPosted = false;
      this.#drain();
    });
  }

  #drain(): void {
    if (this.#ending !== null || this.#draining) return;
    this.#draining = true;
    try {
      this.#drainBursts();
    } catch (error) {
      this.#break(error);
    } finally {
      this.#draining = false;
      if (this.#isEnding()) this.#end();
    }
  }

  #drainBursts(): void {
    for (let burst = 0; burst < BURSTS_PER_RUN; burst++) {
      const ring = this.#in;
      if (ring === null) return;
      if (this.#egress.waiting > 0) this.#egress.drain();
      if (this.#isEnding() || (this.#egress.peer !== null && !this.#egress.open)) return; // the peer calls ready()
      const n = ring.peek();
      if (n === 0) {
        ring.wait(); // looks again, and comes back when something came in between
        return;
      }
      const done = this.#pass(ring.batch, n);
      this.#tally.in.take(done, ring.batch.byteCount(0, done));
      ring.release(done);
      if (done < n || this.#isEnding()) return;
    }
    this.#post();
  }

  #hasPeer(): boolean {
    return this.#egress.peer !== null;
  }

  #isEnding(): boolean {
    return this.#ending !== null;
  }

  /** Hands n frames to the peer. Returns how many are done with. */
  #pass(batch: Batch, n: number): number {
    let done = 0;
    while (done < n) {
      let end = done;
      let fault: DropReason | null = null;
      while (end < n && (fault = frameFault(batch, end)) === null) end++;
      while (done < end) {
        if (this.#egress.peer === null) {
          this.#tally.in.drop("no-link", end - done);
          done = end;
          break;
        }
        done += this.#egress.offer(batch, done, end);
        if (this.#isEnding() || (done < end && this.#hasPeer())) return done;
      }
      if (fault !== null) {
        this.#tally.in.drop(fault, 1);
        done++;
      }
    }
    return done;
  }

  /* ---- the port -------------------------------------------------------------------------------- */

  /** As `Port.attach` says. */
  attach(peer: PortPeer): void {
    checkAttach(this.name, this.#egress.peer, this.#ending !== null);
    this.#egress.peer = peer;
    this.#egress.blocked = false;
  }

  /** As `Port.detach` says. */
  detach(): void {
    this.#egress.whenIdle(() => {
      this.#egress.close("no-link");
      this.#pushedBack = false;
      if (this.#ending === null) this.#post();
    });
  }

  /** As `Port.ready` says. */
  ready(): void {
    this.#egress.whenIdle(() => {
      this.#egress.blocked = false;
      if (this.#ending === null) this.#post();
    });
  }

  /** As `Port.counters` says, and more. */
  counters(): ThreadPortCounters {
    if (this.#ending === null && !this.#otherGone) this.#refresh();
    return this.#tally.counters(0, this.#egress.waiting);
  }

  #refresh(): void {
    try {
      this.#acknowledge();
    } catch (error) {
      this.#break(error);
    }
  }

  /** The frame equation of this end. */
  balance(): FrameBalance {
    return this.#tally.balance(0, this.#egress.waiting);
  }

  /** Superframes that passed, and what was finished for the peer. */
  offloadCounters(): OffloadCounters {
    return { ...this.#finished };
  }

  /** Doorbells heard, and times that this end went to sleep. */
  get wakeups(): { served: number; sleeps: number } {
    const { served, sleeps } = this.#waiter;
    return { served, sleeps };
  }

  /** As `Port.close` says. Frames in the ring towards the other end are still delivered there. */
  close(): void {
    this.#beginEnd("closed");
  }

  /** Ends it; when its peer is being called at this moment, right after that has been counted. */
  #beginEnd(reason: DropReason): void {
    if (this.#ending !== null) return;
    this.#ending = reason;
    if (!this.#draining) this.#end();
    else {
      this.#egress.whenIdle(() => {
        this.#egress.discard(reason);
        this.#egress.peer = null;
      });
    }
  }

  /** The other thread wrote what it must not, or something failed: the link is over, and nothing else is. */
  #break(cause: unknown): void {
    if (this.#ending !== null) return;
    this.#tally.violations++;
    const error =
      cause instanceof VbusError && cause.code === "ENOTCONN"
        ? cause
        : new VbusError("EPROTO", `the link of port ${this.name} is broken; make another one`, { cause });
    const told = this.#otherGone;
    this.#lost ??= error;
    const peer = this.#egress.peer;
    this.#beginEnd("broken");
    if (peer !== null && this.#pushedBack) this.#scheduler.post(() => peer.writable()); // into a port that drops
    if (!told) this.#options.onLost?.(error);
  }

  #end(): void {
    if (this.#closed) return;
    const reason = this.#ending ?? "closed";
    this.#closed = true;
    this.#up = false;
    this.#poll?.cancel();
    this.#waiter.close();
    this.#egress.close(reason);
    this.#discard(reason);
    this.#page.setState(this.#side, LINK_GONE);
    this.#endOutgoing(reason);
    this.#page.wake(this.#other);
    this.#in?.close();
    this.#out.close();
    this.#store.close();
    this.#settleUp(this.#lost ?? this.#closedError());
  }

  /** Takes what is left in the ring towards this end out, and counts it. */
  #discard(reason: DropReason): void {
    try {
      const n = this.#in?.discard() ?? 0;
      this.#tally.in.take(n, 0);
      this.#tally.in.drop(reason, n);
    } catch {
      this.#tally.violations++; // a broken ring: what lies in it is its sender's to count
    }
  }

  #endOutgoing(reason: DropReason): void {
    const otherOver = this.#page.state(this.#other) !== LINK_ATTACHED;
    // both over: what either end left behind is counted by the first that asks
    if (otherOver && this.#page.claimLeftovers(this.#side)) this.#discard(reason);
    try {
      this.#settleSent(reason);
    } catch {
      this.#tally.violations++;
      const rest = this.#tally.sent - this.#tally.out.delivered;
      this.#tally.sent -= rest;
      this.#tally.out.drop("broken", rest);
    }
  }
}

function isValid(length: number): boolean {
  return length >= HEADER_LENGTH && length <= FRAME_LENGTH_MAX;
}
