import { ChainTable, type VirtQueueFormat, type VirtQueueViolation } from "vbus/engine";
import { describe, expect, it } from "vitest";
import { openGuest } from "./guest.js";
import { VirtQueuePair, type PairOptions } from "./virtqueue-pair.js";

const SIZE = 4;
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
