/** What the two threads of a pair are asked to do with the stage's ring, which `ThreadPair.set` laid out. */
import type { PairJob } from "./jobs.js";
import { STAGE } from "./stage.js";

const { northSide: north, southSide: south, source, sink } = STAGE;

/** Post, consume, complete, reap: `target` descriptors in bursts, at most `window` of them outstanding. */
export function ringJob(burst: number, window: number, target: number): PairJob {
  return {
    kind: "loops",
    north: { name: "stageRequest", args: [north, burst, window, target] },
    south: { name: "stageRespond", args: [south, burst, target] },
  };
}

/** One descriptor outstanding, so many times to and fro. */
export function tripJob(target: number): PairJob {
  return {
    kind: "loops",
    north: { name: "stageTrip", args: [north, target] },
    south: { name: "stageAnswer", args: [south, target] },
  };
}

/** `target` frames of `length` bytes one way, in bursts. */
export function feedJob(burst: number, target: number, length: number): PairJob {
  return {
    kind: "loops",
    north: { name: "stageFeed", args: [north, burst, target, source, length] },
    south: { name: "stageTake", args: [south, burst, target, sink] },
  };
}

/** … to a receiver that sleeps after so many polls, and is woken by doorbells. */
export function doorbellJob(burst: number, target: number, length: number, polls: number): PairJob {
  return {
    kind: "loops-woken",
    north: { name: "stageFeed", args: [north, burst, target, source, length] },
    south: { name: "stageWoken", args: [south, burst, target, sink] },
    polls,
  };
}
