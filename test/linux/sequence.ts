import { generator } from "../engine/seed.js";

/** Random numbers that can be recognised: a long sequence, and how much of it was given away. */
export class Sequence {
  readonly #bytes: number[] = [];
  readonly #next: () => number;

  constructor(seed: number) {
    this.#next = generator(seed);
  }

  readonly fill = (into: Uint8Array): void => {
    for (let i = 0; i < into.length; i++) this.#bytes.push((into[i] = this.#next() & 0xff));
  };

  /** Whether bytes are pieces of what was given, in order: the kernel keeps some of it for itself. */
  gave(got: Buffer): boolean {
    const given = Buffer.from(this.#bytes);
    let at = 0;
    for (let i = 0; i < got.length;) {
      at = given.indexOf(got.subarray(i, i + 8), at);
      if (at < 0) return false;
      while (i < got.length && got[i] === given[at]) {
        i++;
        at++;
      }
    }
    return true;
  }
}
