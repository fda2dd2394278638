import { Worker } from "node:worker_threads";
import process from "node:process";
import { allocateGuestMemory } from "vbus/memory";
import { afterAll, describe, expect, it } from "vitest";
import { seedOr } from "../engine/seed.js";
import type { HandoverReport, HandoverWork } from "../workers/handover.js";
import { nextMessage } from "./next-message.js";

const SEED = seedOr((Date.now() ^ (process.pid << 16)) >>> 0);
const MILLISECONDS = 4_500;
/** How much longer a busy machine may take for what a variant asks for. */
const PATIENCE_MS = 100_000;

type Variant = Pick<HandoverWork, "mode" | "lazy" | "recheck" | "count" | "handovers">;

const VARIANTS: Variant[] = [
  { mode: "burst", lazy: false, recheck: false, count: 16, handovers: 900_000 },
  { mode: "single", lazy: false, recheck: false, count: 4, handovers: 150_000 },
  { mode: "burst", lazy: true, recheck: true, count: 64, handovers: 900_000 },
  { mode: "single", lazy: true, recheck: false, count: 7, handovers: 150_000 },
];

async function handOver(variant: Variant, seed: number): Promise<[HandoverReport, HandoverReport]> {
  const init = allocateGuestMemory({ size: 1 << 20, shared: true });
  const bells = new SharedArrayBuffer(16);
  const file = new URL("../../.build/test/workers/handover.js", import.meta.url);
  const start = (side: "north" | "south"): Worker => {
    const workerData: HandoverWork = {
      ...variant,
      side,
      init,
      bells,
      seed,
      milliseconds: MILLISECONDS,
      patienceMs: PATIENCE_MS,
    };
    return new Worker(file, { workerData });
  };
  const north = start("north");
  const threads = [north];
  try {
    expect(await nextMessage(north, "north", SEED)).toBe("created");
    const south = start("south");
    threads.push(south);
    const reports = await Promise.all([nextMessage(north, "north", SEED), nextMessage(south, "south", SEED)]);
    return reports as [HandoverReport, HandoverReport];
  } finally {
    await Promise.all(threads.map((thread) => thread.terminate()));
  }
}

describe(`no wake-up is lost between two threads (seed ${SEED}, VBUS_SEED=n to repeat)`, () => {
  let total = 0;

  for (const [i, variant] of VARIANTS.entries()) {
    const { mode, lazy, recheck, count } = variant;
    const how = `${mode === "burst" ? "bursts" : "one by one"}, ${lazy ? "lazy indexes" : "strict v4"}, ring of ${count}, ${recheck ? "looking at the ring too" : "by the signal alone"}`;
    it(how, async () => {
      const [north, south] = await handOver(variant, SEED + i * 1000);
      expect([north.failure, south.failure], `seed ${SEED}`).toEqual([null, null]);
      expect(south.handovers).toBe(north.handovers - 1); // the last one is the end mark
      expect(north.counters.pushed).toBe(north.handovers);
      expect(south.counters.popped).toBe(north.handovers);
      total += south.handovers;

      // it must have been a race, millions of times in all: both slept and were woken, and injects met every state of
      // the receiver
      const text = JSON.stringify({ north: north.counters, south: south.counters, seed: SEED });
      expect(south.handovers, text).toBeGreaterThanOrEqual(variant.handovers);
      for (const side of [north, south]) {
        expect(side.sleeps, text).toBeGreaterThan(50);
        expect(side.counters.sent, text).toBeGreaterThan(50);
        expect(side.counters.masked, text).toBeGreaterThan(50);
        expect(side.counters.wakeups, text).toBeGreaterThan(50);
      }
      expect(north.counters.suppressed, text).toBeGreaterThan(50);
      expect(north.counters.violations).toEqual({});
      expect(south.counters.violations).toEqual({});
    });
  }

  afterAll(() => console.log(`handovers: ${total}, seed ${SEED}`));
});
