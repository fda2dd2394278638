/**
 * Threads with a request / answer protocol, the same in Node (`worker_threads`) and in browsers (module workers).
 * This is the program's own plumbing: what crosses here are commands and results, never frames.
 */

import { VbusError, type ErrorCode } from "vbus";

import { watchLife, type Vigil } from "vbus/connectors/worker";

/** A command handler: gets the payload, returns the answer (or a promise of it). */
export type Handlers = Record<string, (payload: never) => unknown>;

interface Request {
  id: number;
  type: string;
  payload: unknown;
}

interface Answer {
  id: number;
  value?: unknown;
  /** Its message, with the stack where that helps; a code when it is a VbusError, which says enough by itself. */
  error?: { message: string; code: ErrorCode | null };
}

function describe(error: unknown): NonNullable<Answer["error"]> {
  if (error instanceof VbusError) return { message: withoutCode(error), code: error.code };
  return { message: error instanceof Error ? (error.stack ?? error.message) : String(error), code: null };
}

/** The constructor of a VbusError puts the code in front. */
const withoutCode = (error: VbusError): string => error.message.slice(error.code.length + 2);

interface Endpoint {
  post(message: unknown, transfer: ArrayBuffer[]): void;
  listen(listener: (message: unknown) => void): void;
}

/** Bundlers put an empty `process` into pages. */
const isNode =
  (globalThis as { process?: { versions?: { node?: string } } }).process?.versions?.node !== undefined;

async function ownEndpoint(): Promise<Endpoint> {
  if (isNode) {
    const { parentPort } = await import("node:worker_threads");
    if (parentPort === null) throw new Error("this file runs as a worker; start main.js instead");
    return {
      post: (message, transfer) => {
        parentPort.postMessage(message, transfer);
      },
      listen: (listener) => {
        parentPort.on("message", listener);
      },
    };
  }
  const scope = self as unknown as Worker;
  return {
    post: (message, transfer) => {
      scope.postMessage(message, transfer);
    },
    listen: (listener) => {
      scope.addEventListener("message", (event) => {
        listener(event.data);
      });
    },
  };
}

/** Serves commands in a worker. Never returns control of the channel: call it once, at the end of the worker's program. */
export async function serve(handlers: Handlers): Promise<void> {
  const endpoint = await ownEndpoint();
  endpoint.listen((message) => {
    const { id, type, payload } = message as Request;
    const handler = handlers[type];
    Promise.resolve()
      .then(() => {
        if (handler === undefined) throw new Error(`no command ${type}`);
        return handler(payload as never);
      })
      .then(
        (value) => {
          endpoint.post({ id, value } satisfies Answer, []);
        },
        (error: unknown) => {
          endpoint.post({ id, error: describe(error) } satisfies Answer, []);
        },
      );
  });
  endpoint.post({ id: 0 } satisfies Answer, []);
}

/** A worker thread, seen from the thread that started it. */
export class Thread {
  #next = 1;
  #pending = new Map<number, { resolve: (value: unknown) => void; reject: (error: Error) => void }>();
  #post: (message: unknown, transfer: ArrayBuffer[]) => void = () => {};
  #terminate: () => void = () => {};
  #dead: Error | null = null;
  #vigil: Vigil | null = null;
  /** Told once when the thread ended, for whatever reason. */
  onExit: ((reason: Error) => void) | null = null;

  private constructor(readonly name: string) {}

  /**
   * Starts a worker from a built file and waits until it serves commands. In Node its `exit` tells of its end, in a page
   * only a Web Lock does: `life` is the name of the one that the worker is going to hold (`holdLife`).
   */
  static async start(url: URL, name: string, life?: string): Promise<Thread> {
    const thread = new Thread(name);
    const ready = new Promise((resolve, reject) => {
      thread.#pending.set(0, { resolve, reject });
    });
    if (isNode) {
      const { Worker } = await import("node:worker_threads");
      const worker = new Worker(url, { name });
      thread.#post = (message, transfer) => {
        worker.postMessage(message, transfer);
      };
      thread.#terminate = () => {
        void worker.terminate();
      };
      worker.on("message", (message: Answer) => {
        thread.#answer(message);
      });
      worker.on("error", (error: unknown) => {
        thread.#end(error instanceof Error ? error : new Error(String(error)));
      });
      worker.on("exit", (code) => {
        thread.#end(new Error(`thread ${name} ended with code ${code}`));
      });
    } else {
      const worker = new Worker(url, { type: "module", name });
      thread.#post = (message, transfer) => {
        worker.postMessage(message, transfer);
      };
      thread.#terminate = () => {
        worker.terminate();
        thread.#end(new Error(`thread ${name} was terminated`));
      };
      worker.addEventListener("message", (event: MessageEvent<Answer>) => {
        thread.#answer(event.data);
      });
      worker.addEventListener("error", (event) => {
        // a script that cannot be loaded has no message
        const { message } = event as { message?: string };
        thread.#end(new Error(`thread ${name}: ${message ?? `${url.href} cannot be loaded`}`));
      });
      if (life !== undefined) {
        thread.#vigil = watchLife({
          name: life,
          onDeath: (reason) => {
            thread.#end(reason);
          },
        });
      }
    }
    await ready;
    return thread;
  }

  #answer({ id, value, error }: Answer): void {
    const pending = this.#pending.get(id);
    this.#pending.delete(id);
    if (error === undefined) pending?.resolve(value);
    else if (error.code === null) pending?.reject(new Error(`${this.name}: ${error.message}`));
    else pending?.reject(new VbusError(error.code, `${this.name}: ${error.message}`));
  }

  #end(reason: Error): void {
    if (this.#dead !== null) return;
    this.#dead = reason;
    this.#vigil?.stop();
    for (const { reject } of this.#pending.values()) reject(reason);
    this.#pending.clear();
    this.onExit?.(reason);
  }

  /** Sends a command and waits for its answer. Rejects when the handler failed or the thread ended. */
  call<T>(type: string, payload: unknown = {}, transfer: ArrayBuffer[] = []): Promise<T> {
    if (this.#dead !== null) return Promise.reject(this.#dead);
    const id = this.#next++;
    const answer = new Promise<T>((resolve, reject) => {
      this.#pending.set(id, { resolve: resolve as (value: unknown) => void, reject });
    });
    this.#post({ id, type, payload } satisfies Request, transfer);
    return answer;
  }

  /** Ends the thread, wherever it is. */
  terminate(): void {
    this.#terminate();
  }
}
