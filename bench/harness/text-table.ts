import {
  describeSpread,
  describeTarget,
  describeVerdict,
  verdictOf,
  SECTIONS,
  type Row,
  type SectionName,
} from "./result.js";
import { TRAFFIC_TITLE, type TrafficRow } from "./traffic-result.js";

/** A number with three significant digits or so. */
export function figureText(value: number): string {
  if (value === 0) return "0";
  const size = Math.abs(value);
  return value.toFixed(size >= 100 ? 0 : size >= 10 ? 1 : size >= 0.1 ? 2 : 3);
}

/** The judged figure of a row for people: `1.08×`, `0.10 doorbells per 1000`. */
export function judgedText(row: Row): string {
  if (row.figure === null) return "—";
  const text = figureText(row.figure.median);
  return row.figureUnit === "×" ? `${text}×` : `${text} ${row.figureUnit}`;
}

function cells(row: Row): string[] {
  return [
    row.name,
    row.placement ?? "",
    row.ours === null ? "—" : `${figureText(row.ours.median)} ${row.unit}`,
    row.rival === null ? "—" : figureText(row.rival.median),
    judgedText(row),
    describeSpread(row.figure),
    row.atBest === null ? "—" : `${figureText(row.atBest)}×`,
    describeTarget(row.target),
    describeVerdict(verdictOf(row)),
  ];
}

const HEAD = ["", "cores", "ours", "rival", "figure", "spread", "at best", "goal", "verdict"];

/** The rows of one goal or comparison as a table for a terminal. */
export function goalTable(goal: SectionName, rows: readonly Row[]): string {
  const text = aligned([HEAD, ...rows.map(cells)], [0, 1, HEAD.length - 1]);
  const notes = [...new Set(rows.filter((row) => row.figure === null).map((row) => row.note))].filter(
    (note) => note !== "",
  );
  return [
    `${goal}  ${SECTIONS[goal]}`,
    ...text.map((line) => `  ${line}`),
    ...notes.map((note) => `  ! ${note}`),
  ].join("\n");
}

/** Lines with their cells in columns; those of `left` begin at the same place, others end there. */
export function aligned(lines: readonly string[][], left: readonly number[]): string[] {
  const widths = (lines[0] ?? []).map((_, column) =>
    Math.max(...lines.map((line) => (line[column] as string).length)),
  );
  const pad = (cell: string, column: number): string => {
    const width = widths[column] as number;
    return left.includes(column) ? cell.padEnd(width) : cell.padStart(width);
  };
  return lines.map((line) => line.map(pad).join("  ").trimEnd());
}

/** Heads of the columns of {@link trafficCells}; the first and the last hold text. */
export const TRAFFIC_HEAD = [
  "",
  "MTU",
  "1000 frames/s",
  "spread",
  "Gbit/s",
  "spread",
  "signals per 1000",
  "received per sent",
  "on their way",
];

/** One row of the traffic table for people. */
export function trafficCells(row: TrafficRow): string[] {
  return [
    row.name,
    String(row.mtu),
    figureText(row.kiloframes.median),
    describeSpread(row.kiloframes),
    figureText(row.gigabits.median),
    describeSpread(row.gigabits),
    figureText(row.signals.median),
    figureText(row.received.median),
    row.note,
  ];
}

/** The traffic figures as a table for a terminal. */
export function trafficTable(rows: readonly TrafficRow[]): string {
  const text = aligned([TRAFFIC_HEAD, ...rows.map(trafficCells)], [0, TRAFFIC_HEAD.length - 1]);
  return [TRAFFIC_TITLE, ...text.map((line) => `  ${line}`)].join("\n");
}
