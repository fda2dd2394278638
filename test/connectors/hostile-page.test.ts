import fc from "fast-check";
import { Worker } from "node:worker_threads";
import { afterEach, beforeEach, describe, expect, it } from "vitest";

import {
  LINK_OFF_CALLS,
  LINK_OFF_GUEST_STATE,
  LINK_OFF_HOST_BITMAP,
  LINK_OFF_HOST_SEQUENCE,
  LINK_OFF_HOST_STATE,
  LINK_OFF_SLOTS,
  SLOT_DONE,
  SLOT_POSTED,
  SLOT_SIZE,
  SLOTS_DEFAULT,
} from "vbus/abi";
import { Vbus, type Bus } from "vbus/bus";
import {
  attachWorkerGuest,
  connectWorkerHost,
  setUpLink,
  type WorkerHostConnector,
} from "vbus/connectors/worker";
import type { GuestTransport } from "vbus/drivers";
import type { VbusError } from "vbus/engine";
import { allocateGuestMemory, type GuestMemoryInit } from "vbus/memory";
import { EventLoopScheduler } from "vbus/scheduler";

import { ECHO_SIGNALLED, ECHO_VERSION, echoClass, echoed } from "./echo.js";
import { until } from "./remote-guest.js";

let scheduler: EventLoopScheduler;
let bus: Bus;
let uncaught: unknown[];
let open: { close(): void }[];

beforeEach(() => {
  uncaught = [];
  open = [];
  scheduler = new EventLoopScheduler((error) => uncaught.push(error));
  const vbus = new Vbus({ scheduler });
  vbus.registerClass(echoClass);
  bus = vbus.createBus("test");
  bus.admit("guest");
  for (const name of ["echo0", "echo1"]) {
    vbus.createDevice(name, "echo");
    bus.connect(name);
  }
});

afterEach(() => {
  for (const one of open) one.close();
  expect(uncaught).toEqual([]);
  expect(bus.clients).toHaveLength(0);
});

interface Link {
  init: GuestMemoryInit;
  host: WorkerHostConnector;
  words: Int32Array;
  closed: Error[];
}

async function attach(): Promise<Link> {
  const init = allocateGuestMemory({ size: 1 << 20, arenaSize: 1 << 18, shared: true });
  const closed: Error[] = [];
  const host = await attachWorkerGuest({
    bus,
    member: "guest",
    init,
    scheduler,
    onClose: (reason) => closed.push(reason),
  });
  open.push(host);
  return { init, host, closed, words: new Int32Array(init.memory.buffer, init.layout.link.address, 1024) };
}

/** Host and guest in this one thread: nothing in the connector blocks. */
async function pair(): Promise<Link & { guest: GuestTransport; lost: Error[] }> {
  const link = await attach();
  const guest = await connectWorkerHost({ init: link.init, scheduler });
  const lost: Error[] = [];
  guest.onLost = (error) => lost.push(error);
  open.unshift({
    close: () => {
      guest.disconnect();
    },
  });
  await guest.start();
  return { ...link, guest, lost };
}

const slot = (i: number, offset = 0): number => (LINK_OFF_CALLS + i * SLOT_SIZE + offset) >>> 2;

function ring({ words }: Link, bells: readonly number[]): void {
  for (const bell of bells) Atomics.or(words, (LINK_OFF_HOST_BITMAP >>> 2) + (bell >>> 5), 1 << (bell & 31));
  Atomics.add(words, LINK_OFF_HOST_SEQUENCE >>> 2, 1);
  Atomics.notify(words, LINK_OFF_HOST_SEQUENCE >>> 2);
}

describe("a hostile page", () => {
  it.each([5, 6, -1, 2 ** 31 - 1, -(2 ** 31)])(
    "with a call slot in state %i ends its own connection only",
    async (state) => {
      const other = await pair();
      const link = await attach();
      Atomics.store(link.words, slot(3), state);
      ring(link, [0]);
      await until("the end", () => link.host.closed !== null);
      expect((link.host.closed as VbusError).code).toBe("EPROTO");
      expect(link.closed).toHaveLength(1);
      expect(Atomics.load(link.words, LINK_OFF_HOST_STATE >>> 2)).toBe(2);
      const handle = await other.guest.open(0, ECHO_VERSION);
      await other.guest.close(handle);
    },
  );

  it("with every bell rung and every slot posted gets an errno for each call, and stays connected", async () => {
    const link = await attach();
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.integer({ min: 0, max: 5 }), fc.integer(), fc.integer(), fc.integer()), {
          minLength: SLOTS_DEFAULT,
          maxLength: SLOTS_DEFAULT,
        }),
        async (calls) => {
          for (const [i, [vector, length, low, high]] of calls.entries()) {
            Atomics.store(link.words, slot(i, 4), vector);
            Atomics.store(link.words, slot(i, 8), length);
            Atomics.store(link.words, slot(i, 16), low);
            Atomics.store(link.words, slot(i, 20), high);
            Atomics.store(link.words, slot(i), SLOT_POSTED);
          }
          ring(link, [...Array(1024).keys()]);
          await until("the answers", () =>
            calls.every((_, i) => Atomics.load(link.words, slot(i)) === SLOT_DONE),
          );
          for (const i of calls.keys()) expect(Atomics.load(link.words, slot(i, 24))).toBeLessThan(0);
        },
      ),
      { numRuns: 50 },
    );
    expect(link.host.closed).toBeNull();
  });

  it("cannot add fastcall channels, which this wire has no doorbell for", async () => {
    const link = await pair();
    const { ram, space } = link.guest.memory;
    const block = ram.allocate(64, 64);
    const address = space.translate(block, 64);
    space.engine.data.setUint32(address + 4, 24, true);
    space.engine.data.setUint32(address + 8, block + 32, true);
    Atomics.store(link.words, slot(7, 4), 3);
    Atomics.store(link.words, slot(7, 8), 16);
    Atomics.store(link.words, slot(7, 16), block);
    Atomics.store(link.words, slot(7), SLOT_POSTED);
    ring(link, [0]);
    await until("the answer", () => Atomics.load(link.words, slot(7)) === SLOT_DONE);
    expect(Atomics.load(link.words, slot(7, 24))).toBe(-22);
  });

  it("with another number of slots than at attach is served as attached", async () => {
    const link = await attach();
    Atomics.store(link.words, LINK_OFF_SLOTS >>> 2, 0x7fffffff);
    Atomics.store(link.words, slot(SLOTS_DEFAULT), 77); // behind the last slot: nobody looks there
    ring(link, [0]);
    await until("a look", () => link.host.counters().doorbells > 0);
    expect(link.host.closed).toBeNull();
  });

  it.each([3, -1, 0])("with guest state %i ends the connection", async (state) => {
    const { words, host, closed } = await pair();
    await until("the guest to be seen", () => host.guestAttached);
    Atomics.store(words, LINK_OFF_GUEST_STATE >>> 2, state);
    await until("the end", () => host.closed !== null);
    expect(closed).toHaveLength(1);
  });

  it("whose host's words were scribbled on tells the guest that the host is gone", async () => {
    const { words, host, lost } = await pair();
    Atomics.store(words, LINK_OFF_HOST_STATE >>> 2, 7);
    await until("the loss", () => lost.length > 0);
    await until("the host to follow", () => host.closed !== null);
  });

  it("with a slot in no state breaks the guest's side, too", async () => {
    const { words, host, guest, lost } = await pair();
    const call = guest.open(0, ECHO_VERSION);
    const ended = expect(call).rejects.toThrow(/ETIMEDOUT|ENOTCONN/);
    Atomics.store(words, slot(0), 99);
    await ended;
    await until("both ends to notice", () => host.closed !== null && lost.length > 0);
  });

  it("with a doorbell that was never announced is served at the next tick", async () => {
    const link = await pair();
    const before = link.host.counters().eventqDoorbells;
    // the guest died between W1 and W2
    Atomics.or(link.words, LINK_OFF_HOST_BITMAP >>> 2, 2);
    await until("the doorbell", () => link.host.counters().eventqDoorbells > before);
    // and between W2 and W3
    Atomics.or(link.words, LINK_OFF_HOST_BITMAP >>> 2, 2);
    Atomics.add(link.words, LINK_OFF_HOST_SEQUENCE >>> 2, 1);
    await until("the doorbell", () => link.host.counters().eventqDoorbells > before + 1);
    // after which ringing works as before
    ring(link, [1]);
    await until("the doorbell", () => link.host.counters().eventqDoorbells > before + 2);
  });

  it.each([
    ["of states that exist", true],
    ["of anything", false],
  ])("under a storm %s starves nobody", async (_name, valid) => {
    const other = await pair();
    const link = await attach();
    const seed = 20090421;
    const worker = new Worker(new URL("../../.build/test/workers/connector-hostile.js", import.meta.url), {
      workerData: { buffer: link.init.memory.buffer, address: link.init.layout.link.address, seed, valid },
    });
    try {
      await until("the storm", () => link.host.counters().doorbells > 1000 || link.host.closed !== null);
      for (let i = 0; i < 100; i++) {
        const handle = await other.guest.open(1, ECHO_VERSION);
        await other.guest.close(handle);
        await new Promise((resolve) => setTimeout(resolve, 1)); // timers are served, too
      }
      expect(other.host.closed).toBeNull();
      if (valid) expect(link.host.closed).toBeNull();
    } finally {
      await worker.terminate();
    }
  });
});

describe("signal handles", () => {
  it("that share a doorbell are all woken; one that died is not", async () => {
    const { guest, host } = await pair();
    const handle = await guest.open(0, ECHO_VERSION);
    const { ram, space } = guest.memory;
    const gpa = ram.allocate(64, 64);
    const data = space.engine.data;
    const address = space.translate(gpa, 64);
    data.setUint32(address, 0x58fa39df, true);
    data.setUint32(address + 4, 1, true);
    const signals: number[] = [];
    for (let i = 0; i < 1024; i++) {
      signals.push(
        await guest.shm(handle, ECHO_SIGNALLED, gpa, 64, { offset: 0, prio: 0, cookie: i + 1 }, 0),
      );
    }
    expect(new Set(signals).size).toBe(1024);
    const before = echoed.doorbells;
    const alone = signals.find((signal) => signal % 1022 === 500)!;
    const shared = signals.find((signal) => signal % 1022 === signals[1023]! % 1022)!;
    guest.ring(alone);
    await until("one doorbell", () => echoed.doorbells === before + 1);
    guest.ring(shared);
    await until("two doorbells", () => echoed.doorbells === before + 3);
    const closes: number[] = [];
    guest.onEvent = (event) => {
      if (event.kind === "shmclose") closes.push(event.cookie);
    };
    await guest.close(handle);
    await until("every SHMCLOSE", () => closes.length === 1024);
    expect(new Set(closes).size).toBe(1024);
    const stray = host.counters().strayDoorbells;
    const served = host.counters().doorbells;
    guest.ring(shared);
    await until("a look", () => host.counters().doorbells > served);
    expect(echoed.doorbells).toBe(before + 3);
    expect(host.counters().strayDoorbells).toBe(stray + 1); // nobody has a signal of that residue any more
  });
});

describe("a page that was used", () => {
  it("serves again after it was set up again", async () => {
    const { init, host, guest } = await pair();
    guest.disconnect();
    await until("the end", () => host.closed !== null);
    setUpLink(init, 1);
    const again = await attachWorkerGuest({ bus, member: "guest", init, scheduler });
    open.push(again);
    const second = await connectWorkerHost({ init, scheduler, memory: guest.memory });
    // one slot: calls wait for each other, and for nothing else
    const handles = await Promise.all([second.open(0, ECHO_VERSION), second.open(1, ECHO_VERSION)]);
    await Promise.all(handles.map((handle) => second.close(handle)));
    second.disconnect();
    await until("the end", () => again.closed !== null);
  });
});
