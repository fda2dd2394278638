import type { Scheduler, Timer } from "./scheduler.js";

/**
 * A scheduler that can be held: for everything that belongs to one guest, so that its memory stays as it is while its state is
 * saved. What is posted while it is held, or was posted before and has not run, runs after {@link Gate.release}, in order.
 */
export class Gate implements Scheduler {
  #tasks: (() => void)[] = [];
  #head = 0;
  /** Turns of the scheduler that came while the gate was held. */
  #owed = 0;
  #holds = 0;

  /** @param scheduler - where tasks really run */
  constructor(private readonly scheduler: Scheduler) {}

  /** True while nothing runs. */
  get held(): boolean {
    return this.#holds > 0;
  }

  /** Lets nothing run from now on. Holds are counted. */
  hold(): void {
    this.#holds++;
  }

  /** Takes one hold back; with the last one tasks run again. */
  release(): void {
    if (this.#holds === 0 || --this.#holds > 0) return;
    const owed = this.#owed;
    this.#owed = 0;
    for (let i = 0; i < owed; i++) this.scheduler.post(this.#turn);
  }

  /** As `Scheduler.post` says. */
  post(task: () => void): void {
    this.#tasks.push(task);
    this.scheduler.post(this.#turn);
  }

  /** One turn of the scheduler for each task: other work of the thread comes in between as it always did. */
  readonly #turn = (): void => {
    if (this.#holds > 0) {
      this.#owed++;
      return;
    }
    const task = this.#tasks[this.#head] as () => void;
    this.#head++;
    if (this.#head === this.#tasks.length) {
      this.#tasks = [];
      this.#head = 0;
    } else if (this.#head >= 256 && this.#head * 2 > this.#tasks.length) {
      this.#tasks.splice(0, this.#head);
      this.#head = 0;
    }
    task();
  };

  /** As `Scheduler.after` says; time passes while the gate is held, tasks that are due wait. */
  after(ms: number, task: () => void): Timer {
    let live = true;
    const timer = this.scheduler.after(ms, () => {
      if (!this.held) {
        task();
        return;
      }
      this.post(() => {
        if (live) task();
      });
    });
    return {
      cancel: () => {
        live = false;
        timer.cancel();
      },
    };
  }

  /** As `Scheduler.now` says. */
  now(): number {
    return this.scheduler.now();
  }
}
