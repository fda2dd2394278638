/** Frames between two guests in threads of their own, through a switch in a third one: with and without offloads. */
import { trafficRow, type TrafficRow, type TrafficSample } from "../harness/traffic-result.js";
import { TRAFFIC_CASES } from "./traffic-cases.js";
import type { TrafficHostReport } from "./traffic-host.js";
import { TrafficStage } from "./traffic-stage.js";

/** How much to measure. */
export interface TrafficEffort {
  /** Samples of each row. */
  rounds: number;
  /** Milliseconds that a sample sends. */
  sampleMs: number;
}

/** Efforts of `--quick` and of an ordinary run. */
export const TRAFFIC_EFFORTS = {
  quick: { rounds: 5, sampleMs: 100 },
  normal: { rounds: 15, sampleMs: 200 },
} as const satisfies Record<string, TrafficEffort>;

/** What the host did to frames, between two reports. */
function doings(before: TrafficHostReport, after: TrafficHostReport): string {
  const counts = ({ offload, nics }: TrafficHostReport): Record<string, number> => ({
    "superframes passed untouched": offload.superframes_passed,
    "superframes cut in software": offload.segmented,
    "superframes made of segments": nics["B"]?.coalesced ?? 0,
  });
  const then = counts(before);
  return Object.entries(counts(after))
    .map(([what, n]) => [what, n - (then[what] ?? 0)] as const)
    .filter(([, n]) => n > 0)
    .map(([what, n]) => `${n} ${what}`)
    .join(", ");
}

const CARD = "venet";

/** Measures all cases, in rounds, so that each one's samples are spread over the whole time. */
export async function measureTraffic(
  effort: TrafficEffort,
  progress: (what: string) => void,
): Promise<TrafficRow[]> {
  const stage = new TrafficStage();
  const results = TRAFFIC_CASES.map((test) => ({ test, samples: [] as TrafficSample[], note: "" }));
  try {
    await stage.join();
    for (let round = 0; round < effort.rounds; round++) {
      for (const result of results) {
        const { test, samples } = result;
        progress(`traffic, round ${round + 1} of ${effort.rounds}: ${test.name}`);
        await stage.open(test, CARD, effort.sampleMs / 2);
        const before = await stage.report();
        samples.push(await stage.sample(effort.sampleMs));
        result.note = doings(before, await stage.report());
        await stage.closeNics();
      }
    }
    await stage.finish();
  } finally {
    await stage.close();
  }
  return results.map(({ test, samples, note }) =>
    trafficRow({ name: test.name, card: CARD, mtu: test.mtu, note }, samples),
  );
}
