import { CHAIN_WRITABLE, DeviceVirtQueue, DriverVirtQueue, moveFrames } from "vbus/engine";
import { describe, expect, it } from "vitest";
import { expectError, openGuest } from "./guest.js";
import { VirtQueuePair, type Chain, type PairOptions } from "./virtqueue-pair.js";

const KINDS: PairOptions[] = (["split", "packed"] as const).flatMap((format) =>
  [false, true].flatMap((shared) =>
    [false, true].flatMap((eventIndex) =>
      [false, true].flatMap((inOrder) =>
        [0, 8].map((indirect) => ({ format, size: 8, shared, eventIndex, inOrder, indirect })),
      ),
    ),
  ),
);

const name = ({ format, shared, eventIndex, inOrder, indirect }: PairOptions): string =>
  [
    format,
    shared === true ? "shared" : "unshared",
    ...(eventIndex === true ? ["event index"] : []),
    ...(inOrder === true ? ["in order"] : []),
    ...((indirect ?? 0) > 0 ? ["indirect"] : []),
  ].join(", ");

for (const kind of KINDS) {
  describe(`a virtqueue (${name(kind)})`, () => {
    const at = (pair: VirtQueuePair, i: number): number => pair.buffers + i * 0x1000;

    it("carries chains of every shape to the device and what it wrote back to the driver, many times around", () => {
      const pair = new VirtQueuePair(kind);
      for (let round = 0; round < 40; round++) {
        const base = at(pair, round % 4);
        const chains: Chain[] = [
          { cookie: round * 8, readable: [{ gpa: base, length: 60 }] },
          { cookie: round * 8 + 1, writable: [{ gpa: base + 64, length: 100 + round }] },
          {
            cookie: round * 8 + 2,
            readable: [
              { gpa: base + 256, length: 16 },
              { gpa: base + 512, length: 512 },
            ],
            writable: [{ gpa: base + 1024, length: 1 }],
          },
          {
            cookie: round * 8 + 3,
            writable: [
              { gpa: base + 2048, length: 12 },
              { gpa: base + 2560, length: 1500 },
            ],
          },
        ].slice(0, 1 + (round % 4));
        pair.add(chains);
        const seen = pair.peek();
        expect(seen).toEqual(chains.map(({ readable = [], writable = [] }) => ({ readable, writable })));
        const lengths = chains.map(({ writable = [] }, i) =>
          writable.length === 0 ? 0 : i === 1 ? 7 : writable.reduce((n, { length }) => n + length, 0),
        );
        for (const [i, length] of lengths.entries()) pair.chains.setUsed(i, length);
        if (round % 2 === 0) {
          pair.device.release(pair.chains, seen.length);
        } else {
          pair.device.advance(seen.length);
          expect(pair.device.inFlight).toBe(seen.length);
          for (let i = 0; i < seen.length; i++)
            pair.device.completeOne(pair.chains.id(i), pair.chains.slots(i), lengths[i] as number);
        }
        expect(pair.reap()).toEqual(chains.map(({ cookie }, i) => ({ cookie, length: lengths[i] })));
        expect(pair.driver.free).toBe(8);
        expect([pair.device.inFlight, pair.driver.inFlight]).toEqual([0, 0]);
      }
    });

    it("shows a readable part as a frame, and a writable one as a buffer to move frames into", () => {
      const pair = new VirtQueuePair(kind);
      const { south } = pair.guest;
      pair.guest.north.copyTo(
        at(pair, 0),
        Uint8Array.from({ length: 64 }, (_, i) => i),
      );
      pair.add([
        {
          cookie: 1,
          readable: [
            { gpa: at(pair, 0), length: 20 },
            { gpa: at(pair, 0) + 20, length: 44 },
          ],
        },
        {
          cookie: 2,
          writable: [
            { gpa: at(pair, 1), length: 10 },
            { gpa: at(pair, 2), length: 100 },
          ],
        },
      ]);
      expect(pair.device.peek(pair.chains, 8)).toBe(2);
      const { table } = pair.chains;
      expect([table.length(0), table.length(1), table.fragments(0), table.fragments(1)]).toEqual([
        64, 110, 2, 2,
      ]);
      expect(moveFrames(table, 0, 1, table, 1, 2)).toEqual({ taken: 1, filled: 1, staged: 0 });
      pair.chains.setUsed(1, table.length(1));
      pair.device.release(pair.chains, 2);
      expect(pair.reap()).toEqual([
        { cookie: 1, length: 0 },
        { cookie: 2, length: 64 },
      ]);
      expect([...south.copyFrom(at(pair, 1), 10), ...south.copyFrom(at(pair, 2), 54)]).toEqual(
        Array.from({ length: 64 }, (_, i) => i),
      );
    });

    it("asks for a kick when the device sleeps, and for none while it is awake", () => {
      const pair = new VirtQueuePair(kind);
      const one = (cookie: number): boolean =>
        pair.add([{ cookie, readable: [{ gpa: at(pair, 0), length: 1 }] }]);
      expect(pair.device.enable()).toBe(false);
      expect(one(0)).toBe(true);
      expect(pair.device.enable()).toBe(true); // one is there
      pair.device.disable();
      pair.device.peek(pair.chains, 8);
      pair.device.release(pair.chains, 1);
      expect(one(1)).toBe(false);
      expect(pair.device.enable()).toBe(true);
      pair.device.peek(pair.chains, 8);
      expect(pair.device.enable(true)).toBe(false); // nothing behind what was peeked
      expect(one(2)).toBe(true);
    });

    it("asks for an interrupt when the driver sleeps, and for none while it is awake", () => {
      const pair = new VirtQueuePair(kind);
      pair.add(
        Array.from({ length: 6 }, (_, i) => ({ cookie: i, readable: [{ gpa: at(pair, i), length: 9 }] })),
      );
      const complete = (): boolean => {
        expect(pair.device.peek(pair.chains, 1)).toBe(1);
        return pair.device.release(pair.chains, 1);
      };
      expect(pair.driver.enable()).toBe(false);
      expect(complete()).toBe(true);
      expect(pair.driver.enable()).toBe(true);
      pair.driver.disable();
      expect(pair.reap()).toHaveLength(1);
      expect(complete()).toBe(false);
      expect(pair.reap()).toHaveLength(1);
      expect(pair.driver.enable()).toBe(false);
      expect(complete()).toBe(true);
      expect(pair.reap()).toHaveLength(1);
      // three are left: told after two or three of them, or at once where there is no event index
      expect(pair.driver.enableDelayed()).toBe(false);
      expect([complete(), complete(), complete()].indexOf(true)).toBe(kind.eventIndex === true ? 2 : 0);
    });

    it("takes all of a burst or nothing of it", () => {
      const pair = new VirtQueuePair(kind);
      const chains = Array.from({ length: 9 }, (_, i) => ({
        cookie: i,
        readable: [{ gpa: at(pair, i), length: 4 }],
      }));
      expectError("ENOSPC", () => pair.add(chains));
      expectError("EINVAL", () =>
        pair.add([...chains.slice(0, 3), { cookie: 3, writable: [{ gpa: at(pair, 0), length: 0 }] }]),
      );
      expect([pair.driver.free, pair.device.hasWork]).toEqual([8, false]);
      pair.add(chains.slice(0, 2));
      expect(pair.peek()).toHaveLength(2); // nothing of the bursts before is behind them
      pair.device.release(pair.chains, 2);
      expect(pair.reap().map(({ cookie }) => cookie)).toEqual([0, 1]);
      pair.add(chains.slice(0, 8));
      expect(pair.driver.free).toBe(0);
      expectError("ENOSPC", () => pair.add(chains.slice(8)));
      expect(pair.peek()).toHaveLength(8);
    });

    it("lets the device keep what it peeked, and take only some of it", () => {
      const pair = new VirtQueuePair(kind);
      pair.add([
        { cookie: 0, readable: [{ gpa: at(pair, 0), length: 4 }] },
        {
          cookie: 1,
          readable: [
            { gpa: at(pair, 1), length: 4 },
            { gpa: at(pair, 2), length: 4 },
          ],
        },
        { cookie: 2, writable: [{ gpa: at(pair, 3), length: 4 }] },
      ]);
      const all = pair.peek();
      expect(pair.peek()).toEqual(all);
      pair.device.advance(1);
      pair.device.advance(1);
      expect(pair.device.inFlight).toBe(2);
      expectError("EINVAL", () => pair.device.advance(2));
      pair.device.complete(pair.chains, 0, 2);
      expect(pair.peek()).toEqual(all.slice(2));
      pair.chains.setUsed(0, 3);
      pair.device.release(pair.chains, 1);
      expect(pair.reap()).toEqual([
        { cookie: 0, length: 0 },
        { cookie: 1, length: 0 },
        { cookie: 2, length: 3 },
      ]);
      expectError("EINVAL", () => pair.device.complete(pair.chains, 0, 1));
      expect(pair.device.broken).toBe(null);
    });

    if (kind.inOrder !== true) {
      it("completes in any order", () => {
        const pair = new VirtQueuePair(kind);
        for (let round = 0; round < 20; round++) {
          const chains: Chain[] = [0, 1, 2].map((i) => ({
            cookie: i,
            readable: [{ gpa: at(pair, i), length: 4 }],
            writable: Array.from({ length: i }, (_, k) => ({ gpa: at(pair, 4 + k), length: 8 })),
          }));
          pair.add(chains);
          expect(pair.peek()).toHaveLength(3);
          pair.device.advance(3);
          const { chains: table } = pair;
          const ids = [0, 1, 2].map((i) => ({ id: table.id(i), slots: table.slots(i) }));
          for (const i of [2, 0, 1])
            pair.device.completeOne((ids[i] as { id: number }).id, (ids[i] as { slots: number }).slots, i);
          expect(pair.reap()).toEqual([2, 0, 1].map((i) => ({ cookie: i, length: i })));
        }
        expect(pair.driver.free).toBe(8);
      });
    } else {
      it("tells the driver of the rest of a batch that it did not reap to the end", () => {
        const pair = new VirtQueuePair(kind);
        pair.add([0, 1, 2].map((i) => ({ cookie: i, readable: [{ gpa: at(pair, i), length: 4 }] })));
        pair.device.release(pair.chains, pair.device.peek(pair.chains, 3));
        expect(pair.reap(1)).toEqual([{ cookie: 0, length: 0 }]);
        expect([pair.driver.hasWork, pair.driver.enable(), pair.driver.enableDelayed()]).toEqual([
          true,
          true,
          true,
        ]);
        expect(pair.reap().map(({ cookie }) => cookie)).toEqual([1, 2]);
        expect([pair.driver.hasWork, pair.driver.enable()]).toEqual([false, false]);
      });

      it("writes one used element for a batch, and one more where a chain was not filled", () => {
        const pair = new VirtQueuePair(kind);
        const { options, guest } = pair;
        const lengths = [10, 10, 4, 10, 10];
        pair.add(lengths.map((_, i) => ({ cookie: i, writable: [{ gpa: at(pair, i), length: 10 }] })));
        const n = pair.device.peek(pair.chains, 8);
        const ids = lengths.map((_, i) => pair.chains.id(i));
        for (const [i, used] of lengths.entries()) pair.chains.setUsed(i, used);
        pair.device.release(pair.chains, n);
        // the third chain was not filled: one element at the first place names it, the next batch begins behind it
        const element = (place: number): [id: number, length: number] => {
          const split = kind.format === "split";
          const view = guest.view(
            split ? options.device + 4 + 8 * place : options.descriptors + 16 * place,
            16,
          );
          return split
            ? [view.getUint32(0, true), view.getUint32(4, true)]
            : [view.getUint16(12, true), view.getUint32(8, true)];
        };
        expect([element(0), element(3)]).toEqual([
          [ids[2], 4],
          [ids[4], 10],
        ]);
        expect(pair.reap()).toEqual(lengths.map((length, i) => ({ cookie: i, length })));
      });

      it("refuses to complete out of order", () => {
        const pair = new VirtQueuePair(kind);
        pair.add([0, 1].map((i) => ({ cookie: i, readable: [{ gpa: at(pair, i), length: 4 }] })));
        pair.peek();
        pair.device.advance(2);
        expectError("EINVAL", () => pair.device.complete(pair.chains, 1, 2));
        pair.device.complete(pair.chains, 0, 2);
        expect(pair.reap()).toHaveLength(2);
      });
    }
  });
}

for (const format of ["split", "packed"] as const) {
  describe(`a ${format} virtqueue`, () => {
    it("goes round its indexes, which count modulo 2^16", () => {
      const size = format === "split" ? 128 : 100;
      const pair = new VirtQueuePair({ format, size, eventIndex: true }, openGuest({ size: 1 << 20 }));
      const { driver, device, out, chains, back, buffers } = pair;
      let sent = 0;
      let reaped = 0;
      let kicks = 0;
      for (let i = 0; i < size; i++) {
        out.table.setBuffer(i, 0, 64);
        out.table.setGpa(i, buffers + 64 * i);
      }
      while (reaped < 3 * 65536) {
        const n = Math.min(driver.free, 1 + (sent % 90));
        for (let i = 0; i < n; i++) out.table.setCookie(i, sent + i);
        expect(device.enable()).toBe(false);
        if (driver.add(out, n)) kicks++;
        sent += n;
        const found = device.peek(chains, size);
        expect(found).toBe(n);
        device.release(chains, found);
        expect(driver.reap(back, size)).toBe(n);
        for (let i = 0; i < n; i++)
          if (back.cookie(i) !== reaped + i) expect.unreachable(`chain ${reaped + i}`);
        reaped += n;
      }
      expect(driver.counters()).toMatchObject({ chains: reaped, notified: kicks, suppressed: 0 });
    });

    it("starts anew after a reset, and touches nothing once it is closed", () => {
      const first = new VirtQueuePair({ format, size: 4 });
      const { guest } = first;
      first.add([{ cookie: 1, readable: [{ gpa: first.buffers, length: 4 }] }]);
      first.device.release(first.chains, first.device.peek(first.chains, 4));
      first.add([{ cookie: 2, readable: [{ gpa: first.buffers, length: 4 }] }]);
      first.peek();
      first.device.advance(1);
      first.close();
      first.close();
      expect(first.device.closed).toBe(true);
      const before = guest.ram.slice();
      const second = new VirtQueuePair({ format, size: 8 }, guest);
      second.add([{ cookie: 3, writable: [{ gpa: second.buffers, length: 4 }] }]);
      expect(second.peek()).toHaveLength(1);
      second.device.release(second.chains, 1);
      expect(second.reap()).toEqual([{ cookie: 3, length: 0 }]);
      // but for its own areas nothing changed
      const own = second.buffers - guest.gpa;
      expect(guest.ram.subarray(0, 4096)).toEqual(before.subarray(0, 4096));
      expect(guest.ram.subarray(own, own + 4096)).toEqual(before.subarray(own, own + 4096));
    });

    it("finds its areas again when the guest's memory has moved, or says that they are gone", () => {
      const guest = openGuest();
      const pair = new VirtQueuePair({ format, size: 4, indirect: 2 }, guest);
      pair.add([{ cookie: 1, readable: [{ gpa: pair.buffers, length: 4 }] }]);
      const [region] = guest.south.regions as [{ gpa: number; length: number; address: number }];
      // as if the emulator had moved its RAM by a page
      const moved = { ...region, address: region.address + 4096, length: region.length - 4096 };
      guest.ram.copyWithin(4096, 0, region.length - 4096);
      for (const space of [guest.north, guest.south]) space.moveRegions([moved]);
      pair.device.rebase();
      pair.driver.rebase();
      expect(pair.peek()).toEqual([{ readable: [{ gpa: pair.buffers, length: 4 }], writable: [] }]);
      pair.device.release(pair.chains, 1);
      expect(pair.reap()).toEqual([{ cookie: 1, length: 0 }]);
      guest.south.moveRegions([{ ...moved, gpa: 2 ** 33 }]);
      expectError("EFAULT", () => pair.device.rebase());
    });
  });
}

describe("a virtqueue's areas", () => {
  it("have the sizes and alignments of the specification", () => {
    expect(DriverVirtQueue.areaSizes("split", 256)).toEqual({
      descriptors: { size: 4096, align: 16 },
      driver: { size: 518, align: 2 },
      device: { size: 2054, align: 4 },
    });
    expect(DriverVirtQueue.areaSizes("packed", 3)).toEqual({
      descriptors: { size: 48, align: 16 },
      driver: { size: 4, align: 4 },
      device: { size: 4, align: 4 },
    });
  });

  it("are refused where they make no sense: size, alignment, place", () => {
    const { south, north, gpa } = openGuest();
    const good = { size: 8, descriptors: gpa, driver: gpa + 4096, device: gpa + 8192 };
    for (const format of ["split", "packed"] as const) {
      const options = { format, ...good };
      for (const size of [0, -1, 32769, 1.5, NaN])
        expectError("EINVAL", () => DeviceVirtQueue.attach(south, { ...options, size }));
      expectError("EINVAL", () => DeviceVirtQueue.attach(south, { ...options, descriptors: gpa + 8 }));
      expectError("EINVAL", () => DeviceVirtQueue.attach(south, { ...options, driver: gpa + 4097 }));
      expectError("EINVAL", () => DeviceVirtQueue.attach(south, { ...options, device: gpa + 8194 }));
      expectError("EFAULT", () => DeviceVirtQueue.attach(south, { ...options, descriptors: 0 }));
      expectError("EFAULT", () => DeviceVirtQueue.attach(south, { ...options, device: gpa + (1 << 20) }));
      expectError("EFAULT", () => DeviceVirtQueue.attach(south, { ...options, driver: 2 ** 40 }));
      expectError("EFAULT", () => DeviceVirtQueue.attach(south, { ...options, driver: -4 }));
      expectError("EINVAL", () => DeviceVirtQueue.attach(south, { ...options, maxPieces: 0 }));
      expectError("EINVAL", () => DriverVirtQueue.create(north, { ...options, tables: { gpa, pieces: 4 } }));
      DeviceVirtQueue.attach(south, options).close();
    }
    expectError("EINVAL", () => DeviceVirtQueue.attach(south, { format: "split", ...good, size: 6 }));
    DeviceVirtQueue.attach(south, { format: "packed", ...good, size: 6 }).close();
    expect(CHAIN_WRITABLE).not.toBe(0);
  });
});
