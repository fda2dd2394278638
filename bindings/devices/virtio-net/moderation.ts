import type { Scheduler, Timer } from "../../scheduler.js";
import type { VirtioQueue } from "../../virtio/types.js";

/** How interrupts of a queue are put off (virtio 1.2: 5.1.6.5.9). Both 0: not at all. */
export interface Moderation {
  /** Most frames before one; 0: as many as come in time. */
  packets: number;
  /** Longest delay in microseconds. Timers of a JavaScript thread have milliseconds, so it becomes the next whole one. */
  microseconds: number;
}

/** Interrupts of one queue: those that the ring asks for, put off as the driver wants it, never lost. */
export class InterruptModerator {
  #packets = 0;
  #wanted = false;
  #timer: Timer | null = null;

  /** @param put - told of each one that is put off */
  constructor(
    private readonly queue: VirtioQueue,
    private readonly scheduler: Scheduler,
    private readonly put: () => void,
    /** In force; see {@link InterruptModerator.set}. */
    private moderation: Moderation,
  ) {}

  /** What is in force. */
  get current(): Moderation {
    return this.moderation;
  }

  /** Changes what is in force; what waits under other rules goes out. */
  set(moderation: Moderation): void {
    this.moderation = { ...moderation };
    if (this.#wanted) this.#fire();
  }

  /** `frames` were completed; `wanted`: the ring says that the driver is to hear of it. */
  done(frames: number, wanted: boolean): void {
    const { packets, microseconds } = this.moderation;
    if (microseconds === 0) {
      if (wanted) this.queue.interrupt();
      return;
    }
    this.#packets += frames;
    if (wanted) {
      this.#wanted = true;
      this.put();
    }
    if (!this.#wanted) return;
    if (packets !== 0 && this.#packets >= packets) this.#fire();
    else
      this.#timer ??= this.scheduler.after(Math.ceil(microseconds / 1000), () => {
        this.#timer = null;
        this.#fire();
      });
  }

  #fire(): void {
    this.close();
    this.queue.interrupt();
  }

  /** Forgets what waits: the queue is gone. */
  close(): void {
    this.#timer?.cancel();
    this.#timer = null;
    this.#packets = 0;
    this.#wanted = false;
  }
}
