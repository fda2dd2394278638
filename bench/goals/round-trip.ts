/** G3: one descriptor outstanding, against a bare cache line that goes to and fro. */
import type { BenchContext } from "../harness/context.js";
import { nativeOf, nativeReason } from "../harness/context.js";
import { pairedRows } from "../harness/interleave.js";
import type { BracketedSample } from "../harness/placement.js";
import { missingRow, type Row, type Target } from "../harness/result.js";
import { postBuffers } from "../harness/stage.js";
import { tripJob } from "../harness/stage-jobs.js";
import { bracketed } from "./native-ring.js";

const RING = 256;
const TRIPS = 4000;
const STRICT: Target = { sense: "at most", value: 1.35 };
const NEGOTIATED: Target = { sense: "at most", value: 1.05 };

const CASES = [
  { name: "strict v4", lazy: false, same: false, target: STRICT },
  { name: "strict v4, buffers stay", lazy: false, same: true, target: null },
  { name: "negotiated (lazy indexes)", lazy: true, same: false, target: NEGOTIATED },
  { name: "negotiated, buffers stay", lazy: true, same: true, target: null },
] as const;

/** Measures G3. */
export async function measureRoundTrip(context: BenchContext): Promise<Row[]> {
  const native = nativeOf(context);
  const base = { goal: "G3", unit: "ns/round trip" } as const;
  const rows: Row[] = [];
  for (const { name, lazy, same, target } of CASES) {
    if (native === null) {
      rows.push(missingRow({ ...base, name, target }, nativeReason(context)));
      continue;
    }
    context.progress(`G3 ${name}`);
    const ours = async (): Promise<BracketedSample> => {
      context.pair.set({ count: RING, lazy, pattern: "transmit" }, same);
      if (same) postBuffers(context.pair.memory, RING);
      return context.pair.sample(tripJob(TRIPS), TRIPS);
    };
    const rival = async (): Promise<BracketedSample> => bracketed(await native.ask(`line ${TRIPS}`));
    rows.push(
      ...(await pairedRows({ ...base, name, target, note: "" }, ours, rival, "ours/rival", context.effort)),
    );
  }
  if (native !== null) {
    context.progress("G3 a bare cache line from wasm");
    const ours = (): Promise<BracketedSample> => context.pair.sample({ kind: "line", rounds: TRIPS }, TRIPS);
    const rival = async (): Promise<BracketedSample> => bracketed(await native.ask(`line ${TRIPS}`));
    const name = "a bare cache line, wasm";
    const note = "what the comparison itself is worth: lines differ in where they live";
    rows.push(
      ...(await pairedRows({ ...base, name, target: null, note }, ours, rival, "ours/rival", context.effort)),
    );
  }
  return rows;
}
