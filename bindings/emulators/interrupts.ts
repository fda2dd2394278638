import { guardInterrupt } from "../connectors/interrupt-line.js";
import type { PciInterruptSink } from "../connectors/pci/function.js";
import type { EmulatorMachine } from "./machine.js";

/** Counts of how interrupts reached the guest. */
export interface InterruptCounters {
  /** Interrupts that were asked for where none may be raised, and kept until the slice was over. */
  deferred: number;
  /** Messages that nobody can take: no controller for them, an address that is not its, a vector that does not exist. */
  impossible: number;
}

/**
 * Raises interrupts of one device when the emulator can take them: at once, or, asked for where it cannot, in its next poll
 * hook. Used by the emulator's thread.
 */
export class EmulatorInterrupts implements PciInterruptSink {
  #level = false;
  #lineDue = false;
  /** The line was lowered meanwhile, if only for a moment: a controller that looks at edges must see that. */
  #dropDue = false;
  #messageDue = false;
  #deferred = 0;
  #impossible = 0;

  /**
   * @param machine - the machine
   * @param line - sets the level of its line
   * @param shown - told of the line's level before the guest can see it
   * @param onError - told when the emulator throws at an interrupt that was kept for later
   */
  constructor(
    private readonly machine: EmulatorMachine,
    private readonly line: (asserted: boolean) => void,
    private readonly shown: (asserted: boolean) => void,
    private readonly onError?: (error: unknown) => void,
  ) {}

  /** As `PciInterruptSink.msi` says. */
  msi(address: number, data: number): void {
    const { machine } = this;
    const { messages } = machine.host;
    if (messages?.request(address, data) !== true) {
      this.#impossible++;
    } else if (machine.mayInterrupt) {
      messages.deliver(machine.context);
    } else {
      this.#messageDue = true;
      this.#defer();
    }
  }

  /** As `PciInterruptSink.setLine` says. */
  setLine(asserted: boolean): void {
    this.#level = asserted;
    this.shown(asserted);
    this.#lineDue = true;
    if (!asserted) this.#dropDue = true;
    if (this.machine.mayInterrupt) this.#updateLine();
    else this.#defer();
  }

  #defer(): void {
    this.#deferred++;
    this.machine.host.endSlice?.();
  }

  #updateLine(): void {
    if (!this.#lineDue) return;
    this.#lineDue = false;
    if (this.#dropDue) this.line(false);
    this.#dropDue = false;
    if (this.#level) this.line(true);
  }

  /** A saved state was restored: the emulator's controller knows the level already. */
  restore(asserted: boolean): void {
    this.#level = asserted;
    this.#lineDue = this.#dropDue = this.#messageDue = false;
    this.shown(asserted);
  }

  /** Does what was kept for later. Called where interrupts may be raised; an emulator that throws hurts no other device. */
  catchUp(): void {
    if (this.#lineDue) {
      guardInterrupt(() => {
        this.#updateLine();
      }, this.onError);
    }
    if (!this.#messageDue) return;
    this.#messageDue = false;
    guardInterrupt(() => {
      this.machine.host.messages?.deliver(this.machine.context);
    }, this.onError);
  }

  /** What was counted so far. */
  counters(): InterruptCounters {
    return { deferred: this.#deferred, impossible: this.#impossible };
  }
}
