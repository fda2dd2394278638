import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Worker } from "node:worker_threads";

import {
  LINK_GONE,
  LINK_OFF_CALLS,
  LINK_OFF_GUEST_STATE,
  SLOT_CANCELLED,
  SLOT_SIZE,
  SLOT_TAKEN,
  SLOTS_DEFAULT,
} from "vbus/abi";
import { Vbus, type Bus } from "vbus/bus";
import {
  attachWorkerGuest,
  connectWorkerHost,
  holdLife,
  setUpLink,
  watchLife,
  watchWorker,
  type WorkerHostConnector,
} from "vbus/connectors/worker";
import { VbusError } from "vbus/engine";
import { allocateGuestMemory, openHostView, type GuestMemoryInit } from "vbus/memory";
import { EventLoopScheduler } from "vbus/scheduler";

import {
  ECHO_FAIL,
  ECHO_HANG,
  ECHO_REFUSED,
  ECHO_REVERSE,
  ECHO_RING,
  ECHO_SIGNAL,
  ECHO_TYPE,
  ECHO_VERSION,
  echoClass,
  echoed,
  hang,
} from "./echo.js";
import { RemoteGuest, until } from "./remote-guest.js";

let scheduler: EventLoopScheduler;
let vbus: Vbus;
let bus: Bus;
let uncaught: unknown[];
let connectors: WorkerHostConnector[];
let guests: RemoteGuest[];
let closed: Error[];

beforeEach(() => {
  hang.over = () => false;
  uncaught = [];
  connectors = [];
  guests = [];
  closed = [];
  scheduler = new EventLoopScheduler((error) => uncaught.push(error));
  vbus = new Vbus({ scheduler });
  vbus.registerClass(echoClass);
  bus = vbus.createBus("test");
  bus.admit("guest");
  plug("echo0");
});

afterEach(async () => {
  for (const connector of connectors) connector.close();
  await Promise.all(guests.map((guest) => guest.worker.terminate()));
  expect(uncaught).toEqual([]);
  expect(bus.clients).toHaveLength(0);
});

function plug(name: string): void {
  vbus.createDevice(name, "echo");
  bus.connect(name);
}

function memory(): GuestMemoryInit {
  return allocateGuestMemory({ size: 1 << 20, arenaSize: 1 << 18, shared: true });
}

async function attach(init: GuestMemoryInit, options: object = {}): Promise<WorkerHostConnector> {
  const connector = await attachWorkerGuest({
    bus,
    member: "guest",
    init,
    scheduler,
    onClose: (reason) => closed.push(reason),
    ...options,
  });
  connectors.push(connector);
  return connector;
}

/** Host here, guest in a thread of its own, bus enumerated. */
async function connected(options: object = {}, hostOptions: object = {}) {
  const init = memory();
  const guest = new RemoteGuest();
  guests.push(guest);
  const [host] = await Promise.all([attach(init, hostOptions), guest.ask("connect", init, options)]);
  await guest.ask("start");
  await until("the bus to be enumerated", async () => ((await guest.ask("devices")) as unknown[]).length > 0);
  return { init, guest, host };
}

describe.each([
  ["sleeping in waitAsync", {}],
  ["polling by timer", { poll: true }],
  ["spinning first", { spin: 2000 }],
])("a guest in another thread, %s", (_name, options) => {
  it("enumerates the bus, opens, calls, closes; sees devices come and go", async () => {
    const { guest, host } = await connected(options, options);
    expect(await guest.ask("devices")).toEqual([{ id: 0, type: ECHO_TYPE }]);
    plug("echo1");
    await until("a second device", async () => ((await guest.ask("devices")) as unknown[]).length === 2);
    await guest.ask("open", 1, ECHO_VERSION);
    expect(await guest.ask("call", ECHO_REVERSE, [1, 2, 3], 0)).toEqual({ result: 3, data: [3, 2, 1] });
    await guest.ask("close");
    bus.disconnect("echo1");
    await until("a device to go", async () => ((await guest.ask("dropped")) as number[]).includes(1));
    expect(host.guestAttached).toBe(true);
    expect(await guest.ask("unknownEvents")).toBe(0);
  });

  it("moves descriptors through a ring, with doorbells both ways", async () => {
    const { guest } = await connected(options, options);
    await guest.ask("open", 0, ECHO_VERSION);
    const before = echoed.consumed;
    await guest.ask("traffic", ECHO_RING);
    await until("a thousand descriptors", () => echoed.consumed - before >= 1000);
    const { reclaimed } = (await guest.ask("trafficCounters")) as { reclaimed: number };
    expect(reclaimed).toBeGreaterThan(0);
    await guest.ask("close");
  });
});

describe("the worker connector", () => {
  it("passes every error of the verbs on", async () => {
    const { guest } = await connected();
    await expect(guest.ask("open", 0, 99)).rejects.toThrow("EINVAL");
    await guest.ask("open", 0, ECHO_VERSION);
    await expect(guest.ask("open", 0, ECHO_VERSION)).rejects.toThrow("EINVAL"); // the guest's own proxy
    await expect(guest.ask("call", ECHO_FAIL, [], 0)).rejects.toThrow("ENXIO");
    await expect(guest.ask("traffic", ECHO_REFUSED)).rejects.toThrow("EBUSY");
  });

  it("runs more calls at once than it has slots", async () => {
    const { guest, host } = await connected();
    await guest.ask("open", 0, ECHO_VERSION);
    expect(await guest.ask("calls", 200, ECHO_REVERSE, 16)).toBe(200);
    expect(host.counters().calls).toBeGreaterThanOrEqual(200);
  });

  it("delivers all events through a tiny event ring", async () => {
    for (let i = 1; i < 30; i++) plug(`echo${i}`);
    const { guest, host } = await connected({ eventCount: 2 });
    await until("thirty devices", async () => ((await guest.ask("devices")) as unknown[]).length === 30);
    expect(host.counters().backlogs).toBeGreaterThan(0);
  });

  it("coalesces signals, and survives one that nobody listens to", async () => {
    const { guest } = await connected();
    await guest.ask("open", 0, ECHO_VERSION);
    await guest.ask("traffic", ECHO_RING);
    await guest.ask("call", ECHO_SIGNAL, [], 1000);
    await guest.ask("close");
    expect(await guest.ask("unknownEvents")).toBe(0);
  });

  it("gives up a call that the host does not take, and the slot comes back", async () => {
    const { guest, host, init } = await connected({ callTimeoutMs: 1000 });
    await guest.ask("open", 0, ECHO_VERSION);
    const call = guest.ask("call", ECHO_REVERSE, [1], 0);
    const rejected = expect(call).rejects.toThrow("ETIMEDOUT");
    // the guest calls, and gives up, while the host's thread does not get to look
    spinUntil(() => slotStates(init).includes(SLOT_CANCELLED));
    await rejected;
    await until("the cancelled slot", () => host.counters().cancelled > 0);
    expect(await guest.ask("call", ECHO_REVERSE, [1, 2], 0)).toEqual({ result: 2, data: [2, 1] });
  });

  it("breaks a connection whose call was taken and never ends", async () => {
    const { guest, host, init } = await connected({ callTimeoutMs: 1000 });
    await guest.ask("open", 0, ECHO_VERSION);
    hang.over = () => guestState(init) === LINK_GONE;
    await expect(guest.ask("call", ECHO_HANG, [], 10_000)).rejects.toThrow("ETIMEDOUT");
    expect(await guest.lost).toBe("ETIMEDOUT");
    await until("the host to notice", () => host.closed !== null);
    await expect(guest.ask("call", ECHO_REVERSE, [1], 0)).rejects.toThrow("ENOTCONN");
    expect(closed).toHaveLength(1);
  });

  it("takes the result of a call that was slow, but in time", async () => {
    const { guest } = await connected({ callTimeoutMs: 2000 });
    await guest.ask("open", 0, ECHO_VERSION);
    expect(await guest.ask("call", ECHO_HANG, [], 2100)).toEqual({ result: 0, data: [] });
  });

  it("ends when the guest leaves, and gives everything back", async () => {
    const { guest, host } = await connected();
    await guest.ask("open", 0, ECHO_VERSION);
    const closes = echoed.closes;
    await guest.ask("disconnect");
    await until("the host to notice", () => host.closed !== null);
    expect(echoed.closes).toBe(closes + 1);
    expect(closed.map((error) => codeOf(error))).toEqual(["ENOTCONN"]);
    host.close();
    expect(closed).toHaveLength(1);
  });

  it("tells the guest when the host closes", async () => {
    const { guest, host } = await connected();
    await guest.ask("open", 0, ECHO_VERSION);
    host.close();
    expect(await guest.lost).toBe("ENOTCONN");
    await expect(guest.ask("call", ECHO_REVERSE, [1], 0)).rejects.toThrow("ENOTCONN");
    expect(closed).toHaveLength(0); // who closes is not told
  });

  it("refuses memory that is not shared, and names the way out", async () => {
    const init = allocateGuestMemory({ size: 1 << 16 });
    for (const attempt of [attach(init), connectWorkerHost({ init, scheduler })]) {
      await expect(attempt).rejects.toThrow(/^EOPNOTSUPP: .*local connector/);
    }
    expect(() => {
      setUpLink(init);
    }).toThrow("EOPNOTSUPP");
  });

  it("refuses a stranger, and a page that is in use, misplaced, or of another version", async () => {
    const init = memory();
    await expect(attach(init, { member: "stranger" })).rejects.toThrow("EPERM");
    const host = await attach(init); // the refusal left nothing behind
    await expect(attach(init)).rejects.toThrow("EBUSY");
    host.close();
    await expect(attach(init)).rejects.toThrow("EBUSY");
    await expect(connectWorkerHost({ init, scheduler })).rejects.toThrow("ENOTCONN");

    const inside = memory();
    inside.layout.link = { address: inside.layout.regions[0]!.address, size: 4096 };
    await expect(attach(inside)).rejects.toThrow(/EINVAL: .*overlaps/);
    for (const address of [0, 65538, inside.memory.buffer.byteLength - 4092]) {
      inside.layout.link = { address, size: 4096 };
      await expect(attach(inside)).rejects.toThrow("EINVAL");
    }
    for (const [index, value] of [
      [0, 1],
      [1, 2],
      [4, 0],
      [4, 49],
      [4, -1],
    ] as const) {
      const other = memory();
      setUpLink(other);
      new Int32Array(other.memory.buffer, other.layout.link.address)[index] = value;
      await expect(attach(other)).rejects.toThrow("EINVAL");
    }
    for (const slots of [0, 49, 1.5]) {
      expect(() => {
        setUpLink(memory(), slots);
      }).toThrow("EINVAL");
    }
  });

  it("does not wait for ever for a host", async () => {
    await expect(connectWorkerHost({ init: memory(), scheduler, connectTimeoutMs: 20 })).rejects.toThrow(
      "ETIMEDOUT",
    );
  });
});

describe("a guest's thread that is terminated", () => {
  const phases: [string, (guest: RemoteGuest) => Promise<unknown>][] = [
    ["before it opened anything", () => Promise.resolve()],
    [
      "with a device open",
      async (guest) => {
        await guest.ask("open", 0, ECHO_VERSION);
      },
    ],
    [
      "in a call that the host executes",
      async (guest) => {
        await guest.ask("open", 0, ECHO_VERSION);
        void guest.ask("die", 30); // while this thread hangs in the device's callback
        void guest.ask("call", ECHO_HANG, [], 150);
        await new Promise((resolve) => guest.worker.once("exit", resolve));
      },
    ],
    [
      "with many calls under way",
      async (guest) => {
        await guest.ask("open", 0, ECHO_VERSION);
        void guest.ask("calls", 500, ECHO_REVERSE, 16);
        await new Promise((resolve) => setTimeout(resolve, 2));
      },
    ],
    [
      "in the midst of queue traffic",
      async (guest) => {
        await guest.ask("open", 0, ECHO_VERSION);
        await guest.ask("traffic", ECHO_RING);
        const before = echoed.consumed;
        await until("traffic", () => echoed.consumed > before + 100);
      },
    ],
  ];

  it.each(phases)("%s leaves a host that goes on, and a place for the next guest", async (_name, reach) => {
    const other = await connected(); // the other guest, on the same bus
    plug("echo1");
    const init = memory();
    const guest = new RemoteGuest();
    const [host] = await Promise.all([attach(init), guest.ask("connect", init, {})]);
    const died = new Promise<Error>((resolve) => watchWorker(guest.worker, resolve));
    await guest.ask("start");
    await until("devices", async () => ((await guest.ask("devices")) as unknown[]).length === 2);
    const opens = echoed.connects - echoed.closes;
    await reach(guest);
    await guest.worker.terminate();
    const reason = await died;
    expect(reason.message).toContain("ENOTCONN");
    host.close(reason);
    expect(echoed.connects - echoed.closes).toBe(opens); // every session was closed
    const fresh = await openHostView(init);
    expect(host.memory.arena.available).toBe(fresh.arena.available); // every byte came back

    // the other guest noticed nothing
    await other.guest.ask("open", 1, ECHO_VERSION);
    expect(await other.guest.ask("call", ECHO_REVERSE, [1, 2], 0)).toEqual({ result: 2, data: [2, 1] });
    // and a new one takes the place, in the same memory
    setUpLink(init);
    const heir = new RemoteGuest();
    guests.push(heir);
    await Promise.all([attach(init), heir.ask("connect", init, {})]);
    await heir.ask("start");
    await until("devices", async () => ((await heir.ask("devices")) as unknown[]).length === 2);
    await heir.ask("open", 0, ECHO_VERSION);
    await heir.ask("close");
  });

  it("shows by its heartbeat alone, when the host was told to listen to it", async () => {
    const { guest, host } = await connected({}, { guestTimeoutMs: 2000 });
    await guest.worker.terminate();
    await until("the host to notice", () => host.closed !== null);
    expect(closed.map((error) => codeOf(error))).toEqual(["ETIMEDOUT"]);
  });
});

describe("a host that disappears", () => {
  it("is missed: calls under way and the connection end with an error", async () => {
    const init = memory();
    const program = new URL("../../.build/test/workers/connector-host.js", import.meta.url);
    const worker = new Worker(program, { workerData: { init } });
    await new Promise((resolve) => worker.once("message", resolve));
    const transport = await connectWorkerHost({
      init,
      scheduler,
      callTimeoutMs: 60_000,
      hostTimeoutMs: 2000,
    });
    const lost = new Promise<Error>((resolve) => (transport.onLost = resolve));
    await transport.start();
    const handle = await transport.open(0, ECHO_VERSION);
    const call = transport.call(handle, ECHO_HANG, 0, 0, 60_000);
    const ended = expect(call).rejects.toThrow("ETIMEDOUT"); // it was taken: its block stays with the dead
    await until("the call to be taken", () => slotStates(init).includes(SLOT_TAKEN));
    const posted = transport.call(handle, ECHO_REVERSE, 0, 0, 0);
    const withdrawn = expect(posted).rejects.toThrow("ENOTCONN");
    await worker.terminate();
    expect(await lost).toMatchObject({ code: "ENOTCONN" });
    await Promise.all([ended, withdrawn]);
    await expect(transport.call(handle, ECHO_REVERSE, 0, 0, 0)).rejects.toThrow("ENOTCONN");
    transport.ring(0);
    transport.disconnect();
  });
});

/** As much of the Web Locks interface as exclusive locks need. */
class FakeLocks {
  #held = new Set<string>();
  #queues = new Map<string, (() => void)[]>();

  query(): Promise<{ held: { name: string }[] }> {
    return Promise.resolve({ held: [...this.#held].map((name) => ({ name })) });
  }

  async request(name: string, options: { signal?: AbortSignal }, callback: () => unknown): Promise<unknown> {
    if (this.#held.has(name)) {
      await new Promise<void>((resolve, reject) => {
        this.#queues.set(name, [...(this.#queues.get(name) ?? []), resolve]);
        options.signal?.addEventListener("abort", () => {
          reject(new Error("aborted"));
        });
      });
    }
    this.#held.add(name);
    try {
      return await callback();
    } finally {
      this.#held.delete(name);
      this.#queues.get(name)?.shift()?.();
    }
  }
}

describe("watching a life", () => {
  it("works by Web Locks in browsers, also when the watcher comes first", async () => {
    vi.stubGlobal("navigator", { locks: new FakeLocks() });
    try {
      const deaths: string[] = [];
      watchLife({ name: "a", onDeath: (reason) => deaths.push(reason.message) });
      const stopped = watchLife({ name: "a", onDeath: () => deaths.push("told although it was stopped") });
      const vigil = await holdLife("a");
      expect(vigil.sign).toBe("lock");
      await new Promise((resolve) => setTimeout(resolve, 120)); // the watchers have found it alive
      expect(deaths).toEqual([]);
      stopped.stop();
      vigil.stop(); // what the end of the thread does
      await until("the death", () => deaths.length > 0);
      expect(deaths).toEqual([expect.stringContaining('its lock "a" is free')]);
    } finally {
      vi.unstubAllGlobals();
    }
  });

  it("says so where a browser does not let it look", async () => {
    vi.stubGlobal("navigator", {
      locks: {
        query: () => Promise.reject(new Error("not in this frame")),
        request: () => Promise.resolve(),
      },
    });
    try {
      const errors: unknown[] = [];
      const vigil = watchLife({
        name: "a",
        onDeath: () => errors.push("a death that nobody saw"),
        onError: (error) => errors.push(error),
      });
      await until("the error", () => errors.length > 0);
      const [error] = errors as [VbusError];
      expect(error.message).toMatch(/EIO.*guestTimeoutMs/);
      expect(error.cause).toEqual(new Error("not in this frame"));
      expect(errors).toHaveLength(1);
      vigil.stop();
    } finally {
      vi.unstubAllGlobals();
    }
  });

  it("works by exit in Node, and says so", async () => {
    const vigil = await holdLife("somebody");
    if (vigil.sign === "exit") {
      expect(() => watchLife({ name: "somebody", onDeath: () => {} })).toThrow("EOPNOTSUPP");
    }
    vigil.stop();
    const guest = new RemoteGuest();
    const died = new Promise<Error>((resolve) =>
      watchLife({ name: "guest", worker: guest.worker, onDeath: resolve }),
    );
    let told = false;
    const stopped = watchLife({ name: "guest", worker: guest.worker, onDeath: () => (told = true) });
    stopped.stop();
    await guest.worker.terminate();
    expect((await died).message).toMatch(/ENOTCONN: the guest's thread ended/);
    expect(told).toBe(false);
  });
});

function codeOf(error: Error): string {
  return error instanceof VbusError ? error.code : String(error);
}

function word(init: GuestMemoryInit, offset: number): number {
  return Atomics.load(new Int32Array(init.memory.buffer, init.layout.link.address + offset, 1), 0);
}

function slotStates(init: GuestMemoryInit): number[] {
  return Array.from({ length: SLOTS_DEFAULT }, (_, i) => word(init, LINK_OFF_CALLS + i * SLOT_SIZE));
}

function guestState(init: GuestMemoryInit): number {
  return word(init, LINK_OFF_GUEST_STATE);
}

/** Blocks this thread until a condition holds. */
function spinUntil(condition: () => boolean): void {
  const end = performance.now() + 60_000;
  while (!condition()) if (performance.now() > end) throw new Error("it never came to that");
}
