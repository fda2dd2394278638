/**
 * Where the hypervisor has the cores. Two cores of a virtual machine may share a cache now and lie on different parts of
 * the chip a second later, which moves two-thread figures by a factor of three to six. Each sample is bracketed by a
 * ping-pong on one cache line; what the two probes say decides which class the sample belongs to.
 */

/** Class of a two-thread sample. */
export type Placement = "near" | "far";

/** Both probes below this many nanoseconds one way: near. */
export const NEAR_BELOW_NS = 125;
/** Both probes above this many: far. */
export const FAR_ABOVE_NS = 150;

/** A sample with the probes around it; all in nanoseconds. */
export interface BracketedSample {
  /** What was measured. */
  ns: number;
  /** One way over one cache line, before. */
  before: number;
  /** … and after. */
  after: number;
}

/** Class of a sample, or null when the probes disagree or lie between the classes: such a sample is dropped. */
export function placementOf(sample: BracketedSample): Placement | null {
  if (sample.before < NEAR_BELOW_NS && sample.after < NEAR_BELOW_NS) return "near";
  if (sample.before > FAR_ABOVE_NS && sample.after > FAR_ABOVE_NS) return "far";
  return null;
}

/** The samples of two contestants that were taken in turn, by class. */
export interface PairedSamples {
  /** Pairs whose two samples are of that class. */
  pairs: Record<Placement, { a: number[]; b: number[] }>;
  /** Pairs that were dropped: probes between the classes, or the two samples of different classes. */
  dropped: number;
}

/** Sorts pairs by class. A pair counts only when both of its samples are of the same class. */
export function pairByPlacement(
  pairs: readonly (readonly [BracketedSample, BracketedSample])[],
): PairedSamples {
  const result: PairedSamples = { pairs: { near: { a: [], b: [] }, far: { a: [], b: [] } }, dropped: 0 };
  for (const [a, b] of pairs) {
    const placement = placementOf(a);
    if (placement === null || placementOf(b) !== placement) {
      result.dropped++;
      continue;
    }
    result.pairs[placement].a.push(a.ns);
    result.pairs[placement].b.push(b.ns);
  }
  return result;
}
