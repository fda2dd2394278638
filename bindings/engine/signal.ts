import {
  SIG_OFF_DEFERRED,
  SIG_OFF_EXHAUSTED,
  SIG_OFF_MASKED,
  SIG_OFF_NOTIFIED,
  SIG_OFF_SENT,
  SIG_OFF_SPURIOUS,
  SIG_OFF_SUPPRESSED,
  SIG_OFF_WAKEUPS,
  SIG_STATE_SIZE,
} from "../../assembly/abi/arena.js";
import { SIGNAL_SIZE } from "../../assembly/abi/shm-signal.js";
import { checkResult } from "../errors.js";
import type { MemorySpace } from "../memory/space.js";
import type { Engine } from "./engine.js";

/** What a signal counted since it was bound. */
export interface SignalCounters {
  /** Injects that asked for a doorbell. */
  sent: number;
  /** Injects that found a notification pending already. */
  suppressed: number;
  /** Injects that found the peer masked. */
  masked: number;
  /** Wakeups begun here. */
  wakeups: number;
  /** Wakeups that found nothing to do. */
  spurious: number;
  /** Deferred wakeups that enable asked for. */
  deferred: number;
  /** Runs of the notifier. */
  notified: number;
  /** Wakeups whose budget was spent. */
  exhausted: number;
}

/** Reads the counters of the signal state at `address`. */
export function readSignalCounters(engine: Engine, address: number): SignalCounters {
  return {
    sent: engine.counter(address + SIG_OFF_SENT),
    suppressed: engine.counter(address + SIG_OFF_SUPPRESSED),
    masked: engine.counter(address + SIG_OFF_MASKED),
    wakeups: engine.counter(address + SIG_OFF_WAKEUPS),
    spurious: engine.counter(address + SIG_OFF_SPURIOUS),
    deferred: engine.counter(address + SIG_OFF_DEFERRED),
    notified: engine.counter(address + SIG_OFF_NOTIFIED),
    exhausted: engine.counter(address + SIG_OFF_EXHAUSTED),
  };
}

/**
 * One side of a shm-signal that stands alone (`docs/abi/shm-signal.md` section 2); rings embed one in their `Queue`.
 * Used by one thread. Nothing is called back: methods return what the caller must do.
 */
export class Signal {
  #closed = false;

  private constructor(
    readonly space: MemorySpace,
    /** Address of the private state in the arena. */
    readonly address: number,
  ) {}

  /** North: formats the 16-byte record at a guest address and binds to it. Throws EFAULT (range) or EINVAL (alignment). */
  static create(space: MemorySpace, gpa: number, locale: 0 | 1 = 0): Signal {
    return Signal.#bind(space, gpa, (state) =>
      space.engine.exports.signalCreate(
        state,
        space.regionTable,
        gpa >>> 0,
        Math.floor(gpa / 2 ** 32),
        locale,
      ),
    );
  }

  /** South: checks and binds to a record that north formatted. Throws EFAULT (range) or EINVAL (magic, version, alignment). */
  static attach(space: MemorySpace, gpa: number, locale: 0 | 1 = 1): Signal {
    return Signal.#bind(space, gpa, (state) =>
      space.engine.exports.signalAttach(
        state,
        space.regionTable,
        gpa >>> 0,
        Math.floor(gpa / 2 ** 32),
        locale,
      ),
    );
  }

  static #bind(space: MemorySpace, gpa: number, bind: (state: number) => number): Signal {
    const state = space.arena.allocate(SIG_STATE_SIZE, 64);
    try {
      checkResult(
        bind(state),
        `no shm-signal at guest address 0x${gpa.toString(16)}; check magic, version, alignment and range`,
      );
    } catch (error) {
      space.arena.free(state);
      throw error;
    }
    return new Signal(space, state);
  }

  /** Tells the peer to look. True: ring the doorbell. Everything announced must be stored already. */
  inject(): boolean {
    return this.space.engine.exports.signalInject(this.address) !== 0;
  }

  /** Unmasks. True: schedule a wakeup (never call it from here: the caller may be inside one). */
  enable(): boolean {
    return this.space.engine.exports.signalEnable(this.address) !== 0;
  }

  /** Masks. A doorbell already rung may still arrive. */
  disable(): void {
    this.space.engine.exports.signalDisable(this.address);
  }

  /** Begins a wakeup of at most `budget` notifier runs. Returns WAKEUP_DONE, WAKEUP_RUN or WAKEUP_BUDGET. */
  wakeupBegin(budget: number): number {
    return this.space.engine.exports.signalWakeupBegin(this.address, budget);
  }

  /** Continues after the notifier ran. Returns as {@link Signal.wakeupBegin}. */
  wakeupNext(): number {
    return this.space.engine.exports.signalWakeupNext(this.address);
  }

  /** Rebuilds cached addresses after the guest's regions moved. Throws EFAULT when the record is gone. */
  rebase(): void {
    checkResult(
      this.space.engine.exports.signalRebase(this.address, SIGNAL_SIZE),
      "the signal's record is no longer in any region",
    );
  }

  /** What was counted since the signal was bound. */
  counters(): SignalCounters {
    return readSignalCounters(this.space.engine, this.address);
  }

  /** Gives the private state back. The shared record stays as it is. Closing twice is harmless. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.space.arena.free(this.address);
  }
}
