// A guest in a thread of its own that takes the console of its bus: echoes it, or floods it until it is killed.
import { parentPort, workerData } from "node:worker_threads";

import { connectWorkerHost } from "vbus/connectors/worker";
import { ProxyBus } from "vbus/drivers";
import { VconsoleDriver, type VirtualConsole } from "vbus/drivers/vconsole";
import type { GuestMemoryInit } from "vbus/memory";
import { EventLoopScheduler } from "vbus/scheduler";

import { pattern } from "../vconsole/pattern.js";

const { init, mode } = workerData as { init: GuestMemoryInit; mode: "echo" | "flood" };
const scheduler = new EventLoopScheduler();
const transport = await connectWorkerHost({ init, scheduler });
const bus = new ProxyBus(transport, {
  error: (_device, error) => {
    throw error;
  },
});

async function echo(console: VirtualConsole): Promise<void> {
  for await (const bytes of console) await console.write(bytes);
}

async function flood(console: VirtualConsole): Promise<void> {
  for (let n = 0; ; n++) await console.write(pattern(1000, n));
}

const console = await new Promise<VirtualConsole>((resolve, reject) => {
  bus.registerDriver(new VconsoleDriver(resolve, { rxRing: 4, txRing: 4, bufferSize: 500, backlog: 4000 }));
  bus.start().catch(reject);
});
const sizes: string[] = [];
console.onResize = (cols, rows) => {
  sizes.push(`${cols}x${rows}`);
  parentPort!.postMessage({ size: `${cols}x${rows}` });
};
await console.open();
parentPort!.postMessage({ size: `${console.windowSize.cols}x${console.windowSize.rows}` });
try {
  await (mode === "echo" ? echo : flood)(console);
} catch (error) {
  // the host hung up while an echo was under way: its reader wants no more
  if ((error as { code?: string }).code !== "ENOTCONN") throw error;
}
await bus.close();
parentPort!.postMessage({ done: console.statistics().rxBytes });
