import { ENOENT, ENOMEM, ENOSPC } from "../../assembly/abi/errno.js";
import type { Scheduler } from "../scheduler.js";
import type { EventQueue } from "./events.js";
import { SessionSignal, type SignalOwner } from "./host-signal.js";
import type { Session } from "./session.js";
import type { HostSignal, SignalRequest } from "./types.js";

/** What the signals of one client may use up. */
export interface SignalLimits {
  /** Highest number to give out; -ENOSPC behind it. */
  readonly lastSignalHandle: number;
  /** Signals whose SHMCLOSE was not taken yet; -ENOMEM above it. */
  readonly signals: number;
}

/**
 * The signals of one client by the numbers that its guest rings (`docs/abi/vbus-bus.md` section 5). A number is given out
 * once, when a device accepted the segment; that of a refused segment was never told to anybody.
 */
export class SignalTable {
  readonly #live = new Map<number, SessionSignal>();
  readonly #owner: SignalOwner;
  #next = 0;

  /**
   * @param events - what waits for the guest
   * @param scheduler - where kept doorbells are delivered
   * @param limits - what the guest may use up
   * @param doorbellFailed - told what a device's doorbell handler throws
   */
  constructor(
    private readonly events: EventQueue,
    scheduler: Scheduler,
    private readonly limits: SignalLimits,
    doorbellFailed: (error: unknown) => void,
  ) {
    this.#owner = {
      events,
      scheduler,
      signalReleased: (signal) => {
        this.#live.delete(signal.handle);
        signal.session?.forget(signal);
      },
      doorbellFailed,
    };
  }

  /** The number that comes next. Set when a saved client goes on: numbers below it were given out. */
  get next(): number {
    return this.#next;
  }

  set next(number: number) {
    this.#next = number;
  }

  /** The signal that a guest means by a number. */
  find(handle: number): SessionSignal | undefined {
    return this.#live.get(handle);
  }

  /** All that were accepted and not released. */
  get live(): Iterable<SessionSignal> {
    return this.#live.values();
  }

  /**
   * Offers a segment with a signal to the device of a session.
   * @param decide - has the device decide: >= 0 accepts, a negated errno refuses
   * @returns the signal's number, or a negated errno: -ENOSPC, -ENOMEM, the device's, -ENOENT when the session ended meanwhile
   */
  share(session: Session, request: SignalRequest, decide: (signal: HostSignal) => number): number {
    if (this.#next > this.limits.lastSignalHandle) return -ENOSPC;
    if (this.events.outstandingSignals >= this.limits.signals) return -ENOMEM;
    const signal = this.offer(() => session, this.#next++, { ...request });
    const result = session.run("shm()", () => decide(signal));
    if (result < 0 || !session.open) {
      signal.refuse();
      if (this.#next === signal.handle + 1) this.#next = signal.handle;
      return result < 0 ? result : -ENOENT; // the session ended inside the call
    }
    this.accept(session, signal);
    return signal.handle;
  }

  /** A signal that a device is to decide about; in no table yet. @param sessionOf - null while a saved one is being restored */
  offer(sessionOf: () => Session | null, handle: number, request: SignalRequest): SessionSignal {
    return new SessionSignal(this.#owner, sessionOf, handle, request);
  }

  /** The device accepted: the guest can ring, and hears of it. */
  accept(session: Session, signal: SessionSignal): void {
    this.#live.set(signal.handle, signal);
    session.adopt(signal);
    signal.accept();
  }

  /** The guest closed a session: its numbers mean nothing from now on. */
  forget(session: Session): void {
    for (const signal of session.signals) this.#live.delete(signal.handle);
  }
}
