import { VENET_FLUSHRX, VENET_LINKDOWN, VENET_LINKUP } from "vbus/abi";
import { VirtualScheduler } from "vbus/scheduler";
import { beforeEach, describe, expect, it } from "vitest";
import { TestMachine, testFrame } from "./machine.js";
import { hostBatch, TestPort } from "./port.js";
import { RawGuest } from "./raw-guest.js";
import { V4Nic } from "./v4-nic.js";

const FROM = [2, 0, 0, 0, 0, 1];
const MAC = [2, 0, 0, 0, 0, 0x0a];

let scheduler: VirtualScheduler;
let machine: TestMachine;
let port: TestPort;
let guest: RawGuest;
let nic: V4Nic;

function start(count = 8, mtu = 1500): void {
  scheduler = new VirtualScheduler();
  port = new TestPort();
  machine = new TestMachine(() => port, scheduler);
  machine.addNic("nic0");
  guest = new RawGuest(machine);
  guest.open();
  nic = new V4Nic(guest, count, false, mtu);
  expect(guest.call(VENET_LINKUP)).toBe(0);
  scheduler.run();
}

beforeEach(() => {
  start();
});

const frame = (length: number, n = 0): Uint8Array => testFrame(MAC, FROM, length, n);
/** Offers frames to the NIC; returns how many it took. */
async function deliver(...frames: Uint8Array[]): Promise<number> {
  const batch = await hostBatch(frames);
  return port.peer?.receive(batch, 0, frames.length) ?? -1;
}

describe("frames for a guest", () => {
  it("go into the posted buffers, unchanged and in order", async () => {
    const frames = [14, 60, 511, 512, 513, 1513, 1514].map(frame);
    expect(await deliver(...frames)).toBe(7);
    expect(nic.poll()).toBe(7);
    expect(nic.received).toEqual(frames);
    expect(machine.assertBalanced()["nic0"]?.rx).toMatchObject({ frames: 7, passed: 7 });
  });

  it("that are longer than the next buffer are dropped, and the buffer is kept for the next one", async () => {
    start(8, 100);
    const fits = [frame(60, 1), frame(114, 2), frame(61, 3)] as const;
    expect(await deliver(fits[0], frame(115), fits[1], frame(1514), fits[2])).toBe(5);
    expect(nic.poll()).toBe(3);
    expect(nic.received).toEqual([...fits]);
    expect(machine.assertBalanced()["nic0"]?.rx).toMatchObject({
      frames: 5,
      passed: 3,
      bytes: 235,
      drops: { "buffer-too-small": 2 },
    });
    // from another memory: small frames are gathered, carried over and scattered
    expect(machine.statistics("nic0").rxCopiedBytes).toBe(3 * 235);
  });

  it("push back when the ring is full: none is lost, and room for one lets one in", async () => {
    start(4);
    const frames = Array.from({ length: 9 }, (_, n) => frame(60 + n, n));
    const batch = await hostBatch(frames);
    let at = port.peer?.receive(batch, 0, 9) ?? 0;
    expect(at).toBe(4);
    expect(machine.statistics("nic0").rxCongested).toBe(1);
    port.onReady = () => {
      at += port.peer?.receive(batch, at, 9) ?? 0;
    };
    expect(nic.poll(1)).toBe(1);
    scheduler.run();
    expect(at).toBe(5);
    while (nic.poll() > 0) scheduler.run();
    expect(at).toBe(9);
    expect(nic.received).toEqual(frames);
    expect(machine.assertBalanced()["nic0"]?.rx).toMatchObject({ frames: 9, passed: 9, drops: {} });
  });

  it("are dropped as no-link when the link is down, and the next LINKUP continues at the same indexes", async () => {
    const { peer } = port;
    await deliver(frame(60, 1));
    guest.call(VENET_LINKDOWN);
    const batch = await hostBatch([frame(60, 2)]);
    expect(peer?.receive(batch, 0, 1)).toBe(1);
    expect(nic.poll()).toBe(1);
    guest.call(VENET_LINKUP);
    await deliver(frame(60, 3));
    expect(nic.poll()).toBe(1);
    expect(nic.received).toEqual([frame(60, 1), frame(60, 3)]);
    expect(machine.assertBalanced()["nic0"]?.rx).toMatchObject({
      frames: 3,
      passed: 2,
      drops: { "no-link": 1 },
    });
  });

  it.each([
    ["outside the guest's memory", 0x70000000, 1514],
    ["partly outside", 0x10000 + (2 << 20) - 100, 1514],
    ["at the end of the 64-bit space", 2 ** 64 - 2048, 1514],
    ["with a length that leads out", 0x10000, 0xffffffff],
  ])("break the queue, and only this one, when a buffer lies %s", async (_where, gpa, length) => {
    guest.client.close(guest.handle);
    guest.open();
    const { rx, tx, txSignal } = guest.rings();
    const before = guest.memory.space.copyFrom(0x10000, 64);
    const descriptor = new Uint8Array(32);
    const view = new DataView(descriptor.buffer);
    view.setBigUint64(8, BigInt(gpa), true);
    view.setBigUint64(16, BigInt(length), true);
    descriptor.set([1, 1], 24); // valid, and south's
    guest.memory.space.copyTo(rx.gpa + 56, descriptor);
    guest.call(VENET_LINKUP);
    scheduler.run();
    expect(await deliver(frame(60), frame(61))).toBe(2);
    expect(await deliver(frame(60))).toBe(1);
    const queues = JSON.parse(machine.bus.read("devices/nic0/queues")) as Record<
      string,
      { violations: object }
    >;
    expect(queues["rx"]?.violations).toEqual({ address: 1 });
    expect(machine.assertBalanced()["nic0"]?.rx).toMatchObject({
      frames: 3,
      passed: 0,
      drops: { broken: 3 },
    });
    expect(machine.errors.splice(0)).toMatchObject([{ source: "devices/nic0" }]);
    expect(guest.memory.space.copyFrom(0x10000, 64)).toEqual(before);
    // the other ring goes on
    const out = frame(60);
    const at = guest.memory.ram.allocate(60);
    guest.memory.space.copyTo(at, out);
    view.setBigUint64(8, BigInt(at), true);
    view.setBigUint64(16, 60n, true);
    guest.memory.space.copyTo(tx.gpa + 56, descriptor);
    tx.queue.inject();
    guest.client.signal(txSignal);
    scheduler.run();
    expect(port.sent).toEqual([out]);
  });

  it("are heard by a guest that was masked: the deferred wake-up of its enable", async () => {
    nic.rx.queue.disable();
    await deliver(frame(60));
    expect(guest.events().filter((e) => e.kind === "shmsignal")).toEqual([]);
    expect(nic.rx.queue.enable(0)).toBe(true); // schedule a wake-up
  });
});

describe("notifications of the RX ring", () => {
  it("the host is unmasked only while it waits for buffers", async () => {
    start(4);
    await deliver(frame(60), frame(60));
    nic.poll();
    expect(nic.doorbells).toBe(0);
    expect(await deliver(...Array.from({ length: 6 }, () => frame(60)))).toBe(4);
    nic.poll();
    scheduler.run();
    expect(nic.doorbells).toBe(1);
    expect(port.readyCalls).toBe(1);
    await deliver(frame(60));
    nic.poll();
    expect(nic.doorbells).toBe(1);
  });

  it("a burst of frames is one signal", async () => {
    await deliver(...Array.from({ length: 8 }, () => frame(60)));
    expect(guest.events().filter((e) => e.kind === "shmsignal")).toHaveLength(1);
  });

  it("a wake-up that a guest swallows before it polls (V12) is repaired, with a full ring", async () => {
    start(4);
    nic.deaf = true;
    expect(await deliver(...Array.from({ length: 6 }, (_, n) => frame(60, n)))).toBe(4);
    nic.interrupts();
    expect(nic.received).toEqual([]);
    nic.deaf = false;
    scheduler.advance(200);
    nic.interrupts();
    expect(nic.received).toHaveLength(4);
  });

  it("… and with a single frame in the ring, after which none comes", async () => {
    nic.deaf = true;
    await deliver(frame(60));
    nic.interrupts();
    nic.deaf = false;
    expect(nic.received).toEqual([]);
    scheduler.advance(200);
    nic.interrupts();
    expect(nic.received).toHaveLength(1);
  });

  it("a guest that has taken everything is left alone by the recheck", async () => {
    await deliver(frame(60));
    nic.interrupts();
    scheduler.advance(1000);
    expect(nic.interrupts()).toBe(0);
  });
});

describe("FLUSHRX", () => {
  it("returns every posted buffer empty, without a signal, and the host waits for new ones", async () => {
    await deliver(frame(60, 1), frame(60, 2));
    guest.events();
    expect(guest.call(VENET_FLUSHRX)).toBe(0);
    expect(guest.events()).toEqual([]);
    expect(machine.statistics("nic0").flushed).toBe(6);
    expect(nic.poll()).toBe(8);
    expect(nic.flushed).toBe(6);
    expect(nic.received).toHaveLength(2);
    scheduler.run();
    expect(port.readyCalls).toBeGreaterThan(0);
    expect(await deliver(frame(60, 3))).toBe(1);
    expect(nic.poll()).toBe(1);
    expect(nic.received[2]).toEqual(frame(60, 3));
  });

  it("from the interrupt of a delivery under way lets it end in order: no frame in a flushed buffer, none twice (V5)", async () => {
    start(100);
    const frames = Array.from({ length: 90 }, (_, n) => frame(60 + n, n));
    const batch = await hostBatch(frames);
    let interrupts = 0;
    guest.client.onEvents = () => {
      if (interrupts++ > 0) return;
      expect(guest.call(VENET_FLUSHRX)).toBe(0);
    };
    guest.events();
    let at = port.peer?.receive(batch, 0, 90) ?? 0;
    expect(interrupts).toBe(1);
    expect(at).toBe(64); // the burst that was announced; the next one found no buffer
    expect(machine.statistics("nic0").flushed).toBe(36);
    expect(nic.poll()).toBe(100);
    expect(nic.flushed).toBe(36);
    scheduler.run();
    at += port.peer?.receive(batch, at, 90) ?? 0;
    expect(at).toBe(90);
    expect(nic.poll()).toBe(26);
    expect(nic.received).toEqual(frames);
    expect(machine.assertBalanced()["nic0"]?.rx).toMatchObject({ frames: 90, passed: 90, drops: {} });
    expect(machine.errors).toEqual([]);
  });

  it("twice in a row finds nothing the second time", () => {
    expect(guest.call(VENET_FLUSHRX)).toBe(0);
    expect(guest.call(VENET_FLUSHRX)).toBe(0);
    expect(machine.statistics("nic0").flushed).toBe(8);
    expect(nic.poll()).toBe(8);
  });

  it("on a broken ring is an error for the guest and reported once", () => {
    guest.memory.space.copyTo(nic.rx.gpa + 56 + 25, new Uint8Array([7]));
    expect(guest.call(VENET_FLUSHRX)).toBeLessThan(0);
    expect(guest.call(VENET_FLUSHRX)).toBeLessThan(0);
    expect(machine.errors.splice(0)).toHaveLength(1);
  });
});
