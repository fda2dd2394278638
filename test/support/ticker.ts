import type { Scheduler, Timer } from "vbus/scheduler";

/** Something with deadlines. */
export interface Ticking {
  /** Looks at its deadlines. False: it has none any more. */
  tick(now: number): boolean;
}

/** Deadlines are met as precisely as this, in milliseconds. */
const PERIOD_MS = 5;

/**
 * One timer for the deadlines of thousands of connections, which move with every segment: nobody arms a timer of his own.
 * It runs only while somebody has a deadline.
 */
export class Ticker {
  readonly #watched = new Set<Ticking>();
  #timer: Timer | null = null;
  #closed = false;

  constructor(private readonly scheduler: Scheduler) {}

  /** Calls `tick` every few milliseconds until it returns false. */
  watch(item: Ticking): void {
    if (this.#closed) return;
    this.#watched.add(item);
    this.#timer ??= this.scheduler.after(PERIOD_MS, this.#run);
  }

  readonly #run = (): void => {
    this.#timer = null;
    const now = this.scheduler.now();
    for (const item of [...this.#watched]) if (!item.tick(now)) this.#watched.delete(item);
    if (this.#watched.size > 0 && !this.#closed) this.#timer ??= this.scheduler.after(PERIOD_MS, this.#run);
  };

  /** Forgets everybody. */
  close(): void {
    this.#closed = true;
    this.#timer?.cancel();
    this.#timer = null;
    this.#watched.clear();
  }
}
