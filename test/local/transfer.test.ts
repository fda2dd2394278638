import { fc, test } from "@fast-check/vitest";
import { BurstTable, bytesCopied, FRAME_TOO_LONG, moveFrames } from "vbus/engine";
import { allocateGuestMemory, MemorySpace } from "vbus/memory";
import { beforeAll, describe, expect, it } from "vitest";

/** Where frames come from, and where they go. */
const PLACES = [
  "same memory",
  "two guests",
  "host to guest",
  "guest to host",
  "two arenas of one memory",
] as const;
type Place = (typeof PLACES)[number];

function guestSpace(): MemorySpace {
  const { memory, layout } = allocateGuestMemory({ size: 2 << 20 });
  return MemorySpace.attachSync(memory, layout.hostArena, layout.regions);
}

interface Side {
  space: MemorySpace;
  /** Guest-physical, or plain, address of the first buffer. */
  base: number;
  guest: boolean;
}

const sides = new Map<Place, { source: Side; target: Side }>();

beforeAll(async () => {
  const side = (space: MemorySpace, guest: boolean, base = 0x10000): Side => ({
    space,
    guest,
    base: guest ? base : space.allocate(1 << 20, 64),
  });
  const one = guestSpace();
  sides.set("same memory", { source: side(one, true), target: side(one, true, 0x10000 + (1 << 20)) });
  sides.set("two guests", { source: side(guestSpace(), true), target: side(guestSpace(), true) });
  const host = await MemorySpace.host(4 << 20);
  sides.set("host to guest", { source: side(host, false), target: side(guestSpace(), true) });
  sides.set("guest to host", { source: side(guestSpace(), true), target: side(host, false) });
  const { memory, layout } = allocateGuestMemory({ size: 2 << 20 });
  sides.set("two arenas of one memory", {
    source: side(MemorySpace.attachSync(memory, layout.guestArena, layout.regions), true),
    target: side(MemorySpace.attachSync(memory, layout.hostArena, layout.regions), true, 0x10000 + (1 << 20)),
  });
});

/** Fills a table with buffers one after the other. */
function table(
  { space, base, guest }: Side,
  lengths: readonly number[],
  fill: (i: number) => number,
): BurstTable {
  const entries = BurstTable.allocate(space, Math.max(lengths.length, 1));
  space.bytes.fill(0, entries.address, entries.address + entries.capacity * 64);
  let at = base;
  for (const [i, length] of lengths.entries()) {
    const address = guest ? space.translate(at, length) : at;
    entries.setBuffer(i, address, length);
    entries.setGpa(i, guest ? at : 0);
    space.bytes.fill(fill(i), address, address + length);
    at += length + 1; // unaligned, with a gap that must stay untouched
  }
  return entries;
}

/** Frames of one piece up to this length are gathered, carried over and scattered between two memories. */
const STAGED_LENGTH = 512;

/** What moving means, in ten lines. */
function model(
  frames: readonly number[],
  from: number,
  to: number,
  buffers: readonly number[],
  start: number,
  end: number,
) {
  const placed: { frame: number; buffer: number }[] = [];
  const tooLong: number[] = [];
  let frame = from;
  for (let buffer = start; frame < to && buffer < end; frame++) {
    if ((frames[frame] ?? 0) > (buffers[buffer] ?? 0)) tooLong.push(frame);
    else placed.push({ frame, buffer: buffer++ });
  }
  return { taken: frame - from, filled: placed.length, placed, tooLong };
}

function check(
  place: Place,
  frames: readonly number[],
  buffers: readonly number[],
  [from, to, start, end]: readonly [number, number, number, number] = [0, frames.length, 0, buffers.length],
): void {
  const { source, target } = sides.get(place) as { source: Side; target: Side };
  const input = table(source, frames, (i) => (i % 250) + 1);
  const output = table(target, buffers, () => 0xff);
  target.space.logWrites(true);
  try {
    const expected = model(frames, from, to, buffers, start, end);
    const moved = moveFrames(input, from, to, output, start, end);
    const sizes = expected.placed.map(({ frame }) => frames[frame] as number);
    const bytes = (some: number[]): number => some.reduce((sum, size) => sum + size, 0);
    const staged =
      source.space.engine.memory === target.space.engine.memory
        ? 0
        : bytes(sizes.filter((size) => size <= STAGED_LENGTH));
    expect(moved).toEqual({ taken: expected.taken, filled: expected.filled, staged });
    expect(bytesCopied(bytes(sizes), moved.staged)).toBe(bytes(sizes) + 2 * staged);
    const lengths = [...buffers];
    for (const { frame, buffer } of expected.placed) lengths[buffer] = frames[frame] as number;
    for (const [i, length] of lengths.entries())
      expect(output.length(i), `length of buffer ${i}`).toBe(length);
    for (const [i] of frames.entries()) {
      expect((input.flags(i) & FRAME_TOO_LONG) !== 0, `frame ${i} too long`).toBe(
        expected.tooLong.includes(i),
      );
    }
    // every byte of every buffer, and the gap behind it
    const filled = new Map(expected.placed.map(({ frame, buffer }) => [buffer, frame]));
    for (const [i, capacity] of buffers.entries()) {
      const address = output.bufferAddress(i);
      const bytes = target.space.bytes.subarray(address, address + capacity);
      const frame = filled.get(i);
      const length = frame === undefined ? 0 : (frames[frame] as number);
      if (frame !== undefined)
        expect(bytes.subarray(0, length).every((b) => b === (frame % 250) + 1)).toBe(true);
      expect(
        bytes.subarray(length).every((b) => b === 0xff),
        `buffer ${i} behind its frame`,
      ).toBe(true);
    }
    const writes = target.space.takeWrites();
    if (writes === "everything") {
      expect(expected.filled).toBeGreaterThan(1000);
    } else if (target.guest) {
      for (const { frame, buffer } of expected.placed) {
        const wanted = { gpa: output.gpa(buffer), length: frames[frame] as number };
        if (wanted.length > 0) expect(writes).toContainEqual(wanted);
      }
      expect(writes.length).toBeLessThanOrEqual(expected.filled);
    }
  } finally {
    target.space.logWrites(false);
    input.close();
    output.close();
  }
}

describe.each(PLACES)("moving frames: %s", (place) => {
  it.each([0, 1, 7, 8, 15, 16, 17, 255, 256, 257, 511, 512, 513, 1514, 65535])(
    "one of %i bytes",
    (length) => {
      check(place, [length], [length]);
      check(place, [length], [length + 1]);
      check(place, [length + 1], [length]);
    },
  );

  it("small and large ones in turn keep their order", () => {
    check(
      place,
      Array.from({ length: 64 }, (_, i) => [60, 1514, 512, 513, 0][i % 5] as number),
      Array.from({ length: 64 }, () => 2000),
    );
  });

  it("ones that are too long, in the middle of small ones, leave their buffer to the next", () => {
    check(place, [60, 60, 600, 60, 2000, 100, 1000], [60, 70, 80, 90, 2000, 2000, 100]);
    check(place, [5000, 5000, 60], [100]);
    check(place, [60, 5000, 5000], [100, 100]);
  });

  it("as many as there are buffers, or frames", () => {
    check(place, [60, 61, 62], [100, 100]);
    check(place, [60, 61], [100, 100, 100]);
    check(place, [], [100]);
    check(place, [60], []);
  });

  it("a part of a table into a part of a table touches nothing else", () => {
    check(place, [60, 61, 62, 63, 64], [100, 100, 100, 100, 100], [1, 4, 2, 5]);
    check(place, [60, 600, 620, 63, 64], [100, 700, 50, 700, 100], [1, 5, 1, 4]);
  });

  it("more small ones than the staging area holds at once", () => {
    check(
      place,
      Array.from({ length: 600 }, (_, i) => 500 + (i % 13)),
      Array.from({ length: 600 }, () => 512),
    );
  });

  const lengths = (max: number): fc.Arbitrary<number[]> =>
    fc.array(
      fc.oneof(
        fc.integer({ min: 0, max: 64 }),
        fc.integer({ min: 500, max: 520 }),
        fc.integer({ min: 0, max }),
      ),
      {
        maxLength: 48,
      },
    );
  test.prop(
    {
      frames: lengths(3000),
      buffers: lengths(3000),
      cut: fc.array(fc.nat(), { minLength: 4, maxLength: 4 }),
    },
    { numRuns: 60 },
  )("any lengths, any capacities, any ranges: as the plain model says", ({ frames, buffers, cut }) => {
    const range = (a: number, b: number, n: number): [number, number] => {
      const [low, high] = [a % (n + 1), b % (n + 1)];
      return low <= high ? [low, high] : [high, low];
    };
    const [from, to] = range(cut[0] ?? 0, cut[1] ?? 0, frames.length);
    const [start, end] = range(cut[2] ?? 0, cut[3] ?? 0, buffers.length);
    check(place, frames, buffers, [from, to, start, end]);
  });
});

describe("the memory that moving needs", () => {
  it("within one memory is a few bytes; an arena of one page is enough", () => {
    const { memory, layout } = allocateGuestMemory({ size: 1 << 20, arenaSize: 65536 });
    const space = MemorySpace.attachSync(memory, layout.hostArena, layout.regions);
    const side: Side = { space, base: 0x10000, guest: true };
    const input = table(side, [60], () => 1);
    const output = table({ ...side, base: 0x20000 }, [60], () => 2);
    expect(moveFrames(input, 0, 1, output, 0, 1)).toEqual({ taken: 1, filled: 1, staged: 0 });
  });

  it("is taken once", () => {
    const { source, target } = sides.get("two guests") as { source: Side; target: Side };
    const before = [source.space.arena.available, target.space.arena.available];
    for (let i = 0; i < 10; i++) check("two guests", [60, 600], [60, 600]);
    expect([source.space.arena.available, target.space.arena.available]).toEqual(before);
  });
});
