import type { MemorySpace } from "../../memory/space.js";
import type { Batch } from "../../net/batch.js";

/**
 * Frames that a guest sends, in order, in bursts: a venet ring, a virtqueue. {@link TransmitSide} drains it:
 *
 * ```
 * n = peek()  →  frames 0 … n-1 of `batch`, the guest's until release  →  release(k, last), k ≤ n
 * n = 0       →  enable(): whoever sends now wakes the drain
 * ```
 */
export interface FrameSource {
  /** The memory that the frames lie in. */
  readonly space: MemorySpace;
  /** What the last {@link FrameSource.peek} found; frames to be dropped have `FRAME_BAD_…` flags or no address. */
  readonly batch: Batch;
  /** The session ended; nothing may be touched any more. */
  readonly closed: boolean;
  /** The guest broke the protocol of the queue. */
  readonly broken: boolean;
  /** The guest may send no more for the moment: what it was told already waits undrained. It resumes by itself. */
  readonly blocked: boolean;
  /** A frame waits, announced or not. */
  readonly hasFrames: boolean;
  /** Who is told that there may be frames, and what went wrong outside a call. Called once, before anything else. */
  listen(drain: () => void, failed: (error: unknown) => void): void;
  /** Looks at the next frames. Returns how many; they stay until {@link FrameSource.release}. @throws VbusError EPROTO */
  peek(): number;
  /**
   * Gives the first n frames of the last peek back to the guest, and tells it as its mitigation says; `last`: no more
   * follow for now, so it is told in any case. @throws VbusError EPROTO
   */
  release(n: number, last: boolean): void;
  /** Asks to be woken, and looks again: what came in between is not missed. */
  enable(): void;
  /** Asks not to be woken. */
  disable(): void;
  /** Number of frames that the guest sent and nobody took. @throws VbusError EPROTO */
  left(): number;
  /** Ends it and gives back what it holds. */
  close(): void;
}
