import type { HostSignal } from "../bus/types.js";
import type { Queue } from "../engine/queue.js";
import { BurstTable } from "../engine/table.js";
import { QueueWakeups } from "../engine/wakeup.js";
import type { Scheduler } from "../scheduler.js";

/** How a ring is served. */
export interface ServedRingOptions {
  /** Where deferred wake-ups run. */
  readonly scheduler: Scheduler;
  /** Most descriptors that are looked at at once: entries of the table. */
  readonly burst: number;
  /** What to look at besides `dirty` when the ring is armed (`RECHECK_…`). */
  readonly recheck: number;
  /** Runs, with the ring masked, when there may be something to do; must tolerate finding nothing. */
  readonly run: () => void;
  /** Told what `run` threw, and that the guest broke the ring. */
  readonly failed: (error: unknown) => void;
}

/**
 * South of a ring that a guest shared, whatever goes through it: the queue, a table for its bursts, the wake-ups that its
 * doorbell leads to, and the signal that rings the guest. Whoever works on the ring owns it, and closes it.
 */
export class ServedRing {
  /** Room for one burst. */
  readonly table: BurstTable;
  /** Arms and masks the ring, and rings the guest. */
  readonly wakeups: QueueWakeups;

  /** Takes over queue and signal. @throws VbusError ENOMEM; then both are the caller's still */
  constructor(
    /** The ring. */
    readonly queue: Queue,
    private readonly signal: HostSignal,
    { scheduler, burst, recheck, run, failed }: ServedRingOptions,
  ) {
    this.table = BurstTable.allocate(queue.space, burst);
    this.wakeups = new QueueWakeups(queue, {
      scheduler,
      recheck,
      notifier: () => {
        this.wakeups.disable();
        run();
      },
      ring: () => {
        signal.notify();
      },
      onBroken: failed,
    });
    signal.onDoorbell = this.wakeups.wakeup;
  }

  /** It is of no use any more: lets its signal go, so that the guest learns of it. The queue can still be looked at. */
  abandon(): void {
    this.wakeups.close();
    this.signal.release();
  }

  /** Gives everything back. */
  close(): void {
    this.wakeups.close();
    this.signal.onDoorbell = null;
    this.queue.close();
    this.table.close();
    this.signal.release();
  }
}
