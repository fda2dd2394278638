import { EXT_COMPACT, EXT_LAZY_INDEXES } from "vbus/abi";
import {
  BURST_NOFLIP,
  Queue,
  queueSegmentLength,
  RingIterator,
  Signal,
  VbusError,
  type QueueRole,
} from "vbus/engine";
import { MemorySpace, type MemoryRegion } from "vbus/memory";
import { describe, expect, it } from "vitest";
import { item, WRITE_ALL } from "./conformance-case.js";
import { expectError, firstDifference, openGuest } from "./guest.js";
import { segmentLength } from "./reference/ring.js";
import { generator, seedOr } from "./seed.js";
import { WasmSide } from "./wasm-side.js";

const SEED = seedOr(272);
const PAGE = 65536;

/** A memory with a hole: guest RAM can be moved from one half to the other. */
function movable(shared: boolean): {
  memory: WebAssembly.Memory;
  spaces: [MemorySpace, MemorySpace];
  halves: MemoryRegion[];
} {
  const memory = new WebAssembly.Memory({ initial: 16, maximum: 16, ...(shared ? { shared: true } : {}) });
  const halves = [4, 10].map((page) => ({ gpa: 0x100000, length: 4 * PAGE, address: page * PAGE }));
  const [first] = halves as [MemoryRegion];
  const spaces: [MemorySpace, MemorySpace] = [
    MemorySpace.attachSync(memory, { address: PAGE, size: PAGE }, [first]),
    MemorySpace.attachSync(memory, { address: 2 * PAGE, size: PAGE }, [first]),
  ];
  return { memory, spaces, halves };
}

for (const shared of [false, true]) {
  describe(`rebase, ${shared ? "shared" : "unshared"} engine`, () => {
    it("queues, iterators and signals go on in memory that moved; the old place is never touched again", () => {
      const { memory, spaces, halves } = movable(shared);
      const [north, south] = spaces;
      const [old, fresh] = halves as [MemoryRegion, MemoryRegion];
      const gpa = old.gpa + 8;
      const tx = WasmSide.create(north, "transmit", gpa, 5, false);
      const rx = WasmSide.attach(south, "transmit", gpa, segmentLength(5, "lp64"));
      const bell = Signal.create(north, old.gpa + 0x1000);
      const ear = Signal.attach(south, old.gpa + 0x1000);
      expect(tx.reserve("both", 3)).toBe(3);
      tx.commit("both", [item(0), item(1), item(2)], WRITE_ALL);
      expect(rx.peek("inuse", 1)).toEqual([item(0)]);
      rx.release("inuse", 1, {});

      const bytes = new Uint8Array(memory.buffer);
      bytes.copyWithin(fresh.address, old.address, old.address + old.length);
      bytes.fill(0xdd, old.address, old.address + old.length);
      for (const space of spaces) space.moveRegions([fresh]);
      for (const side of [tx, rx]) side.queue.rebase();
      bell.rebase();
      ear.rebase();

      expect(rx.peek("inuse", 5)).toEqual([item(1), item(2)]);
      rx.release("inuse", 2, {});
      expect(tx.peek("valid", 5)).toEqual([item(0), item(1), item(2)]);
      expect(tx.release("valid", 3, { mark: 0, noflip: true })).toBe(0);
      expect(tx.reserve("both", 9)).toBe(5);
      const push = new RingIterator(tx.queue, "both");
      push.seek("tail");
      expect([push.position, push.push()]).toEqual([3, 0]);
      expect(rx.countOf("inuse")).toBe(1);
      expect(ear.enable()).toBe(false);
      expect(bell.inject()).toBe(true);
      expect([tx.broken(), rx.broken()]).toEqual([null, null]);
      expect(bytes.subarray(old.address, old.address + old.length).every((byte) => byte === 0xdd)).toBe(true);
    });

    it("a segment that is gone is an error that says so", () => {
      const { spaces, halves } = movable(shared);
      const [north] = spaces;
      const [old] = halves as [MemoryRegion];
      const queue = Queue.create(north, { gpa: old.gpa, count: 4, role: "northFeed" });
      const signal = Signal.create(north, old.gpa + 0x1000);
      north.moveRegions([{ ...old, gpa: old.gpa + 64 }]);
      expect(expectError("EFAULT", () => queue.rebase()).message).toContain("region");
      signal.rebase();
      north.moveRegions([{ ...old, length: 64 }]);
      expectError("EFAULT", () => queue.rebase());
      expectError("EFAULT", () => signal.rebase());
      north.moveRegions([{ ...old, address: old.address + 2 }]);
      expectError("EINVAL", () => queue.rebase()); // atomics need alignment wherever the RAM went
    });
  });

  describe(`exported state, ${shared ? "shared" : "unshared"} engine (seed ${SEED})`, () => {
    for (const extension of [0, EXT_LAZY_INDEXES, EXT_COMPACT, EXT_COMPACT | EXT_LAZY_INDEXES]) {
      it(`survives at any point of the traffic (extensions ${extension})`, () => {
        const random = generator(SEED + extension);
        for (const ilp32 of extension === 0 ? [false, true] : [false]) {
          const { north, south, gpa, init } = openGuest({ shared });
          const length = queueSegmentLength(7, ilp32);
          let tx = Queue.create(north, { gpa, count: 7, role: "northTransmit", ilp32, offer: extension });
          let rx = Queue.attach(south, { gpa, length, role: "southTransmit", accept: extension });
          tx.negotiated();
          let pushed = 0;
          let popped = 0;
          let reclaimed = 0;
          for (let step = 0; step < 300; step++) {
            const n = tx.reserve("both", null, random() % 8);
            expect(n).toBeLessThanOrEqual(7 - (pushed - reclaimed));
            tx.commit("both", null, n, 0);
            pushed += n;
            const m = rx.peek("inuse", null, random() % 8);
            rx.release("inuse", null, m, 0);
            popped += m;
            const r = tx.peek("valid", null, random() % 8);
            tx.release("valid", null, r, BURST_NOFLIP);
            reclaimed += r;
            tx.reserve("both", null, 3); // a reservation is not state
            rx.peek("inuse", null, 3);
            const spaces = random() % 4 === 0 ? [init.layout.guestArena, init.layout.hostArena] : null;
            const [a, b] =
              spaces === null
                ? [north, south]
                : spaces.map((arena) => MemorySpace.attachSync(init.memory, arena, init.layout.regions));
            const states = [tx.exportState(), rx.exportState()] as const;
            const counters = [tx.counters(), rx.counters()];
            tx.close();
            rx.close();
            tx = Queue.importState(a as MemorySpace, states[0]);
            rx = Queue.importState(b as MemorySpace, states[1]);
            expect([tx.counters(), rx.counters()]).toEqual(counters);
            expect(tx.extensions).toBe(extension);
            expect(tx.countOf("valid")).toBe(pushed - reclaimed);
            if (n > 0) expectError("EINVAL", () => tx.commit("both", null, 1, 0));
          }
          expect(pushed).toBeGreaterThan(300);
          expect(popped).toBeGreaterThan(300);
          expect(tx.counters()).toMatchObject({ pushed, popped: reclaimed, violations: {} });
        }
      });
    }

    it("a broken queue stays broken", () => {
      const { north, gpa } = openGuest({ shared });
      const queue = Queue.create(north, { gpa, count: 4, role: "northFeed" });
      queue.violate("descriptor");
      const again = Queue.importState(north, queue.exportState());
      expect(again.broken).toBe("descriptor");
      expectError("EPROTO", () => again.reserve("inuse", null, 1));
    });

    it("other formats, versions and sizes are ENOENT; contradictions EINVAL; foreign addresses EFAULT", () => {
      const { north, gpa, view } = openGuest({ shared });
      const queue = Queue.create(north, { gpa, count: 4, role: "northFeed" });
      const good = queue.exportState();
      const change = (at: number, value: number): Uint8Array => {
        const state = good.slice();
        new DataView(state.buffer).setUint32(at, value, true);
        return state;
      };
      const refuse = (code: "ENOENT" | "EINVAL" | "EFAULT", state: Uint8Array): void => {
        const free = north.arena.available;
        expectError(code, () => Queue.importState(north, state));
        expect(north.arena.available).toBe(free);
      };
      refuse("ENOENT", new Uint8Array(0));
      refuse("ENOENT", good.slice(1));
      refuse("ENOENT", new Uint8Array(good.length));
      for (const at of [0, 4, 8]) refuse("ENOENT", change(at, 0xffffffff));
      const image = 16;
      for (const value of [0, 3, 5, 0x80000000]) refuse("EINVAL", change(image + 136, value)); // count
      for (const value of [0, 1, 29, 31]) refuse("EINVAL", change(image + 140, value)); // stride
      refuse("EINVAL", change(image + 12, 2)); // locale
      refuse("EINVAL", change(image + 44, 1)); // kind
      refuse("EINVAL", change(image + 144, 7)); // a violation that does not exist
      refuse("EINVAL", change(image + 148, 16)); // owned ends
      refuse("EINVAL", change(image + 152, 2)); // extensions
      for (let i = 0; i < 4; i++) refuse("EINVAL", change(image + 160 + i * 4, 4)); // positions
      refuse("EINVAL", change(image + 176, 5)); // valid count
      refuse("EINVAL", change(image + 192, gpa + 64)); // the segment's address without the signal's
      const away = change(image + 192, 0x4);
      new DataView(away.buffer).setUint32(image + 32, 0x4 + 8, true);
      refuse("EFAULT", away);
      view(gpa, 4).setUint32(0, 0, true);
      refuse("EINVAL", good); // no ring there any more
    });

    it("any bytes: a typed refusal, or a queue that stays inside its regions", () => {
      const random = generator(SEED);
      const guest = openGuest({ shared, size: PAGE, arenaSize: 2 * PAGE });
      const { north, south, gpa, init } = guest;
      const canary = south.allocate(PAGE, 64);
      const low = south.allocate(64, 64);
      const roles: QueueRole[] = ["southTransmit", "southReceive", "southFeed"];
      const bytes = new Uint8Array(init.memory.buffer);
      bytes.fill(0xc3, init.layout.link.address, init.layout.link.address + PAGE);
      bytes.fill(0xc3, canary, canary + PAGE);
      bytes.fill(0xc3, low, low + 64);
      bytes.fill(0xc3, 0, PAGE);
      const outside = (): Uint8Array[] => [
        bytes.slice(0, PAGE + init.layout.link.size),
        bytes.slice(
          init.layout.guestArena.address,
          init.layout.guestArena.address + init.layout.guestArena.size,
        ),
        bytes.slice(canary, canary + PAGE),
        bytes.slice(low, low + 64),
      ];
      let accepted = 0;
      let refused = 0;
      for (let n = 0; n < 3000; n++) {
        const ilp32 = random() % 2 === 0;
        Queue.create(north, { gpa, count: 6, role: "northTransmit", ilp32 }).close();
        const role = roles[random() % 3] as QueueRole;
        const queue = Queue.attach(south, { gpa, length: queueSegmentLength(6, ilp32), role });
        const state = queue.exportState();
        queue.close();
        const view = new DataView(state.buffer);
        for (let changes = 1 + (random() % 3); changes > 0; changes--) {
          const values = [random(), random() % 16, 0xffffffff, 0x80000000, 0, 1, gpa, gpa + PAGE - 8];
          const value = values[random() % values.length] as number;
          // mostly behind the format's header, so that most get as far as the interesting checks
          view.setUint32((random() % 8 === 0 ? 0 : 16) + 4 * (random() % 64), value, true);
        }
        const before = n % 50 === 0 ? outside() : null;
        let restored: Queue;
        try {
          restored = Queue.importState(south, state);
        } catch (error) {
          if (!(error instanceof VbusError)) throw error;
          expect(["ENOENT", "EINVAL", "EFAULT"]).toContain(error.code);
          refused++;
          continue;
        }
        accepted++;
        const cursor = new RingIterator(restored, random() % 2 === 0 ? "valid" : "inuse");
        for (let i = 0; i < 8; i++) guest.view(gpa, 512).setUint8(random() % 512, random() % 3);
        const operations: (() => unknown)[] = [
          () => restored.reserve("inuse", null, 9),
          () => restored.reserve("both", null, 9),
          () => restored.commit("inuse", null, random() % 7, 64),
          () => restored.commit("both", null, random() % 7, 0),
          () => restored.peek("inuse", null, 9),
          () => restored.peek("valid", null, 9),
          () => restored.release("inuse", null, random() % 7, 64),
          () => restored.release("valid", null, random() % 7, 32),
          () => cursor.seek("tail") + cursor.push(),
          () => cursor.seek("head") + cursor.pop(),
          () => restored.countOf("valid") + restored.countOf("inuse"),
          () => restored.enable(random() % 4),
          () => restored.wakeupBegin(random(), random() % 8),
          () => restored.wakeupNext(random() % 8),
          () => restored.inject(),
          () => restored.sync(),
          () => restored.rebase(),
          () => restored.negotiated(),
          () => restored.exportState(),
        ];
        for (let i = 0; i < 30; i++) {
          try {
            operations[random() % operations.length]?.();
          } catch (error) {
            if (!(error instanceof VbusError)) throw error;
          }
        }
        if (before !== null) {
          for (const [i, part] of outside().entries())
            expect(firstDifference(part, before[i] as Uint8Array)).toBe(-1);
        }
        cursor.close();
        restored.close();
      }
      expect(accepted).toBeGreaterThan(300);
      expect(refused).toBeGreaterThan(300);
      expect(bytes.subarray(canary, canary + PAGE).every((byte) => byte === 0xc3)).toBe(true);
      expect(bytes.subarray(0, 2 * PAGE).every((byte) => byte === 0xc3)).toBe(true);
    });
  });
}
