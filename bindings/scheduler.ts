import { VbusError } from "./errors.js";

export { Gate } from "./gate.js";

/** A pending timer. */
export interface Timer {
  /** Cancels it; harmless afterwards. */
  cancel(): void;
}

/**
 * Where deferred work runs: wake-ups, retries, time-outs. One per thread, shared by everything in it. Nothing in this
 * package blocks or recurses into itself: work that was triggered by other work is posted here.
 */
export interface Scheduler {
  /** Runs a task soon, after the current one; in order. */
  post(task: () => void): void;
  /** Runs a task once after `ms` milliseconds. */
  after(ms: number, task: () => void): Timer;
  /** Monotonic time in milliseconds. */
  now(): number;
}

/** Longest that tasks run before timers and messages of the thread get their turn. */
const SLICE_MS = 4;

type Immediate = (callback: () => void) => void;

function macrotask(): Immediate {
  const node = globalThis as { setImmediate?: Immediate };
  if (node.setImmediate !== undefined) return node.setImmediate;
  const { port1, port2 } = new MessageChannel();
  let waiting: (() => void) | undefined;
  port1.onmessage = () => {
    const callback = waiting;
    waiting = undefined;
    callback?.();
  };
  return (callback) => {
    waiting = callback;
    port2.postMessage(0);
  };
}

/**
 * The scheduler of a thread with an event loop (Node, page, worker): tasks run as microtasks, in slices of a few
 * milliseconds, so that messages and timers are served under load.
 *
 * A task that throws does not stop the others: the error goes to `onError`, or, without one, is thrown as an uncaught
 * exception of the thread.
 */
export class EventLoopScheduler implements Scheduler {
  #tasks: (() => void)[] = [];
  #scheduled = false;
  #working = false;
  readonly #yield = macrotask();
  #polls: readonly (() => void)[] = [];

  /** @param onError - told of exceptions in tasks */
  constructor(private readonly onError?: (error: unknown) => void) {}

  post(task: () => void): void {
    this.#tasks.push(task);
    if (this.#scheduled) return;
    this.#scheduled = true;
    queueMicrotask(this.#run);
  }

  readonly #run = (): void => {
    if (this.#work(performance.now() + SLICE_MS)) this.#scheduled = false;
    else this.#yield(this.#run);
  };

  /**
   * Runs what waits here and now, for at most about `budgetMs`: for code that keeps the thread away from its event loop
   * (an emulator between two slices of its guest). Tasks that are left run in the event loop, as always. Returns true when nothing is left; false also from within a task, where it does nothing.
   */
  runPending(budgetMs: number): boolean {
    for (const look of this.#polls) look();
    if (this.#tasks.length === 0) return true;
    return this.#work(performance.now() + budgetMs);
  }

  /**
   * Has `look` called at the beginning of every {@link EventLoopScheduler.runPending}: for those who wait for what only the
   * event loop would tell, such as a doorbell from another thread. It posts what it finds. Must not throw.
   */
  addPoll(look: () => void): Timer {
    this.#polls = [...this.#polls, look];
    return {
      cancel: () => {
        this.#polls = this.#polls.filter((other) => other !== look);
      },
    };
  }

  /** Runs tasks until none is left (true) or time is over (false). */
  #work(end: number): boolean {
    if (this.#working) return false;
    this.#working = true;
    try {
      while (this.#tasks.length > 0) {
        const tasks = this.#tasks;
        this.#tasks = [];
        for (let i = 0; i < tasks.length; i++) {
          this.#runTask(tasks[i] as () => void);
          if ((i & 15) === 15 && performance.now() > end) {
            this.#tasks = [...tasks.slice(i + 1), ...this.#tasks];
            return this.#tasks.length === 0;
          }
        }
        if (this.#tasks.length > 0 && performance.now() > end) return false;
      }
      return true;
    } finally {
      this.#working = false;
    }
  }

  #runTask(task: () => void): void {
    try {
      task();
    } catch (error) {
      if (this.onError !== undefined) this.onError(error);
      else
        setTimeout(() => {
          throw error;
        }, 0);
    }
  }

  after(ms: number, task: () => void): Timer {
    let live = true; // the time may be over, but the task not have had its turn yet
    const handle = setTimeout(() => {
      this.post(() => {
        if (live) task();
      });
    }, ms);
    return {
      cancel: () => {
        live = false;
        clearTimeout(handle);
      },
    };
  }

  now(): number {
    return performance.now();
  }
}

/**
 * A scheduler on virtual time, for deterministic tests and simulations: nothing runs until {@link VirtualScheduler.run}
 * or {@link VirtualScheduler.advance}.
 */
export class VirtualScheduler implements Scheduler {
  #tasks: (() => void)[] = [];
  #timers: { at: number; order: number; task: () => void }[] = [];
  #time = 0;
  #order = 0;

  post(task: () => void): void {
    this.#tasks.push(task);
  }

  after(ms: number, task: () => void): Timer {
    const timer = { at: this.#time + ms, order: this.#order++, task };
    this.#timers.push(timer);
    return {
      cancel: () => {
        const i = this.#timers.indexOf(timer);
        if (i >= 0) this.#timers.splice(i, 1);
      },
    };
  }

  now(): number {
    return this.#time;
  }

  /**
   * Runs posted tasks until none is left. Returns how many ran.
   * @throws VbusError ETIMEDOUT after `limit` tasks: something posts itself for ever
   */
  run(limit = 1_000_000): number {
    let n = 0;
    for (let task; (task = this.#tasks.shift()) !== undefined; n++) {
      if (n >= limit)
        throw new VbusError("ETIMEDOUT", `still busy after ${limit} tasks; something posts itself for ever`);
      task();
    }
    return n;
  }

  /** Lets `ms` milliseconds pass in which the thread stands still: timers that are due then run once, late. */
  sleep(ms: number): void {
    this.run();
    this.#time += ms;
    const due = this.#timers.filter((timer) => timer.at <= this.#time);
    this.#timers = this.#timers.filter((timer) => timer.at > this.#time);
    due.sort((a, b) => a.at - b.at || a.order - b.order);
    for (const timer of due) {
      timer.task();
      this.run();
    }
  }

  /** Lets `ms` milliseconds pass, running tasks and timers in order. */
  advance(ms: number): void {
    const end = this.#time + ms;
    this.run();
    for (;;) {
      let next: { at: number; order: number; task: () => void } | undefined;
      for (const timer of this.#timers) {
        if (
          timer.at <= end &&
          (next === undefined || timer.at < next.at || (timer.at === next.at && timer.order < next.order))
        )
          next = timer;
      }
      if (next === undefined) break;
      this.#timers.splice(this.#timers.indexOf(next), 1);
      this.#time = next.at;
      next.task();
      this.run();
    }
    this.#time = end;
  }
}
