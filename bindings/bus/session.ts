import { EIO } from "../../assembly/abi/errno.js";
import { negatedErrno, VbusError } from "../errors.js";
import type { ConnectionNotice } from "./emitter.js";
import type { SessionSignal } from "./host-signal.js";
import type { Published } from "./interfaces.js";
import type { Connection, SessionQueue } from "./types.js";

const INT32_MIN = -(2 ** 31);
const INT32_MAX = 2 ** 31 - 1;

/** A device's result as a guest gets it: a whole number of 32 bits, clamped; -EIO for what is no number at all. */
export function guestResult(result: unknown): number {
  if (typeof result !== "number" || Number.isNaN(result)) return -EIO;
  return Math.trunc(Math.min(INT32_MAX, Math.max(INT32_MIN, result)));
}

/** A session as its administrator sees it. */
export interface SessionView {
  /** The number that the guest uses. */
  readonly handle: number;
  /** Name of the device. */
  readonly device: string;
  /** Name of the interface within the device. */
  readonly interface: string;
  /** Signals of its segments that were not released yet. */
  readonly signals: number;
  /** The queues that its device works on; throws what the device throws. */
  queues(): readonly SessionQueue[];
}

/**
 * One open session between a client and an interface. It holds its device, and each verb in progress holds the session:
 * a device that ends its own session from inside a call is released after the call.
 */
export class Session {
  readonly #signals = new Set<SessionSignal>();
  #verbs = 0;
  #closed = false;

  /** Takes over the device reference of the open. */
  constructor(
    /** The number that the guest uses. */
    readonly handle: number,
    private readonly published: Published,
    /** The device's half. */
    readonly connection: Connection,
    /** What listeners are told about it. */
    readonly notice: ConnectionNotice,
    private readonly report: (message: string, error: unknown) => void,
  ) {}

  /** False once closing began. */
  get open(): boolean {
    return !this.#closed;
  }

  /** Signals of its segments that were not released yet. */
  get signals(): Iterable<SessionSignal> {
    return this.#signals;
  }

  /** What an administrator gets to see of it. */
  get view(): SessionView {
    const { handle, notice } = this;
    return {
      handle,
      device: notice.device,
      interface: notice.interface,
      signals: this.#signals.size,
      queues: () => this.connection.queues?.() ?? [],
    };
  }

  /** The device accepted a segment with this signal. */
  adopt(signal: SessionSignal): void {
    this.#signals.add(signal);
  }

  /** The signal was released. */
  forget(signal: SessionSignal): void {
    this.#signals.delete(signal);
  }

  /** Runs a verb. What the device throws becomes a negated errno; what is no VbusError is reported, too. */
  run(what: string, verb: () => unknown): number {
    this.#verbs++;
    try {
      const result = verb();
      if (typeof result !== "number" || Number.isNaN(result)) {
        this.report(
          `the device failed in ${what}`,
          new TypeError(`${what} returned ${String(result)}, not a number`),
        );
      }
      return guestResult(result);
    } catch (error) {
      if (!(error instanceof VbusError)) this.report(`the device failed in ${what}`, error);
      return negatedErrno(error);
    } finally {
      this.#verbs--;
      this.#dropWhenDone();
    }
  }

  /**
   * Ends the session, in the order of `docs/abi/vbus-bus.md` section 5. The client has forgotten its handles already;
   * so what is left is the device's close(), then SHMCLOSE for every signal that the device did not release before.
   */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#verbs++;
    try {
      this.connection.close();
    } catch (error) {
      this.report("the device failed in close()", error);
    }
    for (const signal of [...this.#signals]) signal.release();
    this.#verbs--;
    this.#dropWhenDone();
  }

  #dropWhenDone(): void {
    if (this.#closed && this.#verbs === 0) this.published.device.drop();
  }
}
