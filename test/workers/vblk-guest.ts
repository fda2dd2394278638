// A guest with a disk in a thread of its own, driven by commands; to be terminated at any moment.
import { connectWorkerHost } from "vbus/connectors/worker";
import { ProxyBus } from "vbus/drivers";
import { VblkDriver, type VblkDisk } from "vbus/drivers/vblk";
import type { GuestMemoryInit } from "vbus/memory";
import { EventLoopScheduler } from "vbus/scheduler";

import { serve } from "../../examples/replay/threads.js";

/** What a hammering guest has done, where the test can see it after the guest's death. */
export interface HammerOrder {
  /** Word 0: requests that completed. */
  progress: SharedArrayBuffer;
  sectors: number;
  /** Sectors per request. */
  run: number;
  generation: number;
}

let disk: VblkDisk | null = null;
const resized: number[] = [];

function opened(): VblkDisk {
  if (disk === null) throw new Error("start first");
  return disk;
}

await serve({
  async start({ init, queueDepth }: { init: GuestMemoryInit; queueDepth: number }) {
    const transport = await connectWorkerHost({ init, scheduler: new EventLoopScheduler() });
    const bus = new ProxyBus(transport);
    disk = await new Promise<VblkDisk>((resolve, reject) => {
      bus.registerDriver(new VblkDriver(resolve, { queueDepth }));
      bus.events.error = (_device, error) => {
        reject(error instanceof Error ? error : new Error(String(error)));
      };
      bus.start().catch(reject);
    });
    disk.onResize = (capacity) => resized.push(capacity);
    return { capacity: disk.capacity, queueDepth: disk.queueDepth };
  },

  /** Writes a disk full and reads it back, many requests at a time. Returns how many bytes differ. */
  async fill({ seed, length }: { seed: number; length: number }) {
    const data = Uint8Array.from({ length }, (_, i) => (i * 31 + (i >>> 9) + seed) & 0xff);
    const parts = Array.from({ length: length / 4096 }, (_, i) => i);
    await Promise.all(parts.map((i) => opened().write(i * 8, data.subarray(i * 4096, (i + 1) * 4096))));
    await opened().flush();
    const back = await Promise.all(parts.map((i) => opened().read(i * 8, 4096)));
    let wrong = 0;
    for (const i of parts)
      for (let at = 0; at < 4096; at++) if (back[i]?.[at] !== data[i * 4096 + at]) wrong++;
    return wrong;
  },

  resized: () => resized,

  /** Writes for ever, as much at a time as the disk takes: each request is all of one byte. */
  hammer({ progress, sectors, run, generation }: HammerOrder) {
    const done = new Int32Array(progress);
    let n = generation;
    const again = (): void => {
      n += 7;
      const sector = ((n * 13) % (sectors / run)) * run;
      const data = new Uint8Array(run * 512).fill(1 + (n % 255));
      void opened()
        .write(sector, data)
        .then(() => {
          Atomics.add(done, 0, 1);
          again();
        });
    };
    for (let i = 0; i < 100; i++) again();
    return "hammering";
  },
});
