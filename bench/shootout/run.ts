/** The whole shoot-out: all parts, one report. A part that cannot run, or fails, takes no other one along. */
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { machineFacts } from "../harness/machine.js";
import { NATIVE_FLAGS } from "../harness/native.js";
import { FAR_ABOVE_NS, NEAR_BELOW_NS } from "../harness/placement.js";
import { measureDevices } from "./devices/measure.js";
import type { measureLinux as MeasureLinux } from "./linux/measure.js";
import { judgeRings } from "./goals.js";
import {
  SHOOTOUT_FORMAT,
  type Contestant,
  type GoalResult,
  type PartName,
  type Shootout,
  type Study,
} from "./model.js";
import { RING_CONTESTANTS } from "./rings/contestants.js";
import { measureRings } from "./rings/measure.js";
import type { EffortName } from "./rings/studies.js";

/** How the figures were taken; part of every report. */
export const SHOOTOUT_METHOD: readonly string[] = [
  "Everybody is sampled in turn, round after round, and another one begins each round. Ratios are medians of the ratios of samples of one round; a spread is half the interquartile range.",
  "The first rounds are thrown away: V8 compiles wasm twice, and replaces the first form while the loops run.",
  `Two-thread samples are bracketed by a ping-pong on one cache line and classed near (below ${NEAR_BELOW_NS} ns one way) or far (above ${FAR_ABOVE_NS} ns): a hypervisor may put two cores side by side or far apart, which moves such figures by three to six. Others are dropped, and classes are never compared. Only where (b) has too few samples of any class, for three threads sleep and wake there, all are taken together: “mixed”.`,
  "Both sides poll, unless a study says that they sleep. “Doorbells” are what the producer has to send, “interrupts” what the consumer sends back.",
  "The wasm contestants run as loops inside of wasm over the engine's own functions, each with every trick that it has: private indexes, event index, one publication per burst.",
  "Copies are how often each byte was copied between the producer's memory and the consumer's: in (a) by construction (into a buffer of the ring and out of it), in (b) and (c) from what drivers and host counted. Processor time is that of the whole process, all its threads, while the payload was carried, polling included.",
  "A spread stands by every figure that has one, the signals, copies and processor times too. (c) runs in one thread: no core can move away from another, so it has no class.",
  "Absolute times belong to this machine and this hour. Nothing here passes or fails a test.",
];

/** Milliseconds that each part may take. */
const BUDGETS: Record<EffortName, Record<PartName, number>> = {
  tiny: { rings: 60_000, devices: 120_000, linux: 20_000 },
  quick: { rings: 48_000, devices: 24_000, linux: 33_000 },
  full: { rings: 840_000, devices: 300_000, linux: 480_000 },
};

/** What a part found. */
export interface PartResult {
  studies: Study[];
  contestants: readonly Contestant[];
  goals: GoalResult[];
}

/** How to run it. */
export interface ShootoutRun {
  effort: EffortName;
  parts: ReadonlySet<PartName>;
  command: string;
  /** Says what is being measured, for people who wait. */
  progress: (what: string) => void;
  /** Is told of each part when it is over. */
  done?: (report: Shootout) => void;
}

/** Thrown by a part that cannot run here, and that is no failure. */
export class PartUnavailable extends Error {}

/** This program lies in dist/bench/shootout of the package, or in .build/bench/shootout of a checkout. */
const BENCH = fileURLToPath(new URL("..", import.meta.url));

/** The C sources: beside it in the package, in bench/native of a checkout. */
function nativeSources(): string {
  const packed = path.join(BENCH, "native");
  return fs.existsSync(path.join(packed, "main.c")) ? packed : path.join(BENCH, "../../bench/native");
}

/** Runs all parts that were asked for. */
export async function runShootout(run: ShootoutRun): Promise<Shootout> {
  const begin = performance.now();
  const report: Shootout = {
    format: SHOOTOUT_FORMAT,
    date: new Date().toISOString(),
    command: run.command,
    effort: run.effort,
    machine: machineFacts(),
    native: "not asked for",
    method: [...SHOOTOUT_METHOD],
    contestants: [],
    studies: [],
    goals: [],
    absent: [],
    seconds: 0,
  };
  const measures: Record<PartName, (ms: number) => Promise<PartResult>> = {
    rings: (ms) => ringsPart(run, ms, report),
    devices: (ms) => measureDevices(run.effort, ms, run.progress),
    linux: async (ms) => {
      const { measureLinux } = await linuxPart();
      return measureLinux(run.effort, ms, run.progress);
    },
  };
  for (const part of ["rings", "devices", "linux"] as const) {
    if (!run.parts.has(part)) continue;
    try {
      const { studies, contestants, goals } = await measures[part](BUDGETS[run.effort][part]);
      report.studies.push(...studies);
      report.goals.push(...goals);
      report.contestants.push(...contestants);
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      report.absent.push({ part, reason, failed: !(error instanceof PartUnavailable) });
    }
    report.seconds = (performance.now() - begin) / 1000;
    run.done?.(report);
  }
  return report;
}

async function ringsPart(run: ShootoutRun, ms: number, report: Shootout): Promise<PartResult> {
  const { effort, progress } = run;
  // a package may lie where nothing can be written
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "vbus-shootout-"));
  const native = { sources: nativeSources(), folder };
  let found;
  try {
    found = await measureRings({ effort, ms, native, progress });
  } finally {
    fs.rmSync(folder, { recursive: true, force: true });
  }
  report.native = found.native.startsWith("none")
    ? found.native
    : `${found.native}: ${NATIVE_FLAGS.join(" ")}`;
  return { studies: found.studies, contestants: RING_CONTESTANTS, goals: judgeRings(found.studies) };
}

/** Part (c) stands on the Linux guest of the checkout, which the package does not carry. */
async function linuxPart(): Promise<{ measureLinux: typeof MeasureLinux }> {
  try {
    return await import("./linux/measure.js");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ERR_MODULE_NOT_FOUND") throw error;
    throw new PartUnavailable("the Linux guest comes with a checkout of vbus: run npm run shootout there");
  }
}
