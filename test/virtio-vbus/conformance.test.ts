import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { FEATURE_A, FEATURE_B, Recorder, RECORDER_TYPE } from "../virtio/recorder.js";
import {
  ACKNOWLEDGE,
  CONFIG,
  config,
  DRIVER,
  DRIVER_OK,
  EBUSY,
  EEXIST,
  EINVAL,
  ENOENT,
  ENXIO,
  EOPNOTSUPP,
  EVENT_IDX,
  FAILED,
  FEATURES_OK,
  GET_FEATURES,
  GET_QUEUE,
  NEEDS_RESET,
  QUERY,
  READ_CONFIG,
  RESET_QUEUE,
  RING_PACKED,
  RING_RESET,
  SET_FEATURES,
  VERSION_1,
  WireMachine,
  words,
  WRITE_CONFIG,
} from "./machine.js";

let face: Recorder;
let machine: WireMachine;

beforeEach(async () => {
  face = new Recorder();
  machine = await WireMachine.create(face);
  expect(machine.open()).toBeGreaterThan(0);
  machine.events();
});

afterEach(() => {
  machine.close();
  expect(machine.host.arena.available, "the session's memory was given back").toBe(machine.free);
  machine.vbus.close();
});

/** Ready to take queues. */
function negotiated(features = machine.offered()): void {
  expect(machine.negotiate(features)).toBe(ACKNOWLEDGE | DRIVER | FEATURES_OK);
  for (const id of [CONFIG, 0, 1])
    if (!machine.signals.has(id)) expect(machine.share(id)).toBeGreaterThanOrEqual(0);
}

describe("a virtio device on the bus", () => {
  it("says what it is, in all 32 bytes", () => {
    const block = new Uint8Array(32).fill(0xa5);
    expect(machine.call(QUERY, block)).toBe(0);
    expect(block).toEqual(words(RECORDER_TYPE, 0x76627573, 2, 24, 0, 0, 0, 0));
  });

  it("is of type virtio, has one guest at a time and one version", async () => {
    expect(machine.bus.read("instances/bus0/devices/0/type")).toBe("virtio");
    expect(machine.open()).toBe(-EBUSY);
    machine.close();
    expect(machine.client.open(0, 2)).toBe(-EINVAL);
    expect(machine.open()).toBeGreaterThan(0);
  });

  it("offers its features in as many words as are asked for", () => {
    const wide = new Uint8Array(64).fill(0xff);
    expect(machine.call(GET_FEATURES, wide)).toBe(0);
    const view = new DataView(wide.buffer);
    const offered = view.getBigUint64(0, true);
    expect(offered & (FEATURE_A | FEATURE_B | VERSION_1 | RING_RESET)).toBe(
      FEATURE_A | FEATURE_B | VERSION_1 | RING_RESET,
    );
    for (const never of [33n, 37n, 38n, 39n]) expect((offered >> never) & 1n, `bit ${never}`).toBe(0n);
    for (let at = 8; at < 64; at += 8) expect(view.getBigUint64(at, true)).toBe(0n);
    const narrow = new Uint8Array(8);
    expect(machine.call(GET_FEATURES, narrow)).toBe(0);
    expect(narrow).toEqual(wide.slice(0, 8));
  });

  it("agrees to features whose dependencies are met, to no others, and lets the driver try again", () => {
    expect(machine.negotiate(FEATURE_B | VERSION_1) & FEATURES_OK).toBe(0);
    expect(machine.setFeatures(FEATURE_A)).toBe(0); // VERSION_1 is missing
    expect(machine.setStatus(ACKNOWLEDGE | DRIVER | FEATURES_OK) & FEATURES_OK).toBe(0);
    const wide = new Uint8Array(64);
    wide.set([1], 63); // bit 504
    wide.set([1], 4);
    expect(machine.call(SET_FEATURES, wide)).toBe(0);
    expect(machine.setStatus(ACKNOWLEDGE | DRIVER | FEATURES_OK) & FEATURES_OK).toBe(0);
    expect(machine.setFeatures(FEATURE_A | FEATURE_B | VERSION_1)).toBe(0);
    expect(machine.setStatus(ACKNOWLEDGE | DRIVER | FEATURES_OK)).toBe(ACKNOWLEDGE | DRIVER | FEATURES_OK);
    expect(machine.setFeatures(VERSION_1)).toBe(-EBUSY);
    expect(machine.attribute("virtio_features")).toBe("0x100000021");
  });

  it("shows any piece of its configuration, from one state, with the number of that state", () => {
    const whole = config(0, 24);
    expect(machine.call(READ_CONFIG, whole)).toBe(0);
    expect([...whole.subarray(8)]).toEqual([...face.settings.subarray(0, 23), 0]);
    const piece = config(5, 3);
    expect(machine.call(READ_CONFIG, piece)).toBe(0);
    expect([...piece.subarray(8)]).toEqual([0x45, 0x46, 0x47]);
    const generation = (block: Uint8Array): number => new DataView(block.buffer).getUint32(4, true);
    expect(generation(piece)).toBe(generation(whole));
    face.settings[3] = 0;
    const none = config(24, 0);
    expect(machine.call(READ_CONFIG, none)).toBe(0);
    expect(generation(none)).not.toBe(generation(whole));
    for (const [offset, length] of [
      [0, 25],
      [24, 1],
      [25, 0],
      [0xffffffff, 1],
      [0xfffffff0, 24],
    ] as const)
      expect(machine.call(READ_CONFIG, config(offset, length)), `${length} at ${offset}`).toBe(-EINVAL);
  });

  it("hands written configuration to the device as it came", () => {
    expect(machine.call(WRITE_CONFIG, config(3, 5, 1, 2, 3, 4, 5))).toBe(0);
    expect(machine.call(WRITE_CONFIG, config(22, 3, 1, 2, 3))).toBe(-EINVAL);
    expect(machine.call(WRITE_CONFIG, config(0, 0))).toBe(-EINVAL);
    expect(face.written).toEqual([[3, [1, 2, 3, 4, 5]]]);
  });

  it("tells of each queue what it can be and what it is", () => {
    const block = words(1, 9, 9, 9);
    expect(machine.call(GET_QUEUE, block)).toBe(0);
    expect(block).toEqual(words(1, 16, 0, 0));
    negotiated();
    const queue = machine.makeQueue(8, machine.offered());
    expect(machine.enable(1, queue)).toBe(0);
    machine.call(GET_QUEUE, block);
    expect(block).toEqual(words(1, 16, 8, 1));
    expect(machine.call(GET_QUEUE, words(2, 0, 0, 0))).toBe(-EINVAL);
    queue.ring.close();
  });

  it("takes one segment for each queue and one for the configuration, each with a signal, once", () => {
    expect(machine.client.shm(machine.handle, 0, 0x20000, 16, null, 0)).toBe(-EINVAL);
    for (const id of [0, 1, CONFIG]) expect(machine.share(id)).toBeGreaterThanOrEqual(0);
    for (const id of [0, 1, CONFIG]) expect(machine.share(id)).toBe(-EEXIST);
    for (const id of [2, 0xffff, CONFIG + 1, 0xffffffff]) expect(machine.share(id)).toBe(-EINVAL);
    expect(machine.events()).toEqual([]); // nothing is sent for what was refused
  });
});

describe.each([
  { format: "split", features: VERSION_1 | RING_RESET },
  { format: "split with event index", features: VERSION_1 | RING_RESET | EVENT_IDX },
  { format: "packed", features: VERSION_1 | RING_RESET | RING_PACKED },
  { format: "packed with event index", features: VERSION_1 | RING_RESET | RING_PACKED | EVENT_IDX },
])("queues ($format)", ({ features }) => {
  it("carry buffers both ways, with one kick and one interrupt", () => {
    negotiated(features);
    const queue = machine.makeQueue(16, features);
    expect(machine.enable(0, queue)).toBe(0);
    expect(machine.run() & DRIVER_OK).toBe(DRIVER_OK);
    expect(face.log).toEqual(["start +-"]);
    machine.scheduler.run();
    queue.ring.enable();
    expect(machine.offer(0, queue, 10)).toBe(true);
    expect(face.answered).toBe(10);
    expect(machine.events()).toEqual([0]);
    expect(machine.settle(0)).toBe(true);
    expect(machine.reap(queue)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    expect(machine.guest.space.copyFrom(queue.buffers, 640).every((byte) => byte === 0xa5)).toBe(true);
    queue.ring.close();
  });

  it("interrupt no driver that asked not to be, and touch nothing of the signal then", () => {
    negotiated(features);
    const queue = machine.makeQueue(16, features);
    machine.enable(0, queue);
    machine.run();
    queue.ring.disable();
    machine.offer(0, queue, 1); // with an event index, a ring that was never used asks for its first
    machine.reap(queue);
    machine.events();
    machine.settle(0);
    machine.offer(0, queue, 4);
    expect(face.answered).toBe(5);
    expect(machine.events()).toEqual([]);
    expect(machine.settle(0)).toBe(false);
    expect(queue.ring.enable()).toBe(true); // so it looks again, and finds them
    queue.ring.close();
  });

  it("coalesce interrupts until the guest has been there, and lose none", () => {
    negotiated(features);
    const queue = machine.makeQueue(16, features);
    machine.enable(0, queue);
    machine.run();
    queue.ring.enable();
    machine.offer(0, queue, 1);
    expect(machine.events()).toEqual([0]);
    // the wake-up is under way: it has cleared dirty and looked, when the device has more
    const { north } = machine.signals.get(0)!;
    expect(north.wakeupBegin(16)).toBe(1);
    expect(machine.reap(queue)).toEqual([0]);
    queue.ring.enable();
    machine.offer(0, queue, 2);
    expect(machine.events()).toEqual([]); // pending: not another event
    expect(north.wakeupNext()).toBe(1); // dirty: the handler runs again
    expect(machine.reap(queue)).toEqual([0, 1]);
    expect(north.wakeupNext()).toBe(0);
    queue.ring.enable();
    machine.offer(0, queue, 1);
    expect(machine.events()).toEqual([0]);
    queue.ring.close();
  });

  it("can be reset one by one: not touched afterwards, and new with another size", () => {
    negotiated(features);
    const queue = machine.makeQueue(16, features);
    machine.enable(0, queue);
    machine.run();
    expect(machine.enable(0, queue)).toBe(-EEXIST);
    expect(machine.call(RESET_QUEUE, words(0))).toBe(0);
    expect(machine.call(RESET_QUEUE, words(0))).toBe(0); // twice is harmless
    expect(machine.call(RESET_QUEUE, words(2))).toBe(-EINVAL);
    machine.offer(0, queue, 3);
    machine.scheduler.run();
    expect(face.answered).toBe(0);
    expect(machine.reap(queue)).toEqual([]);
    queue.ring.close();
    expect(machine.events()).toEqual([]);
    const again = machine.makeQueue(8, features);
    expect(machine.enable(0, again)).toBe(0);
    machine.scheduler.run(); // the kick from before: there is nothing for it
    again.ring.enable();
    expect(machine.offer(0, again, 8)).toBe(true);
    expect(machine.reap(again)).toHaveLength(8);
    expect(face.log.filter((line) => !line.startsWith("kick"))).toEqual([
      "start +-",
      "queue 0 stopped",
      "queue 0 started",
    ]);
    again.ring.close();
  });

  it("take kicks that came before they were enabled", () => {
    negotiated(features);
    const queue = machine.makeQueue(16, features);
    expect(machine.kick(0)).toBe(false); // south is masked: dirty is all that is left
    machine.enable(0, queue);
    machine.run();
    machine.scheduler.run();
    expect(face.log).toContain("kick 0");
    queue.ring.close();
  });
});

describe("a reset", () => {
  it("brings everything back to where it was, but for the segments", () => {
    negotiated();
    const queue = machine.makeQueue(16, machine.offered());
    machine.enable(0, queue);
    machine.run();
    expect(machine.setStatus(0)).toBe(0);
    expect(face.log).toEqual(["start +-", "stop"]);
    const block = words(0, 0, 0, 0);
    machine.call(GET_QUEUE, block);
    expect(block).toEqual(words(0, 64, 0, 0));
    expect(machine.share(0)).toBe(-EEXIST);
    queue.ring.close();
    negotiated(VERSION_1);
    const again = machine.makeQueue(4, VERSION_1);
    expect(machine.enable(0, again)).toBe(0);
    machine.run();
    again.ring.enable();
    machine.offer(0, again, 4);
    expect(machine.reap(again)).toHaveLength(4);
    again.ring.close();
  });

  it("from within a burst of the device ends it there", () => {
    negotiated(VERSION_1);
    const queue = machine.makeQueue(16, VERSION_1);
    machine.enable(0, queue);
    machine.run();
    queue.ring.enable();
    face.interlude = () => {
      face.interlude = null;
      expect(machine.setStatus(0)).toBe(0);
    };
    machine.offer(0, queue, 8);
    expect(face.answered).toBe(0);
    expect(machine.reap(queue)).toEqual([]);
    expect(machine.events()).toEqual([]);
    queue.ring.close();
  });

  it("is what closing the device does, too, from within a burst as well", () => {
    negotiated(VERSION_1);
    const queue = machine.makeQueue(16, VERSION_1);
    machine.enable(0, queue);
    machine.run();
    face.interlude = () => {
      face.interlude = null;
      machine.close();
    };
    const { handle, north } = machine.signals.get(0)!;
    machine.offer(0, queue, 8);
    expect(face.log.at(-1)).toBe("stop");
    expect(machine.client.signal(handle)).toBe(-ENOENT);
    expect(north).toBeDefined();
    expect(machine.events().sort()).toEqual(["shmclose 0", "shmclose 1", `shmclose ${CONFIG}`]);
    expect(machine.call(QUERY, new Uint8Array(32))).toBe(-ENOENT);
    queue.ring.close();
    expect(machine.open()).toBeGreaterThan(0);
    expect(machine.status()).toBe(0);
  });
});

describe("the order of things", () => {
  it("refuses a queue before FEATURES_OK, without a signal, twice, too large, or after FAILED, and none of that is the end", () => {
    const split = { descriptors: 0x20000, driver: 0x21000, device: 0x22000 };
    const enable = (index: number, size: number): number =>
      machine.enable(index, { ring: { size }, areas: split } as never);
    expect(enable(0, 16)).toBe(-ENXIO);
    machine.share(0);
    expect(enable(0, 16)).toBe(-EINVAL);
    machine.negotiate(VERSION_1);
    expect(enable(1, 16)).toBe(-ENXIO);
    expect(enable(2, 16)).toBe(-EINVAL);
    for (const size of [0, 3, 65, 128, 65536, 0xffffffff])
      expect(enable(0, size), `size ${size}`).toBe(-EINVAL);
    expect(enable(0, 16)).toBe(0);
    expect(enable(0, 16)).toBe(-EEXIST);
    expect(machine.call(RESET_QUEUE, words(0))).toBe(-EOPNOTSUPP);
    expect(machine.status()).toBe(ACKNOWLEDGE | DRIVER | FEATURES_OK);
    expect(machine.setStatus(FAILED)).toBe(ACKNOWLEDGE | DRIVER | FEATURES_OK | FAILED);
    machine.share(1);
    expect(enable(1, 16)).toBe(-EINVAL);
    expect(machine.setStatus(0)).toBe(0);
    expect(machine.errors).toEqual([]);
  });

  it("wants a reset after DRIVER_OK without FEATURES_OK, and says so", () => {
    machine.share(CONFIG);
    expect(machine.setStatus(ACKNOWLEDGE | DRIVER | DRIVER_OK) & NEEDS_RESET).toBe(NEEDS_RESET);
    expect(machine.events()).toEqual([CONFIG]);
    expect(face.log).toEqual([]);
    expect(machine.errors).toHaveLength(1);
  });

  it("does not clear bits of the status one by one", () => {
    machine.negotiate(VERSION_1);
    expect(machine.setStatus(DRIVER)).toBe(ACKNOWLEDGE | DRIVER | FEATURES_OK);
  });

  it("tells of changes of the configuration while a driver is there", () => {
    negotiated(VERSION_1);
    machine.run();
    face.context!.configChanged();
    expect(machine.events()).toEqual([CONFIG]);
    face.context!.configChanged();
    expect(machine.events()).toEqual([]); // the guest has not been there yet
    expect(machine.settle(CONFIG)).toBe(true);
    face.context!.needsReset(new Error("the back end is gone"));
    expect(machine.events()).toEqual([CONFIG]);
    expect(machine.status() & NEEDS_RESET).toBe(NEEDS_RESET);
    expect(machine.errors).toHaveLength(1);
  });

  it("runs on when the device is unplugged, until it is closed", () => {
    negotiated(VERSION_1);
    const queue = machine.makeQueue(16, VERSION_1);
    machine.enable(0, queue);
    machine.run();
    queue.ring.enable();
    machine.bus.disconnect(machine.vbus.device("device0")!);
    expect(machine.events()).toEqual(["devdrop 0"]);
    machine.offer(0, queue, 4);
    expect(machine.reap(queue)).toHaveLength(4);
    machine.close();
    expect(face.log.at(-1)).toBe("stop");
    expect(machine.open()).toBe(-ENOENT);
    queue.ring.close();
  });
});
