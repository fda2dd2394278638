/** Conformance: the embedded shm-signal (`docs/abi/shm-signal.md` sections 2.1 to 2.6, R5 to R8). */
import assert from "node:assert/strict";
import { item, wake, type ConformanceCase, WRITE_ALL } from "./conformance-case.js";
import { rawIrq, setRawIrq, type RawIrq } from "./raw-ring.js";
import type { Rig, RingSide } from "./ring-side.js";

type Row = {
  state: RawIrq;
  inject: [after: RawIrq, doorbell: boolean];
  enable: [after: RawIrq, deferred: boolean];
  disable: RawIrq;
  wakeup: [after: RawIrq, runs: number];
};

/** The table of section 2.5, with each x written out. */
const ROWS: Row[] = [
  {
    state: [0, 0, 0],
    inject: [[0, 0, 1], false],
    enable: [[1, 0, 0], false],
    disable: [0, 0, 0],
    wakeup: [[0, 0, 0], 0],
  },
  {
    state: [0, 0, 1],
    inject: [[0, 0, 1], false],
    enable: [[1, 0, 1], true],
    disable: [0, 0, 1],
    wakeup: [[0, 0, 1], 0],
  },
  {
    state: [0, 1, 0],
    inject: [[0, 1, 1], false],
    enable: [[1, 1, 0], true],
    disable: [0, 1, 0],
    wakeup: [[0, 1, 0], 0],
  },
  {
    state: [0, 1, 1],
    inject: [[0, 1, 1], false],
    enable: [[1, 1, 1], true],
    disable: [0, 1, 1],
    wakeup: [[0, 1, 1], 0],
  },
  {
    state: [1, 0, 0],
    inject: [[1, 1, 1], true],
    enable: [[1, 0, 0], false],
    disable: [0, 0, 0],
    wakeup: [[1, 0, 0], 0],
  },
  {
    state: [1, 0, 1],
    inject: [[1, 1, 1], true],
    enable: [[1, 0, 1], true],
    disable: [0, 0, 1],
    wakeup: [[1, 0, 0], 1],
  },
  {
    state: [1, 1, 0],
    inject: [[1, 1, 1], false],
    enable: [[1, 1, 0], true],
    disable: [0, 1, 0],
    wakeup: [[1, 0, 0], 1],
  },
  {
    state: [1, 1, 1],
    inject: [[1, 1, 1], false],
    enable: [[1, 1, 1], true],
    disable: [0, 1, 1],
    wakeup: [[1, 0, 0], 1],
  },
];

function sides(rig: Rig): { receiver: RingSide; sender: RingSide }[] {
  return [
    { receiver: rig.north, sender: rig.south },
    { receiver: rig.south, sender: rig.north },
  ];
}

/** Runs a check towards north and towards south, and sees that the other record stays untouched. */
function bothWays(check: (rig: Rig, receiver: RingSide, sender: RingSide) => void): (rig: Rig) => void {
  return (rig) => {
    for (const { receiver, sender } of sides(rig)) {
      const other: RawIrq = [1, 0, 1];
      setRawIrq(rig.segment, sender.locale, other);
      setRawIrq(rig.segment, receiver.locale, [0, 0, 0]);
      check(rig, receiver, sender);
      assert.deepEqual(rawIrq(rig.segment, sender.locale), other);
    }
  };
}

const small = (count: number): boolean => count <= 8;

/** The state machine and the wakeup loop. */
export const SIGNAL_CASES: ConformanceCase[] = [
  ...ROWS.map((row): ConformanceCase => ({
    name: `signal state ${row.state.join(",")}: inject, enable, disable, wakeup`,
    pattern: "feed",
    sizes: small,
    run: bothWays((rig, receiver, sender) => {
      const { segment } = rig;
      const { locale } = receiver;
      setRawIrq(segment, locale, row.state);
      assert.equal(sender.inject(), row.inject[1]);
      assert.deepEqual(rawIrq(segment, locale), row.inject[0]);
      setRawIrq(segment, locale, row.state);
      assert.equal(receiver.enable("none"), row.enable[1]);
      assert.deepEqual(rawIrq(segment, locale), row.enable[0]);
      setRawIrq(segment, locale, row.state);
      receiver.disable();
      assert.deepEqual(rawIrq(segment, locale), row.disable);
      setRawIrq(segment, locale, row.state);
      assert.deepEqual(wake(receiver), { end: "done", runs: row.wakeup[1] });
      assert.deepEqual(rawIrq(segment, locale), row.wakeup[0]);
    }),
  })),
  {
    name: "any non-zero byte counts as true (R8)",
    pattern: "feed",
    sizes: small,
    run: bothWays((rig, receiver, sender) => {
      for (const value of [2, 0x80, 0xff]) {
        setRawIrq(rig.segment, receiver.locale, [value, 0, 0]);
        assert.equal(sender.inject(), true);
        setRawIrq(rig.segment, receiver.locale, [value, value, 0]);
        assert.equal(sender.inject(), false);
        setRawIrq(rig.segment, receiver.locale, [0, value, 0]);
        assert.equal(receiver.enable("none"), true);
        setRawIrq(rig.segment, receiver.locale, [value, 0, value]);
        assert.deepEqual(wake(receiver), { end: "done", runs: 1 });
        assert.deepEqual(rawIrq(rig.segment, receiver.locale), [value, 0, 0]);
      }
    }),
  },
  {
    name: "full life of a notification: masked, unmasked, rung, suppressed, served",
    pattern: "feed",
    sizes: small,
    run: bothWays((rig, receiver, sender) => {
      const irq = (): RawIrq => rawIrq(rig.segment, receiver.locale);
      assert.equal(sender.inject(), false);
      assert.deepEqual(irq(), [0, 0, 1]);
      assert.equal(receiver.enable("none"), true); // a deferred wakeup, never a call from here
      assert.deepEqual(wake(receiver), { end: "done", runs: 1 });
      assert.deepEqual(irq(), [1, 0, 0]);
      assert.equal(sender.inject(), true);
      assert.equal(sender.inject(), false);
      assert.deepEqual(irq(), [1, 1, 1]);
      receiver.disable();
      assert.deepEqual(wake(receiver), { end: "done", runs: 0 }); // the doorbell came too late (R5)
      assert.deepEqual(irq(), [0, 1, 1]);
      assert.equal(sender.inject(), false); // not again until the receiver unmasks
      assert.equal(receiver.enable("none"), true);
      assert.deepEqual(wake(receiver), { end: "done", runs: 1 });
      assert.deepEqual(irq(), [1, 0, 0]);
    }),
  },
  {
    name: "pending stays set while the receiver works, so a busy sender does not ring",
    pattern: "feed",
    sizes: small,
    run: bothWays((rig, receiver, sender) => {
      assert.equal(receiver.enable("none"), false);
      assert.equal(sender.inject(), true);
      const { end, runs } = wake(receiver, (run) => {
        assert.deepEqual(rawIrq(rig.segment, receiver.locale), [1, 1, 0]);
        if (run < 5) assert.equal(sender.inject(), false);
      });
      assert.deepEqual([end, runs], ["done", 6]);
      assert.deepEqual(rawIrq(rig.segment, receiver.locale), [1, 0, 0]);
      assert.equal(sender.inject(), true);
    }),
  },
  {
    name: "a notifier that disables ends the loop; dirty stays for the next enable",
    pattern: "feed",
    sizes: small,
    run: bothWays((rig, receiver, sender) => {
      assert.equal(receiver.enable("none"), false);
      assert.equal(sender.inject(), true);
      const ended = wake(receiver, () => {
        receiver.disable();
        assert.equal(sender.inject(), false);
      });
      assert.deepEqual(ended, { end: "done", runs: 1 });
      assert.deepEqual(rawIrq(rig.segment, receiver.locale), [0, 0, 1]);
      assert.equal(receiver.enable("none"), true);
      assert.deepEqual(wake(receiver), { end: "done", runs: 1 });
      assert.deepEqual(rawIrq(rig.segment, receiver.locale), [1, 0, 0]);
    }),
  },
  {
    name: "a notifier that disables and enables again asks for no second wakeup (2.6)",
    pattern: "feed",
    sizes: small,
    run: bothWays((rig, receiver, sender) => {
      assert.equal(receiver.enable("none"), false);
      assert.equal(sender.inject(), true);
      const ended = wake(receiver, (run) => {
        receiver.disable();
        if (run < 2) assert.equal(sender.inject(), false);
        assert.equal(receiver.enable("none"), false);
      });
      assert.deepEqual(ended, { end: "done", runs: 3 });
      assert.deepEqual(rawIrq(rig.segment, receiver.locale), [1, 0, 0]);
      assert.equal(sender.inject(), true);
      assert.equal(receiver.enable("none"), true); // outside of a wakeup the guard is down again
    }),
  },
  {
    name: "the loop is bounded (R6): a sender that never rests costs the budget, not the host",
    pattern: "feed",
    sizes: small,
    run: bothWays((rig, receiver, sender) => {
      for (const budget of [0, 1, 2, 7]) {
        setRawIrq(rig.segment, receiver.locale, [1, 1, 1]);
        const ended = wake(receiver, () => sender.inject(), budget);
        assert.deepEqual(ended, { end: "budget", runs: budget });
        const [enabled, pending, dirty] = rawIrq(rig.segment, receiver.locale);
        assert.equal(enabled, 1);
        assert.ok(pending + dirty > 0, "the next wakeup finds its cause");
        assert.equal(receiver.enable("none"), true); // the guard is down
        assert.deepEqual(wake(receiver), { end: "done", runs: 1 });
      }
    }),
  },
  {
    name: "a budget that just suffices ends in done",
    pattern: "feed",
    sizes: small,
    run: bothWays((rig, receiver, sender) => {
      setRawIrq(rig.segment, receiver.locale, [1, 1, 1]);
      const ended = wake(receiver, (run) => run < 2 && sender.inject(), 3);
      assert.deepEqual(ended, { end: "done", runs: 3 });
      assert.deepEqual(rawIrq(rig.segment, receiver.locale), [1, 0, 0]);
    }),
  },
  {
    name: "payload without a signal is found when enabling and when a wakeup ends (Q7)",
    pattern: "feed",
    run(rig) {
      const { north, south } = rig;
      const feed = (): void => {
        assert.equal(north.reserve("inuse", 1), 1);
        assert.equal(north.commit("inuse", [item(0)], WRITE_ALL), 0);
      };
      const take = (): void => {
        assert.equal((south.peek("inuse", 1) as unknown[]).length, 1);
        assert.equal(south.release("inuse", 1, {}), 0);
      };
      feed();
      assert.equal(south.enable("none"), false);
      assert.equal(south.enable("inuse.head"), true);
      assert.deepEqual(wake(south, take, 16, "inuse.head"), { end: "done", runs: 1 });
      assert.equal(south.enable("inuse.head"), false);
      assert.equal(north.inject(), true);
      const ended = wake(
        south,
        (run) => {
          if (run === 1) take();
          else feed(); // arrives while the notifier that saw nothing still runs, and nobody signals
        },
        16,
        "inuse.head",
      );
      assert.deepEqual(ended, { end: "done", runs: 2 });
      feed();
      assert.deepEqual(
        wake(south, () => {}, 4, "inuse.head"),
        { end: "budget", runs: 4 },
      ); // nobody takes it
      south.disable();
      assert.deepEqual(wake(south, take, 4, "inuse.head"), { end: "done", runs: 0 }); // masked means masked
    },
  },
  {
    name: "a producer that waits for room, and a reclaimer, are woken by what they wait for",
    pattern: "transmit",
    run(rig) {
      const { north, south, count } = rig;
      const items = Array.from({ length: count }, (_, k) => item(k));
      assert.equal(north.enable("valid.head"), false); // nothing to reclaim
      assert.equal(north.reserve("both", count), count);
      assert.equal(north.commit("both", items, WRITE_ALL), 0);
      assert.equal(north.enable("valid.head"), false);
      assert.equal(north.enable("inuse.tail"), false); // no room
      assert.equal((south.peek("inuse", 1) as unknown[]).length, 1);
      assert.equal(south.release("inuse", 1, {}), 0);
      assert.equal(north.enable("valid.head"), true);
      assert.equal(north.enable("inuse.tail"), true);
      const reclaimed = wake(
        north,
        () => {
          const done = north.peek("valid", count) as unknown[];
          assert.equal(north.release("valid", done.length, { mark: 0, noflip: true }), 0);
        },
        4,
        "valid.head",
      );
      assert.deepEqual(reclaimed, { end: "done", runs: 1 });
    },
  },
];
