/** What a shoot-out found: plain data, the JSON of it, and what tables and pages are made from. */
import type { LatencyQuantiles } from "../harness/jobs.js";
import type { MachineFacts } from "../harness/machine.js";
import type { Placement } from "../harness/placement.js";
import type { Target } from "../harness/result.js";
import type { Summary } from "../harness/statistics.js";

/** The parts of the shoot-out. */
export const PARTS = {
  rings: "(a) rings alone",
  devices: "(b) devices between two guests",
  linux: "(c) a Linux guest in v86",
} as const;

/** Name of a part. */
export type PartName = keyof typeof PARTS;

/** Somebody who takes part. */
export interface Contestant {
  id: string;
  /** Short name, for tables and charts. */
  name: string;
  /** What it is, for people who have not read the code. */
  about: string;
  /** What it runs in. */
  runs: "wasm" | "JavaScript" | "native" | "guest";
  /**
   * Times a payload is copied on its way from the producer to the consumer by how the contestant works; null where that is
   * counted instead, or no payload is carried.
   */
  copies: number | null;
}

/** One contestant in one setting, with the samples of one placement class. */
export interface Cell {
  contestant: string;
  /** What the study measures, in its unit: lower quartile, median, upper quartile, best tenth, number of samples. */
  value: Summary;
  /** How often a rate is worth more than the reference's in neighbouring samples (2: twice as fast); null for the reference. */
  ratio: Summary | null;
  /** Further figures of the same samples, by the names of {@link EXTRAS}. */
  extras: Partial<Record<ExtraName, Summary>>;
}

/** Figures beside the one that is judged. */
export const EXTRAS = {
  gigabytes: { title: "throughput", unit: "GB/s" },
  p50: { title: "p50", unit: "ns" },
  p90: { title: "p90", unit: "ns" },
  p99: { title: "p99", unit: "ns" },
  p999: { title: "p99.9", unit: "ns" },
  max: { title: "slowest", unit: "ns" },
  change: { title: "against the first row of its flow", unit: "×" },
  received: { title: "received", unit: "per frame sent" },
  doorbells: { title: "doorbells", unit: "per 1000" },
  interrupts: { title: "interrupts", unit: "per 1000" },
  sleeps: { title: "sleeps of the consumer", unit: "per 1000" },
  copies: { title: "copies", unit: "of each byte" },
  cpu: { title: "processor time", unit: "s/GB" },
} as const;

/** Name of such a figure. */
export type ExtraName = keyof typeof EXTRAS;

/** What one sample found besides what is judged. */
export type Measures = Partial<Record<ExtraName, number>>;

/** Two contestants of a setting, compared sample by sample. */
export interface Duel {
  ours: string;
  rival: string;
  /** How many times as good ours is. */
  ratio: Summary;
}

/** Somebody who could not be measured, and why. */
export interface Absence {
  contestant: string;
  reason: string;
  /** True when it failed; false when it never takes part in such a setting, or cannot here. */
  failed: boolean;
}

/** Class of the cores that samples were taken on; `mixed`: of several classes, or of none, taken together. */
export type CoreClass = Placement | "mixed";

/** One setting of a study: everybody under the same conditions. */
export interface Setting {
  /** Where it stands on the study's axis, such as the burst. */
  at: number;
  /** For people, such as `bursts of 32`. */
  name: string;
  /** Class of the samples; null where one thread does everything. */
  placement: CoreClass | null;
  cells: Cell[];
  absent: Absence[];
  /** What goals are judged by. */
  duels: Duel[];
  /** Samples that were dropped because the cores moved. */
  dropped: number;
}

/** One question, and everybody's answer over some range. */
export interface Study {
  id: string;
  part: PartName;
  title: string;
  /** What was done, and how to read it. */
  about: string;
  /** What the settings differ by, such as `descriptors per burst`. */
  axis: string;
  /** Unit of {@link Cell.value}. */
  unit: string;
  /** Whether less of the unit is better. */
  lower: boolean;
  /** Whom ratios are taken against. */
  reference: string;
  settings: Setting[];
}

/** A goal of `docs/performance.md`, as it was found. */
export interface GoalResult {
  goal: string;
  name: string;
  placement: CoreClass | null;
  figure: Summary | null;
  target: Target | null;
  /** Remarks, or why it could not be measured. */
  note: string;
}

/** A part that could not run here. */
export interface PartAbsence {
  part: PartName;
  reason: string;
  failed: boolean;
}

/** Version of the format of a {@link Shootout}. */
export const SHOOTOUT_FORMAT = 2;

/** The whole shoot-out. */
export interface Shootout {
  format: typeof SHOOTOUT_FORMAT;
  /** When it began, ISO 8601. */
  date: string;
  command: string;
  effort: "quick" | "full" | "tiny";
  machine: MachineFacts;
  /** Name and flags of the native compiler, or why there are no native contestants. */
  native: string;
  method: string[];
  contestants: Contestant[];
  studies: Study[];
  goals: GoalResult[];
  absent: PartAbsence[];
  seconds: number;
}

/** Latency quantiles as extras. */
export function latencyExtras(latency: LatencyQuantiles): Measures {
  return { p50: latency.p50, p90: latency.p90, p99: latency.p99, p999: latency.p999 };
}

/** Everybody who failed anywhere: a run with such cannot be called a success. */
export function failuresOf(report: Shootout): string[] {
  const name = (id: string): string => report.contestants.find((one) => one.id === id)?.name ?? id;
  const settings = report.studies.flatMap(({ title, settings }) =>
    settings.flatMap((setting) =>
      setting.absent
        .filter(({ failed }) => failed)
        .map(({ contestant, reason }) => `${title}, ${setting.name}: ${name(contestant)}: ${reason}`),
    ),
  );
  const parts = report.absent
    .filter(({ failed }) => failed)
    .map(({ part, reason }) => `${PARTS[part]}: ${reason}`);
  return [...parts, ...new Set(settings)];
}
