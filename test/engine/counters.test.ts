import {
  BURST_LENGTH,
  BURST_SIGNAL,
  BurstTable,
  Queue,
  queueSegmentLength,
  RECHECK_INUSE_HEAD,
  RECHECK_NONE,
  Signal,
  WAKEUP_BUDGET,
  WAKEUP_DONE,
  WAKEUP_RUN,
} from "vbus/engine";
import { describe, expect, it } from "vitest";
import { expectError, openGuest } from "./guest.js";

const ZERO = {
  sent: 0,
  suppressed: 0,
  masked: 0,
  wakeups: 0,
  spurious: 0,
  deferred: 0,
  notified: 0,
  exhausted: 0,
};

for (const shared of [false, true]) {
  describe(`counters of a standing signal, ${shared ? "shared" : "unshared"} engine`, () => {
    it("count every event exactly once, on the side where it happens", () => {
      const { north, south, gpa } = openGuest({ shared });
      const receiver = Signal.create(north, gpa);
      const sender = Signal.attach(south, gpa);
      expect(receiver.counters()).toEqual(ZERO);
      for (let i = 0; i < 3; i++) expect(sender.inject()).toBe(false);
      expect(sender.counters()).toEqual({ ...ZERO, masked: 3 });

      expect(receiver.enable()).toBe(true);
      expect(receiver.wakeupBegin(4)).toBe(WAKEUP_RUN);
      expect(receiver.wakeupNext()).toBe(WAKEUP_DONE);
      expect(receiver.counters()).toEqual({ ...ZERO, deferred: 1, wakeups: 1, notified: 1 });

      expect(sender.inject()).toBe(true);
      for (let i = 0; i < 5; i++) expect(sender.inject()).toBe(false);
      expect(sender.counters()).toEqual({ ...ZERO, masked: 3, sent: 1, suppressed: 5 });

      expect(receiver.wakeupBegin(2)).toBe(WAKEUP_RUN);
      sender.inject();
      expect(receiver.wakeupNext()).toBe(WAKEUP_RUN);
      sender.inject();
      expect(receiver.wakeupNext()).toBe(WAKEUP_BUDGET);
      expect(receiver.wakeupBegin(2)).toBe(WAKEUP_RUN);
      expect(receiver.wakeupNext()).toBe(WAKEUP_DONE);
      expect(receiver.wakeupBegin(2)).toBe(WAKEUP_DONE);
      expect(receiver.counters()).toEqual({
        ...ZERO,
        deferred: 1,
        wakeups: 4,
        notified: 4,
        spurious: 1,
        exhausted: 1,
      });
      receiver.disable();
      expect(receiver.wakeupBegin(2)).toBe(WAKEUP_DONE);
      expect(receiver.counters()).toMatchObject({ wakeups: 5, spurious: 2 });
    });
  });

  describe(`counters of a queue, ${shared ? "shared" : "unshared"} engine`, () => {
    it("descriptors, bytes, signals, violations by kind", () => {
      const { north, south, gpa, view } = openGuest({ shared });
      const length = queueSegmentLength(8);
      const tx = Queue.create(north, { gpa, count: 8, role: "northTransmit" });
      const rx = Queue.attach(south, { gpa, length, role: "southTransmit" });
      const table = BurstTable.allocate(north, 8);
      for (let i = 0; i < 8; i++) table.setLength(i, 100 + i);
      expect(tx.reserve("both", table, 5)).toBe(5);
      for (let i = 0; i < 5; i++) table.setLength(i, 100 + i);
      tx.commit("both", table, 5, BURST_LENGTH | BURST_SIGNAL);
      expect(tx.counters()).toEqual({ ...ZERO, masked: 1, pushed: 5, popped: 0, bytes: 510, violations: {} });
      expect(rx.enable(RECHECK_NONE)).toBe(true);
      expect(rx.wakeupBegin(8, RECHECK_INUSE_HEAD)).toBe(WAKEUP_RUN);
      expect(rx.peek("inuse", null, 8)).toBe(5);
      rx.release("inuse", null, 4, 0);
      expect(rx.wakeupNext(RECHECK_INUSE_HEAD)).toBe(WAKEUP_RUN);
      expect(rx.hasPayload).toBe(true);
      expect(rx.peek("inuse", null, 8)).toBe(1);
      rx.release("inuse", null, 1, BURST_SIGNAL);
      expect(rx.hasPayload).toBe(false);
      expect(rx.wakeupNext(RECHECK_INUSE_HEAD)).toBe(WAKEUP_DONE);
      expect(rx.counters()).toEqual({
        ...ZERO,
        masked: 1,
        deferred: 1,
        wakeups: 1,
        notified: 2,
        pushed: 0,
        popped: 5,
        bytes: 0,
        violations: {},
      });

      view(gpa, length).setUint8(56 + 5 * 32 + 25, 7);
      expectError("EPROTO", () => rx.peek("inuse", null, 1));
      expectError("EPROTO", () => rx.peek("inuse", null, 1));
      expect(rx.counters().violations).toEqual({ owner: 1 });
      rx.violate("descriptor");
      rx.violate("descriptor");
      expect(rx.broken).toBe("owner"); // the first reason is the reason
      expect(rx.counters().violations).toEqual({ owner: 1, descriptor: 2 });
      expect(rx.hasPayload).toBe(false);
    });

    it("count beyond 32 bits", () => {
      const { north, gpa } = openGuest({ shared });
      const queue = Queue.create(north, { gpa, count: 1, role: "northFeed" });
      const table = BurstTable.allocate(north, 1);
      const drain = Queue.attach(north, { gpa, length: queueSegmentLength(1), role: "southFeed" });
      for (let i = 0; i < 5; i++) {
        queue.reserve("inuse", table, 1);
        table.setLength(0, 0xffffffff);
        queue.commit("inuse", table, 1, BURST_LENGTH);
        drain.peek("inuse", null, 1);
        drain.release("inuse", null, 1, 0);
      }
      expect(queue.counters().bytes).toBe(5 * 0xffffffff);
    });
  });
}
