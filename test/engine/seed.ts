/**
 * Seeds of random tests. Fast tests use a fixed one, so that a run can be repeated; `VBUS_SEED=n` explores elsewhere.
 */
import process from "node:process";

const given = process.env["VBUS_SEED"];

/** The seed of this run. */
export function seedOr(fixed: number): number {
  return given === undefined ? fixed : Number.parseInt(given, 10) >>> 0;
}

/** A small generator of 32-bit numbers (xorshift); the same sequence for the same seed everywhere. */
export function generator(seed: number): () => number {
  let state = (seed ^ 0x9e3779b9) >>> 0 || 1;
  return () => {
    state ^= state << 13;
    state >>>= 0;
    state ^= state >>> 17;
    state ^= state << 5;
    state >>>= 0;
    return state;
  };
}
