// A guest with an entropy device over virtio, in a thread of its own, driven by commands; to be terminated at any moment.
import { connectWorkerHost } from "vbus/connectors/worker";
import { ProxyBus } from "vbus/drivers";
import { virtioBusDriver } from "vbus/drivers/virtio";
import type { GuestMemoryInit } from "vbus/memory";
import { EventLoopScheduler } from "vbus/scheduler";
import { serve } from "../../examples/replay/threads.js";
import { entropyDriver, type EntropySource } from "../virtio-vbus/entropy-driver.js";

/** What the guest's rings leave out. */
export interface VirtioOrder {
  init: GuestMemoryInit;
  /** Feature bits that are not taken. */
  without: bigint;
  /** Descriptors. */
  size: number;
}

let source: EntropySource | null = null;

function opened(): EntropySource {
  if (source === null) throw new Error("start first");
  return source;
}

await serve({
  async start({ init, without, size }: VirtioOrder) {
    const transport = await connectWorkerHost({ init, scheduler: new EventLoopScheduler() });
    const bus = new ProxyBus(transport);
    source = await new Promise<EntropySource>((resolve, reject) => {
      bus.registerDriver(virtioBusDriver([entropyDriver(resolve, (offered) => offered & ~without, size)]));
      bus.events.error = (_device, error) => {
        reject(error instanceof Error ? error : new Error(String(error)));
      };
      bus.start().catch(reject);
    });
    return source.queue.format;
  },

  /** Makes `rounds` bursts of requests. Returns all that came, and how often the device interrupted. */
  async read({ rounds, burst }: { rounds: number; burst: number }) {
    const got: number[] = [];
    for (let round = 0; round < rounds; round++) {
      const n = 1 + (round % burst);
      const answers = await Promise.all(
        Array.from({ length: n }, (_, i) => opened().read(1 + ((round + i) % 64))),
      );
      for (const bytes of answers) got.push(...bytes);
    }
    return { got, interrupts: opened().interrupts };
  },

  /** Asks for ever, counting answers where the test can see them after the guest's death. */
  hammer({ progress }: { progress: SharedArrayBuffer }) {
    const done = new Int32Array(progress);
    const again = (): void => {
      void opened()
        .read()
        .then(() => {
          Atomics.add(done, 0, 1);
          again();
        });
    };
    for (let i = 0; i < opened().queue.ring.size; i++) again();
    return "hammering";
  },
});
