import { EXT_COMPACT, ITER_AUTOUPDATE } from "vbus/abi";
import {
  BURST_COOKIE,
  BURST_HEAD,
  BURST_LENGTH,
  BURST_NOFLIP,
  BURST_POINTER,
  BURST_SIGNAL,
  BURST_STRICT,
  BURST_TRANSLATE,
  BurstTable,
  Queue,
  queueSegmentLength,
  RECHECK_INUSE_HEAD,
  RECHECK_INUSE_TAIL,
  RECHECK_VALID_HEAD,
  RingIterator,
  VbusError,
  VIOLATION_NAMES,
  WAKEUP_RUN,
  type QueueRole,
} from "vbus/engine";
import { describe, expect, it } from "vitest";
import { openGuest, type Guest } from "./guest.js";
import { HostileThread } from "./hostile-thread.js";
import { LAYOUTS, segmentLength } from "./reference/ring.js";
import type { Layout } from "./ring-side.js";
import { generator, seedOr } from "./seed.js";

const SEED = seedOr(666);
/** Laps against a peer gone mad. */
const LAPS = 1000;
const COUNT = 5;
const CANARY = 0x5a;

interface Victim {
  name: string;
  north: QueueRole;
  south: QueueRole;
  side: "north" | "south";
}

const VICTIMS: Victim[] = [
  {
    name: "a host that takes what a guest transmits",
    north: "northTransmit",
    south: "southTransmit",
    side: "south",
  },
  {
    name: "a host that fills a guest's buffers",
    north: "northReceive",
    south: "southReceive",
    side: "south",
  },
  { name: "a guest that transmits", north: "northTransmit", south: "southTransmit", side: "north" },
  { name: "a guest that receives", north: "northReceive", south: "southReceive", side: "north" },
];

/** A guest with a ring under attack (A), a healthy one (B), and canaries everywhere else. */
class Scene {
  readonly guest: Guest;
  readonly gpa: number;
  readonly length: number;
  readonly north: BurstTable;
  readonly south: BurstTable;
  readonly #canaries: [address: number, size: number][];
  #healthy: [Queue, Queue] | undefined;
  #sent = 0;

  constructor(
    shared: boolean,
    readonly layout: Layout,
  ) {
    this.guest = openGuest({ shared, size: 65536 });
    const { north, south, init } = this.guest;
    this.gpa = this.guest.gpa + 0x1008;
    this.length = segmentLength(COUNT, layout);
    this.north = BurstTable.allocate(north, 8);
    this.south = BurstTable.allocate(south, 8);
    const ram = (init.layout.regions[0] as { address: number }).address;
    this.#canaries = [
      [0, 65536],
      [init.layout.link.address, init.layout.link.size],
      [north.allocate(4096, 64), 4096],
      [south.allocate(4096, 64), 4096],
      [ram, 0x1008],
      [ram + 0x1008 + this.length, 0x1000 - 0x8 - this.length],
      [ram + 0x3000, 65536 - 0x3000],
    ];
    for (const [address, size] of this.#canaries) north.bytes.fill(CANARY, address, address + size);
  }

  /** A fresh ring A with some traffic behind it and some before it. */
  attacked({ north, south }: Victim): [Queue, Queue] {
    const { gpa, length, layout, guest } = this;
    const extension = layout === "compact" ? EXT_COMPACT : 0;
    const ilp32 = layout === "ilp32";
    const a = Queue.create(guest.north, { gpa, count: COUNT, role: north, ilp32, offer: extension });
    let b: Queue | undefined;
    try {
      b = Queue.attach(guest.south, { gpa, length, role: south, accept: extension });
      a.negotiated();
      this.#warmUp(a, b, north);
    } catch (error) {
      a.close();
      b?.close();
      throw error;
    }
    return [a, b];
  }

  #warmUp(a: Queue, b: Queue, north: QueueRole): void {
    const index = north === "northReceive" ? "valid" : "both";
    const n = a.reserve(index, this.north, COUNT);
    for (let i = 0; i < n; i++) {
      this.north.setGpa(i, this.guest.gpa + 0x4000 + i * 64);
      this.north.setLength(i, 64);
    }
    a.commit(
      index,
      this.north,
      north === "northReceive" ? n : 3,
      BURST_POINTER | BURST_LENGTH | BURST_COOKIE,
    );
    if (north === "northReceive") {
      b.commit("inuse", this.south, Math.min(2, b.reserve("inuse", this.south, 2)), BURST_LENGTH);
      a.release("inuse", null, a.peek("inuse", null, 1), 0);
    } else {
      b.release("inuse", null, b.peek("inuse", null, 2), 0);
      a.release("valid", null, a.peek("valid", null, 1), BURST_NOFLIP);
    }
  }

  /** A whole lap on the other queue; its contents are checked. Returns descriptors completed. */
  healthyLap(): number {
    const { guest } = this;
    const gpa = guest.gpa + 0x2008;
    this.#healthy ??= [
      Queue.create(guest.north, { gpa, count: 4, role: "northTransmit" }),
      Queue.attach(guest.south, { gpa, length: queueSegmentLength(4), role: "southTransmit" }),
    ];
    const [tx, rx] = this.#healthy;
    const n = tx.reserve("both", this.north, 4);
    for (let i = 0; i < n; i++) this.north.setCookie(i, this.#sent + i);
    tx.commit("both", this.north, n, BURST_COOKIE | BURST_SIGNAL);
    const taken = rx.peek("inuse", this.south, 8);
    for (let i = 0; i < taken; i++) if (this.south.cookie(i) !== this.#sent + i) return -1;
    rx.release("inuse", null, taken, BURST_SIGNAL);
    this.#sent += taken;
    return tx.release("valid", null, tx.peek("valid", null, 8), BURST_NOFLIP) ? -1 : taken;
  }

  expectIntact(): void {
    for (const [address, size] of this.#canaries) {
      const bytes = this.guest.north.bytes.subarray(address, address + size);
      expect(bytes.findIndex((byte) => byte !== CANARY)).toBe(-1);
    }
  }
}

/** Everything that a side may do, in an order that differs from round to round. */
function operations(
  queue: Queue,
  table: BurstTable,
  cursors: RingIterator[],
  flags: number,
): (() => unknown)[] {
  const wake = (recheck: number) => (): void => {
    let turn = queue.wakeupBegin(4, recheck);
    while (turn === WAKEUP_RUN) turn = queue.wakeupNext(recheck);
  };
  return [
    () => queue.commit("inuse", table, queue.reserve("inuse", table, 3, flags), BURST_LENGTH | BURST_SIGNAL),
    () => queue.commit("both", table, queue.reserve("both", table, 3, flags), BURST_LENGTH),
    () => queue.commit("valid", table, queue.reserve("valid", table, 3, flags), BURST_LENGTH),
    () => queue.pushOne("inuse", table, BURST_LENGTH | BURST_SIGNAL),
    () => queue.pushOne("both", table, BURST_LENGTH),
    () => queue.pushOne("valid", table, BURST_LENGTH),
    () => queue.peekOne("inuse", table, flags),
    () => queue.releaseOne("inuse", table, BURST_SIGNAL),
    () => queue.takeOne("valid", table, flags | BURST_NOFLIP),
    () => queue.release("inuse", table, queue.peek("inuse", table, 3, flags | BURST_HEAD), BURST_SIGNAL),
    () => queue.release("valid", table, queue.peek("valid", table, 3, flags), BURST_NOFLIP),
    ...cursors.flatMap((cursor) => [
      () => [cursor.seek("tail"), cursor.read(), cursor.write({ length: 5 }, BURST_LENGTH), cursor.push()],
      () => [cursor.seek("head"), cursor.read(), cursor.write({ gpa: 5 }, BURST_POINTER), cursor.pop()],
    ]),
    () => queue.countOf("inuse") + queue.countOf("valid"),
    () => queue.remain("inuse"),
    () => queue.enable(RECHECK_INUSE_HEAD),
    () => queue.enable(RECHECK_INUSE_TAIL),
    () => queue.inject(),
    () => queue.disable(),
    wake(RECHECK_INUSE_HEAD),
    wake(RECHECK_INUSE_TAIL),
    wake(RECHECK_VALID_HEAD),
    () => queue.hasPayload,
    () => queue.sync(),
    () => queue.negotiated(),
    () => queue.counters(),
  ];
}

/** Runs an operation; a queue may answer with EPROTO (the peer's fault) or EINVAL (not this role), nothing else. */
function attempt(operation: () => unknown): void {
  try {
    operation();
  } catch (error) {
    if (!(error instanceof VbusError) || (error.code !== "EPROTO" && error.code !== "EINVAL")) throw error;
  }
}

/** Checks that a broken queue has a typed, counted reason and hands out nothing more. */
function expectVerdict(queue: Queue): string | null {
  const { broken } = queue;
  if (broken === null) {
    expect(queue.counters().violations).toEqual({});
    return null;
  }
  expect(VIOLATION_NAMES.slice(1)).toContain(broken);
  expect(queue.counters().violations[broken]).toBeGreaterThan(0);
  for (const call of [
    () => queue.reserve("inuse", null, 1),
    () => queue.peek("inuse", null, 1),
    () => queue.countOf("inuse"),
  ]) {
    expect(call).toThrow(/EPROTO/);
  }
  return broken;
}

const BYTES = [0, 1, 2, 0x7f, 0x80, 0xff];
const WORDS = [0, 1, COUNT - 1, COUNT, COUNT + 1, 0x7fffffff, 0x80000000, 0xffffffff];

for (const shared of [false, true]) {
  for (const layout of ["lp64", "ilp32", "compact"] as const) {
    const { header, stride } = LAYOUTS[layout];
    describe(`a corrupted ring, ${shared ? "shared" : "unshared"} engine, ${stride}-byte descriptors`, () => {
      for (const victim of VICTIMS) {
        it(`every shared byte and word, hostile values, against ${victim.name}`, () => {
          const scene = new Scene(shared, layout);
          const random = generator(SEED);
          const verdicts = new Map<string, number>();
          const { guest, gpa, length } = scene;
          const changes: ((segment: DataView) => void)[] = [];
          for (let at = 0; at < length; at++) {
            for (const value of BYTES) changes.push((segment) => segment.setUint8(at, value));
          }
          for (let at = 0; at + 4 <= length; at += 4) {
            for (const value of WORDS) changes.push((segment) => segment.setUint32(at, value, true));
          }
          let completed = 0;
          for (const change of changes) {
            const [a, b] = scene.attacked(victim);
            const queue = victim.side === "north" ? a : b;
            const table = victim.side === "north" ? scene.north : scene.south;
            change(guest.view(gpa, length));
            const cursors = [
              new RingIterator(queue, "inuse", ITER_AUTOUPDATE),
              new RingIterator(queue, "valid"),
            ];
            const list = operations(
              queue,
              table,
              cursors,
              random() % 2 === 0 ? BURST_TRANSLATE : BURST_TRANSLATE | BURST_STRICT,
            );
            const start = random() % list.length;
            for (let i = 0; i < list.length; i++) attempt(list[(start + i) % list.length] as () => unknown);
            const verdict = expectVerdict(queue) ?? "harmless";
            verdicts.set(verdict, (verdicts.get(verdict) ?? 0) + 1);
            completed += scene.healthyLap();
            for (const each of [...cursors, a, b]) each.close();
          }
          expect(completed).toBe(4 * changes.length); // the other queue lost nothing
          scene.expectIntact();
          for (const kind of ["owner", "index", "harmless"])
            expect(verdicts.get(kind) ?? 0).toBeGreaterThan(0);
          if (victim.side === "south") expect(verdicts.get("address") ?? 0).toBeGreaterThan(0);
        });
      }

      it("an owner that is neither side, and an index beyond count, are named", () => {
        const scene = new Scene(shared, layout);
        const sown = header + 2 * stride + (layout === "compact" ? 12 : 25);
        for (const value of [2, 3, 0x7f, 0x80, 0xff]) {
          const [, rx] = scene.attacked(VICTIMS[0] as Victim);
          scene.guest.view(scene.gpa, scene.length).setUint8(sown, value);
          expect(() => rx.peek("inuse", null, 1)).toThrow(/EPROTO.*owner/);
          expect(rx.broken).toBe("owner");
        }
        for (const value of [COUNT, 0x80000000, 0xffffffff]) {
          const [tx, rx] = scene.attacked(VICTIMS[0] as Victim);
          scene.guest.view(scene.gpa, scene.length).setUint32(40, value, true);
          expect(() => rx.countOf("inuse")).toThrow(/EPROTO.*index/);
          scene.guest.view(scene.gpa, scene.length).setUint32(40, 0, true);
          scene.guest.view(scene.gpa, scene.length).setUint32(36, value, true);
          tx.reserve("both", null, 1);
          expect(() => tx.commit("both", null, 1, 0)).toThrow(/EPROTO.*index/);
          const push = new RingIterator(scene.attacked(VICTIMS[0] as Victim)[0], "both");
          scene.guest.view(scene.gpa, scene.length).setUint32(36, value, true);
          push.seek("tail");
          expect(push.push()).toBe(-71);
          expect(push.queue.broken).toBe("index");
        }
      });
    });
  }
}

describe(`a peer that rewrites the ring while it is used (seed ${SEED})`, () => {
  for (const victim of VICTIMS) {
    it(`${victim.name}: only that queue suffers`, async () => {
      const scene = new Scene(true, "lp64");
      const { guest, gpa, length } = scene;
      const random = generator(SEED);
      const thread = new HostileThread({
        memory: guest.init.memory,
        address: guest.north.translate(gpa, length),
        length,
        stride: 32,
        header: 56,
        seed: SEED,
      });
      await thread.started();
      const verdicts = new Map<string, number>();
      let completed = 0;
      let laps = 0;
      let hits = 0;
      while (laps < LAPS || hits <= 10) {
        completed += scene.healthyLap();
        laps++;
        let pair: [Queue, Queue];
        try {
          pair = scene.attacked(victim); // the attach may already meet nonsense
        } catch (error) {
          if (!(error instanceof VbusError)) throw error;
          verdicts.set(error.code, (verdicts.get(error.code) ?? 0) + 1);
          hits++;
          continue;
        }
        const queue = victim.side === "north" ? pair[0] : pair[1];
        const table = victim.side === "north" ? scene.north : scene.south;
        const cursors = [new RingIterator(queue, "inuse", ITER_AUTOUPDATE), new RingIterator(queue, "valid")];
        const list = operations(queue, table, cursors, BURST_TRANSLATE);
        // now and then it surely writes between the attach and the operations; else when it happens to
        if (laps % 8 === 0) thread.letWrite(1);
        for (let i = 0; i < 40 && queue.broken === null; i++)
          attempt(list[random() % list.length] as () => unknown);
        const verdict = expectVerdict(queue) ?? "alive";
        if (verdict !== "alive") hits++;
        verdicts.set(verdict, (verdicts.get(verdict) ?? 0) + 1);
        for (const each of [...cursors, ...pair]) each.close();
      }
      expect(await thread.stop()).toBeGreaterThan(1000);
      expect(completed).toBe(4 * laps);
      scene.expectIntact();
      expect(hits, JSON.stringify([...verdicts])).toBeGreaterThan(10);
    });
  }
});
