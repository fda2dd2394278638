import fc from "fast-check";
import { Engine, Queue, VbusError } from "vbus/engine";
import {
  allocateGuestMemory,
  GuestMemory,
  MemorySpace,
  RangeAllocator,
  type MemoryRegion,
} from "vbus/memory";
import { describe, expect, it } from "vitest";
import { expectError, openGuest } from "./guest.js";
import { seedOr } from "./seed.js";

const SEED = seedOr(4096);
const MIB = 1 << 20;

function memory(pages: number, maximum = pages, shared = false): WebAssembly.Memory {
  return new WebAssembly.Memory({ initial: pages, maximum, ...(shared ? { shared: true } : {}) });
}

const arena = { address: 65536, size: 65536 };

describe("regions", () => {
  const good: MemoryRegion = { gpa: 0x10000, length: 65536, address: 2 * 65536 };
  const bad: [name: string, regions: MemoryRegion[], says: string][] = [
    ["of no length", [{ ...good, length: 0 }], "length of 1 byte"],
    ["of 4 GiB", [{ ...good, length: 2 ** 32 }], "length of 1 byte"],
    ["of a fraction", [{ ...good, length: 1.5 }], "whole numbers"],
    ["of a negative length", [{ ...good, length: -1 }], "whole numbers"],
    ["below zero", [{ ...good, gpa: -1 }], "whole numbers"],
    ["at no number", [{ ...good, gpa: NaN }], "whole numbers"],
    ["above 2^53", [{ ...good, gpa: 2 ** 53 }], "whole numbers"],
    ["at address 0 of the memory", [{ ...good, address: 0 }], "starts at 0"],
    ["that ends behind the memory", [{ ...good, length: 65537 + 65536 }], "inside the memory"],
    ["that begins behind the memory", [{ ...good, address: 5 * 65536 }], "inside the memory"],
    ["that covers the arena", [{ ...good, address: 1, length: 3 * 65536 }], "overlaps the arena"],
    [
      "that ends one byte inside the arena",
      [{ ...good, address: 16, length: 65536 - 15 }],
      "overlaps the arena",
    ],
    [
      "that starts on the arena's last byte",
      [{ ...good, address: 2 * 65536 - 1, length: 16 }],
      "overlaps the arena",
    ],
    ["that share guest addresses", [good, { ...good, gpa: 0x1ffff, length: 16 }], "overlaps another region"],
    [
      "of which there are 16",
      Array.from({ length: 16 }, (_, i) => ({ ...good, gpa: i * 16, length: 16 })),
      "merge",
    ],
  ];
  for (const [name, regions, says] of bad) {
    it(`${name} are refused`, () => {
      const error = expectError("EINVAL", () => MemorySpace.attachSync(memory(4), arena, regions));
      expect(error.message).toContain(says);
    });
  }

  it("may be fifteen, may touch each other and the arena", () => {
    const regions = Array.from({ length: 15 }, (_, i) => ({
      gpa: i * 16,
      length: 16,
      address: 2 * 65536 + i * 16,
    }));
    const space = MemorySpace.attachSync(memory(4), arena, regions);
    expect(space.translate(14 * 16 + 15, 1)).toBe(2 * 65536 + 239);
    expectError("EFAULT", () => space.translate(15 * 16, 1));
    expectError("EFAULT", () => space.translate(15, 2)); // a range lies in one region, or nowhere
  });

  it("are replaced as a whole or not at all", () => {
    const space = MemorySpace.attachSync(memory(4), arena, [good]);
    expectError("EINVAL", () =>
      space.moveRegions([
        { ...good, gpa: 0x50000 },
        { ...good, address: 0 },
      ]),
    );
    expect(space.regions).toEqual([good]);
    expect(space.translate(good.gpa, 1)).toBe(good.address);
    expectError("EFAULT", () => space.translate(0x50000, 1));
    space.moveRegions([{ ...good, gpa: 0x50000 }]);
    expect(space.translate(0x50000, 1)).toBe(good.address);
    expectError("EFAULT", () => space.translate(good.gpa, 1));
  });

  it("an arena outside of the memory, or at 0, is refused", () => {
    for (const place of [
      { address: 0, size: 65536 },
      { address: -65536, size: 65536 },
      { address: 3 * 65536, size: 2 * 65536 },
    ]) {
      expectError("EINVAL", () => MemorySpace.attachSync(memory(4), place, []));
    }
  });
});

describe("translation", () => {
  it("names the address that is wrong", () => {
    const { south, gpa } = openGuest();
    for (const [address, length] of [
      [gpa - 1, 1],
      [gpa + MIB, 1],
      [gpa + MIB - 1, 2],
      [gpa, MIB + 1],
      [gpa + 2 ** 32, 1],
      [Number.MAX_SAFE_INTEGER, 1],
    ] as const) {
      const error = expectError("EFAULT", () => south.translate(address, length));
      expect(error.message).toContain(`0x${address.toString(16)} + ${length}`);
      expect(expectError("EFAULT", () => south.copyFrom(address, length)).message).toContain(
        address.toString(16),
      );
      expectError("EFAULT", () => south.view(address, length));
    }
    for (const [address, length] of [
      [-1, 1],
      [1.5, 1],
      [NaN, 1],
      [gpa, -1],
      [gpa, 2 ** 32],
      [gpa, 2 ** 32 + 1],
      [gpa, 0.5],
    ] as const) {
      expectError("EFAULT", () => south.translate(address, length));
    }
    expectError("EFAULT", () => south.copyTo(gpa + MIB - 1, Uint8Array.of(1, 2)));
  });

  it("never lets a range out of its region (random regions and ranges)", () => {
    const space = MemorySpace.attachSync(memory(16), arena, []);
    const region = fc.record({
      gpa: fc.oneof(
        fc.nat(0x4000),
        fc.nat(0x4000).map((n) => n + 2 ** 32 - 0x2000),
      ),
      length: fc.integer({ min: 1, max: 0x800 }),
      address: fc.integer({ min: 2 * 65536, max: 15 * 65536 }),
    });
    fc.assert(
      fc.property(
        fc.array(region, { maxLength: 6 }),
        fc.nat(0x5000),
        fc.boolean(),
        fc.nat(0x900),
        (list, low, high, n) => {
          const regions = list.filter(
            (a, i) => !list.slice(0, i).some((b) => a.gpa < b.gpa + b.length && b.gpa < a.gpa + a.length),
          );
          space.moveRegions(regions);
          const gpa = high ? low + 2 ** 32 - 0x2000 : low;
          const home = regions.find((each) => gpa >= each.gpa && gpa + n <= each.gpa + each.length);
          if (home !== undefined && n > 0)
            expect(space.translate(gpa, n)).toBe(home.address + gpa - home.gpa);
          else if (n > 0) expectError("EFAULT", () => space.translate(gpa, n));
        },
      ),
      { seed: SEED, numRuns: 500 },
    );
  });

  it("copies in and out, byte for byte; copies are the caller's own", () => {
    const { north, south, gpa } = openGuest({ shared: true });
    north.copyTo(gpa + 3, Uint8Array.of(1, 2, 3));
    const copy = south.copyFrom(gpa + 2, 5);
    expect([...copy]).toEqual([0, 1, 2, 3, 0]);
    expect(copy.buffer).toBeInstanceOf(ArrayBuffer);
    copy.fill(9);
    expect([...south.view(gpa + 2, 5)]).toEqual([0, 1, 2, 3, 0]);
  });
});

describe("linking", () => {
  it("takes the flavour that fits the memory, both ways", async () => {
    expect(Engine.linkSync(memory(2)).flavour).toBe("unshared");
    expect((await Engine.link(memory(2))).flavour).toBe("unshared");
    expect(Engine.linkSync(memory(2, 4, true)).flavour).toBe("shared");
    expect((await Engine.link(memory(2, 65536, true))).shared).toBe(true);
    expect(Engine.linkSync(new WebAssembly.Memory({ initial: 1 })).shared).toBe(false); // no maximum, as emulators do
  });

  it("refuses a memory without a page with a typed error", async () => {
    expectError("EINVAL", () => Engine.linkSync(memory(0, 4)));
    await expect(Engine.link(memory(0, 4))).rejects.toThrow(VbusError);
  });

  it("two engines on one memory do not disturb each other", () => {
    const { north, south, gpa } = openGuest();
    const queue = Queue.create(north, { gpa, count: 4, role: "northTransmit" });
    const before = queue.counters();
    const other = Queue.create(south, { gpa: gpa + 0x1000, count: 4, role: "northTransmit" });
    other.reserve("both", null, 4);
    other.commit("both", null, 4, 0);
    expect(queue.counters()).toEqual(before);
    expect(queue.reserve("both", null, 9)).toBe(4);
  });
});

describe("growing memory", () => {
  for (const shared of [false, true]) {
    it(`views and queues live on after somebody grew the ${shared ? "shared" : "unshared"} memory`, () => {
      const ram = memory(8, 64, shared);
      const space = MemorySpace.attachSync(ram, arena, [{ gpa: 0x1000, length: 65536, address: 4 * 65536 }]);
      const queue = Queue.create(space, { gpa: 0x1000, count: 4, role: "northTransmit" });
      space.copyTo(0x8000, Uint8Array.of(7));
      const stale = space.bytes;
      ram.grow(8);
      if (!shared) expect(stale.length).toBe(0);
      expect(space.bytes.length).toBe(16 * 65536);
      expect([...space.copyFrom(0x8000, 1)]).toEqual([7]);
      expect(queue.reserve("both", null, 4)).toBe(4);
      expect(queue.commit("both", null, 1, 0)).toBe(false);
      expect(queue.counters().pushed).toBe(1);
      space.moveRegions([{ gpa: 0x1000, length: 65536, address: 15 * 65536 }]); // memory that was not there before
      expect(space.translate(0x1000, 1)).toBe(15 * 65536);
    });
  }

  it("the host's own memory grows when its arena is exhausted", async () => {
    const space = await MemorySpace.host(65536);
    const before = space.engine.memory.buffer.byteLength;
    const blocks = Array.from({ length: 8 }, () => space.allocate(100_000, 64));
    expect(space.engine.memory.buffer.byteLength).toBeGreaterThan(before);
    for (const [i, at] of blocks.entries()) space.bytes.fill(i + 1, at, at + 100_000);
    for (const [i, at] of blocks.entries())
      expect([space.bytes[at], space.bytes[at + 99_999]]).toEqual([i + 1, i + 1]);
    for (const at of blocks) space.free(at);
    expectError("EINVAL", () => space.free(blocks[0] as number));
  });

  it("a guest's arena does not grow: ENOMEM, and what was there stays usable", () => {
    const { north, gpa } = openGuest({ arenaSize: 65536 });
    const error = expectError("ENOMEM", () => north.allocate(1 << 20));
    expect(error.message).toContain("make it larger");
    Queue.create(north, { gpa, count: 1, role: "northTransmit" }).close();
  });
});

describe("guest memory", () => {
  it("refuses sizes that do not fit 32 bits, before it allocates anything", () => {
    for (const options of [
      { size: 0 },
      { size: -1 },
      { size: NaN },
      { size: 2 ** 32 },
      { arenaSize: 0 },
      { size: 2 ** 31, padding: 2 ** 31 },
      { padding: -1 },
    ]) {
      expectError("EINVAL", () => allocateGuestMemory(options));
    }
  });

  it("keeps link page, arenas and RAM apart", () => {
    const { layout, memory: ram } = allocateGuestMemory({ size: 100_000, padding: 70_000 });
    const region = layout.regions[0] as MemoryRegion;
    const ranges = [
      { address: 0, size: 65536 },
      layout.link,
      layout.guestArena,
      layout.hostArena,
      { address: region.address, size: region.length },
    ].sort((a, b) => a.address - b.address);
    for (const [i, range] of ranges.slice(1).entries()) {
      const before = ranges[i] as { address: number; size: number };
      expect(range.address).toBeGreaterThanOrEqual(before.address + before.size);
    }
    expect(region.address + region.length).toBe(ram.buffer.byteLength);
    expect(region.length).toBe(131072);
  });

  it("allocates rings where no descriptor straddles a line", () => {
    const guest = GuestMemory.openSync(allocateGuestMemory({ size: MIB }));
    for (let i = 0; i < 10; i++) expect(guest.ram.allocate(1000, { align: 64, offset: 8 }) % 64).toBe(8);
    const region = guest.space.regions[0] as MemoryRegion;
    expectError("ENOMEM", () => guest.ram.allocate(MIB));
    expect(guest.space.translate(guest.ram.allocate(16), 16)).toBeGreaterThan(region.address);
  });
});

describe(`range allocator (seed ${SEED})`, () => {
  it("never overlaps, keeps its placement, and merges back into one block", () => {
    const request = fc.record({
      size: fc.integer({ min: 1, max: 700 }),
      align: fc.constantFrom(1, 4, 16, 64, 256),
      skew: fc.nat(300),
      free: fc.nat(10),
    });
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 999 }),
        fc.array(request, { maxLength: 120, size: "max" }),
        (start, requests) => {
          const allocator = new RangeAllocator(start, 16384, "test range");
          const used: { at: number; size: number }[] = [];
          for (const { size, align, skew, free } of requests) {
            const offset = skew % align;
            try {
              const at = allocator.allocate(size, { align, offset });
              expect(at % align).toBe(offset);
              expect(at).toBeGreaterThanOrEqual(start);
              expect(at + size).toBeLessThanOrEqual(start + 16384);
              for (const other of used)
                expect(at >= other.at + other.size || other.at >= at + size).toBe(true);
              used.push({ at, size });
            } catch (error) {
              if (!(error instanceof VbusError) || error.code !== "ENOMEM") throw error;
            }
            if (free < 4 && used.length > 0) {
              const [gone] = used.splice(free % used.length, 1);
              allocator.free((gone as { at: number }).at);
            }
            const held = used.reduce((sum, each) => sum + each.size, 0);
            expect(allocator.available).toBe(16384 - held);
          }
          for (const { at } of used) allocator.free(at);
          expect(allocator.allocate(16384, 1)).toBe(start); // one block again
        },
      ),
      { seed: SEED, numRuns: 200 },
    );
  });

  it("refuses what makes no sense", () => {
    const allocator = new RangeAllocator(16, 100, "test range");
    for (const size of [0, -1, 1.5, NaN, Infinity]) expectError("EINVAL", () => allocator.allocate(size));
    expectError("EINVAL", () => allocator.free(16));
    const at = allocator.allocate(100, 1);
    expectError("ENOMEM", () => allocator.allocate(1, 1));
    allocator.extend(10);
    expect(allocator.allocate(10, 1)).toBe(116);
    allocator.free(at);
    expectError("EINVAL", () => allocator.free(at));
  });
});
