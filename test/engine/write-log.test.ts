import {
  BURST_COOKIE,
  BURST_LENGTH,
  BURST_POINTER,
  BURST_SIGNAL,
  BURST_TRANSLATE,
  BurstTable,
  moveFrames,
  Queue,
  queueSegmentLength,
  Signal,
} from "vbus/engine";
import { EXT_COMPACT, EXT_LAZY_INDEXES } from "vbus/abi";
import { MemorySpace, type WrittenRange } from "vbus/memory";
import { describe, expect, it } from "vitest";
import { item, wake } from "./conformance-case.js";
import { expectError, openGuest, type Guest } from "./guest.js";
import { segmentLength } from "./reference/ring.js";
import type { Index, Options, RingSide } from "./ring-side.js";
import { generator, seedOr } from "./seed.js";
import { WasmSide } from "./wasm-side.js";

const SEED = seedOr(64);

/** Positions in guest RAM that changed and that no range covers. */
function uncovered(guest: Guest, before: Uint8Array, log: WrittenRange[] | "everything"): number[] {
  if (log === "everything") return [];
  const covered = new Uint8Array(guest.ram.length);
  for (const { gpa, length } of log) covered.fill(1, gpa - guest.gpa, gpa - guest.gpa + length);
  const missed: number[] = [];
  for (const [i, byte] of guest.ram.entries()) {
    if (byte !== before[i] && covered[i] === 0) missed.push(i);
  }
  return missed;
}

for (const shared of [false, true]) {
  describe(`write log, ${shared ? "shared" : "unshared"} engine (seed ${SEED})`, () => {
    for (const offer of [0, EXT_LAZY_INDEXES, EXT_COMPACT]) {
      it(`covers every byte that changed, after every operation (extensions ${offer})`, () => {
        const guest = openGuest({ shared, size: 65536 });
        const gpa = guest.gpa + 8;
        const random = generator(SEED);
        const tx = WasmSide.create(guest.north, "transmit", gpa, 5, false, offer);
        const rx = WasmSide.attach(guest.south, "transmit", gpa, segmentLength(5, "lp64"), offer);
        tx.queue.negotiated();
        guest.north.logWrites(true);
        guest.south.logWrites(true);
        const options = (): Options => ({
          pointer: random() % 2 === 0,
          cookie: random() % 2 === 0,
          length: random() % 2 === 0,
          signal: random() % 2 === 0,
          ...(random() % 2 === 0 ? { mark: 1 as const } : {}),
        });
        const push = tx.cursor("both", { autoupdate: true });
        const pop = rx.cursor("inuse");
        const either = (): RingSide => (random() % 2 === 0 ? tx : rx);
        const burst = (side: RingSide, index: Index, noflip: boolean): void => {
          const found = side.peek(index, 1 + (random() % 5)) as unknown[];
          side.release(
            index,
            found.length,
            { ...options(), noflip },
            found.map((_, i) => item(i)),
          );
        };
        const operations: (() => unknown)[] = [
          () => [push.seek("tail"), push.write(item(random() % 9), options())],
          () => [push.seek("tail"), push.push()],
          () => [pop.seek("head"), pop.write(item(random() % 9), options())],
          () => [pop.seek("head"), pop.pop()],
          () => {
            const n = tx.reserve("both", 1 + (random() % 5));
            tx.commit(
              "both",
              Array.from({ length: n }, (_, i) => item(i + (random() % 50))),
              options(),
            );
          },
          () => burst(rx, "inuse", false),
          () => burst(tx, "valid", true),
          () => either().inject(),
          () => either().enable("none"),
          () => either().disable(),
          () => wake(either(), () => either().inject(), 3),
          () => tx.queue.sync(),
          () => rx.queue.exportState(),
          () => guest.south.copyTo(guest.gpa + 0x4000 + (random() % 64), Uint8Array.of(random(), random())),
        ];
        let changes = 0;
        for (let step = 0; step < 600; step++) {
          const before = guest.ram.slice();
          const which = random() % operations.length;
          operations[which]?.();
          const log = [guest.north.takeWrites(), guest.south.takeWrites()].flatMap((each) =>
            each === "everything" ? expect.fail("a single step cannot overflow the log") : each,
          );
          expect(uncovered(guest, before, log), `step ${step}, operation ${which}`).toEqual([]);
          if (log.length > 0) changes++;
        }
        expect(changes).toBeGreaterThan(100);
        expect([tx.broken(), rx.broken()]).toEqual([null, null]);
      });
    }

    it("covers creation, negotiation, standing signals and delivered frames", () => {
      const guest = openGuest({ shared, size: 65536 });
      const { north, south, gpa } = guest;
      for (const space of [north, south]) space.logWrites(true);
      const check = (space: MemorySpace, act: () => void): void => {
        const before = guest.ram.slice();
        act();
        const log = space.takeWrites();
        expect(log).not.toEqual([]);
        expect(uncovered(guest, before, log)).toEqual([]);
      };
      guest.ram.fill(0xee);
      const length = queueSegmentLength(4);
      let ring: Queue | undefined;
      check(north, () => (ring = Queue.create(north, { gpa, count: 4, role: "northReceive", offer: 1 })));
      let south4: Queue | undefined;
      check(south, () => (south4 = Queue.attach(south, { gpa, length, role: "southReceive", accept: 1 })));
      check(north, () => void Signal.create(north, gpa + 0x2000));
      check(south, () => void Signal.attach(south, gpa + 0x2000).inject());

      const posted = BurstTable.allocate(north, 4);
      ring?.reserve("valid", posted, 4);
      for (let i = 0; i < 4; i++) {
        posted.setGpa(i, gpa + 0x4000 + i * 0x1000);
        posted.setLength(i, 2048);
      }
      check(north, () => ring?.commit("valid", posted, 4, BURST_POINTER | BURST_LENGTH | BURST_COOKIE));
      const frames = BurstTable.allocate(south, 4);
      const data = south.allocate(8192, 64);
      for (let i = 0; i < 4; i++) {
        south.bytes.fill(i + 1, data + i * 2048, data + i * 2048 + 60 + i * 400);
        frames.setBuffer(i, data + i * 2048, 60 + i * 400);
      }
      const buffers = BurstTable.allocate(south, 4);
      expect(south4?.reserve("inuse", buffers, 4, BURST_TRANSLATE)).toBe(4);
      check(south, () => {
        expect(moveFrames(frames, 0, 4, buffers, 0, 4)).toMatchObject({ taken: 4, filled: 4 });
      });
      check(south, () => south4?.commit("inuse", buffers, 4, BURST_LENGTH | BURST_SIGNAL));
    });

    it("covers frames that come from another memory, small and large", async () => {
      const guest = openGuest({ shared, size: 65536 });
      const { north, south, gpa } = guest;
      const host = await MemorySpace.host();
      const ring = Queue.create(north, { gpa, count: 8, role: "northReceive" });
      const device = Queue.attach(south, { gpa, length: queueSegmentLength(8), role: "southReceive" });
      const posted = BurstTable.allocate(north, 8);
      ring.reserve("valid", posted, 8);
      for (let i = 0; i < 8; i++) {
        posted.setGpa(i, gpa + 0x4000 + i * 0x1000);
        posted.setLength(i, 4096);
      }
      ring.commit("valid", posted, 8, BURST_POINTER | BURST_LENGTH);
      const frames = BurstTable.allocate(host, 8);
      const data = host.allocate(8 * 4096, 64);
      for (let i = 0; i < 8; i++) {
        host.bytes.fill(i + 1, data + i * 4096, data + (i + 1) * 4096);
        frames.setBuffer(i, data + i * 4096, i % 2 === 0 ? 61 + i : 1500 + i);
      }
      const buffers = BurstTable.allocate(south, 8);
      device.reserve("inuse", buffers, 8, BURST_TRANSLATE);
      south.logWrites(true);
      const before = guest.ram.slice();
      expect(moveFrames(frames, 0, 8, buffers, 0, 8)).toMatchObject({ taken: 8, filled: 8 });
      for (let i = 0; i < 8; i++) {
        expect(buffers.bytes(i).every((byte) => byte === i + 1)).toBe(true);
        expect(buffers.length(i)).toBe(frames.length(i));
      }
      const log = south.takeWrites();
      expect(log).toHaveLength(8);
      expect(uncovered(guest, before, log)).toEqual([]);
    });

    it("overflow means everything, once; off means nothing", () => {
      const { north, south, gpa } = openGuest({ shared });
      expect(south.takeWrites()).toEqual([]);
      south.logWrites(true);
      south.logWrites(true);
      for (let i = 0; i < 1024; i++) south.copyTo(gpa + i * 8, Uint8Array.of(i));
      expect(south.takeWrites()).toHaveLength(1024);
      for (let i = 0; i < 1025; i++) south.copyTo(gpa + i * 8, Uint8Array.of(i));
      expect(south.takeWrites()).toBe("everything");
      expect(south.takeWrites()).toEqual([]);

      const length = queueSegmentLength(3);
      const tx = Queue.create(north, { gpa, count: 3, role: "northFeed" });
      const rx = Queue.attach(south, { gpa, length, role: "southFeed" });
      for (let i = 0; i < 1200; i++) {
        tx.reserve("inuse", null, 1);
        tx.commit("inuse", null, 1, 0);
        rx.peek("inuse", null, 1);
        rx.release("inuse", null, 1, 0);
      }
      expect(south.takeWrites()).toBe("everything"); // the engine's own entries overflow alike
      south.logWrites(false);
      tx.reserve("inuse", null, 1);
      tx.commit("inuse", null, 1, 0);
      rx.peek("inuse", null, 1);
      rx.release("inuse", null, 1, 0);
      expect(south.takeWrites()).toEqual([]);
    });

    it("names 64-bit guest addresses", () => {
      const { south, gpa } = openGuest({ shared, gpa: 2 ** 40 });
      south.logWrites(true);
      south.copyTo(gpa + 5, Uint8Array.of(1));
      const signal = Signal.create(south, gpa + 16);
      signal.inject();
      expect(south.takeWrites()).toEqual([
        { gpa: gpa + 5, length: 1 },
        { gpa: gpa + 16, length: 16 },
      ]);
      expectError("EFAULT", () => south.copyTo(gpa - 1, Uint8Array.of(1)));
      expect(south.takeWrites()).toEqual([]);
    });
  });
}
