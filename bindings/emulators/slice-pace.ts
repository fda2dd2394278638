/** A slice of a guest whose code is translated takes about a millisecond; one that takes longer than this is interpreted. */
const SLOW_MS = 8;
/** What a slice has, about. */
const SLICE_INSTRUCTIONS = 100_000;
/** Turns with fewer instructions say nothing of the guest's speed: it idled, or its slice was cut short. */
const LEAST_INSTRUCTIONS = 20_000;
/** So many slices in a row have to be slow: one may be so because the host's processor was busy elsewhere. */
const SLICES = 3;

/**
 * How long the guest's slices take. Firmware and boot loaders run code that an emulator interprets, at a hundredth of the usual
 * speed: there a slice is no short time, and nothing may be put off until its end.
 */
export class SlicePace {
  #at = NaN;
  #instructions = 0;
  #slow = 0;

  /** A slice is over, or the guest is about to run: at this time in ms, after so many instructions (modulo 2^32). */
  note(now: number, instructions: number): void {
    const ran = (instructions - this.#instructions) >>> 0;
    const took = now - this.#at;
    this.#at = now;
    this.#instructions = instructions;
    if (ran < LEAST_INSTRUCTIONS) return;
    // (not a number at first: that is not slow)
    this.#slow = took * SLICE_INSTRUCTIONS > SLOW_MS * ran ? this.#slow + 1 : 0;
  }

  /** True when the guest's slices take so long that a guest that waits must not wait for the end of one. */
  get slow(): boolean {
    return this.#slow >= SLICES;
  }
}
