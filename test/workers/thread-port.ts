/** The other end of a frame link (`test/threads/worker-port.test.ts`): gives back what it gets, or takes nothing. */
import { parentPort, workerData } from "node:worker_threads";
import type { Batch } from "vbus/net";
import { WorkerPort, type FrameLink } from "vbus/net/threads";
import { EventLoopScheduler } from "vbus/scheduler";

/** What the thread is given. */
export interface PortThreadWork {
  link: FrameLink;
  /** False: it takes no frame. */
  echo: boolean;
}

const { link, echo } = workerData as PortThreadWork;
const port = await WorkerPort.open(link, { side: "guest", scheduler: new EventLoopScheduler() });
port.attach({
  offloads: 31,
  receive: (batch: Batch, from: number, to: number) => (echo ? port.transmit(batch, from, to) : 0),
  writable: () => {
    port.ready();
  },
});
parentPort!.once("message", () => {
  port.close();
  parentPort!.postMessage(port.counters());
});
