import { VbusError } from "../errors.js";
import type { Scheduler } from "../scheduler.js";
import type { DeviceVirtQueue, DriverVirtQueue } from "./virtqueue.js";

/** Notifier runs per wakeup before the thread's other work gets its turn. */
const BUDGET = 16;

/** How {@link VirtQueueWakeups} are wired. */
export interface VirtQueueWakeupOptions {
  /** Where deferred wakeups run. */
  scheduler: Scheduler;
  /**
   * Runs when there may be something to do; must tolerate finding nothing. One that leaves something behind, because it
   * cannot go on, disables the wakeups and enables them when it can.
   */
  notifier: () => void;
  /** Told what the notifier threw (the wakeups are disabled then), or, once, that the peer broke the protocol. */
  onBroken?: (error: unknown) => void;
}

/**
 * The wake-up loop of one side of a virtqueue in one thread: notifications off, notifier, notifications on, and again
 * when something came in between. After a budget of turns the rest is scheduled.
 */
export class VirtQueueWakeups {
  #scheduled = false;
  #running = false;
  #again = false;
  #closed = false;
  #enabled = false;
  /** What the last peek left does not count as work. */
  #pastPeeked = false;
  #toldBroken = false;

  constructor(
    readonly queue: DeviceVirtQueue | DriverVirtQueue,
    private readonly options: VirtQueueWakeupOptions,
  ) {}

  /** The peer notified (or may have). Runs the loop now; inside a notifier it is remembered instead. */
  readonly wakeup = (): void => {
    this.#scheduled = false;
    if (this.#closed || this.queue.closed || !this.#enabled) return;
    if (this.#running) {
      this.#again = true;
      return;
    }
    this.#running = true;
    try {
      this.#run();
    } catch (error) {
      this.#enabled = false;
      if (!this.#isGone()) this.queue.disable();
      if (!this.#isGone() && this.queue.broken !== null) this.#toldBroken = true;
      if (this.options.onBroken === undefined) throw error;
      this.options.onBroken(error);
    } finally {
      this.#running = false;
    }
  };

  #run(): void {
    const { queue } = this;
    for (let turn = 0; turn < BUDGET; turn++) {
      this.#again = false;
      queue.disable();
      this.options.notifier();
      if (this.#isOver()) return;
      const more = queue.enable(this.#pastPeeked);
      this.#tellBroken();
      if (!more && !this.#wasRung()) return;
    }
    this.schedule();
  }

  /** The notifier may have closed this or the queue: then its state is gone. */
  #isGone(): boolean {
    return this.#closed || this.queue.closed;
  }

  /** The notifier may have disabled it as well. */
  #isOver(): boolean {
    return this.#isGone() || !this.#enabled;
  }

  /** A notification that came while the notifier ran. */
  #wasRung(): boolean {
    return this.#again;
  }

  #tellBroken(): void {
    if (this.#toldBroken || this.queue.broken === null) return;
    this.#toldBroken = true;
    this.options.onBroken?.(
      new VbusError(
        "EPROTO",
        `the peer broke the protocol of this virtqueue (${this.queue.broken}); reset the device or the queue`,
      ),
    );
  }

  /** Runs a wakeup soon; several calls are one. */
  schedule(): void {
    if (this.#scheduled || this.#isGone()) return;
    this.#scheduled = true;
    this.options.scheduler.post(this.wakeup);
  }

  /**
   * Asks for notifications; what is there already is served soon. Inside a notifier: when it returns. `pastPeeked`: as in
   * {@link DeviceVirtQueue.enable}.
   */
  enable(pastPeeked = false): void {
    if (this.#isGone()) return;
    this.#enabled = true;
    this.#pastPeeked = pastPeeked;
    if (this.#running) return;
    if (this.queue.enable(pastPeeked)) this.schedule();
    this.#tellBroken();
  }

  /** No notifier runs until the next enable. */
  disable(): void {
    this.#enabled = false;
    if (!this.#isGone()) this.queue.disable();
  }

  /** No wakeup runs after this. The queue itself is closed by its owner. */
  close(): void {
    this.#closed = true;
  }
}
