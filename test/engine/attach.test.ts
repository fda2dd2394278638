import { EXT_ACCEPTED, EXT_COMPACT, EXT_LAZY_INDEXES } from "vbus/abi";
import {
  BURST_LENGTH,
  BURST_POINTER,
  BURST_SIGNAL,
  BURST_STRICT,
  BURST_TRANSLATE,
  BurstTable,
  Checksum,
  Queue,
  queueSegmentLength,
  Signal,
  type ErrorCode,
  type QueueRole,
} from "vbus/engine";
import { describe, expect, it } from "vitest";
import { expectError, firstDifference, openGuest, type Guest } from "./guest.js";
import { ReferenceRing, segmentLength } from "./reference/ring.js";

const FLAVOURS = [false, true] as const;

/** What a hostile or broken north might announce: a change to a good ring of 8 descriptors. */
interface BadRing {
  name: string;
  change?: (segment: DataView) => void;
  length?: number;
  offset?: number;
  role?: QueueRole;
  limit?: number;
  code: ErrorCode;
}

const COUNT = 8;
const LENGTH = segmentLength(COUNT, "lp64");

const word =
  (at: number, value: number) =>
  (segment: DataView): void =>
    segment.setUint32(at, value, true);

const BAD_RINGS: BadRing[] = [
  { name: "no signal magic", change: word(8, 0), code: "EINVAL" },
  { name: "a signal of another version", change: word(12, 2), code: "EINVAL" },
  { name: "a wrong magic", change: word(0, 0xe42ffa47), code: "EINVAL" },
  { name: "version 3", change: word(4, 3), code: "EINVAL" },
  { name: "version 5", change: word(4, 5), code: "EINVAL" },
  { name: "a count of zero", change: word(48, 0), code: "EINVAL" },
  {
    name: "a count of zero and the length that goes with it (D4)",
    change: word(48, 0),
    length: 56,
    code: "EINVAL",
  },
  { name: "a count of zero, i386 length", change: word(48, 0), length: 52, code: "EINVAL" },
  { name: "a count one too small", change: word(48, COUNT - 1), code: "EINVAL" },
  { name: "a count one too large", change: word(48, COUNT + 1), code: "EINVAL" },
  {
    name: "a count whose length wraps 32 bits",
    change: word(48, COUNT + 2 ** 27),
    limit: Infinity,
    code: "EINVAL",
  },
  { name: "the largest count", change: word(48, 0xffffffff), limit: Infinity, code: "EINVAL" },
  { name: "a length one too small", length: LENGTH - 1, code: "EINVAL" },
  { name: "a length one too large", length: LENGTH + 1, code: "EINVAL" },
  {
    name: "a length of the other layout for one descriptor less",
    length: segmentLength(7, "ilp32"),
    code: "EINVAL",
  },
  { name: "a length of nothing", length: 0, code: "EINVAL" },
  { name: "a length shorter than a header", length: 51, code: "EINVAL" },
  { name: "a count above the limit", limit: COUNT - 1, code: "EINVAL" },
  { name: "an address below guest memory", offset: -0x20000, code: "EFAULT" },
  { name: "an address behind guest memory", offset: 1 << 20, code: "EFAULT" },
  {
    name: "a segment that ends one descriptor behind guest memory",
    offset: (1 << 20) - 0x8000 - LENGTH + 32,
    code: "EFAULT",
  },
  { name: "an address above 4 GiB that means memory in its low half", offset: 2 ** 32, code: "EFAULT" },
  { name: "a length that reaches beyond guest memory", length: 0xffffffff, code: "EFAULT" },
  {
    name: "inuse.tail == count, where south pushes",
    change: word(40, COUNT),
    role: "southReceive",
    code: "EPROTO",
  },
  { name: "inuse.tail of all ones", change: word(40, 0xffffffff), role: "southReceive", code: "EPROTO" },
  {
    name: "inuse.head == count, where south pops",
    change: word(36, COUNT),
    role: "southTransmit",
    code: "EPROTO",
  },
  { name: "inuse.head of 2^31", change: word(36, 0x80000000), role: "southFeed", code: "EPROTO" },
];

function makeRing(
  guest: Guest,
  count = COUNT,
  ilp32 = false,
): { gpa: number; length: number; segment: DataView } {
  const gpa = guest.gpa + 0x8000;
  const length = queueSegmentLength(count, ilp32);
  Queue.create(guest.north, { gpa, count, role: "northTransmit", ilp32 }).close();
  return { gpa, length, segment: guest.view(gpa, length) };
}

for (const shared of FLAVOURS) {
  describe(`attaching, ${shared ? "shared" : "unshared"} engine`, () => {
    for (const bad of BAD_RINGS) {
      it(`refuses ${bad.name}: ${bad.code}, nothing written, nothing leaked`, () => {
        const guest = openGuest({ shared });
        const { gpa, length, segment } = makeRing(guest);
        bad.change?.(segment);
        const before = guest.ram.slice();
        const free = guest.south.arena.available;
        expectError(bad.code, () =>
          Queue.attach(guest.south, {
            gpa: gpa + (bad.offset ?? 0),
            length: bad.length ?? length,
            role: bad.role ?? "southTransmit",
            ...(bad.limit === undefined ? {} : { limit: bad.limit }),
          }),
        );
        expect(firstDifference(guest.ram, before)).toBe(-1);
        expect(guest.south.arena.available).toBe(free); // D5
      });
    }

    it("refuses a ring, or a signal, that is perfect but not 4-byte aligned: atomics need it", () => {
      const guest = openGuest({ shared });
      for (const off of [1, 2, 3, 4]) {
        const gpa = guest.gpa + 0x8000 + off;
        ReferenceRing.create(guest.view(gpa, LENGTH), 0, COUNT, "lp64");
        const attach = (): Queue => Queue.attach(guest.south, { gpa, length: LENGTH, role: "southTransmit" });
        const signal = (): Signal => Signal.attach(guest.south, gpa + 8);
        if (off === 4) {
          attach().close();
          signal().close();
        } else {
          expectError("EINVAL", attach);
          expectError("EINVAL", signal);
        }
      }
    });

    it("accepts 1, 2048 and no more than the limit; Infinity means none", () => {
      const guest = openGuest({ shared });
      for (const ilp32 of [false, true]) {
        for (const count of [1, 2, 2047, 2048]) {
          const { gpa, length } = makeRing(guest, count, ilp32);
          const queue = Queue.attach(guest.south, { gpa, length, role: "southTransmit" });
          expect([queue.count, queue.stride]).toEqual([count, ilp32 ? 28 : 32]);
          queue.close();
        }
        const { gpa, length } = makeRing(guest, 2049, ilp32);
        const role = "southTransmit";
        expectError("EINVAL", () => Queue.attach(guest.south, { gpa, length, role }));
        expectError("EINVAL", () => Queue.attach(guest.south, { gpa, length, role, limit: 2048 }));
        expect(Queue.attach(guest.south, { gpa, length, role, limit: 2049 }).count).toBe(2049);
        expect(Queue.attach(guest.south, { gpa, length, role, limit: Infinity }).count).toBe(2049);
      }
    });

    it("continues at the positions it finds, and checks an index of the peer only when it reads it", () => {
      const guest = openGuest({ shared });
      const { gpa, length, segment } = makeRing(guest);
      segment.setUint32(36, 5, true);
      segment.setUint32(40, COUNT, true);
      const queue = Queue.attach(guest.south, { gpa, length, role: "southTransmit" });
      const table = BurstTable.allocate(guest.south, COUNT);
      expect(queue.peek("inuse", table, COUNT)).toBe(0);
      expect(queue.broken).toBeNull();
      expectError("EPROTO", () => queue.countOf("inuse"));
      expect(queue.broken).toBe("index");
      expect(queue.counters().violations).toEqual({ index: 1 });
      segment.setUint8(56 + 5 * 32 + 25, 1);
      const again = Queue.attach(guest.south, { gpa, length, role: "southTransmit" });
      expect(again.peek("inuse", table, COUNT)).toBe(1);
      expect(table.position(0)).toBe(5);
    });

    it("uses its own copy of count from then on", () => {
      const guest = openGuest({ shared });
      const { gpa, length, segment } = makeRing(guest);
      const queue = Queue.attach(guest.south, { gpa, length, role: "southTransmit" });
      segment.setUint32(48, 0xffffffff, true);
      for (let i = 0; i < COUNT; i++) segment.setUint8(56 + i * 32 + 25, 1);
      expect(queue.peek("inuse", null, 0xffff)).toBe(COUNT);
      expect(queue.count).toBe(COUNT);
    });
  });

  describe(`creating, ${shared ? "shared" : "unshared"} engine`, () => {
    it("refuses counts that are no ring, with what to do", () => {
      const { north, gpa } = openGuest({ shared });
      for (const count of [0, -1, 1.5, NaN, Infinity, 2 ** 27 + 1, 2 ** 32 + 1]) {
        const error = expectError("EINVAL", () => Queue.create(north, { gpa, count, role: "northTransmit" }));
        expect(error.message).toContain("use 1 to 2048");
      }
      expectError("EFAULT", () => Queue.create(north, { gpa, count: 2 ** 26, role: "northTransmit" }));
      expect(
        north.engine.exports.ringCreate(north.allocate(256, 64), north.regionTable, gpa, 0, 0, 0, 15, 0),
      ).toBe(-22);
      const most = north.engine.exports.ringCreate(
        north.allocate(256, 64),
        north.regionTable,
        gpa,
        0,
        -1,
        0,
        15,
        0,
      );
      expect(most).toBe(-22);
    });

    it("refuses odd addresses and ranges outside, takes any multiple of 4", () => {
      const { north, gpa } = openGuest({ shared });
      const role = "northReceive";
      for (const off of [1, 2, 3])
        expectError("EINVAL", () => Queue.create(north, { gpa: gpa + off, count: 4, role }));
      for (const off of [0, 4, 8, 60]) Queue.create(north, { gpa: gpa + off, count: 4, role }).close();
      const last = gpa + (1 << 20) - queueSegmentLength(4);
      Queue.create(north, { gpa: last, count: 4, role }).close();
      const error = expectError("EFAULT", () => Queue.create(north, { gpa: last + 4, count: 4, role }));
      expect(error.message).toContain((last + 4).toString(16));
      for (const outside of [0, gpa - 4, gpa + (1 << 20), 2 ** 32 + gpa, -4, Number.MAX_SAFE_INTEGER - 3]) {
        expectError("EFAULT", () => Queue.create(north, { gpa: outside, count: 4, role }));
      }
    });

    it("refuses offers that are not assigned, and any offer in the i386 layout", () => {
      const { north, gpa } = openGuest({ shared });
      const options = { gpa, count: 4, role: "northTransmit" } as const;
      for (const offer of [4, 5, EXT_ACCEPTED, EXT_ACCEPTED | EXT_LAZY_INDEXES, 0x40000000]) {
        expectError("EINVAL", () => Queue.create(north, { ...options, offer }));
      }
      expectError("EINVAL", () => Queue.create(north, { ...options, ilp32: true, offer: EXT_LAZY_INDEXES }));
      expectError("EINVAL", () => Queue.create(north, { ...options, ilp32: true, offer: EXT_COMPACT }));
    });

    it("standing signals: alignment, range and magic are checked (R9)", () => {
      const { north, south, gpa, view } = openGuest({ shared });
      Signal.create(north, gpa + 16);
      expect(Signal.attach(south, gpa + 16).inject()).toBe(false);
      for (const off of [1, 2, 3]) {
        expectError("EINVAL", () => Signal.create(north, gpa + off));
        expectError("EINVAL", () => Signal.attach(south, gpa + 16 + off));
      }
      const end = gpa + (1 << 20);
      Signal.create(north, end - 16);
      expectError("EFAULT", () => Signal.create(north, end - 12));
      expectError("EFAULT", () => Signal.attach(south, end - 12));
      view(gpa + 16, 16).setUint32(4, 2, true);
      expectError("EINVAL", () => Signal.attach(south, gpa + 16));
      view(gpa + 16, 16).setUint32(4, 1, true);
      view(gpa + 16, 16).setUint8(0, 0);
      expectError("EINVAL", () => Signal.attach(south, gpa + 16));
    });
  });

  describe(`far addresses, ${shared ? "shared" : "unshared"} engine`, () => {
    const places = [
      { name: "memory above 2 GiB", padding: 2.2 * 2 ** 30, gpa: 0x10000 },
      {
        name: "memory above 3 GiB, guest addresses above 4 GiB",
        padding: 3.1 * 2 ** 30,
        gpa: 2 ** 32 + 0x10000,
      },
      { name: "guest addresses at 2^40", padding: 0, gpa: 2 ** 40 },
      { name: "guest addresses across 2^32", padding: 0, gpa: 2 ** 32 - 0x9000 },
      { name: "guest addresses at 2^52", padding: 0, gpa: 2 ** 52 },
    ];
    for (const { name, ...place } of places) {
      it(`${name}: addresses, lengths and counts come out unsigned and right`, () => {
        const guest = openGuest({ shared, ...place });
        const { north, south, gpa } = guest;
        const base = (guest.init.layout.regions[0] as { address: number }).address;
        if (place.padding > 0) expect(base).toBeGreaterThan(2 ** 31);
        const ring = gpa + 0x8000;
        const length = queueSegmentLength(64);
        const tx = Queue.create(north, { gpa: ring, count: 64, role: "northTransmit" });
        const rx = Queue.attach(south, { gpa: ring, length, role: "southTransmit" });
        const out = BurstTable.allocate(north, 64);
        const into = BurstTable.allocate(south, 64);
        const checksum = new Checksum(south);
        for (let lap = 0; lap < 3; lap++) {
          expect(tx.reserve("both", out, 50)).toBe(50);
          for (let i = 0; i < 50; i++) {
            const frame = gpa + 0x20000 + i * 0x800;
            north.copyTo(frame, Uint8Array.of(i, lap, 3));
            out.setGpa(i, frame);
            out.setLength(i, 3);
          }
          tx.commit("both", out, 50, BURST_POINTER | BURST_LENGTH | BURST_SIGNAL);
          expect(rx.countOf("inuse")).toBe(50);
          expect(rx.peek("inuse", into, 64, BURST_TRANSLATE | BURST_STRICT)).toBe(50);
          for (let i = 0; i < 50; i++) {
            const offset = 0x20000 + i * 0x800;
            expect(into.gpa(i)).toBe(gpa + offset);
            expect(into.bufferAddress(i)).toBe(base + offset);
            expect([...into.bytes(i)]).toEqual([i, lap, 3]);
            expect(checksum.range(into.bufferAddress(i), into.length(i))).toBe(i + lap * 256 + 3);
          }
          rx.release("inuse", null, 50, 0);
          expect(tx.peek("valid", null, 64)).toBe(50);
          tx.release("valid", null, 50, 32);
        }
        expect(tx.counters()).toMatchObject({ pushed: 150, popped: 150, bytes: 450, violations: {} });
        expect([...south.copyFrom(gpa + 0x20000, 3)]).toEqual([0, 2, 3]);
      });
    }

    it("a region that ends at 2^64 and ranges that wrap: no byte outside is ever reached", () => {
      const { south, init } = openGuest({ shared });
      const { address } = init.layout.regions[0] as { address: number };
      const table = new DataView(init.memory.buffer, south.regionTable, 64);
      table.setBigUint64(16, 2n ** 64n - 0x1000n, true); // a table that no caller can ask for: gpa + length wraps
      table.setUint32(24, 0x2000, true);
      table.setUint32(28, address, true);
      const translate = (gpa: bigint, length: number): number =>
        south.engine.exports.translate(
          south.regionTable,
          Number(gpa & 0xffffffffn),
          Number((gpa >> 32n) & 0xffffffffn),
          length,
        ) >>> 0;
      expect(translate(2n ** 64n - 0x1000n, 0x1000)).toBe(address);
      expect(translate(2n ** 64n - 1n, 1)).toBe(address + 0xfff);
      for (const gpa of [0n, 1n, 0xfffn, 0x1000n, 2n ** 63n, 2n ** 64n - 0x1001n]) {
        expect(translate(gpa, 1)).toBe(0);
        expect(translate(gpa, 0xffffffff)).toBe(0);
      }
      expect(translate(2n ** 64n - 1n, 0xffffffff)).toBe(0);
    });
  });
}

describe("buffers that a peer posts", () => {
  const inside = 0x40000n;
  const bad: [name: string, ptr: bigint, len: bigint][] = [
    ["at the end of 64 bits, wrapping", 2n ** 64n - 1n, 2n],
    ["with a length of all ones", inside, 2n ** 64n - 1n],
    ["with a length of exactly 4 GiB", inside, 2n ** 32n],
    ["with a length that is small in its low half", inside, 2n ** 32n + 64n],
    ["whose address is inside in its low half", inside + 2n ** 32n, 64n],
    ["one byte over the end", BigInt(0x10000 + (1 << 20)) - 63n, 64n],
    ["one byte below the start", 0xffffn, 64n],
    ["at 0", 0n, 64n],
    ["at the arena's address", 0x20000n - 0x20000n + 8n, 8n],
  ];
  for (const shared of FLAVOURS) {
    for (const [name, ptr, len] of bad) {
      it(`${name}: address 0, or a violation when strict (${shared ? "shared" : "unshared"})`, () => {
        const { north, south, gpa, view } = openGuest({ shared });
        const length = queueSegmentLength(4);
        const tx = Queue.create(north, { gpa, count: 4, role: "northTransmit" });
        const rx = Queue.attach(south, { gpa, length, role: "southTransmit" });
        expect(tx.reserve("both", null, 2)).toBe(2);
        tx.commit("both", null, 2, 0);
        const segment = view(gpa, length);
        segment.setBigUint64(56 + 8, inside, true);
        segment.setBigUint64(56 + 16, 64n, true);
        segment.setBigUint64(88 + 8, ptr, true);
        segment.setBigUint64(88 + 16, len, true);
        const table = BurstTable.allocate(south, 4);
        expect(rx.peek("inuse", table, 4, BURST_TRANSLATE)).toBe(2);
        expect(table.bufferAddress(0)).toBe(south.translate(Number(inside), 64));
        expect(table.bufferAddress(1)).toBe(0);
        expect(table.bytes(1)).toHaveLength(0);
        expect(table.length(1)).toBe(len > 0xffffffffn ? 0xffffffff : Number(len));
        expectError("EPROTO", () => rx.peek("inuse", table, 4, BURST_TRANSLATE | BURST_STRICT));
        expect(rx.broken).toBe("address");
        expectError("EPROTO", () => rx.release("inuse", null, 1, 0));
        expect(tx.broken).toBeNull();
      });
    }
  }
});
