/** What each thread of a pair does when it drives a loop in wasm. */
import type { Doorbell } from "./doorbell.js";
import type { LoopCall, LoopJob, PairAnswer } from "./jobs.js";
import { timeTrips } from "./latency.js";
import { loopOf, type NamedLoops } from "./loops.js";
import { drive, POLLS } from "./meeting.js";

/** One thread. */
export interface LoopSide {
  /** 0 north, 1 south. */
  side: 0 | 1;
  loops: NamedLoops;
  bell: Doorbell;
}

const BUDGET = 64;

/** Runs this thread's half. */
export function runLoopHalf({ side, loops, bell }: LoopSide, job: LoopJob, answer: PairAnswer): void {
  const { name, args }: LoopCall = side === 0 ? job.north : job.south;
  const loop = loopOf(loops, name);
  const [at = 0] = args;
  switch (job.kind) {
    case "loops":
      drive(name, () => loop(...args, POLLS));
      break;
    case "loops-trips": {
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
    case "loops-woken":
      if (side === 0) bell.produce(name, answer, () => loop(...args, POLLS));
      else bell.consume(name, answer, () => loop(...args, job.polls, BUDGET));
      break;
  }
}
