/**
 * The conformance table: what every implementation of a ring must do, whoever stands on the other side. Each row works
 * on the abstract sides of `ring-side.ts`; `conformance.test.ts` runs all rows against all implementations.
 */
import type { ConformanceCase } from "./conformance-case.js";
import { BURST_CASES, ITERATOR_CASES } from "./conformance-iterator.js";
import { RECIPE_CASES } from "./conformance-recipes.js";
import { SIGNAL_CASES } from "./conformance-signal.js";

/** All rows. */
export const CONFORMANCE: readonly ConformanceCase[] = [
  ...ITERATOR_CASES,
  ...BURST_CASES,
  ...RECIPE_CASES,
  ...SIGNAL_CASES,
];

/** Ring sizes that the table is run with. */
export const SIZES = [1, 2, 3, 5, 8, 256, 2048] as const;
