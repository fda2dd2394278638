import type { DoorbellPage, LinkSide } from "./page.js";

/** How often a side looks without being woken; also the period of its heartbeat (at most 500 ms). */
export const TICK_MS = 250;

/**
 * Watches a side's heartbeat. Time is counted in the watcher's own ticks: when the whole process was suspended, the
 * watcher stood still as well and blames nobody.
 */
export class HeartbeatWatch {
  #last: number;
  #still = 0;
  readonly #limit: number;

  /**
   * @param page - the page
   * @param side - whose heart
   * @param limitMs - how long it may stand still, in ms; 0: for ever
   */
  constructor(
    private readonly page: DoorbellPage,
    private readonly side: LinkSide,
    limitMs: number,
  ) {
    this.#last = page.heartbeat(side);
    this.#limit = limitMs > 0 ? Math.max(2, Math.ceil(limitMs / TICK_MS)) : Infinity;
  }

  /** Looks; to be called once per tick. True: it stood still for the limit. */
  expired(): boolean {
    const now = this.page.heartbeat(this.side);
    this.#still = now === this.#last ? this.#still + 1 : 0;
    this.#last = now;
    return this.#still >= this.#limit;
  }
}
