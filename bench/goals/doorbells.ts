/** G9: how often a busy producer has to wake its consumer. Two threads, real injects, enables, wakeups and sleeps. */
import type { BenchContext } from "../harness/context.js";
import { FEWEST_PAIRS, type Row, type Target } from "../harness/result.js";
import { summarize } from "../harness/statistics.js";
import { postBuffers } from "../harness/stage.js";
import { doorbellJob } from "../harness/stage-jobs.js";

const RING = 256;
const LENGTH = 64;
const CASES: readonly { burst: number; target: Target; frames: number; name: string }[] = [
  { name: "per op", burst: 1, target: { sense: "at most", value: 5 }, frames: 20_000 },
  { name: "burst 32", burst: 32, target: { sense: "at most", value: 0.1 }, frames: 320_000 },
];
/** Polls before a receiver goes to sleep; 1: it sleeps as soon as it finds the ring empty. */
const POLLS = [2000, 1];

/** Measures G9. */
export async function measureDoorbells(context: BenchContext): Promise<Row[]> {
  const rows: Row[] = [];
  const samples = Math.max(5, Math.ceil(context.effort.pairs / 3));
  for (const { name, burst, target, frames } of CASES) {
    for (const polls of POLLS) {
      const label = `${name}, ${polls === 1 ? "no polling before sleep" : `${polls} polls before sleep`}`;
      context.progress(`G9 ${label}`);
      const doorbells: number[] = [];
      const times: number[] = [];
      let sleeps = 0;
      const end = performance.now() + context.effort.rowMs;
      for (let i = -2; i < samples; i++) {
        if (i >= FEWEST_PAIRS && performance.now() > end) break;
        context.pair.set({ count: RING, lazy: false, pattern: "feed" });
        postBuffers(context.pair.memory, RING);
        context.pair.settle();
        const sample = await context.pair.sample(doorbellJob(burst, frames, LENGTH, polls), frames);
        if (i < 0) continue;
        doorbells.push((sample.doorbells * 1000) / frames);
        times.push(sample.ns);
        sleeps += sample.sleeps;
      }
      rows.push({
        goal: "G9",
        name: label,
        placement: null,
        unit: "ns/frame",
        ours: summarize(times),
        rival: null,
        figure: summarize(doorbells),
        atBest: null,
        figureUnit: "doorbells per 1000",
        target: polls === 1 ? null : target,
        note: `${sleeps} sleeps in ${times.length} samples of ${frames} frames; the first wake-up of each included`,
      });
    }
  }
  return rows;
}
