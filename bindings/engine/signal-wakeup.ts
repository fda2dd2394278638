import { WAKEUP_BUDGET, WAKEUP_RUN } from "../../assembly/abi/arena.js";
import type { Scheduler } from "../scheduler.js";
import type { Signal } from "./signal.js";

/** Notifier runs per wakeup before the thread's other work gets its turn (defect R6). */
const BUDGET = 16;

/** How a {@link SignalWakeups} is wired. */
export interface SignalWakeupOptions {
  /** Where deferred wakeups run. */
  scheduler: Scheduler;
  /** Runs when there may be something to do; must tolerate finding nothing. May disable or close. Must not throw. */
  notifier: () => void;
  /** Rings the peer's doorbell. */
  ring: () => void;
}

/**
 * Drives one half of a signal that stands alone, in one thread: what `QueueWakeups` is for the signal of a ring. Turns
 * doorbells into runs of the notifier by the inverted wake-up loop, schedules what enable and the budget leave over, and
 * rings when an inject says so.
 */
export class SignalWakeups {
  #scheduled = false;
  #running = false;
  #again = false;
  #closed = false;

  constructor(
    readonly signal: Signal,
    private readonly options: SignalWakeupOptions,
  ) {}

  /** The peer rang (or may have). Runs the loop now; inside a notifier it is remembered instead. */
  readonly wakeup = (): void => {
    this.#scheduled = false;
    if (this.#closed) return;
    if (this.#running) {
      this.#again = true;
      return;
    }
    this.#running = true;
    let turn: number;
    try {
      turn = this.signal.wakeupBegin(BUDGET);
      while (turn === WAKEUP_RUN) {
        this.options.notifier();
        if (this.#isClosed()) return; // the signal's state is gone
        turn = this.signal.wakeupNext();
      }
    } finally {
      this.#running = false;
    }
    if (turn === WAKEUP_BUDGET || this.#again) {
      this.#again = false;
      this.schedule();
    }
  };

  #isClosed(): boolean {
    return this.#closed;
  }

  /** Runs a wakeup soon; several calls are one. */
  schedule(): void {
    if (this.#scheduled || this.#closed) return;
    this.#scheduled = true;
    this.options.scheduler.post(this.wakeup);
  }

  /** Unmasks; what arrived meanwhile is served soon. */
  enable(): void {
    if (!this.#closed && this.signal.enable()) this.schedule();
  }

  /** Masks. A wakeup that runs ends after its notifier. */
  disable(): void {
    if (!this.#closed) this.signal.disable();
  }

  /** Tells the peer to look. Everything announced must be stored already. */
  inject(): void {
    if (!this.#closed && this.signal.inject()) this.options.ring();
  }

  /** No wakeup runs after this, nothing is sent; the signal is closed, too. Twice is harmless. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.signal.close();
  }
}
