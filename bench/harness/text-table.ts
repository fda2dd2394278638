import {
  describeSpread,
  describeTarget,
  describeVerdict,
  GOALS,
  verdictOf,
  type GoalName,
  type Row,
} from "./result.js";

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

/** The rows of one goal as a table for a terminal. */
export function goalTable(goal: GoalName, rows: readonly Row[]): string {
  const lines = [HEAD, ...rows.map(cells)];
  const widths = HEAD.map((_, column) => Math.max(...lines.map((line) => (line[column] as string).length)));
  const text = lines.map((line) =>
    line
      .map((cell, i) => pad(cell, widths[i] as number, i))
      .join("  ")
      .trimEnd(),
  );
  const notes = [...new Set(rows.filter((row) => row.figure === null).map((row) => row.note))].filter(
    (note) => note !== "",
  );
  return [
    `${goal}  ${GOALS[goal]}`,
    ...text.map((line) => `  ${line}`),
    ...notes.map((note) => `  ! ${note}`),
  ].join("\n");
}

function pad(cell: string, width: number, column: number): string {
  return column === 0 || column === 1 || column === HEAD.length - 1
    ? cell.padEnd(width)
    : cell.padStart(width);
}
