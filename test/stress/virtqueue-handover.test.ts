import { Worker } from "node:worker_threads";
import process from "node:process";
import { DriverVirtQueue, type VirtQueueFormat, type VirtQueueOptions } from "vbus/engine";
import { allocateGuestMemory } from "vbus/memory";
import { afterAll, describe, expect, it } from "vitest";
import { seedOr } from "../engine/seed.js";
import type { VirtQueueReport, VirtQueueWork } from "../workers/virtqueue-handover.js";
import { nextMessage } from "./next-message.js";

const SEED = seedOr((Date.now() ^ (process.pid << 16)) >>> 0);
const MILLISECONDS = 3_000;
/** How much longer a busy machine may take for what a variant asks for. */
const PATIENCE_MS = 100_000;

interface Variant {
  format: VirtQueueFormat;
  size: number;
  eventIndex: boolean;
  inOrder: boolean;
  indirect: boolean;
}

const VARIANTS: Variant[] = [
  { format: "split", size: 16, eventIndex: false, inOrder: false, indirect: false },
  { format: "split", size: 16, eventIndex: true, inOrder: false, indirect: true },
  { format: "split", size: 4, eventIndex: true, inOrder: true, indirect: false },
  { format: "packed", size: 16, eventIndex: false, inOrder: false, indirect: false },
  { format: "packed", size: 7, eventIndex: true, inOrder: false, indirect: false },
  { format: "packed", size: 5, eventIndex: true, inOrder: true, indirect: true },
];

async function handOver(variant: Variant, seed: number): Promise<[VirtQueueReport, VirtQueueReport]> {
  const init = allocateGuestMemory({ size: 1 << 20, shared: true });
  const { gpa } = init.layout.regions[0] as { gpa: number };
  const { format, size, eventIndex, inOrder, indirect } = variant;
  const areas = DriverVirtQueue.areaSizes(format, size);
  const driver = gpa + areas.descriptors.size;
  const device = (driver + areas.driver.size + 63) & ~63;
  const options: VirtQueueOptions = {
    format,
    size,
    descriptors: gpa,
    driver,
    device,
    eventIndex,
    inOrder,
    indirect,
    ...(indirect ? { tables: { gpa: gpa + 8192, pieces: 2 } } : {}),
  };
  const bells = new SharedArrayBuffer(16);
  const file = new URL("../../.build/test/workers/virtqueue-handover.js", import.meta.url);
  const start = (side: "driver" | "device"): Worker => {
    const workerData: VirtQueueWork = {
      side,
      init,
      options,
      buffers: gpa + 32768,
      bells,
      seed,
      milliseconds: MILLISECONDS,
      chains: 20_000,
      patienceMs: PATIENCE_MS,
    };
    return new Worker(file, { workerData });
  };
  const north = start("driver");
  const threads = [north];
  try {
    expect(await nextMessage(north, "driver", SEED)).toBe("created");
    const south = start("device");
    threads.push(south);
    const reports = await Promise.all([
      nextMessage(north, "driver", SEED),
      nextMessage(south, "device", SEED),
    ]);
    return reports as [VirtQueueReport, VirtQueueReport];
  } finally {
    await Promise.all(threads.map((thread) => thread.terminate()));
  }
}

describe(`no wake-up of a virtqueue is lost between two threads (seed ${SEED}, VBUS_SEED=n to repeat)`, () => {
  let total = 0;

  for (const [i, variant] of VARIANTS.entries()) {
    const { format, size, eventIndex, inOrder, indirect } = variant;
    const how = [
      `${format} queue of ${size}`,
      eventIndex ? "event index" : "flags",
      ...(inOrder ? ["in order"] : []),
      ...(indirect ? ["indirect"] : []),
    ].join(", ");
    it(how, async () => {
      const [driver, device] = await handOver(variant, SEED + i * 1000);
      expect([driver.failure, device.failure], `seed ${SEED}`).toEqual([null, null]);
      expect(device.chains).toBe(driver.chains);
      expect([driver.counters.chains, device.counters.chains]).toEqual([driver.chains, driver.chains]);
      expect(device.counters.bytes).toBe(8 * driver.chains);
      total += driver.chains;
      // it must have been a race: both slept and were woken, and publications met both states of the peer
      const text = JSON.stringify({ driver, device, seed: SEED });
      expect(driver.chains, text).toBeGreaterThanOrEqual(20_000);
      for (const side of [driver, device]) {
        expect(side.sleeps, text).toBeGreaterThan(50);
        expect(side.counters.notified, text).toBeGreaterThan(50);
        expect(side.counters.suppressed, text).toBeGreaterThan(50);
        expect(side.counters.violations).toEqual({});
      }
    });
  }

  afterAll(() => console.log(`chains: ${total}, seed ${SEED}`));
});
