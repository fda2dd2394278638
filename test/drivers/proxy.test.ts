import { Vbus, type Bus, type Client, type Connection, type DeviceClass } from "vbus/bus";
import { LocalConnector } from "vbus/connectors/local";
import { ProxyBus, type Driver, type ProxyDevice } from "vbus/drivers";
import { RECHECK_NONE, VbusError } from "vbus/engine";
import { allocateGuestMemory, GuestMemory, MemorySpace } from "vbus/memory";
import { EventLoopScheduler } from "vbus/scheduler";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { pause } from "../event-loop.js";

/** What happened in the device, in order. */
let log: string[];
/** What the next shm of a device does. */
let onShm: ((device: string) => number) | null;

/** A class whose devices have one interface of the type that their name begins with. */
const testClass: DeviceClass = {
  name: "test",
  create: ({ name }) => {
    let published: { withdraw(): void } | null = null;
    let open = false;
    const connect = (_memory: MemorySpace, version: number): Connection => {
      if (version !== 3) throw new VbusError("EINVAL", "version 3 only");
      if (open) throw new VbusError("EBUSY", "open already");
      open = true;
      log.push(`${name} open`);
      return {
        call: (func) => func | 0,
        shm: (_id, _segment, signal) => {
          const result = onShm?.(name) ?? 0;
          if (result === 77) signal?.release();
          return result;
        },
        close: () => {
          open = false;
          log.push(`${name} close`);
        },
      };
    };
    return {
      attributes: new Map(),
      busConnect: (bus) => {
        published = bus.publish({ name: "default", type: name.replace(/\d+$/, ""), connect });
      },
      busDisconnect: () => published?.withdraw(),
      release: () => {},
    };
  },
};

let vbus: Vbus;
let bus: Bus;
let client: Client;
let memory: GuestMemory;
let proxy: ProxyBus;
let connector: LocalConnector;
let errors: unknown[];
let told: string[];
let failures: unknown[];

beforeEach(async () => {
  log = [];
  told = [];
  failures = [];
  errors = [];
  onShm = null;
  const scheduler = new EventLoopScheduler((error) => errors.push(error));
  vbus = new Vbus({ scheduler });
  vbus.registerClass(testClass);
  bus = vbus.createBus("bus0");
  bus.admit("guest");
  const init = allocateGuestMemory({ size: 1 << 20 });
  memory = await GuestMemory.open(init);
  const host = MemorySpace.attachSync(init.memory, init.layout.hostArena, init.layout.regions);
  client = bus.openClient({ member: "guest", memory: host });
  connector = new LocalConnector(client, memory, scheduler);
  proxy = new ProxyBus(connector, {
    add: (device) => told.push(`add ${device.id} ${device.type}`),
    drop: (device) => told.push(`drop ${device.id}`),
    bound: (device) => told.push(`bound ${device.id}`),
    error: (device, error) => {
      told.push(`error ${device.id}`);
      failures.push(error);
    },
    lost: (error) => told.push(`lost ${error.message}`),
  });
});

afterEach(() => {
  expect(errors.splice(0)).toEqual([]);
  expect(memory.ram.available).toBe(memory.ram.size);
});

const plug = (name: string): void => {
  bus.connect(vbus.createDevice(name, "test"));
};
const settle = async (): Promise<void> => {
  for (let i = 0; i < 3; i++) {
    await pause(0);
    await proxy.settled();
  }
};

/** A driver that opens its device and says so. */
function driver(type: string, options: { version?: number; fail?: () => boolean } = {}): Driver<string> {
  return {
    type,
    probe: async (device) => {
      log.push(`probe ${device.type}:${device.id}`);
      await device.open(options.version ?? 3);
      if (options.fail?.() === true) throw new Error("no luck");
      return `instance ${device.id}`;
    },
    remove: async (instance, device) => {
      log.push(`remove ${instance}${device.isOpen ? "" : " closed"}`);
    },
  };
}

describe("the proxy bus", () => {
  it("probes a driver registered before the devices, and one registered after them", async () => {
    proxy.registerDriver(driver("alpha"));
    plug("alpha0");
    plug("beta0");
    await proxy.start();
    await settle();
    expect(told).toEqual(["add 0 alpha", "add 1 beta", "bound 0"]);
    proxy.registerDriver(driver("beta"));
    await settle();
    expect(told.slice(3)).toEqual(["bound 1"]);
    plug("beta1");
    await settle();
    expect(told.slice(4)).toEqual(["add 2 beta", "bound 2"]);
    expect(proxy.devices.map((d) => d.modalias)).toEqual([
      "vbus-proxy:alpha",
      "vbus-proxy:beta",
      "vbus-proxy:beta",
    ]);
    await proxy.close();
  });

  it("matches types exactly: no prefix, no other case, no list", async () => {
    plug("alpha0");
    await proxy.start();
    for (const type of ["alph", "alphabet", "Alpha", "alpha ", "", "*"]) proxy.registerDriver(driver(type));
    await settle();
    expect(log).toEqual([]);
    await proxy.close();
  });

  it("refuses a second driver of a type with EEXIST", () => {
    proxy.registerDriver(driver("alpha"));
    expect(() => proxy.registerDriver(driver("alpha"))).toThrow(/EEXIST/);
  });

  it("a version that the host refuses fails the probe and leaves no session (B3); a better driver takes the device", async () => {
    plug("alpha0");
    const old = driver("alpha", { version: 2 });
    proxy.registerDriver(old);
    await proxy.start();
    await settle();
    expect(failures).toMatchObject([{ code: "EINVAL" }]);
    expect(client.connections).toEqual([]);
    await proxy.unregisterDriver(old);
    proxy.registerDriver(driver("alpha"));
    await settle();
    expect(told).toEqual(["add 0 alpha", "error 0", "bound 0"]);
    await proxy.close();
  });

  it("a probe that fails after open closes the session (B3), and the next probe may open again", async () => {
    plug("alpha0");
    let fail = true;
    const moody = driver("alpha", { fail: () => fail });
    proxy.registerDriver(moody);
    await proxy.start();
    await settle();
    expect(log).toEqual(["probe alpha:0", "alpha0 open", "alpha0 close"]);
    fail = false;
    await proxy.unregisterDriver(moody);
    proxy.registerDriver(moody);
    await settle();
    expect(told.at(-1)).toBe("bound 0");
    await proxy.close();
    expect(log.at(-1)).toBe("alpha0 close");
  });

  it("removes the driver from a device that is unplugged, then closes the session (B1, B2)", async () => {
    plug("alpha0");
    proxy.registerDriver(driver("alpha"));
    await proxy.start();
    await settle();
    const [device] = proxy.devices;
    let dropped = 0;
    if (device !== undefined) device.onDrop = () => dropped++;
    vbus.removeDevice("alpha0");
    await settle();
    expect(dropped).toBe(1);
    expect(told.at(-1)).toBe("drop 0");
    expect(log.slice(-2)).toEqual(["remove instance 0", "alpha0 close"]);
    expect(proxy.devices).toEqual([]);
    expect(client.connections).toEqual([]);
  });

  it("a device that is unplugged while its probe runs is removed after it", async () => {
    plug("alpha0");
    let release = (): void => {};
    const slow: Driver<string> = {
      ...driver("alpha"),
      probe: async (device) => {
        await device.open(3);
        await new Promise<void>((resolve) => (release = resolve));
        return "slow";
      },
    };
    proxy.registerDriver(slow);
    await proxy.start();
    while (!log.includes("alpha0 open")) await pause(1);
    vbus.removeDevice("alpha0");
    await pause(5);
    release();
    await settle();
    expect(log).toEqual(["alpha0 open", "remove slow", "alpha0 close"]);
  });

  it("unregistering a driver removes it from its devices, which another may take", async () => {
    plug("alpha0");
    plug("alpha1");
    const first = driver("alpha");
    proxy.registerDriver(first);
    await proxy.start();
    await settle();
    await proxy.unregisterDriver(first);
    expect(log.filter((line) => line.endsWith("close"))).toHaveLength(2);
    await proxy.unregisterDriver(first); // harmless
    proxy.registerDriver(driver("alpha"));
    await settle();
    expect(told.filter((line) => line.startsWith("bound"))).toHaveLength(4);
    await proxy.close();
  });

  it("a remove that fails is reported, and the session is closed all the same", async () => {
    plug("alpha0");
    proxy.registerDriver({
      ...driver("alpha"),
      remove: () => Promise.reject(new Error("stuck")),
    });
    await proxy.start();
    await settle();
    vbus.removeDevice("alpha0");
    await settle();
    expect(told.at(-1)).toBe("error 0");
    expect(log.at(-1)).toBe("alpha0 close");
  });

  it("observers that throw disturb nothing: their errors go to the scheduler", async () => {
    const thrown = new Error("a bad observer");
    const bad = (): never => {
      throw thrown;
    };
    Object.assign(proxy.events, { add: bad, bound: bad, drop: bad, error: bad });
    plug("alpha0");
    plug("beta0");
    proxy.registerDriver(driver("alpha"));
    proxy.registerDriver(driver("beta", { version: 9 }));
    await proxy.start();
    await settle();
    expect(client.connections).toHaveLength(1);
    vbus.removeDevice("alpha0");
    await settle();
    expect(client.connections).toEqual([]);
    expect(errors.splice(0)).toEqual([thrown, thrown, thrown, thrown, thrown]);
    await proxy.close();
  });

  it("an event handler that fails does not hold up the events behind it", async () => {
    plug("alpha0");
    plug("beta0");
    const thrown = new Error("out of luck");
    const { onEvent } = connector;
    connector.onEvent = (event) => {
      if (event.kind === "devadd" && event.id === 0) throw thrown;
      onEvent?.(event);
    };
    await proxy.start();
    await settle();
    expect(told).toEqual(["add 1 beta"]);
    expect(errors.splice(0)).toEqual([thrown]);
    await proxy.close();
  });

  it("ignores everything after close, and takes no driver any more", async () => {
    plug("alpha0");
    proxy.registerDriver(driver("alpha"));
    await proxy.start();
    await settle();
    await proxy.close();
    await proxy.close();
    expect(log.slice(-2)).toEqual(["remove instance 0", "alpha0 close"]);
    plug("alpha1");
    connector.onEvent?.({ kind: "devadd", id: 9, type: "alpha" });
    connector.onEvent?.({ kind: "shmsignal", cookie: 1 });
    await settle();
    expect(told).toEqual(["add 0 alpha", "bound 0"]);
    expect(() => proxy.registerDriver(driver("beta"))).toThrow(/ENOTCONN/);
    expect(bus.clients).toEqual([]);
  });

  it("a device that is announced twice is one device", async () => {
    plug("alpha0");
    await proxy.start();
    await settle();
    connector.onEvent?.({ kind: "devadd", id: 0, type: "alpha" });
    connector.onEvent?.({ kind: "devdrop", id: 17 });
    expect(proxy.devices).toHaveLength(1);
    await proxy.close();
  });

  it("tells devices and observers that the host is gone", async () => {
    plug("alpha0");
    await proxy.start();
    await settle();
    const lost: Error[] = [];
    for (const device of proxy.devices) device.onLost = (error) => lost.push(error);
    connector.lose(new Error("power cut"));
    connector.lose(new Error("again"));
    expect(lost).toHaveLength(1);
    expect(told.at(-1)).toBe("lost power cut");
  });
});

describe("a proxy device", () => {
  let device: ProxyDevice;

  beforeEach(async () => {
    plug("alpha0");
    await proxy.start();
    await settle();
    device = proxy.devices[0] as ProxyDevice;
  });

  afterEach(() => proxy.close());

  it("refuses verbs while it is closed, and a second open, with EINVAL", async () => {
    await expect(device.call(1)).rejects.toMatchObject({ code: "EINVAL" });
    await expect(device.shm(0, 0x10000, 64)).rejects.toMatchObject({ code: "EINVAL" });
    await expect(
      device.createQueue(0, { count: 8, role: "northTransmit", recheck: RECHECK_NONE, notifier: () => {} }),
    ).rejects.toMatchObject({ code: "EINVAL" });
    const opening = device.open(3);
    await expect(device.open(3)).rejects.toMatchObject({ code: "EINVAL" });
    await opening;
    await expect(device.open(3)).rejects.toMatchObject({ code: "EINVAL" });
    expect(device.isOpen).toBe(true);
    expect(await device.close()).toBe(true);
    expect(await device.close()).toBe(true);
    await device.open(3);
    expect(log).toEqual(["alpha0 open", "alpha0 close", "alpha0 open"]);
    await device.close();
  });

  it("calls without data and with data, and keeps no memory", async () => {
    await device.open(3);
    expect(await device.call(5)).toBe(5);
    expect(await device.call(6, new Uint8Array(100))).toBe(6);
    await expect(device.call(-22 >>> 0)).rejects.toMatchObject({ code: "EINVAL" });
    expect(memory.ram.available).toBe(memory.ram.size);
    await device.close();
  });

  const options = { count: 8, role: "northTransmit", recheck: RECHECK_NONE, notifier: () => {} } as const;

  it("a queue that the host refuses is given back at once", async () => {
    await device.open(3);
    onShm = () => -12;
    await expect(device.createQueue(0, options)).rejects.toMatchObject({ code: "ENOMEM" });
    expect(memory.ram.available).toBe(memory.ram.size);
    await device.close();
  });

  it.each([0, -1, 1.5, NaN])("a queue of %d descriptors is refused without a trace", async (count) => {
    await device.open(3);
    await expect(device.createQueue(0, { ...options, count })).rejects.toMatchObject({ code: "EINVAL" });
    await device.close();
  });

  it("a queue whose ring the host answers with an extension that nobody offered stays the host's until close", async () => {
    await device.open(3);
    onShm = () => {
      const ring = Math.ceil((memory.ram.start - 8) / 64) * 64 + 8;
      memory.space.copyTo(ring + 52, new Uint8Array([2, 0, 0, 0x80]));
      return 0;
    };
    await expect(device.createQueue(0, { ...options, offer: 1 })).rejects.toMatchObject({ code: "EPROTO" });
    expect(memory.ram.available).toBeLessThan(memory.ram.size); // the host has it: not to be used again yet
    await device.close();
  });

  it("a signal that the host lets go of under an open device is told to the driver, once", async () => {
    await device.open(3);
    onShm = () => 77;
    const broken: unknown[] = [];
    await device.createQueue(0, { ...options, onBroken: (error) => broken.push(error) });
    await settle();
    expect(broken).toMatchObject([{ code: "ENOTCONN" }]);
    onShm = null;
    await device.createQueue(1, { ...options, onBroken: (error) => broken.push(error) });
    await device.close();
    await settle();
    expect(broken).toHaveLength(1);
  });

  it("closes without an error when the session is gone already", async () => {
    await device.open(3);
    await device.createQueue(0, options);
    client.disconnect();
    expect(await device.close()).toBe(true);
  });

  it("keeps what the host may still use when it does not answer", async () => {
    const given: number[] = [];
    const allocate = memory.ram.allocate.bind(memory.ram);
    memory.ram.allocate = (size, placement) => {
      const gpa = allocate(size, placement);
      given.push(gpa);
      return gpa;
    };
    await device.open(3);
    await device.createQueue(0, options);
    const kept: number[] = [];
    const { ram } = memory;
    const free = ram.free.bind(ram);
    ram.free = (gpa) => kept.push(gpa);
    const silence = (): Promise<never> => Promise.reject(new VbusError("ETIMEDOUT", "no answer"));
    const { close, call } = connector;
    Object.assign(connector, { close: silence, call: silence });
    await expect(device.call(1, new Uint8Array(64))).rejects.toMatchObject({ code: "ETIMEDOUT" });
    expect(await device.close()).toBe(false);
    expect(kept).toEqual([]);
    expect(ram.size - ram.available).toBe(64 + 56 + 8 * 32);
    Object.assign(connector, { close, call });
    client.disconnect();
    ram.free = free;
    for (const gpa of given) ram.free(gpa); // the host is gone for good now
  });
});
