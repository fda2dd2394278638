/** Part (a): everybody through every study. */
import path from "node:path";
import { linkContestants } from "../../harness/loops.js";
import { NativeBench } from "../../harness/native.js";
import { ThreadPair } from "../../harness/pair.js";
import { contest, type ContestEffort, type Entrant } from "../contest.js";
import { summarize } from "../../harness/statistics.js";
import type { Study } from "../model.js";
import { REFERENCE, RING_CONTESTANTS } from "./contestants.js";
import type { RingContestant, RingContext } from "./setting.js";
import { CONTEST_PAGES, ContestStage } from "./stage.js";
import { ringStudies, type EffortName, type RingStudy } from "./studies.js";

/** Rounds of each effort. */
const ROUNDS = {
  tiny: { rounds: 3, warm: 0 },
  quick: { rounds: 12, warm: 3 },
  full: { rounds: 60, warm: 6 },
} as const satisfies Record<EffortName, Omit<ContestEffort, "ms">>;

const OURS = ["ioq", "ioq-lazy", "ioq-compact"] as const;
const RIVALS = [
  "split",
  "split-in-order",
  "packed",
  "packed-in-order",
  "c-ring",
  "c-virtio09",
  "ringbuf",
  "spsc",
] as const;
/** What goals are judged by. */
const DUELS = OURS.flatMap((ours) => RIVALS.map((rival) => [ours, rival] as const));

/** How part (a) is run. */
export interface RingsOptions {
  effort: EffortName;
  /** Milliseconds for all of it. */
  ms: number;
  /** Folder with the C sources, and one for what is made of them. */
  native: { sources: string; folder: string };
  progress: (what: string) => void;
  /** Who takes part; tests bring their own. */
  contestants?: readonly RingContestant[];
}

/** What part (a) found. */
export interface RingsResult {
  studies: Study[];
  /** Compiler of the native contestants, or why there are none. */
  native: string;
}

class Rings implements RingContext {
  pair = ThreadPair.start(CONTEST_PAGES);
  shared = new ContestStage(this.pair.memory, linkContestants(this.pair.memory));
  readonly unshared: ContestStage;
  native: RingContext["native"];

  constructor(private readonly options: RingsOptions) {
    const memory = new WebAssembly.Memory({ initial: CONTEST_PAGES, maximum: CONTEST_PAGES });
    this.unshared = new ContestStage(memory, linkContestants(memory));
    this.native = this.#startNative();
  }

  #startNative(): RingContext["native"] {
    const { sources, folder } = this.options.native;
    try {
      return NativeBench.start(path.resolve(sources), path.resolve(folder));
    } catch (error) {
      return { reason: error instanceof Error ? error.message : String(error) };
    }
  }

  /** After a failure: threads and a native program that are known to answer. */
  async restart(): Promise<void> {
    await this.pair.close();
    this.pair = ThreadPair.start(CONTEST_PAGES);
    this.shared = new ContestStage(this.pair.memory, linkContestants(this.pair.memory));
    if (this.native instanceof NativeBench) {
      this.native.close();
      this.native = this.#startNative();
    }
  }

  async close(): Promise<void> {
    if (this.native instanceof NativeBench) this.native.close();
    await this.pair.close();
  }
}

async function measureStudy(
  { points, ...study }: RingStudy,
  rings: Rings,
  options: RingsOptions,
  slice: () => number,
): Promise<Study> {
  const result: Study = { ...study, part: "rings", reference: REFERENCE, settings: [] };
  const contestants = options.contestants ?? RING_CONTESTANTS;
  const failed = new Map<string, string>();
  for (const { at, name, setting } of points) {
    options.progress(`${study.title}: ${name}`);
    const entrants = contestants.map((contestant): Entrant => {
      const before = failed.get(contestant.id);
      if (before !== undefined)
        return { id: contestant.id, sample: `it failed in this study before: ${before}` };
      const sampler = contestant.enter(setting, rings);
      if (typeof sampler === "string") return { id: contestant.id, sample: sampler };
      return {
        id: contestant.id,
        sample: async () => {
          const { ns, probes, extras } = await sampler();
          return { value: ns, probes, extras };
        },
      };
    });
    const settings = await contest(
      { at, name, reference: REFERENCE, lower: true, duels: DUELS, placed: setting.threads === 2 },
      entrants,
      { ...ROUNDS[options.effort], ms: slice() },
      () => rings.restart(),
    );
    for (const one of settings) {
      const copies = setting.work === "payload" || setting.work === "woken";
      for (const cell of one.cells) {
        const about = contestants.find(({ id }) => id === cell.contestant);
        if (copies && about !== undefined && about.copies !== null)
          cell.extras.copies = summarize([about.copies]);
      }
      for (const absence of one.absent) if (absence.failed) failed.set(absence.contestant, absence.reason);
    }
    result.settings.push(...settings);
  }
  return result;
}

/** Measures part (a). */
export async function measureRings(options: RingsOptions): Promise<RingsResult> {
  const studies = ringStudies(options.effort);
  let left = studies.reduce((sum, { points }) => sum + points.length, 0);
  const end = performance.now() + options.ms;
  // what one setting does not need is the others'
  const slice = (): number => Math.max(0, end - performance.now()) / left--;
  const rings = new Rings(options);
  const native = rings.native instanceof NativeBench ? rings.native.compiler : `none: ${rings.native.reason}`;
  try {
    const found: Study[] = [];
    for (const study of studies) found.push(await measureStudy(study, rings, options, slice));
    return { studies: found, native };
  } finally {
    await rings.close();
  }
}
