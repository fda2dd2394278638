/** Order statistics of samples. Nothing here knows what was measured. */

/** Middle, spread and size of a set of samples. */
export interface Summary {
  /** Median. */
  median: number;
  /** Lower quartile. */
  low: number;
  /** Upper quartile. */
  high: number;
  /** 10th percentile: what short two-thread samples are judged by. */
  best: number;
  /** Number of samples. */
  count: number;
}

/** Quantile by linear interpolation. @throws RangeError for no samples, or a quantile outside 0 … 1 */
export function quantile(samples: readonly number[], q: number): number {
  if (samples.length === 0) throw new RangeError("a quantile of no samples; check how many were dropped");
  if (!(q >= 0 && q <= 1)) throw new RangeError(`quantile ${q}; use 0 to 1`);
  const sorted = [...samples].sort((a, b) => a - b);
  const at = (sorted.length - 1) * q;
  const below = sorted[Math.floor(at)] as number;
  const above = sorted[Math.ceil(at)] as number;
  return below + (above - below) * (at - Math.floor(at));
}

/** Summary of a set of samples. @throws RangeError for no samples */
export function summarize(samples: readonly number[]): Summary {
  return {
    median: quantile(samples, 0.5),
    low: quantile(samples, 0.25),
    high: quantile(samples, 0.75),
    best: quantile(samples, 0.1),
    count: samples.length,
  };
}

/** Ratios a/b of samples that were taken one after the other. @throws RangeError for lists of different length */
export function pairedRatios(a: readonly number[], b: readonly number[]): number[] {
  if (a.length !== b.length) throw new RangeError(`${a.length} samples cannot be paired with ${b.length}`);
  return a.map((value, i) => value / (b[i] as number));
}

/** Interquartile range of a summary as a fraction of its median. */
export function relativeSpread(summary: Summary): number {
  return summary.median === 0 ? 0 : (summary.high - summary.low) / summary.median;
}
