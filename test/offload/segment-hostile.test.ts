import fc from "fast-check";
import {
  BurstTable,
  ENTRY_SIZE,
  FRAME_GSO,
  FRAME_NEEDS_CSUM,
  GSO_TCP4,
  GSO_TCP6,
  GSO_UDP_L4,
  HEADERS_MAX,
  PIECE_SIZE,
  SEG_BAD_CHECKSUM,
  SEG_BAD_HEADERS,
  SEG_BAD_SIZE,
  SEG_STATE_SIZE,
  Segmenter,
} from "vbus/engine";
import { MemorySpace } from "vbus/memory";
import { beforeAll, describe, expect, it } from "vitest";

import { seedOr } from "../engine/seed.js";
import { data, superframe, type PacketOptions } from "./packets.js";
import { plainSegments, type Refusal } from "./plain-segmenter.js";
import { Areas, readFrame, Rig, type TestFrame } from "./rig.js";

const SEED = seedOr(4861);
const REASONS: Record<Refusal, number> = {
  headers: -SEG_BAD_HEADERS,
  size: -SEG_BAD_SIZE,
  checksum: -SEG_BAD_CHECKSUM,
};
/** Frames that a batch has room for, and pieces. */
const CAPACITY = 3;
const PIECES = 24;

/** A rig whose canaries could pass for something, the engine's areas between canaries of the same kind. */
class Watched {
  private constructor(
    private readonly rig: Rig,
    private readonly areas: Areas,
    private readonly out: BurstTable,
  ) {}

  static async open(canary: number, size: number): Promise<Watched> {
    const rig = await Rig.open(1, size, canary);
    const sizes = [SEG_STATE_SIZE, CAPACITY * HEADERS_MAX, PIECES * PIECE_SIZE, CAPACITY * ENTRY_SIZE];
    const areas = new Areas(rig.space, sizes, canary);
    // reads entries as any table does, but lies in a watched area
    const out = Object.create(BurstTable.allocate(rig.space, CAPACITY), {
      address: { value: areas.at(3) },
    }) as BurstTable;
    return new Watched(rig, areas, out);
  }

  /** The segments, or the negated reason. */
  run(frame: TestFrame, cuts: readonly number[]): Uint8Array[] | number {
    const { rig, areas, out } = this;
    const { exports } = rig.space.engine;
    rig.clear();
    rig.put(0, frame, cuts);
    areas.reset();
    const count = exports.segmentBegin(rig.table.entry(0), areas.at(0));
    const found: Uint8Array[] = [];
    if (count > 0) {
      for (let left = count; left > 0;) {
        const [state, headers, list, table] = [areas.at(0), areas.at(1), areas.at(2), areas.at(3)];
        const bytes = CAPACITY * HEADERS_MAX;
        const n = exports.segmentNext(state, table, CAPACITY, headers, bytes, list, PIECES);
        if (n === 0) throw new Error(`stopped with ${left} of ${count} segments left`);
        for (let i = 0; i < n; i++) found.push(readFrame(out, i).bytes);
        left -= n;
      }
    }
    rig.check();
    areas.check();
    return count > 0 ? found : count;
  }
}

/** For frames up to 4 KiB, and for those of any length. */
let small: Watched[];
let large: Watched[];

beforeAll(async () => {
  // zeros, all ones, and bytes that look like IP versions and header lengths
  const canaries = [0, 0xff, 0x45, 0x60];
  small = await Promise.all(canaries.map((canary) => Watched.open(canary, 8192)));
  large = await Promise.all(canaries.map((canary) => Watched.open(canary, 80_000)));
});

function expectSame(found: Uint8Array[] | number, expected: Uint8Array[] | number): void {
  const isSame =
    typeof found === "number" || typeof expected === "number"
      ? found === expected
      : found.length === expected.length &&
        found.every((bytes, i) => Buffer.compare(bytes, expected[i] as Uint8Array) === 0);
  if (!isSame) expect(found).toEqual(expected);
}

/** The engine's answer, which no byte outside of the frame may change, and the plain segmenter's. */
function agree(frame: TestFrame, cuts: readonly number[] = []): Uint8Array[] | number {
  const places = cuts.filter((at) => at <= frame.bytes.length);
  const plain = plainSegments(frame);
  const expected = typeof plain === "string" ? REASONS[plain] : plain;
  for (const one of frame.bytes.length < 4096 ? small : large) expectSame(one.run(frame, places), expected);
  return expected;
}

/** Every kind of superframe, whole. */
function kinds(extra: PacketOptions = {}): TestFrame[] {
  const payload = data(400);
  return [
    superframe({ payload, ...extra }, 150),
    superframe({ payload, version: 6, ...extra }, 150),
    superframe({ payload, protocol: "udp", ...extra }, 150),
    superframe({ payload, version: 6, protocol: "udp", ...extra }, 150),
  ];
}

function edited(frame: TestFrame, at: number, ...values: number[]): TestFrame {
  const bytes = Uint8Array.from(frame.bytes);
  bytes.set(values, at);
  return { ...frame, bytes };
}

describe("a malformed superframe", () => {
  it("is refused when it is cut off anywhere in its headers or right behind them", () => {
    for (const frame of kinds({ tags: [[0x8100, 5]], extensions: [[0, data(6)]] })) {
      const headers = frame.bytes.length - 400;
      for (let n = 0; n <= headers; n++) {
        const short = { ...frame, bytes: frame.bytes.slice(0, n) };
        expect(agree(short, [Math.floor(n / 2)])).toBeLessThan(0);
      }
    }
  });

  it("is refused for a header length that does not fit, cut for one that does", () => {
    const [four, six] = kinds() as [TestFrame, TestFrame];
    for (let nibble = 0; nibble < 16; nibble++) {
      const bad = nibble < 5;
      for (const [frame, tcp] of [
        [four, 34],
        [six, 54],
      ] as const) {
        const found = agree(edited(frame, tcp + 12, nibble * 16));
        expect(found === -SEG_BAD_HEADERS).toBe(bad);
      }
      // a longer IP header moves the transport header into TCP options or payload
      agree(edited(four, 14, 0x40 + nibble));
    }
  });

  it("is refused when it is another version, protocol or type than its kind says, or a fragment", () => {
    for (const frame of kinds()) {
      for (let kind = 0; kind < 256; kind++) agree({ ...frame, kind });
      for (let value = 0; value < 256; value++) {
        agree(edited(frame, 14, value));
        agree(edited(frame, 20, value));
        agree(edited(frame, 23, value));
      }
      agree(edited(frame, 12, 0x88, 0xb5));
    }
    const [four] = kinds() as [TestFrame];
    for (const word of [0x2000, 0x0001, 0x1fff, 0x3fff, 0x6000]) {
      expect(agree(edited(four, 20, word >> 8, word & 0xff))).toBe(-SEG_BAD_HEADERS);
    }
  });

  it("is refused when its extension headers lead outside, are fragments, authentication, unknown or endless", () => {
    const six = superframe({ version: 6, extensions: [[0, data(6)]], payload: data(400) }, 150);
    for (let next = 0; next < 256; next++) agree(edited(six, 20, next));
    for (let length = 0; length < 256; length++) agree(edited(six, 55, length));
    for (const next of [44, 50, 51, 59]) expect(agree(edited(six, 20, next))).toBe(-SEG_BAD_HEADERS);
    const chain = (n: number): TestFrame =>
      superframe(
        { version: 6, extensions: Array.from({ length: n }, () => [60, data(6)]), payload: data(400) },
        150,
      );
    expect(agree(chain(8))).toHaveLength(3);
    expect(agree(chain(9))).toBe(-SEG_BAD_HEADERS);
    const long = superframe({ version: 6, extensions: [[60, data(502)]], payload: data(400) }, 150);
    expect(agree(long)).toBe(-SEG_BAD_HEADERS);
  });

  it("is refused for a segment size of 0, no payload, too many segments, or segments that no IP header can count", () => {
    for (const frame of kinds()) {
      expect(agree({ ...frame, size: 0 })).toBe(-SEG_BAD_SIZE);
      expect(agree({ ...frame, bytes: frame.bytes.slice(0, frame.bytes.length - 400) })).toBe(-SEG_BAD_SIZE);
      expect(agree({ ...frame, size: 1 })).toHaveLength(400);
      expect(agree({ ...frame, size: 65535 })).toHaveLength(1);
    }
    const long = superframe({ payload: data(2049) }, 1);
    expect(agree(long)).toBe(-SEG_BAD_SIZE);
    const huge = superframe({ payload: data(65536) }, 65535);
    expect(agree(huge)).toBe(-SEG_BAD_SIZE);
    const just = superframe({ payload: data(65535 - 52) }, 65535);
    expect(agree(just)).toHaveLength(1);
    const over = superframe({ payload: data(65536 - 52) }, 65535);
    expect(agree(over)).toBe(-SEG_BAD_SIZE);
  });

  it("is refused when the checksum positions are not those of its headers", () => {
    for (const frame of kinds()) {
      for (const [start, offset] of [
        [0, 0],
        [frame.start + 1, frame.offset],
        [frame.start - 2, frame.offset + 2],
        [frame.start, frame.offset + 2],
        [frame.start, 0xffff],
        [0xffff, frame.offset],
        [0xffff, 0xffff],
      ] as const) {
        expect(agree({ ...frame, start, offset })).toBe(-SEG_BAD_CHECKSUM);
      }
    }
  });

  it("may lie about every length in its headers: none of them is believed", () => {
    for (const frame of kinds()) {
      for (const at of [16, 17, 18, 19, 38, 39, 58, 59]) {
        for (const value of [0, 1, 0x7f, 0xff]) agree(edited(frame, at, value));
      }
    }
  });

  it("is judged like the plain segmenter does, whatever bytes it is made of", () => {
    const hostile = fc.record({
      which: fc.nat(3),
      edits: fc.array(fc.tuple(fc.nat(119), fc.nat(255)), { maxLength: 4 }),
      length: fc.oneof(fc.constant(4000), fc.nat(160)),
      kind: fc.oneof({ weight: 9, arbitrary: fc.constant(-1) }, { weight: 1, arbitrary: fc.nat(255) }),
      size: fc.oneof(fc.integer({ min: 1, max: 900 }), fc.constantFrom(0, 1, 65535)),
      place: fc.oneof(
        { weight: 4, arbitrary: fc.constant(null) },
        { weight: 1, arbitrary: fc.tuple(fc.nat(0xffff), fc.nat(0xffff)) },
      ),
      flags: fc.constantFrom(FRAME_GSO | FRAME_NEEDS_CSUM, FRAME_GSO),
      cuts: fc.array(fc.nat(200), { maxLength: 18 }),
    });
    const bases = kinds({ tags: [[0x88a8, 1]], extensions: [[0, data(6)]] });
    fc.assert(
      fc.property(hostile, ({ which, edits, length, kind, size, place, flags, cuts }) => {
        const base = bases[which] as TestFrame;
        let frame: TestFrame = { ...base, bytes: base.bytes.slice(0, length), size, flags };
        for (const [at, value] of edits) if (at < frame.bytes.length) frame = edited(frame, at, value);
        if (kind >= 0) frame = { ...frame, kind };
        if (place !== null) frame = { ...frame, start: place[0], offset: place[1] };
        agree(
          frame,
          cuts.sort((a, b) => a - b),
        );
      }),
      { seed: SEED, numRuns: 1500 },
    );
  });

  it("… and when it is nothing but random bytes", () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ maxLength: 200 }),
        fc.constantFrom(GSO_TCP4, GSO_TCP6, GSO_UDP_L4),
        fc.constantFrom([0x08, 0x00, 0x45], [0x86, 0xdd, 0x60], [0x81, 0x00, 0x00]),
        fc.integer({ min: 0, max: 100 }),
        (bytes, kind, type, size) => {
          const frame = { bytes: Uint8Array.from(bytes), flags: FRAME_GSO, kind, size, start: 0, offset: 0 };
          if (bytes.length > 17) frame.bytes.set(type, 12);
          agree(frame, [5, 15, 30]);
        },
      ),
      { seed: SEED, numRuns: 1500 },
    );
  });

  it("leaves nothing behind: after a refusal there are no segments, not even of the one before", async () => {
    const rig = await Rig.open(2);
    const segmenter = new Segmenter(rig.space, 1);
    const [good] = kinds() as [TestFrame];
    expect(segmenter.next()).toBe(0);
    rig.put(0, good);
    rig.put(1, { ...good, size: 0 });
    expect(segmenter.begin(rig.table, 0)).toBe(3);
    expect(segmenter.next()).toBe(1);
    expect(segmenter.begin(rig.table, 1)).toBe(-SEG_BAD_SIZE);
    expect(segmenter.next()).toBe(0);
    expect(() => new Segmenter(rig.space, 0)).toThrow(/give a whole number of 1 to 4096/);
    const elsewhere = BurstTable.allocate(await MemorySpace.host(), 1);
    expect(() => segmenter.begin(elsewhere, 0)).toThrow(TypeError);
  });
});
