/** Timing of single round trips. */
import type { LatencyQuantiles } from "./jobs.js";
import { quantile } from "./statistics.js";

/** Quantiles of round trips, in ns. */
export function latencyOf(trips: readonly number[]): LatencyQuantiles {
  return {
    p50: quantile(trips, 0.5),
    p90: quantile(trips, 0.9),
    p99: quantile(trips, 0.99),
    p999: quantile(trips, 0.999),
  };
}

/** Runs `trip` so many times with 1, 2, 3 …, and times each. The clock's own time is part of it: some 30 ns. */
export function timeTrips(count: number, trip: (n: number) => void): LatencyQuantiles {
  const times = new Array<number>(count);
  let before = performance.now();
  for (let n = 1; n <= count; n++) {
    trip(n);
    const after = performance.now();
    times[n - 1] = (after - before) * 1e6;
    before = after;
  }
  return latencyOf(times);
}
