import { EXT_ACCEPTED, EXT_COMPACT, EXT_LAZY_INDEXES, ITER_AUTOUPDATE } from "vbus/abi";
import {
  BURST_COOKIE,
  BURST_LENGTH,
  BURST_NOFLIP,
  BURST_POINTER,
  BURST_SET_VALID,
  BURST_SIGNAL,
  BurstTable,
  Queue,
  RECHECK_NONE,
  RingIterator,
  queueSegmentLength,
} from "vbus/engine";
import { describe, expect, it } from "vitest";
import { expectError, openGuest, type Guest } from "./guest.js";
import { rawIndex } from "./raw-ring.js";

const COUNT = 4;
const LENGTH = queueSegmentLength(COUNT);
const WORD = 52;

interface Pair {
  guest: Guest;
  tx: Queue;
  rx: Queue;
  segment: DataView;
}

/** A transmit ring with an offer and an acceptance; north has learnt the outcome. */
function open(
  shared: boolean,
  offer: number,
  accept: number,
  between: (segment: DataView) => void = () => {},
): Pair {
  const guest = openGuest({ shared });
  const { north, south, gpa } = guest;
  const tx = Queue.create(north, { gpa, count: COUNT, role: "northTransmit", offer });
  const segment = guest.view(gpa, LENGTH);
  between(segment);
  const rx = Queue.attach(south, { gpa, length: LENGTH, role: "southTransmit", accept });
  tx.negotiated();
  return { guest, tx, rx, segment };
}

function lap({ tx, rx }: Pair, n = COUNT): void {
  expect(tx.reserve("both", null, n)).toBe(n);
  tx.commit("both", null, n, BURST_SIGNAL);
  expect(rx.peek("inuse", null, COUNT)).toBe(n);
  rx.release("inuse", null, n, BURST_SIGNAL);
  expect(tx.peek("valid", null, COUNT)).toBe(n);
  tx.release("valid", null, n, BURST_NOFLIP);
}

for (const shared of [false, true]) {
  describe(`extension word, ${shared ? "shared" : "unshared"} engine`, () => {
    it("strict v4 is the default: nothing offered, nothing accepted, the word stays 0", () => {
      for (const accept of [0, EXT_LAZY_INDEXES]) {
        const { tx, rx, segment } = open(shared, 0, accept);
        expect(segment.getUint32(WORD, true)).toBe(0);
        expect([tx.extensions, rx.extensions]).toEqual([0, 0]);
      }
    });

    it("an offer that south does not take leaves the word alone, as a v4 south does", () => {
      const { tx, rx, segment } = open(shared, EXT_LAZY_INDEXES, 0);
      expect(segment.getUint32(WORD, true)).toBe(EXT_LAZY_INDEXES);
      expect(tx.negotiated()).toBe(0);
      expect([tx.extensions, rx.extensions]).toEqual([0, 0]);
    });

    it("an offer that south takes comes back with the top bit", () => {
      const { tx, rx, segment } = open(shared, EXT_LAZY_INDEXES, EXT_LAZY_INDEXES);
      expect(segment.getUint32(WORD, true)).toBe(EXT_ACCEPTED + EXT_LAZY_INDEXES);
      expect(tx.negotiated()).toBe(EXT_LAZY_INDEXES);
      expect([tx.extensions, rx.extensions]).toEqual([EXT_LAZY_INDEXES, EXT_LAZY_INDEXES]);
    });

    it("south takes only what it knows and was told to take", () => {
      const both = EXT_LAZY_INDEXES | EXT_COMPACT;
      const all = open(shared, both, 0xffffffff, (segment) => segment.setUint32(WORD, 0x7fffffff, true));
      expect(all.rx.extensions).toBe(both);
      expect(all.segment.getUint32(WORD, true)).toBe(EXT_ACCEPTED + both);
      for (const accept of [EXT_LAZY_INDEXES, EXT_COMPACT]) {
        const one = open(shared, both, accept);
        expect([one.tx.extensions, one.rx.extensions]).toEqual([accept, accept]);
      }
      const unknown = open(shared, 0, 0xffffffff, (segment) => segment.setUint32(WORD, 0x7ffffffc, true));
      expect(unknown.rx.extensions).toBe(0);
      expect(unknown.segment.getUint32(WORD, true)).toBe(0x7ffffffc);
    });

    it("a word that already has the top bit offers nothing and is left alone", () => {
      const { rx, segment } = open(shared, 0, EXT_LAZY_INDEXES, (word) =>
        word.setUint32(WORD, 0x80000001, true),
      );
      expect(rx.extensions).toBe(0);
      expect(segment.getUint32(WORD, true)).toBe(0x80000001);
    });

    it("accepting what was not offered is a violation of that queue", () => {
      for (const word of [0x80000002, 0x80000003, 0x80000004, 0xffffffff, 0xc0000000]) {
        const { guest, tx, segment } = open(shared, EXT_LAZY_INDEXES, 0);
        segment.setUint32(WORD, word, true);
        expectError("EPROTO", () => tx.negotiated());
        expect(tx.broken).toBe("extension");
        expect(tx.counters().violations).toEqual({ extension: 1 });
        expectError("EPROTO", () => tx.reserve("both", null, 1));
        Queue.create(guest.north, { gpa: guest.gpa + 0x1000, count: 1, role: "northTransmit" });
      }
    });

    it("the top bit alone means that nothing was accepted; a v4 north never looks", () => {
      const offered = open(shared, EXT_LAZY_INDEXES, 0);
      offered.segment.setUint32(WORD, EXT_ACCEPTED, true);
      expect(offered.tx.negotiated()).toBe(0);
      const silent = open(shared, 0, 0);
      silent.segment.setUint32(WORD, 0xffffffff, true);
      expect(silent.tx.negotiated()).toBe(0);
      expect(silent.tx.broken).toBeNull();
    });

    it("later changes of the word have no effect", () => {
      const pair = open(shared, EXT_LAZY_INDEXES, EXT_LAZY_INDEXES);
      pair.segment.setUint32(WORD, 0, true);
      lap(pair, 3);
      expect(rawIndex(pair.segment, "inuse")).toEqual([0, 0, 0]);
      const strict = open(shared, 0, 0);
      strict.segment.setUint32(WORD, EXT_ACCEPTED + EXT_LAZY_INDEXES, true);
      lap(strict, 3);
      expect(rawIndex(strict.segment, "inuse")).toEqual([3, 3, 0]);
    });

    it("the i386 layout has no channel: descriptor 0 begins there", () => {
      const { north, south, gpa, view } = openGuest({ shared });
      const length = queueSegmentLength(COUNT, true);
      Queue.create(north, { gpa, count: COUNT, role: "northTransmit", ilp32: true });
      const segment = view(gpa, length);
      segment.setUint32(WORD, EXT_LAZY_INDEXES, true); // the cookie of descriptor 0
      const rx = Queue.attach(south, { gpa, length, role: "southTransmit", accept: EXT_LAZY_INDEXES });
      expect(rx.extensions).toBe(0);
      expect(segment.getUint32(WORD, true)).toBe(EXT_LAZY_INDEXES);
    });
  });

  describe(`compact descriptors, ${shared ? "shared" : "unshared"} engine`, () => {
    it("halve the stride once both sides know, and not before", () => {
      const strict = open(shared, EXT_COMPACT, 0);
      expect([strict.tx.stride, strict.rx.stride]).toEqual([32, 32]);
      const compact = open(shared, EXT_COMPACT, EXT_COMPACT);
      expect([compact.tx.stride, compact.rx.stride]).toEqual([16, 16]);
      for (let i = 0; i < 20; i++) lap(compact, 1 + (i % COUNT));
    });

    it("lie where the document says, with north's cookies and marks behind them", () => {
      const { guest, tx, rx, segment } = open(shared, EXT_COMPACT, EXT_COMPACT);
      const out = BurstTable.allocate(guest.north, COUNT);
      lap({ guest, tx, rx, segment }, 1); // so that positions differ from entries
      expect(tx.reserve("both", out, COUNT)).toBe(COUNT);
      for (let i = 0; i < COUNT; i++) {
        out.setGpa(i, 0x123456789 + i);
        out.setLength(i, 0xfedcba98 + i);
        out.setCookie(i, 0xabcd0000 + i);
      }
      tx.commit("both", out, COUNT, BURST_POINTER | BURST_LENGTH | BURST_COOKIE | BURST_SET_VALID);
      for (let i = 0; i < COUNT; i++) {
        const position = (1 + i) % COUNT;
        const at = 56 + 16 * position;
        expect(segment.getBigUint64(at, true)).toBe(0x123456789n + BigInt(i));
        expect(segment.getUint32(at + 8, true)).toBe(0xfedcba98 + i);
        expect(segment.getUint32(at + 12, true)).toBe(1); // sown, and three zero bytes
        expect(segment.getBigUint64(56 + 16 * COUNT + 8 * position, true)).toBe(BigInt(0xabcd0000 + i));
        expect(segment.getUint8(56 + 24 * COUNT + position)).toBe(1);
      }
    });

    it("south reads cookies only when it asks for them", () => {
      const { guest, tx, rx } = open(shared, EXT_COMPACT, EXT_COMPACT);
      const [out, found] = [BurstTable.allocate(guest.north, 1), BurstTable.allocate(guest.south, 1)];
      tx.reserve("both", out, 1);
      out.setCookie(0, 77);
      tx.commit("both", out, 1, BURST_COOKIE);
      expect(rx.peek("inuse", found, 1)).toBe(1);
      expect(found.cookie(0)).toBe(0);
      expect(rx.peek("inuse", found, 1, BURST_COOKIE)).toBe(1);
      expect(found.cookie(0)).toBe(77);
      rx.release("inuse", null, 1, 0);
      expect(tx.peek("valid", out, 1)).toBe(1);
      expect(out.cookie(0)).toBe(77);
    });

    it("a ring that has moved already keeps its layout", () => {
      for (const at of [24, 28, 32, 36, 40, 44]) {
        const { tx, rx, segment } = open(shared, EXT_COMPACT, EXT_COMPACT, (word) => word.setUint8(at, 1));
        expect([tx.extensions, rx.extensions, rx.stride]).toEqual([0, 0, 32]);
        expect(segment.getUint32(WORD, true)).toBe(EXT_COMPACT);
      }
    });

    it("north that pushed before it knew is told so, and its queue stays as it was", () => {
      const { north, south, gpa } = openGuest({ shared });
      const tx = Queue.create(north, { gpa, count: COUNT, role: "northTransmit", offer: EXT_COMPACT });
      Queue.attach(south, { gpa, length: LENGTH, role: "southTransmit", accept: EXT_COMPACT });
      tx.reserve("both", null, 1);
      tx.commit("both", null, 1, 0);
      expectError("EINVAL", () => tx.negotiated());
      expect([tx.stride, tx.extensions, tx.broken]).toEqual([32, 0, null]);
    });
  });

  describe(`lazy indexes, ${shared ? "shared" : "unshared"} engine`, () => {
    const fresh = (): Pair => open(shared, EXT_LAZY_INDEXES, EXT_LAZY_INDEXES);
    const header = ({ segment }: Pair) => [rawIndex(segment, "valid"), rawIndex(segment, "inuse")];

    it("traffic leaves the shared indexes alone, for many turns", () => {
      const pair = fresh();
      for (let i = 0; i < 5 * COUNT; i++) lap(pair, 1 + (i % COUNT));
      expect(header(pair)).toEqual([
        [0, 0, 0],
        [0, 0, 0],
      ]);
      expect([pair.tx.broken, pair.rx.broken]).toEqual([null, null]);
      expect(pair.tx.countOf("valid")).toBe(0);
    });

    it("iterators leave them alone as well", () => {
      const pair = fresh();
      const push = new RingIterator(pair.tx, "both", ITER_AUTOUPDATE);
      const pop = new RingIterator(pair.rx, "inuse");
      for (let i = 0; i < COUNT; i++) {
        push.seek("tail");
        expect(push.push()).toBe(0);
      }
      push.seek("tail");
      expect(push.push()).toBe(-22); // the owner says so, no index does
      for (let i = 0; i < 3; i++) {
        pop.seek("head");
        expect(pop.pop()).toBe(0);
      }
      expect(header(pair)).toEqual([
        [0, 0, 0],
        [0, 0, 0],
      ]);
      expect(pair.tx.countOf("valid")).toBe(COUNT);
    });

    it("enabling, exporting and sync write the ends that this side moves, and no other", () => {
      const idle: [name: string, tidy: (queue: Queue) => unknown][] = [
        ["enable", (queue) => queue.enable(RECHECK_NONE)],
        ["exportState", (queue) => queue.exportState()],
        ["sync", (queue) => queue.sync()],
      ];
      for (const [name, tidy] of idle) {
        const pair = fresh();
        pair.tx.reserve("both", null, COUNT);
        pair.tx.commit("both", null, COUNT, 0);
        pair.rx.peek("inuse", null, 2);
        pair.rx.release("inuse", null, 2, 0);
        pair.tx.peek("valid", null, 1);
        pair.tx.release("valid", null, 1, BURST_NOFLIP);
        tidy(pair.rx);
        expect(header(pair), `${name} by south`).toEqual([
          [0, 0, 0],
          [2, 0, 0],
        ]);
        tidy(pair.tx);
        expect(header(pair), `${name} by north`).toEqual([
          [1, 0, 0],
          [2, 0, 0],
        ]);
      }
    });

    it("`full` of valid is written by the side that moves both of its ends", () => {
      const pair = fresh();
      pair.tx.reserve("both", null, COUNT);
      pair.tx.commit("both", null, COUNT, 0);
      pair.rx.sync();
      expect(header(pair)[0]).toEqual([0, 0, 0]);
      pair.tx.sync();
      expect(header(pair)).toEqual([
        [0, 0, 1],
        [0, 0, 0],
      ]);
      pair.rx.peek("inuse", null, COUNT);
      pair.rx.release("inuse", null, COUNT, 0);
      pair.tx.peek("valid", null, 2);
      pair.tx.release("valid", null, 2, BURST_NOFLIP);
      pair.tx.sync();
      expect(header(pair)[0]).toEqual([2, 0, 0]);
    });

    it("what the peer left in its indexes decides nothing, but is range-checked when it is read", () => {
      const pair = fresh();
      pair.segment.setUint32(36, 3, true);
      pair.segment.setUint32(40, 2, true);
      pair.segment.setUint8(44, 77);
      lap(pair);
      lap(pair, 1);
      expect([pair.tx.broken, pair.rx.broken]).toEqual([null, null]);
      pair.segment.setUint32(36, COUNT, true);
      lap(pair);
      expectError("EPROTO", () => pair.tx.countOf("inuse"));
      expect(pair.tx.broken).toBe("index");
      expect(pair.rx.broken).toBeNull();
    });

    it("a strict ring never differs from its private positions, so sync changes nothing", () => {
      const pair = open(shared, 0, 0);
      lap(pair, 3);
      const before = header(pair);
      pair.tx.sync();
      pair.rx.sync();
      expect(header(pair)).toEqual(before);
    });
  });
}
