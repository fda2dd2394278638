import { afterEach, beforeEach, describe, expect, it } from "vitest";

import { type BareGuest, ILP32, LP64 } from "./bare-guest.js";
import { ECHO_RELEASE, ECHO_SIGNALLED, ECHO_VERSION } from "./echo.js";
import { Machine } from "./machine.js";

const EINVAL = -22;
/** A kernel pointer: more bits than a JavaScript number has. */
const COOKIE = 0xffff_8801_2345_6789n;

let machine: Machine;

beforeEach(() => {
  machine = new Machine();
});

afterEach(() => {
  // whatever a test did: closing gives the arena back to the last byte
  machine.host.close();
  machine.host.close();
  expect(machine.memory.arena.available).toBe(machine.free);
  expect(machine.signals.size).toBe(0);
});

describe("a malformed event descriptor", () => {
  const malformed: [string, (guest: BareGuest) => void][] = [
    ["a record that is too short", (guest) => guest.setU64(guest.descriptor(0) + 16, 143)],
    ["a record of no length", (guest) => guest.setU64(guest.descriptor(0) + 16, 0)],
    ["a record before the array", (guest) => guest.setU64(guest.descriptor(0) + 8, guest.data - 1)],
    ["a record behind the array", (guest) => guest.setU64(guest.descriptor(0) + 8, guest.data + 4 * 144)],
    [
      "a record that is not whole",
      (guest) => guest.setU64(guest.descriptor(0) + 8, guest.data + 3 * 144 + 1),
    ],
    ["a record in the ring itself", (guest) => guest.setU64(guest.descriptor(0) + 8, guest.ring)],
    ["a record outside memory", (guest) => guest.setU64(guest.descriptor(0) + 8, 0xffff_ffff_ffff_ff00n)],
    ["an endless record", (guest) => guest.setU64(guest.descriptor(0) + 16, 0xffff_ffff_ffff_ffffn)],
    ["an owner that is nobody", (guest) => guest.setU8(guest.descriptor(0) + 25, 9)],
  ];

  it.each(malformed)("%s ends event delivery, is reported, and hurts nothing else", async (_what, change) => {
    await machine.boot(LP64);
    const { guest, host } = machine;
    guest.negotiate();
    guest.makeEventQueue(4);
    change(guest);
    guest.qreg();
    machine.scheduler.run();
    expect(["descriptor", "owner"]).toContain(host.eventQueueViolation);
    expect(machine.errors).toHaveLength(1);
    expect(machine.errors[0]).toMatchObject({ code: "EPROTO" });
    expect(machine.interrupts).toBe(0);

    // calls go on, and what devices report is thrown away instead of piling up
    const { handle } = guest.open(0, ECHO_VERSION);
    for (let i = 0; i < 100; i++) {
      guest.shm(handle, ECHO_SIGNALLED, guest.signalSegment(), 64, { offset: 0, cookie: COOKIE });
      guest.call(handle, ECHO_RELEASE, 0, 0);
      machine.scheduler.run();
    }
    expect(host.counters().discarded).toBeGreaterThanOrEqual(100);
    host.eventqDoorbell();
    machine.scheduler.run();
    expect(machine.errors).toHaveLength(1);
    expect(guest.close(handle)).toBe(0);
    // a reset makes everything good
    expect(machine.bringUp()).toHaveLength(1);
    expect(host.eventQueueViolation).toBeNull();
  });

  it("among good ones costs the events of its burst, all of which are counted", async () => {
    await machine.boot(LP64);
    machine.plug("echo1");
    machine.plug("echo2");
    const { guest, host } = machine;
    guest.negotiate();
    guest.makeEventQueue(4);
    guest.setU64(guest.descriptor(1) + 16, 143);
    guest.qreg();
    host.flush(); // as carriers do that are about to run the guest
    expect(host.eventQueueViolation).toBe("descriptor");
    expect(machine.errors).toMatchObject([{ code: "EPROTO" }]);
    expect(host.counters()).toMatchObject({ events: 0, discarded: 3 });
    machine.scheduler.run();
    expect(host.counters()).toMatchObject({ events: 0, discarded: 3 });
  });

  it("gives the cookie of the event back that it was for", async () => {
    await machine.boot(LP64);
    const { guest, host } = machine;
    machine.bringUp(4);
    const { handle } = guest.open(0, ECHO_VERSION);
    guest.shm(handle, ECHO_SIGNALLED, guest.signalSegment(), 64, { offset: 0, cookie: COOKIE });
    expect(machine.signals.size).toBe(1);
    for (let i = 0; i < 4; i++) guest.setU64(guest.descriptor(i) + 16, 143);
    guest.call(handle, ECHO_RELEASE, 0, 0);
    machine.scheduler.run();
    expect(host.eventQueueViolation).toBe("descriptor");
    expect(host.counters().discarded).toBe(1);
    expect(machine.signals.size).toBe(0);
  });

  it("of a 32-bit guest is refused at QREG, when it is one of the first two", async () => {
    await machine.boot(ILP32);
    const { guest } = machine;
    guest.negotiate();
    for (const i of [0, 1]) {
      guest.makeEventQueue(4);
      guest.setU64(guest.descriptor(i) + 16, 144);
      expect(guest.qreg()).toBe(EINVAL);
      guest.makeEventQueue(4);
      guest.setU64(guest.descriptor(i) + 8, guest.data + 1);
      expect(guest.qreg()).toBe(EINVAL);
    }
    expect(machine.bringUp()).toHaveLength(1);
  });
});

describe("what a guest rewrites while the host works", () => {
  it("is read once: the bus is asked with what stood there first", async () => {
    await machine.boot(LP64);
    const { guest } = machine;
    machine.bringUp();
    const { handle } = guest.open(0, ECHO_VERSION);
    const seen: number[] = [];
    let reads = 0;
    const view = machine.memory.engine.data;
    const base = machine.memory.translate(guest.base, 4) - guest.base;
    const original = view.getUint32.bind(view);
    // a DataView that notes which guest words are read in place
    view.getUint32 = (at, little) => {
      reads++;
      if (at - base >= guest.base) seen.push(at - base);
      return original(at, little);
    };
    guest.call(handle, 77, 0, 0);
    expect(reads).toBeGreaterThan(0);
    expect(seen).toEqual([]); // what was read is the private copy
    machine.memory.engine.data.getUint32(base + guest.base, true);
    expect(seen).toHaveLength(1); // and the spy does see the guest's memory
  });
});
