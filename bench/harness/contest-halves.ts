/** What each thread of a pair does when a wasm contestant of the shoot-out runs. */
import type { Doorbell } from "./doorbell.js";
import type { ContestJob, LoopCall, PairAnswer } from "./jobs.js";
import { timeTrips } from "./latency.js";
import { loopOf, type Contestants } from "./loops.js";
import { drive, POLLS } from "./meeting.js";

/** One thread. */
export interface ContestSide {
  side: 0 | 1;
  contestants: Contestants;
  bell: Doorbell;
}

const BUDGET = 64;

/** Runs this thread's half. */
export function runContestHalf(
  { side, contestants, bell }: ContestSide,
  job: ContestJob & { kind: "contest" | "contest-trips" | "contest-woken" },
  answer: PairAnswer,
): void {
  const { name, args }: LoopCall = side === 0 ? job.north : job.south;
  const loop = loopOf(contestants, name);
  const [at = 0] = args;
  switch (job.kind) {
    case "contest":
      drive(name, () => loop(...args, POLLS));
      break;
    case "contest-trips": {
      const begin = performance.now();
      drive(name, () => loop(at, job.trips, POLLS));
      answer.ns = (performance.now() - begin) * 1e6;
      if (side === 0) {
        answer.latency = timeTrips(job.trips, (n) => {
          drive(name, () => loop(at, job.trips + n, POLLS));
        });
      } else {
        drive(name, () => loop(at, 2 * job.trips, POLLS));
      }
      break;
    }
    case "contest-woken":
      if (side === 0) bell.produce(name, answer, () => loop(...args, POLLS));
      else bell.consume(name, answer, () => loop(...args, job.polls, BUDGET));
      break;
  }
}
