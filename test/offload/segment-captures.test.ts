import { ChecksumFinisher, FRAME_CSUM_VALID, FRAME_GSO, FRAME_NEEDS_CSUM, Segmenter } from "vbus/engine";
import { beforeAll, describe, expect, it } from "vitest";

import { generator, seedOr } from "../engine/seed.js";
import { byFlow, segments, superframes } from "./captures.js";
import { readFrame, readFrames, Rig, type TestFrame } from "./rig.js";

const SEED = seedOr(6936);
let before: TestFrame[];
let expected: Map<string, string[]>;

beforeAll(() => {
  before = superframes();
  expected = byFlow(segments());
});

/** Up to 18 random places to cut a frame at; short frames are cut in empty pieces, too. */
function scattering(random: () => number, length: number): number[] {
  const pieces = 1 + (random() % 19);
  // headers are cut as often as payloads
  const place = (): number => random() % ((random() & 1) === 0 ? Math.min(length, 80) : length);
  return Array.from({ length: pieces - 1 }, place).sort((a, b) => a - b);
}

/** What the engine makes of the capture: every frame finished, `capacity` segments at a time. */
async function finishAll(capacity: number, cuts: (frame: TestFrame) => number[]): Promise<Uint8Array[]> {
  const rig = await Rig.open(1);
  const segmenter = new Segmenter(rig.space, capacity);
  const finisher = new ChecksumFinisher(rig.space, 1);
  const found: Uint8Array[] = [];
  for (const frame of before) {
    rig.clear();
    rig.put(0, frame, cuts(frame));
    if ((frame.flags & FRAME_GSO) !== 0) {
      const count = segmenter.begin(rig.table, 0);
      const first = found.length;
      for (let n = segmenter.next(); n > 0; n = segmenter.next()) {
        for (const segment of readFrames(segmenter.table, n)) {
          expect(segment).toMatchObject({ flags: FRAME_CSUM_VALID, kind: 0, size: 0, start: 0, offset: 0 });
          found.push(segment.bytes);
        }
      }
      expect(found.length - first).toBe(count);
      expect(segmenter.next()).toBe(0);
    } else if ((frame.flags & FRAME_NEEDS_CSUM) !== 0) {
      expect(finisher.finish(rig.table, 0, 0)).toBe(true);
      found.push(readFrame(finisher.table, 0).bytes);
    } else {
      found.push(frame.bytes);
    }
    rig.check();
  }
  return found;
}

describe("segmenting what a Linux kernel segmented", () => {
  function expectKernelFrames(found: Uint8Array[]): void {
    const flows = byFlow(found);
    for (const [flow, frames] of flows) {
      if (expected.get(flow)?.join() !== frames.join()) {
        expect(frames, `seed ${SEED}, flow ${flow}`).toEqual(expected.get(flow));
      }
    }
    // what the superframes' port did not see is the bridge's own: neighbour discovery
    const missing = [...expected].filter(([flow]) => !flows.has(flow));
    expect(missing.every(([flow]) => / 3a /.test(flow))).toBe(true);
    expect(found.length).toBeGreaterThan(1500);
  }

  it("gives the kernel's frames byte for byte", async () => {
    expectKernelFrames(await finishAll(64, () => []));
  });

  it.each([1, 2, 3])(
    "… for superframes scattered over up to 19 pieces, in small steps (round %i)",
    async (round) => {
      const random = generator(SEED + round);
      const capacity = 1 + (random() % 7);
      expectKernelFrames(await finishAll(capacity, ({ bytes }) => scattering(random, bytes.length)));
    },
  );

  it("covers every kind of offload", () => {
    const kinds = new Set(before.map(({ flags, kind }) => `${flags} ${kind}`));
    expect([...kinds].sort()).toEqual(["0 0", "1 0", "3 1", "3 2", "3 3"]);
  });
});
