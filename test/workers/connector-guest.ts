// A guest in a thread of its own, driven by messages: { id, verb, args } is answered by { id, value } or { id, code }.
import { parentPort } from "node:worker_threads";

import { connectWorkerHost, type WorkerGuestOptions } from "vbus/connectors/worker";
import { ProxyBus, type GuestTransport, type ProxyDevice, type ProxyQueue } from "vbus/drivers";
import {
  BURST_CLEAR_VALID,
  BURST_COOKIE,
  BURST_LENGTH,
  BURST_NOFLIP,
  BURST_POINTER,
  BURST_SET_VALID,
  BURST_SIGNAL,
  BurstTable,
  RECHECK_VALID_HEAD,
  VbusError,
} from "vbus/engine";
import type { GuestMemoryInit } from "vbus/memory";
import { EventLoopScheduler } from "vbus/scheduler";

const port = parentPort!;
const scheduler = new EventLoopScheduler();
let transport: GuestTransport | null = null;
let bus: ProxyBus | null = null;
let device: ProxyDevice | null = null;
let queue: ProxyQueue | null = null;
const dropped: number[] = [];
const traffic = { sent: 0, reclaimed: 0 };

function opened(): ProxyDevice {
  if (device === null) throw new Error("open a device first");
  return device;
}

const verbs: Record<string, (...args: never[]) => unknown> = {
  async connect(init: GuestMemoryInit, options: Partial<WorkerGuestOptions>) {
    transport = await connectWorkerHost({ init, scheduler, ...options });
    bus = new ProxyBus(transport, { drop: (gone) => dropped.push(gone.id) });
    transport.onLost = (error) => {
      port.postMessage({ lost: error instanceof VbusError ? error.code : String(error) });
    };
    return "connected";
  },
  async start() {
    await bus!.start();
  },
  devices: () => bus!.devices.map(({ id, type }) => ({ id, type })),
  dropped: () => dropped,
  async open(id: number, version: number) {
    device = bus!.devices.find((candidate) => candidate.id === id) ?? null;
    await opened().open(version);
  },
  async call(func: number, bytes: number[], flags: number) {
    const data = Uint8Array.from(bytes);
    const result = await opened().call(func, data, flags);
    return { result, data: [...data] };
  },
  /** Many calls at once, more than there are slots. */
  async calls(n: number, func: number, length: number) {
    const results = await Promise.all(
      Array.from({ length: n }, () => opened().call(func, new Uint8Array(length), 0)),
    );
    return results.length;
  },
  async close() {
    await opened().close();
  },
  /** Sends through a ring for ever, as fast as the host takes it. */
  async traffic(segment: number) {
    const { ram, space } = transport!.memory;
    const buffer = ram.allocate(64, 64);
    const table = BurstTable.allocate(space, 16);
    const pump = (): void => {
      const ring = queue!.queue;
      for (let n; (n = ring.peek("valid", table, 16)) > 0;) {
        ring.release("valid", table, n, BURST_NOFLIP | BURST_CLEAR_VALID);
        traffic.reclaimed += n;
      }
      const n = ring.reserve("both", table, 16);
      for (let i = 0; i < n; i++) {
        table.setGpa(i, buffer);
        table.setLength(i, 64);
        table.setCookie(i, i);
      }
      const flags = BURST_POINTER | BURST_LENGTH | BURST_COOKIE | BURST_SET_VALID | BURST_SIGNAL;
      queue!.wakeups.ringIf(ring.commit("both", table, n, flags));
      traffic.sent += n;
    };
    queue = await opened().createQueue(segment, {
      count: 64,
      role: "northTransmit",
      recheck: RECHECK_VALID_HEAD,
      notifier: pump,
      onBroken: () => {},
    });
    queue.wakeups.enable();
    pump();
  },
  trafficCounters: () => traffic,
  async disconnect() {
    transport!.disconnect();
    return "gone";
  },
  /** Ends the thread at once, whatever it is doing by then. */
  die(ms: number) {
    setTimeout(() => process.exit(9), ms);
  },
  unknownEvents: () => (transport as unknown as { unknownEvents: number }).unknownEvents,
};

port.on("message", ({ id, verb, args }: { id: number; verb: string; args: never[] }) => {
  void (async () => {
    try {
      port.postMessage({ id, value: await verbs[verb]!(...args) });
    } catch (error) {
      port.postMessage({ id, code: error instanceof VbusError ? error.code : String(error) });
    }
  })();
});
