import { pairByPlacement, type BracketedSample, type Placement } from "./placement.js";
import { FEWEST_PAIRS, ratioRow, type RatioSense, type Row } from "./result.js";

/** How much a run measures. */
export interface Effort {
  /** Samples of a one-thread figure. */
  samples: number;
  /** Pairs of a two-thread figure. */
  pairs: number;
  /** Samples thrown away first, while V8 compiles. */
  warm: number;
  /** Most milliseconds for one row; on a busy machine a row has fewer samples then, never none. */
  rowMs: number;
}

/** Effort of `--quick` and of an ordinary run. */
export const EFFORTS = {
  quick: { samples: 15, pairs: 15, warm: 4, rowMs: 4000 },
  normal: { samples: 50, pairs: 60, warm: 8, rowMs: 12_000 },
} as const satisfies Record<string, Effort>;

/** Takes samples of several contestants in turn (A B C A B C …), after some that are thrown away. */
export async function inTurn(
  contestants: readonly (() => number | Promise<number>)[],
  effort: Effort,
): Promise<number[][]> {
  const samples: number[][] = contestants.map(() => []);
  const end = performance.now() + effort.rowMs;
  for (let round = -effort.warm; round < effort.samples; round++) {
    for (const [i, contestant] of contestants.entries()) {
      const value = await contestant();
      if (round >= 0) samples[i]?.push(value);
    }
    if (round >= FEWEST_PAIRS && performance.now() > end) break;
  }
  return samples;
}

/**
 * Times `work` once; nanoseconds for each of `per` units. With `work` synchronous nothing else of this process runs
 * meanwhile.
 */
export function time(work: () => void, per: number): number {
  const begin = performance.now();
  work();
  return ((performance.now() - begin) * 1e6) / per;
}

/** Takes pairs of bracketed samples in turn and makes one row per class. */
export async function pairedRows(
  base: Pick<Row, "goal" | "name" | "unit" | "target" | "note">,
  ours: () => Promise<BracketedSample>,
  rival: () => Promise<BracketedSample>,
  sense: RatioSense,
  effort: Effort,
): Promise<Row[]> {
  const pairs: (readonly [BracketedSample, BracketedSample])[] = [];
  const end = performance.now() + effort.rowMs;
  for (let round = -effort.warm; round < effort.pairs; round++) {
    // who goes first changes, for the first of two finds the cores cooler
    const swap = (round & 1) !== 0;
    const early = swap ? await rival() : await ours();
    const late = swap ? await ours() : await rival();
    if (round >= 0) pairs.push(swap ? [late, early] : [early, late]);
    if (round >= FEWEST_PAIRS && performance.now() > end) break;
  }
  const sorted = pairByPlacement(pairs);
  const rows: Row[] = [];
  for (const placement of ["near", "far"] as const satisfies readonly Placement[]) {
    const { a, b } = sorted.pairs[placement];
    if (a.length === 0) continue;
    const note = joinNotes(base.note, `${a.length} of ${pairs.length} pairs, ${sorted.dropped} dropped`);
    rows.push(ratioRow({ ...base, placement, note }, a, b, sense));
  }
  if (rows.length === 0) {
    const note = joinNotes(
      base.note,
      `all ${sorted.dropped} pairs dropped: the cores moved, or the machine is busy`,
    );
    rows.push(ratioRow({ ...base, placement: null, note }, [], [], sense));
  }
  return rows;
}

function joinNotes(a: string, b: string): string {
  return a === "" ? b : `${a}; ${b}`;
}
