import { RECHECK_NONE, WAKEUP_BUDGET, WAKEUP_RUN } from "../../assembly/abi/arena.js";
import { VbusError } from "../errors.js";
import type { Scheduler } from "../scheduler.js";
import type { Queue } from "./queue.js";

/** Notifier runs per wakeup before the thread's other work gets its turn (defect R6). */
const BUDGET = 16;

/** How a {@link QueueWakeups} is wired. */
export interface QueueWakeupOptions {
  /** Where deferred wakeups run. */
  scheduler: Scheduler;
  /** What to look at besides `dirty` (`RECHECK_…`); {@link QueueWakeups.recheck} changes it. */
  recheck: number;
  /** Runs when there may be something to do; must tolerate finding nothing. May disable the queue. */
  notifier: () => void;
  /** Rings the peer's doorbell. */
  ring: () => void;
  /**
   * Told what the notifier threw (the queue is masked then), and, once, that the peer broke the protocol when it was the
   * wake-up loop or enable that noticed.
   */
  onBroken?: (error: unknown) => void;
}

/**
 * Drives a queue's half of shm-signal in one thread: turns doorbells into runs of the notifier by the inverted wake-up
 * loop, schedules what enable and the budget leave over, and rings when an inject says so.
 */
export class QueueWakeups {
  #scheduled = false;
  #running = false;
  #again = false;
  #closed = false;
  #toldBroken = false;
  /**
   * What to look at besides `dirty` (`RECHECK_…`). A condition that holds while the notifier has nothing to do would keep it
   * running for ever.
   */
  recheck: number;

  constructor(
    readonly queue: Queue,
    private readonly options: QueueWakeupOptions,
  ) {
    this.recheck = options.recheck;
  }

  /** The peer rang (or may have). Runs the loop now; inside a notifier it is remembered instead. */
  readonly wakeup = (): void => {
    this.#scheduled = false;
    if (this.#closed) return;
    if (this.#running) {
      this.#again = true;
      return;
    }
    this.#running = true;
    const { queue } = this;
    const { notifier } = this.options;
    let turn: number;
    try {
      turn = queue.wakeupBegin(BUDGET, this.recheck);
      while (turn === WAKEUP_RUN) {
        notifier();
        if (this.#isClosed()) return; // the notifier may have closed the device: its state is gone
        turn = queue.wakeupNext(this.recheck);
      }
    } catch (error) {
      this.#abandon();
      if (queue.broken !== null) this.#toldBroken = true;
      if (this.options.onBroken === undefined) throw error;
      this.options.onBroken(error);
      return;
    } finally {
      this.#running = false;
    }
    if (turn === WAKEUP_BUDGET || this.#again) {
      this.#again = false;
      this.schedule();
    }
    this.#tellBroken();
  };

  /** A ring that was found broken while looking for work has none to do: without this nobody would ever learn why. */
  #tellBroken(): void {
    if (this.#toldBroken || this.#closed) return;
    const reason = this.queue.broken;
    if (reason === null) return;
    this.#toldBroken = true;
    this.options.onBroken?.(
      new VbusError(
        "EPROTO",
        `the peer broke the protocol of this queue (${reason}); close the device and open it again`,
      ),
    );
  }

  #isClosed(): boolean {
    return this.#closed;
  }

  /**
   * The notifier threw: ends the wakeup, masked. Left as it is, the engine would believe for ever that a loop is running
   * (so enable would schedule nothing) and the peer that a notification is pending (so it would ring no more).
   */
  #abandon(): void {
    this.#again = false;
    if (this.#closed) return;
    this.queue.disable();
    this.queue.wakeupNext(RECHECK_NONE);
  }

  /** Runs a wakeup soon; several calls are one. */
  schedule(): void {
    if (this.#scheduled || this.#closed) return;
    this.#scheduled = true;
    this.options.scheduler.post(this.wakeup);
  }

  /** Unmasks; what arrived meanwhile is served soon. */
  enable(): void {
    if (this.#closed) return;
    if (this.queue.enable(this.recheck)) this.schedule();
    this.#tellBroken();
  }

  /** Masks. */
  disable(): void {
    if (!this.#closed) this.queue.disable();
  }

  /** Rings when a commit, release or inject said so. */
  ringIf(doorbell: boolean): void {
    if (doorbell) this.options.ring();
  }

  /** Signals the peer. */
  inject(): void {
    if (!this.#closed) this.ringIf(this.queue.inject());
  }

  /** No wakeup runs after this. The queue itself is closed by its owner. */
  close(): void {
    this.#closed = true;
  }
}
