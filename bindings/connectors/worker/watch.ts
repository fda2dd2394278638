import { VbusError } from "../../errors.js";

/** How often {@link watchLife} looks whether a guest has taken its lock yet. */
const QUERY_MS = 50;

/** A worker of Node, as far as its death is concerned. */
export interface ExitingWorker {
  /** Registers a listener for the end of the thread. */
  on(event: "exit", listener: (code: number) => void): unknown;
  /** Takes it back. */
  off(event: "exit", listener: (code: number) => void): unknown;
}

/** The part of the Web Locks interface that is used here. */
interface Locks {
  request(
    name: string,
    options: { signal?: AbortSignal },
    callback: () => Promise<void> | null,
  ): Promise<unknown>;
  query(): Promise<{ held?: { name?: string }[] }>;
}

function locks(): Locks | null {
  const { navigator } = globalThis as { navigator?: { locks?: Locks } };
  return navigator?.locks ?? null;
}

/** Something that watches, or is watched, until it is told to stop. */
export interface Vigil {
  /** Ends it. Twice is harmless. */
  stop(): void;
}

/** Tells once when a Node worker's thread has ended, however it did: return, exception, `process.exit`, `terminate()`. */
export function watchWorker(worker: ExitingWorker, onDeath: (reason: Error) => void): Vigil {
  const listener = (code: number): void => {
    worker.off("exit", listener);
    onDeath(new VbusError("ENOTCONN", `the guest's thread ended with exit code ${code}`));
  };
  worker.on("exit", listener);
  return {
    stop: () => {
      worker.off("exit", listener);
    },
  };
}

/**
 * Holds a Web Lock of this name for as long as the thread lives, so that {@link watchLife} notices its end. Call it in
 * the guest's worker before connecting. In Node before 24 there are no Web Locks and nothing to hold: there the `exit`
 * event of the worker is the sign, and the result says so.
 * @param name - unique per guest, agreed with whoever watches
 * @returns how this thread's death shows, and how to end it early
 */
export async function holdLife(name: string): Promise<Vigil & { readonly sign: "lock" | "exit" }> {
  const manager = locks();
  if (manager === null) return { sign: "exit", stop: () => undefined };
  return new Promise((resolve, reject) => {
    manager
      .request(name, {}, () => {
        return new Promise<void>((release) => {
          resolve({ sign: "lock", stop: release });
        });
      })
      .catch(reject);
  });
}

/** Whose life to watch, see {@link watchLife}. */
export interface WatchLifeOptions {
  /** Name that the guest gave to {@link holdLife}. */
  readonly name: string;
  /** The guest's worker, where this thread started it: in Node its `exit` is the sign. */
  readonly worker?: object;
  /** Told once. */
  readonly onDeath: (reason: Error) => void;
  /**
   * Told when the browser does not let this thread look at Web Locks (a frame without an origin of its own, for instance): the
   * guest's death will not be noticed then. Default: the error is thrown where nobody catches it.
   */
  readonly onError?: (error: unknown) => void;
}

/**
 * Tells once when a guest's thread has ended, in Node (by the worker's `exit`) and in browsers (by the guest's Web
 * Lock, from the page as well as from the host's worker). Pass what you are told to `WorkerHostConnector.close`.
 * @throws VbusError EOPNOTSUPP when this place offers neither: then give {@link attachWorkerGuest} a `guestTimeoutMs`
 */
export function watchLife(options: WatchLifeOptions): Vigil {
  const { name, worker, onDeath, onError } = options;
  if (worker !== undefined && isExiting(worker)) return watchWorker(worker, onDeath);
  const manager = locks();
  if (manager === null) {
    throw new VbusError(
      "EOPNOTSUPP",
      "neither a Node worker to watch nor Web Locks; give attachWorkerGuest() a guestTimeoutMs instead",
    );
  }
  const abort = new AbortController();
  void watchLock(manager, name, abort.signal).then(
    (died) => {
      if (died) onDeath(new VbusError("ENOTCONN", `the guest's thread ended (its lock "${name}" is free)`));
    },
    (cause: unknown) => {
      const error = new VbusError(
        "EIO",
        `the lock "${name}" cannot be watched; give attachWorkerGuest() a guestTimeoutMs instead`,
        { cause },
      );
      if (onError === undefined) throw error;
      onError(error);
    },
  );
  return {
    stop: () => {
      abort.abort();
    },
  };
}

function isExiting(worker: object): worker is ExitingWorker {
  const { on, off } = worker as Partial<ExitingWorker>;
  return typeof on === "function" && typeof off === "function";
}

/** Waits until the lock was held once, and then until it is free. False when told to stop. */
async function watchLock(manager: Locks, name: string, signal: AbortSignal): Promise<boolean> {
  const stopped = (): boolean => signal.aborted;
  for (;;) {
    const { held = [] } = await manager.query();
    if (stopped()) return false;
    if (held.some((lock) => lock.name === name)) break;
    await new Promise((resolve) => setTimeout(resolve, QUERY_MS));
  }
  try {
    await manager.request(name, { signal }, () => null); // granted when its holder is gone
    return !stopped();
  } catch (error) {
    if (stopped()) return false;
    throw error;
  }
}
