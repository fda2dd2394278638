/** One row of the conformance table, and what the rows share. */
import type { Item, Options, Pattern, Recheck, Rig, RingSide } from "./ring-side.js";

/** A row: a situation and what must come of it. */
export interface ConformanceCase {
  name: string;
  /** How the ring is used; decides the roles of both sides. */
  pattern: Pattern;
  /** Ring sizes that the row makes sense for; all by default. */
  sizes?: (count: number) => boolean;
  /** True: thousands of operations on a large ring, too many to have each one done in another thread. */
  oneByOne?: true;
  run(rig: Rig): void;
}

/** Everything that north writes when it posts a buffer. */
export const WRITE_ALL: Options = { pointer: true, cookie: true, length: true, mark: 1 };

/** Contents of the i-th descriptor: all different. */
export function item(i: number): Item {
  return { gpa: 0x40000 + i * 0x800, length: 64 + i, cookie: i + 1 };
}

/** A copy of the whole segment. */
export function bytesOf(rig: Rig): Uint8Array {
  return new Uint8Array(rig.segment.buffer, rig.segment.byteOffset, rig.segment.byteLength).slice();
}

/** Runs a wakeup to its end by the inverted loop. Returns how it ended and how often the notifier ran. */
export function wake(
  side: RingSide,
  notifier: (run: number) => void = () => {},
  budget = 16,
  recheck: Recheck = "none",
): { end: "done" | "budget"; runs: number } {
  let runs = 0;
  let turn = side.wakeupBegin(budget, recheck);
  while (turn === "run") {
    notifier(runs++);
    turn = side.wakeupNext(recheck);
  }
  return { end: turn, runs };
}
