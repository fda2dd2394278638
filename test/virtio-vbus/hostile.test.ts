import { ChainTable } from "vbus/engine";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { generator, seedOr } from "../engine/seed.js";
import { Recorder } from "../virtio/recorder.js";
import {
  ACKNOWLEDGE,
  CONFIG,
  DRIVER,
  DRIVER_OK,
  EFAULT,
  EINVAL,
  ENABLE_QUEUE,
  EVENT_IDX,
  FEATURES_OK,
  GET_STATUS,
  NEEDS_RESET,
  QUERY,
  READ_CONFIG,
  RESET_QUEUE,
  RING_PACKED,
  RING_RESET,
  rings,
  SET_STATUS,
  VERSION_1,
  WireMachine,
  words,
} from "./machine.js";

const SEED = seedOr(20090703);
let face: Recorder;
let machine: WireMachine;

beforeEach(async () => {
  face = new Recorder();
  machine = await WireMachine.create(face);
  machine.open();
  machine.events();
});

afterEach(() => {
  machine.close();
  expect(machine.host.arena.available, "the session's memory was given back").toBe(machine.free);
  machine.vbus.close();
});

function negotiated(features: bigint): void {
  machine.negotiate(features);
  for (const id of [CONFIG, 0, 1]) if (!machine.signals.has(id)) machine.share(id);
}

/** All of the device still works: a fresh driver gets its buffers answered. */
function expectAlive(): void {
  negotiated(VERSION_1);
  const queue = machine.makeQueue(8, VERSION_1);
  expect(machine.enable(1, queue)).toBe(0);
  machine.run();
  machine.scheduler.run();
  queue.ring.enable();
  const before = face.answered;
  machine.settle(1);
  machine.offer(1, queue, 8);
  machine.scheduler.run();
  expect(face.answered - before).toBe(8);
  expect(machine.reap(queue)).toHaveLength(8);
  machine.setStatus(0);
  queue.ring.close();
}

describe("a hostile driver of virtio over vbus", () => {
  it("is refused calls that do not exist, and data of a length that they do not have", () => {
    const lengths = [0, 1, 4, 7, 8, 9, 12, 15, 16, 17, 31, 32, 33, 64, 72, 263, 264, 265, 4096];
    const allowed: Record<number, (length: number) => boolean> = {
      0: (n) => n === 32,
      1: (n) => n >= 8 && n <= 64 && n % 8 === 0,
      2: (n) => n >= 8 && n <= 64 && n % 8 === 0,
      3: (n) => n === 0,
      4: (n) => n === 4,
      5: (n) => n >= 8 && n <= 264,
      6: (n) => n >= 9 && n <= 264,
      7: (n) => n === 16,
      8: (n) => n === 32,
      9: (n) => n === 4,
    };
    for (const func of [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 255, 0xffffffff]) {
      for (const length of lengths) {
        if (allowed[func]?.(length) === true) continue;
        const data = new Uint8Array(length).fill(0xa5);
        expect(machine.call(func, data), `call ${func} with ${length} bytes`).toBe(-EINVAL);
        expect(data.every((byte) => byte === 0xa5)).toBe(true);
      }
    }
    const { handle, client } = machine;
    expect(client.call(handle, QUERY, 0x10000, 0xffffffff, 0)).toBe(-EINVAL);
    expect(face.log).toEqual([]);
    expectAlive();
  });

  it("is refused data that lies outside of its memory, before anything is done", () => {
    machine.negotiate(VERSION_1);
    const { handle, client } = machine;
    const end = 0x10000 + (1 << 20);
    for (const [func, length] of [
      [QUERY, 32],
      [1, 16],
      [2, 8],
      [SET_STATUS, 4],
      [READ_CONFIG, 16],
      [6, 16],
      [7, 16],
      [ENABLE_QUEUE, 32],
      [RESET_QUEUE, 4],
    ] as const)
      for (const gpa of [0, 0xffff, end - 1, end, 2 ** 32 - 2, 2 ** 52, 2 ** 64])
        expect(client.call(handle, func, gpa, length, 0), `call ${func} at ${gpa}`).toBe(-EFAULT);
    expect(machine.status()).toBe(ACKNOWLEDGE | DRIVER | FEATURES_OK);
    expect(client.call(handle, GET_STATUS, 2 ** 52, 0, 0)).toBe(ACKNOWLEDGE | DRIVER | FEATURES_OK);
    expectAlive();
  });

  it.each([VERSION_1, VERSION_1 | RING_PACKED])(
    "is refused queues that are misaligned or outside of its memory, and may try again (features %s)",
    (features) => {
      negotiated(features);
      const queue = machine.makeQueue(16, features);
      const good = queue.areas;
      const packed = (features & RING_PACKED) !== 0n;
      const end = 0x10000 + (1 << 20);
      for (const [area, align] of [
        ["descriptors", 16],
        ["driver", packed ? 4 : 2],
        ["device", 4],
      ] as const) {
        for (let off = 1; off < align; off++)
          expect(machine.call(ENABLE_QUEUE, rings(0, 16, { ...good, [area]: good[area] + off }))).toBe(
            -EINVAL,
          );
        for (const gpa of [0n, 0x8000n, BigInt(end), 1n << 32n, 1n << 52n, (1n << 64n) - 16n, 1n << 63n])
          expect(
            machine.call(ENABLE_QUEUE, rings(0, 16, { ...good, [area]: gpa })),
            `${area} at ${gpa}`,
          ).toBe(-EFAULT);
        // it begins inside and ends outside
        const bytes =
          area === "descriptors" ? 256 : packed ? 4 : 2 + 2 + 16 * (area === "driver" ? 2 : 8) + 2;
        const last = end - Math.ceil(bytes / align) * align + align;
        expect(machine.call(ENABLE_QUEUE, rings(0, 16, { ...good, [area]: last }))).toBe(-EFAULT);
      }
      expect(machine.status() & NEEDS_RESET).toBe(0);
      expect(machine.enable(0, queue)).toBe(0);
      queue.ring.close();
      expectAlive();
    },
  );

  it("breaks its own queue with a broken ring, and no other", () => {
    negotiated(VERSION_1 | RING_RESET);
    const bad = machine.makeQueue(8, VERSION_1);
    const good = machine.makeQueue(8, VERSION_1);
    machine.enable(0, bad);
    machine.enable(1, good);
    machine.run();
    const { space } = machine.guest;
    space.engine.data.setUint16(space.translate(bad.areas.driver + 2, 2), 40_000, true);
    machine.kick(0);
    machine.scheduler.run();
    expect(face.queues.get(0)!.ring.broken).toBe("index");
    machine.errors.length = 0; // the device told of it
    machine.offer(1, good, 8);
    expect(machine.reap(good)).toHaveLength(8);
    bad.ring.close();
    good.ring.close();
    expectAlive();
  });

  it("writes any bytes into its signals and loses nobody's notifications but its own", () => {
    negotiated(VERSION_1);
    const queue = machine.makeQueue(8, VERSION_1);
    machine.enable(0, queue);
    machine.run();
    const { gpa, handle } = machine.signals.get(0)!;
    const random = generator(SEED);
    for (let round = 0; round < 300; round++) {
      const at = machine.guest.space.translate(gpa + (random() % 16), 1);
      machine.guest.space.bytes[at] = random() & 0xff;
      machine.client.signal(handle);
      machine.scheduler.run(10_000); // ends: a wakeup runs a bounded number of times
    }
    machine.events();
    queue.ring.close();
    machine.setStatus(0);
    expectAlive();
  });

  it("rings before its segment is there, for signals it does not have, and after the end", () => {
    for (const handle of [0, 1, 77, 0x7fffffff]) machine.client.signal(handle);
    negotiated(VERSION_1);
    for (const signal of machine.signals.values()) machine.client.signal(signal.handle);
    machine.run();
    for (const { id } of machine.signals.values()) machine.kick(id);
    machine.scheduler.run();
    expect(face.answered).toBe(0);
    expectAlive();
  });

  it(`makes any calls with anything in them, in any order: each is answered (seed ${SEED})`, () => {
    const random = generator(SEED);
    const pick = <T>(...values: T[]): T => values[random() % values.length] as T;
    const features = VERSION_1 | RING_RESET | EVENT_IDX;
    const queues = [machine.makeQueue(8, features), machine.makeQueue(8, features)];
    const lengths = [32, 8, 8, 0, 4, 32, 32, 16, 32, 4];
    for (let round = 0; round < 6000; round++) {
      switch (random() % 8) {
        case 0: {
          const data = Uint8Array.from({ length: pick(0, 4, 8, 16, 32, 64) }, () => random() & 0xff);
          machine.call(random() % 12, data);
          break;
        }
        case 1: {
          const func = random() % 10;
          const data = new Uint8Array(lengths[func] as number);
          for (let i = 0; i < data.length; i += 4) data[i] = pick(0, 1, 2, 4, 8, 15, 16);
          machine.call(func, data);
          break;
        }
        case 2:
          machine.negotiate(pick(features, VERSION_1, machine.offered(), random() % 2 === 0 ? 0n : features));
          break;
        case 3: {
          const id = pick(0, 1, CONFIG, 2);
          if (!machine.signals.has(id)) machine.share(id);
          break;
        }
        case 4: {
          const index = random() % 2;
          machine.enable(index, queues[index]!);
          break;
        }
        case 5:
          machine.run();
          break;
        case 6: {
          const index = random() % 2;
          if (machine.signals.has(index)) machine.kick(index);
          break;
        }
        default:
          if (random() % 4 === 0) machine.call(RESET_QUEUE, words(random() % 3));
          else if (random() % 8 === 0) {
            machine.close();
            expect(machine.open()).toBeGreaterThan(0);
          } else machine.scheduler.run(100_000);
      }
      if (round % 500 === 0) machine.events();
    }
    for (const { ring } of queues) ring.close();
    machine.close();
    machine.open();
    expectAlive();
  });

  it("has the device reset, a queue reset, the device closed in the midst of each of many bursts", () => {
    const features = VERSION_1 | RING_RESET;
    const acts = [
      () => machine.setStatus(0),
      () => machine.call(RESET_QUEUE, words(0)),
      () => {
        machine.close();
        machine.open();
      },
      () => machine.setStatus(0x80),
      () => {
        machine.setStatus(0);
        negotiated(features);
        machine.run();
      },
    ];
    for (let round = 0; round < 50; round++) {
      negotiated(features);
      const queue = machine.makeQueue(8, features);
      expect(machine.enable(0, queue), `round ${round}`).toBe(0);
      machine.run();
      let done = false;
      face.interlude = () => {
        if (done) return;
        done = true;
        acts[round % acts.length]!();
      };
      machine.offer(0, queue, 8);
      machine.scheduler.run();
      face.interlude = null;
      expect(done).toBe(true);
      expect(machine.reap(queue)).toEqual([]);
      queue.ring.close();
      queue.table.close();
      for (const gpa of [...Object.values(queue.areas), queue.buffers]) machine.guest.ram.free(gpa);
      machine.setStatus(0);
      machine.events();
    }
    expectAlive();
  });

  it("opens and closes the device over and over without taking any of the host's memory", () => {
    for (let round = 0; round < 200; round++) {
      negotiated(VERSION_1);
      const queue = machine.makeQueue(64, VERSION_1);
      machine.enable(0, queue);
      if (round % 2 === 0) machine.run();
      queue.ring.close();
      queue.table.close();
      for (const gpa of [...Object.values(queue.areas), queue.buffers]) machine.guest.ram.free(gpa);
      machine.close();
      machine.events();
      expect(machine.host.arena.available).toBe(machine.free);
      machine.open();
    }
    expectAlive();
  });

  it("that has used up the host's memory for it is told so, and harms no other", () => {
    negotiated(VERSION_1);
    const hog = ChainTable.allocate(machine.host, 1, 1);
    const blocks: number[] = [];
    for (let size = 1 << 16; size >= 64; size >>= 1)
      for (;;) {
        try {
          blocks.push(machine.host.arena.allocate(size, 16));
        } catch {
          break;
        }
      }
    const queue = machine.makeQueue(64, VERSION_1);
    expect(machine.enable(0, queue)).toBe(-12);
    for (const block of blocks) machine.host.arena.free(block);
    hog.close();
    expect(machine.enable(0, queue)).toBe(0);
    expect(machine.run() & (DRIVER_OK | NEEDS_RESET)).toBe(DRIVER_OK);
    queue.ring.close();
    expectAlive();
  });
});
