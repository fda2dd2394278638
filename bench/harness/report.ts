import type { MachineFacts } from "./machine.js";
import { FAR_ABOVE_NS, NEAR_BELOW_NS } from "./placement.js";
import {
  describeSpread,
  describeTarget,
  describeVerdict,
  isFailed,
  verdictOf,
  SECTIONS,
  type Row,
  type SectionName,
} from "./result.js";
import { figureText, judgedText, TRAFFIC_HEAD, trafficCells } from "./text-table.js";
import { TRAFFIC_TITLE, type TrafficRow } from "./traffic-result.js";

/** One Benchmark.js figure of a single operation. */
export interface OperationResult {
  suite: string;
  name: string;
  /** Nanoseconds of one operation (of one descriptor, frame or call, as the name says). */
  ns: number;
  /** Relative margin of error in percent, as Benchmark.js computes it. */
  margin: number;
  samples: number;
}

/** Everything a run found. It is what the JSON file holds. */
export interface Report {
  /** Version of this format. */
  format: 1;
  /** When the run began, ISO 8601. */
  date: string;
  /** The command line of the run. */
  command: string;
  machine: MachineFacts;
  /** Name and flags of the native compiler, or why there are no native figures. */
  native: string;
  /** Remarks on warm-up and method. */
  method: string[];
  rows: Row[];
  /** Traffic between guests. */
  traffic: TrafficRow[];
  operations: OperationResult[];
  seconds: number;
}

/** How the figures were taken; part of every report. */
export const METHOD: readonly string[] = [
  "Contestants are sampled in turn (A B A B …); a ratio is the median of the ratios of neighbours, its spread half the interquartile range.",
  "“At best” is the ratio of what each contestant reaches in its best tenth. When it differs much from the figure, the machine was busy: run again.",
  "The first samples of each are thrown away: V8 compiles wasm with Liftoff first and replaces it while the loops run. The loops are bounded and return to JavaScript.",
  `Two-thread samples are bracketed by a ping-pong on one cache line and classed near (below ${NEAR_BELOW_NS} ns one way) or far (above ${FAR_ABOVE_NS} ns); others are dropped, and classes are never compared.`,
  "All ring figures contain the notification path: dirty is stored fully ordered after the owner (with negotiated extensions: unless it is still set), then enabled and pending are read. C does the same.",
  "Traffic: host and guests are three threads, placed as the machine likes; no spinning, strict IOQ v4. Time runs from the first send until the receiver has counted every byte of payload; a lost frame is a failure.",
  "Block: the rival is fs/promises at the same depth in a thread of its own, on the same file and blocks. Both leave it to the page cache and share the few threads of libuv.",
  "Absolute times belong to this machine and this hour. Ratios are the message; nothing here passes or fails a test.",
];

const escapes: Record<string, string> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" };

/** Escapes text for HTML content and attribute values. */
export function escapeHtml(text: string): string {
  return text.replace(/[&<>"]/g, (character) => escapes[character] as string);
}

const STYLE = `
:root { color-scheme: light dark; --ink: #1c2126; --soft: #5d6875; --line: #d7dde3; --page: #ffffff; --panel: #f5f7f9;
  --good: #1a7f4b; --bad: #b3401e; --plain: #52708f; --mark: #1c2126; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ec; --soft: #98a4b0; --line: #333c45; --page: #14181c;
  --panel: #1c2227; --good: #4fc487; --bad: #ef8257; --plain: #7fa6cc; --mark: #e4e8ec; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 2rem 1.25rem 4rem; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 .25rem; } h2 { font-size: 1.15rem; margin: 2.5rem 0 .5rem; }
p, li { color: var(--soft); } .sum { color: var(--ink); font-size: 1.05rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .35rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 600; color: var(--soft); font-size: .85rem; } td.n, th.n { text-align: right; white-space: nowrap; }
.reached { color: var(--good); font-weight: 600; } .missed { color: var(--bad); font-weight: 600; }
.note { color: var(--soft); font-size: .85rem; } svg { width: 100%; height: auto; display: block; margin: .75rem 0; }
svg text { font: 12px system-ui, sans-serif; fill: var(--ink); } svg .soft { fill: var(--soft); }
.facts { background: var(--panel); padding: .75rem 1rem; border-radius: .5rem; }
.facts dt { float: left; clear: left; width: 7rem; color: var(--soft); } .facts dd { margin: 0 0 0 7.5rem; }
`;

const CHART_WIDTH = 900;
const LABEL_WIDTH = 330;
const ROW_HEIGHT = 24;
const BAR_HEIGHT = 12;

/** What the chart shows of a row. */
type ChartedRow = Pick<Row, "name" | "placement" | "figure" | "target">;

/**
 * Bars of the judged figures with their interquartile range and the goal as a mark. Figures of one goal may span orders
 * of magnitude, so the scale is logarithmic around the goal.
 */
export function goalChart(rows: readonly ChartedRow[]): string {
  const shown = rows.filter((row) => row.figure !== null && row.figure.median > 0);
  if (shown.length === 0) return "";
  const values = shown.flatMap((row) => [
    row.figure?.low ?? 1,
    row.figure?.high ?? 1,
    row.figure?.median ?? 1,
    ...(row.target === null ? [] : [row.target.value]),
  ]);
  const positive = values.filter((value) => value > 0);
  const from = Math.log(Math.min(...positive) * 0.7);
  const to = Math.log(Math.max(...positive) * 1.15);
  const span = CHART_WIDTH - LABEL_WIDTH - 90;
  const x = (value: number): number => {
    const at = (Math.log(Math.max(value, 1e-9)) - from) / (to - from);
    return LABEL_WIDTH + Math.min(1, Math.max(0, at)) * span;
  };
  const height = shown.length * ROW_HEIGHT + 8;
  const bars = shown.map((row, i) => chartRow(row, i * ROW_HEIGHT + 4, x)).join("");
  return `<svg viewBox="0 0 ${CHART_WIDTH} ${height}" role="img" aria-label="Figures of this table, logarithmic scale">${bars}</svg>`;
}

function chartRow(row: ChartedRow, top: number, x: (value: number) => number): string {
  const { figure, target } = row;
  if (figure === null) return "";
  const verdict = verdictOf(row).kind;
  const colour = verdict === "reached" ? "--good" : verdict === "missed" ? "--bad" : "--plain";
  const middle = top + ROW_HEIGHT / 2;
  const label = row.placement === null ? row.name : `${row.name} (${row.placement})`;
  const number = (value: number): string => value.toFixed(1);
  const end = x(figure.median);
  const whisker = `M${number(x(figure.low))} ${number(middle)}H${number(x(figure.high))}`;
  const goal =
    target === null
      ? ""
      : `<path d="M${number(x(target.value))} ${number(top + 2)}v${ROW_HEIGHT - 4}" stroke="var(--mark)" stroke-width="2"/>`;
  return (
    `<text x="${LABEL_WIDTH - 8}" y="${number(middle + 4)}" text-anchor="end">${escapeHtml(label)}</text>` +
    `<rect x="${LABEL_WIDTH}" y="${number(middle - BAR_HEIGHT / 2)}" width="${number(Math.max(1, end - LABEL_WIDTH))}" height="${BAR_HEIGHT}" rx="2" fill="var(${colour})"/>` +
    `<path d="${whisker}" stroke="var(--ink)" stroke-width="1.5"/>${goal}` +
    `<text class="soft" x="${number(Math.max(end, x(figure.high)) + 8)}" y="${number(middle + 4)}">${escapeHtml(figureText(figure.median))}</text>`
  );
}

function tableRow(row: Row): string {
  const verdict = verdictOf(row);
  const summary = (value: Row["ours"], unit: string): string =>
    value === null ? "—" : escapeHtml(`${figureText(value.median)} ${unit}`);
  return (
    `<tr><td>${escapeHtml(row.name)}${row.note === "" ? "" : `<div class="note">${escapeHtml(row.note)}</div>`}</td>` +
    `<td>${row.placement ?? ""}</td><td class="n">${summary(row.ours, row.unit)}</td>` +
    `<td class="n">${summary(row.rival, row.unit)}</td><td class="n">${escapeHtml(judgedText(row))}</td>` +
    `<td class="n">${escapeHtml(describeSpread(row.figure))}</td>` +
    `<td class="n">${row.atBest === null ? "—" : `${figureText(row.atBest)}×`}</td><td class="n">${escapeHtml(describeTarget(row.target))}</td>` +
    `<td class="${verdict.kind}">${escapeHtml(describeVerdict(verdict))}</td></tr>`
  );
}

function goalSection(goal: SectionName, rows: readonly Row[]): string {
  return (
    `<section><h2>${goal} · ${escapeHtml(SECTIONS[goal])}</h2>${goalChart(rows)}` +
    `<div class="wide"><table><thead><tr><th>what</th><th>cores</th><th class="n">ours</th><th class="n">rival</th>` +
    `<th class="n">figure</th><th class="n">spread</th><th class="n">at best</th><th class="n">goal</th><th>verdict</th></tr></thead>` +
    `<tbody>${rows.map(tableRow).join("")}</tbody></table></div></section>`
  );
}

function trafficSection(rows: readonly TrafficRow[]): string {
  if (rows.length === 0) return "";
  const chart = goalChart(
    rows.map(({ name, gigabits }) => ({ name, placement: null, figure: gigabits, target: null })),
  );
  const last = TRAFFIC_HEAD.length - 1;
  const line = (cells: readonly string[], element: "th" | "td"): string =>
    `<tr>${cells
      .map((cell, i) => {
        const kind = i === 0 || i === last ? "" : ' class="n"';
        return `<${element}${kind}>${escapeHtml(cell)}</${element}>`;
      })
      .join("")}</tr>`;
  return (
    `<section><h2>devices · ${escapeHtml(TRAFFIC_TITLE)}</h2>` +
    `<p>Gbit/s of the frames as they are sent; signals are the doorbells and interrupts of both rings on the way.</p>${chart}` +
    `<div class="wide"><table><thead>${line(TRAFFIC_HEAD, "th")}</thead>` +
    `<tbody>${rows.map((row) => line(trafficCells(row), "td")).join("")}</tbody></table></div></section>`
  );
}

function operationsSection(operations: readonly OperationResult[]): string {
  if (operations.length === 0) return "";
  const suites = [...new Set(operations.map((operation) => operation.suite))];
  const tables = suites.map((suite) => {
    const rows = operations
      .filter((operation) => operation.suite === suite)
      .map(
        ({ name, ns, margin, samples }) =>
          `<tr><td>${escapeHtml(name)}</td><td class="n">${figureText(ns)} ns</td><td class="n">±${margin.toFixed(1)}%</td><td class="n">${samples}</td></tr>`,
      );
    return (
      `<h2>${escapeHtml(suite)}</h2><div class="wide"><table><thead><tr><th>operation</th><th class="n">time</th>` +
      `<th class="n">margin</th><th class="n">samples</th></tr></thead><tbody>${rows.join("")}</tbody></table></div>`
    );
  });
  return `<section><h2>Single operations, one thread (Benchmark.js)</h2>${tables.join("")}</section>`;
}

/** One sentence about how many goals were reached. */
export function summarySentence(rows: readonly Row[]): string {
  const verdicts = rows.map((row) => verdictOf(row).kind);
  const count = (kind: string): number => verdicts.filter((verdict) => verdict === kind).length;
  const unmeasured = rows.filter(
    (row) => row.figure === null && (row.target !== null || isFailed(row)),
  ).length;
  const parts = [`${count("reached")} figures reach their goal`, `${count("missed")} miss it`];
  if (unmeasured > 0) parts.push(`${unmeasured} could not be measured`);
  return `${parts.join(", ")}.`;
}

/** The whole report as one HTML page that needs nothing else. */
export function reportHtml(report: Report): string {
  const { machine } = report;
  const facts: [string, string][] = [
    ["processor", `${machine.cpu}, ${machine.cores} cores`],
    ["caches", machine.caches],
    ["memory", machine.memory],
    ["system", machine.system],
    ["Node", `${machine.node}, V8 ${machine.v8}`],
    ["native", report.native],
    ["load", machine.load],
    ["command", report.command],
    ["date", report.date],
    ["took", `${report.seconds.toFixed(0)} s`],
  ];
  const sections = (Object.keys(SECTIONS) as SectionName[]).filter((goal) =>
    report.rows.some((row) => row.goal === goal),
  );
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>vbus benchmarks</title>
<style>${STYLE}</style>
</head>
<body>
<h1>vbus benchmarks</h1>
<p class="sum">${escapeHtml(summarySentence(report.rows))}</p>
<dl class="facts">${facts.map(([name, value]) => `<dt>${name}</dt><dd>${escapeHtml(value)}</dd>`).join("")}</dl>
<ul>${report.method.map((line) => `<li>${escapeHtml(line)}</li>`).join("")}</ul>
${trafficSection(report.traffic)}
${sections
  .map((goal) =>
    goalSection(
      goal,
      report.rows.filter((row) => row.goal === goal),
    ),
  )
  .join("\n")}
${operationsSection(report.operations)}
</body>
</html>
`;
}
