import { VENET_LINKDOWN, VENET_LINKUP } from "vbus/abi";
import { VirtualScheduler } from "vbus/scheduler";
import { describe, expect, it } from "vitest";
import { TestMachine, testFrame } from "./machine.js";
import { EVENT_COOKIE, EVERYTHING, ModernNic, shmSignals, type ModernOptions } from "./modern-nic.js";
import { TestPort } from "./port.js";
import { RawGuest, TX_COOKIE } from "./raw-guest.js";

const TO = [2, 0, 0, 0, 0, 1];
const MAC = [2, 0, 0, 0, 0, 0x0a];
const LINKSTATE = 1;
const TXC = 2;

let scheduler: VirtualScheduler;
let machine: TestMachine;
let port: TestPort;
let guest: RawGuest;
let nic: ModernNic;

function start(options: ModernOptions = {}, attributes: Record<string, string> = { txc: "1" }): void {
  scheduler = new VirtualScheduler();
  port = new TestPort();
  machine = new TestMachine(() => port, scheduler);
  machine.addNic("nic0", attributes);
  guest = new RawGuest(machine, "raw", { size: 8 << 20 });
  guest.open();
  nic = new ModernNic(guest, { sg: EVERYTHING, events: EVERYTHING, ...options });
}

function up(): void {
  expect(guest.call(VENET_LINKUP)).toBe(0);
}

const link = (state: "up" | "down"): void => {
  machine.bus.write("devices/nic0/link", state);
};
const states = (): number[] => nic.events.filter((event) => event.id === 0).map((event) => event.state);
const frame = (n = 0, length = 60): { bytes: Uint8Array } => ({ bytes: testFrame(TO, MAC, length, n) });

describe("link state events", () => {
  it("say up at LINKUP, before anything that was sent is looked at", () => {
    start({ events: LINKSTATE });
    nic.send(frame());
    up();
    expect(port.sent).toEqual([]);
    expect(shmSignals(guest.events(), EVENT_COOKIE)).toBe(1);
    expect(nic.takeEvents()).toBe(1);
    expect(nic.events).toMatchObject([{ id: 0, size: 16, state: 1 }]);
    scheduler.run();
    expect(port.sent).toHaveLength(1);
    expect(machine.statistics("nic0").events).toBe(1);
  });

  it("follow the attribute link, one for each change", () => {
    start({ events: LINKSTATE });
    up();
    link("down");
    link("down");
    link("up");
    link("up");
    expect(nic.takeEvents()).toBe(3);
    expect(states()).toEqual([1, 0, 1]);
  });

  it("are not told at LINKDOWN, and again at the next LINKUP", () => {
    start({ events: LINKSTATE });
    up();
    guest.call(VENET_LINKDOWN);
    link("down");
    link("up");
    expect(nic.takeEvents()).toBe(1);
    up();
    expect(nic.takeEvents()).toBe(1);
    expect(states()).toEqual([1, 1]);
  });

  it("are not told at LINKUP while the carrier is away, and told when it comes", () => {
    start({ events: LINKSTATE });
    link("down");
    up();
    expect(port.peer).toBeNull();
    expect(nic.takeEvents()).toBe(0);
    link("up");
    expect(port.peer).not.toBeNull();
    nic.takeEvents();
    expect(states()).toEqual([1]);
  });

  it("a guest that was told of a carrier hears at LINKUP that it has gone meanwhile", () => {
    start({ events: LINKSTATE });
    up();
    guest.call(VENET_LINKDOWN);
    link("down");
    up();
    nic.takeEvents();
    expect(states()).toEqual([1, 0]);
  });

  it("are never sent when they were not granted, or have nowhere to go (V6)", () => {
    for (const options of [{ events: undefined }, { events: TXC }, { eventQueue: false }]) {
      start(options);
      up();
      link("down");
      link("up");
      expect(nic.takeEvents()).toBe(0);
      expect(machine.statistics("nic0").events).toBe(0);
      expect(machine.errors).toEqual([]);
    }
  });

  it("that a guest never drains take no memory: of those that wait only the last is told, once there is room", () => {
    start({ events: LINKSTATE, count: 4 });
    up();
    const arena = guest.host.arena.available;
    for (let n = 0; n < 1001; n++) link(n % 2 === 0 ? "down" : "up");
    expect(guest.host.arena.available).toBe(arena);
    expect(nic.takeEvents()).toBe(4);
    scheduler.run();
    expect(nic.takeEvents()).toBe(1);
    expect(states()).toEqual([1, 0, 1, 0, 0]);
    expect(machine.statistics("nic0").events).toBe(5);
    scheduler.advance(1000);
    expect(nic.takeEvents()).toBe(0);
  });

  it("an event descriptor outside the pool breaks the event queue only", () => {
    for (const gpa of [169n, 192n, 1n << 32n, 2n ** 64n - 8n]) {
      start({ events: LINKSTATE });
      const pointer = new Uint8Array(8);
      new DataView(pointer.buffer).setBigUint64(0, gpa, true);
      guest.memory.space.copyTo((nic.eventRing?.gpa ?? 0) + 56 + 8, pointer);
      up();
      expect(machine.errors.splice(0)).toHaveLength(1);
      link("down");
      link("up");
      nic.send(frame());
      scheduler.run();
      expect(port.sent).toHaveLength(1);
      expect(nic.reap()).toBe(1);
      expect(machine.errors).toEqual([]);
      const queues = JSON.parse(machine.bus.read("devices/nic0/queues")) as {
        events: { violations: unknown };
      };
      expect(queues.events.violations).toEqual({ descriptor: 1 });
    }
  });

  it("an event descriptor at the very end of the pool is fine", () => {
    start({ events: LINKSTATE });
    const pointer = new Uint8Array(8);
    new DataView(pointer.buffer).setBigUint64(0, 168n, true);
    guest.memory.space.copyTo((nic.eventRing?.gpa ?? 0) + 56 + 8, pointer);
    up();
    const event = new DataView(guest.memory.space.copyFrom(nic.eventPool + 168, 16).buffer);
    expect([0, 4, 8, 12].map((at) => event.getUint32(at, true))).toEqual([0, 16, 0, 1]);
  });
});

describe.each([
  ["scatter-gather", { sg: EVERYTHING }],
  ["linear", { sg: undefined }],
  ["scatter-gather, 28-byte descriptors", { sg: EVERYTHING, ilp32: true }],
] satisfies [string, ModernOptions][])("completion events, %s", (_mode, options) => {
  it("quote each frame's cookie once, in order, strictly after the pop; the TX ring is never signalled", () => {
    start({ events: TXC, ...options });
    up();
    guest.events();
    const sent = [1, 2, 3, 4, 5].map((n) => nic.send(frame(n)));
    scheduler.run();
    const events = guest.events();
    expect(shmSignals(events, TX_COOKIE)).toBe(0);
    expect(shmSignals(events, EVENT_COOKIE)).toBe(1);
    expect(nic.takeEvents()).toBe(5);
    expect(nic.freed).toEqual(sent);
    for (const event of nic.events) expect(event).toMatchObject({ id: 1, size: 24, unpopped: 0 });
    expect(nic.tx.queue.countOf("valid")).toBe(0);
    expect(machine.statistics("nic0").events).toBe(5);
  });

  it("come for frames that were dropped, too (V1)", () => {
    start({ events: TXC, ...options });
    up();
    const tiny = { bytes: frame().bytes.subarray(0, 10) };
    const sent = [nic.send(frame(1)), nic.send(frame(2, 1600)), nic.send(tiny), nic.send(frame(4))];
    scheduler.run();
    expect(nic.takeEvents()).toBe(4);
    expect(nic.freed).toEqual(sent);
    expect(machine.assertBalanced()["nic0"]?.tx.drops).toEqual({ oversize: 1, undersize: 1 });
  });

  it("come while the port pushes back, for what it took", () => {
    start({ events: TXC, ...options });
    up();
    port.room = 2;
    const sent = [1, 2, 3].map((n) => nic.send(frame(n)));
    scheduler.run();
    expect(nic.takeEvents()).toBe(2);
    port.open(1);
    scheduler.run();
    expect(nic.takeEvents()).toBe(1);
    expect(nic.freed).toEqual(sent);
  });
});

describe("completion events", () => {
  it("are not sent for descriptors whose VSG could not be read: nobody knows its cookie", () => {
    start({ events: TXC });
    up();
    nic.sendVsg({ cookie: 77n, iovs: [] }, [], { gpa: 2 ** 40, length: 48 });
    nic.sendVsg({ cookie: 78n, iovs: [], count: 5 }, [], { length: 48 });
    scheduler.run();
    expect(nic.takeEvents()).toBe(1);
    expect(nic.freed).toEqual([78n]);
    expect(machine.assertBalanced()["nic0"]?.tx.drops).toEqual({ "bad-address": 1, "bad-descriptor": 1 });
  });

  it("quote all 64 bits of a cookie", () => {
    start({ events: TXC });
    up();
    const cookie = 0xfedc_ba98_7654_3210n;
    nic.send(frame(), [30], { cookie });
    scheduler.run();
    nic.takeEvents();
    expect(nic.freed).toEqual([cookie]);
  });

  it.each([
    [0, 4],
    [10, 4],
    [100, 2],
    [1_000_000, 1],
  ])("with txmitigation %i, 256 frames in bursts of 64 are told with %i signals", (mitigation, signals) => {
    start({ events: TXC, count: 256 }, { txc: "1", txmitigation: String(mitigation) });
    up();
    for (let n = 0; n < 256; n++) nic.send(frame(n));
    scheduler.run();
    const { events } = JSON.parse(machine.bus.read("devices/nic0/queues")) as {
      events: { sent: number; masked: number; suppressed: number };
    };
    expect(events.sent + events.masked + events.suppressed).toBe(signals);
    expect(nic.takeEvents()).toBe(256);
  });

  it("wait in order while the event ring is full, behind the link's state", () => {
    start({ events: EVERYTHING, count: 4 });
    up();
    for (let round = 0; round < 20; round++) {
      const sent = [1, 2, 3, 4].map((n) => nic.send(frame(n)));
      scheduler.run();
      link("down");
      link("up");
      for (let quiet = 0; quiet < 2; quiet = nic.takeEvents(1) + scheduler.run() === 0 ? quiet + 1 : 0);
      expect(nic.freed.splice(0)).toEqual(sent);
    }
    expect(states().at(-1)).toBe(1);
    expect(port.sent).toHaveLength(80);
  });

  it.each(["10", "1000000"])(
    "that a guest does not drain stop its own sending at 2048, and it resumes when they are drained (txmitigation %s)",
    (txmitigation) => {
      // a guest of 2010: descriptors come back by inuse alone, so it can send far more than it reaps
      start({ events: TXC, count: 128, inuseOnly: true }, { txc: "1", txmitigation });
      up();
      const memory = guest.memory.ram.allocate(60, 4);
      guest.memory.space.copyTo(memory, testFrame(TO, MAC, 60));
      let sent = 0;
      const iovs = [{ length: 60, ptr: BigInt(memory) }];
      const push = (): void => {
        while (sent < 4000 && nic.tx.queue.countOf("inuse") < 128) {
          // whoever does not wait for completions is not this driver: its own bound is bypassed
          nic.sendUnbounded({ cookie: BigInt(sent++), iovs });
        }
      };
      for (let n = 0; n < 100; n++) {
        push();
        scheduler.run();
      }
      const stopped = port.sent.length;
      expect(stopped).toBeGreaterThanOrEqual(2048);
      expect(stopped).toBeLessThan(2048 + 128 + 64 + 128);
      scheduler.advance(1000);
      expect(port.sent).toHaveLength(stopped);
      for (let n = 0; n < 1000 && nic.freed.length < 4000; n++) {
        nic.takeEvents();
        scheduler.run();
        push();
        scheduler.run();
      }
      expect(nic.freed).toEqual(Array.from({ length: 4000 }, (_, n) => BigInt(n)));
      expect(port.sent).toHaveLength(4000);
      expect(machine.errors).toEqual([]);
    },
  );

  it("a sender that waits for events goes on when they are drained, whatever makes the host look first", () => {
    start({ events: EVERYTHING, count: 128, inuseOnly: true }, { txc: "1" });
    up();
    const memory = guest.memory.ram.allocate(60, 4);
    guest.memory.space.copyTo(memory, testFrame(TO, MAC, 60));
    const iovs = [{ length: 60, ptr: BigInt(memory) }];
    for (let n = 0, sent = 0; n < 40; n++) {
      while (sent < 4000 && nic.tx.queue.countOf("inuse") < 128) {
        nic.sendUnbounded({ cookie: BigInt(sent++), iovs });
      }
      scheduler.run();
    }
    const stopped = port.sent.length;
    expect(nic.takeEvents()).toBeGreaterThan(0);
    link("down"); // told at once, with what waits, before the guest's doorbell is heard
    link("up");
    scheduler.run();
    expect(port.sent.length).toBeGreaterThan(stopped);
  });

  it("a broken event ring stops nobody: frames are sent on, and nothing piles up", () => {
    start({ events: TXC, count: 64, inuseOnly: true }, { txc: "1", txmitigation: "100" });
    up();
    guest.memory.space.copyTo((nic.eventRing?.gpa ?? 0) + 56 + 25, new Uint8Array([9]));
    const memory = guest.memory.ram.allocate(60, 4);
    const iovs = [{ length: 60, ptr: BigInt(memory) }];
    for (let n = 0; n < 6000; n += 32) {
      for (let k = 0; k < 32; k++) nic.sendUnbounded({ cookie: BigInt(n + k), iovs });
      scheduler.run();
    }
    expect(port.sent.length).toBeGreaterThanOrEqual(6000);
    expect(machine.errors.splice(0)).toHaveLength(1);
    machine.assertBalanced();
  });

  it("granted without an event queue fall back to signals on the TX ring", () => {
    start({ events: TXC, eventQueue: false });
    up();
    nic.tx.queue.enable(0);
    nic.send(frame());
    scheduler.run();
    expect(shmSignals(guest.events(), TX_COOKIE)).toBe(1);
  });

  it("are not sent to a guest that asked for them and did not get them", () => {
    start({ events: EVERYTHING }, {});
    expect(nic.granted.events).toBe(LINKSTATE);
    up();
    nic.send(frame());
    scheduler.run();
    expect(nic.takeEvents()).toBe(1); // the link; an unknown event would stop the guest
    expect(nic.reap()).toBe(1);
  });

  it("that wait are forgotten at the end of the session", () => {
    start({ events: TXC, count: 4 });
    const before = guest.host.arena.available;
    up();
    for (let n = 0; n < 4; n++) nic.send(frame(n));
    scheduler.run();
    guest.client.close(guest.handle);
    expect(guest.host.arena.available).toBeGreaterThan(before);
    scheduler.advance(1000);
    expect(machine.errors).toEqual([]);
  });
});
