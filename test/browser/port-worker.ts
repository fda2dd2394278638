/** The other thread of `port-probe.ts`: gives back what it gets, over shared memory or over a `MessagePort`. */
import { MemorySpace } from "vbus/memory";
import { OFFLOAD_ALL, type Batch } from "vbus/net";
import { MessagePortPort, WorkerPort, type FrameLink } from "vbus/net/threads";
import { EventLoopScheduler } from "vbus/scheduler";

/** What it is given. */
export type PortWorkerStart = { link: FrameLink } | { port: MessagePort };

const scheduler = new EventLoopScheduler();

addEventListener("message", (event: MessageEvent<PortWorkerStart>) => {
  void (async () => {
    const { data } = event;
    const port =
      "link" in data
        ? await WorkerPort.open(data.link, { side: "guest", scheduler })
        : new MessagePortPort(data.port, { scheduler, space: await MemorySpace.host() });
    port.attach({
      offloads: OFFLOAD_ALL,
      receive: (batch: Batch, from: number, to: number) => port.transmit(batch, from, to),
      writable: () => {
        port.ready();
      },
    });
  })();
});
