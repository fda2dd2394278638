import type { MemorySpace } from "../memory/space.js";
import type { Scheduler, Timer } from "../scheduler.js";
import type { Batch } from "./batch.js";
import { Egress } from "./egress.js";
import { FRAME_LENGTH_MAX, FrameStore } from "./frame-store.js";
import { Middleware, type Direction } from "./middleware.js";
import { OFFLOAD_ALL, type DropReason, type Port } from "./port.js";
import { Random } from "./random.js";
import { FrameTally, type FrameBalance } from "./tally.js";

/** What a {@link FaultInjector} does. Probabilities are per frame, 0 … 1, default 0. */
export interface FaultOptions {
  /** Where delayed frames wait. */
  scheduler: Scheduler;
  /** The host's memory: where frames are kept. */
  space: MemorySpace;
  /** Seed; the same seed and the same frames give the same faults. Default 1. */
  seed?: number;
  /** Probability that a frame is lost ("fault"). */
  loss?: number;
  /** Probability that a frame comes twice. */
  duplicate?: number;
  /** Probability that a frame is overtaken by those after it. */
  reorder?: number;
  /** How many frames overtake it; default 3. */
  reorderDistance?: number;
  /** Longest that it waits to be overtaken; default 20 ms. */
  reorderMs?: number;
  /** Probability that a frame is delayed (those after it are not). */
  delay?: number;
  /** For how long; default 10 ms. */
  delayMs?: number;
  /** Probability that one bit of a frame is inverted. */
  corrupt?: number;
  /** Which way; default `transmit`: what the peer sends. */
  direction?: Direction | "both";
  /** Most frames held at a time; then the sender is pushed back. Default 256. */
  maxFrames?: number;
}

/** What a {@link FaultInjector} did. */
export interface FaultCounters {
  /** Frames lost. */
  lost: number;
  /** Frames that came twice. */
  duplicated: number;
  /** Frames that were held back for others to overtake. */
  reordered: number;
  /** Frames that were delayed. */
  delayed: number;
  /** Frames with an inverted bit. */
  corrupted: number;
}

type Settings = Required<Omit<FaultOptions, "scheduler" | "space" | "direction" | "seed">>;

interface HeldFrame {
  handle: number;
  /** Frames that still overtake it; Infinity: it waits for its time only. */
  behind: number;
  timer: Timer;
}

/** Frames of one direction, between where they come in and where they go on. */
class FaultLine {
  readonly tally = new FrameTally();
  readonly #held = new Set<HeldFrame>();
  readonly #random: Random;
  readonly #egress: Egress;
  #pushedBack = false;
  #posted = false;

  constructor(
    private readonly scheduler: Scheduler,
    private readonly store: FrameStore,
    private readonly settings: Settings,
    private readonly counters: FaultCounters,
    seed: number,
    next: (batch: Batch, from: number, to: number) => number,
    /** What whoever is next takes unfinished at this moment (`OFFLOAD_…` bits): frames were held, and it may have changed. */
    takes: () => number,
    /** Told when there is room again. */
    private readonly goOn: () => void,
    /** Told of each drop. */
    private readonly dropped: (reason: DropReason, n: number) => void,
  ) {
    this.#random = new Random(seed);
    const limits = { frames: settings.maxFrames + 1, bytes: Infinity };
    this.#egress = new Egress(store, scheduler, this.tally, -1, limits);
    this.#egress.peer = {
      receive: next,
      writable: () => undefined,
      get offloads() {
        return takes();
      },
    };
  }

  get held(): number {
    return this.#egress.waiting + this.#held.size;
  }

  accept(batch: Batch, from: number, to: number): number {
    let i = from;
    for (; i < to; i++) {
      if (this.held >= this.settings.maxFrames || !this.#enter(batch, i)) {
        this.#pushedBack = true;
        break;
      }
    }
    this.tally.take(i - from, batch.byteCount(from, i));
    this.#egress.drain();
    if (this.#pushedBack) this.#post();
    return i - from;
  }

  /** False: no memory. */
  #enter(batch: Batch, i: number): boolean {
    const { settings, counters } = this;
    const length = batch.length(i);
    if (length > FRAME_LENGTH_MAX) {
      this.#drop("oversize", 1);
      return true;
    }
    const handle = this.store.keep(batch, i);
    if (handle === 0) return false;
    // always six draws per frame: one probability changed leaves the other faults where they were
    const lost = this.#random.fraction() < settings.loss;
    const twice = this.#random.fraction() < settings.duplicate;
    const overtaken = this.#random.fraction() < settings.reorder;
    const delayed = this.#random.fraction() < settings.delay;
    const corrupted = this.#random.fraction() < settings.corrupt;
    const bit = Math.floor(this.#random.fraction() * length * 8);
    if (lost) {
      counters.lost++;
      this.store.release(handle);
      this.#drop("fault", 1);
      return true;
    }
    if (corrupted && length > 0) {
      counters.corrupted++;
      this.store.flipBit(handle, bit);
    }
    const copy = twice ? this.store.duplicate(handle) : 0;
    if (delayed) {
      counters.delayed++;
      this.#hold(handle, Infinity, settings.delayMs);
    } else if (overtaken) {
      counters.reordered++;
      this.#hold(handle, settings.reorderDistance, settings.reorderMs);
    } else {
      this.#pass(handle);
    }
    if (copy !== 0) {
      counters.duplicated++;
      this.tally.replicate(1);
      this.#pass(copy);
    }
    return true;
  }

  #hold(handle: number, behind: number, ms: number): void {
    const frame: HeldFrame = {
      handle,
      behind,
      timer: this.scheduler.after(ms, () => {
        this.#held.delete(frame);
        this.#egress.queue.push(handle);
        this.#post();
      }),
    };
    this.#held.add(frame);
  }

  #pass(handle: number): void {
    this.#egress.queue.push(handle);
    for (const frame of this.#held) {
      if (--frame.behind > 0) continue;
      frame.timer.cancel();
      this.#held.delete(frame);
      this.#egress.queue.push(frame.handle);
    }
  }

  #drop(reason: DropReason, n: number): void {
    this.tally.drop(reason, n);
    this.dropped(reason, n);
  }

  /** Where frames go on to has room again. */
  ready(): void {
    this.#egress.whenIdle(() => {
      this.#egress.blocked = false;
      this.#post();
    });
  }

  #post(): void {
    if (this.#posted) return;
    this.#posted = true;
    this.scheduler.post(() => {
      this.#posted = false;
      this.#egress.drain();
      if (!this.#pushedBack || this.held >= this.settings.maxFrames) return;
      this.#pushedBack = false;
      this.goOn();
    });
  }

  discard(reason: DropReason): void {
    this.#egress.whenIdle(() => {
      for (const frame of this.#held) {
        frame.timer.cancel();
        this.store.release(frame.handle);
      }
      this.#drop(reason, this.#held.size + this.#egress.clear());
      this.#held.clear();
      this.#egress.blocked = false;
    });
  }

  close(): void {
    this.#egress.whenIdle(() => {
      this.#egress.close("closed");
    });
  }
}

/**
 * Middleware that does to frames what networks do: loss, duplication, reordering, delay, corruption, each with its own
 * probability, from a seeded generator (sfc32, see {@link Random}). Every frame is copied on its way, so it is a tool for
 * tests, not for speed.
 *
 * Each direction has a generator of its own, and each frame draws the same number of random numbers: changing one
 * probability, or the traffic of the other direction, does not move the other faults.
 */
export class FaultInjector extends Middleware {
  readonly #store: FrameStore;
  readonly #outward: FaultLine | null;
  readonly #inward: FaultLine | null;
  readonly #faults: FaultCounters = { lost: 0, duplicated: 0, reordered: 0, delayed: 0, corrupted: 0 };

  /** @throws RangeError for a probability outside 0 … 1, or a limit that is not positive; VbusError ENOMEM */
  constructor(inner: Port, options: FaultOptions) {
    super(inner);
    const { scheduler, space, seed = 1, direction = "transmit" } = options;
    const { loss = 0, duplicate = 0, reorder = 0, delay = 0, corrupt = 0 } = options;
    const { reorderDistance = 3, reorderMs = 20, delayMs = 10, maxFrames = 256 } = options;
    for (const [what, value] of Object.entries({ loss, duplicate, reorder, delay, corrupt })) {
      if (!(value >= 0 && value <= 1)) throw new RangeError(`probability ${what} is ${value}; give 0 … 1`);
    }
    for (const [what, value] of Object.entries({ reorderDistance, reorderMs, delayMs, maxFrames })) {
      if (!(value > 0)) throw new RangeError(`${what} is ${value}; give a number above 0`);
    }
    const chances = { loss, duplicate, reorder, delay, corrupt };
    const settings: Settings = { ...chances, reorderDistance, reorderMs, delayMs, maxFrames };
    this.#store = new FrameStore(space);
    const line = (
      lineSeed: number,
      next: (batch: Batch, from: number, to: number) => number,
      takes: () => number,
      goOn: () => void,
    ): FaultLine =>
      new FaultLine(
        scheduler,
        this.#store,
        settings,
        this.#faults,
        lineSeed,
        next,
        takes,
        goOn,
        (reason, n) => {
          this.tally.drop(reason, n);
        },
      );
    this.#outward =
      direction === "receive"
        ? null
        : line(
            seed,
            (batch, from, to) => this.inner.transmit(batch, from, to),
            () => this.inner.offloads,
            () => this.peer?.writable(),
          );
    this.#inward =
      direction === "transmit"
        ? null
        : line(
            seed + 1,
            (batch, from, to) => this.hand(batch, from, to),
            () => this.peer?.offloads ?? OFFLOAD_ALL, // a peer that does not say got what its port was told
            () => this.inner.ready(),
          );
  }

  protected override toNetwork(batch: Batch, from: number, to: number): number {
    return this.#outward?.accept(batch, from, to) ?? super.toNetwork(batch, from, to);
  }

  protected override toPeer(batch: Batch, from: number, to: number): number {
    return this.#inward?.accept(batch, from, to) ?? super.toPeer(batch, from, to);
  }

  protected override networkWritable(): void {
    if (this.#outward === null) super.networkWritable();
    else this.#outward.ready();
  }

  protected override peerReady(): void {
    if (this.#inward === null) super.peerReady();
    else this.#inward.ready();
  }

  protected override dropHeld(reason: DropReason): void {
    this.#inward?.discard(reason);
    if (reason === "closed") this.#outward?.discard(reason); // a peer that leaves has sent what it has sent
  }

  protected override get held(): number {
    return (this.#outward?.held ?? 0) + (this.#inward?.held ?? 0);
  }

  /** What was done to frames so far. A snapshot. */
  faults(): FaultCounters {
    return { ...this.#faults };
  }

  /** The frame equation of a direction that has faults; null for one that has none. */
  balance(direction: Direction): FrameBalance | null {
    const line = direction === "transmit" ? this.#outward : this.#inward;
    return line?.tally.balance(line.held) ?? null;
  }

  /** {@inheritDoc Middleware.close} */
  override close(): void {
    if (this.closed) return;
    super.close();
    this.#outward?.close();
    this.#inward?.close();
    this.#store.close();
  }
}
