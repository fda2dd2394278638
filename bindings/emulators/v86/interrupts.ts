import type { PciInterruptSink } from "../../connectors/pci/function.js";
import type { V86Internals } from "./internals.js";

/** What the adapter knows of where it is. */
export type V86Context = "task" | "port" | "memory" | "hook";

/** Counts of how interrupts reached the guest. */
export interface V86InterruptCounters {
  /** Interrupts that were asked for in a memory access, and kept until the slice was over. */
  deferred: number;
  /** Messages that nobody can take: the guest enabled MSI with a vector that does not exist, or without a local APIC. */
  impossible: number;
}

/**
 * Raises interrupts of one function when v86 can take them: at once in port accesses and tasks, at the end of the slice
 * in memory accesses, by v86's own next look in its timer hook. Used by v86's thread.
 */
export class V86Interrupts implements PciInterruptSink {
  /** Where the thread is; kept by the adapter. */
  context: V86Context = "task";
  #level = false;
  #lineDue = false;
  #messageDue = false;
  #deferred = 0;
  #impossible = 0;

  /**
   * @param machine - the machine
   * @param devfn - whose INTA line it is
   * @param shown - told of the line's level before the guest can see it
   */
  constructor(
    private readonly machine: V86Internals,
    private readonly devfn: number,
    private readonly shown: (asserted: boolean) => void,
  ) {}

  /** As `PciInterruptSink.msi` says. */
  msi(_address: number, data: number): void {
    // one CPU: every address that a guest may program means it
    if (!this.machine.request(data & 0xff)) {
      this.#impossible++;
      return;
    }
    switch (this.context) {
      case "memory":
        this.#deferred++;
        this.#messageDue = true;
        this.machine.endSlice();
        return;
      case "hook": // v86 looks right after it
        return;
      case "port":
      case "task":
        this.machine.deliver();
    }
  }

  /** As `PciInterruptSink.setLine` says. */
  setLine(asserted: boolean): void {
    this.#level = asserted;
    this.shown(asserted);
    if (this.context === "memory") {
      this.#deferred++;
      this.#lineDue = true;
      this.machine.endSlice();
    } else {
      this.#lineDue = false;
      this.machine.setLine(this.devfn, asserted);
    }
  }

  /** Does what was kept for later. Called where interrupts may be raised. */
  catchUp(): void {
    if (this.#lineDue) {
      this.#lineDue = false;
      this.machine.setLine(this.devfn, this.#level);
    }
    if (this.#messageDue) {
      this.#messageDue = false;
      if (this.context !== "hook") this.machine.deliver();
    }
  }

  /** What was counted so far. */
  counters(): V86InterruptCounters {
    return { deferred: this.#deferred, impossible: this.#impossible };
  }
}
