/** The shoot-out as one page that needs nothing else: no script, no network. */
import { escapeHtml } from "../../harness/report.js";
import { describeSpread, describeTarget, describeVerdict, verdictOf } from "../../harness/result.js";
import { figureText } from "../../harness/text-table.js";
import { SHOOTOUT_GOALS } from "../goals.js";
import {
  EXTRAS,
  PARTS,
  type CoreClass,
  type GoalResult,
  type PartName,
  type Setting,
  type Shootout,
  type Study,
} from "../model.js";
import { barChart, barsAreLogarithmic, lineChart, type BarGroup, type Series } from "./charts.js";
import { headlines } from "./headlines.js";
import { extrasOf, nameOf, spreadOf, studyLines, takingPart, whyUnmeasured } from "./text.js";

const STYLE = `
:root { color-scheme: light dark; --ink: #1b2026; --soft: #59636e; --line: #dbe0e6; --page: #fff; --panel: #f5f7f9;
  --good: #17774a; --bad: #ad3a17; --c0: #1f6fd0; --c1: #12a0a8; --c2: #7a55d6; --c3: #8a94a0; --c4: #d9730d; --c5: #b98a00;
  --c6: #cc2f62; --c7: #a0457f; --c8: #2f8f3a; --c9: #7d5a3c; --c10: #4b5560; }
@media (prefers-color-scheme: dark) { :root { --ink: #e5e9ed; --soft: #9aa6b2; --line: #323b44; --page: #13171b; --panel: #1b2127;
  --good: #53c98a; --bad: #f08a5f; --c0: #62a8ff; --c1: #43cfd6; --c2: #b196ff; --c3: #8d98a5; --c4: #ffa04d; --c5: #e6bd3f;
  --c6: #ff7ba1; --c7: #e08fc4; --c8: #6ccf77; --c9: #c79c78; --c10: #b4bec9; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1.5rem 1rem 4rem; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, sans-serif; }
h1 { font-size: 1.7rem; margin: 0; } h2 { font-size: 1.3rem; margin: 3rem 0 .5rem; } h3 { font-size: 1.05rem; margin: 2rem 0 .25rem; }
p { margin: .4rem 0; max-width: 56rem; } .soft, p.about, summary, li { color: var(--soft); } .lead { font-size: 1.05rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; min-width: 100%; }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--soft); font-weight: 600; } td.what { min-width: 15rem; } td.n, th.n { text-align: right; white-space: nowrap; } td small { color: var(--soft); }
.short li { color: var(--ink); margin: .2rem 0; }
.reached { color: var(--good); font-weight: 600; } .missed, .failed { color: var(--bad); font-weight: 600; }
svg { width: 100%; max-width: 56rem; height: auto; display: block; margin: .5rem 0; }
svg text { font: 12px system-ui, sans-serif; fill: var(--ink); } svg .soft { fill: var(--soft); } svg .head { font-weight: 600; }
.grid { stroke: var(--line); } .line { fill: none; stroke-width: 2; } .whisker { stroke: var(--ink); stroke-width: 1.5; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1rem; padding: 0; margin: .25rem 0; list-style: none; font-size: .85rem; }
.legend i { display: inline-block; width: 1.4rem; border-top: 3px solid; margin-right: .4rem; vertical-align: .25em; }
.legend i.dashed { border-top-style: dashed; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; background: var(--panel); padding: .75rem 1rem; border-radius: .5rem; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; } details { margin: .4rem 0; } summary { cursor: pointer; }
@media (max-width: 40rem) { body { font-size: 15px; } dl { grid-template-columns: 1fr; } dd { margin-bottom: .4rem; } td.what { min-width: 8rem; }
  .wide svg { min-width: 38rem; } }
`;

/** Colours of contestants by id; native ones have that of the one that they are the yardstick of. */
const COLOURS: Record<string, string> = {
  ioq: "c0",
  "ioq-lazy": "c1",
  "ioq-compact": "c2",
  "ioq-2009": "c3",
  split: "c4",
  "split-in-order": "c5",
  packed: "c6",
  "packed-in-order": "c7",
  spsc: "c8",
  ringbuf: "c9",
  messages: "c10",
  "c-ioq": "c0",
  "c-ioq-lazy": "c1",
  "c-ioq-2009": "c3",
  "c-split": "c4",
  "c-packed": "c6",
  "c-ring": "c8",
  "c-virtio09": "c5",
  venet: "c0",
  "virtio-split": "c4",
  "virtio-packed": "c6",
  "venet-linux": "c0",
  "v86-virtio": "c9",
  "vbus-virtio": "c4",
};

const colourOf = (id: string): string => `var(--${COLOURS[id] ?? "c10"})`;
const isNative = (report: Shootout, id: string): boolean =>
  report.contestants.find((one) => one.id === id)?.runs === "native";

function legend(report: Shootout, ids: readonly string[]): string {
  const items = ids.map(
    (id) =>
      `<li><i${isNative(report, id) ? ' class="dashed"' : ""} style="border-color:${colourOf(id)}"></i>${escapeHtml(nameOf(report, id))}</li>`,
  );
  return `<ul class="legend">${items.join("")}</ul>`;
}

/** Ids of those who are everywhere so many times worse than the best that they would flatten a chart for all others. */
function offChart(study: Study, settings: readonly Setting[], ids: readonly string[]): string[] {
  if (!study.lower) return [];
  const among = settings.map(({ cells }) => cells.filter(({ contestant }) => ids.includes(contestant)));
  return ids.filter((id) => {
    const ratios = among.flatMap((cells) => {
      const own = cells.find(({ contestant }) => contestant === id)?.value.median;
      const best = Math.min(...cells.map(({ value }) => value.median));
      return own === undefined ? [] : [own / best];
    });
    return ratios.length > 0 && ratios.every((ratio) => ratio > OFF_CHART);
  });
}

/** Says where those are who are not on a chart. */
function offText(report: Shootout, settings: readonly Setting[], off: readonly string[]): string {
  return off
    .map((id) => {
      const found = settings.flatMap(({ cells }) =>
        cells.filter(({ contestant }) => contestant === id).map(({ value }) => value.median),
      );
      const [least, most] = [Math.min(...found), Math.max(...found)].map(figureText);
      const range = least === most ? least : `${least} to ${most}`;
      return `<p class="soft">${escapeHtml(`${nameOf(report, id)} is off the chart: ${range}.`)}</p>`;
    })
    .join("");
}

const better = ({ lower }: Study): string => (lower ? "shorter is better" : "longer is better");

/** Bars of all settings of one class, on one axis. */
function bars(report: Shootout, study: Study, placement: CoreClass | null, ids: readonly string[]): string {
  const settings = study.settings.filter((setting) => setting.placement === placement);
  const off = offChart(study, settings, ids);
  const shown = ids.filter((id) => !off.includes(id));
  const groups = settings.map(({ name, cells }): BarGroup => ({
    title: settings.length === 1 ? "" : name,
    bars: shown.flatMap((id) => {
      const cell = cells.find(({ contestant }) => contestant === id);
      if (cell === undefined) return [];
      const { median, low, high } = cell.value;
      const ratio = cell.ratio === null ? "" : `, ${figureText(cell.ratio.median)}×`;
      const label = `${figureText(median)}${ratio}`;
      return [{ name: nameOf(report, id), colour: colourOf(id), value: median, low, high, label }];
    }),
  }));
  const chart = barChart(groups, `${study.title}, ${study.unit}`);
  if (chart === "") return "";
  const cores = placement === null ? "" : `, ${placement} cores`;
  const axis = barsAreLogarithmic(groups) ? ", the axis is logarithmic" : "";
  const against = `×: times as good as ${nameOf(report, study.reference)}`;
  return `<p class="soft">${escapeHtml(`${study.unit}${cores}; ${better(study)}${axis}; ${against}`)}</p><div class="wide">${chart}</div>${offText(report, settings, off)}`;
}

/** A line chart for ranges, bars where there is just one setting or the settings are no range. */
function charts(report: Shootout, study: Study): string {
  const ids = takingPart(report, study);
  const unmeasured = whyUnmeasured(report, study);
  if (unmeasured !== null) return `<p class="missed">Not measured: ${escapeHtml(unmeasured)}</p>`;
  const isRange = new Set(study.settings.map(({ at }) => at)).size > 2 && study.axis !== "setting";
  const placements = [...new Set(study.settings.map(({ placement }) => placement))];
  if (!isRange) return placements.map((placement) => bars(report, study, placement, ids)).join("");
  const native = ids.filter((id) => isNative(report, id));
  const managed = ids.filter((id) => !isNative(report, id));
  const yardsticks = managed.filter((id) => YARDSTICKS.includes(id));
  return placements
    .flatMap((placement) => [
      lines(report, study, placement, managed, ""),
      native.length === 0
        ? ""
        : lines(
            report,
            study,
            placement,
            [...yardsticks, ...native],
            "native loops (dashed) beside ours in wasm; ",
          ),
    ])
    .join("");
}

/** Contestants in wasm that native ones are shown with. */
const YARDSTICKS = ["ioq", "split"];
/** So many times worse than the best, everywhere: see {@link offChart}. */
const OFF_CHART = 12;

/** Lines of some contestants over a range, on cores of one class. */
function lines(
  report: Shootout,
  study: Study,
  placement: CoreClass | null,
  ids: readonly string[],
  what: string,
): string {
  const settings = study.settings.filter((setting) => setting.placement === placement);
  const pointsOf = (id: string): Series["points"] =>
    settings.flatMap(({ at, name, cells }) => {
      const cell = cells.find(({ contestant }) => contestant === id);
      if (cell === undefined) return [];
      const y = cell.value.median;
      return [{ x: at, y, label: `${name}: ${figureText(y)} ${study.unit}` }];
    });
  const off = offChart(study, settings, ids);
  const shown = ids
    .filter((id) => !off.includes(id))
    .map((id) => ({ id, points: pointsOf(id) }))
    .filter(({ points }) => points.length > 0);
  const series = shown.map(({ id, points }) => ({
    name: nameOf(report, id),
    colour: colourOf(id),
    dashed: isNative(report, id),
    points,
  }));
  const xLabels = new Map(settings.map(({ at }) => [at, String(at)]));
  const chart = lineChart(series, { x: study.axis, y: study.unit, xLabels });
  if (chart === "") return "";
  const cores = placement === null ? "" : `, ${placement} cores`;
  const better = study.lower ? "lower is better" : "higher is better";
  return (
    `<p class="soft">${escapeHtml(`${what}${study.unit}${cores}; ${better}, both axes logarithmic`)}</p>` +
    `${legend(
      report,
      shown.map(({ id }) => id),
    )}<div class="wide">${chart}</div>${offText(report, settings, off)}`
  );
}

function cellText(study: Study, { cells }: Setting, id: string): string {
  const cell = cells.find(({ contestant }) => contestant === id);
  if (cell === undefined) return "—";
  const ratio = cell.ratio === null || id === study.reference ? "" : `, ${figureText(cell.ratio.median)}×`;
  return `${figureText(cell.value.median)} <small>${escapeHtml(describeSpread(cell.value))}${ratio}</small>`;
}

function studyTables(report: Shootout, study: Study): string {
  const table = (title: string, cell: (setting: Setting, id: string) => string): string => {
    const [head = [], ...lines] = studyLines(report, study, cell);
    const row = (line: readonly string[]): string =>
      `<tr><td class="what">${escapeHtml(line[0] ?? "")}</td>${line
        .slice(1)
        .map((text) => `<td class="n">${text}</td>`)
        .join("")}</tr>`;
    const heads = head.slice(1).map((text) => `<th class="n">${escapeHtml(text)}</th>`);
    return `<div class="wide"><table><thead><tr><th>${escapeHtml(title)}</th>${heads.join("")}</tr></thead><tbody>${lines.map(row).join("")}</tbody></table></div>`;
  };
  const extras = extrasOf(study).map((name) =>
    table(`${EXTRAS[name].title}, ${EXTRAS[name].unit}`, ({ cells }, id) => {
      const value = cells.find(({ contestant }) => contestant === id)?.extras[name];
      return value === undefined
        ? "—"
        : `${figureText(value.median)} <small>${escapeHtml(spreadOf(value))}</small>`;
    }),
  );
  const reference = nameOf(report, study.reference);
  return (
    `<details><summary>All figures</summary><p class="soft">Median, spread (half the interquartile range), and how many times as good as ${escapeHtml(reference)}.</p>` +
    `${table(study.unit, (setting, id) => cellText(study, setting, id))}${extras.join("")}${absences(report, study)}</details>`
  );
}

function absences(report: Shootout, study: Study): string {
  const lines = study.settings.flatMap(({ absent }) =>
    absent.map(
      ({ contestant, reason, failed }) =>
        `<li${failed ? ' class="failed"' : ""}>${escapeHtml(`${nameOf(report, contestant)}: ${failed ? "failed: " : ""}${reason}`)}</li>`,
    ),
  );
  const shown = [...new Set(lines)];
  return shown.length === 0
    ? ""
    : `<p class="soft">Not in this study, or not in all of it:</p><ul>${shown.join("")}</ul>`;
}

function partSection(report: Shootout, part: PartName): string {
  const studies = report.studies.filter((study) => study.part === part);
  const absence = report.absent.find((one) => one.part === part);
  if (studies.length === 0 && absence === undefined) return "";
  const missing =
    absence === undefined
      ? ""
      : `<p${absence.failed ? ' class="failed"' : ""}>${absence.failed ? "Failed" : "Not run here"}: ${escapeHtml(absence.reason)}</p>`;
  const sections = studies.map(
    (study) =>
      `<section id="${escapeHtml(study.id)}"><h3>${escapeHtml(study.title)}</h3><p class="about">${escapeHtml(study.about)}</p>` +
      `${charts(report, study)}${studyTables(report, study)}</section>`,
  );
  return `<h2>${escapeHtml(PARTS[part])}</h2>${missing}${sections.join("")}`;
}

function goalsTable(goals: readonly GoalResult[]): string {
  const rows = goals.map(({ goal, name, placement, figure, target, note }) => {
    const verdict = verdictOf({ figure, target });
    return (
      `<tr><td>${escapeHtml(goal)}</td><td class="what">${escapeHtml(name)}<br><small>${escapeHtml(note)}</small></td><td>${placement ?? ""}</td>` +
      `<td class="n">${figure === null ? "—" : `${figureText(figure.median)}×`}</td><td class="n">${escapeHtml(describeSpread(figure))}</td>` +
      `<td class="n">${escapeHtml(describeTarget(target))}</td><td class="${verdict.kind}">${escapeHtml(describeVerdict(verdict))}</td></tr>`
    );
  });
  return (
    `<div class="wide"><table><thead><tr><th>goal</th><th>what</th><th>cores</th><th class="n">found</th><th class="n">spread</th>` +
    `<th class="n">wanted</th><th>verdict</th></tr></thead><tbody>${rows.join("")}</tbody></table></div>`
  );
}

function goalsSection(report: Shootout): string {
  if (report.goals.length === 0) return "";
  const meanings = (Object.keys(SHOOTOUT_GOALS) as (keyof typeof SHOOTOUT_GOALS)[])
    .filter((goal) => report.goals.some((one) => one.goal === goal))
    .map((goal) => `<li>${goal}: ${escapeHtml(SHOOTOUT_GOALS[goal])}</li>`);
  const judged = report.goals.filter(({ target }) => target !== null);
  const shown = report.goals.filter(({ target }) => target === null);
  const others =
    shown.length === 0
      ? ""
      : `<details><summary>Comparisons without a goal</summary>${goalsTable(shown)}</details>`;
  return `<h2>The goals, as found</h2><ul>${meanings.join("")}</ul>${goalsTable(judged)}${others}`;
}

/** How many goals were reached, in a sentence. */
export function goalsSentence(report: Shootout): string {
  const verdicts = report.goals.map((goal) => verdictOf(goal).kind);
  const judged = report.goals.filter(({ target }) => target !== null);
  const count = (kind: string): number => verdicts.filter((verdict) => verdict === kind).length;
  const parts = [`${count("reached")} figures reach their goal`, `${count("missed")} miss it`];
  const unmeasured = count("not measured");
  const asked = judged.filter(({ figure }) => figure === null).length;
  if (unmeasured > 0) parts.push(`${unmeasured} could not be measured (${asked} of them have a goal)`);
  return `${parts.join(", ")}.`;
}

/** What is needed to read the rest. */
const WORDS: readonly (readonly [string, string])[] = [
  [
    "ring",
    "A list in memory that two sides share: one side writes what it has, the other takes it. An entry is a descriptor: where a buffer lies, and how long it is.",
  ],
  [
    "burst",
    "So many descriptors handed over at once. What each hand-over costs is paid once for all of them.",
  ],
  [
    "doorbell, interrupt",
    "How one side wakes the other when it may be asleep: a guest rings a doorbell, a host raises an interrupt. Each costs a thousand times what a descriptor costs, so rings say whether the other side wants any.",
  ],
  [
    "near, far",
    "How long a piece of memory takes from one processor core to the other. The hypervisor that this machine runs under decides, and changes its mind; figures are kept apart by it.",
  ],
  [
    "offloads",
    "Work on network frames that one side leaves to the other: a checksum that nobody computes as long as the frame stays in memory; a superframe of up to 64 KiB that is cut into ordinary frames only where somebody needs those (TSO for TCP, USO for UDP), and made of ordinary frames where they arrive; buffers that may be combined for a frame (mergeable buffers of virtio, L4RO of venet).",
  ],
  ["±", "Half the range that the middle half of all samples lies in, in percent of the median."],
];

/** The page. */
export function shootoutPage(report: Shootout): string {
  const { machine } = report;
  const facts: [string, string][] = [
    ["processor", `${machine.cpu}, ${machine.cores} cores (${machine.caches})`],
    ["system", machine.system],
    ["Node", `${machine.node}, V8 ${machine.v8}`],
    ["native", report.native],
    ["load", `${machine.load} when it began`],
    ["command", report.command],
    ["date", report.date],
    ["took", `${report.seconds.toFixed(0)} s`],
  ];
  const contestants = report.contestants.map(
    ({ name, about, runs }) =>
      `<tr><td>${escapeHtml(name)}</td><td>${escapeHtml(runs)}</td><td>${escapeHtml(about)}</td></tr>`,
  );
  const parts = (Object.keys(PARTS) as PartName[]).map((part) => partSection(report, part));
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>vbus shoot-out</title>
<style>${STYLE}</style>
</head>
<body>
<h1>vbus shoot-out</h1>
<p class="lead">How fast do virtual machines in JavaScript exchange buffers with the world outside, and by which ring? IOQ (the ring of the
virtual-bus of 2009), virtio's two rings and what else there is, under the same conditions. ${escapeHtml(goalsSentence(report))}</p>
<h2>In short</h2>
<ul class="short">${headlines(report)
    .map((line) => `<li>${escapeHtml(line)}</li>`)
    .join("")}</ul>
<h2>Words</h2>
<dl>${WORDS.map(([word, meaning]) => `<dt>${word}</dt><dd>${escapeHtml(meaning)}</dd>`).join("")}</dl>
<h2>The machine</h2>
<dl>${facts.map(([name, value]) => `<dt>${name}</dt><dd>${escapeHtml(value)}</dd>`).join("")}</dl>
<details><summary>How it was measured</summary><ul>${report.method.map((line) => `<li>${escapeHtml(line)}</li>`).join("")}</ul></details>
<details><summary>Who takes part</summary><div class="wide"><table><tbody>${contestants.join("")}</tbody></table></div></details>
${goalsSection(report)}
${parts.join("\n")}
</body>
</html>
`;
}
