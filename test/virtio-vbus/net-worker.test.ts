import { Vbus } from "vbus/bus";
import { attachWorkerGuest, type WorkerHostConnector } from "vbus/connectors/worker";
import { virtioNet } from "vbus/devices/virtio-net";
import { virtioClass } from "vbus/devices/virtio-vbus";
import type { VirtioNicOptions } from "vbus/drivers/virtio-net";
import { allocateGuestMemory, MemorySpace, type GuestMemoryInit } from "vbus/memory";
import { Switch } from "vbus/net";
import { EventLoopScheduler } from "vbus/scheduler";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { Thread } from "../../examples/replay/threads.js";
import { until } from "../connectors/remote-guest.js";
import { turns } from "../event-loop.js";
import type { NetOrder } from "../workers/virtio-net-guest.js";

const PROGRAM = new URL("../../.build/test/workers/virtio-net-guest.js", import.meta.url);

interface NetThread {
  thread: Thread;
  init: GuestMemoryInit;
  connector: WorkerHostConnector;
  mac: number[];
  died: Promise<void>;
}

let errors: unknown[];
let scheduler: EventLoopScheduler;
let vbus: Vbus;
let net: Switch;
let threads: NetThread[];

beforeEach(async () => {
  errors = [];
  threads = [];
  scheduler = new EventLoopScheduler((error) => errors.push(error));
  vbus = new Vbus({ scheduler });
  vbus.on("error", (event) => errors.push(event));
  // a busy machine may give a thread no turn for long: nobody is to be taken for stalled
  net = new Switch({ scheduler, space: await MemorySpace.host(), name: "net", stallMs: 120_000 });
  vbus.registerClass(
    virtioClass({
      name: "virtio-net",
      create: ({ name }) => {
        const face = virtioNet({ name, port: net.addPort(name), mac: `02:00:00:00:00:0${name.slice(3)}` });
        return { face, release: () => face.close() };
      },
    }),
  );
});

afterEach(async () => {
  for (const { thread, connector } of threads) {
    thread.terminate();
    connector.close();
  }
  vbus.close();
  net.close();
  await turns();
  expect(errors).toEqual([]);
});

async function start(options: VirtioNicOptions): Promise<NetThread> {
  const n = threads.length;
  const bus = vbus.createBus(`bus${n}`);
  bus.connect(vbus.createDevice(`nic${n}`, "virtio-net"));
  bus.admit("guest");
  const init = allocateGuestMemory({ size: 8 << 20, arenaSize: 1 << 20, shared: true });
  const connector = await attachWorkerGuest({ bus, member: "guest", init, scheduler });
  const thread = await Thread.start(PROGRAM, `guest${n}`);
  const died = new Promise<void>((resolve) => {
    thread.onExit = () => {
      connector.close();
      resolve();
    };
  });
  const mac: number[] = await thread.call("start", { init, options });
  const started = { thread, init, connector, mac, died };
  threads.push(started);
  return started;
}

describe("frames by virtio-net over vbus between guests in threads of their own", () => {
  it.each<[string, VirtioNicOptions]>([
    ["packed rings", {}],
    ["packed rings without event index", { eventIndex: false }],
    ["split rings", { packed: false }],
    ["split rings without event index", { packed: false, eventIndex: false }],
    ["rings of 8 descriptors", { rxRing: 8, txRing: 8 }],
  ])("all arrive, unchanged and in order, both ways at once (%s)", async (_what, options) => {
    const [a, b] = [await start(options), await start(options)];
    for (const { thread } of [a, b]) await thread.call("hello"); // the switch learns who is where
    const count = 5000;
    const exchange = (from: NetThread, to: NetThread, seed: number): Promise<unknown> => {
      const order: NetOrder = { to: to.mac, count, seed, receiveSeed: 3 - seed };
      return from.thread.call("exchange", order);
    };
    expect(await Promise.all([exchange(a, b, 1), exchange(b, a, 2)])).toEqual([
      { received: count, wrong: 0 },
      { received: count, wrong: 0 },
    ]);
    for (const { thread } of [a, b])
      expect(await thread.call("statistics")).toMatchObject({
        tx_packets: count + 1,
        rx_packets: count + 1,
        rx_length_errors: 0,
        rx_frame_errors: 0,
      });
  });

  it("survive a guest that is killed in the midst of a flood: its memory is left alone, its neighbours go on", async () => {
    const [a, b, c] = [await start({}), await start({}), await start({ packed: false })];
    for (const { thread } of [b, c]) await thread.call("listen");
    const progress = new SharedArrayBuffer(4);
    await a.thread.call("flood", { to: [0xff, 0xff, 0xff, 0xff, 0xff, 0xff], progress });
    await until("frames", () => (new Int32Array(progress)[0] as number) > 2000);
    a.thread.terminate();
    await a.died;
    const memory = Buffer.from(new Uint8Array(a.init.memory.buffer));
    await turns();
    expect(Buffer.compare(new Uint8Array(a.init.memory.buffer), memory)).toBe(0);
    expect(vbus.read("devices/nic0/virtio_status")).toBe("0x0");
    for (const { thread } of [b, c]) {
      const { rx_length_errors, rx_frame_errors } = await thread.call<Record<string, number>>("statistics");
      expect([rx_length_errors, rx_frame_errors]).toEqual([0, 0]);
    }
    const before = await b.thread.call<{ rx_packets: number }>("statistics");
    await c.thread.call("flood", { to: b.mac, progress: new SharedArrayBuffer(4) });
    await until(
      "frames of another guest",
      async () => (await b.thread.call<{ rx_packets: number }>("statistics")).rx_packets > before.rx_packets,
    );
  });
});
