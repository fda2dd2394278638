import { describe, expect, it } from "vitest";
import { generator, seedOr } from "./seed.js";
import { VirtQueuePair, type PairOptions } from "./virtqueue-pair.js";

const SEED = seedOr(3232);

for (const format of ["split", "packed"] as const) {
  for (const inOrder of [false, true]) {
    describe(`write log of a ${format} virtqueue${inOrder ? ", in order" : ""} (seed ${SEED})`, () => {
      it("covers every byte that changed, after every operation of either side", () => {
        for (const eventIndex of [false, true]) {
          const options: PairOptions = { format, size: 4, inOrder, eventIndex, indirect: 2 };
          const pair = new VirtQueuePair(options);
          const { guest, device, driver, chains, back, buffers } = pair;
          const random = generator(SEED);
          guest.north.logWrites(true);
          guest.south.logWrites(true);
          let cookie = 0;
          const piece = (): { gpa: number; length: number } => ({
            gpa: buffers + (random() % 8192),
            length: 1 + (random() % 2000),
          });
          const operations: (() => unknown)[] = [
            () => {
              const n = 1 + (random() % 3);
              const writable = random() % 2;
              if (driver.free < 3 * n) return;
              pair.add(
                Array.from({ length: n }, () => ({
                  cookie: cookie++,
                  readable: Array.from({ length: 1 + (random() % 2) }, piece),
                  writable: Array.from({ length: writable }, piece),
                })),
              );
            },
            () => {
              const n = device.peek(chains, 1 + (random() % 4));
              for (let i = 0; i < n; i++) chains.setUsed(i, random() % 2 === 0 ? 0 : chains.writableBytes(i));
              device.release(chains, n);
            },
            () => {
              if (device.peek(chains, 1) === 0) return;
              device.advance(1);
              device.completeOne(chains.id(0), chains.slots(0), 0);
            },
            () => driver.reap(back, 1 + (random() % 4)),
            () => device.enable(),
            () => device.disable(),
            () => driver.enable(),
            () => driver.enableDelayed(),
            () => driver.disable(),
          ];
          let changes = 0;
          for (let step = 0; step < 800; step++) {
            const before = guest.ram.slice();
            const which = random() % operations.length;
            operations[which]?.();
            const covered = new Set<number>();
            for (const space of [guest.north, guest.south]) {
              const log = space.takeWrites();
              if (log === "everything") return expect.fail("a single step cannot overflow the log");
              for (const { gpa, length } of log)
                for (let at = 0; at < length; at++) covered.add(gpa - guest.gpa + at);
            }
            const length = buffers - guest.gpa; // all that the two sides ever write
            const missed = [];
            for (let at = 0; at < length; at++)
              if (guest.ram[at] !== before[at] && !covered.has(at)) missed.push(at);
            expect(missed, `step ${step}, operation ${which}`).toEqual([]);
            if (covered.size > 0) changes++;
          }
          expect(changes).toBeGreaterThan(200);
          expect([driver.broken, device.broken]).toEqual([null, null]);
        }
      });
    });
  }
}
