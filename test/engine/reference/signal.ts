/**
 * Plain model of one side of a shm-signal, written from `docs/abi/shm-signal.md`. It shares nothing with the engine:
 * the offsets below are typed in from the document, and every access goes through a DataView, one byte at a time.
 */

const MAGIC = 0x58fa39df;
const VERSION = 1;

/** What a wakeup ended with: nothing left to do, or the budget was spent (R6). */
export type WakeupEnd = "done" | "budget";

/** Writes a fresh record at `at`: magic, version, both sides masked and clean (section 1, "Initialisation"). */
export function formatSignal(view: DataView, at: number): void {
  for (let i = 0; i < 16; i++) view.setUint8(at + i, 0);
  view.setUint32(at, MAGIC, true);
  view.setUint32(at + 4, VERSION, true);
}

/** True when the record at `at` carries the right magic and version. */
export function isSignal(view: DataView, at: number): boolean {
  return view.getUint32(at, true) === MAGIC && view.getUint32(at + 4, true) === VERSION;
}

/** One side of a shm-signal. Methods say what the caller has to do, as the engine does. */
export class ReferenceSignal {
  /** The "in wakeup" flag of section 2.6. */
  inWakeup = false;

  /**
   * @param view - memory that holds the record
   * @param at - where the record starts in it
   * @param locale - 0 north, 1 south
   */
  constructor(
    private readonly view: DataView,
    private readonly at: number,
    readonly locale: 0 | 1,
  ) {}

  private position(locale: number, byte: "enabled" | "pending" | "dirty"): number {
    return this.at + 8 + 3 * locale + { enabled: 0, pending: 1, dirty: 2 }[byte];
  }

  private local(byte: "enabled" | "pending" | "dirty"): boolean {
    return this.view.getUint8(this.position(this.locale, byte)) !== 0; // R8: any non-zero value is true
  }

  private store(locale: number, byte: "enabled" | "pending" | "dirty", value: 0 | 1): void {
    this.view.setUint8(this.position(locale, byte), value);
  }

  /** Section 2.1. True: ring the doorbell. */
  inject(): boolean {
    const remote = 1 - this.locale;
    this.store(remote, "dirty", 1);
    const enabled = this.view.getUint8(this.position(remote, "enabled")) !== 0;
    const pending = this.view.getUint8(this.position(remote, "pending")) !== 0;
    if (!enabled || pending) return false;
    this.store(remote, "pending", 1);
    return true;
  }

  /** Section 2.2. */
  disable(): void {
    this.store(this.locale, "enabled", 0);
  }

  /** Section 2.3. True: schedule a deferred wakeup. `more`: something waits that `dirty` does not know of. */
  enable(more: () => boolean = () => false): boolean {
    this.store(this.locale, "enabled", 1);
    if (this.inWakeup) return false;
    return this.local("dirty") || this.local("pending") || more();
  }

  /**
   * Section 2.4, with the bound of R6. Every `yield` stands for one call of the notifier; driving the generator by hand
   * is the inverted form. `more` counts like `dirty` in the outer condition.
   */
  *wakeup(budget: number, more: () => boolean = () => false): Generator<void, WakeupEnd> {
    this.inWakeup = true;
    while (this.local("enabled") && (more() || this.local("dirty") || this.local("pending"))) {
      do {
        if (budget === 0) {
          this.inWakeup = false;
          return "budget";
        }
        budget--;
        this.store(this.locale, "dirty", 0);
        yield;
      } while (this.local("enabled") && this.local("dirty"));
      this.store(this.locale, "pending", 0);
    }
    this.inWakeup = false;
    return "done";
  }

  /** Section 2.4 as the original has it: calls the notifier. Returns how it ended. */
  wake(notifier: () => void, budget = Number.POSITIVE_INFINITY): WakeupEnd {
    const turns = this.wakeup(budget);
    for (;;) {
      const turn = turns.next();
      if (turn.done === true) return turn.value;
      notifier();
    }
  }
}
