import { Worker } from "node:worker_threads";

const PROGRAM = new URL("../../.build/test/workers/connector-guest.js", import.meta.url);

/** What a guest's thread says that nobody asked for. */
interface Notice {
  lost: string;
}

/** A guest thread, as the test drives it. */
export class RemoteGuest {
  readonly worker = new Worker(PROGRAM);
  /** Code of the error that its connection was lost with. */
  readonly lost: Promise<string>;
  #next = 0;
  #waiting = new Map<number, { resolve: (value: unknown) => void; reject: (error: Error) => void }>();

  constructor() {
    let lost: (code: string) => void;
    this.lost = new Promise((resolve) => (lost = resolve));
    this.worker.on("message", (message: { id: number; value?: unknown; code?: string } | Notice) => {
      if ("lost" in message) {
        lost(message.lost);
        return;
      }
      const waiting = this.#waiting.get(message.id);
      this.#waiting.delete(message.id);
      if (message.code === undefined) waiting?.resolve(message.value);
      else waiting?.reject(new Error(message.code));
    });
    this.worker.on("error", (error) => {
      for (const { reject } of this.#waiting.values())
        reject(error instanceof Error ? error : new Error(String(error)));
    });
  }

  ask(verb: string, ...args: unknown[]): Promise<unknown> {
    const id = this.#next++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.worker.postMessage({ id, verb, args });
    });
  }
}

/** Waits for a condition; the bound is only there to fail with a message instead of hanging. */
export async function until(
  what: string,
  condition: () => boolean | Promise<boolean>,
  ms = 60_000,
): Promise<void> {
  const end = performance.now() + ms;
  while (!(await condition())) {
    if (performance.now() > end) throw new Error(`still waiting for: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}
