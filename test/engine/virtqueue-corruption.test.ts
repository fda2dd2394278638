import {
  BurstTable,
  ChainTable,
  DeviceVirtQueue,
  DriverVirtQueue,
  VbusError,
  VIRTQUEUE_VIOLATION_NAMES,
  type VirtQueueFormat,
  type VirtQueueViolation,
} from "vbus/engine";
import { describe, expect, it } from "vitest";
import { firstDifference, openGuest, type Guest } from "./guest.js";
import { HostileThread } from "./hostile-thread.js";
import { generator, seedOr } from "./seed.js";
import { VirtQueuePair, type PairOptions } from "./virtqueue-pair.js";

const SEED = seedOr(2707);
const SIZE = 4;
const CANARY = 0x5a;
const NEXT = 1;
const WRITE = 2;
const INDIRECT = 4;

/** A queue whose shared bytes a test writes itself. */
class Forger {
  readonly pair: VirtQueuePair;
  readonly #split: boolean;

  constructor(options: Partial<PairOptions> & { format: VirtQueueFormat }) {
    this.pair = new VirtQueuePair({ size: SIZE, ...options });
    this.#split = options.format === "split";
  }

  get buffers(): number {
    return this.pair.buffers;
  }

  /** Writes a descriptor somewhere. `next`: split; `id`: packed. */
  descriptor(at: number, gpa: number, length: number, flags: number, next = 0, id = 0): void {
    const view = this.pair.guest.view(at, 16);
    view.setUint32(0, gpa >>> 0, true);
    view.setUint32(4, Math.floor(gpa / 2 ** 32), true);
    view.setUint32(8, length, true);
    view.setUint16(12, this.#split ? flags : id, true);
    view.setUint16(14, this.#split ? next : flags, true);
  }

  /** Writes descriptors to the ring; they follow each other in both formats. */
  ring(list: readonly (readonly [gpa: number, length: number, flags: number, next?: number])[]): void {
    for (const [i, [gpa, length, flags, next = i + 1]] of list.entries()) {
      // 0x80: available in the first lap
      const all = this.#split ? flags : flags | 0x80;
      this.descriptor(this.pair.options.descriptors + 16 * i, gpa, length, all, next, i);
    }
  }

  /** Makes heads available (split), or does nothing: packed descriptors are. */
  avail(heads: readonly number[], index = heads.length): void {
    if (!this.#split) return;
    const view = this.pair.guest.view(this.pair.options.driver, 4 + 2 * SIZE);
    for (const [i, head] of heads.entries()) view.setUint16(4 + 2 * (i % SIZE), head, true);
    view.setUint16(2, index, true);
  }

  /** What the device says to it. */
  expectBroken(kind: VirtQueueViolation): void {
    const { device, chains } = this.pair;
    expect(() => device.peek(chains, SIZE)).toThrow(new RegExp(`EPROTO.*\\(${kind}\\)`));
    expect(device.broken).toBe(kind);
    expect(device.counters().violations).toEqual({ [kind]: 1 });
    expect(() => device.peek(chains, SIZE)).toThrow(/EPROTO/);
    expect(() => device.completeOne(0, 1, 0)).toThrow(/EPROTO/);
    expect([device.hasWork, device.enable()]).toEqual([false, false]);
    expect(device.counters().violations).toEqual({ [kind]: 1 });
  }
}

for (const format of ["split", "packed"] as const) {
  describe(`a ${format} virtqueue of a hostile driver breaks, and says why`, () => {
    const start = (options: Partial<PairOptions> = {}): Forger => new Forger({ format, ...options });

    it("empty: a buffer of no bytes", () => {
      const f = start();
      f.ring([[f.buffers, 0, 0]]);
      f.avail([0]);
      f.expectBroken("empty");
    });

    it("address: a buffer outside its memory, wholly, by one byte, or by wrapping around", () => {
      const end = 0x10000 + (1 << 20);
      for (const [gpa, length] of [
        [0, 1],
        [end - 4, 5],
        [2 ** 40, 1],
        [2 ** 53, 16],
        [0x1_0001_0000, 1],
        [0x10000, 0xffffffff],
      ] as const) {
        for (const flags of [0, WRITE]) {
          const f = start();
          f.ring([[gpa, length, flags]]);
          f.avail([0]);
          f.expectBroken("address");
        }
      }
      const f = start();
      const view = f.pair.guest.view(f.pair.options.descriptors, 16);
      f.ring([[f.buffers, 64, 0]]);
      view.setUint32(0, 0xfffffff0, true);
      view.setUint32(4, 0xffffffff, true); // -16, with 64 bytes
      f.avail([0]);
      f.expectBroken("address");
    });

    it("order: a readable buffer behind a writable one", () => {
      const f = start();
      f.ring([
        [f.buffers, 1, WRITE | NEXT],
        [f.buffers, 1, 0],
      ]);
      f.avail([0]);
      f.expectBroken("order");
    });

    it("loop: a chain that comes back to itself, or is longer than the queue", () => {
      const f = start();
      f.ring(Array.from({ length: SIZE }, (_, i) => [f.buffers, 1, NEXT, (i + 1) % SIZE] as const));
      f.avail([0]);
      f.expectBroken("loop");
    });

    it("pieces: more than the device takes, by its own limit or by its table's", () => {
      const f = start({ maxPieces: 2 });
      f.ring([
        [f.buffers, 1, NEXT],
        [f.buffers, 1, NEXT],
        [f.buffers, 1, 0],
      ]);
      f.avail([0]);
      f.expectBroken("pieces");
      const g = start();
      g.ring([
        [g.buffers, 1, NEXT],
        [g.buffers, 1, 0],
      ]);
      g.avail([0]);
      const small = ChainTable.allocate(g.pair.guest.south, 4, 1);
      expect(() => g.pair.device.peek(small, 4)).toThrow(/EPROTO.*pieces/);
    });

    it("indirect: not negotiated", () => {
      const f = start();
      f.ring([[f.buffers, 16, INDIRECT]]);
      f.avail([0]);
      f.expectBroken("indirect");
    });

    it("indirect: a table of no bytes, of half a descriptor, or of more than the device takes", () => {
      for (const length of [0, 8, 17, 16 * 1025, 0xfffffff0]) {
        const f = start({ indirect: 4 });
        f.ring([[f.buffers, length, INDIRECT]]);
        f.avail([0]);
        f.expectBroken("indirect");
      }
    });

    it("indirect: a table with something behind it, or in another table", () => {
      const f = start({ indirect: 4 });
      f.ring([
        [f.buffers, 16, INDIRECT | NEXT],
        [f.buffers, 1, 0],
      ]);
      f.avail([0]);
      f.expectBroken("indirect");
      const g = start({ indirect: 4 });
      g.ring([[g.buffers, 16, INDIRECT]]);
      g.descriptor(g.buffers, g.buffers, 16, INDIRECT);
      g.avail([0]);
      g.expectBroken("indirect");
    });

    it("address: an indirect table outside its memory", () => {
      const f = start({ indirect: 4 });
      f.ring([[0x10000 + (1 << 20) - 16, 32, INDIRECT]]);
      f.avail([0]);
      f.expectBroken("address");
    });

    it("length: 2^32 bytes in one chain, not a byte less", () => {
      const MIB = 1 << 20;
      const guest = openGuest({ size: 2 * MIB });
      const chains = ChainTable.allocate(guest.south, 1, 4096);
      for (const [short, kind] of [
        [1, null],
        [0, "length"],
      ] as const) {
        const pair = new VirtQueuePair({ format, size: SIZE, indirect: 1, maxPieces: 4096 }, guest);
        const f = Object.assign(start(), { pair });
        for (let i = 0; i < 4096; i++) {
          const next = format === "split" && i < 4095 ? NEXT : 0;
          f.descriptor(pair.buffers + 16 * i, guest.gpa, i === 4095 ? MIB - short : MIB, next, i + 1);
        }
        f.ring([[pair.buffers, 16 * 4096, INDIRECT]]);
        f.avail([0]);
        if (kind !== null) {
          expect(() => pair.device.peek(chains, 1)).toThrow(/EPROTO.*length/);
        } else {
          expect(pair.device.peek(chains, 1)).toBe(1);
          expect([chains.readableBytes(0), chains.readablePieces(0)]).toEqual([2 ** 32 - 1, 4096]);
        }
        pair.close();
      }
    });

    if (format === "split") {
      it("index: more heads than descriptors, or than are not in flight", () => {
        for (const index of [SIZE + 1, 0x8000, 0xffff]) {
          const f = start();
          f.avail([0], index);
          f.expectBroken("index");
        }
        const f = start();
        f.ring(Array.from({ length: SIZE }, () => [f.buffers, 1, 0] as const));
        f.avail([0, 1, 2, 3]);
        expect(f.pair.peek()).toHaveLength(SIZE);
        f.pair.device.advance(SIZE);
        f.avail([0, 1, 2, 3], SIZE + 1);
        expect(f.pair.device.enable()).toBe(true); // there is something: peek says what
        f.expectBroken("index");
      });

      it("head: a head or a next that is no descriptor, in the ring and in a table", () => {
        for (const head of [SIZE, 0x7fff, 0xffff]) {
          const f = start();
          f.avail([head]);
          f.expectBroken("head");
          const g = start();
          g.ring([[g.buffers, 1, NEXT, head]]);
          g.avail([0]);
          g.expectBroken("head");
          const h = start({ indirect: 4 });
          h.ring([[h.buffers, 32, INDIRECT]]);
          h.descriptor(h.buffers, h.buffers, 1, NEXT, Math.max(2, head - SIZE + 2));
          h.avail([0]);
          h.expectBroken("head");
        }
      });

      it("loop: in an indirect table", () => {
        const f = start({ indirect: 4 });
        f.ring([[f.buffers, 48, INDIRECT]]);
        for (let i = 0; i < 3; i++) f.descriptor(f.buffers + 16 * i, f.buffers, 1, NEXT, (i + 1) % 3);
        f.avail([0]);
        f.expectBroken("loop");
      });

      it("takes a table behind direct descriptors (2.7.5.3.2)", () => {
        const f = start({ indirect: 4 });
        f.ring([
          [f.buffers, 7, NEXT],
          [f.buffers + 256, 16, INDIRECT],
        ]);
        f.descriptor(f.buffers + 256, f.buffers + 512, 9, WRITE);
        f.avail([0]);
        expect(f.pair.peek()).toEqual([
          { readable: [{ gpa: f.buffers, length: 7 }], writable: [{ gpa: f.buffers + 512, length: 9 }] },
        ]);
        expect(f.pair.chains.slots(0)).toBe(2);
      });
    } else {
      it("overflow: more available than the queue has", () => {
        const f = start();
        f.ring(Array.from({ length: SIZE }, () => [f.buffers, 1, 0] as const));
        expect(f.pair.peek()).toHaveLength(SIZE);
        f.pair.device.advance(SIZE);
        expect(f.pair.peek()).toEqual([]);
        // the second lap's state, before anything of the first was completed
        f.descriptor(f.pair.options.descriptors, f.buffers, 1, 0x8000);
        f.expectBroken("overflow");
      });

      it("indirect: a table behind a direct descriptor (2.8.7: a list is of one kind)", () => {
        const f = start({ indirect: 4 });
        f.ring([
          [f.buffers, 1, NEXT],
          [f.buffers, 16, INDIRECT],
        ]);
        f.expectBroken("indirect");
      });

      it("ignores flags of an indirect table that mean nothing there (2.8.7)", () => {
        const f = start({ indirect: 4 });
        f.ring([[f.buffers, 32, INDIRECT]]);
        f.descriptor(f.buffers, f.buffers + 512, 5, NEXT | 0x8080);
        f.descriptor(f.buffers + 16, f.buffers + 1024, 6, WRITE | NEXT);
        expect(f.pair.peek()).toEqual([
          {
            readable: [{ gpa: f.buffers + 512, length: 5 }],
            writable: [{ gpa: f.buffers + 1024, length: 6 }],
          },
        ]);
      });
    }

    it("and hands out nothing of a burst that has one bad chain in it", () => {
      const f = start();
      f.ring([
        [f.buffers, 1, 0],
        [f.buffers, 0, 0],
      ]);
      f.avail([0, 1]);
      f.expectBroken("empty");
      expect(() => f.pair.device.advance(1)).toThrow(/EPROTO/);
    });

    it("request: what the device itself refuses", () => {
      const f = start();
      f.pair.device.violate("request");
      expect(f.pair.device.broken).toBe("request");
      expect(() => f.pair.device.peek(f.pair.chains, 1)).toThrow(/EPROTO.*request/);
      expect(f.pair.device.counters().violations).toEqual({ request: 1 });
    });
  });

  describe(`a ${format} virtqueue of a device that goes wrong breaks the driver's side`, () => {
    const used = (pair: VirtQueuePair, id: number, length: number): void => {
      if (format === "split") {
        const view = pair.guest.view(pair.options.device, 12);
        view.setUint32(4, id, true);
        view.setUint32(8, length, true);
        view.setUint16(2, 1, true);
      } else {
        const view = pair.guest.view(pair.options.descriptors, 16);
        view.setUint32(8, length, true);
        view.setUint16(12, id, true);
        view.setUint16(14, 0x8080 | WRITE, true);
      }
    };
    const rig = (inOrder: boolean): VirtQueuePair => {
      const pair = new VirtQueuePair({ format, size: SIZE, inOrder });
      pair.add([
        { cookie: 1, writable: [{ gpa: pair.buffers, length: 10 }] },
        {
          cookie: 2,
          writable: [
            { gpa: pair.buffers, length: 10 },
            { gpa: pair.buffers, length: 10 },
          ],
        },
      ]);
      return pair;
    };

    for (const inOrder of [false, true]) {
      it(`head and length: an id that is not in flight, more bytes than there was room${inOrder ? ", in order" : ""}`, () => {
        for (const id of [3, SIZE, 0xffff]) {
          const pair = rig(inOrder);
          used(pair, id, 1);
          expect(() => pair.reap()).toThrow(/EPROTO.*head/);
          expect(pair.driver.counters().violations).toEqual({ head: 1 });
          expect(() => pair.add([{ cookie: 1, readable: [{ gpa: pair.buffers, length: 1 }] }])).toThrow(
            /EPROTO/,
          );
        }
        const pair = rig(inOrder);
        used(pair, 0, 11);
        expect(() => pair.reap()).toThrow(/EPROTO.*length/);
        expect(pair.driver.broken).toBe("length");
      });
    }

    it("twice the same id", () => {
      const pair = rig(false);
      used(pair, 0, 10);
      expect(pair.reap()).toEqual([{ cookie: 1, length: 10 }]);
      if (format === "split") {
        const view = pair.guest.view(pair.options.device, 20);
        view.setUint32(12, 0, true);
        view.setUint16(2, 2, true);
      } else {
        const view = pair.guest.view(pair.options.descriptors + 16, 16);
        view.setUint16(12, 0, true);
        view.setUint16(14, 0x8080, true);
      }
      expect(() => pair.reap()).toThrow(/EPROTO.*head/);
    });

    if (format === "split") {
      it("index: more used than in flight", () => {
        for (const index of [3, SIZE, 0x8000, 0xffff]) {
          const pair = rig(false);
          pair.guest.view(pair.options.device, 4).setUint16(2, index, true);
          expect(pair.driver.enable()).toBe(true);
          expect(() => pair.reap()).toThrow(/EPROTO.*index/);
        }
      });
    }
  });
}

/** A guest with a queue under attack, a healthy one of the other format, and canaries everywhere else. */
class Scene {
  readonly guest: Guest;
  readonly #ram: Uint8Array;
  readonly #canaries: [address: number, size: number][];
  readonly #healthy: VirtQueuePair;
  #sent = 0;

  constructor(
    shared: boolean,
    readonly options: PairOptions,
  ) {
    this.guest = openGuest({ shared, size: 1 << 17 });
    const { north, south, init } = this.guest;
    this.#canaries = [
      [0, 65536],
      [init.layout.link.address, init.layout.link.size],
      [north.allocate(4096, 64), 4096],
      [south.allocate(4096, 64), 4096],
    ];
    for (const [address, size] of this.#canaries) north.bytes.fill(CANARY, address, address + size);
    this.guest.ram.fill(CANARY);
    this.#healthy = new VirtQueuePair(
      { format: options.format === "split" ? "packed" : "split", size: 8, shared },
      { ...this.guest, gpa: this.guest.gpa + 65536 },
    );
    this.#ram = this.guest.ram.slice();
  }

  /** A fresh queue with some traffic behind it and some before it. */
  attacked(): VirtQueuePair {
    const pair = new VirtQueuePair(this.options, this.guest);
    const buffer = (i: number): { gpa: number; length: number } => ({
      gpa: pair.buffers + 64 * i,
      length: 64,
    });
    pair.add([
      { cookie: 1, readable: [buffer(0), buffer(1)] },
      { cookie: 2, writable: [buffer(2)] },
    ]);
    pair.device.release(pair.chains, pair.device.peek(pair.chains, 2));
    pair.reap();
    pair.add([
      { cookie: 3, readable: [buffer(0)], writable: [buffer(1)] },
      { cookie: 4, readable: [buffer(2)] },
    ]);
    pair.device.peek(pair.chains, 1);
    pair.device.advance(1);
    pair.device.completeOne(pair.chains.id(0), pair.chains.slots(0), 5);
    return pair;
  }

  /** Bytes from the first area of a queue to the end of the last: its indirect tables, when it has some. */
  shown({ options, buffers }: VirtQueuePair): number {
    const areas = DriverVirtQueue.areaSizes(options.format, options.size);
    const { gpa = 0, pieces = 0 } = options.tables ?? {};
    const end = Math.max(
      options.device + areas.device.size,
      gpa + DriverVirtQueue.tablesSize(options.size, pieces),
    );
    expect(end).toBeLessThanOrEqual(buffers);
    return end - options.descriptors;
  }

  /** A whole lap on the other queue; its contents are checked. Returns chains completed. */
  healthyLap(): number {
    const pair = this.#healthy;
    const chains = [0, 1, 2].map((i) => ({
      cookie: this.#sent + i,
      readable: [{ gpa: pair.buffers, length: 1 + i }],
    }));
    pair.add(chains);
    const n = pair.device.peek(pair.chains, 8);
    pair.device.release(pair.chains, n);
    const back = pair.reap();
    for (const [i, { cookie }] of back.entries()) if (cookie !== this.#sent + i) return -1;
    this.#sent += 3;
    return back.length;
  }

  /** Nothing but the two queues' own areas was written. */
  expectIntact(pair: VirtQueuePair): void {
    for (const [address, size] of this.#canaries) {
      const bytes = this.guest.north.bytes.subarray(address, address + size);
      expect(bytes.findIndex((byte) => byte !== CANARY)).toBe(-1);
    }
    const outside: [number, number][] = [
      [0, 4096],
      [pair.buffers - this.guest.gpa, 65536 + 4096],
      [this.#healthy.buffers - this.guest.gpa, 1 << 17],
    ];
    for (const [from, to] of outside) {
      expect(firstDifference(this.guest.ram.subarray(from, to), this.#ram.subarray(from, to))).toBe(-1);
    }
  }
}

/** Everything that the two sides may do. */
function operations(pair: VirtQueuePair): (() => unknown)[] {
  const { device, driver, chains, back } = pair;
  return [
    () => device.release(chains, device.peek(chains, 3)),
    () => {
      const n = device.peek(chains, 2);
      device.advance(n);
      for (let i = 0; i < n; i++) device.completeOne(chains.id(i), chains.slots(i), chains.writableBytes(i));
    },
    () => device.enable(),
    () => device.enable(true),
    () => device.disable(),
    () => device.hasWork,
    () => driver.reap(back, 3),
    () => driver.enable(),
    () => driver.enableDelayed(),
    () => driver.disable(),
    () =>
      pair.add([
        {
          cookie: 9,
          readable: [{ gpa: pair.buffers, length: 64 }],
          writable: [{ gpa: pair.buffers, length: 64 }],
        },
      ]),
    () => [device.counters(), driver.counters()],
    () => device.exportState(),
    () => driver.exportState(),
  ];
}

/** Runs an operation; a queue may answer with EPROTO (the peer's fault), EINVAL or ENOSPC, nothing else. */
function attempt(operation: () => unknown): void {
  try {
    operation();
  } catch (error) {
    if (!(error instanceof VbusError) || !["EPROTO", "EINVAL", "ENOSPC"].includes(error.code)) throw error;
  }
}

/** Checks that a broken side has a typed, counted reason and hands out nothing more. */
function expectVerdict(side: DeviceVirtQueue | DriverVirtQueue): VirtQueueViolation | null {
  const { broken } = side;
  if (broken === null) {
    expect(side.counters().violations).toEqual({});
    return null;
  }
  expect(VIRTQUEUE_VIOLATION_NAMES.slice(1)).toContain(broken);
  expect(side.counters().violations[broken]).toBeGreaterThan(0);
  expect(side.hasWork).toBe(false);
  return broken;
}

const BYTES = [0, 1, 2, 4, 7, 0x80, 0xff];
const WORDS = [0, 1, SIZE - 1, SIZE, SIZE + 1, 0xffff, 0x80808080, 0x7fffffff, 0xffffffff];

for (const shared of [false, true]) {
  for (const format of ["split", "packed"] as const) {
    for (const indirect of [0, 4]) {
      const kind = `${format}, ${shared ? "shared" : "unshared"} engine${indirect > 0 ? ", indirect" : ""}`;
      describe(`a corrupted virtqueue (${kind}, seed ${SEED})`, () => {
        it("every shared byte and word, hostile values: only this queue suffers, and every reason is counted", () => {
          const options = { format, size: SIZE, shared, indirect, eventIndex: true };
          const scene = new Scene(shared, options);
          const random = generator(SEED);
          const verdicts = new Map<string, number>();
          const first = scene.attacked();
          const start = first.options.descriptors;
          const length = first.buffers - start;
          const shown = scene.shown(first);
          first.close();
          const changes: ((view: DataView) => void)[] = [];
          for (let at = 0; at < shown; at++) {
            for (const value of BYTES) changes.push((view) => view.setUint8(at, value));
          }
          for (let at = 0; at + 4 <= shown; at += 4) {
            for (const value of WORDS) changes.push((view) => view.setUint32(at, value, true));
          }
          let completed = 0;
          for (const [i, change] of changes.entries()) {
            const pair = scene.attacked();
            change(scene.guest.view(start, length));
            const list = operations(pair);
            const from = random() % list.length;
            for (let k = 0; k < list.length; k++) attempt(list[(from + k) % list.length] as () => unknown);
            for (const side of [pair.device, pair.driver]) {
              const verdict = expectVerdict(side) ?? "harmless";
              const who = side === pair.device ? "device" : "driver";
              verdicts.set(`${who}: ${verdict}`, (verdicts.get(`${who}: ${verdict}`) ?? 0) + 1);
            }
            completed += scene.healthyLap();
            if (i % 50 === 0) scene.expectIntact(pair);
            pair.close();
          }
          expect(completed).toBe(3 * changes.length); // the other queue lost nothing
          const text = JSON.stringify([...verdicts]);
          for (const verdict of ["harmless", "address", "empty", "indirect"]) {
            expect(verdicts.get(`device: ${verdict}`) ?? 0, text).toBeGreaterThan(0);
          }
          for (const verdict of ["harmless", "head", "length"])
            expect(verdicts.get(`driver: ${verdict}`) ?? 0, text).toBeGreaterThan(0);
        });

        it("bytes flipped at random under a running queue", () => {
          const scene = new Scene(shared, { format, size: SIZE, shared, indirect, eventIndex: true });
          const random = generator(SEED + 1);
          const verdicts = new Map<string, number>();
          let completed = 0;
          const LAPS = 1500;
          for (let lap = 0; lap < LAPS; lap++) {
            const pair = scene.attacked();
            const start = pair.options.descriptors;
            const view = scene.guest.view(start, pair.buffers - start);
            const shown = scene.shown(pair);
            const list = operations(pair);
            for (let step = 0; step < 40; step++) {
              if (random() % 2 === 0) {
                const at = random() % shown;
                view.setUint8(at, random() % 2 === 0 ? view.getUint8(at) ^ (1 << (random() % 8)) : random());
              }
              attempt(list[random() % list.length] as () => unknown);
            }
            const verdict = expectVerdict(pair.device) ?? "alive";
            expectVerdict(pair.driver);
            verdicts.set(verdict, (verdicts.get(verdict) ?? 0) + 1);
            completed += scene.healthyLap();
            if (lap % 50 === 0) scene.expectIntact(pair);
            pair.close();
          }
          expect(completed).toBe(3 * LAPS);
          expect(verdicts.size, JSON.stringify([...verdicts])).toBeGreaterThan(3);
        });
      });
    }
  }
}

describe(`a driver that rewrites a virtqueue while it is used (seed ${SEED})`, () => {
  for (const format of ["split", "packed"] as const) {
    it(`${format}: only that queue suffers`, async () => {
      const scene = new Scene(true, { format, size: 16, shared: true, indirect: 4, eventIndex: true });
      const random = generator(SEED + 3);
      const first = scene.attacked();
      const { descriptors } = first.options;
      const thread = new HostileThread({
        memory: scene.guest.init.memory,
        address: scene.guest.north.translate(descriptors, scene.shown(first)),
        length: scene.shown(first),
        stride: 32,
        header: 56,
        seed: SEED,
      });
      first.close();
      await thread.started();
      const verdicts = new Map<string, number>();
      let completed = 0;
      let laps = 0;
      let hits = 0;
      while (laps < 600 || hits <= 10) {
        completed += scene.healthyLap();
        laps++;
        const pair = new VirtQueuePair(scene.options, scene.guest);
        if (laps % 8 === 0) thread.letWrite(1);
        const list = operations(pair);
        for (let i = 0; i < 60 && pair.device.broken === null; i++)
          attempt(list[random() % list.length] as () => unknown);
        const verdict = expectVerdict(pair.device) ?? "alive";
        expectVerdict(pair.driver);
        if (verdict !== "alive") hits++;
        verdicts.set(verdict, (verdicts.get(verdict) ?? 0) + 1);
        if (laps % 50 === 0) scene.expectIntact(pair);
        pair.close();
      }
      expect(await thread.stop()).toBeGreaterThan(1000);
      expect(completed).toBe(3 * laps);
      expect(hits, JSON.stringify([...verdicts])).toBeGreaterThan(10);
    });
  }
});

describe(`an exported virtqueue state, changed (seed ${SEED})`, () => {
  for (const format of ["split", "packed"] as const) {
    for (const inOrder of [false, true]) {
      it(`is refused or harmless (${format}${inOrder ? ", in order" : ""})`, () => {
        const options = { format, size: SIZE, inOrder, indirect: 2 };
        const scene = new Scene(false, options);
        const random = generator(SEED + 2);
        const results = new Map<string, number>();
        const pair = scene.attacked();
        const { north, south } = scene.guest;
        const table = BurstTable.allocate(north, 8);
        const chains = ChainTable.allocate(south, 8, 4);
        const areas = scene.guest.ram.slice();
        for (const [side, state] of [
          ["driver", pair.driver.exportState()],
          ["device", pair.device.exportState()],
        ] as const) {
          const tries = [state.slice(0, 40), state.slice(0, -1), new Uint8Array(state.length + 8)];
          for (let at = 0; at < state.length; at++) {
            for (const value of [0, 1, 2, 0x7f, 0xff, random()]) {
              const changed = state.slice();
              changed[at] = value;
              tries.push(changed);
            }
          }
          for (const changed of tries) {
            scene.guest.ram.set(areas);
            let result = "accepted";
            try {
              if (side === "driver") {
                const queue = DriverVirtQueue.importState(north, changed);
                table.setBuffer(0, 0, 64);
                table.setGpa(0, pair.buffers);
                for (const work of [
                  () => queue.add(table, 1),
                  () => queue.reap(table, 8),
                  () => queue.add(table, 1),
                  () => queue.enable(),
                  () => queue.enableDelayed(),
                ])
                  attempt(work);
                queue.close();
              } else {
                const queue = DeviceVirtQueue.importState(south, changed);
                for (const work of [
                  () => queue.release(chains, queue.peek(chains, 4)),
                  () => queue.completeOne(0, 1, 0),
                  () => queue.enable(true),
                ])
                  attempt(work);
                queue.close();
              }
            } catch (error) {
              if (!(error instanceof VbusError)) throw error;
              result = error.code;
            }
            results.set(result, (results.get(result) ?? 0) + 1);
          }
        }
        for (const each of ["accepted", "EINVAL", "ENOENT", "EFAULT"])
          expect(results.get(each) ?? 0, JSON.stringify([...results])).toBeGreaterThan(0);
        expect(scene.healthyLap()).toBe(3);
        for (const [address, size] of [[0, 65536]] as const) {
          const bytes = north.bytes.subarray(address, address + size);
          expect(bytes.findIndex((byte) => byte !== CANARY)).toBe(-1);
        }
      });
    }
  }
});
