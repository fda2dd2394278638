/**
 * A seeded generator of pseudo-random numbers: Chris Doty-Humphrey's sfc32 (128 bits of state, a 32-bit counter in it),
 * state seeded with three constants and the seed, first 15 results thrown away. The same seed gives the same numbers
 * everywhere and for ever. Not for secrets.
 */
export class Random {
  #a = 0x9e3779b9;
  #b = 0x243f6a88;
  #c = 0xb7e15162;
  #d: number;

  /** @param seed - an integer; its low 32 bits count */
  constructor(seed: number) {
    this.#d = seed | 0;
    for (let i = 0; i < 15; i++) this.u32();
  }

  /** The next number, 0 … 2^32 - 1. */
  u32(): number {
    const sum = (((this.#a + this.#b) | 0) + this.#d) | 0;
    this.#d = (this.#d + 1) | 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = (this.#c + (this.#c << 3)) | 0;
    this.#c = (((this.#c << 21) | (this.#c >>> 11)) + sum) | 0;
    return sum >>> 0;
  }

  /** The next number in [0, 1). */
  fraction(): number {
    return this.u32() / 2 ** 32;
  }
}
