/** The table of the experiment. */
import { CARD_NAMES, type CardName } from "./cards.js";
import { KINDS, type ExperimentResult, type Kind } from "./experiment.js";
import type { Sample } from "./samples.js";

/** Median of a list that is not empty. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/** A card against v86's own. */
export interface Comparison {
  /** Ratio of the medians. */
  ratio: number;
  /** Smallest and largest ratio of a round. */
  spread: [number, number];
  goal?: number;
  reached?: boolean;
}

/** One row: a measurement of all cards. */
export interface Row {
  title: string;
  unit: string;
  /** Medians. */
  values: Partial<Record<CardName, number>>;
  comparisons: Partial<Record<CardName, Comparison>>;
  /** Medians, per 1000 frames. */
  doorbells: Partial<Record<CardName, number>>;
  /** Medians, per 1000 frames, as the guest counted them. */
  interrupts: Partial<Record<CardName, number>>;
}

const perThousand = (samples: readonly Sample[], of: "doorbells" | "interrupts"): number =>
  median(samples.map((sample) => (1000 * sample[of]) / sample.frames));

function rowOf(result: ExperimentResult, { kind, title, unit, scale, goals, lower }: Kind): Row {
  const samples = result.samples[kind];
  const row: Row = { title, unit, values: {}, comparisons: {}, doorbells: {}, interrupts: {} };
  const rival = samples.eth0;
  for (const name of CARD_NAMES) {
    const own = samples[name];
    if (own === undefined) continue;
    row.values[name] = median(own.map((sample) => sample.value)) / scale;
    row.doorbells[name] = perThousand(own, "doorbells");
    row.interrupts[name] = perThousand(own, "interrupts");
    if (rival === undefined || own === rival) continue;
    const ratio = row.values[name] / row.values.eth0!;
    const ratios = own.map((sample, round) => sample.value / rival[round]!.value);
    const goal = goals[name];
    row.comparisons[name] = {
      ratio,
      spread: [Math.min(...ratios), Math.max(...ratios)],
      ...(goal === undefined ? {} : { goal, reached: lower ? ratio <= goal : ratio >= goal }),
    };
  }
  return row;
}

/** The rows of the table. */
export function rowsOf(result: ExperimentResult): Row[] {
  return KINDS.map((kind) => rowOf(result, kind));
}

const number = (value: number | undefined): string =>
  value === undefined ? "" : value >= 100 ? value.toFixed(0) : value.toFixed(1);

/** Columns under one another: the first two to the left, figures to the right. */
function align(lines: readonly string[][]): string[] {
  const columns = Math.max(...lines.map((line) => line.length));
  const widths = Array.from({ length: columns }, (_, i) =>
    Math.max(...lines.map((line) => (line[i] ?? "").length)),
  );
  return lines.map((line) =>
    widths
      .map((width, i) => (i < 2 ? (line[i] ?? "").padEnd(width) : (line[i] ?? "").padStart(width)))
      .join("  ")
      .trimEnd(),
  );
}

/** Names of the columns, and what the cards are. */
const CARDS: Record<CardName, string> = { eth0: "virtio-net", eth1: "venet", eth2: "our virtio" };

/** The tables as text: what was measured, how it compares, and what it took of notifications. */
export function formatReport(result: ExperimentResult): string {
  const { seconds, rounds, mtu } = result.options;
  const rows = rowsOf(result);
  const names = CARD_NAMES.filter((name) => rows.some((row) => row.values[name] !== undefined));
  const compared = names.filter((name) => rows.some((row) => row.comparisons[name] !== undefined));
  const text = align([
    ["", "", ...names],
    ["", "", ...names.map((name) => CARDS[name])],
    ...rows.map((row) => [row.title, row.unit, ...names.map((name) => number(row.values[name]))]),
    ["TCP on lo, the ceiling", "MB/s", number(median(result.lo) / 1e6)],
  ]);
  for (const name of compared) {
    text.push(
      "",
      ...align([
        [`${name} to eth0`, `(${CARDS[name]})`, "ratio", "spread", "goal", ""],
        ...rows.map((row, i) => {
          const { ratio, spread, goal, reached } = row.comparisons[name]!;
          return [
            row.title,
            "",
            `${ratio.toFixed(2)} x`,
            spread.map((value) => value.toFixed(2)).join(" … "),
            goal === undefined ? "" : `${KINDS[i]!.lower ? "≤" : "≥"} ${goal}`,
            reached === undefined ? "" : reached ? "yes" : "no",
          ];
        }),
      ]),
    );
  }
  text.push(
    "",
    ...align([
      ["per 1000 frames", "", "doorbells", ...names.slice(1).map(() => ""), "interrupts"],
      ["", "", ...names, ...names],
      ...rows.map((row) => [
        row.title,
        "",
        ...names.map((name) => number(row.doorbells[name])),
        ...names.map((name) => number(row.interrupts[name])),
      ]),
    ]),
    "",
    `One guest, MTU ${mtu}, medians over ${rounds} round(s) of ${seconds} s each, cards in turn; spread: ratios of single rounds.`,
    "Per 1000 frames: round trips for ping, full frames' worth of payload for TCP.",
    "Every byte of the TCP streams was verified at the other end, every 60-byte frame counted there.",
  );
  return `${text.join("\n")}\n`;
}
