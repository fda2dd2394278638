import { fc, test } from "@fast-check/vitest";
import { VENET_LINKUP } from "vbus/abi";
import { OFFLOAD_ALL, totalDrops, type DropReason } from "vbus/net";
import { VirtualScheduler } from "vbus/scheduler";
import { beforeEach, describe, expect, it } from "vitest";
import { superframes } from "../offload/captures.js";
import { TestMachine, testFrame } from "./machine.js";
import { EVERYTHING, ModernNic, type KernelFrame, type ModernOptions } from "./modern-nic.js";
import { TestPort } from "./port.js";
import { RawGuest } from "./raw-guest.js";
import { vsgSize, writeVsg, type Vsg } from "./vsg.js";

const TO = [2, 0, 0, 0, 0, 0x0b];
const MAC = [2, 0, 0, 0, 0, 0x0a];
const captured = superframes();
const tcp4 = captured.find((frame) => frame.kind === 1) as Required<KernelFrame>;
const udp = captured.find((frame) => frame.kind === 3) as Required<KernelFrame>;

let scheduler: VirtualScheduler;
let machine: TestMachine;
let port: TestPort;
let guest: RawGuest;
let nic: ModernNic;

function start(options: ModernOptions = {}, offloads = 0, size = 1 << 20): void {
  scheduler = new VirtualScheduler();
  port = new TestPort();
  port.offloads = offloads;
  machine = new TestMachine(() => port, scheduler);
  machine.addNic("nic0");
  guest = new RawGuest(machine, "raw", { size, arenaSize: 1 << 19 });
  guest.open();
  nic = new ModernNic(guest, { sg: EVERYTHING, uso: EVERYTHING, slotSize: vsgSize(20, false), ...options });
  expect(guest.call(VENET_LINKUP)).toBe(0);
  scheduler.run();
}

const memoryEnd = (): bigint => {
  const [region] = guest.memory.space.regions;
  return BigInt((region?.gpa ?? 0) + (region?.length ?? 0));
};

/** Puts bytes into guest memory. */
function place(bytes: Uint8Array): bigint {
  const gpa = guest.memory.ram.allocate(bytes.length, 1);
  guest.memory.space.copyTo(gpa, bytes);
  return BigInt(gpa);
}

/** What lies between two good frames is dropped for a reason, its descriptor comes back, and nothing else happens. */
function expectDrop(reason: DropReason, send: () => void): void {
  const before = machine.statistics("nic0").tx;
  const neighbours = [testFrame(TO, MAC, 60, 1), testFrame(TO, MAC, 61, 2)] as const;
  nic.send({ bytes: neighbours[0] }, [20]);
  send();
  nic.send({ bytes: neighbours[1] }, [14, 30]);
  scheduler.run();
  expect(port.sent.splice(0)).toEqual([...neighbours]);
  expect(nic.reap()).toBe(3);
  const { tx } = machine.assertBalanced()["nic0"] ?? { tx: null };
  expect(tx).toMatchObject({ frames: before.frames + 3, passed: before.passed + 2 });
  expect(totalDrops(tx?.drops ?? {})).toBe(totalDrops(before.drops) + 1);
  expect(tx?.drops[reason]).toBe((before.drops[reason] ?? 0) + 1);
  expect(machine.errors).toEqual([]);
}

const frame = testFrame(TO, MAC, 100);
/** A descriptor of one frame in n pieces. */
function pieces(n: number): Partial<Vsg> {
  const ptr = place(frame);
  const step = Math.floor(frame.length / n);
  const iovs = Array.from({ length: n }, (_, i) => ({
    length: i === n - 1 ? frame.length - step * (n - 1) : step,
    ptr: ptr + BigInt(i * step),
  }));
  return { length: frame.length, iovs };
}

describe.each([
  ["in a pool", true],
  ["anywhere", false],
])("scatter-gather descriptors %s are dropped, and counted, with", (_where, pool) => {
  beforeEach(() => {
    start({ pool });
  });

  it.each([0, 20, 21, 255, 2 ** 31, 2 ** 32 - 1])("%i pieces", (count) => {
    expectDrop("bad-descriptor", () => nic.sendVsg({ ...pieces(20), count }, [], { length: 336 }));
  });

  it.each([1, 2, 17, 18, 19])("… but not with %i pieces", (n) => {
    nic.sendVsg(pieces(n));
    scheduler.run();
    expect(port.sent).toEqual([frame]);
    expect(machine.assertBalanced()["nic0"]?.tx).toMatchObject({ frames: 1, passed: 1, drops: {} });
  });

  it("more pieces than the descriptor's length has room for", () => {
    expectDrop("bad-descriptor", () => nic.sendVsg({ ...pieces(3), count: 4 }));
    expectDrop("bad-descriptor", () => nic.sendVsg(pieces(3), [], { length: vsgSize(2, false) + 15 }));
  });

  it("a sum of pieces that is not the total: one less, one more, wrapped at 2^32", () => {
    const { iovs = [] } = pieces(2);
    expectDrop("bad-descriptor", () => nic.sendVsg({ iovs, length: 99 }));
    expectDrop("bad-descriptor", () => nic.sendVsg({ iovs, length: 101 }));
    const [first] = iovs;
    const ptr = first?.ptr ?? 0n;
    const wrapping = [
      { length: 50, ptr },
      { length: 2 ** 32 - 50, ptr },
      { length: 100, ptr },
    ];
    expectDrop("bad-address", () => nic.sendVsg({ iovs: wrapping, length: 100 }));
  });

  it("a sum that wraps at 2^32 to the very total, of pieces that all lie in memory", () => {
    const least = Math.ceil((2 ** 32 + 100) / 19);
    start({ pool }, 0, least + (1 << 20));
    const ptr = 0x10000n;
    const iovs = Array.from({ length: 19 }, (_, n) => ({
      length: n < 18 ? least : 2 ** 32 + 100 - 18 * least,
      ptr,
    }));
    expectDrop("bad-descriptor", () => nic.sendVsg({ iovs, length: 100 }));
    expectDrop("bad-descriptor", () => nic.sendVsg({ iovs, length: 100, flags: 2, size: 1448 }));
    const many = Array.from({ length: 19 }, () => ({ length: 900_000, ptr }));
    expectDrop("bad-descriptor", () => nic.sendVsg({ iovs: many, length: (19 * 900_000) % 65536 }));
  });

  it("a total of more than 65536 bytes, or of nothing", () => {
    const ptr = 0x10000n;
    expectDrop("bad-descriptor", () => nic.sendVsg({ flags: 2, size: 1448, iovs: [{ length: 65537, ptr }] }));
    expectDrop("bad-descriptor", () => nic.sendVsg({ iovs: [{ length: 0, ptr: 1n << 60n }] }));
  });

  it.each([
    ["that ends one byte beyond memory", () => memoryEnd() - 99n],
    ["at the end of memory", () => memoryEnd()],
    ["below memory", () => 0n],
    ["just below memory", () => 0xffffn],
    ["beyond 2^32", () => (1n << 32n) + 0x10000n],
    ["beyond 2^53", () => (1n << 60n) + 0x10000n],
    ["that wraps 2^64", () => 2n ** 64n - 50n],
  ])("a piece %s", (_what, ptr) => {
    expectDrop("bad-address", () => nic.sendVsg({ iovs: [{ length: 100, ptr: ptr() }] }));
    const { iovs = [] } = pieces(2);
    expectDrop("bad-address", () => nic.sendVsg({ iovs: [...iovs, { length: 100, ptr: ptr() }] }));
  });

  it("a piece that ends with memory is fine", () => {
    const at = memoryEnd() - 100n;
    guest.memory.space.copyTo(Number(at), frame);
    nic.sendVsg({ iovs: [{ length: 100, ptr: at }] });
    scheduler.run();
    expect(port.sent).toEqual([frame]);
  });

  it.each([0, 1, 31, 32, 47, 337, 352, 65536, 0xffffffff])("a ring that says %i bytes", (length) => {
    expectDrop("bad-descriptor", () => nic.sendVsg(pieces(1), [], { length }));
  });

  it.each([48, 49, 320, 335, 336])("a ring that says %i bytes is fine", (length) => {
    nic.sendVsg(pieces(1), [], { length });
    scheduler.run();
    expect(port.sent).toEqual([frame]);
  });

  it("a frame shorter than its header, or longer than MTU and header", () => {
    expectDrop("undersize", () => nic.send({ bytes: frame.subarray(0, 13) }));
    expectDrop("oversize", () => nic.send({ bytes: testFrame(TO, MAC, 1515) }, [700]));
  });

  it.each([
    [99, 0],
    [0, 99],
    [50, 49],
    [65535, 65535],
    [65535, 2],
  ])("a checksum at %i + %i of a frame of 100 bytes, whoever would finish it", (at, offset) => {
    for (const offloads of [0, OFFLOAD_ALL]) {
      start({ pool }, offloads);
      expectDrop("bad-offload", () => nic.send({ bytes: frame, flags: 1, start: at, offset }));
    }
  });

  it("a checksum in the last two bytes is fine", () => {
    nic.send({ bytes: frame, flags: 1, start: 40, offset: 58 });
    scheduler.run();
    expect(port.sent).toHaveLength(1);
    expect(machine.statistics("nic0")).toMatchObject({ checksummed: 1 });
  });

  it("a checksum in a place that nobody finishes, towards a port that does not take it", () => {
    const long = testFrame(TO, MAC, 1000);
    expectDrop("bad-offload", () => nic.send({ bytes: long, flags: 1, start: 600, offset: 10 }));
  });

  it("segment size 0", () => {
    expectDrop("bad-offload", () => nic.send({ ...tcp4, size: 0 }));
  });

  it("segments that are longer than the NIC's frames", () => {
    expectDrop("bad-offload", () => nic.send({ ...tcp4, size: 1600 }));
    expectDrop("bad-offload", () => nic.send({ ...tcp4, size: 65535 }));
  });

  it.each([1, 4, 77, 255])("segmentation type %i: UFO, and those that do not exist", (type) => {
    expectDrop("bad-offload", () => nic.send(tcp4, [], { type }));
  });

  it("headers of another kind, no payload, or checksum positions that contradict them", () => {
    expectDrop("bad-offload", () => nic.send({ ...tcp4, kind: 2 }));
    expectDrop("bad-offload", () => nic.send({ ...tcp4, kind: 3 }));
    expectDrop("bad-offload", () => nic.send({ ...udp, kind: 1 }));
    expectDrop("bad-offload", () => nic.send({ ...tcp4, bytes: tcp4.bytes.subarray(0, 66) }));
    expectDrop("bad-offload", () => nic.send({ ...tcp4, bytes: tcp4.bytes.subarray(0, 40), flags: 2 }));
    expectDrop("bad-offload", () => nic.send({ ...tcp4, start: tcp4.start + 1 }));
    expectDrop("bad-offload", () => nic.send({ ...tcp4, offset: 6 }));
  });

  it("a segment size larger than the payload is one segment", () => {
    nic.send({ ...tcp4, bytes: tcp4.bytes.subarray(0, 200), size: 1400 });
    scheduler.run();
    expect(port.sent.map((sent) => sent.length)).toEqual([200]);
  });

  it("hdrlen is a hint: any value does", () => {
    for (const hdrlen of [0, 1, 34, 65535]) nic.send(tcp4, [], { hdrlen });
    scheduler.run();
    expect(machine.statistics("nic0").segmented).toBe(4);
    expect(machine.statistics("nic0").tx.drops).toEqual({});
  });

  it("flags that mean nothing are ignored", () => {
    nic.send({ bytes: frame, flags: 0xfffffff8 });
    scheduler.run();
    expect(port.sent).toEqual([frame]);
    expect(port.needs[0]?.flags).toBe(0);
  });
});

describe("superframes of kinds that were not negotiated", () => {
  it.each([
    ["TCP/IPv4", 0x2d, tcp4, 0],
    ["TCP/IPv6", 0x2b, captured.find((frame) => frame.kind === 2) as Required<KernelFrame>, 0],
    ["UDP", 0x2f, udp, 0],
    ["ECN", 0x27, tcp4, 4],
  ])("%s are dropped, also towards a port that would take them", (_name, sg, frame, more) => {
    for (const offloads of [0, OFFLOAD_ALL]) {
      start({ sg, uso: undefined }, offloads);
      expectDrop("bad-offload", () => nic.send({ ...frame, flags: frame.flags | more }));
    }
  });

  it("ECN that was negotiated passes, flag and all", () => {
    start({}, OFFLOAD_ALL);
    nic.send({ ...tcp4, flags: 7 });
    scheduler.run();
    expect(port.needs[0]?.flags).toBe(7);
  });
});

describe("slots", () => {
  it.each([
    ["that end one byte beyond the pool", (size: number) => size - 47, 48],
    ["at its end", (size: number) => size, 48],
    ["beyond it", (size: number) => size + 1, 48],
    ["whose end wraps 2^32", () => 2 ** 32 - 48, 96],
    ["at a guest address instead of an offset", () => nic.txPool, 48],
    ["at the end of the address space", () => Number.MAX_SAFE_INTEGER, 48],
  ])("%s are dropped as bad-address", (_what, gpa, length) => {
    start();
    expectDrop("bad-address", () =>
      nic.sendVsg(pieces(1), [], { gpa: gpa(nic.count * nic.slotSize), length }),
    );
  });

  it("that end with the pool are fine", () => {
    start();
    const gpa = nic.count * nic.slotSize - 48;
    writeVsg(guest.memory.space, nic.txPool + gpa, pieces(1), false);
    nic.sendVsg({}, [], { gpa, length: 48 });
    scheduler.run();
    expect(port.sent).toEqual([frame]);
  });

  it.each([
    ["beyond memory", () => Number(memoryEnd()) - 47],
    ["at a pool offset although no pool was shared", () => 0],
    ["beyond 2^32", () => 2 ** 32 + 0x10000],
  ])("%s, without a pool, are dropped as bad-address", (_what, gpa) => {
    start({ pool: false });
    expectDrop("bad-address", () => nic.sendVsg(pieces(1), [], { gpa: gpa(), length: 48 }));
  });

  it("a pool that is one byte too short serves all slots but the last", () => {
    start();
    guest.client.close(guest.handle);
    guest.open();
    nic = new ModernNic(guest, { sg: EVERYTHING, pool: false });
    expect(guest.client.shm(guest.handle, 100, nic.txPool, nic.count * nic.slotSize - 1, null, 0)).toBe(0);
    guest.call(VENET_LINKUP);
    for (let n = 0; n < nic.count; n++)
      nic.sendVsg(pieces(1), [], { gpa: n * nic.slotSize, length: nic.slotSize });
    scheduler.run();
    expect(port.sent).toHaveLength(nic.count - 1);
    expect(machine.assertBalanced()["nic0"]?.tx.drops).toEqual({ "bad-address": 1 });
  });
});

describe("a guest that rewrites what it has sent", () => {
  it("while the port takes one frame at a time breaks at most its own ring: what had left is as it was, and all is counted", () => {
    start({ count: 8 });
    const transmit = port.transmit.bind(port);
    const { space } = guest.memory;
    port.transmit = (batch, from, to) => {
      const taken = transmit(batch, from, Math.min(to, from + 1));
      // every slot becomes the worst there is, again and again
      for (let slot = 0; slot < nic.count; slot++) {
        const worst = Array.from({ length: 19 }, () => ({ length: 0xffffffff, ptr: 2n ** 64n - 1n }));
        writeVsg(
          space,
          nic.txPool + slot * nic.slotSize,
          { count: 0xffffffff, flags: 7, length: 1, iovs: worst },
          false,
        );
      }
      space.copyTo(nic.tx.gpa + 56, new Uint8Array(8 * 32).fill(1)); // every descriptor, still south's
      return taken;
    };
    const frames = Array.from({ length: 4 }, (_, n) => testFrame(TO, MAC, 60 + n, n));
    for (const bytes of frames) nic.send({ bytes }, [30]);
    nic.send(tcp4, [100, 5000]);
    scheduler.run();
    // the first burst was decoded before anything was rewritten
    expect(port.sent[0]).toEqual(frames[0]);
    machine.assertBalanced();
    for (let n = 0; n < 20; n++) {
      port.open(1);
      scheduler.run();
      machine.assertBalanced();
    }
    expect(port.sent.slice(0, 1)).toEqual(frames.slice(0, 1));
    for (const error of machine.errors.splice(0)) expect(error).toMatchObject({ error: { code: "EPROTO" } });
  });

  it.each([0, OFFLOAD_ALL])(
    "in a burst that was decoded already changes nothing of it, towards a port that takes offloads %i",
    (offloads) => {
      const frames = Array.from({ length: 5 }, (_, n) => testFrame(TO, MAC, 60 + n * 100, n));
      const sendAll = (): void => {
        for (const bytes of frames) nic.send({ bytes }, [30, 50]);
        nic.send(tcp4, [20, 70, 5000]);
        nic.send({ bytes: frames[0] as Uint8Array }, [15]);
        scheduler.run();
      };
      start({ count: 8 }, offloads);
      sendAll();
      const expected = [port.sent.splice(0), port.needs.splice(0)];
      start({ count: 8 }, offloads);
      const transmit = port.transmit.bind(port);
      let rewritten = 0;
      port.transmit = (batch, from, to) => {
        const { space } = guest.memory;
        rewritten++;
        space.copyTo(nic.txPool, new Uint8Array(nic.count * nic.slotSize).fill(0xff));
        // addresses, lengths and cookies in the ring: its owners and marks are another matter
        for (let n = 0; n < nic.count; n++)
          space.copyTo(nic.tx.gpa + 56 + n * 32, new Uint8Array(24).fill(0xff));
        return transmit(batch, from, to);
      };
      sendAll();
      expect(rewritten).toBeGreaterThan(0);
      expect([port.sent, port.needs]).toEqual(expected);
      expect(machine.assertBalanced()["nic0"]?.tx).toMatchObject({ frames: 7, held: 0, drops: {} });
      expect(nic.reap()).toBe(7);
      expect(machine.errors).toEqual([]);
    },
  );

  it("its headers between two segments cannot: they were copied", () => {
    start({ count: 2 });
    nic.send(tcp4);
    scheduler.run();
    const expected = port.sent.map((sent) => Buffer.from(sent.subarray(0, 54)).toString("hex"));
    start({ count: 2 });
    const gpa = Number(place(tcp4.bytes));
    const transmit = port.transmit.bind(port);
    port.transmit = (batch, from, to) => {
      guest.memory.space.copyTo(gpa, new Uint8Array(54).fill(0xff));
      return transmit(batch, from, to);
    };
    const { flags, start: at, offset, size } = tcp4;
    const iovs = [{ length: tcp4.bytes.length, ptr: BigInt(gpa) }];
    nic.sendVsg({ flags, start: at, offset, size, iovs });
    scheduler.run();
    expect(port.sent.map((sent) => Buffer.from(sent.subarray(0, 54)).toString("hex"))).toEqual(expected);
  });
});

/** Guest memory that is compared byte for byte after every step. */
const SMALL = 1 << 18;
const boundary = fc.constantFrom(0, 1, 13, 14, 48, 60, 336, 1514, 65535, 65536, 2 ** 31, 2 ** 32 - 1);
const hostile = fc.record({
  flags: fc.integer({ min: 0, max: 7 }),
  length: fc.oneof(fc.constant(undefined), boundary, fc.integer({ min: 0, max: 3000 })),
  start: fc.oneof(fc.integer({ min: 0, max: 100 }), fc.integer({ min: 0, max: 65535 })),
  offset: fc.oneof(fc.constantFrom(6, 16), fc.integer({ min: 0, max: 65535 })),
  type: fc.integer({ min: 0, max: 4 }),
  hdrlen: fc.integer({ min: 0, max: 65535 }),
  size: fc.oneof(fc.constantFrom(0, 1, 1448), fc.integer({ min: 0, max: 65535 })),
  count: fc.oneof(fc.constant(undefined), fc.integer({ min: 0, max: 21 }), boundary),
  iovs: fc.array(
    fc.record({
      length: fc.oneof(fc.integer({ min: 0, max: 800 }), boundary),
      ptr: fc.oneof(
        fc.bigInt({ min: 0x10000n, max: 0x10000n + BigInt(SMALL) }),
        fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
      ),
    }),
    { minLength: 0, maxLength: 20 },
  ),
});
const sending = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.record({
      what: fc.constant("vsg" as const),
      vsg: hostile,
      length: fc.oneof(fc.constant(undefined), boundary),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      what: fc.constant("mangled" as const),
      index: fc.nat({ max: captured.length - 1 }),
      at: fc.nat({ max: 90 }),
      value: fc.nat({ max: 255 }),
      cut: fc.nat({ max: 120 }),
      keep: fc.integer({ min: 14, max: 4000 }),
    }),
  },
);

describe("any descriptors at all", () => {
  test.prop(
    {
      sendings: fc.array(sending, { minLength: 1, maxLength: 12 }),
      pool: fc.boolean(),
      ilp32: fc.boolean(),
      offloads: fc.constantFrom(0, 1, OFFLOAD_ALL),
      room: fc.constantFrom(0, 1, Infinity),
    },
    { numRuns: 150 },
  )(
    "are consumed and accounted for; no exception, no byte written outside, no frame that is longer than it may be",
    ({ sendings, pool, ilp32, offloads, room }) => {
      start({ pool, ilp32, count: 16, slotSize: vsgSize(20, ilp32) }, offloads, SMALL);
      port.room = room;
      // the host only reads what a guest sends: its TX ring apart, all of its memory stays as it is
      const { bytes, regions } = guest.memory.space;
      const ram = Buffer.from(bytes.buffer, regions[0]?.address, regions[0]?.length);
      const ring = nic.tx.gpa - (regions[0]?.gpa ?? 0);
      const quietly = (step: () => void): void => {
        const before = Buffer.from(ram);
        step();
        expect(Buffer.compare(before.subarray(0, ring), ram.subarray(0, ring))).toBe(0);
        const end = ring + nic.tx.length;
        expect(Buffer.compare(before.subarray(end), ram.subarray(end))).toBe(0);
      };
      // and areas of its own that nobody was given stay as they are, too
      const guards = Array.from({ length: 4 }, () => guest.host.allocate(1024, 64));
      for (const guard of guards) guest.host.bytes.fill(0xa5, guard, guard + 1024);
      for (const sending of sendings) {
        if (sending.what === "vsg") {
          const { length, count, ...vsg } = sending.vsg;
          const total = vsg.iovs.reduce((sum, iov) => sum + iov.length, 0);
          nic.sendVsg(
            { ...vsg, length: (length ?? total) >>> 0, count: count ?? vsg.iovs.length },
            [],
            sending.length === undefined ? {} : { length: sending.length },
          );
        } else {
          const original = captured[sending.index] as KernelFrame;
          const bytes = original.bytes.slice(0, sending.keep);
          if (sending.at < bytes.length) bytes[sending.at] = sending.value;
          nic.send({ ...original, bytes }, [Math.min(sending.cut, bytes.length)]);
        }
        quietly(() => scheduler.run());
        machine.assertBalanced();
      }
      quietly(() => {
        port.open(Infinity);
        scheduler.run();
      });
      const { tx } = machine.assertBalanced()["nic0"] ?? { tx: null };
      expect(tx).toMatchObject({ frames: sendings.length, held: 0, passed: port.sent.length });
      expect(nic.reap()).toBe(sendings.length);
      expect(machine.errors).toEqual([]);
      for (const guard of guards) {
        expect(guest.host.bytes.subarray(guard, guard + 1024).every((byte) => byte === 0xa5)).toBe(true);
        guest.host.free(guard);
      }
      for (const [i, sent] of port.sent.entries()) {
        if ((port.needs[i]?.flags ?? 0) < 2) expect(sent.length).toBeLessThanOrEqual(1522);
      }
    },
  );
});
