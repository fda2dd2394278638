/** Charts as inline SVG. Colours are CSS variables, so that a page in dark or light chooses its own. */
import { escapeHtml } from "../../harness/report.js";
import { figureText } from "../../harness/text-table.js";

/** One line of a chart. */
export interface Series {
  name: string;
  /** CSS colour. */
  colour: string;
  /** Native contestants are dashed: they are yardsticks, not rivals. */
  dashed: boolean;
  points: { x: number; y: number; label: string }[];
}

/** One bar. */
export interface Bar {
  name: string;
  colour: string;
  value: number;
  low: number;
  high: number;
  label: string;
}

const WIDTH = 720;
const HEIGHT = 340;
const LEFT = 58;
const RIGHT = 18;
const TOP = 14;
const BOTTOM = 44;

const place = (value: number): string => value.toFixed(1);

function ticks(from: number, to: number): number[] {
  const found: number[] = [];
  for (let power = Math.floor(Math.log10(from)); power <= Math.ceil(Math.log10(to)); power++) {
    for (const step of [1, 2, 5]) {
      const value = step * 10 ** power;
      if (value >= from && value <= to) found.push(value);
    }
  }
  const decades = found.filter((value) => /^1(0*$|e)/.test(String(value)) || /^0\.0*1$/.test(String(value)));
  return found.length > 8 && decades.length >= 2 ? decades : found;
}

/** Lines over a logarithmic range; both axes are logarithmic, for what is compared are ratios. */
export function lineChart(
  series: readonly Series[],
  axes: { x: string; y: string; xLabels: ReadonlyMap<number, string> },
): string {
  const points = series.flatMap((line) => line.points).filter(({ x, y }) => x > 0 && y > 0);
  if (points.length === 0) return "";
  const xs = points.map(({ x }) => Math.log(x));
  const ys = points.map(({ y }) => Math.log(y));
  const span = (values: number[], pad: number): readonly [number, number] => {
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const more = Math.max((high - low) * pad, 0.05);
    return [low - more, high + more];
  };
  const [x0, x1] = span(xs, 0.03);
  const [y0, y1] = span(ys, 0.06);
  const atX = (x: number): number => LEFT + ((Math.log(x) - x0) / (x1 - x0)) * (WIDTH - LEFT - RIGHT);
  const atY = (y: number): number =>
    HEIGHT - BOTTOM - ((Math.log(y) - y0) / (y1 - y0)) * (HEIGHT - TOP - BOTTOM);
  const grid = ticks(Math.exp(y0), Math.exp(y1))
    .map(
      (y) =>
        `<path class="grid" d="M${LEFT} ${place(atY(y))}H${WIDTH - RIGHT}"/>` +
        `<text class="soft" x="${LEFT - 8}" y="${place(atY(y) + 4)}" text-anchor="end">${figureText(y).replace(/\.0+$/, "")}</text>`,
    )
    .join("");
  const labels = [...axes.xLabels]
    .filter(([x]) => x > 0)
    .map(
      ([x, label]) =>
        `<text class="soft" x="${place(atX(x))}" y="${HEIGHT - BOTTOM + 18}" text-anchor="middle">${escapeHtml(label)}</text>`,
    )
    .join("");
  const lines = series.map((line) => seriesPath(line, atX, atY)).join("");
  return (
    `<svg viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="${escapeHtml(`${axes.y} by ${axes.x}, logarithmic`)}">` +
    `${grid}${labels}<text class="soft" x="${(LEFT + WIDTH - RIGHT) / 2}" y="${HEIGHT - 6}" text-anchor="middle">${escapeHtml(axes.x)}</text>` +
    `${lines}</svg>`
  );
}

function seriesPath(line: Series, atX: (x: number) => number, atY: (y: number) => number): string {
  const at = line.points.filter(({ x, y }) => x > 0 && y > 0);
  if (at.length === 0) return "";
  const path = at.map(({ x, y }, i) => `${i === 0 ? "M" : "L"}${place(atX(x))} ${place(atY(y))}`).join("");
  const dots = at
    .map(
      ({ x, y, label }) =>
        `<circle cx="${place(atX(x))}" cy="${place(atY(y))}" r="3.5" style="fill:${line.colour}"><title>${escapeHtml(`${line.name}: ${label}`)}</title></circle>`,
    )
    .join("");
  const dash = line.dashed ? ` stroke-dasharray="5 4"` : "";
  return `<path class="line" d="${path}" style="stroke:${line.colour}"${dash}/>${dots}`;
}

/** Bars under a common heading. */
export interface BarGroup {
  /** Empty: none is written. */
  title: string;
  bars: readonly Bar[];
}

const BAR_WIDTH = 720;
const NAME_WIDTH = 176;
const LABEL_WIDTH = 150;
const ROW = 22;
const HEADING = 26;
const AXIS = 26;
/** From this ratio of the longest bar to the shortest on, the axis is logarithmic: the short ones would be invisible. */
const WIDE_RANGE = 40;

/** A scale over all bars: from 0, or logarithmic where they differ too much for that. */
function barScale(bars: readonly Bar[]): {
  logarithmic: boolean;
  x: (value: number) => number;
  ticks: number[];
} {
  const values = bars.flatMap(({ value, low, high }) => [value, low, high]).filter((value) => value > 0);
  const most = Math.max(...values);
  const least = Math.min(...bars.map(({ value }) => value));
  const logarithmic = most / least > WIDE_RANGE;
  const room = BAR_WIDTH - NAME_WIDTH - LABEL_WIDTH;
  if (!logarithmic) {
    const rough = most / 4;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = ([1, 2, 5, 10].find((factor) => factor * power >= rough) as number) * power;
    const found: number[] = [];
    for (let i = 0; i * step <= most * 1.001; i++) found.push(i * step);
    return {
      logarithmic,
      x: (value) => NAME_WIDTH + (Math.max(0, value) / most) * room,
      ticks: found,
    };
  }
  const from = Math.log(10 ** Math.floor(Math.log10(Math.min(...values))));
  const to = Math.log(most);
  const x = (value: number): number =>
    NAME_WIDTH + Math.max(0, (Math.log(Math.max(value, 1e-9)) - from) / (to - from)) * room;
  const powers = ticks(Math.exp(from), most).filter((value) => Number.isInteger(Math.log10(value)));
  return { logarithmic, x, ticks: powers };
}

/** Whether {@link barChart} draws them on a logarithmic axis. */
export function barsAreLogarithmic(groups: readonly BarGroup[]): boolean {
  const shown = groups.flatMap(({ bars }) => bars.filter(({ value }) => value > 0));
  return shown.length > 0 && barScale(shown).logarithmic;
}

/** Horizontal bars on one axis, in groups, with the quartiles as a whisker. */
export function barChart(groups: readonly BarGroup[], aria: string): string {
  const shown = groups
    .map(({ title, bars }) => ({ title, bars: bars.filter(({ value }) => value > 0) }))
    .filter(({ bars }) => bars.length > 0);
  if (shown.length === 0) return "";
  const { x, ticks: marks } = barScale(shown.flatMap(({ bars }) => bars));
  let y = 0;
  const parts: string[] = [];
  for (const { title, bars } of shown) {
    if (title !== "") {
      parts.push(`<text class="head" x="0" y="${place(y + HEADING - 8)}">${escapeHtml(title)}</text>`);
      y += HEADING;
    }
    for (const bar of bars) {
      parts.push(barRow(bar, y + ROW / 2, x));
      y += ROW;
    }
    y += 6;
  }
  const grid = marks.map(
    (value) =>
      `<path class="grid" d="M${place(x(value))} 0V${y}"/>` +
      `<text class="soft" x="${place(x(value))}" y="${y + 16}" text-anchor="middle">${figureText(value)
        .replace(/(\.\d*?)0+$/, "$1")
        .replace(/\.$/, "")}</text>`,
  );
  return `<svg viewBox="0 0 ${BAR_WIDTH} ${y + AXIS}" role="img" aria-label="${escapeHtml(aria)}">${grid.join("")}${parts.join("")}</svg>`;
}

function barRow(
  { name, colour, value, low, high, label }: Bar,
  middle: number,
  x: (value: number) => number,
): string {
  return (
    `<text x="${NAME_WIDTH - 8}" y="${place(middle + 4)}" text-anchor="end">${escapeHtml(name)}</text>` +
    `<rect x="${NAME_WIDTH}" y="${place(middle - 6)}" width="${place(Math.max(1, x(value) - NAME_WIDTH))}" height="12" rx="2" style="fill:${colour}"/>` +
    `<path class="whisker" d="M${place(x(low))} ${place(middle)}H${place(x(high))}"/>` +
    `<text class="soft" x="${place(Math.max(x(value), x(high)) + 8)}" y="${place(middle + 4)}">${escapeHtml(label)}</text>`
  );
}
