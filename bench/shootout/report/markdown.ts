/** The figures of a report as Markdown: the tables of `docs/shootout.md`, from a result that was written before. */
import {
  describeSpread,
  describeTarget,
  describeVerdict,
  verdictOf,
  type Target,
} from "../../harness/result.js";
import { figureText } from "../../harness/text-table.js";
import {
  EXTRAS,
  PARTS,
  type Cell,
  type CoreClass,
  type ExtraName,
  type PartName,
  type Setting,
  type Shootout,
  type Study,
} from "../model.js";
import { extrasOf, nameOf, spreadOf, takingPart, whyUnmeasured } from "./text.js";

const NONE = "–";

/** A table; what belongs to a column of numbers is right-aligned. */
function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]): string =>
    `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`;
  const rule = `|---|${head
    .slice(1)
    .map(() => "--:|")
    .join("")}`;
  return [line(head), rule, ...rows.map(line)].join("\n");
}

const valueOf = ({ value }: Cell): string => `${figureText(value.median)} ${describeSpread(value)}`;

function extraText(cell: Cell | undefined, name: ExtraName): string {
  const value = cell?.extras[name];
  return value === undefined ? NONE : `${figureText(value.median)} ${spreadOf(value)}`.trim();
}

const cellOf = ({ cells }: Setting, id: string): Cell | undefined =>
  cells.find(({ contestant }) => contestant === id);

const coresText = (placement: CoreClass | null): string => (placement === null ? "" : `, ${placement} cores`);

/** Classes of cores that a study has figures of. */
const classesOf = ({ settings }: Study): (CoreClass | null)[] => [
  ...new Set(settings.filter(({ cells }) => cells.length > 0).map(({ placement }) => placement)),
];

/** A study whose settings are a range: contestants in rows. */
function byContestant(report: Shootout, study: Study): string[] {
  return classesOf(study).map((placement) => {
    const settings = study.settings.filter((setting) => setting.placement === placement);
    const rows = takingPart(report, study)
      .filter((id) => settings.some((setting) => cellOf(setting, id) !== undefined))
      .map((id) => [
        nameOf(report, id),
        ...settings.map((setting) => {
          const cell = cellOf(setting, id);
          return cell === undefined ? NONE : valueOf(cell);
        }),
      ]);
    const title = `**${study.title}** (${study.unit}${coresText(placement)}):`;
    return `${title}\n\n${table(["", ...settings.map(({ name }) => name)], rows)}`;
  });
}

/** A study whose settings are cases: contestants in columns, and below it what each took, a row for each figure. */
function bySetting(report: Shootout, study: Study): string[] {
  const ids = takingPart(report, study);
  const names = ids.map((id) => nameOf(report, id));
  return classesOf(study).map((placement) => {
    const settings = study.settings.filter((setting) => setting.placement === placement);
    const values = settings.map((setting) => [
      setting.name,
      ...ids.map((id) => {
        const cell = cellOf(setting, id);
        if (cell === undefined) return NONE;
        const ratio = cell.ratio === null ? "" : `, ${figureText(cell.ratio.median)}×`;
        return `${valueOf(cell)}${ratio}`;
      }),
    ]);
    const extras = extrasOf(study)
      .filter((name) => name !== "gigabytes")
      .flatMap((name) =>
        settings.map((setting) => [
          `${EXTRAS[name].title}, ${EXTRAS[name].unit}${settings.length > 1 ? `: ${setting.name}` : ""}`,
          ...ids.map((id) => extraText(cellOf(setting, id), name)),
        ]),
      )
      .filter((row) => row.slice(1).some((text) => text !== NONE));
    const title = `**${study.title}** (${study.unit}${coresText(placement)}; times as good as ${nameOf(report, study.reference)}):`;
    const took = extras.length === 0 ? "" : `\n\n${table(["", ...names], extras)}`;
    return `${title}\n\n${table(["", ...names], values)}${took}`;
  });
}

function goals(report: Shootout): string {
  if (report.goals.length === 0) return "";
  const wanted = (target: Target | null): string => (target === null ? "(shown)" : describeTarget(target));
  const rows = report.goals.map(({ goal, name, placement, figure, target, note }) => [
    `${goal}: ${name}`,
    placement ?? "",
    figure === null ? NONE : `${figureText(figure.median)}× ${describeSpread(figure)}`,
    wanted(target),
    figure === null ? note : describeVerdict(verdictOf({ figure, target })),
  ]);
  return `**Goals**:\n\n${table(["", "cores", "found", "wanted", "verdict"], rows)}`;
}

/** All tables, ready to be pasted. */
export function shootoutMarkdown(report: Shootout): string {
  const { machine, seconds, command, date } = report;
  const facts =
    `One run of \`${command}\` on ${date.slice(0, 10)}: ${seconds.toFixed(0)} s, ${machine.cpu}, ${machine.cores} cores ` +
    `(${machine.caches}), ${machine.system}, Node ${machine.node}, load ${machine.load} when it began, native: ${report.native}. ` +
    `Medians, with half the interquartile range in percent.`;
  const sections = (Object.keys(PARTS) as PartName[]).flatMap((part) => {
    const studies = report.studies.filter((study) => study.part === part);
    if (studies.length === 0) return [];
    const tables = studies.flatMap((study) => {
      const unmeasured = whyUnmeasured(report, study);
      if (unmeasured !== null) return [`**${study.title}**: not measured: ${unmeasured}`];
      return study.axis === "setting" ? bySetting(report, study) : byContestant(report, study);
    });
    return [`### ${PARTS[part]}`, ...tables];
  });
  return [facts, ...sections, goals(report)].filter((text) => text !== "").join("\n\n");
}
