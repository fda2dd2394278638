import { BurstTable, ChainTable, DeviceVirtQueue, DriverVirtQueue, VbusError } from "vbus/engine";
import { describe, expect, it } from "vitest";
import { HostileThread } from "./hostile-thread.js";
import { generator, seedOr } from "./seed.js";
import { VirtQueuePair } from "./virtqueue-pair.js";
import { attempt, CANARY, expectVerdict, operations, Scene } from "./virtqueue-scene.js";

const SEED = seedOr(2707);
const SIZE = 4;
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
