import { VENET_LINKDOWN, VENET_LINKUP } from "vbus/abi";
import { VirtualScheduler } from "vbus/scheduler";
import { beforeEach, describe, expect, it } from "vitest";
import { TestMachine, testFrame } from "./machine.js";
import { TestPort } from "./port.js";
import { RawGuest } from "./raw-guest.js";
import { V4Nic } from "./v4-nic.js";

const TO = [2, 0, 0, 0, 0, 1];
const MAC = [2, 0, 0, 0, 0, 0x0a];

let scheduler: VirtualScheduler;
let machine: TestMachine;
let port: TestPort;
let guest: RawGuest;
let nic: V4Nic;

/** A frame with an EtherType. */
function tagged(etherType: number, length: number): Uint8Array {
  const frame = testFrame(TO, MAC, length);
  frame.set([etherType >> 8, etherType & 255], 12);
  return frame;
}

function start(count = 8): void {
  scheduler = new VirtualScheduler();
  port = new TestPort();
  machine = new TestMachine(() => port, scheduler);
  machine.addNic("nic0", { client_mac: "02:00:00:00:00:0a" });
  guest = new RawGuest(machine, "raw", { size: 8 << 20 });
  guest.open();
  nic = new V4Nic(guest, count);
  expect(guest.call(VENET_LINKUP)).toBe(0);
  scheduler.run();
}

beforeEach(() => {
  start();
});

/** The one and only frame between two good ones is dropped for a reason, and all descriptors come back. */
function expectDrop(
  reason: string,
  bad: Uint8Array,
  descriptor: { gpa?: number; length?: number } = {},
): void {
  const neighbours = [testFrame(TO, MAC, 60, 1), testFrame(TO, MAC, 61, 2)] as const;
  nic.send(neighbours[0]);
  nic.send(bad, descriptor);
  nic.send(neighbours[1]);
  scheduler.run();
  expect(port.sent.splice(0)).toEqual([...neighbours]);
  expect(nic.reap()).toBe(3);
  const { tx } = machine.assertBalanced()["nic0"] ?? { tx: null };
  expect(tx).toMatchObject({ frames: 3, passed: 2, bytes: 121, drops: { [reason]: 1 } });
  expect(machine.errors).toEqual([]);
}

describe("frames that a guest sends", () => {
  it.each([14, 15, 16, 17, 60, 1513, 1514])("pass with %i bytes", (length) => {
    const frame = testFrame(TO, MAC, length);
    nic.send(frame);
    scheduler.run();
    expect(port.sent).toEqual([frame]);
  });

  it.each([0, 1, 13])("are dropped as undersize with %i bytes, their neighbours delivered", (length) => {
    expectDrop("undersize", testFrame(TO, MAC, 14).subarray(0, length));
  });

  it.each([1515, 9000, 65535])(
    "are dropped as oversize with %i bytes, their neighbours delivered",
    (length) => {
      expectDrop("oversize", testFrame(TO, MAC, length));
    },
  );

  it.each([
    ["one 802.1Q tag", 0x8100, 1518],
    ["a service tag", 0x88a8, 1522],
  ])("may be longer by %s, and no more", (_what, etherType, limit) => {
    const frame = tagged(etherType, limit);
    nic.send(frame);
    scheduler.run();
    expect(port.sent.splice(0)).toEqual([frame]);
    nic.send(tagged(etherType, limit + 1));
    scheduler.run();
    expect(port.sent).toEqual([]);
    expect(machine.assertBalanced()["nic0"]?.tx.drops).toEqual({ oversize: 1 });
  });

  it("do not inherit the tag of a frame that lay in the same place before", () => {
    nic.send(tagged(0x88a8, 1522));
    scheduler.run();
    for (let i = 0; i < 16; i++) {
      nic.reap();
      nic.send(testFrame(TO, MAC, 1515));
      scheduler.run();
    }
    expect(port.sent).toHaveLength(1);
    expect(machine.assertBalanced()["nic0"]?.tx.drops).toEqual({ oversize: 16 });
  });

  it.each([
    ["behind the guest's memory", 0x70000000],
    ["in its last bytes, reaching out", 0x10000 + (8 << 20) - 30],
    ["at address 0", 0],
    ["below its memory", 0xffff],
    ["above 4 GiB", 2 ** 32 + 0x10000],
    ["at the end of the 64-bit space, wrapping", 2 ** 64 - 2048],
  ])("are dropped as bad-address when they lie %s, their neighbours delivered", (_where, gpa) => {
    expectDrop("bad-address", testFrame(TO, MAC, 60), { gpa });
  });

  it("are dropped when the length alone leads out of the guest's memory", () => {
    expectDrop("bad-address", testFrame(TO, MAC, 60), { length: 0xffffffff });
  });

  it("follow the MTU of the host from one frame to the next", () => {
    const long = testFrame(TO, MAC, 1515);
    nic.send(long);
    scheduler.run();
    machine.bus.write("devices/nic0/mtu", "1501");
    nic.send(long);
    scheduler.run();
    machine.bus.write("devices/nic0/mtu", "68");
    nic.send(testFrame(TO, MAC, 83));
    nic.send(testFrame(TO, MAC, 82));
    scheduler.run();
    expect(port.sent.map((f) => f.length)).toEqual([1515, 82]);
    expect(machine.assertBalanced()["nic0"]?.tx.drops).toEqual({ oversize: 2 });
  });

  it("wait in the ring while the network has no room, in order, and nothing is lost", () => {
    port.room = 3;
    const frames = Array.from({ length: 8 }, (_, n) => testFrame(TO, MAC, 60 + n, n));
    for (const frame of frames) expect(nic.send(frame)).toBe(true);
    scheduler.run();
    expect(port.sent).toHaveLength(3);
    expect(nic.send(frames[0] as Uint8Array)).toBe(false); // valid is full until the guest reaps
    expect(nic.reap()).toBe(3);
    port.open(1);
    scheduler.run();
    expect(port.sent).toHaveLength(4);
    port.open(Infinity);
    scheduler.run();
    expect(port.sent).toEqual(frames);
    expect(nic.reap()).toBe(5);
    const { tx, txCongested } = machine.statistics("nic0");
    expect(tx).toMatchObject({ frames: 8, passed: 8 });
    expect(txCongested).toBe(2);
    machine.assertBalanced();
  });

  it("that wait while bad ones lie between them keep their order", () => {
    port.room = 1;
    for (let n = 0; n < 8; n++) nic.send(testFrame(TO, MAC, n % 2 === 0 ? 60 + n : 2000, n));
    scheduler.run();
    for (let i = 0; i < 8; i++) {
      port.open(1);
      scheduler.run();
    }
    expect(port.sent.map((f) => f.length)).toEqual([60, 62, 64, 66]);
    expect(nic.reap()).toBe(8);
    expect(machine.assertBalanced()["nic0"]?.tx).toMatchObject({
      frames: 8,
      passed: 4,
      drops: { oversize: 4 },
    });
  });

  it("stay in the ring at LINKDOWN and are sent after the next LINKUP, at the same indexes", () => {
    nic.send(testFrame(TO, MAC, 60, 1));
    scheduler.run();
    expect(guest.call(VENET_LINKDOWN)).toBe(0);
    nic.send(testFrame(TO, MAC, 61, 2));
    nic.send(testFrame(TO, MAC, 62, 3));
    scheduler.run();
    expect(port.sent).toHaveLength(1);
    expect(guest.call(VENET_LINKUP)).toBe(0);
    scheduler.run();
    expect(port.sent.map((f) => f.length)).toEqual([60, 61, 62]);
    expect(nic.tx.queue.countOf("inuse")).toBe(0);
    expect(nic.reap()).toBe(3);
  });

  it("that nobody took before the close are counted as closed", () => {
    port.room = 2;
    for (let n = 0; n < 5; n++) nic.send(testFrame(TO, MAC, 60));
    scheduler.run();
    guest.client.close(guest.handle);
    expect(machine.assertBalanced()["nic0"]?.tx).toMatchObject({
      frames: 5,
      passed: 2,
      drops: { closed: 3 },
    });
  });

  it("leave other work of the thread its turn however many there are", () => {
    start(2048);
    let others = 0;
    for (let n = 0; n < 2048; n++) nic.send(testFrame(TO, MAC, 60));
    scheduler.post(() => others++);
    const ran = scheduler.run();
    expect(others).toBe(1);
    expect(ran).toBeGreaterThan(4);
    expect(port.sent).toHaveLength(2048);
  });
});

describe("notifications of the TX ring", () => {
  const host = (): { sent: number; masked: number; suppressed: number; wakeups: number } =>
    (JSON.parse(machine.bus.read("devices/nic0/queues")) as { tx: ReturnType<typeof host> }).tx;

  it("one doorbell is enough for everything that is sent before the host looks", () => {
    for (let n = 0; n < 8; n++) nic.send(testFrame(TO, MAC, 60));
    expect(nic.doorbells).toBe(1);
    expect(nic.tx.queue.counters()).toMatchObject({ sent: 1 });
    scheduler.run();
    expect(port.sent).toHaveLength(8);
  });

  it("a busy sender rings no more than once per drain: the host is masked while it works", () => {
    start(64);
    for (let round = 0; round < 50; round++) {
      for (let n = 0; n < 32; n++) nic.send(testFrame(TO, MAC, 60));
      scheduler.run();
      nic.reap();
    }
    expect(port.sent).toHaveLength(1600);
    expect(nic.doorbells).toBeLessThanOrEqual(50);
    const { suppressed, masked } = nic.tx.queue.counters();
    expect(suppressed + masked).toBe(1600 - nic.doorbells);
  });

  it.each([
    [0, 4],
    [1, 4],
    [10, 4],
    [64, 4],
    [100, 2],
    [100_000, 1],
  ])(
    "with txmitigation %i, 256 frames in bursts of 64 are completed with %i signals",
    (mitigation, signals) => {
      start(256);
      machine.bus.write("devices/nic0/txmitigation", String(mitigation));
      nic.signals = false;
      for (let n = 0; n < 256; n++) nic.send(testFrame(TO, MAC, 60));
      guest.client.signal(1);
      scheduler.run();
      expect(port.sent).toHaveLength(256);
      const { sent, masked, suppressed } = host();
      expect(sent + masked + suppressed).toBe(signals);
      expect(guest.events().filter((e) => e.kind === "shmsignal")).toHaveLength(1); // coalesced
    },
  );

  it("the last completion is signalled whatever the mitigation says", () => {
    machine.bus.write("devices/nic0/txmitigation", "4294967295");
    nic.send(testFrame(TO, MAC, 60));
    scheduler.run();
    expect(guest.events().filter((e) => e.kind === "shmsignal")).toHaveLength(1);
  });

  it("a guest that never signals is served by the recheck", () => {
    nic.signals = false;
    nic.tx.queue.disable();
    nic.send(testFrame(TO, MAC, 60));
    scheduler.run();
    expect(port.sent).toHaveLength(0);
    scheduler.advance(100);
    expect(port.sent).toHaveLength(1);
    nic.send(testFrame(TO, MAC, 60));
    nic.send(testFrame(TO, MAC, 60));
    scheduler.advance(200);
    expect(port.sent).toHaveLength(3);
  });

  it("after LINKDOWN the host is masked, and no timer runs", () => {
    guest.call(VENET_LINKDOWN);
    nic.send(testFrame(TO, MAC, 60));
    expect(nic.doorbells).toBe(0);
    scheduler.advance(1000);
    expect(port.sent).toEqual([]);
  });

  it("a doorbell that arrives after the close rings nowhere", () => {
    guest.client.close(guest.handle);
    expect(guest.client.signal(0)).toBeLessThan(0);
    expect(guest.client.signal(1)).toBeLessThan(0);
    scheduler.advance(1000);
    expect(machine.errors).toEqual([]);
  });
});
