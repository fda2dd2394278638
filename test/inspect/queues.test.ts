/** What is shown of a queue is what its two sides made of it, whatever the layout; and whatever a guest wrote, it is shown. */
import { EXT_COMPACT, EXT_LAZY_INDEXES } from "vbus/abi";
import {
  BURST_LENGTH,
  BURST_CLEAR_VALID,
  BURST_NOFLIP,
  BURST_SET_VALID,
  BURST_SIGNAL,
  BurstTable,
  type DeviceVirtQueue,
  DriverVirtQueue,
  Queue,
  queueSegmentLength,
  Signal,
  VbusError,
} from "vbus/engine";
import {
  inspectQueue,
  ringPicture,
  type IoqSnapshot,
  type QueueSnapshot,
  type VirtqueueSnapshot,
} from "vbus/inspect";
import { describe, expect, it } from "vitest";
import { openGuest } from "../engine/guest.js";
import { generator, seedOr } from "../engine/seed.js";
import { VirtQueuePair } from "../engine/virtqueue-pair.js";

const SEED = seedOr(20261126);

const ioq = (queue: Queue, name = "ring"): IoqSnapshot => inspectQueue({ name, queue }) as IoqSnapshot;
const virtqueue = (queue: DriverVirtQueue | DeviceVirtQueue): VirtqueueSnapshot =>
  inspectQueue({ name: "0", queue }) as VirtqueueSnapshot;
const json = <T>(value: T): T => JSON.parse(JSON.stringify(value)) as T;

describe.each([
  { layout: "lp64", ilp32: false, offer: 0, extensions: [] },
  { layout: "ilp32", ilp32: true, offer: 0, extensions: [] },
  { layout: "lp64", ilp32: false, offer: EXT_LAZY_INDEXES, extensions: ["lazy-indexes"] },
  { layout: "compact", ilp32: false, offer: EXT_COMPACT, extensions: ["compact"] },
  {
    layout: "compact",
    ilp32: false,
    offer: EXT_COMPACT | EXT_LAZY_INDEXES,
    extensions: ["lazy-indexes", "compact"],
  },
])("an IOQ in layout $layout with extensions $extensions", ({ layout, ilp32, offer, extensions }) => {
  function open(count = 8): { north: Queue; south: Queue; gpa: number } {
    const guest = openGuest();
    const { gpa } = guest;
    const north = Queue.create(guest.north, { gpa, count, role: "northTransmit", ilp32, offer });
    const length = queueSegmentLength(count, ilp32);
    const south = Queue.attach(guest.south, { gpa, length, role: "southTransmit", accept: offer });
    north.negotiated();
    return { north, south, gpa };
  }

  it("is shown fresh: all of it north's, nothing valid, both sides masked", () => {
    const { north, south, gpa } = open();
    expect(ioq(south, "tx")).toMatchObject({
      kind: "ioq",
      name: "tx",
      side: "south",
      gpa,
      count: 8,
      layout,
      extensions,
      broken: null,
      moves: ["inuse.head"],
      owners: { north: 8, south: 0, other: 0 },
      valid: 0,
      map: "nnnnnnnn",
      granted: { push: 0, pop: 0 },
      signal: { north: { enabled: 0, pending: 0 }, south: { enabled: 0, pending: 0 } },
    });
    expect(ioq(north)).toMatchObject({ side: "north", moves: ["valid.head", "valid.tail", "inuse.tail"] });
  });

  it("is shown with what north pushed, and what south took and gave back", () => {
    const { north, south } = open();
    const table = BurstTable.allocate(north.space, 8);
    expect(north.reserve("both", table, 5)).toBe(5);
    expect(ioq(north).granted).toEqual({ push: 5, pop: 0 });
    for (let i = 0; i < 5; i++) table.setLength(i, 60);
    south.enable(0);
    expect(north.commit("both", table, 5, BURST_LENGTH | BURST_SET_VALID | BURST_SIGNAL)).toBe(true);

    expect(ioq(south)).toMatchObject({
      owners: { north: 3, south: 5, other: 0 },
      valid: 5,
      map: "SSSSSnnn",
      signal: { south: { enabled: 1, pending: 1, dirty: 1 } },
      indexes: { inuse: { head: 0, tail: null }, valid: { head: null, tail: null } },
    });
    expect(ioq(north)).toMatchObject({
      indexes: { valid: { head: 0, tail: 5 }, inuse: { head: null, tail: 5 } },
      counters: { pushed: 5, bytes: 300, sent: 1 },
    });

    expect(south.peek("inuse", null, 2)).toBe(2);
    expect(ioq(south).granted).toEqual({ push: 0, pop: 2 });
    south.release("inuse", null, 2, BURST_SIGNAL);
    expect(ioq(south)).toMatchObject({
      owners: { north: 5, south: 3, other: 0 },
      map: "NNSSSnnn",
      indexes: { inuse: { head: 2 } },
    });
    expect(north.peek("valid", null, 1)).toBe(1);
    north.release("valid", null, 1, BURST_NOFLIP | BURST_CLEAR_VALID);
    expect(ioq(north).map).toBe("nNSSSnnn");
    if ((offer & EXT_LAZY_INDEXES) === 0)
      expect(ioq(north).shared).toEqual({
        valid: { head: 1, tail: 5, full: 0 },
        inuse: { head: 2, tail: 5, full: 0 },
      });
  });

  it("is drawn with its marks, and the picture tells what is whose", () => {
    const { north, south } = open();
    const table = BurstTable.allocate(north.space, 8);
    north.reserve("both", table, 5);
    north.commit("both", table, 5, BURST_SET_VALID | BURST_SIGNAL);
    south.peek("inuse", null, 2);
    south.release("inuse", null, 2, BURST_SIGNAL);
    const picture = ringPicture(ioq(north, "tx")).split("\n");
    expect(picture[0]).toMatch(/^tx {2}ioq {2}north {2}8 descriptors/);
    expect(picture[1]).toBe("     0 NNSSSnnn");
    expect(picture[2]?.charAt(7)).toBe((offer & EXT_LAZY_INDEXES) === 0 ? "V" : "*"); // south's lazy head reads 0 as well
    expect(picture[2]?.charAt(12)).toBe("*"); // both tails
    expect(picture.join("\n")).toContain("north 5, south 3");
  });
});

it("a ring that is broken says so, and why", () => {
  const guest = openGuest();
  const { gpa } = guest;
  const north = Queue.create(guest.north, { gpa, count: 4, role: "northTransmit" });
  const south = Queue.attach(guest.south, { gpa, length: queueSegmentLength(4), role: "southTransmit" });
  north.reserve("both", null, 4);
  north.commit("both", null, 4, BURST_SIGNAL);
  guest.view(gpa, 200).setUint8(56 + 25, 77);
  expect(() => south.peek("inuse", null, 4)).toThrow(VbusError);
  const snapshot = ioq(south);
  expect(snapshot).toMatchObject({
    broken: "owner",
    map: "?sss",
    owners: { other: 1, south: 3 },
  });
  expect(ringPicture(snapshot)).toMatch(/BROKEN: owner[^]*NEITHER 1/);
});

it("a ring whose memory went away is shown by what its side knows", () => {
  const guest = openGuest();
  const { gpa } = guest;
  Queue.create(guest.north, { gpa, count: 4, role: "northTransmit" });
  const south = Queue.attach(guest.south, { gpa, length: queueSegmentLength(4), role: "southTransmit" });
  const [region] = guest.south.regions;
  guest.south.moveRegions([{ gpa: gpa + (1 << 24), length: region!.length, address: region!.address }]);
  const snapshot = ioq(south);
  expect(snapshot).toMatchObject({
    count: 4,
    owners: null,
    valid: null,
    shared: null,
    signal: null,
    map: null,
  });
  expect(ringPicture(snapshot)).toContain("not in the guest's memory");
});

it("a queue that was closed is not shown", () => {
  const guest = openGuest();
  const queue = Queue.create(guest.north, { gpa: guest.gpa, count: 4, role: "northTransmit" });
  queue.close();
  expect(inspectQueue({ name: "x", queue })).toBeNull();
});

it("a ring of more descriptors than anybody draws is shown by its header", () => {
  const guest = openGuest({ size: 4 << 20 });
  const queue = Queue.create(guest.north, { gpa: guest.gpa, count: 70_000, role: "northTransmit" });
  expect(ioq(queue)).toMatchObject({
    count: 70_000,
    owners: null,
    map: null,
    shared: { valid: { head: 0 } },
  });
});

it("maps are left out on request", () => {
  const guest = openGuest();
  const queue = Queue.create(guest.north, { gpa: guest.gpa, count: 4, role: "northTransmit" });
  expect(inspectQueue({ name: "x", queue }, { maps: false })).toMatchObject({
    map: null,
    owners: { north: 4 },
  });
});

const count = (map: string | null, mark: string): number => map?.split(mark).length ?? NaN;

describe.each([
  { format: "split", eventIndex: false, inOrder: false, indirect: 0 },
  { format: "split", eventIndex: true, inOrder: false, indirect: 4 },
  { format: "split", eventIndex: true, inOrder: true, indirect: 0 },
  { format: "packed", eventIndex: false, inOrder: false, indirect: 0 },
  { format: "packed", eventIndex: true, inOrder: false, indirect: 4 },
  { format: "packed", eventIndex: true, inOrder: true, indirect: 0 },
] as const)(
  "a virtqueue, $format, event index $eventIndex, in order $inOrder, indirect $indirect",
  (options) => {
    it(`shows what waits, what is in flight, and what was used, lap after lap (seed ${SEED})`, () => {
      const random = generator(SEED);
      const pair = new VirtQueuePair({ ...options, size: 8 });
      const { driver, device, chains, buffers } = pair;
      let waiting = 0; // made available, not taken
      let used = 0; // completed, not reaped
      const taken: { id: number; slots: number }[] = [];
      for (let step = 0; step < 300; step++) {
        const out = waiting + used + taken.length;
        const pieces = options.indirect > 0 ? 1 + (random() % 3) : 1;
        switch (random() % 4) {
          case 0:
            if (out < 8) {
              pair.add([
                {
                  cookie: step,
                  readable: [],
                  writable: Array.from({ length: pieces }, (_, i) => ({ gpa: buffers + i * 64, length: 64 })),
                },
              ]);
              waiting++;
            }
            break;
          case 1: {
            const n = Math.min(waiting, 1 + (random() % 3));
            if (n > 0) {
              expect(device.peek(chains, n)).toBe(n);
              for (let i = 0; i < n; i++) taken.push({ id: chains.id(i), slots: chains.slots(i) });
              device.advance(n);
              waiting -= n;
            }
            break;
          }
          case 2:
            if (taken.length > 0) {
              const at = options.inOrder ? 0 : random() % taken.length;
              const { id, slots } = taken.splice(at, 1)[0]!;
              device.completeOne(id, slots, 1);
              used++;
            }
            break;
          default:
            used -= pair.reap().length;
        }
        const south = virtqueue(device);
        expect(south, `step ${step}`).toMatchObject({
          kind: "virtqueue",
          side: "device",
          format: options.format,
          size: 8,
          broken: null,
          inFlight: taken.length,
          waiting,
        });
        expect(south.map).toHaveLength(8);
        expect(count(south.map, "a") - 1, `step ${step}: ${south.map}`).toBe(waiting);
        expect(count(south.map, "t") - 1, `step ${step}: ${south.map}`).toBe(taken.length);
        const north = virtqueue(driver);
        expect(north.inFlight).toBe(waiting + used + taken.length);
        if (options.format === "split") expect(north.waiting, `step ${step}`).toBe(used);
        else expect(north.waiting).toBeNull();
        expect(8 - (count(north.map, ".") - 1)).toBe(waiting + used + taken.length);
        expect(json(south)).toEqual(south);
        expect(ringPicture(south)).toContain(`waiting ${waiting}`);
      }
      expect(virtqueue(device).counters.chains).toBeGreaterThan(25);
      pair.close();
      expect(inspectQueue({ name: "0", queue: device })).toBeNull();
    });

    it("says what was negotiated, where it lies, and what its sides want to be told", () => {
      const pair = new VirtQueuePair({ ...options, size: 16 });
      const { features, areas, rings, events } = virtqueue(pair.device);
      expect(features).toEqual([
        ...(options.eventIndex ? ["event-index"] : []),
        ...(options.indirect > 0 ? ["indirect"] : []),
        ...(options.inOrder ? ["in-order"] : []),
      ]);
      const { descriptors, driver, device } = pair.options;
      expect(areas).toEqual({ descriptors, driver, device });
      if (options.format === "split") {
        pair.device.disable();
        expect(events).toBeNull();
        if (!options.eventIndex) expect(virtqueue(pair.device).rings).toMatchObject({ usedFlags: 1 });
      } else {
        expect(rings).toBeNull();
        pair.device.disable();
        expect(virtqueue(pair.device).events).toMatchObject({ device: { flags: 1 } });
      }
    });
  },
);

it("a virtqueue on the bus comes with its signal", () => {
  const guest = openGuest();
  const pair = new VirtQueuePair({ format: "split", size: 4 }, guest);
  const gpa = guest.gpa + 512;
  Signal.create(guest.north, gpa).enable();
  const signal = Signal.attach(guest.south, gpa);
  signal.inject();
  const snapshot = inspectQueue({ name: "0", queue: pair.device, signal });
  expect(snapshot).toMatchObject({
    signal: { gpa, bytes: { north: { enabled: 1, pending: 1 } }, counters: { sent: 1 } },
  });
  expect(ringPicture(snapshot!)).toContain("to north enabled pending");
});

describe(`what a hostile guest wrote into its rings (seed ${SEED})`, () => {
  /** Looks at everything, in every way; nothing may throw, and all of it is JSON. */
  function lookAt(queue: Queue | DeviceVirtQueue | DriverVirtQueue): QueueSnapshot {
    const snapshot = inspectQueue({ name: "evil", queue })!;
    expect(json(snapshot)).toEqual(snapshot);
    for (const width of [8, 64]) expect(ringPicture(snapshot, { width }).length).toBeGreaterThan(50);
    return snapshot;
  }

  it.each(["lp64", "ilp32", "compact"] as const)("is shown as it is: an IOQ in layout %s", (layout) => {
    const random = generator(SEED);
    const guest = openGuest();
    const { gpa } = guest;
    const ilp32 = layout === "ilp32";
    const offer = layout === "compact" ? EXT_COMPACT : 0;
    const north = Queue.create(guest.north, { gpa, count: 16, role: "northReceive", ilp32, offer });
    const length = queueSegmentLength(16, ilp32);
    const south = Queue.attach(guest.south, { gpa, length, role: "southReceive", accept: offer });
    const bytes = guest.view(gpa, length);
    for (let round = 0; round < 150; round++) {
      for (let i = 0; i < 20; i++) bytes.setUint8(random() % length, random());
      if (round % 40 === 0) for (let i = 0; i < length; i++) bytes.setUint8(i, 0xff);
      const { owners, count, map } = lookAt(south) as IoqSnapshot;
      expect(count).toBe(16); // the header's count is not believed
      expect(owners!.north + owners!.south + owners!.other).toBe(16);
      expect(map).toMatch(/^[nNsS?]{16}$/);
      lookAt(north);
    }
  });

  it.each(["split", "packed"] as const)("is shown as it is: a virtqueue, %s", (format) => {
    const random = generator(SEED + 1);
    const guest = openGuest();
    const pair = new VirtQueuePair({ format, size: 16, eventIndex: true, indirect: 4 }, guest);
    pair.add([{ cookie: 1, writable: [{ gpa: pair.buffers, length: 64 }] }]);
    const areas = DriverVirtQueue.areaSizes(format, 16);
    let impossible = 0;
    for (let round = 0; round < 150; round++) {
      for (const area of ["descriptors", "driver", "device"] as const) {
        const view = guest.view(pair.options[area], areas[area].size);
        for (let i = 0; i < 6; i++) view.setUint8(random() % view.byteLength, random());
      }
      const { waiting, map } = lookAt(pair.device) as VirtqueueSnapshot;
      if (waiting === null) impossible++;
      else expect(waiting).toBeLessThanOrEqual(16);
      if (map !== null) expect(map).toMatch(/^[.atu]{16}$/);
      lookAt(pair.driver);
    }
    if (format === "split") expect(impossible).toBeGreaterThan(0);
  });
});

it("a picture of many descriptors puts several into one character, and of numbers that cannot be says so", () => {
  const guest = openGuest();
  const { gpa } = guest;
  const north = Queue.create(guest.north, { gpa, count: 2048, role: "northTransmit" });
  north.reserve("both", null, 100);
  north.commit("both", null, 100, BURST_SIGNAL);
  const snapshot = ioq(north);
  const lines = ringPicture(snapshot, { width: 32, rows: 4 }).split("\n");
  expect(lines.filter((line) => /^ *\d+ [SsNn+]+$/.test(line))).toHaveLength(4);
  expect(lines.join("\n")).toContain("16 descriptors in a character");
  expect(lines[1]).toBe(`     0 ${"s".repeat(6)}+${"n".repeat(25)}`);
  snapshot.shared!.inuse.head = 0xffffffff;
  expect(ringPicture(snapshot)).toContain("OUTSIDE THE RING: inuse.head 4294967295");
});
