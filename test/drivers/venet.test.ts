import { Vbus, type Bus } from "vbus/bus";
import { LocalConnector } from "vbus/connectors/local";
import { venetClass } from "vbus/devices/venet";
import { ProxyBus } from "vbus/drivers";
import { VenetDriver, type VenetNic, type VenetOptions } from "vbus/drivers/venet";
import { allocateGuestMemory, GuestMemory, MemorySpace } from "vbus/memory";
import type { Port } from "vbus/net";
import { EventLoopScheduler } from "vbus/scheduler";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { pause } from "../event-loop.js";
import { cable } from "../venet/cable.js";
import { expectFrames, testFrame } from "../venet/machine.js";

let vbus: Vbus;
let bus: Bus;
let proxy: ProxyBus;
let memory: GuestMemory;
let errors: unknown[];
let failures: unknown[];

/** One guest on one bus, with two NICs and a cable between them. `over`: guest and host share arena and engine, too. */
async function start(over = false): Promise<void> {
  errors = [];
  failures = [];
  const scheduler = new EventLoopScheduler((error) => errors.push(error));
  vbus = new Vbus({ scheduler });
  vbus.on("error", (event) => errors.push(event));
  const ends = cable();
  let next = 0;
  vbus.registerClass(venetClass({ port: () => ends[next++ % 2] as Port }));
  bus = vbus.createBus("bus0");
  for (const name of ["nic0", "nic1"]) bus.connect(vbus.createDevice(name, "venet", { enabled: "1" }));
  bus.admit("guest");
  const init = allocateGuestMemory({ size: 4 << 20 });
  const host = MemorySpace.attachSync(init.memory, init.layout.hostArena, init.layout.regions);
  memory = over ? GuestMemory.over(host) : await GuestMemory.open(init);
  const client = bus.openClient({ member: "guest", memory: host });
  proxy = new ProxyBus(new LocalConnector(client, memory, scheduler), {
    error: (_device, error) => failures.push(error),
  });
}

/** Registers the driver and waits for both NICs. */
async function nics(options: VenetOptions = {}): Promise<[VenetNic, VenetNic]> {
  const found: VenetNic[] = [];
  proxy.registerDriver(new VenetDriver((nic) => found.push(nic), options));
  await proxy.start();
  while (found.length < 2) await new Promise((resolve) => setTimeout(resolve, 1));
  const [a, b] = found as [VenetNic, VenetNic];
  await a.open();
  await b.open();
  return [a, b];
}

async function exchange(from: VenetNic, to: VenetNic, count: number): Promise<void> {
  const sent = Array.from({ length: count }, (_, n) =>
    testFrame(to.mac, from.mac, 60 + ((n * 29) % 1400), n),
  );
  const sending = from.send(sent);
  const received: Uint8Array[] = [];
  while (received.length < count) received.push(...(await to.receive()));
  await sending;
  expectFrames(received, sent);
}

const settle = (): Promise<void> => pause(5);

afterEach(async () => {
  await proxy.close();
  vbus.close();
  expect(errors.splice(0)).toEqual([]);
  expect(memory.ram.available).toBe(memory.ram.size);
});

describe.each([
  ["with an arena of its own", false],
  ["in the very space of the host", true],
])("the venet driver of a guest with two NICs, %s", (_what, over) => {
  beforeEach(() => start(over));

  it("drives both, at once and in both directions", async () => {
    const [a, b] = await nics({ txRing: 32, rxRing: 32 });
    expect([...a.mac]).not.toEqual([...b.mac]);
    await Promise.all([exchange(a, b, 500), exchange(b, a, 500)]);
    for (const name of ["nic0", "nic1"]) {
      expect(JSON.parse(bus.read(`devices/${name}/statistics`))).toMatchObject({
        tx: { frames: 500, passed: 500, drops: {} },
        rx: { frames: 500, passed: 500, drops: {} },
      });
    }
  });

  it("gives everything back when the driver is unregistered", async () => {
    const found: VenetNic[] = [];
    const driver = new VenetDriver((nic) => found.push(nic));
    proxy.registerDriver(driver);
    await proxy.start();
    while (found.length < 2) await settle();
    await proxy.unregisterDriver(driver);
    expect(memory.ram.available).toBe(memory.ram.size);
    expect(found.every((nic) => !nic.up)).toBe(true);
  });
});

describe("the venet driver", () => {
  beforeEach(() => start());

  it("leaves a NIC that is unplugged: whoever waits is told, memory comes back, the other NIC works on", async () => {
    const [a, b] = await nics();
    const waiting = b.receive();
    waiting.catch(() => {});
    vbus.removeDevice("nic1");
    await expect(waiting).rejects.toMatchObject({ code: "ENOTCONN" });
    await settle();
    expect(proxy.devices.map((d) => d.id)).toEqual([0]);
    expect(b.up).toBe(false);
    await a.send([testFrame(b.mac, a.mac, 60)]);
    await a.stop();
    await a.open();
  });

  it("leaves nothing behind when onNic throws", async () => {
    proxy.registerDriver(
      new VenetDriver(() => {
        throw new Error("not this one");
      }),
    );
    await proxy.start();
    while (failures.length < 2) await settle();
    expect(failures.splice(0)).toHaveLength(2);
    expect(memory.ram.available).toBe(memory.ram.size);
  });

  it("fails a NIC whose idle ring was broken as soon as the host signals, not when somebody asks", async () => {
    const [a, b] = await nics({ rxRing: 4 });
    const failed: unknown[] = [];
    b.onError = (error) => failed.push(error);
    const waiting = b.receive();
    waiting.catch(() => {});
    const { rxQueue } = b.statistics();
    expect(rxQueue.violations).toEqual({});
    const ring = proxy.devices[1];
    expect(ring?.isOpen).toBe(true);
    // the descriptor that the guest waits for gets an owner that does not exist; the host writes the one behind it
    const { space } = memory;
    for (let gpa = memory.ram.start; gpa < memory.ram.start + memory.ram.size - 64; gpa += 8) {
      const view = new DataView(space.copyFrom(gpa, 52).buffer);
      if (view.getUint32(0, true) !== 0x47fa2fe4 || view.getUint32(48, true) !== 4) continue;
      for (let i = 0; i < 4; i++) space.copyTo(gpa + 56 + i * 32 + 25, new Uint8Array([9]));
    }
    await a.send([testFrame(b.mac, a.mac, 60)]);
    b.resumeReceive();
    await expect(waiting).rejects.toMatchObject({ code: "EPROTO" });
    await expect(b.receive()).rejects.toMatchObject({ code: "EPROTO" });
    expect(failed).toHaveLength(1);
    await settle();
    expect(errors.splice(0).length).toBeGreaterThan(0); // the host noticed as well
  });

  it("goes on after a receiver that threw: the NIC fails once and can be closed", async () => {
    const [a, b] = await nics();
    const failed: unknown[] = [];
    b.onError = (error) => failed.push(error);
    const thrown = new Error("a bad receiver");
    b.onFrames = () => {
      throw thrown;
    };
    await a.send([testFrame(b.mac, a.mac, 60)]);
    await settle();
    expect(failed).toEqual([thrown]);
    await expect(b.send([testFrame(a.mac, b.mac, 60)])).rejects.toBe(thrown);
    await b.close();
  });
});
