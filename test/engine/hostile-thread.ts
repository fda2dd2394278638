import { once } from "node:events";
import { Worker } from "node:worker_threads";
import type { HostileWork } from "../workers/hostile.js";

/** A thread that rewrites memory as fast as it can, and the test's hold on it. */
export class HostileThread {
  readonly #worker: Worker;
  readonly #words: Int32Array;

  constructor(work: Omit<HostileWork, "control">) {
    const control = new SharedArrayBuffer(8);
    this.#words = new Int32Array(control);
    this.#worker = new Worker(new URL("../../.build/test/workers/hostile.js", import.meta.url), {
      workerData: { ...work, control } satisfies HostileWork,
    });
  }

  /** Resolves when it has begun. */
  async started(): Promise<void> {
    await Promise.race([
      once(this.#worker, "error").then(([error]) => {
        throw error;
      }),
      (async () => {
        while (Atomics.load(this.#words, 1) === 0) await new Promise((resolve) => setTimeout(resolve, 1));
      })(),
    ]);
  }

  /**
   * Blocks until it has written `rounds` times 64 values more: on a busy machine the two threads may otherwise never run
   * at once. @throws when it makes no progress for ten seconds
   */
  letWrite(rounds: number): void {
    const words = this.#words;
    const until = Atomics.load(words, 1) + rounds;
    const end = Date.now() + 10_000;
    for (;;) {
      const now = Atomics.load(words, 1);
      if (now >= until) return;
      if (Date.now() > end) throw new Error("the hostile thread does not run");
      Atomics.wait(words, 1, now, 100); // notified after each round
    }
  }

  /** Ends it; resolves with how often it wrote. */
  async stop(): Promise<number> {
    const ended = once(this.#worker, "message") as Promise<[number]>;
    Atomics.store(this.#words, 0, 2);
    return (await ended)[0];
  }

  async terminate(): Promise<void> {
    await this.#worker.terminate();
  }
}
