/** The table of the experiment. */
import { CARD_NAMES, type CardName } from "./lab.js";
import { KINDS, type ExperimentResult, type Kind } from "./experiment.js";
import type { Sample } from "./samples.js";

/** Median of a list that is not empty. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/** One row: a measurement of both cards. */
export interface Row {
  title: string;
  unit: string;
  /** Medians. */
  values: Partial<Record<CardName, number>>;
  /** Ratio of the medians, venet to virtio-net. */
  ratio?: number;
  /** Smallest and largest ratio of a round. */
  spread?: [number, number];
  goal: number;
  reached?: boolean;
  /** Medians, per 1000 frames. */
  doorbells: Partial<Record<CardName, number>>;
  /** Medians, per 1000 frames, as the guest counted them. */
  interrupts: Partial<Record<CardName, number>>;
}

const perThousand = (samples: readonly Sample[], of: "doorbells" | "interrupts"): number =>
  median(samples.map((sample) => (1000 * sample[of]) / sample.frames));

function rowOf(result: ExperimentResult, { kind, title, unit, scale, goal, lower }: Kind): Row {
  const samples = result.samples[kind];
  const row: Row = { title, unit, values: {}, goal, doorbells: {}, interrupts: {} };
  for (const name of CARD_NAMES) {
    const own = samples[name];
    if (own === undefined) continue;
    row.values[name] = median(own.map((sample) => sample.value)) / scale;
    row.doorbells[name] = perThousand(own, "doorbells");
    row.interrupts[name] = perThousand(own, "interrupts");
  }
  const { eth0, eth1 } = samples;
  if (eth0 !== undefined && eth1 !== undefined) {
    row.ratio = row.values.eth1! / row.values.eth0!;
    const ratios = eth1.map((sample, round) => sample.value / eth0[round]!.value);
    row.spread = [Math.min(...ratios), Math.max(...ratios)];
    row.reached = lower ? row.ratio <= goal : row.ratio >= goal;
  }
  return row;
}

/** The rows of the table. */
export function rowsOf(result: ExperimentResult): Row[] {
  return KINDS.map((kind) => rowOf(result, kind));
}

const number = (value: number | undefined): string =>
  value === undefined ? "" : value >= 100 ? value.toFixed(0) : value.toFixed(1);

/** The table as text. */
export function formatReport(result: ExperimentResult): string {
  const { seconds, rounds, mtu } = result.options;
  const head = ["", "", "eth0", "eth1", "ratio", "spread", "goal", "", "doorbells", "", "interrupts", ""];
  const below = ["", "", "virtio-net", "venet", "", "", "G10", "", "eth0", "eth1", "eth0", "eth1"];
  const rows = rowsOf(result).map((row, i) => [
    row.title,
    row.unit,
    number(row.values.eth0),
    number(row.values.eth1),
    row.ratio === undefined ? "" : `${row.ratio.toFixed(2)} x`,
    row.spread === undefined ? "" : row.spread.map((value) => value.toFixed(2)).join(" … "),
    `${KINDS[i]!.lower ? "≤" : "≥"} ${row.goal}`,
    row.reached === undefined ? "" : row.reached ? "yes" : "no",
    number(row.doorbells.eth0),
    number(row.doorbells.eth1),
    number(row.interrupts.eth0),
    number(row.interrupts.eth1),
  ]);
  const ceiling = ["TCP on lo, the ceiling", "MB/s", number(median(result.lo) / 1e6)];
  const lines = [head, below, ...rows, ceiling].map((row) => head.map((_, column) => row[column] ?? ""));
  const widths = head.map((_, column) => Math.max(...lines.map((line) => line[column]!.length)));
  const text = lines.map((line) =>
    line
      .map((cell, column) => (column < 2 ? cell.padEnd(widths[column]!) : cell.padStart(widths[column]!)))
      .join("  ")
      .trimEnd(),
  );
  text.push(
    "",
    `One guest, MTU ${mtu}, medians over ${rounds} round(s) of ${seconds} s each, cards in turn; spread: ratios of single rounds.`,
    "Doorbells and interrupts per 1000 frames: round trips for ping, full frames' worth of payload for TCP.",
    "Every byte of the TCP streams was verified at the other end, every 60-byte frame counted there.",
  );
  return `${text.join("\n")}\n`;
}
