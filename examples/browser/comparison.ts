/** The experiment of `npm run guest` in the page, and its table. */
import { CARD_NAMES } from "../linux/cards.js";
import { KINDS, runExperiment, type ExperimentOptions, type ExperimentResult } from "../linux/experiment.js";
import { median, rowsOf } from "../linux/report.js";
import type { PageGuest } from "./page-guest.js";

/** Its user wants it to end: thrown out of the experiment. */
class Stopped extends Error {}

/** Runs one experiment at a time: the stations behind the cards serve one. */
export class Comparison {
  #stopping = false;
  #running = false;

  /** True while one runs. */
  get running(): boolean {
    return this.#running;
  }

  /** Ends it after the measurement that is under way. */
  stop(): void {
    this.#stopping = true;
  }

  /**
   * Runs it.
   * @returns null when it was stopped
   * @throws Error for whatever did not arrive as it was sent
   */
  async run(
    guest: PageGuest,
    options: ExperimentOptions,
    progress: (message: string) => void,
  ): Promise<ExperimentResult | null> {
    this.#running = true;
    this.#stopping = false;
    try {
      return await runExperiment({ machine: guest, cards: guest.cards }, options, (message) => {
        progress(message);
        if (this.#stopping) throw new Stopped();
      });
    } catch (error) {
      if (error instanceof Stopped) return null;
      throw error;
    } finally {
      this.#running = false;
    }
  }
}

const number = (value: number | undefined): string =>
  value === undefined ? "" : value >= 100 ? value.toFixed(0) : value.toFixed(1);

type Cell = string | { text: string; title: string; state: "good" | "bad" };

/** Writes the result into a table: cards side by side, and how they compare. */
export function showComparison(table: HTMLTableElement, result: ExperimentResult): void {
  const rows = rowsOf(result);
  table.replaceChildren();
  const head = table.createTHead();
  addRow(head, "th", ["", ...CARD_NAMES, "eth1 : eth0", "eth2 : eth0"]);
  addRow(head, "th", ["", "virtio-net", "venet", "our virtio", "", ""]);
  const body = table.createTBody();
  for (const [i, row] of rows.entries()) {
    const { lower } = KINDS[i]!;
    const ratio = (name: "eth1" | "eth2"): Cell => {
      const comparison = row.comparisons[name];
      if (comparison === undefined) return "";
      const { ratio: value, spread } = comparison;
      return {
        text: `${value.toFixed(2)} ×`,
        title: `single rounds: ${spread.map((value) => value.toFixed(2)).join(" … ")}`,
        state: value < 1 === lower ? "good" : "bad",
      };
    };
    addRow(body, "td", [
      `${row.title}, ${row.unit}`,
      ...CARD_NAMES.map((name) => number(row.values[name])),
      ratio("eth1"),
      ratio("eth2"),
    ]);
  }
  addRow(body, "td", ["TCP on lo, the ceiling, MB/s", number(median(result.lo) / 1e6), "", "", "", ""]);
  for (const what of ["doorbells", "interrupts"] as const) {
    const section = table.createTBody();
    addRow(section, "th", [`${what} per 1000 frames`, ...CARD_NAMES.map(() => ""), "", ""]);
    for (const row of rows)
      addRow(section, "td", [row.title, ...CARD_NAMES.map((name) => number(row[what][name])), "", ""]);
  }
}

function addRow(section: HTMLTableSectionElement, tag: "th" | "td", cells: readonly Cell[]): void {
  const row = section.insertRow();
  for (const [i, cell] of cells.entries()) {
    const element = document.createElement(i === 0 && cell !== "" ? "th" : tag);
    if (element.tagName === "TH") element.scope = tag === "td" ? "row" : i === 0 ? "rowgroup" : "col";
    if (typeof cell === "string") element.textContent = cell;
    else {
      element.textContent = cell.text;
      element.title = cell.title;
      element.className = cell.state;
    }
    row.append(element);
  }
}
