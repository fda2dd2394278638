import { bytesCopied } from "../../engine/transfer.js";
import type { Batch } from "../../net/batch.js";
import { coalesceFrames, takesFrame } from "../../net/offload.js";
import { countDrop, OFFLOAD_ECN, OFFLOAD_TCP4, OFFLOAD_TCP6, OFFLOAD_UDP_L4 } from "../../net/port.js";
import type { Timer } from "../../scheduler.js";
import type { StateReader, StateValue } from "../../state/reader.js";
import type { NicEnvironment } from "./environment.js";
import type { FrameSink } from "./sink.js";
import { dropFrames } from "./statistics.js";

const SUPERFRAMES = OFFLOAD_TCP4 | OFFLOAD_TCP6 | OFFLOAD_UDP_L4;
const MERGEABLE = OFFLOAD_TCP4 | OFFLOAD_TCP6;

/** From the network to the guest: puts frames into the buffers that the guest posted. */
export class ReceiveSide {
  #congested = false;
  /** A superframe has waited for buffers in vain. */
  #starved = false;
  #waitTimer: Timer | null = null;
  #failed = false;

  constructor(
    private readonly sink: FrameSink,
    private readonly environment: NicEnvironment,
  ) {
    sink.listen(
      () => {
        this.#congested = false;
        environment.port?.ready();
      },
      (error) => {
        this.#fail(error);
      },
    );
  }

  /** True while frames wait for buffers of the guest. */
  get congested(): boolean {
    return this.#congested;
  }

  /**
   * What the guest takes unfinished at this moment (`OFFLOAD_…` bits): superframes, unless one has waited for buffers in
   * vain. Then it gets ordinary frames until there are buffers for the largest (defect V8: never wait for ever).
   */
  get offloads(): number {
    const { offloads } = this.sink;
    if ((offloads & SUPERFRAMES) === 0 || (!this.#starved && this.#waitTimer === null)) return offloads;
    try {
      if (this.sink.takesLargest) {
        this.#fed();
        return offloads;
      }
      return this.#starved ? offloads & ~SUPERFRAMES : offloads;
    } catch (error) {
      this.#fail(error);
      return 0;
    }
  }

  /**
   * Delivers frames [from, to): returns how many are done with. Fewer: the guest has no buffer left; when it posts
   * some, the port's `ready()` is called.
   */
  deliver(batch: Batch, from: number, to: number): number {
    const { rx } = this.environment.statistics;
    if (this.sink.broken) {
      dropFrames(rx, "broken", to - from);
      return to - from;
    }
    let at = from;
    try {
      while (at < to) {
        const n = this.#burst(batch, at, to);
        if (n === 0) break;
        at += n;
      }
    } catch (error) {
      dropFrames(rx, "broken", to - at);
      this.#fail(error);
      return to - from;
    }
    return at - from;
  }

  /** Fills what buffers there are. Returns how many frames are done with; 0: congested. @throws VbusError EPROTO */
  #burst(batch: Batch, at: number, to: number): number {
    const { sink } = this;
    const { statistics } = this.environment;
    const { rx } = statistics;
    const { offloads } = this;
    if (!takesFrame(offloads, batch, at) && !takesFrame(sink.offloads, batch, at)) {
      dropFrames(rx, "bad-offload"); // the port was told what the guest takes
      return 1;
    }
    const room = sink.reserve(batch, at, to);
    if (room === 0) {
      statistics.rxCongested++;
      this.congest();
      return 0;
    }
    const end = at + room;
    if (this.environment.coalesce && room > 1 && (offloads & MERGEABLE) !== 0) {
      // every frame must find its place once it is merged: buffers are reserved for each, the rest is counted first
      if (sink.takesMerged(batch.byteCount(at, end), Math.ceil(room / 2))) {
        const merged = coalesceFrames(batch, at, end, offloads & (MERGEABLE | OFFLOAD_ECN));
        if (merged !== batch) {
          this.#fillMerged(merged, room);
          return room;
        }
      }
    }
    const { taken, filled, bytes, staged, superframes, short, hopeless } = sink.fill(batch, at, end, room);
    rx.bytes += bytes;
    statistics.rxCopiedBytes += bytesCopied(bytes, staged);
    rx.passed += filled;
    rx.frames += taken;
    statistics.superframes_passed += superframes;
    countDrop(rx.drops, "buffer-too-small", taken - filled);
    if (short) this.#starve(taken > 0, hopeless);
    return taken;
  }

  /** Fills what `room` frames were merged into. */
  #fillMerged(merged: Batch, room: number): void {
    const { statistics } = this.environment;
    const { rx } = statistics;
    const { count } = merged;
    const { filled, bytes, staged, superframes } = this.sink.fill(merged, 0, count, room);
    rx.bytes += bytes;
    statistics.rxCopiedBytes += bytesCopied(bytes, staged);
    rx.passed += filled;
    rx.frames += room;
    rx.merged += room - count;
    statistics.coalesced += superframes;
    // room was counted, so nothing can be short unless the guest took some back; those frames are lost, and counted
    countDrop(rx.drops, "buffer-too-small", count - filled);
  }

  /** A superframe finds too few buffers, and the sink asked for more: they wake the port at once; when none come, it is cut. */
  #starve(progress: boolean, hopeless: boolean): void {
    if (progress) this.#fed(); // a guest that gives buffers, if too few at a time, does not starve
    const { scheduler, bufferWaitMs } = this.environment;
    if (bufferWaitMs === 0 || hopeless) {
      if (this.#starved) return;
      this.#starved = true;
      scheduler.post(() => {
        this.environment.port?.ready();
      });
      return;
    }
    this.#waitTimer ??= scheduler.after(bufferWaitMs, () => {
      this.#waitTimer = null;
      this.#starved = true;
      this.environment.port?.ready();
    });
  }

  /** The guest has given buffers. */
  #fed(): void {
    this.#starved = false;
    this.#waitTimer?.cancel();
    this.#waitTimer = null;
  }

  /** Frames wait, or may: asks to be told of buffers. */
  congest(): void {
    this.#congested = true;
    this.sink.enable();
  }

  #fail(error: unknown): void {
    if (this.#failed) return;
    this.#failed = true;
    this.environment.failed("rx", error);
  }

  /** What is remembered between deliveries, as plain data. */
  save(): StateValue {
    return { congested: this.#congested, starved: this.#starved || this.#waitTimer !== null };
  }

  /** Takes it over. Frames that wait are offered again by their port; here it only asks to be told of buffers. @throws StateError */
  restore(state: StateReader): void {
    this.#starved = state.get("starved").boolean();
    this.#congested = state.get("congested").boolean();
  }

  /** Goes on after {@link ReceiveSide.restore}. */
  resume(): void {
    if (this.#congested && !this.sink.broken) this.congest();
  }

  /** Link down: nothing waits any more. */
  stop(): void {
    this.#waitTimer?.cancel();
    this.#waitTimer = null;
    this.#congested = false;
    this.sink.disable();
  }

  /** Ends it. */
  close(): void {
    this.stop();
    this.sink.close();
  }
}
