/** The other end of a `MessagePort` (`test/threads/channels.test.ts`): gives back what it gets. */
import { workerData, type MessagePort } from "node:worker_threads";
import { MemorySpace } from "vbus/memory";
import type { Batch } from "vbus/net";
import { MessagePortPort, type FrameMessagePort } from "vbus/net/threads";
import { EventLoopScheduler } from "vbus/scheduler";

/** What the thread is given. */
export interface MessageThreadWork {
  port: MessagePort | globalThis.MessagePort;
}

const work = workerData as MessageThreadWork;
const port = new MessagePortPort(work.port as unknown as FrameMessagePort, {
  scheduler: new EventLoopScheduler(),
  space: await MemorySpace.host(),
});
port.attach({
  offloads: 31,
  receive: (batch: Batch, from: number, to: number) => port.transmit(batch, from, to),
  writable: () => {
    port.ready();
  },
});
