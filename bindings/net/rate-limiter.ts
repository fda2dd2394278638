import type { Scheduler, Timer } from "../scheduler.js";
import type { Batch } from "./batch.js";
import { Middleware, type Direction } from "./middleware.js";
import type { Port } from "./port.js";

/** How a {@link RateLimiter} limits. At least one of the two rates must be given. */
export interface RateLimiterOptions {
  /** Where it takes the time from, and waits. */
  scheduler: Scheduler;
  /** Frames per second; default unlimited. */
  framesPerSecond?: number;
  /** Bits of frames per second (header to payload, no preamble or FCS); default unlimited. */
  bitsPerSecond?: number;
  /** Frames that may pass at once after silence; default 32. */
  burstFrames?: number;
  /** Bits that may pass at once after silence; default 32 frames of 1514 bytes. */
  burstBits?: number;
  /** What happens to frames above the rate: they wait where they are (default), or they are dropped ("rate"). */
  mode?: "push-back" | "drop";
  /** Which way is limited; default `transmit`: what the peer sends. */
  direction?: Direction | "both";
}

/** Absorbs rounding, so that a wait that was computed exactly is long enough. */
const EPSILON = 1e-6;

/** A token bucket: fills at a rate up to a burst. */
class Bucket {
  #tokens: number;
  #at: number;

  constructor(
    private readonly perSecond: number,
    private readonly burst: number,
    now: number,
  ) {
    this.#tokens = burst;
    this.#at = now;
  }

  refill(now: number): void {
    this.#tokens = Math.min(this.burst, this.#tokens + ((now - this.#at) * this.perSecond) / 1000);
    this.#at = now;
  }

  /** Milliseconds until something of this cost may pass; 0: now. What costs more than a burst needs a full bucket. */
  waitFor(cost: number): number {
    const missing = Math.min(cost, this.burst) - this.#tokens;
    return missing <= EPSILON ? 0 : (missing * 1000) / this.perSecond;
  }

  spend(cost: number): void {
    this.#tokens -= cost; // may go below 0: a debt, paid before the next frame
  }
}

/** The two buckets of one direction. */
class Meter {
  timer: Timer | null = null;
  readonly #frames: Bucket | null;
  readonly #bits: Bucket | null;

  constructor(options: RateLimiterOptions) {
    const {
      scheduler,
      framesPerSecond,
      bitsPerSecond,
      burstFrames = 32,
      burstBits = 32 * 1514 * 8,
    } = options;
    const now = scheduler.now();
    this.#frames = framesPerSecond === undefined ? null : new Bucket(framesPerSecond, burstFrames, now);
    this.#bits = bitsPerSecond === undefined ? null : new Bucket(bitsPerSecond, burstBits, now);
  }

  refill(now: number): void {
    this.#frames?.refill(now);
    this.#bits?.refill(now);
  }

  waitFor(length: number): number {
    return Math.max(this.#frames?.waitFor(1) ?? 0, this.#bits?.waitFor(length * 8) ?? 0);
  }

  spend(length: number): void {
    this.#frames?.spend(1);
    this.#bits?.spend(length * 8);
  }

  refund(length: number): void {
    this.#frames?.spend(-1);
    this.#bits?.spend(-length * 8);
  }

  stop(): void {
    this.timer?.cancel();
    this.timer = null;
  }
}

/**
 * Middleware that limits the rate of a port, by frames, by bits, or both (token buckets). Frames above the rate stay with
 * their sender, which is told when it may go on, or, in mode `drop`, are dropped and counted as "rate".
 */
export class RateLimiter extends Middleware {
  readonly #scheduler: Scheduler;
  readonly #drop: boolean;
  readonly #outward: Meter | null;
  readonly #inward: Meter | null;

  /** @throws RangeError for rates or bursts that are not positive, or no rate at all */
  constructor(inner: Port, options: RateLimiterOptions) {
    super(inner);
    const { framesPerSecond, bitsPerSecond, burstFrames, burstBits, mode, direction = "transmit" } = options;
    if (framesPerSecond === undefined && bitsPerSecond === undefined) {
      throw new RangeError("a rate limiter needs framesPerSecond, bitsPerSecond or both");
    }
    for (const [what, value] of Object.entries({ framesPerSecond, bitsPerSecond, burstFrames, burstBits })) {
      if (value !== undefined && !(value > 0))
        throw new RangeError(`${what} is ${value}; give a number above 0`);
    }
    this.#scheduler = options.scheduler;
    this.#drop = mode === "drop";
    this.#outward = direction === "receive" ? null : new Meter(options);
    this.#inward = direction === "transmit" ? null : new Meter(options);
  }

  protected override toNetwork(batch: Batch, from: number, to: number): number {
    const send = (end: number): number => this.inner.transmit(batch, from, end);
    if (this.#outward === null) return send(to);
    return this.#meter(this.#outward, batch, from, to, send, () => this.peer?.writable());
  }

  protected override toPeer(batch: Batch, from: number, to: number): number {
    const send = (end: number): number => this.hand(batch, from, end);
    if (this.#inward === null) return send(to);
    return this.#meter(this.#inward, batch, from, to, send, () => this.inner.ready());
  }

  #meter(
    meter: Meter,
    batch: Batch,
    from: number,
    to: number,
    send: (end: number) => number,
    goOn: () => void,
  ): number {
    meter.refill(this.#scheduler.now());
    let end = from;
    let wait = 0;
    for (; end < to; end++) {
      const length = batch.length(end);
      wait = meter.waitFor(length);
      if (wait > 0) break;
      meter.spend(length);
    }
    const taken = end === from ? 0 : send(end);
    for (let i = from + taken; i < end; i++) meter.refund(batch.length(i)); // did not pass after all
    if (from + taken < end || end === to) return taken;
    if (this.#drop) {
      this.tally.drop("rate", to - end);
      return to - from;
    }
    meter.timer ??= this.#scheduler.after(wait, () => {
      meter.timer = null;
      goOn();
    });
    return taken;
  }

  /** {@inheritDoc Middleware.detach} */
  override detach(): void {
    super.detach();
    this.#outward?.stop();
  }

  /** {@inheritDoc Middleware.close} */
  override close(): void {
    super.close();
    this.#outward?.stop();
    this.#inward?.stop();
  }
}
