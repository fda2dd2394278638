import { BURST_LENGTH, BURST_SIGNAL, FRAME_GSO, RECHECK_INUSE_TAIL } from "../../../assembly/abi/arena.js";
import type { HostSignal } from "../../bus/types.js";
import { RESERVE_BUFFERS, type Queue, type QueueCounters } from "../../engine/queue.js";
import { moveFrames } from "../../engine/transfer.js";
import type { Batch } from "../../net/batch.js";
import type { StateValue } from "../../state/reader.js";
import { ServedRing } from "../served-ring.js";
import { emptyFilled, type Filled, type FrameSink } from "../ethernet/sink.js";
import type { VenetDataEnvironment } from "./environment.js";
import type { L4roBuffers } from "./l4ro.js";

/** Descriptors per burst. */
const BURST = 64;

/** How the guest receives, settled at LINKUP. */
export interface ReceiveMode {
  /** Slots and pages; null: linear buffers. */
  l4ro: L4roBuffers | null;
  /** What was negotiated (`OFFLOAD_…` bits). */
  offloads: number;
}

const LINEAR: ReceiveMode = { l4ro: null, offloads: 0 };

/** South of the RX ring: the buffers that the guest posted (`docs/abi/venet.md` sections 6, 7, 8 and 11). */
export class ReceiveRing implements FrameSink {
  readonly #ring: ServedRing;
  readonly #filled = emptyFilled();
  #mode = LINEAR;
  #ready: () => void = () => undefined;
  #fail: (error: unknown) => void = () => undefined;

  constructor(
    /** Its ring, for those who look at it. */
    readonly queue: Queue,
    signal: HostSignal,
    private readonly environment: VenetDataEnvironment,
  ) {
    this.#ring = new ServedRing(queue, signal, {
      scheduler: environment.scheduler,
      burst: BURST,
      recheck: RECHECK_INUSE_TAIL,
      run: () => {
        this.#ready();
      },
      failed: (error) => {
        this.#fail(error);
      },
    });
  }

  /** {@inheritDoc FrameSink.listen} */
  listen(ready: () => void, failed: (error: unknown) => void): void {
    this.#ready = ready;
    this.#fail = failed;
  }

  /** Settles how the guest receives; before the first reserve of a link. */
  configure(mode: ReceiveMode): void {
    this.#mode = mode;
  }

  /** {@inheritDoc FrameSink.broken} */
  get broken(): boolean {
    return this.queue.broken !== null;
  }

  /** {@inheritDoc FrameSink.offloads} */
  get offloads(): number {
    return this.#mode.offloads;
  }

  /** {@inheritDoc FrameSink.takesLargest} */
  get takesLargest(): boolean {
    return this.#mode.l4ro?.takesLargest === true;
  }

  /** {@inheritDoc FrameSink.takesMerged} */
  takesMerged(bytes: number, frames: number): boolean {
    return this.#mode.l4ro?.takes(bytes, frames) === true;
  }

  /** {@inheritDoc FrameSink.reserve} */
  reserve(_batch: Batch, from: number, to: number): number {
    const max = Math.min(BURST, to - from);
    const { l4ro } = this.#mode;
    return l4ro === null
      ? this.queue.reserve("inuse", this.#ring.table, max, RESERVE_BUFFERS)
      : l4ro.reserve(max);
  }

  /** {@inheritDoc FrameSink.fill} */
  fill(batch: Batch, from: number, to: number, room: number): Readonly<Filled> {
    const { l4ro } = this.#mode;
    const result = this.#filled;
    let table = this.#ring.table;
    if (l4ro === null) {
      const { taken, filled, staged } = moveFrames(batch.table, from, to, table, 0, room);
      result.taken = taken;
      result.filled = filled;
      result.staged = staged;
      result.short = false;
    } else {
      const { taken, filled, staged, short } = l4ro.fill(batch, from, to, room);
      table = l4ro.table;
      result.taken = taken;
      result.filled = filled;
      result.staged = staged;
      result.short = short;
      if (short) this.environment.statistics.rxPagesShort++;
    }
    const { filled } = result;
    if (filled > 0) {
      const signal = l4ro === null ? BURST_LENGTH | BURST_SIGNAL : BURST_SIGNAL;
      this.#ring.wakeups.ringIf(this.queue.commit("inuse", l4ro === null ? table : null, filled, signal));
    }
    result.bytes = 0;
    result.superframes = 0;
    for (let i = 0; i < filled; i++) {
      result.bytes += table.length(i);
      if (l4ro !== null && (table.flags(i) & FRAME_GSO) !== 0) result.superframes++;
    }
    return result;
  }

  /** {@inheritDoc FrameSink.enable} */
  enable(): void {
    this.#ring.wakeups.enable();
  }

  /** {@inheritDoc FrameSink.disable} */
  disable(): void {
    this.#ring.wakeups.disable();
  }

  /**
   * While the guest leaves frames lying in the ring it is told again: a wake-up between LINKUP and the start of its
   * polling is swallowed by the drivers of 2009 (defect V12), and their half of shm-signal may lose one (R1).
   * Costs nothing while the guest polls, for then it is masked. `congested`: frames wait for buffers.
   */
  recheck(congested: boolean): void {
    if (this.queue.broken !== null) return;
    try {
      if (congested || this.queue.countOf("inuse") > 0) this.#ring.wakeups.inject();
    } catch (error) {
      this.#fail(error);
    }
  }

  /**
   * FLUSHRX: returns every descriptor that south owns with length 0, without a signal. Returns how many.
   * @throws VbusError EPROTO when the guest broke the ring
   */
  flush(): number {
    let flushed = 0;
    try {
      while (flushed < this.queue.count) {
        const n = this.queue.reserve("inuse", this.#ring.table, Math.min(BURST, this.queue.count - flushed));
        if (n === 0) break;
        if (this.#mode.l4ro === null) {
          for (let i = 0; i < n; i++) this.#ring.table.setLength(i, 0);
          this.queue.commit("inuse", this.#ring.table, n, BURST_LENGTH);
        } else {
          // an untouched slot has length 0; the descriptor's own length says the slot size, and must stay
          this.queue.commit("inuse", null, n, 0);
        }
        flushed += n;
      }
    } catch (error) {
      this.#fail(error);
      throw error;
    } finally {
      this.environment.statistics.flushed += flushed;
    }
    return flushed;
  }

  /** The ring's own state. */
  save(): StateValue {
    return { queue: this.queue.exportState(), slotSize: this.#mode.l4ro?.slotSize ?? 0 };
  }

  /** What was counted on the ring, by south. */
  counters(): QueueCounters {
    return this.queue.counters();
  }

  /** {@inheritDoc FrameSink.close} */
  close(): void {
    this.#mode.l4ro?.close();
    this.#mode = LINEAR;
    this.#ring.close();
  }
}
