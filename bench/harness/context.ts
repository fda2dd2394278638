import type { Effort } from "./interleave.js";
import { NativeBench, type NativeAbsent } from "./native.js";
import type { ThreadPair } from "./pair.js";

/** What a goal's benchmark works with. */
export interface BenchContext {
  /** How much to measure. */
  effort: Effort;
  /** The native contestants, or why there are none. */
  native: NativeBench | NativeAbsent;
  /** Two threads for two-thread figures. */
  pair: ThreadPair;
  /** Says what is being measured, for people who wait. */
  progress(what: string): void;
}

/** The native contestants, or null. */
export function nativeOf(context: BenchContext): NativeBench | null {
  return context.native instanceof NativeBench ? context.native : null;
}

/** Why there are no native figures; empty when there are. */
export function nativeReason(context: BenchContext): string {
  return context.native instanceof NativeBench ? "" : context.native.reason;
}
