/** The charts: one for each metric, with a line for each card. */
import uPlot from "uplot";
import { METRICS, type History } from "./history.js";
import { PAGE_CARDS, type PageCard } from "./page-guest.js";

const HEIGHT = 150;
const AXIS_WIDTH = 52;
const AXIS_HEIGHT = 26;

/** A number with three digits at most, and what it is thousands of. */
export function short(value: number): string {
  if (value === 0) return "0";
  if (value < 10) return value.toFixed(value < 1 ? 2 : 1);
  for (const [size, letter] of [
    [1e9, "G"],
    [1e6, "M"],
    [1e3, "k"],
  ] as const) {
    if (value < size) continue;
    const scaled = value / size;
    return `${scaled.toFixed(scaled < 10 ? 1 : 0)}${letter}`;
  }
  return value.toFixed(0);
}

interface Chart {
  plot: uPlot;
  holder: HTMLElement;
  values: Record<PageCard, HTMLElement>;
}

/** All charts of the page. They show the history that they were given last. */
export class Charts {
  #charts: Chart[] = [];
  #history: History | null = null;
  #shown: PageCard[] = [];

  constructor(private readonly container: HTMLElement) {
    this.#build();
    const dark = matchMedia("(prefers-color-scheme: dark)");
    dark.addEventListener("change", () => {
      this.#build();
    });
    new ResizeObserver(() => {
      for (const { plot, holder } of this.#charts) {
        if (holder.clientWidth > 0 && holder.clientWidth !== plot.width)
          plot.setSize({ width: holder.clientWidth, height: HEIGHT });
      }
    }).observe(container);
  }

  /** Shows a history as it is now, with lines for these cards. */
  show(history: History, cards: readonly PageCard[]): void {
    this.#history = history;
    this.#shown = [...cards];
    for (const [i, { plot, values }] of this.#charts.entries()) {
      for (const [series, card] of PAGE_CARDS.entries()) {
        const visible = cards.includes(card);
        if (plot.series[series + 1]!.show !== visible) plot.setSeries(series + 1, { show: visible });
        const latest = history.latest(i, card);
        const value = values[card];
        value.hidden = !visible;
        value.dataset.value = latest === null ? "" : String(latest);
        value.lastElementChild!.textContent = latest === null ? "–" : short(latest);
      }
      plot.setData(history.columns(i));
    }
  }

  /** Colours come from the style sheet, and canvases do not follow it by themselves. */
  #build(): void {
    for (const { plot } of this.#charts) plot.destroy();
    this.container.replaceChildren();
    this.#charts = METRICS.map((metric) => this.#chart(metric));
    if (this.#history !== null) this.show(this.#history, this.#shown);
  }

  #chart({ key, title, unit }: (typeof METRICS)[number]): Chart {
    const style = getComputedStyle(document.documentElement);
    const colour = (name: string): string => style.getPropertyValue(name).trim();
    const figure = document.createElement("figure");
    figure.dataset.metric = key;
    const caption = document.createElement("figcaption");
    const heading = document.createElement("span");
    heading.className = "title";
    heading.textContent = `${title} `;
    const small = document.createElement("small");
    small.textContent = unit;
    heading.append(small);
    const latest = document.createElement("span");
    latest.className = "latest";
    const values = Object.fromEntries(
      PAGE_CARDS.map((card) => [card, latestValue(latest, card)]),
    ) as Chart["values"];
    caption.append(heading, latest);
    const holder = document.createElement("div");
    holder.className = "plot";
    holder.setAttribute("role", "img");
    holder.setAttribute("aria-label", `${title} of the last minute, a line for each card`);
    figure.append(caption, holder);
    this.container.append(figure);
    const axis = { stroke: colour("--quiet"), grid: { stroke: colour("--line"), width: 1 } };
    const plot = new uPlot(
      {
        width: Math.max(200, holder.clientWidth),
        height: HEIGHT,
        legend: { show: false },
        cursor: { show: false },
        scales: {
          x: { time: false },
          y: { range: (_plot, _low, high) => [0, unit === "%" ? 100 : Math.max(1, high * 1.1)] },
        },
        axes: [
          {
            ...axis,
            ticks: { show: false },
            size: AXIS_HEIGHT,
            values: (_plot, ticks) => ticks.map((tick) => `${tick} s`),
          },
          {
            ...axis,
            ticks: { show: false },
            size: AXIS_WIDTH,
            values: (_plot, ticks) => ticks.map((tick) => short(tick)),
          },
        ],
        series: [
          {},
          ...PAGE_CARDS.map((card) => ({
            label: card,
            stroke: colour(`--${card}`),
            width: 2,
            points: { show: false },
          })),
        ],
      },
      [[], ...PAGE_CARDS.map(() => [])],
      holder,
    );
    return { plot, holder, values };
  }
}

function latestValue(parent: HTMLElement, card: PageCard): HTMLElement {
  const entry = document.createElement("span");
  entry.dataset.card = card;
  entry.hidden = true;
  const name = document.createElement("i");
  name.textContent = card;
  entry.append(name, " ", document.createElement("b"));
  parent.append(entry);
  return entry;
}
