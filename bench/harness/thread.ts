/** Worker threads that serve commands: what hosts and guests of the device benchmarks run in. No frame crosses here. */
import { parentPort, Worker } from "node:worker_threads";

/** Commands by name: each gets the payload of the call and returns the answer, or a promise of it. */
export type Commands = Record<string, (payload: never) => unknown>;

interface Call {
  id: number;
  command: string;
  payload: unknown;
}

interface Answer {
  id: number;
  value: unknown;
  /** Why the command failed, or null. */
  error: string | null;
}

/** Serves commands in a worker. Call it once, at the end of the worker's program. @throws Error outside of a worker */
export function serveCommands(commands: Commands): void {
  const port = parentPort;
  if (port === null) throw new Error("this file runs as a worker of npm run bench");
  port.on("message", ({ id, command, payload }: Call) => {
    Promise.resolve()
      .then(() => {
        const run = commands[command];
        if (run === undefined) throw new Error(`no command ${command}`);
        return run(payload as never);
      })
      .then(
        (value) => {
          port.postMessage({ id, value, error: null } satisfies Answer);
        },
        (error: unknown) => {
          const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
          port.postMessage({ id, value: null, error: text } satisfies Answer);
        },
      );
  });
}

interface Pending {
  resolve: (value: unknown) => void;
  reject: (error: Error) => void;
}

/** A worker that serves commands, seen from the thread that started it. */
export class BenchThread {
  readonly #worker: Worker;
  readonly #pending = new Map<number, Pending>();
  #next = 0;
  #ended: Error | null = null;

  /** Starts a worker from a built file. */
  constructor(
    url: URL,
    private readonly name: string,
  ) {
    this.#worker = new Worker(url, { name });
    this.#worker.on("message", (answer: Answer) => {
      const pending = this.#pending.get(answer.id);
      this.#pending.delete(answer.id);
      if (answer.error === null) pending?.resolve(answer.value);
      else pending?.reject(new Error(`${this.name}: ${answer.error}`));
    });
    this.#worker.on("error", (error: unknown) => {
      this.#end(new Error(`thread ${this.name} failed`, { cause: error }));
    });
    this.#worker.on("exit", (code) => {
      this.#end(new Error(`thread ${this.name} ended with code ${code}`));
    });
  }

  #end(reason: Error): void {
    this.#ended ??= reason;
    for (const { reject } of this.#pending.values()) reject(this.#ended);
    this.#pending.clear();
  }

  /** Runs a command. Rejects when it failed, or the thread ended. */
  call<T>(command: string, payload: unknown = {}): Promise<T> {
    if (this.#ended !== null) return Promise.reject(this.#ended);
    const id = this.#next++;
    return new Promise<T>((resolve, reject) => {
      this.#pending.set(id, { resolve: resolve as (value: unknown) => void, reject });
      this.#worker.postMessage({ id, command, payload } satisfies Call);
    });
  }

  /** Ends the thread, wherever it is. */
  async close(): Promise<void> {
    await this.#worker.terminate();
  }
}
