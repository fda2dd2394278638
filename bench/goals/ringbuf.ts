/** G5: frames one way between two threads, against ringbuf.js with the same frames as fixed-size records. */
import { RingBuffer } from "ringbuf.js";
import type { BenchContext } from "../harness/context.js";
import { pairedRows } from "../harness/interleave.js";
import type { BracketedSample } from "../harness/placement.js";
import type { Row, Target } from "../harness/result.js";
import { postBuffers } from "../harness/stage.js";
import { feedJob } from "../harness/stage-jobs.js";

const RING = 256;
const PER_OP: Target = { sense: "at least", value: 4 };
const BATCH: Target = { sense: "at least", value: 3 };
/** Frames per sample: short enough to be bracketed, long enough to be timed. */
const FRAMES = { op: 8000, batch: 32_000 };

/** Measures G5. */
export async function measureRingbuf(context: BenchContext): Promise<Row[]> {
  const rows: Row[] = [];
  for (const length of [64, 512, 1500]) {
    // Room for as many records as the ring has descriptors. Records are 32-bit words: ringbuf.js pops element by
    // element, so bytes would cost it four times as much.
    const storage = RingBuffer.getStorageForCapacity((RING * length) / 4, Uint32Array);
    for (const burst of [1, 32]) {
      const name = `${length} bytes, ${burst === 1 ? "per op" : `batch of ${burst}`}`;
      const target = Math.floor((burst === 1 ? FRAMES.op : FRAMES.batch) / burst) * burst;
      for (const lazy of burst === 1 ? [false, true] : [false]) {
        const label = lazy ? `${name}, negotiated` : name;
        context.progress(`G5 ${label}`);
        const ours = async (): Promise<BracketedSample> => {
          context.pair.set({ count: RING, lazy, pattern: "feed" });
          postBuffers(context.pair.memory, RING, Math.ceil(length / 64) * 64);
          return context.pair.sample(feedJob(burst, target, length), target);
        };
        const rival = (): Promise<BracketedSample> =>
          context.pair.sample({ kind: "ringbuf", burst, target, length, storage }, target);
        const row = {
          goal: "G5",
          name: label,
          unit: "ns/frame",
          target: burst === 1 ? PER_OP : BATCH,
          note: "copy in and copy out on both sides, in cache; ringbuf.js with records of 32-bit words",
        } as const;
        rows.push(...(await pairedRows(row, ours, rival, "rival/ours", context.effort)));
      }
    }
  }
  return rows;
}
