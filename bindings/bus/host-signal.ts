import { EINVAL, ENOENT } from "../../assembly/abi/errno.js";
import {
  SIGNAL_MAGIC,
  SIGNAL_OFF_MAGIC,
  SIGNAL_OFF_VERSION,
  SIGNAL_SIZE,
  SIGNAL_VERSION,
} from "../../assembly/abi/shm-signal.js";
import { negatedErrno } from "../errors.js";
import type { MemorySpace } from "../memory/space.js";
import type { Scheduler } from "../scheduler.js";
import type { EventQueue, SignalEntry } from "./events.js";
import type { Session } from "./session.js";
import type { HostSignal, SignalCookie, SignalRequest } from "./types.js";

/**
 * Checks the shm-signal record that a guest announced (`docs/abi/shm-signal.md` section 1, defect P3): it must fit in the
 * segment, be aligned for the engine's atomics, and carry magic and version.
 * @param address - where the segment lies in the memory (already translated)
 * @returns 0 or -EINVAL
 */
export function checkSignalRecord(
  memory: MemorySpace,
  address: number,
  length: number,
  offset: number,
): number {
  // both are below 2^32, so the sum is exact
  if (!Number.isInteger(offset) || offset < 0 || offset + SIGNAL_SIZE > length) return -EINVAL;
  const record = address + offset;
  if (record % 4 !== 0) return -EINVAL;
  const data = memory.engine.data;
  const magic = data.getUint32(record + SIGNAL_OFF_MAGIC, true);
  const version = data.getUint32(record + SIGNAL_OFF_VERSION, true);
  return magic === SIGNAL_MAGIC && version === SIGNAL_VERSION ? 0 : -EINVAL;
}

/** What a signal needs of the client that it belongs to. */
export interface SignalOwner {
  /** Where its events wait. */
  readonly events: EventQueue;
  /** Where a kept doorbell is delivered. */
  readonly scheduler: Scheduler;
  /** The device released it: forget its handle. */
  signalReleased(signal: SessionSignal): void;
  /** The device's doorbell handler failed. */
  doorbellFailed(error: unknown): void;
}

/**
 * The signal of one shared segment, as the client keeps it (`docs/abi/vbus-bus.md` sections 5 and 6).
 *
 * It is *offered* while the device decides about the segment: what the device does with it then is remembered. Acceptance
 * lets it out, in order; refusal forgets it, so that no event is ever sent for a failed DEVSHM (defect P5).
 */
export class SessionSignal implements HostSignal {
  readonly offset: number;
  #entry: SignalEntry | null = null;
  #dead = false;
  #early = false;
  #bell: (() => void) | null = null;
  #rung = false;

  constructor(
    private readonly owner: SignalOwner,
    /** The session that its segment belongs to; null while a saved one is being restored. */
    private readonly sessionOf: () => Session | null,
    /** The number that the guest rings. */
    readonly handle: number,
    private readonly request: Readonly<SignalRequest>,
  ) {
    this.offset = request.offset;
  }

  /** {@inheritDoc HostSignal.notify} */
  notify(): void {
    if (this.#dead) return;
    if (this.#entry !== null) this.owner.events.notify(this.#entry);
    else this.#early = true;
  }

  get onDoorbell(): (() => void) | null {
    return this.#bell;
  }

  set onDoorbell(bell: (() => void) | null) {
    this.#bell = bell;
    if (bell === null || !this.#rung) return;
    this.owner.scheduler.post(() => {
      if (this.#rung && this.#bell !== null) this.ring();
    });
  }

  /** {@inheritDoc HostSignal.release} */
  release(): void {
    if (this.#dead) return;
    this.#dead = true;
    this.#forgetBell();
    if (this.#entry === null) return;
    this.owner.signalReleased(this);
    this.owner.events.closeSignal(this.#entry);
  }

  /** The session that its segment belongs to; null while a saved one is being restored. */
  get session(): Session | null {
    return this.sessionOf();
  }

  /** Cookie of the guest's. */
  get cookie(): SignalCookie {
    return this.request.cookie;
  }

  /** Its place among the events; null until the device accepted the segment. */
  get entry(): SignalEntry | null {
    return this.#entry;
  }

  /** A doorbell waits for somebody who hears it. */
  get rung(): boolean {
    return this.#rung;
  }

  /** The device accepted the segment: what it did with the signal so far takes effect. */
  accept(): void {
    const entry = this.owner.events.openSignal(this.request.cookie);
    this.#entry = entry;
    if (this.#dead) {
      this.owner.signalReleased(this);
      this.owner.events.closeSignal(entry);
    } else if (this.#early) {
      this.owner.events.notify(entry);
    }
  }

  /** The device refused the segment, or the session ended meanwhile: no event, ever. */
  refuse(): void {
    this.#dead = true;
    this.#forgetBell();
  }

  /** The guest rang. 0, or a negated errno for counting: nobody tells the guest. */
  ring(): number {
    if (this.#dead) return -ENOENT;
    if (this.#bell === null) {
      this.#rung = true;
      return 0;
    }
    this.#rung = false;
    try {
      this.#bell();
      return 0;
    } catch (error) {
      this.owner.doorbellFailed(error);
      return negatedErrno(error);
    }
  }

  /** A doorbell that was kept when the state was saved. */
  ringLater(): void {
    this.#rung = true;
    this.owner.scheduler.post(() => {
      if (this.#rung && this.#bell !== null) this.ring();
    });
  }

  #forgetBell(): void {
    this.#bell = null;
    this.#rung = false;
  }
}
