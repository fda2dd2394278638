/** A block device with several queues: rings of their own, one device. */
import { EINVAL, VBLK_OP_READ, VBLK_OP_WRITE, VBLK_TAG_EVENT } from "vbus/abi";
import { MemoryBackend } from "vbus/devices/vblk";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { replaceHost } from "../state/client-part.js";
import { ControlledBackend } from "./controlled.js";
import { DiskMachine, pattern, settle } from "./machine.js";
import { RawDisk } from "./raw-disk.js";

const SIZE = 64 * 512;
const done = (tag: number) => ({ tag, status: 0, value: 512 });

describe("a guest with several queues of a disk", () => {
  let backend: ControlledBackend;
  let machine: DiskMachine;
  let raw: RawDisk;

  beforeEach(() => {
    backend = new ControlledBackend(pattern(SIZE));
    backend.hold = false;
    machine = new DiskMachine(backend);
    raw = new RawDisk(machine);
    raw.open();
  });
  afterEach(async () => {
    backend.release();
    await machine.close();
  });

  /** Rings for queues 0 … n - 1; the last one is used. */
  const queues = (n: number): void => {
    for (let queue = 0; queue < n; queue++) raw.use(queue).rings(8, 8);
  };
  const taken = (queue: number) => raw.use(queue).take();
  const ringsBroken = (): string[] => machine.errors.splice(0).map((error) => JSON.stringify(error));

  it("has as many as the device allows, and no more", async () => {
    expect(raw.query().info.getUint32(32, true)).toBe(4);
    queues(4);
    expect(raw.share(8, raw.ring("northFeed", 8))).toBe(-EINVAL);
    expect(raw.share(7, raw.ring("northReceive", 8))).toBe(-17);
    const other = new DiskMachine(new MemoryBackend(SIZE), { max_queues: "1" });
    const guest = new RawDisk(other);
    guest.open();
    expect(guest.query().info.getUint32(32, true)).toBe(1);
    expect(guest.share(2, guest.ring("northFeed", 8))).toBe(-EINVAL);
    await other.close();
  });

  it("gets each answer by the queue that asked, whatever else is under way", async () => {
    queues(3);
    backend.hold = true;
    raw.use(2).send({ tag: 2, sector: 2 });
    await settle();
    raw.use(0).send({ tag: 0, sector: 0 });
    await settle();
    raw.use(1).send({ tag: 1, sector: 1, op: VBLK_OP_WRITE });
    await settle();
    expect(backend.held).toHaveLength(3);
    backend.held.at(-1)!.proceed(); // the write: last in, first out
    await settle();
    expect([taken(0), taken(1), taken(2)]).toEqual([[], [done(1)], []]);
    backend.release();
    await settle();
    expect([taken(0), taken(1), taken(2)]).toEqual([[done(0)], [], [done(2)]]);
    expect(machine.statistics()).toMatchObject({ requests: 3, completed: 3 });
  });

  it("may begin with any of them, and is not heard by one that has a ring only", async () => {
    raw.use(3).rings(8, 8);
    raw.use(1);
    const request = raw.ring("northFeed", 8);
    raw.request = { ...request, signal: raw.share(2, request) };
    raw.push({ gpa: raw.write({ tag: 1 }, 9), length: 288 }); // its record stays where it is
    raw.use(3).send({ tag: 3 });
    await settle();
    expect(raw.take()).toEqual([done(3)]);
    raw.use(1);
    const completion = raw.ring("northReceive", 8);
    raw.completion = { ...completion, signal: raw.share(3, completion) };
    raw.post(8);
    await settle();
    expect(raw.take()).toEqual([done(1)]);
  });

  it("has one set of tags, and a queue breaks alone that uses one twice", async () => {
    queues(3);
    backend.hold = true;
    raw.use(0).send({ tag: 5, sector: 1 });
    await settle();
    raw.use(1).send({ tag: 5, sector: 2 });
    await settle();
    expect(ringsBroken()).toEqual([expect.stringContaining("request ring of queue 1")]);
    backend.release();
    raw.use(2).send({ tag: 6 });
    await settle();
    raw.use(0).send({ tag: 7 });
    await settle();
    expect([taken(0), taken(1), taken(2)]).toEqual([[done(5), done(7)], [], [done(6)]]);
    expect(machine.statistics()).toMatchObject({ violations: 1, requests: 3, completed: 3 });
  });

  it("loses one queue by buffers that are too small for an answer, and works on with the others", async () => {
    raw.use(0).rings(8, 8);
    raw.use(1).rings(8, 8, false);
    raw.post(8, 8);
    raw.send({ tag: 1 }, { tag: 2, sector: 1 });
    await settle();
    expect(ringsBroken()).toEqual([expect.stringContaining("completion ring of queue 1")]);
    raw.send({ tag: 3 }); // nobody looks
    raw.use(0).send({ tag: 4 });
    await settle();
    expect(raw.take()).toEqual([done(4)]);
    expect(machine.statistics()).toMatchObject({ requests: 3, completed: 1, outstanding: 2 });
    raw.client.close(raw.handle);
    expect(machine.statistics()).toMatchObject({ cancelled: 2, outstanding: 0 });
  });

  it("is told of a new size by the first one", async () => {
    queues(2);
    await settle();
    machine.set("size", String(SIZE * 2));
    await settle();
    expect(taken(1)).toEqual([]);
    expect(taken(0)).toEqual([{ tag: VBLK_TAG_EVENT, status: 1, value: 128 }]);
  });

  it("sees the counters of each", async () => {
    queues(2);
    for (let n = 0; n < 3; n++) {
      raw.use(1).send({ tag: n, op: VBLK_OP_READ });
      await settle();
      raw.take();
    }
    const counters = JSON.parse(machine.attribute("queues")) as Record<string, unknown>;
    expect(Object.keys(counters)).toEqual(["request", "completion", "request1", "completion1"]);
    expect(counters).toMatchObject({
      request: { popped: 0 },
      request1: { popped: 3 },
      completion1: { pushed: 3 },
    });
  });

  it("is restored with answers that wait for room in several of them", async () => {
    raw.use(0).rings(8, 8, false);
    raw.use(1).rings(8, 8, false);
    raw.use(0).send({ tag: 0 });
    await settle();
    raw.use(1).send({ tag: 1 }, { tag: 2, sector: 1 });
    await settle();
    await replaceHost(raw.client, raw.host);
    raw.use(0).post(8);
    raw.use(1).post(8);
    await settle();
    expect([taken(0), taken(1)]).toEqual([[done(0)], [done(1), done(2)]]);
    raw.use(1).send({ tag: 1 });
    await settle();
    expect(taken(1)).toEqual([done(1)]);
    // the old session was cancelled: whether that counts is the device's affair, and it was not restored here
    expect(JSON.parse(machine.attribute("statistics"))).toMatchObject({ completed: 4, outstanding: 0 });
  });
});
