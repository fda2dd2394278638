import fc from "fast-check";
import {
  BurstTable,
  COALESCE_ECN,
  COALESCE_OPEN_SIZE,
  COALESCE_RECORD_SIZE,
  COALESCE_TCP4,
  COALESCE_TCP6,
  ENTRY_SIZE,
  FRAME_CSUM_VALID,
  FRAME_GSO,
  FRAME_NEEDS_CSUM,
  PIECE_SIZE,
} from "vbus/engine";
import { beforeAll, describe, expect, it } from "vitest";

import { seedOr } from "../engine/seed.js";
import { flowOf } from "./captures.js";
import { ACK, CWR, data, ECE, FIN, packet, PSH, SYN, type PacketOptions } from "./packets.js";
import { plainSegments } from "./plain-segmenter.js";
import { Areas, finished, readFrame, Rig, type TestFrame } from "./rig.js";

const SEED = seedOr(1122);
const CAPACITY = 24;
const PIECES = CAPACITY * 4;
const EVERYTHING = COALESCE_TCP4 | COALESCE_TCP6 | COALESCE_ECN;

/** Frames between canaries that could pass for headers; the engine's areas between canaries of the same kind. */
class Watched {
  private constructor(
    private readonly rig: Rig,
    private readonly areas: Areas,
    private readonly out: BurstTable,
  ) {}

  static async open(canary: number): Promise<Watched> {
    const rig = await Rig.open(CAPACITY, 1 << 16, canary);
    const scratch = COALESCE_OPEN_SIZE + CAPACITY * COALESCE_RECORD_SIZE;
    const areas = new Areas(rig.space, [scratch, PIECES * PIECE_SIZE, CAPACITY * ENTRY_SIZE], canary);
    const out = Object.create(BurstTable.allocate(rig.space, CAPACITY), {
      address: { value: areas.at(2) },
    }) as BurstTable;
    return new Watched(rig, areas, out);
  }

  run(frames: readonly TestFrame[], cuts: readonly number[]): TestFrame[] {
    const { rig, areas, out } = this;
    rig.clear();
    areas.reset();
    for (const [i, frame] of frames.entries()) {
      const places = cuts.filter((at) => at <= frame.bytes.length);
      rig.put(i, frame, places);
    }
    const [scratch, list, table] = [areas.at(0), areas.at(1), areas.at(2)];
    const n = rig.space.engine.exports.coalesceBurst(
      rig.table.address,
      frames.length,
      table,
      scratch,
      list,
      PIECES,
      EVERYTHING,
      65535,
      64,
    );
    const found = Array.from({ length: n }, (_, i) => readFrame(out, i));
    rig.check();
    areas.check();
    return found;
  }
}

let watched: Watched[];

beforeAll(async () => {
  watched = await Promise.all([0, 0xff, 0x45].map((canary) => Watched.open(canary)));
});

/** What comes out; whatever lies around the frames must not make a difference. */
function coalesce(frames: readonly TestFrame[], cuts: readonly number[]): TestFrame[] {
  const [first, ...others] = watched.map((one) => one.run(frames, cuts));
  for (const other of others) expect(other).toEqual(first);
  return first as TestFrame[];
}

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");

/** The frames that come out when the merged ones are cut again. */
function cutAgain(found: readonly TestFrame[], given: readonly TestFrame[]): Uint8Array[] {
  const known = new Set(given.map(({ bytes }) => hex(bytes)));
  return found.flatMap((frame) => {
    if ((frame.flags & FRAME_GSO) === 0 || known.has(hex(frame.bytes))) return [frame.bytes];
    const parts = plainSegments(frame);
    if (typeof parts === "string") throw new Error(`a superframe with bad ${parts}`);
    expect(parts.length).toBeGreaterThan(1);
    return parts;
  });
}

/** Frames per flow, in order. */
function flows(frames: readonly Uint8Array[]): Map<string, string[]> {
  const found = new Map<string, string[]>();
  for (const frame of frames) {
    const flow = frame.length < 58 ? hex(frame) : flowOf(frame);
    found.set(flow, [...(found.get(flow) ?? []), hex(frame)]);
  }
  return new Map([...found].sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** One step of a stream: which of the flows sends, how much, and what is unusual about it. */
const step = fc.record({
  flow: fc.nat(2),
  length: fc.oneof({ weight: 6, arbitrary: fc.constant(300) }, { weight: 1, arbitrary: fc.nat(301) }),
  odd: fc.oneof(
    { weight: 12, arbitrary: fc.constant<PacketOptions>({}) },
    {
      weight: 2,
      arbitrary: fc
        .constantFrom(PSH, FIN, CWR, ECE, SYN)
        .map((flag): PacketOptions => ({ flags: ACK | flag })),
    },
    {
      weight: 2,
      arbitrary: fc.constantFrom<PacketOptions>(
        { ack: 1 },
        { window: 1 },
        { ttl: 1 },
        { tos: 1 },
        { id: 1 },
        { sequence: 1 },
        { fragment: 0x2000 },
        { tcpOptions: [] },
        { spoilChecksum: 1 },
        { spoilIpChecksum: 1 },
        { spoilLength: 2 },
        { spoilLength: -2 },
        { protocol: "udp" },
        { ipOptions: [1, 1, 1, 1] },
      ),
    },
  ),
});

const FLOWS: PacketOptions[] = [
  {},
  { sourcePort: 1, flags: ACK | ECE, sequence: 0xfffffe00, id: 0xfffd },
  { version: 6, extensions: [[0, data(6)]] },
];

describe("coalescing any traffic", () => {
  it("and cutting it again gives the same frames, in the same order in every flow", () => {
    let merged = 0;
    fc.assert(
      fc.property(
        fc.array(step, { minLength: 1, maxLength: CAPACITY }),
        fc.array(fc.nat(400), { maxLength: 2 }),
        (steps, places) => {
          const next = FLOWS.map(({ sequence = 1000, id = 100 }) => ({ sequence, id }));
          const frames = steps.map(({ flow, length, odd }, i) => {
            const state = next[flow] as { sequence: number; id: number };
            const frame = packet({ ...FLOWS[flow], ...state, payload: data(length, i), ...odd });
            state.sequence = (state.sequence + length) % 2 ** 32;
            state.id = (state.id + 1) % 65536;
            return finished(frame);
          });
          const cuts = places.sort((a, b) => a - b);
          const found = coalesce(frames, cuts);
          merged += frames.length - found.length;
          const again = cutAgain(found, frames);
          expect(flows(again)).toEqual(flows(frames.map(({ bytes }) => bytes)));
        },
      ),
      { seed: SEED, numRuns: 300 },
    );
    expect(merged).toBeGreaterThan(300);
  });

  it("survives hostile headers, and merges nothing that cannot be cut again", () => {
    const base = (i: number): Uint8Array =>
      packet({
        ...(i % 2 === 0 ? { tags: [[0x8100, 1]] } : { version: 6, extensions: [[60, data(6)]] }),
        sequence: 1000 + (i >> 1) * 200,
        id: 100 + (i >> 1),
        payload: data(200, i),
      });
    const edit = fc.record({
      frame: fc.nat(CAPACITY - 1),
      at: fc.nat(110),
      value: fc.nat(255),
      length: fc.oneof({ weight: 3, arbitrary: fc.constant(1000) }, { weight: 1, arbitrary: fc.nat(140) }),
      flags: fc.constantFrom(0, 0, 0, FRAME_CSUM_VALID, FRAME_NEEDS_CSUM, FRAME_GSO),
      start: fc.nat(80),
      offset: fc.constantFrom(16, 0xffff, 0),
    });
    fc.assert(
      fc.property(
        fc.array(edit, { maxLength: 6 }),
        fc.array(fc.nat(140), { maxLength: 3 }),
        (edits, places) => {
          const frames = Array.from({ length: CAPACITY }, (_, i) => finished(base(i)));
          for (const { frame, at, value, length, flags, start, offset } of edits) {
            const bytes = (frames[frame] as TestFrame).bytes.slice(0, length);
            if (at < bytes.length) bytes[at] = value;
            frames[frame] = { ...finished(bytes, flags), start, offset };
          }
          const found = coalesce(
            frames,
            places.sort((a, b) => a - b),
          );
          const again = cutAgain(found, frames).map(hex).sort();
          // frames that claim to be verified, or to have partial checksums, may come back with right ones
          const trusted = frames.some(({ flags }) => (flags & (FRAME_CSUM_VALID | FRAME_NEEDS_CSUM)) !== 0);
          if (!trusted) expect(again).toEqual(frames.map(({ bytes }) => hex(bytes)).sort());
          expect(again.length).toBe(frames.length);
        },
      ),
      { seed: SEED, numRuns: 120 },
    );
  });

  it("survives frames that are nothing but random bytes", () => {
    fc.assert(
      fc.property(
        fc.array(fc.uint8Array({ maxLength: 120 }), { minLength: 1, maxLength: CAPACITY }),
        fc.constantFrom([0x08, 0x00, 0x45], [0x86, 0xdd, 0x60], [0x88, 0xa8, 0x00]),
        (contents, type) => {
          const frames = contents.map((bytes) => {
            const made = Uint8Array.from(bytes);
            if (made.length > 17) made.set(type, 12);
            return finished(made);
          });
          const found = coalesce(frames, [7, 40]).map(({ bytes }) => hex(bytes));
          expect(found).toEqual(frames.map(({ bytes }) => hex(bytes)));
        },
      ),
      { seed: SEED, numRuns: 200 },
    );
  });
});
