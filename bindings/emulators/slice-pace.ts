/** A slice of a guest whose code is translated takes about a millisecond; one that is interpreted, a hundred times as long. */
const SLOW_MS = 15;
/** What a slice has, about. */
const SLICE_INSTRUCTIONS = 100_000;
/** Turns with fewer instructions say nothing of the guest's speed: it idled. */
const LEAST_INSTRUCTIONS = 2_000;
/** One slice may be slow because the host's processor was busy elsewhere, or fast because a boot loader copies memory. */
const SLICES = 8;

/**
 * How long the guest's slices take. Firmware and boot loaders run code that an emulator interprets, at a hundredth of the usual
 * speed: there a slice is no short time, and nothing may be put off until its end.
 */
export class SlicePace {
  /** Of the last slices, oldest first overwritten: how long they took, and what they executed. */
  readonly #took = new Float64Array(SLICES);
  readonly #ran = new Float64Array(SLICES);
  #next = 0;
  #at = NaN;
  #instructions = 0;
  #slow = false;

  /** A slice is over, or the guest is about to run: at this time in ms, after so many instructions (modulo 2^32). */
  note(now: number, instructions: number): void {
    const ran = (instructions - this.#instructions) >>> 0;
    const took = now - this.#at;
    this.#at = now;
    this.#instructions = instructions;
    if (ran < LEAST_INSTRUCTIONS || Number.isNaN(took)) return;
    this.#took[this.#next] = took;
    this.#ran[this.#next] = ran;
    this.#next = (this.#next + 1) % SLICES;
    const sum = (all: Float64Array): number => all.reduce((whole, each) => whole + each, 0);
    const whole = Math.max(sum(this.#ran), SLICE_INSTRUCTIONS); // few instructions are a small sample
    this.#slow = sum(this.#took) * SLICE_INSTRUCTIONS > SLOW_MS * whole;
  }

  /** True when the guest's slices take so long that a guest that waits must not wait for the end of one. */
  get slow(): boolean {
    return this.#slow;
  }
}
