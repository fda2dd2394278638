import type { Placement } from "./placement.js";
import { pairedRatios, quantile, relativeSpread, summarize, type Summary } from "./statistics.js";

/** The goals that this benchmark looks at. */
export const GOALS = {
  G1: "IOQ in wasm vs the same algorithm in C",
  G3: "IOQ round trip vs one cache line to and fro",
  G5: "one-way frames between threads vs ringbuf.js",
  G6: "frame path vs the JavaScript path of v86",
  G7: "Internet checksum vs native SSE2",
  G8: "software segmentation vs copying the same bytes",
  G9: "doorbells per 1000 descriptors",
  G12: "growth: ring size, rings, switch ports",
} as const;

/** Name of a goal. */
export type GoalName = keyof typeof GOALS;

/** Comparisons without a goal. */
export const COMPARISONS = {
  block: "block device of a guest vs direct file access",
} as const;

/** Name of what a row belongs to. */
export type SectionName = GoalName | keyof typeof COMPARISONS;

/** What a goal or a comparison is about. */
export const SECTIONS: Readonly<Record<SectionName, string>> = { ...GOALS, ...COMPARISONS };

/** What a goal asks of a figure. */
export interface Target {
  /** The figure must be … */
  sense: "at most" | "at least";
  /** … this. */
  value: number;
}

/** One line of the report. Plain data: it is what the JSON holds. */
export interface Row {
  goal: SectionName;
  /** What was measured. */
  name: string;
  /** Placement of the cores, for two-thread figures. */
  placement: Placement | null;
  /** Unit of `ours` and `rival`. */
  unit: string;
  /** Our samples; null when there are none. */
  ours: Summary | null;
  /** The rival's. */
  rival: Summary | null;
  /** The figure that is judged: a ratio, or a count; null when it could not be measured. */
  figure: Summary | null;
  /** The same ratio of what each contestant reaches undisturbed (its best tenth); tells how much the machine was busy. */
  atBest: number | null;
  /** Unit of the figure: "×", or what is counted. */
  figureUnit: string;
  /** What the goal asks; null for rows that are shown for comparison only. */
  target: Target | null;
  /** Remarks: why something is missing, state of the caches, dropped samples. */
  note: string;
}

/** Judgement of a row. */
export type Verdict =
  { kind: "reached" } | { kind: "missed"; by: number } | { kind: "shown" } | { kind: "not measured" };

/** Whether a row reaches its goal; `by` is the factor that is lacking (1.2: a fifth too slow). */
export function verdictOf(row: Pick<Row, "figure" | "target">): Verdict {
  if (row.figure === null) return { kind: "not measured" };
  if (row.target === null) return { kind: "shown" };
  const { sense, value } = row.target;
  const { median } = row.figure;
  if (sense === "at most" ? median <= value : median >= value) return { kind: "reached" };
  return { kind: "missed", by: sense === "at most" ? median / value : value / median };
}

/** A verdict for people. */
export function describeVerdict(verdict: Verdict): string {
  switch (verdict.kind) {
    case "reached":
      return "reached";
    case "missed":
      return `missed by ${verdict.by.toFixed(2)}×`;
    case "shown":
      return "—";
    case "not measured":
      return "not measured";
  }
}

/** A target for people, such as `≤ 1.15`. */
export function describeTarget(target: Target | null): string {
  if (target === null) return "—";
  return `${target.sense === "at most" ? "≤" : "≥"} ${target.value}`;
}

/** Which way a ratio is meant. */
export type RatioSense = "ours/rival" | "rival/ours";

/** Fewest paired samples of one class that a row is made of. */
export const FEWEST_PAIRS = 3;

/** Ratio of the best tenths: low times, high rates. */
function undisturbed(
  unit: string,
  ours: readonly number[],
  rival: readonly number[],
  sense: RatioSense,
): number {
  const best = unit.endsWith("/s") ? 0.9 : 0.1;
  const ratio = quantile(ours, best) / quantile(rival, best);
  return sense === "ours/rival" ? ratio : 1 / ratio;
}

/** A row from samples that were taken in turn. Too few samples: a row that says so. */
export function ratioRow(
  base: Pick<Row, "goal" | "name" | "placement" | "unit" | "target" | "note">,
  ours: readonly number[],
  rival: readonly number[],
  sense: RatioSense,
): Row {
  if (ours.length < FEWEST_PAIRS) {
    const note = `${base.note === "" ? "" : `${base.note}; `}only ${ours.length} pairs of this class`;
    return { ...base, note, ours: null, rival: null, figure: null, atBest: null, figureUnit: "×" };
  }
  const ratios = sense === "ours/rival" ? pairedRatios(ours, rival) : pairedRatios(rival, ours);
  return {
    ...base,
    ours: summarize(ours),
    rival: summarize(rival),
    figure: summarize(ratios),
    atBest: undisturbed(base.unit, ours, rival, sense),
    figureUnit: "×",
  };
}

/** A row that could not be measured, and why. */
export function missingRow(base: Pick<Row, "goal" | "name" | "unit" | "target">, reason: string): Row {
  return {
    ...base,
    placement: null,
    ours: null,
    rival: null,
    figure: null,
    atBest: null,
    figureUnit: "×",
    note: reason,
  };
}

const FAILED = "the rest could not be measured: ";

/** A row that stands for what was left of a goal when measuring it failed. */
export function failedRow(goal: GoalName, error: Error): Row {
  return missingRow({ goal, name: "…", unit: "—", target: null }, FAILED + error.message);
}

/** True for a {@link failedRow}: the run cannot be called a success. */
export function isFailed(row: Row): boolean {
  return row.note.startsWith(FAILED);
}

/** Interquartile range of a row's figure, for people. */
export function describeSpread(figure: Summary | null): string {
  return figure === null ? "—" : `±${((relativeSpread(figure) / 2) * 100).toFixed(0)}%`;
}
