import type { Worker } from "node:worker_threads";

/** Far beyond what a busy machine needs; two threads that wait for each other for ever end here. */
const LIMIT_MS = 150_000;

/**
 * The next message of a thread.
 * @param what - names the thread in errors, with the seed
 */
export function nextMessage(worker: Worker, what: string, seed: number): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(
      () => reject(new Error(`${what} said nothing for ${LIMIT_MS} ms (seed ${seed})`)),
      LIMIT_MS,
    );
    const settle = (): void => {
      clearTimeout(timer);
      worker.removeAllListeners();
    };
    worker.once("message", (message: unknown) => {
      settle();
      resolve(message);
    });
    worker.once("error", (error: unknown) => {
      settle();
      reject(new Error(`${what} failed (seed ${seed})`, { cause: error }));
    });
  });
}
