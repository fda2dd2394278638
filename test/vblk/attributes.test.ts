import { BlobBackend, CowOverlay, MemoryBackend } from "vbus/devices/vblk";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { ControlledBackend } from "./controlled.js";
import { codeOf, DiskMachine, expectBytes, pattern, settle } from "./machine.js";
import { RawDisk } from "./raw-disk.js";

/** Code that a call throws. */
function thrown(action: () => unknown): unknown {
  try {
    action();
    return null;
  } catch (error) {
    return (error as { code?: unknown }).code;
  }
}

describe("attributes of a disk", () => {
  let backend: ControlledBackend;
  let machine: DiskMachine;

  beforeEach(() => {
    backend = new ControlledBackend(pattern(64 * 512));
    backend.hold = false;
    machine = new DiskMachine(backend);
  });
  afterEach(async () => {
    backend.release();
    await machine.close();
  });

  it("say what it is, before anybody opened it", () => {
    expect(machine.attribute("size")).toBe("32768");
    expect(machine.attribute("read_only")).toBe("0");
    expect(machine.attribute("serial")).toBe("disk0");
    expect(machine.attribute("backend")).toBe("controlled");
    expect(machine.attribute("queue_depth")).toBe("64");
    expect(machine.attribute("max_queues")).toBe("4");
    expect(machine.attribute("queues")).toBe("null");
    expect(machine.statistics()).toMatchObject({ requests: 0 });
  });

  it("refuse what they cannot be", () => {
    for (const size of ["1", "513", "-512", "0x200", "", "99999999999999999"])
      expect(thrown(() => machine.set("size", size))).toBe("EINVAL");
    for (const depth of ["0", "1025", "x"])
      expect(thrown(() => machine.set("queue_depth", depth))).toBe("EINVAL");
    for (const queues of ["0", "17", "1.5"])
      expect(thrown(() => machine.set("max_queues", queues))).toBe("EINVAL");
    for (const serial of ["x".repeat(21), "ü", "a\tb"])
      expect(thrown(() => machine.set("serial", serial))).toBe("EINVAL");
    for (const name of ["backend", "statistics", "queues"])
      expect(thrown(() => machine.set(name, "1"))).toBe("EIO");
    expect(thrown(() => machine.set("read_only", "2"))).toBe("EINVAL");
  });

  it("that guests rely on do not change while one has it open", async () => {
    const { bus } = await machine.addGuest();
    expect(thrown(() => machine.set("queue_depth", "8"))).toBe("EBUSY");
    expect(thrown(() => machine.set("max_queues", "8"))).toBe("EBUSY");
    expect(thrown(() => machine.set("read_only", "1"))).toBe("EBUSY");
    await bus.close();
    machine.set("queue_depth", "8");
    machine.set("read_only", "1");
    const { disk } = await machine.addGuest();
    expect(disk).toMatchObject({ queueDepth: 8, readOnly: true });
    expect(thrown(() => machine.set("size", "512"))).toBe("EROFS");
  });

  it("cannot make a read-only back end writable, or one of fixed size larger", async () => {
    const blob = new DiskMachine(new BlobBackend(new Blob([new Uint8Array(1024)])));
    expect(thrown(() => blob.set("read_only", "0"))).toBe("EROFS");
    expect(thrown(() => blob.set("size", "2048"))).toBe("EROFS");
    await blob.close();
    const fixed = new DiskMachine(Object.assign(new MemoryBackend(1024), { resize: undefined as never }));
    expect(thrown(() => fixed.set("size", "2048"))).toBe("EOPNOTSUPP");
    await fixed.close();
  });

  it("a device is not created for a back end whose size is no multiple of 512", () => {
    class Odd extends MemoryBackend {
      override get size(): number {
        return 1000;
      }
    }
    expect(thrown(() => new DiskMachine(new Odd(1024)))).toBe("EINVAL");
  });

  it("growing tells the guest, and what is new reads as zeroes", async () => {
    const { disk } = await machine.addGuest();
    const told: number[] = [];
    disk.onResize = (capacity) => told.push(capacity);
    machine.set("size", String(128 * 512));
    await settle();
    expect(told).toEqual([128]);
    expect(disk).toMatchObject({ capacity: 128, size: 128 * 512 });
    expectBytes(await disk.read(0, 64 * 512), pattern(64 * 512));
    expectBytes(await disk.read(64, 64 * 512), new Uint8Array(64 * 512));
    machine.set("size", String(128 * 512)); // the same again is nothing
    await settle();
    expect(told).toEqual([128]);
    expect(machine.statistics().events).toBe(1);
  });

  it("shrinking refuses new requests beyond at once, waits for those under way, then tells the guest", async () => {
    const { disk } = await machine.addGuest();
    const told: number[] = [];
    disk.onResize = (capacity) => told.push(capacity);
    backend.hold = true;
    const beyond = disk.write(30, pattern(4 * 512));
    const below = disk.write(0, pattern(512));
    await settle();
    machine.set("size", String(32 * 512));
    expect(machine.attribute("size")).toBe(String(32 * 512));
    expect(thrown(() => machine.set("size", "512"))).toBe("EBUSY");
    expect(await codeOf(disk.read(32, 512))).toBe("ENOSPC");
    await settle();
    expect(backend.held.map(({ kind }) => kind)).toEqual(["write", "write"]);
    expect(told).toEqual([]);
    backend.held[0]?.proceed();
    await beyond;
    await settle();
    expect(backend.held.map(({ kind }) => kind)).toEqual(["write", "resize"]);
    backend.held[1]?.proceed();
    await settle();
    expect(told).toEqual([32]);
    backend.release();
    await below;
    expect(backend.size).toBe(32 * 512);
  });

  it("a resize that fails leaves the size, and is reported", async () => {
    const { disk } = await machine.addGuest();
    backend.hold = true;
    machine.set("size", "512");
    await settle();
    backend.held[0]?.fail(new Error("no"));
    await settle();
    expect(machine.attribute("size")).toBe("32768");
    expect(machine.errors.splice(0)).toHaveLength(1);
    backend.release();
    await disk.read(63, 512);
    machine.set("size", "512");
    await settle();
    expect(disk.capacity).toBe(1);
  });

  it("resizes under load lose no request and end with the last size", async () => {
    const { disk } = await machine.addGuest({ queueDepth: 8 });
    const sizes: number[] = [];
    disk.onResize = (capacity) => sizes.push(capacity);
    const results: Promise<unknown>[] = [];
    for (let round = 0; round < 30; round++) {
      const capacity = [64, 16, 100, 1][round % 4] as number;
      for (let i = 0; i < 10; i++) results.push(codeOf(disk.write((round * 7 + i * 11) % 110, pattern(512))));
      machine.set("size", String(capacity * 512));
      await settle(3);
    }
    const codes = await Promise.all(results);
    expect(new Set(codes)).toEqual(new Set([null, "ENOSPC"]));
    await settle();
    expect(disk.capacity).toBe(backend.size / 512);
    expect(sizes.at(-1)).toBe(disk.capacity);
    expect(machine.statistics()).toMatchObject({ requests: 300, outstanding: 0 });
  });

  it("resize events that the guest does not take are one, the last", async () => {
    const raw = new RawDisk(machine);
    raw.open();
    raw.rings(8, 8, false);
    for (const capacity of [1, 2, 3]) {
      machine.set("size", String(capacity * 512));
      await settle();
    }
    raw.post(8);
    await settle();
    expect(raw.take()).toEqual([{ tag: 0xffffffff, status: 1, value: 3 }]);
  });

  it("an overlay grows beyond its base and shrinks below it", async () => {
    const overlay = new CowOverlay(new BlobBackend(new Blob([pattern(8 * 512)])));
    const other = new DiskMachine(overlay);
    const { disk } = await other.addGuest();
    other.set("size", String(16 * 512));
    await settle();
    expectBytes(await disk.read(0, 8 * 512), pattern(8 * 512));
    await disk.write(15, pattern(512, 4));
    other.set("size", String(2 * 512));
    await settle();
    other.set("size", String(16 * 512));
    await settle();
    expectBytes(await disk.read(0, 1024), pattern(8 * 512).subarray(0, 1024));
    expectBytes(await disk.read(2, 14 * 512), new Uint8Array(14 * 512));
    await other.close();
  });
});
