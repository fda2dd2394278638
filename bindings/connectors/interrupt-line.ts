import { VbusError } from "../errors.js";
import type { StateReader } from "../state/reader.js";

/** Runs what an emulator gave to interrupt its guest with: what it throws is reported, and hurts nobody else. */
export function guardInterrupt(act: () => void, onError?: (error: unknown) => void): void {
  try {
    act();
  } catch (cause) {
    onError?.(
      new VbusError("EIO", "the emulator's interrupt sink failed; the guest may miss this interrupt", {
        cause,
      }),
    );
  }
}

/** A level-triggered interrupt line, as an emulator gives it. */
export class InterruptLine {
  #asserted = false;
  #raised = 0;

  /**
   * @param change - sets its level; told only when that changes
   * @param onError - told when that throws
   */
  constructor(
    private readonly change: (asserted: boolean) => void,
    private readonly onError?: (error: unknown) => void,
  ) {}

  /** How often it was raised. */
  get raised(): number {
    return this.#raised;
  }

  /**
   * It has the level that was saved: a state of the machine was restored, its interrupt controller included.
   * @param wanted - the level that the registers say; a line that is up for no reason could never be lowered
   * @throws StateError contradiction
   */
  restore(saved: StateReader, wanted: boolean): void {
    if (saved.boolean() !== wanted) saved.fail("the line's level is not what the registers say");
    this.#asserted = wanted;
  }

  /** Its level. */
  get asserted(): boolean {
    return this.#asserted;
  }

  set asserted(asserted: boolean) {
    if (asserted === this.#asserted) return;
    this.#asserted = asserted;
    if (asserted) this.#raised++;
    guardInterrupt(() => {
      this.change(asserted);
    }, this.onError);
  }
}
