/** The shoot-out as tables for a terminal. */
import { describeSpread, describeTarget, describeVerdict, verdictOf } from "../../harness/result.js";
import type { Summary } from "../../harness/statistics.js";
import { aligned, figureText } from "../../harness/text-table.js";
import {
  EXTRAS,
  PARTS,
  type ExtraName,
  type PartName,
  type Setting,
  type Shootout,
  type Study,
} from "../model.js";

/** A setting's name with the class of its samples. */
export function settingTitle({ name, placement }: Setting): string {
  return placement === null ? name : `${name} (${placement})`;
}

/** Ids of everybody who has a cell in a study, in the report's order. */
export function takingPart(report: Shootout, study: Study): string[] {
  const present = new Set(study.settings.flatMap(({ cells }) => cells.map(({ contestant }) => contestant)));
  return report.contestants.map(({ id }) => id).filter((id) => present.has(id));
}

/** Why a study has no figure at all; null when it has any. */
export function whyUnmeasured(report: Shootout, study: Study): string | null {
  if (takingPart(report, study).length > 0) return null;
  const reasons = study.settings.flatMap(({ absent }) => absent.map(({ reason }) => reason));
  return [...new Set(reasons)].join("; ") || "nobody takes part";
}

/** Name of a contestant. */
export function nameOf(report: Shootout, id: string): string {
  return report.contestants.find((one) => one.id === id)?.name ?? id;
}

/** Further figures that anybody has in a study. */
export function extrasOf(study: Study): ExtraName[] {
  const present = new Set(
    study.settings.flatMap(({ cells }) => cells.flatMap(({ extras }) => Object.keys(extras) as ExtraName[])),
  );
  return (Object.keys(EXTRAS) as ExtraName[]).filter((name) => present.has(name));
}

/** The spread of a figure that has one. */
export function spreadOf(value: Summary): string {
  return value.high === value.low ? "" : describeSpread(value);
}

/** Whether a study's settings are cases, which tables have in rows: those of cards. Others are points of a range. */
export function hasCases({ part }: Study): boolean {
  return part !== "rings";
}

/**
 * Lines of a study's table, head first: contestants by settings, or the other way round. `cell` makes the text of one, "—" where
 * there is nothing; lines with nothing else are left out.
 */
export function studyLines(
  report: Shootout,
  study: Study,
  cell: (setting: Setting, id: string) => string,
): string[][] {
  const ids = takingPart(report, study);
  const names = ids.map((id) => nameOf(report, id));
  const titles = study.settings.map(settingTitle);
  const lines = hasCases(study)
    ? study.settings.map((setting, i) => [titles[i] as string, ...ids.map((id) => cell(setting, id))])
    : ids.map((id, i) => [names[i] as string, ...study.settings.map((setting) => cell(setting, id))]);
  const found = lines.filter((line) => line.slice(1).some((text) => text !== "—"));
  return [["", ...(hasCases(study) ? names : titles)], ...found];
}

/** One study: who, and per setting the median, its spread, and how many times as good as the reference. */
export function studyTable(report: Shootout, study: Study): string {
  const unmeasured = whyUnmeasured(report, study);
  if (unmeasured !== null) return `${study.title}\n  not measured: ${unmeasured}`;
  const lines = studyLines(report, study, ({ cells }, id) => {
    const cell = cells.find(({ contestant }) => contestant === id);
    if (cell === undefined) return "—";
    const ratio = cell.ratio === null ? "" : ` ${figureText(cell.ratio.median)}×`;
    return `${figureText(cell.value.median)} ${describeSpread(cell.value)}${ratio}`;
  });
  const failures = new Set(
    study.settings.flatMap(({ absent }) =>
      absent
        .filter(({ failed }) => failed)
        .map(({ contestant, reason }) => `  ! ${nameOf(report, contestant)}: ${reason}`),
    ),
  );
  return [
    `${study.title}: ${study.unit}, spread, times as good as ${nameOf(report, study.reference)}`,
    ...aligned(lines, [0]).map((line) => `  ${line}`),
    ...extrasOf(study).map((name) => extraTable(report, study, name)),
    ...failures,
  ].join("\n");
}

function extraTable(report: Shootout, study: Study, name: ExtraName): string {
  const { title, unit } = EXTRAS[name];
  const [head = [], ...lines] = studyLines(report, study, ({ cells }, id) => {
    const value = cells.find(({ contestant }) => contestant === id)?.extras[name];
    return value === undefined ? "—" : [figureText(value.median), spreadOf(value)].join(" ").trim();
  });
  return [
    `  ${title} (${unit})`,
    ...aligned(hasCases(study) ? [head, ...lines] : lines, [0]).map((line) => `    ${line}`),
  ].join("\n");
}

/** The goals. */
export function goalsTable(report: Shootout): string {
  if (report.goals.length === 0) return "";
  const lines = report.goals.map(({ goal, name, placement, figure, target, note }) => [
    goal,
    name,
    placement ?? "",
    figure === null ? "—" : `${figureText(figure.median)}×`,
    describeSpread(figure),
    describeTarget(target),
    describeVerdict(verdictOf({ figure, target })),
    figure === null ? note : "",
  ]);
  const head = ["goal", "", "cores", "found", "spread", "wanted", "verdict", ""];
  return aligned([head, ...lines], [0, 1, 2, 6, 7]).join("\n");
}

/** Everything. */
export function shootoutText(report: Shootout): string {
  const parts: string[] = [];
  for (const part of Object.keys(PARTS) as PartName[]) {
    const studies = report.studies.filter((study) => study.part === part);
    const absence = report.absent.find((one) => one.part === part);
    if (studies.length === 0 && absence === undefined) continue;
    parts.push(PARTS[part]);
    if (absence !== undefined) parts.push(`  ${absence.failed ? "failed" : "not run"}: ${absence.reason}`);
    parts.push(...studies.map((study) => studyTable(report, study)));
  }
  const goals = goalsTable(report);
  return [...parts, ...(goals === "" ? [] : [goals])].join("\n\n");
}
