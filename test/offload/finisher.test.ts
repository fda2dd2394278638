import fc from "fast-check";
import { BurstTable, ChecksumFinisher, FRAME_CSUM_VALID, FRAME_NEEDS_CSUM } from "vbus/engine";
import { MemorySpace } from "vbus/memory";
import { beforeAll, describe, expect, it } from "vitest";

import { seedOr } from "../engine/seed.js";
import { data, packet, superframe, type PacketOptions } from "./packets.js";
import { big, plainSum } from "./plain-segmenter.js";
import { readFrame, Rig, type TestFrame } from "./rig.js";

const SEED = seedOr(1624);
const SLOTS = 4;
let rig: Rig;
let finisher: ChecksumFinisher;

beforeAll(async () => {
  rig = await Rig.open(SLOTS, 1 << 17);
  finisher = new ChecksumFinisher(rig.space, SLOTS);
});

function partial(bytes: Uint8Array, start: number, offset: number): TestFrame {
  return { bytes, flags: FRAME_NEEDS_CSUM, kind: 0, size: 0, start, offset };
}

/** The frame with its checksum, or null when there is no place for one. */
function plain({ bytes, start, offset }: TestFrame): Uint8Array | null {
  const field = start + offset;
  if (field < 14 || field + 2 > bytes.length || field + 2 > 512) return null;
  const sum = 0xffff - plainSum([...bytes.subarray(start)]);
  const done = Uint8Array.from(bytes);
  done.set(big(sum === 0 ? 0xffff : sum, 2), field);
  return done;
}

function finish(frame: TestFrame, cuts: readonly number[] = [], slot = 0): Uint8Array | null {
  rig.clear();
  rig.put(0, frame, cuts);
  const done = finisher.finish(rig.table, 0, slot);
  rig.check();
  if (!done) return null;
  const found = readFrame(finisher.table, slot);
  expect(found.flags).toBe(FRAME_CSUM_VALID);
  return found.bytes;
}

describe("finishing a partial checksum", () => {
  it("gives the frame that a sender without offloads would have sent, and leaves the original alone", () => {
    for (const version of [4, 6] as const) {
      for (const protocol of ["tcp", "udp"] as const) {
        for (const n of [0, 1, 2, 999, 1400]) {
          const made: PacketOptions = { version, protocol, payload: data(n), tags: [[0x8100, 7]] };
          const { bytes, start, offset } = superframe(made, 1);
          expect(finish(partial(bytes, start, offset), [20, 59].slice(0, n % 3))).toEqual(packet(made));
        }
      }
    }
  });

  it("is right for any positions, lengths and pieces, and refused where there is no room for the sum", () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: 14, maxLength: 700 }),
        fc.oneof(fc.nat(600), fc.nat(65535)),
        fc.oneof(fc.nat(60), fc.nat(65535)),
        fc.array(fc.nat(), { maxLength: 18 }),
        (bytes, start, offset, places) => {
          const frame = partial(Uint8Array.from(bytes), start, offset);
          const cuts = places.map((at) => at % (bytes.length + 1)).sort((a, b) => a - b);
          expect(finish(frame, cuts)).toEqual(plain(frame));
        },
      ),
      { seed: SEED, numRuns: 500 },
    );
  });

  it("never touches the Ethernet header, which was looked at before", () => {
    const bytes = packet({ payload: data(100) });
    for (const [start, offset] of [
      [0, 0],
      [0, 6],
      [6, 7],
      [12, 1],
    ] as const) {
      expect(finish(partial(bytes, start, offset))).toBeNull();
    }
    expect(finish(partial(bytes, 0, 14))).not.toBeNull();
  });

  it("writes 0 as 0xffff", () => {
    const bytes = new Uint8Array(60);
    bytes.fill(0xff, 20, 22);
    expect(finish(partial(bytes, 20, 2))?.subarray(20, 24)).toEqual(Uint8Array.of(255, 255, 255, 255));
  });

  it("refuses frames in more than 31 pieces", () => {
    const frame = partial(packet({ payload: data(100) }), 34, 16);
    const cuts = (n: number): number[] => Array.from({ length: n }, (_, i) => 70 + i);
    expect(finish(frame, cuts(30))).toEqual(plain(frame));
    expect(finish(frame, cuts(31))).toBeNull();
  });

  it("keeps every slot until it is used again", () => {
    rig.clear();
    const frames = Array.from({ length: SLOTS }, (_, i) =>
      partial(packet({ payload: data(100 + i) }), 34, 16),
    );
    for (const [i, frame] of frames.entries()) rig.put(i, frame, [40]);
    for (const i of frames.keys()) expect(finisher.finish(rig.table, i, SLOTS - 1 - i)).toBe(true);
    for (const [i, frame] of frames.entries()) {
      expect(readFrame(finisher.table, SLOTS - 1 - i).bytes).toEqual(plain(frame));
    }
  });

  it("says what is wrong with a slot, a capacity and a table of another memory", async () => {
    const elsewhere = BurstTable.allocate(await MemorySpace.host(), 1);
    expect(() => finisher.finish(rig.table, 0, SLOTS)).toThrow(RangeError);
    expect(() => finisher.finish(rig.table, 0, -1)).toThrow(RangeError);
    expect(() => finisher.finish(elsewhere, 0, 0)).toThrow(/another memory/);
    expect(() => new ChecksumFinisher(rig.space, 1.5)).toThrow(RangeError);
    const { available } = rig.space.arena;
    const other = new ChecksumFinisher(rig.space, 1);
    other.close();
    other.close();
    expect(rig.space.arena.available).toBe(available);
  });
});
