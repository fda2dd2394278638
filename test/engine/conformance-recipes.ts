/**
 * Conformance: the five ways of using a ring (`docs/abi/ioq.md` section 6) as recipes, iterator by iterator and in
 * bursts, with the indexes that a v4 peer reads after each step.
 */
import assert from "node:assert/strict";
import { item, wake, type ConformanceCase, WRITE_ALL } from "./conformance-case.js";
import { rawDescriptor, rawIndex, rawIrq } from "./raw-ring.js";
import type { Item, Rig } from "./ring-side.js";

const EINVAL = -22;

/** Checks both indexes as stored. */
function indexes(
  rig: Rig,
  valid: readonly [number, number, number],
  inuse: readonly [number, number, number],
): void {
  const wrap = ([head, tail, full]: readonly [number, number, number]): readonly number[] => [
    head % rig.count,
    tail % rig.count,
    full,
  ];
  assert.deepEqual(rawIndex(rig.segment, "valid"), wrap(valid));
  assert.deepEqual(rawIndex(rig.segment, "inuse"), wrap(inuse));
}

function owner(rig: Rig, position: number): number {
  return rawDescriptor(rig.segment, rig.layout, position % rig.count).sown;
}

function isFull(rig: Rig, n: number): number {
  return n === rig.count ? 1 : 0;
}

/** A lap of n descriptors from position `start`, everything empty before and after: pattern (a). */
function transmitLap(rig: Rig, start: number, n: number): void {
  const { north, south, count } = rig;
  assert.equal(south.enable("inuse.head"), false);
  const send = north.cursor("both", { autoupdate: true });
  assert.equal(send.seek("tail"), 0);
  for (let k = 1; k <= n; k++) {
    assert.equal(send.write(item(k), WRITE_ALL), 0);
    assert.equal(send.push(), k === 1 ? 1 : 0); // one doorbell, then south is known to be at it
    assert.equal(send.position(), (start + k) % count);
    indexes(rig, [start, start + k, isFull(rig, k)], [start, start + k, isFull(rig, k)]);
    assert.equal(owner(rig, start + k - 1), 1);
  }
  assert.equal(north.countOf("valid"), n);

  const take = south.cursor("inuse");
  const { end } = wake(south, () => {
    assert.equal(take.seek("head"), 0);
    for (let k = 1; take.read()?.owner === 1; k++) {
      assert.deepEqual(take.read(), { ...item(k), valid: 1, owner: 1 });
      assert.equal(take.pop(), 0);
      indexes(rig, [start, start + n, isFull(rig, n)], [start + k, start + n, 0]);
      assert.equal(owner(rig, start + k - 1), 0);
    }
  });
  assert.equal(end, "done");
  assert.equal(take.pop(), EINVAL);
  assert.equal(north.countOf("valid"), n); // flow control looks at valid: nothing is reclaimed yet
  assert.equal(south.inject(), false); // north is masked: it reclaims when it likes
  south.disable();

  const reclaim = north.cursor("valid", { noflip: true });
  assert.equal(reclaim.seek("head"), 0);
  for (let k = 1; reclaim.read()?.valid === 1 && reclaim.read()?.owner === 0; k++) {
    assert.equal(reclaim.write({}, { mark: 0 }), 0);
    assert.equal(reclaim.pop(), 0);
    indexes(rig, [start + k, start + n, 0], [start + n, start + n, 0]);
    assert.equal(owner(rig, start + k - 1), 0);
  }
  indexes(rig, [start + n, start + n, 0], [start + n, start + n, 0]);
  for (const cursor of [send, take, reclaim]) cursor.close();
}

/** Pattern (a) in bursts: same end of every step. */
function transmitBurstLap(rig: Rig, start: number, n: number): void {
  const { north, south } = rig;
  const items = Array.from({ length: n }, (_, k) => item(k));
  assert.equal(south.enable("inuse.head"), false);
  assert.equal(north.reserve("both", n), n);
  assert.equal(north.commit("both", items, { ...WRITE_ALL, signal: true }), 1);
  indexes(rig, [start, start + n, isFull(rig, n)], [start, start + n, isFull(rig, n)]);
  for (let k = 0; k < n; k++) assert.equal(owner(rig, start + k), 1);

  const { end, runs } = wake(south, () => {
    assert.deepEqual(south.peek("inuse", n), items);
    assert.equal(south.release("inuse", n, { signal: true }), 0);
    assert.deepEqual(south.peek("inuse", n), []);
  });
  assert.deepEqual([end, runs], ["done", 1]);
  indexes(rig, [start, start + n, isFull(rig, n)], [start + n, start + n, 0]);
  south.disable();

  assert.deepEqual(north.peek("valid", n), items);
  assert.equal(north.release("valid", n, { mark: 0, noflip: true }), 0);
  indexes(rig, [start + n, start + n, 0], [start + n, start + n, 0]);
  for (let k = 0; k < n; k++) {
    const { valid, sown } = rawDescriptor(rig.segment, rig.layout, (start + k) % rig.count);
    assert.deepEqual([valid, sown], [0, 0]);
  }
}

/** North posts every buffer: step 1 of patterns (b) and (c). */
function postAll(rig: Rig): void {
  const { north, count } = rig;
  const post = north.cursor("valid");
  assert.equal(post.seek("tail"), 0);
  for (let k = 1; post.read()?.valid === 0; k++) {
    assert.equal(post.write(item(k - 1), WRITE_ALL), 0);
    assert.equal(post.push(), 0);
    indexes(rig, [0, k, isFull(rig, k)], [0, 0, 0]);
    assert.equal(owner(rig, k - 1), 1);
  }
  assert.equal(north.countOf("valid"), count);
  assert.deepEqual(rawIrq(rig.segment, 1), [0, 0, 0]); // no signal
  post.close();
}

/** South fills n buffers and north harvests them: steps 2 and 3. `each`: north signals after every pop. */
function receiveLap(rig: Rig, start: number, n: number, each: boolean): void {
  const { north, south, count } = rig;
  assert.equal(north.enable("inuse.head"), false);
  assert.equal(south.countOf("inuse"), 0);
  const fill = south.cursor("inuse", { autoupdate: true });
  assert.equal(fill.seek("tail"), 0);
  for (let k = 1; k <= n; k++) {
    assert.equal(fill.write({ length: k }, { length: true }), 0);
    assert.equal(fill.push(), k === 1 ? 1 : 0);
    indexes(rig, [0, 0, 1], [start, start + k, isFull(rig, k)]);
    assert.equal(owner(rig, start + k - 1), 0);
  }
  assert.equal(south.remain("inuse"), count - n);

  assert.equal(south.enable("none"), false); // south wants to know of fresh room
  const harvest = north.cursor("inuse", { autoupdate: each });
  let bells = 0;
  wake(north, () => {
    north.disable();
    assert.equal(harvest.seek("head"), 0);
    for (let k = 1; k <= n; k++) {
      const {
        cookie,
        length,
        owner: who,
      } = harvest.read() as { cookie: number; length: number; owner: number };
      assert.deepEqual([cookie, length, who], [item((start + k - 1) % count).cookie, k, 0]);
      assert.equal(harvest.write({ length: 2048 }, { length: true }), 0);
      bells += harvest.pop();
      indexes(rig, [0, 0, 1], [start + k, start + n, 0]);
      assert.equal(owner(rig, start + k - 1), 1);
    }
  });
  if (!each) bells += north.inject() ? 1 : 0;
  assert.equal(bells, 1);
  assert.deepEqual(wake(south), { end: "done", runs: 1 });
  south.disable();
  for (const cursor of [fill, harvest]) cursor.close();
}

function receiveBurstLap(rig: Rig, start: number, n: number): void {
  const { north, south, count } = rig;
  assert.equal(north.enable("inuse.head"), false);
  assert.equal(south.reserve("inuse", n), n);
  const filled = Array.from({ length: n }, (_, k) => ({ gpa: 0, length: k + 1, cookie: 0 }));
  assert.equal(south.commit("inuse", filled, { length: true, signal: true }), 1);
  indexes(rig, [0, 0, 1], [start, start + n, isFull(rig, n)]);
  wake(north, () => {
    const got = north.peek("inuse", n) as Item[];
    assert.deepEqual(
      got,
      filled.map(({ length }, k) => ({ ...item((start + k) % count), length })),
    );
    const fresh = got.map(({ gpa, cookie }) => ({ gpa, cookie, length: 2048 }));
    assert.equal(north.release("inuse", n, { ...WRITE_ALL, signal: true }, fresh), 0);
  });
  indexes(rig, [0, 0, 1], [start + n, start + n, 0]);
  for (let k = 0; k < n; k++) assert.equal(owner(rig, start + k), 1);
  north.disable();
}

/** Runs a lap of one, of all, and (on small rings) of most, so that every position is a first one. */
function laps(rig: Rig, lap: (start: number, n: number) => void): void {
  lap(0, 1);
  lap(1, rig.count);
  if (rig.count > 1 && rig.count <= 256) {
    lap(1 + rig.count, rig.count - 1);
    lap(2 * rig.count, rig.count);
  }
}

/** The patterns (a) to (e). */
export const RECIPE_CASES: ConformanceCase[] = [
  {
    name: "(a) transmit with reclaim, one by one",
    oneByOne: true,
    pattern: "transmit",
    run: (rig) => laps(rig, (start, n) => transmitLap(rig, start, n)),
  },
  {
    name: "(a) transmit with reclaim, in bursts",
    pattern: "transmit",
    run: (rig) => laps(rig, (start, n) => transmitBurstLap(rig, start, n)),
  },
  {
    name: "(b) receive: post, fill, harvest and repost, one by one",
    oneByOne: true,
    pattern: "receive",
    run(rig) {
      postAll(rig);
      laps(rig, (start, n) => receiveLap(rig, start, n, true));
    },
  },
  {
    name: "(b) receive, in bursts",
    pattern: "receive",
    run(rig) {
      const { north, count } = rig;
      const items = Array.from({ length: count }, (_, k) => item(k));
      assert.equal(north.reserve("valid", count + 1), count);
      assert.equal(north.commit("valid", items, WRITE_ALL), 0);
      indexes(rig, [0, 0, 1], [0, 0, 0]);
      laps(rig, (start, n) => receiveBurstLap(rig, start, n));
    },
  },
  {
    name: "(b) teardown as in 2009: popping what south owns is refused (D6)",
    oneByOne: true,
    pattern: "receive",
    run(rig) {
      postAll(rig);
      const tear = rig.north.cursor("valid");
      assert.equal(tear.seek("head"), 0);
      assert.equal(tear.pop(), EINVAL);
      assert.equal(rig.north.broken(), null);
      indexes(rig, [0, 0, 1], [0, 0, 0]);
    },
  },
  {
    name: "(c) events: fixed buffers, one signal after the loop",
    oneByOne: true,
    pattern: "receive",
    run(rig) {
      postAll(rig);
      laps(rig, (start, n) => receiveLap(rig, start, n, false));
    },
  },
  {
    name: "(d) feed through inuse alone: valid is never used",
    oneByOne: true,
    pattern: "feed",
    run(rig) {
      laps(rig, (start, n) => {
        const { north, south } = rig;
        assert.equal(south.enable("none"), false);
        const feed = north.cursor("inuse");
        assert.equal(feed.seek("tail"), 0);
        for (let k = 1; k <= n; k++) {
          assert.equal(feed.write(item(k), { pointer: true, cookie: true, length: true }), 0);
          assert.equal(feed.push(), 0);
          indexes(rig, [0, 0, 0], [start, start + k, isFull(rig, k)]);
        }
        assert.equal(north.inject(), true);
        const take = south.cursor("inuse");
        wake(south, () => {
          assert.equal(take.seek("head"), 0);
          for (let k = 1; take.read()?.owner === 1; k++) {
            assert.deepEqual(take.read(), { ...item(k), valid: 0, owner: 1 });
            assert.equal(take.pop(), 0);
            indexes(rig, [0, 0, 0], [start + k, start + n, 0]);
          }
        });
        south.disable();
        for (const cursor of [feed, take]) cursor.close();
      });
    },
  },
  {
    name: "(e) transmit with completion events: the cookie comes through, valid is never used",
    pattern: "feed",
    run(rig) {
      const { north, south, count, segment } = rig;
      const inFlight = new Map<number, Item>();
      let sent = 0;
      for (let turn = 0; turn < 3; turn++) {
        const n = north.reserve("inuse", count);
        assert.equal(n, count);
        const items = Array.from({ length: n }, () => item(sent++));
        for (const each of items) inFlight.set(each.cookie, each);
        assert.equal(north.commit("inuse", items, { ...WRITE_ALL, signal: true }), 0);
        const taken = south.peek("inuse", count) as Item[];
        assert.equal(south.release("inuse", taken.length, {}), 0);
        // the events quote cookies in any order; here last first
        for (const each of taken.reverse()) {
          assert.deepEqual(inFlight.get(each.cookie), each);
          inFlight.delete(each.cookie);
        }
      }
      assert.equal(inFlight.size, 0);
      assert.deepEqual(rawIndex(segment, "valid"), [0, 0, 0]);
      assert.deepEqual(rawIndex(segment, "inuse"), [0, 0, 0]);
    },
  },
];
