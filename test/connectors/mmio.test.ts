/** The bridge without PCI: a register page, and hypercalls, against a driver that writes every byte by hand. */
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import {
  COOKIE,
  DEVADD,
  DEVDROP,
  ILP32,
  ILP32_NEW_RING,
  LP64,
  SHMCLOSE,
  SHMSIGNAL,
  type WireLayout,
} from "./bare-guest.js";
import { ECHO_REVERSE, ECHO_SIGNAL, ECHO_SIGNALLED, ECHO_TYPE, ECHO_VERSION, echoed } from "./echo.js";
import { FORMS, LineMachine, type Form } from "./mmio-machine.js";

const ENOTCONN = -107;
const EINVAL = -22;
const NEGOTIATED = 1;
const REGISTERED = 2;
const BROKEN = 4;
const GONE = 8;

let machine: LineMachine;

beforeEach(() => {
  machine = new LineMachine();
});

afterEach(() => {
  // whatever a test did: closing lowers the line and gives the arena back to the last byte
  machine.bridge.close();
  machine.bridge.close();
  expect(machine.line).toBe(false);
  expect(machine.memory.arena.available).toBe(machine.free);
});

const layouts: [string, WireLayout][] = [
  ["LP64", LP64],
  ["ILP32", ILP32],
  ["ILP32 with a converted ring", ILP32_NEW_RING],
];

const state = (): number => machine.bridge.line.state;

describe.each(FORMS)("a driver behind %s", (form: Form) => {
  it.each(layouts)(
    "with %s blocks is brought up, calls, shares, signals and hears",
    async (_name, layout) => {
      await machine.boot(form, layout);
      const { guest, door } = machine;
      expect(guest.negotiate().result).toBe(1);
      guest.makeEventQueue(16);
      const channels = [guest.addChannel(0), guest.addChannel(1)];
      expect(channels.map(({ result }) => result)).toEqual([0, 0]);
      expect(guest.qreg()).toBe(0);
      expect(machine.line).toBe(false); // events are tasks, not part of a call
      expect(machine.events()).toEqual([{ id: DEVADD, value: 0n, type: ECHO_TYPE }]);
      for (const channel of [undefined, channels[1]!.channel]) {
        const { result, handle } = guest.open(0, ECHO_VERSION, channel);
        expect(result).toBe(0);
        const data = guest.allocate(8);
        guest.setU8(data + 7, 9);
        expect(guest.call(handle, ECHO_REVERSE, data, 8, 0, channel)).toBe(8);
        expect(guest.u8(data)).toBe(9);
        const segment = guest.signalSegment();
        const signal = guest.shm(handle, ECHO_SIGNALLED, segment, 64, { offset: 0, cookie: COOKIE }, channel);
        expect(signal).toBeGreaterThanOrEqual(0);
        const before = echoed.doorbells;
        door.shmSignal(signal);
        machine.scheduler.run();
        expect(echoed.doorbells).toBe(before + 1);
        expect(guest.call(handle, ECHO_SIGNAL, 0, 0, 1, channel)).toBe(1);
        expect(machine.events()).toEqual([expect.objectContaining({ id: SHMSIGNAL, value: COOKIE })]);
        expect(guest.close(handle, channel)).toBe(0);
        expect(machine.events()).toEqual([expect.objectContaining({ id: SHMCLOSE, value: COOKIE })]);
      }
      expect(machine.raised).toBe(5);
      expect(machine.bridge.counters()).toMatchObject({
        fastcalls: 5,
        lines: 5,
        acknowledged: 5,
        eventqDoorbells: 0,
      });
      expect(machine.errors).toEqual([]);
    },
  );

  describe("that is up", () => {
    beforeEach(async () => {
      await machine.boot(form, LP64);
    });

    it("sees the state of its bridge", () => {
      const { guest } = machine;
      expect(state()).toBe(0);
      guest.negotiate();
      expect(state()).toBe(NEGOTIATED);
      guest.makeEventQueue(16);
      guest.setU64(guest.descriptor(3) + 16, 1n); // a record of one byte
      for (let i = 0; i < 4; i++) machine.plug(`more${i}`);
      expect(guest.qreg()).toBe(0);
      expect(state()).toBe(NEGOTIATED | REGISTERED);
      machine.scheduler.run();
      expect(state()).toBe(NEGOTIATED | REGISTERED | BROKEN);
      expect(machine.errors).toEqual([expect.objectContaining({ code: "EPROTO" })]);
      guest.negotiate();
      expect(state()).toBe(NEGOTIATED);
      machine.door.reset();
      expect(state()).toBe(0);
      machine.bus.expel("guest");
      expect(state() & GONE).toBe(GONE);
    });

    it("has the line up until it acknowledges, and up again for what comes after that", () => {
      machine.bringUp();
      const { guest, door } = machine;
      machine.plug("another");
      machine.scheduler.advance(1000);
      expect(machine.line).toBe(true);
      expect(door.acknowledge()).toBe(1);
      expect(machine.line).toBe(false);
      expect(door.acknowledge()).toBe(0);
      expect(guest.takeEvents().events).toHaveLength(1);
      machine.plug("and another");
      machine.scheduler.run();
      expect(machine.line).toBe(true);
      expect(machine.events()).toHaveLength(1);
    });

    it("loses no event that comes between its acknowledge and its look at the ring, or during that", () => {
      machine.bringUp();
      const { guest, door } = machine;
      machine.plug("first");
      machine.scheduler.run();
      door.acknowledge();
      machine.plug("between");
      machine.scheduler.run(); // the handler runs (pending): no interrupt, it will look
      expect(guest.takeEvents().events).toHaveLength(2);
      machine.plug("after");
      expect(machine.events()).toHaveLength(1);
    });

    it("hears of devices that come and go, also of those for which there was no room at first", () => {
      machine.bringUp(2);
      for (let i = 0; i < 9; i++) machine.plug(`more${i}`);
      expect(machine.events().map(({ id }) => id)).toEqual(new Array(9).fill(DEVADD));
      machine.bus.disconnect("more4");
      expect(machine.events()).toEqual([expect.objectContaining({ id: DEVDROP, value: 5n })]);
      expect(machine.bridge.counters().backlogs).toBeGreaterThan(0);
    });

    it.each([
      [
        "by a reset",
        () => {
          machine.door.reset();
        },
      ],
      [
        "by a reset of the machine",
        () => {
          machine.bridge.machineReset();
        },
      ],
      [
        "by its successor's NEGOTIATE",
        () => {
          expect(machine.guest.negotiate().result).toBe(1);
        },
      ],
    ])("and goes with the line up %s is written to no more", (_how, go) => {
      machine.bringUp();
      const { guest } = machine;
      expect(guest.open(0, ECHO_VERSION).result).toBe(0);
      machine.plug("another");
      machine.scheduler.run();
      expect(machine.line).toBe(true);
      go();
      expect(machine.line).toBe(false);
      const image = Buffer.from(
        new Uint8Array(guest.view.buffer, guest.view.byteOffset, guest.view.byteLength),
      );
      const { raised } = machine;
      machine.plug("later");
      machine.bus.disconnect("echo0");
      machine.scheduler.advance(1000);
      expect(machine.raised).toBe(raised);
      const now = new Uint8Array(guest.view.buffer, guest.view.byteOffset, guest.view.byteLength);
      expect(Buffer.compare(image, now)).toBe(0);
      // a new driver gets ids that the guest cannot have registered any more
      const ids = machine.bringUp().map(({ value }) => value);
      expect(ids).toHaveLength(2);
      expect(ids).not.toContain(0n);
    });

    it("is taken off its bus: -ENOTCONN for every call, and no interrupt any more", () => {
      machine.bringUp();
      machine.plug("another");
      machine.scheduler.run();
      machine.bus.expel("guest");
      expect([machine.ended, machine.line]).toEqual([1, false]);
      expect(machine.guest.negotiate().result).toBe(ENOTCONN);
      expect(machine.guest.open(0, ECHO_VERSION).result).toBe(ENOTCONN);
      machine.door.eventqDoorbell();
      machine.door.shmSignal(0);
      machine.door.reset();
      machine.plug("later");
      machine.scheduler.run();
      expect(machine.line).toBe(false);
      expect(machine.errors).toEqual([]);
    });

    it("costs the emulator that cannot raise the line an error, not the bridge", () => {
      machine.bringUp();
      Object.defineProperty(machine, "line", {
        get: () => false,
        set: () => {
          throw new Error("no such line");
        },
        configurable: true,
      });
      machine.plug("another");
      machine.scheduler.run();
      Object.defineProperty(machine, "line", { value: true, writable: true });
      expect(machine.errors).toEqual([expect.objectContaining({ code: "EIO" })]);
      expect(machine.events()).toHaveLength(1);
    });

    it("has its doorbells postponed by an emulator that wants that", () => {
      machine.bringUp();
      const { guest, door } = machine;
      const { line } = machine.bridge;
      const { handle } = guest.open(0, ECHO_VERSION);
      const signal = guest.shm(handle, ECHO_SIGNALLED, guest.signalSegment(), 64, {
        offset: 0,
        cookie: COOKIE,
      });
      const postponed: number[] = [];
      line.onSignal = (rung) => postponed.push(rung);
      const before = echoed.doorbells;
      door.shmSignal(signal);
      machine.scheduler.run();
      expect([postponed, echoed.doorbells]).toEqual([[signal], before]);
      line.serveSignal(signal);
      machine.scheduler.run();
      expect(echoed.doorbells).toBe(before + 1);
    });

    it("costs -EPERM to whom the bus did not admit", async () => {
      const refused = new LineMachine();
      refused.bus.expel("guest");
      await expect(refused.boot(form, LP64)).rejects.toMatchObject({ code: "EPERM" });
      expect(refused.memory.arena.available).toBe(refused.free);
    });
  });
});

describe("the register page", () => {
  beforeEach(() => machine.boot("page", LP64));

  it("says what it is, and has the reset values of section 2", () => {
    const { page } = machine;
    const values = new Map([
      [0x00, 0x73756276],
      [0x04, 1],
      [0x08, 1],
      [0x0c, 0],
      [0x20, EINVAL >>> 0],
    ]);
    for (let offset = 0; offset < 0x1000; offset += 4)
      expect(page.read(offset, 4), `register 0x${offset.toString(16)}`).toBe(values.get(offset) ?? 0);
  });

  it("spells its name in memory, for people who look at it byte by byte", () => {
    const word = new Uint32Array([machine.page.read(0, 4)]);
    expect(Buffer.from(word.buffer).toString("latin1")).toBe("vbus");
  });

  it("keeps what is written to the registers of a call, and the call's result, as unsigned numbers", () => {
    const { page } = machine;
    for (const offset of [0x10, 0x14, 0x18]) {
      page.write(offset, 4, -2);
      expect(page.read(offset, 4)).toBe(0xfffffffe);
    }
    page.write(0x1c, 4, 0);
    expect(page.read(0x20, 4)).toBe(EINVAL >>> 0);
    expect(page.read(0x10, 4)).toBe(0xfffffffe); // a call leaves them alone
    page.write(0x50, 4, 1);
    expect([0x10, 0x14, 0x18, 0x20].map((offset) => page.read(offset, 4))).toEqual([0, 0, 0, EINVAL >>> 0]);
  });

  it("resets for 1 only", () => {
    machine.bringUp();
    for (const value of [0, 2, 3, 0xffffffff]) machine.page.write(0x50, 4, value);
    expect(state()).toBe(NEGOTIATED | REGISTERED);
    machine.page.write(0x50, 4, 1);
    expect(state()).toBe(0);
  });
});

describe("a doorbell of a fastcall channel that nobody added", () => {
  it("is ignored, and counted", async () => {
    await machine.boot("page", LP64);
    machine.bringUp();
    const { ignored, fastcallDoorbells } = machine.page.counters();
    machine.page.write(0x34, 4, 77);
    expect(machine.page.counters()).toMatchObject({
      ignored: ignored + 1,
      fastcallDoorbells: fastcallDoorbells + 1,
      fastcalls: 0,
    });
  });
});

describe("the hypercalls", () => {
  beforeEach(() => machine.boot("hypercalls", LP64));

  it("answer with a result, where the page has none: stray channels and queues are told", () => {
    machine.bringUp();
    const { bridge } = machine;
    if (!("cpuid" in bridge)) throw new Error("no hypercalls");
    expect(bridge.call(0x76620001, 1)).toBe(EINVAL);
    expect(bridge.call(0x76620002, 77)).toBe(-2);
    expect(bridge.call(0x76620003, 77)).toBe(0);
    expect(bridge.call(0x76620006)).toBe(NEGOTIATED | REGISTERED);
    expect(bridge.counters().strayDoorbells).toBe(1);
  });

  it("leave numbers that are not theirs to others", () => {
    const { bridge } = machine;
    if (!("cpuid" in bridge)) throw new Error("no hypercalls");
    for (const number of [0, 1, 5, 0x7661ffff, 0x76620007, 0xffffffff, -1])
      expect(bridge.call(number, 1, 2, 3, 4)).toBeNull();
    expect(bridge.counters().hypercalls).toBe(0);
    expect(bridge.call(0x76620000, 99)).toBe(EINVAL);
    expect(bridge.counters().hypercalls).toBe(1);
  });
});
