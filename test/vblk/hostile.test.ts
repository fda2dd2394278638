import { fc, test } from "@fast-check/vitest";
import {
  EFAULT,
  EINVAL,
  ENOSPC,
  EOPNOTSUPP,
  EROFS,
  VBLK_OP_DISCARD,
  VBLK_OP_FLUSH,
  VBLK_OP_GET_ID,
  VBLK_OP_READ,
  VBLK_OP_WRITE,
  VBLK_OP_WRITE_ZEROES,
  VBLK_TAG_EVENT,
} from "vbus/abi";
import { BlobBackend, MemoryBackend } from "vbus/devices/vblk";
import { VbusError } from "vbus/engine";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { ControlledBackend } from "./controlled.js";
import { DiskMachine, expectBytes, pattern, settle } from "./machine.js";
import { RawDisk, type RawRequest } from "./raw-disk.js";

const SECTORS = 4096;
const SIZE = SECTORS * 512;

describe("a guest without a driver", () => {
  let backend: MemoryBackend;
  let machine: DiskMachine;
  let raw: RawDisk;

  beforeEach(() => {
    backend = new MemoryBackend(pattern(SIZE));
    machine = new DiskMachine(backend, { serial: "raw" });
    raw = new RawDisk(machine);
  });
  afterEach(() => machine.close());

  it("opens version 1 only, and once", () => {
    for (const version of [0, 2, 0xffffffff]) expect(raw.open(version)).toBe(-EINVAL);
    expect(raw.open()).toBeGreaterThan(0);
    expect(new RawDisk(machine).open()).toBe(-16);
  });

  it("reads the properties at their offsets", () => {
    raw.open();
    for (const length of [0, 63, 65, 32]) expect(raw.query(length).result).toBe(-EINVAL);
    expect(raw.client.call(raw.handle, 0, 0xdead0000, 64, 0)).toBe(-EFAULT);
    expect(raw.client.call(raw.handle, 1, raw.data, 64, 0)).toBe(-EINVAL);
    const { result, info } = raw.query();
    expect(result).toBe(0);
    const words = Array.from({ length: 16 }, (_, i) => info.getUint32(i * 4, true));
    expect(words).toEqual([6, 512, SECTORS, 0, 16, 1 << 20, 1 << 24, 64, 4, 0, 0, 0, 0, 0, 0, 0]);
  });

  it("shares two rings, each once, with their signals, in any order", () => {
    raw.open();
    const completion = raw.ring("northReceive", 8);
    expect(raw.client.shm(raw.handle, 1, completion.gpa, completion.length, null, 0)).toBe(-EINVAL);
    expect(raw.share(1, { ...completion, length: completion.length - 32 })).toBe(-EINVAL);
    expect(raw.share(8, completion)).toBe(-EINVAL);
    expect(raw.share(1, completion)).toBeGreaterThanOrEqual(0);
    expect(raw.share(1, raw.ring("northReceive", 8))).toBe(-17);
    const request = raw.ring("northFeed", 8);
    expect(raw.share(0, request)).toBeGreaterThanOrEqual(0);
    expect(raw.share(0, raw.ring("northFeed", 8))).toBe(-17);
  });

  it("gets what it sent before the second ring was there", async () => {
    raw.open();
    const request = raw.ring("northFeed", 8);
    raw.request = { ...request, signal: raw.share(0, request) };
    raw.send({ tag: 5 });
    await settle();
    const completion = raw.ring("northReceive", 8);
    raw.completion = { ...completion, signal: raw.share(1, completion) };
    raw.post(8);
    await settle();
    expect(raw.take()).toEqual([{ tag: 5, status: 0, value: 512 }]);
  });

  it("gets the id, padded, and data through the offsets of the record", async () => {
    raw.open();
    raw.rings();
    const { space } = raw.memory;
    raw.send(
      { op: VBLK_OP_GET_ID, length: 20 },
      { op: VBLK_OP_READ, sector: 3, length: 1024, pieces: [{ gpa: raw.data + 100, length: 1024 }] },
    );
    await settle();
    expect(raw.take()).toEqual([
      { tag: 0, status: 0, value: 20 },
      { tag: 1, status: 0, value: 1024 },
    ]);
    expectBytes(
      space.copyFrom(raw.data, 20),
      new Uint8Array(20).fill(0).map((_, i) => "raw".charCodeAt(i)),
    );
    expectBytes(space.copyFrom(raw.data + 100, 1024), backend.bytes.subarray(3 * 512, 5 * 512));
  });

  const far = 2 ** 53;
  const half = 2 ** 31;
  const bad: [string, RawRequest | ((raw: RawDisk) => RawRequest), number][] = [
    ["an unknown operation", { op: 6 }, EOPNOTSUPP],
    ["an operation of all ones", { op: 0xffffffff }, EOPNOTSUPP],
    ["an unknown flag", { flags: 2 }, EINVAL],
    ["a forced read", { flags: 1 }, EINVAL],
    ["a read of nothing", { length: 0, pieces: [] }, EINVAL],
    ["length 0 with a piece", (r) => ({ length: 0, pieces: [{ gpa: r.data, length: 512 }] }), EINVAL],
    [
      "a length that is no multiple",
      (r) => ({ length: 513, pieces: [{ gpa: r.data, length: 513 }] }),
      EINVAL,
    ],
    [
      "a length above the limit",
      (r) => ({ length: (1 << 20) + 512, pieces: [{ gpa: r.data, length: (1 << 20) + 512 }] }),
      EINVAL,
    ],
    [
      "a length of 2^32 + 512",
      (r) => ({ length: 2 ** 32 + 512, pieces: [{ gpa: r.data, length: 512 }] }),
      EINVAL,
    ],
    [
      "a length of 2^64 - 512",
      (r) => ({ length: 2n ** 64n - 512n, pieces: [{ gpa: r.data, length: 512 }] }),
      EINVAL,
    ],
    ["a sector at the end", { sector: SECTORS }, ENOSPC],
    ["a range over the end", { sector: SECTORS - 1, length: 1024 }, ENOSPC],
    ["a sector whose byte offset wraps 32 bits", { sector: 2 ** 23 }, ENOSPC],
    ["a sector whose byte offset wraps 64 bits", { sector: 2n ** 55n }, ENOSPC],
    ["the last sector there is", { sector: 2n ** 64n - 1n }, ENOSPC],
    [
      "a discard over the end",
      { op: VBLK_OP_DISCARD, sector: 2n ** 64n - 1n, length: 512, pieces: [] },
      ENOSPC,
    ],
    ["count 0", { count: 0 }, EINVAL],
    [
      "count 17",
      (r) => ({
        count: 17,
        length: 17 * 512,
        pieces: Array.from({ length: 16 }, () => ({ gpa: r.data, length: 512 })),
      }),
      EINVAL,
    ],
    ["count 2^31", { count: half }, EINVAL],
    ["count 2^32 - 1", { count: 0xffffffff }, EINVAL],
    [
      "a piece of length 0",
      (r) => ({
        pieces: [
          { gpa: r.data, length: 512 },
          { gpa: r.data, length: 0 },
        ],
      }),
      EINVAL,
    ],
    [
      "pieces with less than the length",
      (r) => ({ length: 1024, pieces: [{ gpa: r.data, length: 512 }] }),
      EINVAL,
    ],
    [
      "pieces whose sum wraps to the length",
      (r) => ({
        pieces: [
          { gpa: r.data, length: half },
          { gpa: r.data, length: half },
          { gpa: r.data, length: 512 },
        ],
      }),
      EINVAL,
    ],
    ["a piece at 0", { pieces: [{ gpa: 0, length: 512 }] }, EFAULT],
    [
      "a good piece before a bad one",
      (r) => ({
        length: 1024,
        pieces: [
          { gpa: r.data + 1024, length: 512 },
          { gpa: 0, length: 512 },
        ],
      }),
      EFAULT,
    ],
    ["a piece over the end of memory", { pieces: [{ gpa: 0x10000 + (2 << 20) - 511, length: 512 }] }, EFAULT],
    ["a piece above 2^32", (r) => ({ pieces: [{ gpa: 2 ** 32 + r.data, length: 512 }] }), EFAULT],
    ["a piece above 2^53", { pieces: [{ gpa: BigInt(far) + 1n, length: 512 }] }, EFAULT],
    ["a piece that wraps 64 bits", { pieces: [{ gpa: 2n ** 64n - 256n, length: 512 }] }, EFAULT],
    ["a flush with a length", { op: VBLK_OP_FLUSH, length: 512, pieces: [] }, EINVAL],
    ["a flush with a piece", { op: VBLK_OP_FLUSH, length: 0, count: 1, pieces: [] }, EINVAL],
    ["a discard with a piece", { op: VBLK_OP_DISCARD }, EINVAL],
    ["zeroes above the limit", { op: VBLK_OP_WRITE_ZEROES, length: (1 << 24) + 512, pieces: [] }, EINVAL],
    ["an id of 512 bytes", { op: VBLK_OP_GET_ID }, EINVAL],
    ["an id of 19 bytes", { op: VBLK_OP_GET_ID, length: 19 }, EINVAL],
  ];
  it.each(bad)("is told of %s, and nothing happens", async (_what, request, code) => {
    raw.open();
    raw.rings();
    const before = raw.memory.space.copyFrom(raw.data, 4096);
    raw.send(typeof request === "function" ? request(raw) : request, { tag: 9 });
    await settle();
    expect(raw.take()).toEqual(
      expect.arrayContaining([
        { tag: 0, status: -code, value: 0 },
        { tag: 9, status: 0, value: 512 },
      ]),
    );
    expectBytes(backend.bytes, pattern(SIZE));
    expectBytes(raw.memory.space.copyFrom(raw.data + 512, 3584), before.subarray(512));
    expect(machine.statistics()).toMatchObject({ requests: 2, completed: 1, failed: 1, violations: 0 });
  });

  it("may not change what is read-only", async () => {
    const other = new DiskMachine(new BlobBackend(new Blob([pattern(4096)])));
    const guest = new RawDisk(other);
    guest.open();
    guest.rings();
    expect(guest.query().info.getUint32(0, true)).toBe(1);
    guest.send(
      { op: VBLK_OP_WRITE },
      { op: VBLK_OP_WRITE_ZEROES, pieces: [] },
      { op: VBLK_OP_DISCARD, pieces: [] },
      { op: VBLK_OP_READ, sector: 7 },
      { op: VBLK_OP_FLUSH, length: 0, pieces: [] },
    );
    // a Blob is read by other threads
    while (other.statistics().completed + other.statistics().failed < 5) await settle(1);
    const statuses = guest
      .take()
      .sort((a, b) => a.tag - b.tag)
      .map(({ status }) => status);
    expect(statuses).toEqual([-EROFS, -EROFS, -EOPNOTSUPP, 0, 0]);
    await other.close();
  });

  /** What breaks the request ring, because no completion can answer it. */
  const deadly: [string, (raw: RawDisk) => void][] = [
    ["a tag at the depth", (r) => r.send({ tag: 64 })],
    ["the tag of events", (r) => r.send({ tag: VBLK_TAG_EVENT })],
    ["the same tag twice", (r) => r.send({ tag: 3 }, { tag: 3 })],
    ["a record of 31 bytes", (r) => r.push({ gpa: r.write({}), length: 31 })],
    ["a record of 0 bytes", (r) => r.push({ gpa: r.write({}), length: 0 })],
    ["a record outside memory", (r) => r.push({ gpa: 2 ** 33, length: 288 })],
    ["a record over the end of memory", (r) => r.push({ gpa: 0x10000 + (2 << 20) - 100, length: 288 })],
    [
      "an owner that is none",
      (r) => {
        r.memory.space.copyTo(r.request.gpa + 56 + 2 * 32 + 25, Uint8Array.of(7)); // two were sent before
        r.client.signal(r.request.signal);
      },
    ],
  ];
  it.each(deadly)(
    "breaks its request ring by %s: requests under way complete, the ring's signal goes, a reopen helps",
    async (_what, deed) => {
      raw.open();
      raw.rings();
      raw.send({ tag: 60 }, { tag: 61, op: VBLK_OP_WRITE, sector: 1 });
      await settle();
      deed(raw);
      await settle();
      const tags = raw.take().map(({ tag }) => tag);
      expect(tags).toEqual(expect.arrayContaining([60, 61]));
      const reports = machine.errors.splice(0) as { source: string; error: unknown }[];
      expect(reports).toEqual([
        expect.objectContaining({
          source: "devices/disk0",
          error: expect.objectContaining({ code: "EPROTO" }) as unknown,
        }),
      ]);
      expect(machine.statistics().violations).toBe(1);
      expect(raw.events()).toContainEqual({ kind: "shmclose", cookie: 1 });
      // nothing is taken any more
      const { requests } = machine.statistics();
      try {
        raw.send({ tag: 1 });
      } catch (error) {
        expect(error).toBeInstanceOf(VbusError); // it fell over its own scribbling
      }
      raw.client.signal(raw.request.signal);
      await settle();
      expect(machine.statistics().requests).toBe(requests);

      expect(raw.client.close(raw.handle)).toBe(0);
      expect(raw.open()).toBeGreaterThan(0);
      raw.rings();
      raw.send({ tag: 3 });
      await settle();
      expect(raw.take()).toEqual([{ tag: 3, status: 0, value: 512 }]);
    },
  );

  it("breaks its completion ring by a buffer that is too short or outside memory; nothing is taken any more", async () => {
    for (const post of [
      (r: RawDisk) => {
        r.post(8, 15);
      },
      (r: RawDisk) => {
        r.completion.queue.reserve("valid", r.table, 1);
        r.table.setGpa(0, 2 ** 40);
        r.table.setLength(0, 16);
        r.completion.queue.commit("valid", r.table, 1, 3);
      },
    ]) {
      expect(raw.open()).toBeGreaterThan(0);
      raw.rings(8, 8, false);
      post(raw);
      raw.send({ tag: 0 }, { tag: 1 });
      await settle();
      expect(machine.errors.splice(0)).toHaveLength(1);
      expect(raw.events()).toContainEqual({ kind: "shmclose", cookie: 2 });
      raw.send({ tag: 2 });
      await settle();
      expect(machine.statistics()).toMatchObject({ outstanding: 2 });
      expect(raw.client.close(raw.handle)).toBe(0);
    }
    expect(machine.statistics()).toMatchObject({ requests: 4, cancelled: 4, outstanding: 0 });
  });

  it("that never takes completions is served up to the queue depth and no further", async () => {
    raw.open();
    raw.rings(64, 2);
    raw.send(...Array.from({ length: 64 }, (_, sector) => ({ op: VBLK_OP_WRITE, sector })));
    await settle();
    expect(machine.statistics()).toMatchObject({ requests: 64, completed: 2, outstanding: 62 });
    expect(machine.statistics().congested).toBeGreaterThan(0);
    // two tags are free again; the others are not
    raw.send({ tag: 0 }, { tag: 1 });
    await settle();
    expect(machine.statistics()).toMatchObject({ requests: 66, completed: 2, outstanding: 64 });
    const tags: number[] = [];
    for (let taken = raw.take(); taken.length > 0; taken = raw.take()) {
      tags.push(...taken.map(({ tag }) => tag));
      await settle();
    }
    expect(tags).toHaveLength(66);
    expect(new Set(tags).size).toBe(64);
  });

  it("that changes a record or its data after the host took it changes nothing", async () => {
    const controlled = new ControlledBackend(SIZE);
    const other = new DiskMachine(controlled);
    const guest = new RawDisk(other);
    guest.open();
    guest.rings();
    guest.memory.space.copyTo(guest.data, pattern(512, 5));
    guest.send({ op: VBLK_OP_WRITE, sector: 2 });
    await settle();
    guest.memory.space.copyTo(guest.data, pattern(512, 6));
    guest.write({ tag: 50, op: VBLK_OP_WRITE, sector: 100, length: 4096 });
    controlled.release();
    await settle();
    expect(guest.take()).toEqual([{ tag: 0, status: 0, value: 512 }]);
    expectBytes(controlled.content.bytes.subarray(1024, 1536), pattern(512, 5));
    await other.close();
  });

  it("gets no completion, and no byte of data, for what ends after it closed the device", async () => {
    const controlled = new ControlledBackend(pattern(SIZE, 8));
    const other = new DiskMachine(controlled);
    const guest = new RawDisk(other);
    guest.open();
    guest.rings();
    guest.send(
      { tag: 0 },
      { tag: 1, op: VBLK_OP_WRITE, sector: 8 },
      { tag: 2, op: VBLK_OP_WRITE, sector: 8 },
    );
    await settle();
    expect(guest.client.close(guest.handle)).toBe(0);
    const memory = guest.memory.space.copyFrom(0x10000, 2 << 20);
    expect(controlled.held).toHaveLength(2);
    for (const held of [...controlled.held]) held.proceed();
    await settle();
    expect(controlled.held).toEqual([]); // the second write of sector 8 never starts
    expectBytes(guest.memory.space.copyFrom(0x10000, 2 << 20), memory);
    expect(other.statistics()).toMatchObject({ cancelled: 3, outstanding: 0 });
    expectBytes(controlled.content.bytes.subarray(8 * 512, 9 * 512), new Uint8Array(512));
    await other.close();
  });

  it("that reopens again and again while the back end hangs never has more under way than the depth", async () => {
    const controlled = new ControlledBackend(SIZE);
    const other = new DiskMachine(controlled, { queue_depth: "8" });
    const guest = new RawDisk(other);
    for (let round = 0; round < 10; round++) {
      expect(guest.open()).toBeGreaterThan(0);
      guest.rings(8, 8);
      guest.send(...Array.from({ length: 8 }, (_, i) => ({ op: VBLK_OP_WRITE, sector: round * 8 + i })));
      await settle();
      expect(controlled.held).toHaveLength(8);
      guest.client.close(guest.handle);
    }
    expect(guest.open()).toBeGreaterThan(0);
    guest.rings(8, 8);
    guest.send({ op: VBLK_OP_READ });
    await settle();
    expect(guest.take()).toEqual([]);
    controlled.release();
    await settle();
    expect(guest.take()).toHaveLength(1);
    expect(other.statistics()).toMatchObject({ requests: 81, cancelled: 80, completed: 1 });
    await other.close();
  });
});

const anyByte = fc.constantFrom(0, 1, 2, 7, 16, 17, 0x3f, 0x40, 0x7f, 0x80, 0xff);
const deed = fc.oneof(
  fc.record({
    kind: fc.constant("scribble" as const),
    where: fc.constantFrom("request" as const, "completion" as const, "record" as const),
    offset: fc.integer({ min: 0, max: 56 + 8 * 32 - 1 }),
    value: anyByte,
    length: fc.integer({ min: 1, max: 8 }),
  }),
  fc.record({
    kind: fc.constant("send" as const),
    tag: fc.integer({ min: 0, max: 9 }),
    op: fc.integer({ min: 0, max: 6 }),
    sector: fc.constantFrom(0, 1, 30, 31, 2 ** 32),
    length: fc.constantFrom(0, 20, 512, 1024),
  }),
  fc.record({ kind: fc.constantFrom("take", "doorbell", "wait", "reopen" as const) }),
);

describe("a guest that writes anything anywhere, at any time", () => {
  test.prop({ deeds: fc.array(deed, { minLength: 1, maxLength: 40 }) }, { numRuns: 60 })(
    "hurts nobody but its own session, and every request is accounted for",
    async ({ deeds }) => {
      const machine = new DiskMachine(new MemoryBackend(32 * 512), { queue_depth: "8" });
      const raw = new RawDisk(machine);
      raw.open();
      raw.rings(8, 8);
      const stumble = (step: () => unknown): void => {
        try {
          step();
        } catch (error) {
          if (!(error instanceof VbusError)) expect(String(error)).toContain("ring is full");
        }
      };
      for (const act of deeds) {
        if (act.kind === "scribble") {
          const at = act.where === "record" ? raw.records : raw[act.where].gpa;
          raw.memory.space.copyTo(at + act.offset, new Uint8Array(act.length).fill(act.value));
        } else if (act.kind === "send") {
          stumble(() => {
            const pieces = act.length > 0 && act.op < 2 ? [{ gpa: raw.data, length: act.length }] : [];
            raw.send({ ...act, pieces });
          });
        } else if (act.kind === "take") {
          stumble(() => raw.take());
        } else if (act.kind === "doorbell") {
          raw.client.signal(raw.request.signal);
          raw.client.signal(raw.completion.signal);
        } else if (act.kind === "wait") {
          await settle(2);
        } else {
          expect(raw.client.close(raw.handle)).toBe(0);
          expect(raw.open()).toBeGreaterThan(0);
          raw.rings(8, 8);
        }
        expect(machine.statistics().outstanding).toBeLessThanOrEqual(8);
      }
      await settle();
      for (const report of machine.errors.splice(0) as { source: string; error: unknown }[])
        expect(report).toMatchObject({ source: "devices/disk0", error: { code: "EPROTO" } });

      expect(raw.client.close(raw.handle)).toBe(0);
      expect(raw.open()).toBeGreaterThan(0);
      raw.rings(8, 8);
      raw.send({ tag: 7 });
      await settle();
      expect(raw.take()).toEqual([{ tag: 7, status: 0, value: 512 }]);
      expect(raw.client.close(raw.handle)).toBe(0);
      expect(machine.statistics()).toMatchObject({ outstanding: 0 });
      await machine.close();
    },
  );
});
