import { DriverVirtQueue, type VirtQueueFormat } from "vbus/engine";
import { beforeAll, describe, expect, it } from "vitest";
import { trace, useTracedEngine, type Access } from "./traced-engine.js";
import { VirtQueuePair } from "./virtqueue-pair.js";

const SIZE = 4;

beforeAll(useTracedEngine);

/** A queue whose accesses are written down. */
class Traced {
  readonly pair: VirtQueuePair;
  readonly #places = new Map<number, string>();

  constructor(format: VirtQueueFormat, eventIndex: boolean) {
    this.pair = new VirtQueuePair({ format, size: SIZE, eventIndex, shared: true });
    const { descriptors, driver, device } = this.pair.options;
    const name = (gpa: number, what: string): void => void this.#places.set(gpa - descriptors, what);
    if (format === "split") {
      name(driver, "avail.flags");
      name(driver + 2, "avail.idx");
      name(driver + 4 + 2 * SIZE, "used_event");
      name(device, "used.flags");
      name(device + 2, "used.idx");
      name(device + 4 + 8 * SIZE, "avail_event");
    } else {
      for (let i = 0; i < SIZE; i++) name(descriptors + 16 * i + 14, `ring[${i}].flags`);
      name(driver, "driver's event");
      name(device, "device's event");
    }
  }

  trace(work: () => unknown): Access[] {
    const { options, guest, buffers } = this.pair;
    const address = guest.north.translate(options.descriptors, 16);
    return trace(guest.init.memory, address, buffers - options.descriptors, work);
  }

  text({ store, offset, value }: Access): string {
    return `${store ? "store" : "load"} ${this.#places.get(offset) ?? offset} ${value.toString(16)}`;
  }

  add(n: number): Access[] {
    const { pair } = this;
    return this.trace(() =>
      pair.add(
        Array.from({ length: n }, (_, i) => ({
          cookie: i,
          readable: [{ gpa: pair.buffers + i, length: 100 + i }],
        })),
      ),
    );
  }

  use(n: number): Access[] {
    const { device, chains } = this.pair;
    device.peek(chains, n);
    return this.trace(() => device.release(chains, n));
  }
}

/** Bytes behind a place as they were when it was stored, and as they are. */
function at({ before }: Access, offset: number, length: number): number[] {
  return [...before.subarray(offset, offset + length)];
}

describe("the engine makes the steps that the model of virtqueues proves, in their order", () => {
  it("split: publishes a burst by one store of the index, then looks at the event index or the flags", () => {
    for (const eventIndex of [true, false]) {
      const queue = new Traced("split", eventIndex);
      const { options } = queue.pair;
      const wish = eventIndex ? "load avail_event 0" : "load used.flags 0";
      const added = queue.add(3);
      expect(added.map((each) => queue.text(each))).toEqual(["store avail.idx 3", wish]);
      // by then entries and descriptors are there
      const [published] = added as [Access];
      expect(at(published, options.driver + 4 - options.descriptors, 6)).toEqual([0, 0, 1, 0, 2, 0]);
      expect([0, 1, 2].map((i) => published.before[16 * i + 8])).toEqual([100, 101, 102]);

      const used = queue.use(2);
      expect(used.map((each) => queue.text(each))).toEqual([
        "store used.idx 2",
        eventIndex ? "load used_event 0" : "load avail.flags 0",
      ]);
      expect(at(used[0] as Access, options.device + 4 - options.descriptors, 16)).toEqual([
        ...[0, 0, 0, 0, 0, 0, 0, 0],
        ...[1, 0, 0, 0, 0, 0, 0, 0],
      ]);
    }
  });

  it("packed: publishes a burst by the flags of its first descriptor, then looks at the event area", () => {
    const queue = new Traced("packed", true);
    const added = queue.add(3);
    expect(added.map((each) => queue.text(each))).toEqual([
      "store ring[0].flags 80",
      "load device's event 0",
    ]);
    const [published] = added as [Access];
    expect([0, 1, 2].map((i) => published.before[16 * i + 14])).toEqual([0, 0x80, 0x80]);
    expect([0, 1, 2].map((i) => published.before[16 * i + 8])).toEqual([100, 101, 102]);

    const used = queue.use(2);
    expect(used.map((each) => queue.text(each))).toEqual([
      "store ring[0].flags 8080",
      "load driver's event 0",
    ]);
    // the first one still says what it said: available
    expect(at(used[0] as Access, 14, 2)).toEqual([0x80, 0]);
    expect(at(used[0] as Access, 30, 2)).toEqual([0x80, 0x80]);
  });

  it("arms, then looks at the index or at the descriptor", () => {
    for (const [format, eventIndex, device, driver] of [
      ["split", true, ["store avail_event 0", "load avail.idx 0"], ["store used_event 0", "load used.idx 0"]],
      [
        "split",
        false,
        ["store used.flags 0", "load avail.idx 0"],
        ["store avail.flags 0", "load used.idx 0"],
      ],
      [
        "packed",
        true,
        ["store device's event 28000", "load ring[0].flags 0"],
        ["store driver's event 28000", "load ring[0].flags 0"],
      ],
      [
        "packed",
        false,
        ["store device's event 0", "load ring[0].flags 0"],
        ["store driver's event 0", "load ring[0].flags 0"],
      ],
    ] as const) {
      const queue = new Traced(format, eventIndex);
      const shown = (side: { enable(): boolean }): string[] =>
        queue.trace(() => side.enable()).map((each) => queue.text(each));
      expect(shown(queue.pair.device)).toEqual(device);
      expect(shown(queue.pair.driver)).toEqual(driver);
    }
  });

  it("looks at the peer's index once for as much as is known of it, at a descriptor's flags before its body", () => {
    const split = new Traced("split", true);
    split.add(3);
    const { device, chains, driver, back } = split.pair;
    expect(split.trace(() => device.peek(chains, 2)).map((each) => split.text(each))).toEqual([
      "load avail.idx 3",
    ]);
    device.advance(1);
    expect(split.trace(() => device.peek(chains, 2))).toEqual([]);
    expect(split.trace(() => driver.reap(back, 2)).map((each) => split.text(each))).toEqual([
      "load used.idx 0",
    ]);

    const packed = new Traced("packed", true);
    packed.add(2);
    expect(
      packed.trace(() => packed.pair.device.peek(packed.pair.chains, 4)).map((each) => packed.text(each)),
    ).toEqual(["load ring[0].flags 80", "load ring[1].flags 80", "load ring[2].flags 0"]);
    packed.use(1);
    expect(
      packed.trace(() => packed.pair.driver.reap(packed.pair.back, 4)).map((each) => packed.text(each)),
    ).toEqual(["load ring[0].flags 8080", "load ring[1].flags 80"]);
    expect(DriverVirtQueue.areaSizes("packed", SIZE).device.size).toBe(4);
  });
});
