import { Vbus, type Bus, type BusClient } from "vbus/bus";
import { BridgeHost } from "vbus/connectors/bridge";
import { LocalConnector } from "vbus/connectors/local";
import { virtioEntropy, type VirtioEntropy } from "vbus/devices/virtio-rng";
import { virtioClass } from "vbus/devices/virtio-vbus";
import { BridgeGuest, ProxyBus, type BridgeCarrier, type GuestTransport } from "vbus/drivers";
import {
  initializeVirtio,
  virtioBusDriver,
  type VirtioDriver,
  type VirtioDriverTransport,
} from "vbus/drivers/virtio";
import { allocateGuestMemory, GuestMemory, openHostView, type MemorySpace } from "vbus/memory";
import { EventLoopScheduler, type Scheduler } from "vbus/scheduler";
import type { VirtioRingOptions } from "vbus/virtio";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { turns } from "../event-loop.js";
import { generator } from "../engine/seed.js";
import { FEATURE_A, FEATURE_B, Recorder, RECORDER_TYPE } from "../virtio/recorder.js";
import type { EntropySource } from "./entropy-driver.js";
import { entropyDriver } from "./entropy-driver.js";

const RING_PACKED = 1n << 34n;
const RING_RESET = 1n << 40n;

/** The bridge of a PCI function without the function: calls, doorbells and interrupts are tasks of one thread. */
class DirectCarrier implements BridgeCarrier {
  onInterrupt: (() => void) | null = null;
  onLost: ((error: Error) => void) | null = null;
  readonly host: BridgeHost;

  constructor(
    client: BusClient,
    memory: MemorySpace,
    private readonly scheduler: Scheduler,
  ) {
    client.onEnd = () => this.onLost?.(new Error("the client has ended"));
    this.host = new BridgeHost({
      client,
      memory,
      scheduler,
      interrupt: () => {
        scheduler.post(() => this.onInterrupt?.());
      },
    });
  }
  async call(vector: number, length: number, gpa: number): Promise<number> {
    return this.host.call(vector, length, gpa >>> 0, Math.floor(gpa / 2 ** 32));
  }
  eventqDoorbell(): void {
    this.scheduler.post(() => this.host.eventqDoorbell());
  }
  shmSignal(handle: number): void {
    this.scheduler.post(() => this.host.shmSignal(handle));
  }
  close(): void {
    this.host.close();
  }
}

const CONNECTORS = ["local", "bridge"] as const;

let errors: unknown[];
let scheduler: EventLoopScheduler;
let vbus: Vbus;
let bus: Bus;
let guests: { proxy: ProxyBus; memory: GuestMemory; exact: boolean }[];

beforeEach(() => {
  errors = [];
  guests = [];
  scheduler = new EventLoopScheduler((error) => errors.push(error));
  vbus = new Vbus({ scheduler });
  vbus.on("error", (event) => errors.push(event));
  bus = vbus.createBus("bus0");
});

afterEach(async () => {
  for (const { proxy, memory, exact } of guests) {
    await proxy.close();
    if (exact) expect(memory.ram.available, "guest memory given back").toBe(memory.ram.size);
  }
  vbus.close();
  await turns();
  expect(errors).toEqual([]);
});

function plugEntropy(
  name: string,
  rings: VirtioRingOptions = {},
): { device: VirtioEntropy; given: number[] } {
  const given: number[] = [];
  const next = generator(11);
  const device = virtioEntropy({
    name,
    source: (into) => {
      for (let i = 0; i < into.length; i++) given.push((into[i] = next() & 0xff));
    },
  });
  vbus.registerClass(virtioClass({ name: `class-${name}`, create: () => ({ face: device }), rings }));
  bus.connect(vbus.createDevice(name, `class-${name}`));
  return { device, given };
}

/** A guest; the errors of its probes are collected, too. */
async function addGuest(
  connector: (typeof CONNECTORS)[number],
  drivers: readonly VirtioDriver[],
): Promise<{ proxy: ProxyBus; refused: unknown[] }> {
  const init = allocateGuestMemory({ size: 1 << 20, arenaSize: 1 << 18 });
  const memory = await GuestMemory.open(init);
  const host = await openHostView(init);
  const member = `guest${guests.length}`;
  bus.admit(member);
  const client = bus.openClient({ member, memory: host });
  let transport: GuestTransport;
  if (connector === "local") {
    transport = new LocalConnector(client, memory, scheduler);
  } else {
    const carrier = new DirectCarrier(client, host, scheduler);
    transport = await BridgeGuest.connect({ carrier, memory, scheduler, eventCount: 8 });
  }
  const refused: unknown[] = [];
  const proxy = new ProxyBus(transport, { error: (_device, error) => refused.push(error) });
  proxy.registerDriver(virtioBusDriver(drivers));
  await proxy.start();
  await turns();
  await proxy.settled();
  guests.push({ proxy, memory, exact: connector === "local" }); // a bridge keeps its blocks
  return { proxy, refused };
}

/** A guest with one entropy device. */
async function withEntropy(
  connector: (typeof CONNECTORS)[number],
  choose?: (offered: bigint) => bigint,
  size?: number,
): Promise<EntropySource> {
  let source: EntropySource | null = null;
  const { refused } = await addGuest(connector, [entropyDriver((bound) => (source = bound), choose, size)]);
  expect(refused).toEqual([]);
  return source!;
}

describe.each(CONNECTORS)("a virtio driver in TypeScript, on the %s connector", (connector) => {
  it.each([
    ["packed rings", (offered: bigint) => offered],
    ["packed rings without event index", (offered: bigint) => offered & ~(1n << 29n)],
    ["split rings", (offered: bigint) => offered & ~RING_PACKED],
    ["split rings without event index", (offered: bigint) => offered & ~RING_PACKED & ~(1n << 29n)],
    ["nothing but what is mandatory", () => 0n],
  ])("has its requests answered over %s, many times around the ring", async (_what, choose) => {
    const { given } = plugEntropy("entropy0");
    const source = await withEntropy(connector, choose, 16);
    const got: number[] = [];
    for (let round = 0; round < 40; round++) {
      const answers = await Promise.all(
        Array.from({ length: 1 + (round % 16) }, () => source.read(1 + (round % 64))),
      );
      for (const bytes of answers) got.push(...bytes);
    }
    expect(got).toEqual(given);
    expect(source.interrupts).toBeGreaterThan(0);
  });

  it("resets one queue, with requests in it, and makes it anew with another size", async () => {
    const { device } = plugEntropy("entropy0");
    const source = await withEntropy(connector);
    expect(source.transport.features & RING_RESET).toBe(RING_RESET);
    expect(source.queue.ring.size).toBe(64);
    void source.read();
    expect(await source.transport.resetQueue(0)).toBe(true);
    expect(source.queue.ring.closed).toBe(true);
    source.queue.kick(); // harmless
    source.dropQueue(true);
    await source.makeQueue(4);
    expect(await source.read(8)).toHaveLength(8);
    expect(device.counters().requests).toBeGreaterThanOrEqual(1);
  });

  it("hears that the device was unplugged, and gives everything back", async () => {
    plugEntropy("entropy0");
    const source = await withEntropy(connector);
    await source.read();
    bus.disconnect("entropy0");
    await turns();
    expect(source.gone).toEqual([null]);
    expect(vbus.read("devices/entropy0/virtio_status")).toBe("0x0");
  });

  it("loses its device under load, and another one takes its place", async () => {
    plugEntropy("entropy0");
    const sources: EntropySource[] = [];
    const { proxy } = await addGuest(connector, [
      entropyDriver((bound) => sources.push(bound), undefined, 8),
    ]);
    for (let round = 0; round < 10; round++) {
      const source = sources[round]!;
      for (let i = 0; i < 8; i++) void source.read();
      bus.disconnect(`entropy${round}`);
      plugEntropy(`entropy${round + 1}`);
      await turns();
      await proxy.settled();
      expect(source.gone).toEqual([null]);
      expect(await sources[round + 1]!.read()).toHaveLength(64);
    }
  });
});

describe("a virtio driver in TypeScript", () => {
  it("gets the devices of its kind, and devices of unknown kinds stay unbound and closed", async () => {
    plugEntropy("entropy0");
    const recorder = new Recorder();
    vbus.registerClass(virtioClass({ name: "recorder", create: () => ({ face: recorder }) }));
    bus.connect(vbus.createDevice("recorder0", "recorder"));
    const bound: EntropySource[] = [];
    const { proxy, refused } = await addGuest("local", [entropyDriver((source) => bound.push(source))]);
    expect(bound).toHaveLength(1);
    expect(refused).toHaveLength(1);
    expect(refused[0]).toMatchObject({ code: "ENODEV" });
    expect(String(refused[0])).toContain(String(RECORDER_TYPE));
    expect(proxy.devices.map((device) => device.isOpen)).toEqual([true, false]);
    expect(() => virtioBusDriver([entropyDriver(() => 0), entropyDriver(() => 0)])).toThrow(
      expect.objectContaining({ code: "EEXIST" }),
    );
  });

  it("is refused features whose dependencies are not met, and gives the device up", async () => {
    const recorder = new Recorder();
    vbus.registerClass(virtioClass({ name: "recorder", create: () => ({ face: recorder }) }));
    bus.connect(vbus.createDevice("recorder0", "recorder"));
    const seen: string[] = [];
    const driver: VirtioDriver = {
      deviceType: RECORDER_TYPE,
      async probe(transport) {
        await expect(initializeVirtio(transport, () => FEATURE_B)).rejects.toMatchObject({
          code: "EOPNOTSUPP",
        });
        seen.push(bus.read("devices/recorder0/virtio_status"));
        seen.push(String(await initializeVirtio(transport, () => FEATURE_A | FEATURE_B)));
        seen.push(bus.read("devices/recorder0/virtio_status"));
        throw new Error("not today");
      },
      async remove() {
        throw new Error("never bound");
      },
    };
    const { refused } = await addGuest("local", [driver]);
    expect(refused).toEqual([new Error("not today")]);
    expect(seen).toEqual(["0x83", String(FEATURE_A | FEATURE_B | (1n << 32n)), "0xb"]);
    expect(bus.read("devices/recorder0/virtio_status")).toBe("0x0");
  });

  it("reads and writes configuration, and hears of changes", async () => {
    const recorder = new Recorder();
    vbus.registerClass(virtioClass({ name: "recorder", create: () => ({ face: recorder }) }));
    bus.connect(vbus.createDevice("recorder0", "recorder"));
    let transport: VirtioDriverTransport | null = null;
    let changes = 0;
    await addGuest("local", [
      {
        deviceType: RECORDER_TYPE,
        async probe(given) {
          transport = given;
          given.onConfigChange = () => changes++;
          await initializeVirtio(given, () => 0n);
          await expect(given.createQueue(2, { onInterrupt: () => 0 })).rejects.toMatchObject({
            code: "EINVAL",
          });
          await expect(given.createQueue(1, { size: 17, onInterrupt: () => 0 })).rejects.toMatchObject({
            code: "EINVAL",
          });
          await expect(given.createQueue(1, { size: 32, onInterrupt: () => 0 })).rejects.toMatchObject({
            code: "EINVAL",
          });
          await given.createQueue(1, { size: 8, onInterrupt: () => 0 });
          await expect(given.createQueue(1, { onInterrupt: () => 0 })).rejects.toMatchObject({
            code: "EEXIST",
          });
          await expect(given.resetQueue(1)).rejects.toMatchObject({ code: "EOPNOTSUPP" });
          await given.setStatus(4);
          return null;
        },
        async remove() {
          // the transport resets the device
        },
      },
    ]);
    const given = transport!;
    expect([given.deviceType, given.queueCount, given.configSize]).toEqual([RECORDER_TYPE, 2, 24]);
    expect([...(await given.readConfig(3, 2))]).toEqual([0x43, 0x44]);
    await given.writeConfig(5, Uint8Array.of(9, 8, 7));
    expect(recorder.written).toEqual([[5, [9, 8, 7]]]);
    await expect(given.readConfig(20, 5)).rejects.toMatchObject({ code: "EINVAL" });
    await expect(given.writeConfig(-1, Uint8Array.of(1))).rejects.toMatchObject({ code: "EINVAL" });
    recorder.context!.configChanged();
    await turns();
    expect(changes).toBe(1);
    recorder.context!.needsReset(new Error("broken inside"));
    await turns();
    expect(changes).toBe(2);
    expect(await given.status()).toBe(0x4f);
    expect(errors.splice(0)).toHaveLength(1);
  });

  it("hears, once, that the host ended its session", async () => {
    plugEntropy("entropy0");
    const source = await withEntropy("local");
    void source.read();
    bus.expel("guest0");
    await turns();
    expect(source.gone).toHaveLength(1);
    expect(source.gone[0]).toMatchObject({ code: "ENOTCONN" });
    await expect(source.transport.setStatus(1)).rejects.toMatchObject({ code: "ENOTCONN" });
    expect(await source.transport.reset()).toBe(true); // the session has let go of everything
    source.dropQueue(true);
    guests.length = 0;
  });
});
