/** Guests written in TypeScript behind a register page: the proxy bus and venet, over the line of a machine without PCI. */
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { Vbus, type Bus } from "vbus/bus";
import { VbusMmio } from "vbus/connectors/mmio";
import { venetClass } from "vbus/devices/venet";
import { connectMmio, ProxyBus, type GuestTransport, type MmioPage } from "vbus/drivers";
import { VenetDriver, type VenetNic } from "vbus/drivers/venet";
import { allocateGuestMemory, GuestMemory, openHostView, type GuestMemoryInit } from "vbus/memory";
import { MemorySpace } from "vbus/memory";
import { Switch } from "vbus/net";
import { EventLoopScheduler } from "vbus/scheduler";
import { pause } from "../event-loop.js";
import { expectFrames, testFrame } from "../venet/machine.js";

const FRAMES = 500;

let vbus: Vbus;
let bus: Bus;
let errors: unknown[];
let scheduler: EventLoopScheduler;
let net: Switch;
let guests: TypeScriptGuest[];

beforeEach(async () => {
  errors = [];
  guests = [];
  scheduler = new EventLoopScheduler((error) => errors.push(error));
  vbus = new Vbus({ scheduler });
  vbus.on("error", (event) => errors.push(event));
  net = new Switch({ scheduler, space: await MemorySpace.host() });
  vbus.registerClass(venetClass({ port: (nic) => net.addPort(nic) }));
});

afterEach(async () => {
  for (const guest of guests) await guest.close();
  net.close();
  vbus.close();
  expect(errors).toEqual([]);
});

/** One guest on a bus of its own, with one NIC on the switch. */
class TypeScriptGuest {
  bus!: Bus;
  nic!: VenetNic;
  proxy: ProxyBus | null = null;
  transport: GuestTransport | null = null;
  page!: VbusMmio;
  lost: Error[] = [];
  /** The handler, once there is one. */
  handler = (): void => undefined;

  constructor(
    readonly name: string,
    readonly init: GuestMemoryInit = allocateGuestMemory({ size: 4 << 20 }),
  ) {}

  get registers(): MmioPage {
    return {
      read: (offset) => this.page.read(offset, 4),
      write: (offset, value) => {
        this.page.write(offset, 4, value);
      },
    };
  }

  async plug(): Promise<this> {
    bus = this.bus = vbus.createBus(this.name);
    bus.admit("guest");
    bus.connect(vbus.createDevice(`nic-${this.name}`, "venet", { enabled: "1" }));
    this.page = new VbusMmio({
      bus,
      member: "guest",
      memory: await openHostView(this.init),
      scheduler,
      interrupt: (asserted) => {
        if (asserted) this.handler();
      },
      onError: (error) => errors.push(error),
    });
    guests.push(this);
    return this;
  }

  async start(): Promise<this> {
    const memory = await GuestMemory.open(this.init);
    const { transport, interrupt } = await connectMmio({
      page: this.registers,
      memory,
      scheduler,
      eventCount: 64,
    });
    this.handler = interrupt;
    this.transport = transport;
    const proxy = new ProxyBus(transport, {
      error: (_device, error) => errors.push(error),
      lost: (error) => this.lost.push(error),
    });
    this.proxy = proxy;
    const found = new Promise<VenetNic>((resolve) => {
      proxy.registerDriver(new VenetDriver(resolve));
    });
    await proxy.start();
    this.nic = await found;
    await this.nic.open();
    return this;
  }

  async close(): Promise<void> {
    await this.proxy?.close();
    this.page.close();
  }
}

async function exchange(from: VenetNic, to: VenetNic): Promise<void> {
  const sent = Array.from({ length: FRAMES }, (_, n) =>
    testFrame(to.mac, from.mac, 60 + ((n * 29) % 1400), n),
  );
  const sending = from.send(sent);
  const received: Uint8Array[] = [];
  while (received.length < FRAMES) received.push(...(await to.receive()));
  await sending;
  expectFrames(received, sent);
}

describe("guests written in TypeScript behind register pages", () => {
  it("find their NICs and exchange frames in both directions, told by interrupts alone", async () => {
    const a = await (await new TypeScriptGuest("a").plug()).start();
    const b = await (await new TypeScriptGuest("b").plug()).start();
    await exchange(a.nic, b.nic);
    await exchange(b.nic, a.nic);
    for (const { page } of [a, b]) {
      const { lines, acknowledged, ignored } = page.counters();
      expect(lines).toBeGreaterThan(0);
      expect(acknowledged).toBe(lines);
      expect(ignored).toBe(0);
    }
  });

  it("leave, which resets the page, and come again", async () => {
    const a = await (await new TypeScriptGuest("a").plug()).start();
    await a.proxy?.close();
    expect(a.page.read(0x54, 4)).toBe(0);
    await a.start();
    const b = await (await new TypeScriptGuest("b").plug()).start();
    await exchange(a.nic, b.nic);
    expect(a.page.counters().resets).toBeGreaterThanOrEqual(2);
  });

  it("notice in their next call that the host took them off the bus", async () => {
    const a = await (await new TypeScriptGuest("a").plug()).start();
    a.bus.expel("guest");
    await expect(a.transport!.open(0, 1)).rejects.toMatchObject({ code: "ENOTCONN" });
    await pause(5);
    expect(a.lost).toEqual([expect.objectContaining({ code: "ENOTCONN" })]);
  });
});

describe("a register page that is taken away", () => {
  it("is noticed in the next call, though all of it reads as 0", async () => {
    const a = await (await new TypeScriptGuest("a").plug()).start();
    a.page.close();
    const dead = { read: () => 0, write: () => undefined };
    Object.defineProperty(a, "page", {
      value: { ...dead, close: () => undefined, counters: a.page.counters },
    });
    await expect(a.transport!.open(0, 1)).rejects.toMatchObject({ code: "ENOTCONN" });
    await pause(5);
    expect(a.lost).toEqual([expect.objectContaining({ code: "ENOTCONN" })]);
  });
});

describe("what is no register page of a bus", () => {
  const memory = async (): Promise<GuestMemory> => GuestMemory.open(allocateGuestMemory({ size: 1 << 16 }));
  const page = (words: number[]): MmioPage => ({
    read: (offset) => words[offset / 4] ?? 0,
    write: () => {
      throw new Error("a page that is not ours was written to");
    },
  });

  it("is told by its first word, and not touched", async () => {
    for (const magic of [0, 0x74726976, 0xffffffff])
      await expect(
        connectMmio({ page: page([magic]), memory: await memory(), scheduler }),
      ).rejects.toMatchObject({ code: "ENODEV" });
  });

  it("of this version is told by its second", async () => {
    await expect(
      connectMmio({ page: page([0x73756276, 2]), memory: await memory(), scheduler }),
    ).rejects.toThrow(/version 2; this driver knows version 1/);
  });
});
