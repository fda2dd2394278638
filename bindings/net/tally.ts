import { countDrop, totalDrops, type DropCounts, type DropReason } from "./port.js";

/** The frame equation at one moment: `received + replicated = delivered + Σ drops + inFlight`. */
export interface FrameBalance {
  /** Frames taken from peers. */
  received: number;
  /** Additional copies made on the way: by flooding, or by a fault injector. */
  replicated: number;
  /** Frames handed to peers. */
  delivered: number;
  /** Frames dropped, by reason. */
  drops: DropCounts;
  /** Frames held at this moment. */
  inFlight: number;
  /** True when the equation holds; it always does between calls. */
  balanced: boolean;
}

/**
 * Frame counters, added up once per run of frames, never per frame. What is counted in a tally is counted in its parent
 * too: a port's in its switch, which keeps the sums when the port is gone.
 */
export class FrameTally {
  received = 0;
  receivedBytes = 0;
  delivered = 0;
  deliveredBytes = 0;
  replicated = 0;
  /** Drops by reason. */
  readonly drops: DropCounts = {};

  /** @param parent - where the sums go, too */
  constructor(private readonly parent: FrameTally | null = null) {}

  /** Frames came in. */
  take(frames: number, bytes: number): void {
    this.received += frames;
    this.receivedBytes += bytes;
    this.parent?.take(frames, bytes);
  }

  /** Frames went out. */
  deliver(frames: number, bytes: number): void {
    this.delivered += frames;
    this.deliveredBytes += bytes;
    this.parent?.deliver(frames, bytes);
  }

  /** Copies were made. */
  replicate(frames: number): void {
    this.replicated += frames;
    this.parent?.replicate(frames);
  }

  /** Frames were dropped. */
  drop(reason: DropReason, frames: number): void {
    countDrop(this.drops, reason, frames);
    this.parent?.drop(reason, frames);
  }

  /** The frame equation, with `inFlight` frames held at this moment. */
  balance(inFlight: number): FrameBalance {
    const { received, replicated, delivered } = this;
    return {
      received,
      replicated,
      delivered,
      drops: { ...this.drops },
      inFlight,
      balanced: received + replicated === delivered + totalDrops(this.drops) + inFlight,
    };
  }
}
