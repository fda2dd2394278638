import type { Batch } from "../../net/batch.js";

/** What {@link FrameSink.fill} did. */
export interface Filled {
  /** Frames done with: in the guest's hands, or too long for it. */
  taken: number;
  /** Frames that the guest got. */
  filled: number;
  /** Bytes of those. */
  bytes: number;
  /** Those of the bytes that were copied three times instead of once (`moveFrames`). */
  staged: number;
  /** Superframes among those. */
  superframes: number;
  /** It stopped at a superframe that finds too few buffers: they must come from the guest first, or it must be cut. */
  short: boolean;
  /** … and never will: there is no place for as many as it needs. */
  hopeless: boolean;
}

/** For a sink, which fills it in again and again. */
export function emptyFilled(): Filled {
  return { taken: 0, filled: 0, bytes: 0, staged: 0, superframes: 0, short: false, hopeless: false };
}

/**
 * Buffers that a guest posted for frames: a venet ring, a virtqueue. {@link ReceiveSide} fills it:
 *
 * ```
 * n = reserve(batch, from, to)      →  frames [from, from + n) have their buffers
 * fill(batch, from, from + n, n)    →  the guest has them, and was told
 * n = 0                             →  enable(): buffers that come wake the port
 * ```
 */
export interface FrameSink {
  /** The guest broke the protocol of the queue. */
  readonly broken: boolean;
  /** What the guest takes unfinished, as far as negotiation goes (`OFFLOAD_…` bits). */
  readonly offloads: number;
  /** True when a superframe of any size finds its buffers at this moment. @throws VbusError EPROTO */
  readonly takesLargest: boolean;
  /** Who is told that there are buffers, and what went wrong outside a call. Called once, before anything else. */
  listen(ready: () => void, failed: (error: unknown) => void): void;
  /** Finds buffers for frames from `from` on. Returns for how many; 0: the guest has posted too few. @throws VbusError EPROTO */
  reserve(batch: Batch, from: number, to: number): number;
  /** True when `bytes` in at most `frames` superframes find their place in what was reserved, however they are divided. */
  takesMerged(bytes: number, frames: number): boolean;
  /**
   * Moves frames [from, to) into the buffers that were reserved for `room` frames, gives them to the guest and tells it.
   * The result is valid until the next call. @throws VbusError EPROTO
   */
  fill(batch: Batch, from: number, to: number, room: number): Readonly<Filled>;
  /** Asks to be told of buffers, and looks again. */
  enable(): void;
  /** Asks not to be told. */
  disable(): void;
  /** Ends it and gives back what it holds. */
  close(): void;
}
