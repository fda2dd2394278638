import type { Scheduler, Timer } from "../scheduler.js";
import { TICK_MS } from "./heartbeat.js";
import type { DoorbellPage, LinkSide } from "./page.js";

/** Polls between two looks at the thread's other work. */
const SPIN_CHUNK = 128;
/** Period of the waiter where `Atomics.waitAsync` is missing. */
const POLL_MS = 1;

/** How a {@link DoorbellWaiter} is wired. */
export interface DoorbellWaiterOptions {
  /** The page. */
  readonly page: DoorbellPage;
  /** Whose doorbells it waits for. */
  readonly side: LinkSide;
  /** Where it runs. */
  readonly scheduler: Scheduler;
  /** Serves one doorbell (0 … 1023). */
  readonly serve: (bell: number) => void;
  /** Runs after every look, for the peer's state. */
  readonly look: () => void;
  /** Runs every {@link TICK_MS} ms, for the heartbeats. */
  readonly tick: () => void;
  /** Something above threw; the waiter has stopped. */
  readonly onError: (error: unknown) => void;
  /** Polls of the sequence word before sleeping; 0: sleep at once. */
  readonly spin: number;
  /** True: poll by timer although the platform could wait (for tests). */
  readonly poll?: boolean;
}

/**
 * The waiting side of the doorbells (`docs/abi/worker-wire.md` section 3), without ever blocking its thread: a chain of
 * scheduler tasks, each of which takes all doorbells, serves them, and comes back; when there are none it polls the
 * sequence word for a while (if told to) and then sleeps in `Atomics.waitAsync`. Between two looks the thread's other
 * tasks run, and by the scheduler's slices its messages and timers too.
 *
 * A pending `waitAsync` neither keeps Node alive nor times out by itself, so a timer does both: the tick.
 *
 * Where `Atomics.waitAsync` is missing (older browsers) the waiter polls by timer. That works, with a delay of one
 * to a few milliseconds per wake-up; `spin` shortens it for what arrives while polling.
 */
export class DoorbellWaiter {
  /** Doorbells served. */
  served = 0;
  /** Times it went to sleep. */
  sleeps = 0;
  #posted = false;
  #closed = false;
  #ticked = true;
  #taken = 0;
  #spun = 0;
  /** Value of the sequence word that a pending wait began with. */
  #waiting: number | null = null;
  #tick: Timer | null = null;
  #poll: Timer | null = null;

  constructor(private readonly options: DoorbellWaiterOptions) {}

  /** Starts looking. */
  start(): void {
    this.#armTick();
    this.#post();
  }

  /** Stops; nothing is served afterwards. Twice is harmless. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#tick?.cancel();
    this.#poll?.cancel();
    if (this.#waiting !== null) this.options.page.release(this.options.side); // leaves no waiter behind
  }

  /**
   * Looks for a new doorbell now, at the price of one load: for threads that are kept away from their event loop, which is
   * what would tell otherwise.
   */
  poll(): void {
    if (!this.#posted && !this.#closed && this.options.page.sequence(this.options.side) !== this.#taken)
      this.#post();
  }

  #armTick(): void {
    this.#tick = this.options.scheduler.after(TICK_MS, () => {
      if (this.#closed) return;
      this.#ticked = true;
      this.#armTick();
      this.#post();
    });
  }

  #post(): void {
    if (this.#posted || this.#closed) return;
    this.#posted = true;
    this.options.scheduler.post(this.#turn);
  }

  readonly #turn = (): void => {
    this.#posted = false;
    if (this.#closed) return;
    try {
      this.#look();
    } catch (error) {
      this.close();
      this.options.onError(error);
    }
  };

  #look(): void {
    const { page, side, serve, look, tick } = this.options;
    const sequence = page.sequence(side); // W4
    const ticked = this.#ticked;
    // a peer that died between W1 and W2 left a doorbell without a new sequence: every tick looks anyway
    if (ticked || sequence !== this.#taken) {
      this.#ticked = false;
      this.#taken = sequence;
      const served = page.take(side, serve); // W5
      this.served += served;
      if (this.#isClosed()) return;
      if (ticked) tick();
      look();
      if (this.#isClosed()) return;
      if (served > 0) {
        this.#spun = 0;
        this.#post();
        return;
      }
    }
    if (this.#spins(sequence)) this.#post();
    else this.#sleep(sequence);
  }

  #isClosed(): boolean {
    return this.#closed;
  }

  /** Polls one chunk. True: come back at once. */
  #spins(sequence: number): boolean {
    const { page, side, spin } = this.options;
    if (this.#spun >= spin) {
      this.#spun = 0;
      return false;
    }
    this.#spun += SPIN_CHUNK;
    for (let i = 0; i < SPIN_CHUNK; i++) {
      if (page.sequence(side) !== sequence) {
        this.#spun = 0;
        break;
      }
    }
    return true;
  }

  #sleep(sequence: number): void {
    const { page, side, scheduler, poll = false } = this.options;
    if (poll || typeof Atomics.waitAsync !== "function") {
      this.#poll ??= scheduler.after(POLL_MS, () => {
        this.#poll = null;
        this.#post();
      });
      return;
    }
    if (this.#waiting !== null) {
      // Still asleep on an older value: the peer died between W2 and W3. One wait at a time: end it, then sleep anew.
      if (this.#waiting !== sequence) page.release(side);
      return;
    }
    const wait = Atomics.waitAsync(page.words, page.sequenceIndex(side), sequence); // W6
    if (!wait.async) {
      this.#post();
      return;
    }
    this.sleeps++;
    this.#waiting = sequence;
    void wait.value.then(() => {
      this.#waiting = null;
      this.#post();
    });
  }
}
