/** What charts are drawn from: readings, twice a second, turned into rates, for the last minute. */
import { PAGE_CARDS, type PageCard } from "./page-guest.js";
import type { Reading } from "./readings.js";

/** One chart. */
export interface Metric {
  readonly key: string;
  readonly title: string;
  readonly unit: string;
  /** Its value, from two readings that are `seconds` apart. */
  readonly value: (now: Reading, before: Reading, seconds: number) => number | null;
}

type Sum = "frames" | "bits" | "doorbells" | "suppressed" | "interrupts" | "drops";

const rate =
  (of: Sum): Metric["value"] =>
  (now, before, seconds) =>
    // a restored guest has counted less
    Math.max(0, now[of] - before[of]) / seconds;

/** All charts, in the order in which they are shown. */
export const METRICS: readonly Metric[] = [
  { key: "frames", title: "Frames", unit: "/s", value: rate("frames") },
  { key: "bits", title: "Bits", unit: "bit/s", value: rate("bits") },
  { key: "doorbells", title: "Doorbells", unit: "/s", value: rate("doorbells") },
  { key: "suppressed", title: "Suppressed notifications", unit: "/s", value: rate("suppressed") },
  { key: "interrupts", title: "Interrupts", unit: "/s", value: rate("interrupts") },
  { key: "drops", title: "Dropped frames", unit: "/s", value: rate("drops") },
  { key: "tx", title: "Transmit ring in use", unit: "%", value: ({ tx }) => (tx === null ? null : tx * 100) },
  {
    key: "rx",
    title: "Receive buffers ready",
    unit: "%",
    value: ({ rx }) => (rx === null ? null : rx * 100),
  },
];

/** How often readings are taken, in ms. */
export const INTERVAL_MS = 500;
const LENGTH = 121;

/** Columns of numbers as uPlot wants them: seconds, then one for each card. */
export type Columns = [number[], ...(number | null)[][]];

/** The last minute of one guest. */
export class History {
  readonly #times: number[] = [];
  readonly #values: Record<PageCard, (number | null)[]>[] = METRICS.map(() => perCard(() => []));
  #last: { at: number; readings: Record<PageCard, Reading | null> } | null = null;
  readonly #began = performance.now();

  /** Takes readings of this moment. The first ones are only what the next ones are compared with. */
  add(readings: Record<PageCard, Reading | null>): void {
    const at = performance.now();
    const last = this.#last;
    this.#last = { at, readings };
    if (last === null) return;
    const seconds = (at - last.at) / 1000;
    this.#times.push((at - this.#began) / 1000);
    for (const [i, metric] of METRICS.entries()) {
      for (const card of PAGE_CARDS) {
        const [now, before] = [readings[card], last.readings[card]];
        const known = now !== null && before !== null;
        this.#values[i]![card].push(known ? metric.value(now, before, seconds) : null);
      }
    }
    if (this.#times.length <= LENGTH) return;
    this.#times.shift();
    for (const metric of this.#values) for (const card of PAGE_CARDS) metric[card].shift();
  }

  /** The columns of a chart, by its place in {@link METRICS}. */
  columns(metric: number): Columns {
    return [this.#times, ...PAGE_CARDS.map((card) => this.#values[metric]![card])];
  }

  /** The newest value of a card in a chart; null when there is none. */
  latest(metric: number, card: PageCard): number | null {
    return this.#values[metric]![card].at(-1) ?? null;
  }
}

function perCard<T>(make: () => T): Record<PageCard, T> {
  return { eth0: make(), eth1: make(), eth2: make(), eth3: make() };
}
