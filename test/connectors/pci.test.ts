import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { bridgeConfigSpace } from "vbus/connectors/pci";

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
import { PciMachine, type CopyOrder } from "./pci-machine.js";

const ENOTCONN = -107;
const EINVAL = -22;

let machine: PciMachine;

beforeEach(() => {
  machine = new PciMachine();
});

afterEach(() => {
  machine.fn.close();
  machine.fn.close();
  expect(machine.line).toBe(false);
  expect(machine.memory.arena.available).toBe(machine.free);
});

const layouts: [string, WireLayout][] = [
  ["LP64", LP64],
  ["ILP32", ILP32],
  ["ILP32 with a converted ring", ILP32_NEW_RING],
];
const orders: CopyOrder[] = ["words", "backwards", "halves", "bytes"];

describe("a PCI function's configuration space", () => {
  beforeEach(() => machine.boot(LP64));

  it("says who it is, as section 1 of the ABI demands", () => {
    const { fn } = machine;
    expect(fn.configRead(0x00, 4)).toBe(0x200011da);
    expect(fn.configRead(0x08, 4)).toBe(0x06800002);
    expect(fn.configRead(0x2c, 4)).toBe(0x11001af4);
    expect(fn.configRead(0x06, 2)).toBe(0x0010);
    expect(fn.configRead(0x34, 1)).toBe(0x40);
    expect(fn.configRead(0x3d, 1)).toBe(1);
    expect(fn.configRead(0x40, 4)).toBe(0x0005); // MSI, last in the list, one vector, 32 bits, no mask, off
    expect(fn.configRead(0x0e, 1)).toBe(0); // one function, standard header
    for (let bar = 2; bar < 6; bar++) expect(fn.configRead(0x10 + 4 * bar, 4)).toBe(0);
  });

  it("answers the size probe of both BARs, and keeps what firmware assigns", () => {
    const { fn } = machine;
    fn.configWrite(0x10, 4, 0xffffffff);
    fn.configWrite(0x14, 4, 0xffffffff);
    expect(fn.configRead(0x10, 4)).toBe(0xffffffc0);
    expect(fn.configRead(0x14, 4)).toBe(0xffffffe1);
    machine.enable();
    expect(fn.config.barAddress(0)).toBe(0xfebf1000);
    expect(fn.config.barAddress(1)).toBe(0xc040);
  });

  it("keeps no bit that a guest may not write, whatever the offset and width", () => {
    const { fn } = machine;
    const before = fn.config.image();
    for (const width of [1, 2, 4] as const)
      for (let offset = 0; offset < 256; offset += width) fn.configWrite(offset, width, 0xffffffff);
    const after = fn.config.image();
    const writable = new Map<number, number>([
      [0x04, 0x07],
      [0x05, 0x04],
      [0x0c, 0xff],
      [0x0d, 0xff],
      [0x10, 0xc0],
      [0x11, 0xff],
      [0x12, 0xff],
      [0x13, 0xff],
      [0x14, 0xe0],
      [0x15, 0xff],
      [0x16, 0xff],
      [0x17, 0xff],
      [0x3c, 0xff],
      [0x42, 0x01],
      [0x44, 0xfc],
      [0x45, 0xff],
      [0x46, 0xff],
      [0x47, 0xff],
      [0x48, 0xff],
      [0x49, 0xff],
    ]);
    for (let at = 0; at < 256; at++)
      expect(after[at], `byte 0x${at.toString(16)}`).toBe((before[at] as number) | (writable.get(at) ?? 0));
  });

  it("takes writes across the end without harm", () => {
    const { fn } = machine;
    fn.configWrite(254, 4, 0xffffffff);
    fn.configWrite(300, 4, 1);
    expect(fn.configRead(254, 4)).toBe(0xffff0000);
  });

  it("refuses BARs that cannot be", () => {
    expect(() => bridgeConfigSpace({ bar0: 0x1020 })).toThrow(/multiple of 64/);
    expect(() => bridgeConfigSpace({ bar1: 0x10000 })).toThrow(/multiple of 32/);
    expect(() => bridgeConfigSpace({ bar0Size: 100 })).toThrow(/power of two/);
    expect(bridgeConfigSpace({ bar0: 0xfea00000, bar0Size: 4096 }).read(0x10, 4)).toBe(0xfea00000);
  });
});

describe.each(layouts)("a driver with %s blocks behind PCI registers", (_name, layout) => {
  it.each(orders)("follows the timeline of section 9, copying to the registers in %s", async (order) => {
    await machine.boot(layout, order);
    const { guest, fn } = machine;
    machine.enable(); // 2
    expect(guest.negotiate().result).toBe(1); // 3
    guest.makeEventQueue(16); // 4
    machine.enableMsi(); // 5
    const channels = [guest.addChannel(0), guest.addChannel(1)]; // 6
    expect(channels.map(({ result }) => result)).toEqual([0, 0]);
    expect(guest.qreg()).toBe(0); // 7
    expect(machine.events(false)).toEqual([{ id: DEVADD, value: 0n, type: ECHO_TYPE }]); // 8, 9
    expect(machine.messages).toEqual([{ address: 0xfee01004, data: 0x41 }]);
    const { channel } = channels[1]!;
    const { result, handle } = guest.open(0, ECHO_VERSION, channel); // 10
    expect(result).toBe(0);
    const data = guest.allocate(8);
    guest.setU8(data + 7, 9);
    expect(guest.call(handle, ECHO_REVERSE, data, 8, 0, channel)).toBe(8); // 11
    expect(guest.u8(data)).toBe(9);
    const segment = guest.signalSegment();
    const signal = guest.shm(handle, ECHO_SIGNALLED, segment, 64, { offset: 0, cookie: COOKIE }, channel);
    expect(signal).toBeGreaterThanOrEqual(0);
    const before = echoed.doorbells; // 12
    fn.bar1Write(8, 4, signal);
    machine.scheduler.run();
    expect(echoed.doorbells).toBe(before + 1);
    expect(guest.call(handle, ECHO_SIGNAL, 0, 0, 1, channel)).toBe(1);
    expect(machine.events(false)).toEqual([expect.objectContaining({ id: SHMSIGNAL, value: COOKIE })]);
    expect(guest.close(handle, channel)).toBe(0);
    expect(machine.events(false)).toEqual([expect.objectContaining({ id: SHMCLOSE, value: COOKIE })]);
    expect(machine.raised).toBe(0);
    expect(fn.counters()).toMatchObject({ fastcallDoorbells: 5, messages: 3, withheld: 0 });
  });
});

describe("the registers of BAR 0", () => {
  beforeEach(() => machine.boot(LP64));

  it("make a call on a 32-bit read at offset 0 only", () => {
    const { fn, guest } = machine;
    guest.negotiate();
    const { calls } = fn.counters();
    for (let offset = 0; offset < 64; offset++)
      for (const width of [1, 2, 4] as const)
        if (offset !== 0 || width !== 4) expect(fn.bar0Read(offset, width)).toBe(0);
    expect(fn.counters().calls).toBe(calls);
    fn.bar0Read(0, 4);
    expect(fn.counters().calls).toBe(calls + 1);
  });

  it("return errors as the signed number that a driver reads", () => {
    expect(machine.fn.bar0Read(0, 4) | 0).toBe(EINVAL); // NEGOTIATE of length 0
  });

  it("take writes beyond their end without harm", () => {
    const { fn } = machine;
    fn.bar0Write(62, 4, 0xffffffff);
    fn.bar0Write(4096, 4, 0xffffffff);
    expect(machine.guest.negotiate().result).toBe(1);
  });
});

describe("the ports of BAR 1", () => {
  beforeEach(() => machine.boot(LP64));

  it("are doorbells for 32-bit writes at their own offsets, and nothing else", () => {
    machine.bringUp();
    const { fn } = machine;
    const before = fn.counters();
    for (let offset = 0; offset < 36; offset++)
      for (const width of [1, 2] as const) fn.bar1Write(offset, width, 0);
    for (const offset of [1, 2, 3, 5, 6, 7, 9, 10, 11, 12, 16, 28, 32]) fn.bar1Write(offset, 4, 0);
    fn.bar1Write(0, 4, 1); // there is only queue 0
    expect(fn.counters()).toEqual({ ...before, ignored: before.ignored + 2 * 36 + 13 + 1 });
    fn.bar1Write(0, 4, 0);
    fn.bar1Write(8, 4, 12345);
    fn.bar1Write(4, 4, 77); // a channel that nobody added
    expect(fn.counters()).toMatchObject({
      eventqDoorbells: before.eventqDoorbells + 1,
      strayDoorbells: before.strayDoorbells + 1,
      fastcallDoorbells: before.fastcallDoorbells + 1,
      fastcalls: before.fastcalls,
      ignored: before.ignored + 2 * 36 + 13 + 2,
    });
  });

  it("read as 0, but for the INTx status", () => {
    machine.bringUp();
    machine.plug("another");
    machine.scheduler.run();
    expect(machine.line).toBe(true);
    for (let offset = 0; offset < 32; offset++)
      for (const width of [1, 2, 4] as const)
        if (offset !== 12 || width !== 4) expect(machine.fn.bar1Read(offset, width)).toBe(0);
    expect(machine.line).toBe(true);
    expect(machine.fn.bar1Read(12, 4)).toBe(1);
    expect(machine.line).toBe(false);
    expect(machine.fn.bar1Read(12, 4)).toBe(0);
  });
});

describe("MSI", () => {
  beforeEach(async () => {
    await machine.boot(LP64);
    machine.enable();
  });

  it("uses the address and data of the moment, not those of QREG", () => {
    machine.enableMsi(0x41);
    machine.bringUp();
    machine.enableMsi(0x55); // the guest moved the interrupt
    machine.plug("another");
    machine.events(true);
    expect(machine.messages.map(({ data }) => data)).toEqual([0x41, 0x55]);
  });

  it("never touches the line, and says nothing in the INTx status", () => {
    machine.enableMsi();
    machine.bringUp();
    machine.plug("another");
    machine.scheduler.run();
    expect(machine.fn.bar1Read(12, 4)).toBe(0);
    expect(machine.raised).toBe(0);
  });

  it("keeps an interrupt that the guest has switched off for a moment, and sends it once when it is on again", () => {
    machine.enableMsi();
    machine.bringUp();
    machine.fn.configWrite(0x42, 2, 0);
    machine.plug("another");
    machine.scheduler.run();
    expect(machine.interrupts).toBe(1); // QREG chose messages: the line stays out of it (defect P9)
    expect(machine.fn.counters().withheld).toBe(1);
    machine.fn.configWrite(0x42, 2, 1);
    expect(machine.messages).toHaveLength(2);
    expect(machine.events(true)).toEqual([expect.objectContaining({ id: DEVADD, value: 1n })]);
  });

  it("that is enabled after QREG does not steal the interrupts of the line, but silences it", () => {
    machine.bringUp();
    expect(machine.raised).toBe(1);
    machine.enableMsi();
    machine.plug("another");
    machine.scheduler.run();
    expect(machine.line).toBe(false);
    expect(machine.messages).toHaveLength(0);
    machine.fn.configWrite(0x42, 2, 0);
    expect(machine.line).toBe(true);
    expect(machine.events(true)).toEqual([expect.objectContaining({ id: DEVADD, value: 1n })]);
  });
});

describe("INTx", () => {
  beforeEach(async () => {
    await machine.boot(LP64);
    machine.enable();
  });

  it("stays up until the guest reads the status, and shows in the status register", () => {
    machine.guest.negotiate();
    machine.guest.makeEventQueue(16);
    machine.guest.qreg();
    machine.scheduler.run();
    expect(machine.line).toBe(true);
    expect(machine.fn.configRead(0x06, 2) & 8).toBe(8);
    machine.scheduler.advance(1000);
    expect(machine.line).toBe(true);
    expect(machine.fn.bar1Read(12, 4)).toBe(1);
    expect(machine.line).toBe(false);
    expect(machine.fn.configRead(0x06, 2) & 8).toBe(0);
    expect(machine.fn.counters().acknowledged).toBe(1);
  });

  it("is lowered by the event queue's doorbell for a handler that does not know the register, again and again", () => {
    expect(machine.bringUp(false)).toHaveLength(1);
    for (let i = 0; i < 5; i++) {
      machine.plug(`more${i}`);
      expect(machine.events(false)).toHaveLength(1);
      expect(machine.line).toBe(false);
    }
    expect(machine.fn.counters()).toMatchObject({ acknowledged: 0, lines: 6, eventqDoorbells: 6 });
  });

  it("asks a guest that reads the register for no doorbells", () => {
    machine.bringUp(true);
    const before = machine.fn.counters().eventqDoorbells;
    for (let i = 0; i < 5; i++) {
      machine.plug(`more${i}`);
      expect(machine.events(true)).toHaveLength(1);
    }
    expect(machine.fn.counters().eventqDoorbells).toBe(before);
  });

  it("is lowered by any bridge call", () => {
    machine.bringUp();
    machine.plug("another");
    machine.scheduler.run();
    expect(machine.line).toBe(true);
    machine.guest.open(0, ECHO_VERSION);
    expect(machine.line).toBe(false);
  });

  it("obeys the disable bit of the command register, and forgets nothing", () => {
    machine.bringUp();
    machine.fn.configWrite(0x04, 2, 0x0407);
    machine.plug("another");
    machine.scheduler.run();
    expect(machine.line).toBe(false);
    expect(machine.fn.configRead(0x06, 2) & 8).toBe(8); // pending, as PCI says
    machine.fn.configWrite(0x04, 2, 0x0007);
    expect(machine.line).toBe(true);
  });

  it("that the emulator cannot raise costs an error, not the bridge", () => {
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
    Object.defineProperty(machine, "line", { value: false, writable: true });
    expect(machine.errors).toEqual([expect.objectContaining({ code: "EIO" })]);
    expect(machine.guest.takeEvents().events).toHaveLength(1);
  });
});

describe("a driver that goes", () => {
  beforeEach(async () => {
    await machine.boot(LP64);
  });

  function silentAfter(go: () => void): void {
    const { guest } = machine;
    const { handle } = guest.open(0, ECHO_VERSION);
    expect(handle).not.toBe(0n);
    go();
    const image = Buffer.from(
      new Uint8Array(guest.view.buffer, guest.view.byteOffset, guest.view.byteLength),
    );
    const interrupts = machine.interrupts;
    machine.plug("later");
    machine.bus.disconnect("echo0");
    machine.scheduler.advance(1000);
    expect(machine.interrupts).toBe(interrupts);
    expect(machine.line).toBe(false);
    expect(
      Buffer.compare(image, new Uint8Array(guest.view.buffer, guest.view.byteOffset, guest.view.byteLength)),
    ).toBe(0);
    expect(machine.fn.bridge.negotiated).toBe(false);
  }

  it("by taking bus mastering away is written to no more", () => {
    machine.enable(0x0007);
    machine.bringUp();
    silentAfter(() => {
      machine.fn.configWrite(0x04, 2, 0x0003);
    });
  });

  it("by disabling its ports is written to no more, even if it never was a bus master", () => {
    machine.enable(0x0003);
    machine.bringUp();
    silentAfter(() => {
      machine.fn.configWrite(0x04, 1, 0x02);
    });
  });

  it("by a reset of the machine is written to no more, and finds configuration space as at the start", () => {
    const fresh = machine.fn.config.image();
    machine.enable();
    machine.enableMsi();
    machine.bringUp();
    silentAfter(() => {
      machine.fn.machineReset();
    });
    expect(machine.fn.config.image()).toEqual(fresh);
  });

  it("with its line up takes the line down", () => {
    machine.enable();
    machine.bringUp();
    machine.plug("another");
    machine.scheduler.run();
    expect(machine.line).toBe(true);
    silentAfter(() => {
      machine.fn.configWrite(0x04, 2, 0);
    });
  });

  it("and one that never was a bus master and leaves everything on is reset by its successor's NEGOTIATE", () => {
    machine.enable(0x0003);
    machine.bringUp();
    machine.plug("another");
    machine.scheduler.run();
    expect(machine.guest.negotiate().result).toBe(1);
    expect(machine.line).toBe(false);
    machine.guest.makeEventQueue(16);
    expect(machine.guest.qreg()).toBe(0);
    // fresh ids where the guest may have seen the old ones
    const ids = machine.events(true).map(({ value }) => value);
    expect(ids).toHaveLength(2);
    expect(ids).not.toContain(0n);
  });

  it("keeps the level of bits that were never set out of it", () => {
    machine.enable(0x0003);
    machine.bringUp();
    machine.fn.configWrite(0x04, 2, 0x0003);
    machine.fn.configWrite(0x3c, 1, 11);
    expect(machine.fn.bridge.negotiated).toBe(true);
  });
});

describe("devices that come and go behind PCI", () => {
  it("reach a driver as events, also those for which there was no room at first", async () => {
    await machine.boot(LP64);
    machine.enable();
    machine.enableMsi();
    machine.bringUp(true, 2);
    for (let i = 0; i < 9; i++) machine.plug(`more${i}`);
    expect(machine.events(true).map(({ id }) => id)).toEqual(new Array(9).fill(DEVADD));
    machine.bus.disconnect("more4");
    expect(machine.events(true)).toEqual([expect.objectContaining({ id: DEVDROP, value: 5n })]);
    expect(machine.fn.counters().backlogs).toBeGreaterThan(0);
  });

  it("a guest that is taken off its bus gets -ENOTCONN, and no interrupt any more", async () => {
    await machine.boot(LP64);
    machine.enable();
    machine.bringUp();
    machine.bus.expel("guest");
    expect(machine.ended).toBe(1);
    expect(machine.guest.open(0, ECHO_VERSION).result).toBe(ENOTCONN);
    machine.plug("later");
    machine.scheduler.run();
    expect(machine.line).toBe(false);
  });

  it("costs -EPERM to whom the bus did not admit", async () => {
    await machine.boot(LP64);
    machine.bus.expel("guest");
    await expect(machine.boot(LP64)).rejects.toMatchObject({ code: "EPERM" });
  });
});
