/** Conformance: iterators, queries and bursts (`docs/abi/ioq.md` sections 3 to 5), operation by operation. */
import assert from "node:assert/strict";
import { bytesOf, item, type ConformanceCase, WRITE_ALL } from "./conformance-case.js";
import { rawDescriptor, rawIndex } from "./raw-ring.js";
import type { Cursor, Rig } from "./ring-side.js";

const EPERM = -1;
const EINVAL = -22;
const EPROTO = -71;

/** Checks that an operation is refused and leaves every shared byte as it was. */
function refused(rig: Rig, expected: number, call: () => unknown): void {
  const before = bytesOf(rig);
  assert.equal(call(), expected);
  assert.deepEqual(bytesOf(rig), before);
}

function at(cursor: Cursor, to: "tail" | "head"): Cursor {
  assert.equal(cursor.seek(to), 0);
  return cursor;
}

/** Section 5 and its error results. */
export const ITERATOR_CASES: ConformanceCase[] = [
  {
    name: "a fresh ring is empty, unmasked by nobody, owned by north",
    pattern: "transmit",
    run(rig) {
      for (const side of [rig.north, rig.south]) {
        for (const index of ["valid", "inuse"] as const) {
          assert.equal(side.countOf(index), 0);
          assert.equal(side.remain(index), rig.count);
        }
        assert.equal(side.broken(), null);
      }
      const { segment, layout, count } = rig;
      assert.equal(segment.getUint32(0, true), 0x47fa2fe4);
      assert.equal(segment.getUint32(4, true), 4);
      assert.equal(segment.getUint32(8, true), 0x58fa39df);
      assert.equal(segment.getUint32(12, true), 1);
      assert.equal(segment.getUint32(48, true), count);
      for (let i = 16; i < 48; i++) assert.equal(segment.getUint8(i), 0);
      for (let i = 0; i < count; i++) {
        assert.deepEqual(rawDescriptor(segment, layout, i), {
          cookie: 0n,
          ptr: 0n,
          len: 0n,
          valid: 0,
          sown: 0,
        });
      }
    },
  },
  {
    name: "an iterator has no position before its first seek, and does nothing",
    pattern: "transmit",
    run(rig) {
      const cursor = rig.north.cursor("both");
      assert.equal(cursor.position(), null);
      assert.equal(cursor.read(), null);
      refused(rig, EINVAL, () => cursor.seek("next"));
      refused(rig, EINVAL, () => cursor.write(item(0), WRITE_ALL));
      refused(rig, EINVAL, () => cursor.push());
      refused(rig, EINVAL, () => cursor.pop());
      assert.equal(cursor.position(), null);
    },
  },
  {
    name: "seek goes to any position below count, wraps on next, refuses the rest with -EPERM",
    pattern: "receive",
    run(rig) {
      const cursor = rig.south.cursor("inuse");
      for (const n of [0, rig.count - 1]) {
        assert.equal(cursor.seek("set", n), 0);
        assert.equal(cursor.position(), n);
      }
      assert.equal(cursor.seek("next"), 0);
      assert.equal(cursor.position(), 0);
      for (const n of [rig.count, rig.count + 1, 0x7fffffff, 0xffffffff]) {
        refused(rig, EPERM, () => cursor.seek("set", n));
      }
      assert.equal(cursor.position(), 0);
    },
  },
  {
    name: "an iterator over both is bound to valid",
    pattern: "transmit",
    run(rig) {
      const push = at(rig.north.cursor("both"), "tail");
      assert.equal(push.push(), 0);
      assert.equal(at(rig.south.cursor("inuse"), "head").pop(), 0);
      const both = rig.north.cursor("both");
      assert.equal(both.seek("head"), 0);
      assert.equal(both.position(), 0); // valid.head; inuse.head has gone on
      const next = 1 % rig.count;
      assert.equal(both.seek("tail"), 0);
      assert.equal(both.position(), next);
      assert.equal(rig.north.cursor("inuse").seek("head"), 0);
      assert.deepEqual(rawIndex(rig.segment, "inuse"), [next, next, 0]);
    },
  },
  {
    name: "push and pop are refused away from the tail and the head",
    pattern: "transmit",
    sizes: (count) => count > 1,
    run(rig) {
      const cursor = at(rig.north.cursor("both"), "tail");
      assert.equal(cursor.seek("next"), 0);
      refused(rig, EINVAL, () => cursor.push());
      assert.equal(at(cursor, "tail").push(), 0);
      const south = at(rig.south.cursor("inuse"), "head");
      assert.equal(south.seek("next"), 0);
      refused(rig, EINVAL, () => south.pop());
    },
  },
  {
    name: "the owner alone decides: what the peer owns is not pushed, popped or written",
    pattern: "transmit",
    run(rig) {
      const south = at(rig.south.cursor("inuse"), "head");
      refused(rig, EINVAL, () => south.pop());
      refused(rig, EINVAL, () => south.write(item(1), WRITE_ALL));
      const north = rig.north.cursor("both");
      for (let i = 0; i < rig.count; i++) assert.equal(at(north, "tail").push(), 0);
      at(north, "tail");
      refused(rig, EINVAL, () => north.push());
      refused(rig, EINVAL, () => north.write(item(1), WRITE_ALL));
      refused(rig, EINVAL, () => at(rig.north.cursor("valid", { noflip: true }), "head").pop());
    },
  },
  {
    name: "an index end that this side does not move is refused",
    pattern: "receive",
    run(rig) {
      refused(rig, EINVAL, () => at(rig.south.cursor("valid"), "tail").push());
      refused(rig, EINVAL, () => at(rig.south.cursor("inuse"), "head").pop());
      refused(rig, EINVAL, () => at(rig.north.cursor("inuse"), "tail").push());
      refused(rig, EINVAL, () => at(rig.north.cursor("both"), "tail").push());
      refused(rig, EINVAL, () => rig.south.reserve("valid", 1));
      refused(rig, EINVAL, () => rig.south.peek("inuse", 1));
      refused(rig, EINVAL, () => rig.north.reserve("inuse", 1));
    },
  },
  {
    name: "NOFLIPOWNER moves the index and leaves the owner",
    pattern: "receive",
    run(rig) {
      const cursor = at(rig.north.cursor("valid", { noflip: true }), "tail");
      assert.equal(cursor.push(), 0);
      assert.equal(rawDescriptor(rig.segment, rig.layout, 0).sown, 0);
      assert.deepEqual(rawIndex(rig.segment, "valid"), [0, 1 % rig.count, rig.count === 1 ? 1 : 0]);
      assert.equal(at(cursor, "head").pop(), 0);
      assert.equal(rawDescriptor(rig.segment, rig.layout, 0).sown, 0);
      assert.deepEqual(rawIndex(rig.segment, "valid"), [1 % rig.count, 1 % rig.count, 0]);
    },
  },
  {
    name: "AUTOUPDATE signals after every push and pop, and only then",
    pattern: "receive",
    run(rig) {
      const { north, south } = rig;
      assert.equal(south.enable("none"), false);
      assert.equal(at(north.cursor("valid"), "tail").push(), 0);
      assert.equal(south.wakeupBegin(1, "none"), "done"); // silent push: nothing dirty
      assert.equal(north.enable("none"), false);
      const fill = at(south.cursor("inuse", { autoupdate: true }), "tail");
      assert.equal(fill.push(), 1);
      refused(rig, EINVAL, () => at(fill, "tail").push());
      const harvest = at(north.cursor("inuse", { autoupdate: true }), "head");
      assert.equal(harvest.pop(), 1);
    },
  },
  {
    name: "unsynchronised tails are a fault of that queue, and it stays broken",
    pattern: "transmit",
    sizes: (count) => count > 1,
    run(rig) {
      assert.equal(at(rig.north.cursor("inuse"), "tail").push(), 0);
      const both = rig.north.cursor("both");
      assert.equal(both.seek("set", 0), 0);
      refused(rig, EINVAL, () => both.push()); // descriptor 0 is south's
      assert.equal(at(rig.south.cursor("inuse"), "head").pop(), 0);
      refused(rig, EPROTO, () => at(both, "tail").push());
      assert.equal(rig.north.broken(), "tails");
      refused(rig, EPROTO, () => both.push());
      refused(rig, EPROTO, () => both.seek("tail"));
      refused(rig, EPROTO, () => rig.north.countOf("inuse"));
      refused(rig, EPROTO, () => rig.north.reserve("both", 1));
      refused(rig, EPROTO, () => rig.north.peek("valid", 1));
      assert.equal(rig.south.broken(), null);
    },
  },
  {
    name: "full, count and remain follow section 3 on both sides through a whole turn",
    oneByOne: true,
    pattern: "transmit",
    run(rig) {
      const { north, south, count } = rig;
      const check = (valid: number, inuse: number): void => {
        for (const side of [north, south]) {
          assert.equal(side.countOf("valid"), valid);
          assert.equal(side.remain("valid"), count - valid);
          assert.equal(side.countOf("inuse"), inuse);
          assert.equal(side.remain("inuse"), count - inuse);
        }
      };
      const step = Math.max(1, count >> 3);
      const push = north.cursor("both");
      const pop = south.cursor("inuse");
      const reclaim = north.cursor("valid", { noflip: true });
      for (let i = 0; i < count; i++) {
        assert.equal(at(push, "tail").push(), 0);
        if (i % step === 0) check(i + 1, i + 1);
      }
      check(count, count);
      for (let i = 0; i < count; i++) {
        assert.equal(at(pop, "head").pop(), 0);
        if (i % step === 0) check(count, count - i - 1);
      }
      check(count, 0);
      for (let i = 0; i < count; i++) {
        assert.equal(at(reclaim, "head").pop(), 0);
        if (i % step === 0) check(count - i - 1, 0);
      }
      check(0, 0);
    },
  },
  {
    name: "`full` set by a stale view is harmless: full means full and head == tail",
    pattern: "feed",
    sizes: (count) => count > 2,
    run(rig) {
      assert.equal(at(rig.north.cursor("inuse"), "tail").push(), 0);
      rig.segment.setUint8(44, 1); // section 8: the producer set it late
      assert.equal(rig.north.countOf("inuse"), 1);
      assert.equal(rig.south.countOf("inuse"), 1);
      assert.equal(at(rig.south.cursor("inuse"), "head").pop(), 0);
      assert.deepEqual(rawIndex(rig.segment, "inuse"), [1, 1, 0]);
    },
  },
];

/** Bursts: results, limits, and that what was not committed or released stays. */
export const BURST_CASES: ConformanceCase[] = [
  {
    name: "reserve and peek grant what is owned, never more than asked for or than there is",
    pattern: "receive",
    run(rig) {
      const { north, south, count } = rig;
      assert.equal(south.reserve("inuse", count), 0);
      assert.equal(north.reserve("valid", 0), 0);
      assert.equal(north.reserve("valid", 1), 1);
      assert.equal(north.reserve("valid", count + 1), count);
      assert.equal(north.reserve("valid", count), count); // reserving takes nothing
      const items = Array.from({ length: count }, (_, i) => item(i));
      assert.equal(north.commit("valid", items, WRITE_ALL), 0);
      assert.equal(north.reserve("valid", count), 0);
      assert.deepEqual(north.peek("inuse", count), []); // all of them are south's now
      assert.equal(south.reserve("inuse", count + 1), count);
    },
  },
  {
    name: "committing or releasing more than was granted is refused and changes nothing",
    pattern: "receive",
    run(rig) {
      const { north, south, count } = rig;
      const items = Array.from({ length: count + 1 }, (_, i) => item(i));
      refused(rig, EINVAL, () => north.commit("valid", items.slice(0, 1), WRITE_ALL));
      assert.equal(north.reserve("valid", count), count);
      refused(rig, EINVAL, () => north.commit("valid", items, WRITE_ALL));
      assert.equal(north.commit("valid", items.slice(0, count), WRITE_ALL), 0);
      refused(rig, EINVAL, () => north.commit("valid", items.slice(0, 1), WRITE_ALL));
      refused(rig, EINVAL, () => south.commit("inuse", items.slice(0, 1), {}));
      refused(rig, EINVAL, () => north.release("inuse", 1, {}));
    },
  },
  {
    name: "what is in service is not granted again before it was reclaimed, though north owns it",
    pattern: "transmit",
    run(rig) {
      const { north, south, count } = rig;
      const items = Array.from({ length: count }, (_, i) => item(i));
      assert.equal(north.reserve("both", count), count);
      assert.equal(north.commit("both", items, WRITE_ALL), 0);
      assert.deepEqual(south.peek("inuse", count), items);
      assert.equal(south.release("inuse", count, {}), 0);
      assert.equal(north.reserve("both", count), 0);
      assert.deepEqual(north.peek("valid", 1), [item(0)]);
      assert.equal(north.release("valid", 1, { mark: 0, noflip: true }), 0);
      assert.equal(north.reserve("both", count), 1);
    },
  },
  {
    name: "an iterator's step voids what was granted before it",
    pattern: "feed",
    sizes: (count) => count > 1,
    run(rig) {
      const { north, south } = rig;
      assert.equal(north.reserve("inuse", 2), 2);
      assert.equal(at(north.cursor("inuse"), "tail").push(), 0);
      refused(rig, EINVAL, () => north.commit("inuse", [item(0)], WRITE_ALL));
      assert.equal(north.reserve("inuse", 1), 1);
      assert.equal(north.commit("inuse", [item(0)], WRITE_ALL), 0);
      assert.equal((south.peek("inuse", 2) as unknown[]).length, 2);
      assert.equal(at(south.cursor("inuse"), "head").pop(), 0);
      refused(rig, EINVAL, () => south.release("inuse", 1, {}));
    },
  },
  {
    name: "a partial commit and a partial release leave the rest for later",
    pattern: "feed",
    sizes: (count) => count > 2,
    run(rig) {
      const { north, south, count } = rig;
      const items = Array.from({ length: count }, (_, i) => item(i));
      assert.equal(north.reserve("inuse", count), count);
      assert.equal(north.commit("inuse", items.slice(0, 1), WRITE_ALL), 0);
      assert.equal(north.commit("inuse", items.slice(1), WRITE_ALL), 0);
      assert.deepEqual(south.peek("inuse", count), items);
      assert.equal(south.release("inuse", 1, {}), 0);
      assert.equal(north.reserve("inuse", count), 1);
      assert.equal(south.release("inuse", 1, {}), 0);
      assert.equal(north.reserve("inuse", count), 2);
      assert.deepEqual(south.peek("inuse", count), items.slice(2));
      assert.deepEqual(rawIndex(rig.segment, "inuse"), [2, 0, 0]);
    },
  },
  {
    name: "a burst of nothing moves nothing, and signals when asked to",
    pattern: "feed",
    run(rig) {
      refused(rig, 0, () => rig.north.commit("inuse", [], {}));
      assert.equal(rig.south.enable("none"), false);
      assert.equal(rig.north.commit("inuse", [], { signal: true }), 1);
      assert.equal(rig.north.release("valid", 0, {}), 0);
    },
  },
  {
    name: "a burst writes only the members it was told to write",
    pattern: "receive",
    run(rig) {
      const { north, south, segment, layout } = rig;
      assert.equal(north.reserve("valid", 1), 1);
      assert.equal(north.commit("valid", [item(7)], WRITE_ALL), 0);
      const posted = rawDescriptor(segment, layout, 0);
      assert.deepEqual(posted, {
        cookie: 8n,
        ptr: BigInt(item(7).gpa),
        len: BigInt(item(7).length),
        valid: 1,
        sown: 1,
      });
      assert.equal(south.reserve("inuse", 1), 1);
      assert.equal(south.commit("inuse", [{ gpa: 1, length: 5, cookie: 2 }], { length: true }), 0);
      assert.deepEqual(rawDescriptor(segment, layout, 0), { ...posted, len: 5n, sown: 0 });
      assert.deepEqual(north.peek("inuse", 1), [{ ...item(7), length: 5 }]);
      assert.equal(north.release("inuse", 1, { mark: 0 }), 0);
      assert.deepEqual(rawDescriptor(segment, layout, 0), { ...posted, len: 5n, valid: 0, sown: 1 });
    },
  },
];
