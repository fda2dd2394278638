import { Vbus, type Bus } from "vbus/bus";
import { attachWorkerGuest, type WorkerHostConnector } from "vbus/connectors/worker";
import { virtioEntropy } from "vbus/devices/virtio-rng";
import { virtioClass } from "vbus/devices/virtio-vbus";
import { allocateGuestMemory, type GuestMemoryInit } from "vbus/memory";
import { EventLoopScheduler } from "vbus/scheduler";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { Thread } from "../../examples/replay/threads.js";
import { generator } from "../engine/seed.js";
import { turns } from "../event-loop.js";
import { until } from "../connectors/remote-guest.js";

const PROGRAM = new URL("../../.build/test/workers/virtio-guest.js", import.meta.url);
const EVENT_IDX = 1n << 29n;
const RING_PACKED = 1n << 34n;

let errors: unknown[];
let scheduler: EventLoopScheduler;
let vbus: Vbus;
let bus: Bus;
let threads: Thread[];
let given: number[];

beforeEach(() => {
  errors = [];
  threads = [];
  given = [];
  scheduler = new EventLoopScheduler((error) => errors.push(error));
  vbus = new Vbus({ scheduler });
  vbus.on("error", (event) => errors.push(event));
  const next = generator(3);
  const device = virtioEntropy({
    source: (into) => {
      for (let i = 0; i < into.length; i++) given.push((into[i] = next() & 0xff));
    },
  });
  vbus.registerClass(virtioClass({ name: "virtio-rng", create: () => ({ face: device }) }));
  bus = vbus.createBus("bus0");
  bus.connect(vbus.createDevice("entropy0", "virtio-rng"));
});

afterEach(async () => {
  for (const thread of threads) thread.terminate();
  vbus.close();
  await turns();
  expect(errors).toEqual([]);
});

async function start(
  member: string,
  without: bigint,
  size = 32,
): Promise<{
  thread: Thread;
  init: GuestMemoryInit;
  connector: WorkerHostConnector;
  died: Promise<void>;
  format: string;
}> {
  bus.admit(member);
  const init = allocateGuestMemory({ size: 1 << 20, arenaSize: 1 << 18, shared: true });
  const connector = await attachWorkerGuest({ bus, member, init, scheduler });
  const thread = await Thread.start(PROGRAM, member);
  threads.push(thread);
  const died = new Promise<void>((resolve) => {
    thread.onExit = () => {
      connector.close();
      resolve();
    };
  });
  const format: string = await thread.call("start", { init, without, size });
  return { thread, init, connector, died, format };
}

describe("a virtio device on the bus of a guest in another thread", () => {
  it.each([
    ["packed", "with event index", 0n],
    ["packed", "without event index", EVENT_IDX],
    ["split", "with event index", RING_PACKED],
    ["split", "without event index", RING_PACKED | EVENT_IDX],
  ])(
    "answers every request of thousands on %s rings %s: no wake-up is lost",
    async (format, _how, without) => {
      const guest = await start("guest", without);
      expect(guest.format).toBe(format);
      // requests that wait for the answers of the burst before them: a lost wake-up is a test that hangs
      const { got, interrupts } = await guest.thread.call<{ got: number[]; interrupts: number }>("read", {
        rounds: 500,
        burst: 31,
      });
      expect(got).toEqual(given);
      expect(interrupts).toBeGreaterThan(0);
      guest.connector.close();
    },
  );

  it("survives guests that are killed under load, and touches none of their memory afterwards", async () => {
    for (let round = 0; round < 4; round++) {
      const { thread, init, died } = await start(`guest${round}`, round % 2 === 0 ? 0n : RING_PACKED);
      const progress = new SharedArrayBuffer(4);
      await thread.call("hammer", { progress });
      await until("answers", () => (new Int32Array(progress)[0] as number) > 200 + round * 31);
      thread.terminate();
      await died;
      const memory = Buffer.from(new Uint8Array(init.memory.buffer));
      await turns();
      expect(Buffer.compare(new Uint8Array(init.memory.buffer), memory)).toBe(0);
      expect(bus.read("devices/entropy0/virtio_status")).toBe("0x0");
    }
    given.length = 0;
    const { thread, connector } = await start("last", 0n);
    const { got } = await thread.call<{ got: number[] }>("read", { rounds: 20, burst: 31 });
    expect(got).toEqual(given);
    connector.close();
  });
});
