import { BURST_LENGTH, BURST_SIGNAL, RECHECK_INUSE_TAIL } from "../../../assembly/abi/arena.js";
import type { HostSignal } from "../../bus/types.js";
import { RESERVE_BUFFERS, type Queue, type QueueCounters } from "../../engine/queue.js";
import { BurstTable } from "../../engine/table.js";
import { moveFrames } from "../../engine/transfer.js";
import { QueueWakeups } from "../../engine/wakeup.js";
import type { Batch } from "../../net/batch.js";
import { countDrop } from "../../net/port.js";
import { dropFrames } from "./statistics.js";
import type { TransmitEnvironment } from "./transmit.js";

/** Descriptors per burst. */
const BURST = 64;

/**
 * South of the RX ring: puts frames from the network into the buffers that the guest posted
 * (`docs/abi/venet.md` sections 6, 8 and 11).
 */
export class ReceiveSide {
  readonly #wakeups: QueueWakeups;
  readonly #table: BurstTable;
  #congested = false;
  #failed = false;

  constructor(
    private readonly queue: Queue,
    private readonly signal: HostSignal,
    private readonly environment: TransmitEnvironment,
  ) {
    this.#table = BurstTable.allocate(queue.space, BURST);
    this.#wakeups = new QueueWakeups(queue, {
      scheduler: environment.scheduler,
      recheck: RECHECK_INUSE_TAIL,
      notifier: () => {
        this.#wakeups.disable();
        this.#congested = false;
        environment.port?.ready();
      },
      ring: () => {
        signal.notify();
      },
      onBroken: (error) => {
        this.#fail(error);
      },
    });
    signal.onDoorbell = this.#wakeups.wakeup;
  }

  /**
   * Delivers frames [from, to): returns how many are done with. Fewer: the guest has no buffer left; when it posts
   * some, the port's `ready()` is called.
   */
  deliver(batch: Batch, from: number, to: number): number {
    const { statistics } = this.environment;
    const { rx } = statistics;
    let at = from;
    if (this.queue.broken !== null) {
      dropFrames(rx, "broken", to - from);
      return to - from;
    }
    try {
      while (at < to) {
        const room = this.queue.reserve("inuse", this.#table, Math.min(BURST, to - at), RESERVE_BUFFERS);
        if (room === 0) {
          statistics.rxCongested++;
          this.#congest();
          break;
        }
        const { taken, filled } = moveFrames(batch.table, at, to, this.#table, 0, room);
        if (filled > 0)
          this.#wakeups.ringIf(this.queue.commit("inuse", this.#table, filled, BURST_LENGTH | BURST_SIGNAL));
        rx.frames += taken;
        rx.passed += filled;
        for (let i = 0; i < filled; i++) rx.bytes += this.#table.length(i);
        countDrop(rx.drops, "buffer-too-small", taken - filled);
        at += taken;
      }
    } catch (error) {
      dropFrames(rx, "broken", to - at);
      this.#fail(error);
      return to - from;
    }
    return at - from;
  }

  #congest(): void {
    this.#congested = true;
    this.#wakeups.enable();
  }

  /**
   * While the guest leaves frames lying in the ring it is told again: a wake-up between LINKUP and the start of its
   * polling is swallowed by the drivers of 2009 (defect V12), and their half of shm-signal may lose one (R1).
   * Costs nothing while the guest polls, for then it is masked.
   */
  recheck(): void {
    if (this.queue.broken !== null) return;
    try {
      if (this.#congested || this.queue.countOf("inuse") > 0) this.#wakeups.inject();
    } catch (error) {
      this.#fail(error);
    }
  }

  #fail(error: unknown): void {
    if (this.#failed) return;
    this.#failed = true;
    this.environment.failed("rx", error);
  }

  /**
   * FLUSHRX: returns every descriptor that south owns with length 0, without a signal. Returns how many.
   * @throws VbusError EPROTO when the guest broke the ring
   */
  flush(): number {
    let flushed = 0;
    try {
      while (flushed < this.queue.count) {
        const n = this.queue.reserve("inuse", this.#table, Math.min(BURST, this.queue.count - flushed));
        if (n === 0) break;
        for (let i = 0; i < n; i++) this.#table.setLength(i, 0);
        this.queue.commit("inuse", this.#table, n, BURST_LENGTH);
        flushed += n;
      }
    } catch (error) {
      this.#fail(error);
      throw error;
    } finally {
      this.environment.statistics.flushed += flushed;
    }
    this.#congest();
    return flushed;
  }

  /** What was counted on the ring, by south. */
  counters(): QueueCounters {
    return this.queue.counters();
  }

  /** Link down: nothing waits any more. */
  stop(): void {
    this.#congested = false;
    this.#wakeups.disable();
  }

  /** Ends it. */
  close(): void {
    this.stop();
    this.#wakeups.close();
    this.signal.onDoorbell = null;
    this.queue.close();
    this.#table.close();
    this.signal.release();
  }
}
