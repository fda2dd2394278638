import { BurstTable, Coalescer, FRAME_GSO, FRAME_NEEDS_CSUM, Segmenter } from "vbus/engine";
import { beforeAll, describe, expect, it } from "vitest";

import { generator, seedOr } from "../engine/seed.js";
import { byFlow, segments } from "./captures.js";
import { finished, readFrame, readFrames, Rig } from "./rig.js";

const SEED = seedOr(2023);
const BATCH = 64;
let wire: Uint8Array[];

beforeAll(() => {
  wire = segments();
});

interface Outcome {
  frames: Uint8Array[];
  superframes: number;
  merged: number;
}

/** Merges the frames batch by batch and cuts what came of it. */
async function thereAndBack(
  frames: Uint8Array[],
  batch: () => number,
  cut: () => number[],
): Promise<Outcome> {
  const rig = await Rig.open(BATCH);
  const coalescer = new Coalescer(rig.space, BATCH);
  const segmenter = new Segmenter(rig.space);
  const outcome: Outcome = { frames: [], superframes: 0, merged: 0 };
  for (let from = 0; from < frames.length;) {
    const n = Math.min(batch(), frames.length - from);
    rig.clear();
    for (let i = 0; i < n; i++) rig.put(i, finished(frames[from + i] as Uint8Array), cut());
    const out = coalescer.run(rig.table, 0, n);
    const { merged, superframes } = coalescer;
    expect(out).toBe(n - merged + superframes);
    const entries = BurstTable.allocate(rig.space, out);
    rig.space.bytes.copyWithin(entries.address, coalescer.table.address, coalescer.table.entry(out));
    for (let i = 0; i < out; i++) {
      const frame = readFrame(entries, i);
      if ((frame.flags & FRAME_GSO) === 0) {
        outcome.frames.push(frame.bytes);
        continue;
      }
      expect(frame.flags & FRAME_NEEDS_CSUM).toBe(FRAME_NEEDS_CSUM);
      outcome.superframes++;
      expect(segmenter.begin(entries, i)).toBeGreaterThan(1);
      for (let k = segmenter.next(); k > 0; k = segmenter.next()) {
        outcome.frames.push(...readFrames(segmenter.table, k).map(({ bytes }) => bytes));
      }
    }
    outcome.merged += merged;
    entries.close();
    rig.check();
    from += n;
  }
  return outcome;
}

describe("coalescing real traffic", () => {
  it("and segmenting it again gives the same frames, in the same order in every flow", async () => {
    const { frames, superframes, merged } = await thereAndBack(
      wire,
      () => BATCH,
      () => [],
    );
    expect(byFlow(frames)).toEqual(byFlow(wire));
    // nearly all of the traffic are segments of long sends, 64 frames at a time
    expect(merged).toBeGreaterThan(1000);
    expect(superframes).toBeLessThan(merged / 10);
  });

  it("… flow by flow, for scattered frames in batches of any size", async () => {
    const random = generator(SEED);
    const cut = (): number[] =>
      Array.from({ length: random() % 4 }, () => random() % 42).sort((a, b) => a - b);
    for (const flow of byFlow(wire).values()) {
      const sent = flow.map((text) => new Uint8Array(Buffer.from(text, "hex")));
      const { frames } = await thereAndBack(sent, () => 1 + (random() % BATCH), cut);
      expect(frames.length, `seed ${SEED}`).toBe(sent.length);
      for (const [i, frame] of frames.entries()) expect(Buffer.compare(frame, sent[i] as Uint8Array)).toBe(0);
    }
  });
});
