import type { PciInterruptSink } from "../../connectors/pci/function.js";
import type { V86Machine } from "./machine.js";

/** Messages go here: to the local APIC of a processor (of the only one). Bits 20 … of the address. */
const APIC_MESSAGES = 0xfee;
/** Delivery mode of a message: fixed, or to the processor of lowest priority, which is the same with one. Others are not for devices. */
const DELIVERY_MODE = 0x700;
const DELIVERY_LOWEST = 0x100;

/** Counts of how interrupts reached the guest. */
export interface V86InterruptCounters {
  /** Interrupts that were asked for in a memory access, and kept until the slice was over. */
  deferred: number;
  /** Messages that nobody can take: without a local APIC, to another address, for a vector that does not exist. */
  impossible: number;
}

/**
 * Raises interrupts of one device when v86 can take them: at once in port accesses and tasks, at the end of the slice
 * in memory accesses, by v86's own next look in its timer hook. Used by v86's thread.
 */
export class V86Interrupts implements PciInterruptSink {
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
   */
  constructor(
    private readonly machine: V86Machine,
    private readonly line: (asserted: boolean) => void,
    private readonly shown: (asserted: boolean) => void,
  ) {}

  /** As `PciInterruptSink.msi` says. */
  msi(address: number, data: number): void {
    const { internals, context } = this.machine;
    const mode = data & DELIVERY_MODE;
    const addressed =
      Math.floor(address / 2 ** 20) === APIC_MESSAGES && (mode === 0 || mode === DELIVERY_LOWEST);
    if (!addressed || !internals.request(data & 0xff)) {
      this.#impossible++;
      return;
    }
    switch (context) {
      case "memory":
        this.#deferred++;
        this.#messageDue = true;
        internals.endSlice();
        return;
      case "hook": // v86 looks right after it
        return;
      case "port":
      case "task":
        internals.deliver();
    }
  }

  /** As `PciInterruptSink.setLine` says. */
  setLine(asserted: boolean): void {
    this.#level = asserted;
    this.shown(asserted);
    const { internals, context } = this.machine;
    this.#lineDue = true;
    if (!asserted) this.#dropDue = true;
    if (context === "memory") {
      this.#deferred++;
      internals.endSlice();
    } else {
      this.#updateLine();
    }
  }

  #updateLine(): void {
    if (!this.#lineDue) return;
    this.#lineDue = false;
    if (this.#dropDue) this.line(false);
    this.#dropDue = false;
    if (this.#level) this.line(true);
  }

  /** The machine was restored: its controller knows the level already. */
  restore(asserted: boolean): void {
    this.#level = asserted;
    this.#lineDue = this.#dropDue = this.#messageDue = false;
    this.shown(asserted);
  }

  /** Does what was kept for later. Called where interrupts may be raised. */
  catchUp(): void {
    this.#updateLine();
    if (this.#messageDue) {
      this.#messageDue = false;
      if (this.machine.context !== "hook") this.machine.internals.deliver();
    }
  }

  /** What was counted so far. */
  counters(): V86InterruptCounters {
    return { deferred: this.#deferred, impossible: this.#impossible };
  }
}
