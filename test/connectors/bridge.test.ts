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
import {
  ECHO_FAIL,
  ECHO_PLAIN,
  ECHO_REFUSED,
  ECHO_RELEASE,
  ECHO_REVERSE,
  ECHO_SIGNAL,
  ECHO_SIGNALLED,
  ECHO_THROW,
  ECHO_TYPE,
  ECHO_VERSION,
  echoed,
} from "./echo.js";
import { Machine } from "./machine.js";

const EPERM = -1;
const ENOENT = -2;
const EIO = -5;
const ENXIO = -6;
const ENOMEM = -12;
const EFAULT = -14;
const EBUSY = -16;
const EEXIST = -17;
const EINVAL = -22;

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

const layouts: [string, WireLayout][] = [
  ["LP64", LP64],
  ["ILP32", ILP32],
  ["ILP32 with a converted ring", ILP32_NEW_RING],
];

describe.each(layouts)("a guest with %s blocks", (_name, layout) => {
  beforeEach(() => machine.boot(layout));

  it("follows the timeline of section 9 to the end", () => {
    const { guest, host } = machine;
    const negotiated = guest.negotiate(); // 3
    expect(negotiated.result).toBe(1);
    expect(guest.u64(negotiated.gpa + 8)).toBe(0n);
    guest.makeEventQueue(16); // 4
    const channels = [guest.addChannel(0), guest.addChannel(7)]; // 6
    expect(channels.map((c) => c.result)).toEqual([0, 0]);
    expect(guest.qreg()).toBe(0); // 7
    expect(machine.events()).toEqual([{ id: DEVADD, value: 0n, type: ECHO_TYPE }]); // 8, 9
    expect(machine.interrupts).toBe(1);

    const { channel } = channels[1]!;
    const { result, handle } = guest.open(0, ECHO_VERSION, channel); // 10
    expect(result).toBe(0);
    expect(handle).toBe(1n);
    const data = guest.allocate(8);
    for (let i = 0; i < 8; i++) guest.setU8(data + i, i);
    expect(guest.call(handle, ECHO_REVERSE, data, 8, 0, channel)).toBe(8); // 11
    expect(guest.u8(data)).toBe(7);
    const segment = guest.signalSegment();
    const signal = guest.shm(handle, ECHO_SIGNALLED, segment, 64, { offset: 0, cookie: COOKIE }, channel);
    expect(signal).toBeGreaterThanOrEqual(0);
    expect([...machine.signals]).toEqual([signal]);

    const before = echoed.doorbells; // 12
    host.shmSignal(signal);
    machine.scheduler.run();
    expect(echoed.doorbells).toBe(before + 1);
    expect(guest.call(handle, ECHO_SIGNAL, 0, 0, 1, channel)).toBe(1);
    expect(machine.events()).toEqual([expect.objectContaining({ id: SHMSIGNAL, value: COOKIE })]);

    expect(guest.close(handle, channel)).toBe(0); // 10.5
    expect(machine.events()).toEqual([expect.objectContaining({ id: SHMCLOSE, value: COOKIE })]);
    expect(machine.signals.size).toBe(0);
    expect(machine.host.counters().fastcalls).toBe(5);
  });

  it("gets the same answers by slowcall", () => {
    const { guest } = machine;
    machine.bringUp();
    const { handle } = guest.open(0, ECHO_VERSION);
    expect(guest.call(handle, ECHO_REVERSE, guest.allocate(4), 4)).toBe(4);
    expect(guest.shm(handle, ECHO_PLAIN, guest.allocate(64), 64)).toBe(0);
    expect(guest.close(handle)).toBe(0);
  });

  it("gets one interrupt for many events, and each event once", () => {
    const { guest } = machine;
    for (let i = 1; i < 10; i++) machine.plug(`echo${i}`);
    machine.bringUp(4);
    // ten devices into four records: the back-log needed two more rounds, each told by one interrupt
    expect(machine.interrupts).toBe(3);
    expect(machine.host.counters()).toMatchObject({ events: 10, backlogs: 1 });
    expect(guest.u8(guest.ring + 19)).toBe(0); // south masked itself again
    machine.bus.disconnect("echo3");
    expect(machine.events()).toEqual([expect.objectContaining({ id: DEVDROP, value: 3n })]);
  });

  it("works with an event ring of one record", () => {
    machine.plug("echo1");
    machine.plug("echo2");
    expect(machine.bringUp(1).map((event) => event.value)).toEqual([0n, 1n, 2n]);
  });

  it("is told the truth about every wrong length", () => {
    const { guest } = machine;
    guest.negotiate();
    const block = guest.allocate(64);
    for (const [vector, right] of [
      [0, [16]],
      [1, [32, 24]],
      [2, [16]],
      [3, [16]],
    ] as const) {
      for (let length = 0; length < 64; length++) {
        if ((right as readonly number[]).includes(length)) continue;
        expect(guest.bridge(vector, length, block)).toBe(EINVAL);
      }
    }
    for (const [vector, right] of [
      [0, [16]],
      [1, [8]],
      [2, [32, 28]],
      [3, [48, 44]],
    ] as const) {
      for (let length = 0; length < 64; length++) {
        if ((right as readonly number[]).includes(length)) continue;
        expect(guest.busCall(vector, length, block)).toBe(EINVAL);
      }
    }
    for (const size of [0, 16, 19, 21, 23, 25, 32]) expect(guest.addChannel(1, size).result).toBe(EINVAL);
  });
});

describe("the bridge", () => {
  beforeEach(() => machine.boot(LP64));

  it("answers nothing but NEGOTIATE before NEGOTIATE", () => {
    const { guest } = machine;
    guest.makeEventQueue(4);
    expect(guest.qreg()).toBe(EINVAL);
    expect(guest.open(0, ECHO_VERSION).result).toBe(EINVAL);
    expect(guest.addChannel(0).result).toBe(EINVAL);
    machine.bringUp();
    machine.host.reset();
    expect(guest.open(0, ECHO_VERSION).result).toBe(EINVAL);
  });

  it("knows no other vectors", () => {
    machine.bringUp();
    for (const vector of [4, 5, 255, 0xffffffff]) {
      expect(machine.guest.bridge(vector, 16, machine.guest.block(16))).toBe(EINVAL);
      expect(machine.guest.busCall(vector, 16, machine.guest.block(16))).toBe(EINVAL);
    }
  });

  it("leaves everything alone when magic or version of NEGOTIATE are wrong", () => {
    const { guest } = machine;
    machine.bringUp();
    const { handle } = guest.open(0, ECHO_VERSION);
    for (const [magic, version] of [
      [0xbf53eef4, 1],
      [0xbf53eef5, 0],
      [0xbf53eef5, 2],
    ] as const) {
      const { result, gpa } = guest.negotiate(magic, version);
      expect(result).toBe(EINVAL);
      expect(guest.u64(gpa + 8)).toBe(0xffffn); // not written back
    }
    expect(guest.call(handle, ECHO_REVERSE, guest.allocate(4), 4)).toBe(4); // no reset happened
  });

  it("gives fresh ids after a second NEGOTIATE, and nothing of the old incarnation", () => {
    const { guest } = machine;
    machine.bringUp();
    const { handle } = guest.open(0, ECHO_VERSION);
    const segment = guest.signalSegment();
    guest.shm(handle, ECHO_SIGNALLED, segment, 64, { offset: 0, cookie: COOKIE });
    guest.call(handle, ECHO_SIGNAL, 0, 0, 1); // queued, never delivered
    const oldRing = { ring: guest.ring, data: guest.data };
    const before = guest.u8(guest.descriptor(1) + 25);
    const closes = echoed.closes;
    // the driver was unloaded without a word, and loaded again (10.4)
    expect(machine.bringUp()).toEqual([{ id: DEVADD, value: 1n, type: ECHO_TYPE }]);
    expect(echoed.closes).toBe(closes + 1);
    expect(machine.signals.size).toBe(0);
    expect(guest.call(handle, ECHO_REVERSE, guest.allocate(4), 4)).toBe(ENOENT);
    expect(guest.u8(oldRing.ring + 56 + 32 + 25)).toBe(before); // the old ring was not touched again
    expect(guest.open(0, ECHO_VERSION).result).toBe(ENOENT);
    expect(guest.open(1, ECHO_VERSION).result).toBe(0);
  });

  it("takes one event queue per NEGOTIATE", () => {
    machine.bringUp();
    machine.guest.makeEventQueue(4);
    expect(machine.guest.qreg()).toBe(EINVAL);
    expect(machine.host.registered).toBe(true);
  });

  it("refuses event queues that are not right, and takes a right one afterwards", () => {
    const { guest } = machine;
    guest.negotiate();
    const refused = (change: () => void, expected: number, queues = 1): void => {
      guest.makeEventQueue(4);
      change();
      expect(guest.qreg(queues)).toBe(expected);
      expect(machine.host.registered).toBe(false);
    };
    refused(() => {}, EINVAL, 0);
    refused(() => {}, EINVAL, 2);
    refused(() => (guest.count = 0), EINVAL);
    refused(() => (guest.count = 5), EINVAL); // not what the header says
    refused(() => (guest.count = 2049), EINVAL);
    refused(() => guest.setU32(guest.ring, 1), EINVAL);
    refused(() => guest.setU32(guest.ring + 4, 5), EINVAL);
    refused(() => guest.setU32(guest.ring + 8, 1), EINVAL);
    refused(() => (guest.ring += 2), EINVAL);
    refused(() => (guest.ring = 0x7000_0000), EFAULT);
    refused(() => (guest.data = 0x7000_0000), EFAULT);
    refused(() => (guest.data = guest.base + (1 << 20) - 300), EFAULT);
    refused(() => (guest.data = 2 ** 52), EFAULT);
    refused(() => guest.setU32(guest.ring + 40, 4), -71); // inuse.tail out of range
    expect(machine.bringUp()).toHaveLength(1);
  });

  it("tells nobody's memory apart from nothing: blocks outside are -EFAULT", () => {
    const { guest } = machine;
    for (const gpa of [
      0n,
      0x7000_0000n,
      1n << 32n,
      (1n << 32n) + BigInt(guest.base),
      1n << 63n,
      0xffff_ffff_ffff_fff8n,
    ]) {
      expect(guest.bridge(0, 16, gpa)).toBe(EFAULT);
    }
    machine.bringUp();
    const end = BigInt(guest.base + (1 << 20));
    for (const gpa of [0n, end - 4n, end, 1n << 32n, 1n << 63n, 0xffff_ffff_ffff_fff0n]) {
      for (const [vector, length] of [
        [1, 32],
        [2, 16],
        [3, 16],
      ] as const) {
        expect(guest.bridge(vector, length, gpa)).toBe(EFAULT);
      }
      for (const [vector, length] of [
        [0, 16],
        [1, 8],
        [2, 32],
        [2, 28],
        [3, 48],
        [3, 44],
      ] as const) {
        expect(guest.busCall(vector, length, gpa)).toBe(EFAULT);
      }
    }
    const { handle } = guest.open(0, ECHO_VERSION);
    expect(guest.call(handle, ECHO_REVERSE, 1n << 63n, 4)).toBe(EFAULT);
    expect(guest.shm(handle, ECHO_PLAIN, 1n << 63n, 64)).toBe(EFAULT);
    expect(guest.shm(handle, ECHO_PLAIN, end - 4n, 64)).toBe(EFAULT);
  });

  it("passes the errors of verbs on unchanged", () => {
    const { guest } = machine;
    machine.bringUp();
    expect(guest.open(9, ECHO_VERSION).result).toBe(ENOENT);
    expect(guest.open(0, ECHO_VERSION + 1).result).toBe(EINVAL);
    const { handle, gpa } = guest.open(0, ECHO_VERSION);
    expect(guest.u32(gpa)).toBe(0);
    const second = guest.open(0, ECHO_VERSION);
    expect(second.result).toBe(EBUSY);
    expect(second.handle).toBe(0xa5a5_a5a5_a5a5_a5a5n); // not written back on failure
    expect(guest.call(handle, ECHO_FAIL, 0, 0)).toBe(ENXIO);
    expect(guest.call(handle, ECHO_THROW, 0, 0)).toBe(EIO);
    expect(guest.call(handle, 77, 0, 0)).toBe(EINVAL);
    expect(guest.call(handle, 77, 0xdead_beef_dead_beefn, 0)).toBe(EINVAL); // garbage pointer, length 0
    expect(guest.close(handle + 1n)).toBe(ENOENT);
    expect(guest.close(handle)).toBe(0);
    expect(guest.close(handle)).toBe(ENOENT);
  });

  it("never cuts a 64-bit handle down to one that exists", () => {
    const { guest } = machine;
    machine.bringUp();
    const { handle } = guest.open(0, ECHO_VERSION);
    const forged = handle | (1n << 32n);
    expect(guest.call(forged, ECHO_REVERSE, guest.allocate(4), 4)).toBe(ENOENT);
    expect(guest.shm(forged, ECHO_PLAIN, guest.allocate(4), 4)).toBe(ENOENT);
    expect(guest.close(forged)).toBe(ENOENT);
    expect(guest.close(handle)).toBe(0);
  });

  it("sends one SHMSIGNAL while one waits, and SHMCLOSE once and last", () => {
    const { guest } = machine;
    machine.bringUp();
    const { handle } = guest.open(0, ECHO_VERSION);
    const cookies = [COOKIE, COOKIE + 1n];
    for (const cookie of cookies) {
      guest.shm(handle, ECHO_SIGNALLED, guest.signalSegment(), 64, { offset: 0, cookie });
    }
    expect(guest.call(handle, ECHO_SIGNAL, 0, 0, 100)).toBe(2);
    expect(machine.events()).toEqual(
      cookies.map((cookie) => expect.objectContaining({ id: SHMSIGNAL, value: cookie }) as unknown),
    );
    guest.call(handle, ECHO_SIGNAL, 0, 0, 3); // still queued when they are released: turned into SHMCLOSE
    guest.call(handle, ECHO_RELEASE, 0, 0);
    guest.call(handle, ECHO_SIGNAL, 0, 0, 3);
    guest.close(handle);
    expect(machine.events()).toEqual(
      cookies.map((cookie) => expect.objectContaining({ id: SHMCLOSE, value: cookie }) as unknown),
    );
    expect(machine.signals.size).toBe(0);
  });

  it("sends nothing for a segment that was refused (defect P5), whatever the reason", () => {
    const { guest } = machine;
    machine.bringUp();
    const { handle } = guest.open(0, ECHO_VERSION);
    const free = machine.memory.arena.available;
    const segment = guest.signalSegment();
    const signal = { offset: 0, cookie: COOKIE };
    expect(guest.shm(handle, ECHO_REFUSED, segment, 64, signal)).toBe(EBUSY);
    expect(guest.shm(handle + 5n, ECHO_SIGNALLED, segment, 64, signal)).toBe(ENOENT);
    expect(guest.shm(handle, ECHO_SIGNALLED, segment, 64, { offset: 56, cookie: COOKIE })).toBe(EINVAL); // P3
    expect(guest.shm(handle, ECHO_SIGNALLED, segment, 64, { offset: 0xfffffff0, cookie: COOKIE })).toBe(
      EINVAL,
    );
    expect(guest.shm(handle, ECHO_SIGNALLED, segment, 64, { offset: 16, cookie: COOKIE })).toBe(EINVAL); // magic
    expect(machine.memory.arena.available).toBe(free);
    guest.close(handle);
    expect(machine.events()).toEqual([]);
  });

  it("lets no guest hoard signals until the arena is gone", () => {
    const { guest } = machine;
    machine.bringUp();
    const { handle } = guest.open(0, ECHO_VERSION);
    const block = guest.block(48);
    guest.setU64(block, handle);
    guest.setU32(block + 8, ECHO_SIGNALLED);
    guest.setU32(block + 12, 64);
    guest.setU32(block + 24, 0);
    guest.setU64(block + 40, guest.signalSegment());
    const { channel } = guest.addChannel(0);
    let shared = 0;
    while (guest.busCall(3, 48, block, channel) >= 0) shared++;
    expect(guest.busCall(3, 48, block, channel)).toBe(ENOMEM);
    expect(shared).toBeGreaterThanOrEqual(16384);
    // events and calls go on, and what is closed makes room again
    machine.plug("echo1");
    expect(machine.events()).toHaveLength(1);
    guest.close(handle);
    expect(machine.events()).toHaveLength(shared);
    const again = guest.open(0, ECHO_VERSION);
    guest.setU64(block, again.handle);
    expect(guest.busCall(3, 48, block, channel)).toBeGreaterThanOrEqual(0);
  });

  it("ignores doorbells of handles that nobody has", () => {
    machine.bringUp();
    machine.host.shmSignal(0);
    machine.host.shmSignal(0xffffffff);
    expect(machine.host.counters().strayDoorbells).toBe(2);
  });

  it("keeps fastcall channels apart, and ignores unknown ones", () => {
    const { guest, host } = machine;
    machine.bringUp();
    const { channel } = guest.addChannel(3);
    expect(guest.addChannel(3).result).toBe(EEXIST);
    expect(guest.addChannel(4, 20).result).toBe(0); // told apart by the length alone
    guest.setU32(channel.gpa + 16, 0x1234);
    expect(host.fastcall(99)).toBe(false);
    expect(guest.u32(channel.gpa + 16)).toBe(0x1234);
    expect(guest.open(0, ECHO_VERSION, channel).result).toBe(0);
    expect(guest.u32(channel.gpa + 20)).toBe(0xa5a5a5a5); // the padding is the guest's
    guest.negotiate();
    expect(host.fastcall(3)).toBe(false); // dropped by the reset
    const outside = guest.block(16);
    guest.setU32(outside, 5);
    guest.setU32(outside + 4, 24);
    guest.setU64(outside + 8, 0x7000_0000);
    expect(guest.bridge(3, 16, outside)).toBe(EFAULT);
  });

  it("survives the removal of a device that the guest keeps open", () => {
    const { guest } = machine;
    machine.bringUp();
    const { handle } = guest.open(0, ECHO_VERSION);
    machine.bus.disconnect("echo0");
    expect(machine.events()).toEqual([expect.objectContaining({ id: DEVDROP, value: 0n })]);
    expect(guest.call(handle, ECHO_REVERSE, guest.allocate(4), 4)).toBe(4);
    expect(guest.close(handle)).toBe(0);
  });

  it("writes nothing but records: exactly the bytes of the event, and its ring", () => {
    const { guest } = machine;
    guest.negotiate();
    guest.makeEventQueue(4);
    for (let i = 0; i < 4 * 144; i++) guest.setU8(guest.data + i, 0xee);
    machine.memory.logWrites(true);
    guest.qreg();
    machine.scheduler.run();
    const record = [...Array(144).keys()].map((i) => guest.u8(guest.data + i));
    const expected = new Array<number>(144).fill(0);
    for (let i = 0; i < ECHO_TYPE.length; i++) expected[16 + i] = ECHO_TYPE.charCodeAt(i);
    expect(record).toEqual(expected);
    expect(guest.u8(guest.data + 144)).toBe(0xee);
    expect(machine.memory.takeWrites()).toContainEqual({ gpa: guest.data, length: 144 });
    machine.memory.logWrites(false);
  });

  it("tries a back-log again by itself, for guests that lose a notification (shm-signal R1)", () => {
    const { guest } = machine;
    for (let i = 1; i < 6; i++) machine.plug(`echo${i}`);
    guest.negotiate();
    guest.makeEventQueue(2);
    guest.qreg();
    machine.scheduler.run();
    expect(guest.takeEvents().events).toHaveLength(2); // and the guest's doorbell gets lost
    machine.scheduler.advance(150);
    expect(guest.takeEvents().events).toHaveLength(2);
  });

  it("does nothing after close", () => {
    const { guest, host } = machine;
    machine.bringUp();
    const { channel } = guest.addChannel(0);
    host.close();
    expect(guest.negotiate().result).toBe(-107);
    expect(host.fastcall(channel.id)).toBe(false);
    host.eventqDoorbell();
    host.shmSignal(0);
    host.flush();
    host.reset();
    expect(machine.bus.clients).toHaveLength(0);
  });

  it("costs -EPERM to whom the bus did not admit", () => {
    const error = (() => {
      try {
        machine.bus.openClient({ member: "stranger", memory: machine.memory });
        return null;
      } catch (thrown) {
        return thrown as { errno: number };
      }
    })();
    expect(-(error?.errno ?? 0)).toBe(EPERM);
  });
});
