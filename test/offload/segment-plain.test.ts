import fc from "fast-check";
import { FRAME_NEEDS_CSUM, Segmenter } from "vbus/engine";
import { beforeAll, beforeEach, describe, expect, it } from "vitest";

import { seedOr } from "../engine/seed.js";
import { ACK, CWR, data, ECE, FIN, packet, PSH, superframe, type PacketOptions } from "./packets.js";
import { plainSegments } from "./plain-segmenter.js";
import { readFrames, Rig, type TestFrame } from "./rig.js";

const SEED = seedOr(791);
let rig: Rig;
let segmenter: Segmenter;

beforeAll(async () => {
  rig = await Rig.open(1);
  segmenter = new Segmenter(rig.space, 16);
});

beforeEach(() => {
  rig.clear();
});

function cut(frame: TestFrame, cuts: readonly number[] = []): Uint8Array[] {
  rig.clear();
  rig.put(0, frame, cuts);
  const count = segmenter.begin(rig.table, 0);
  expect(count).toBeGreaterThan(0);
  const found: Uint8Array[] = [];
  for (let n = segmenter.next(); n > 0; n = segmenter.next()) {
    found.push(...readFrames(segmenter.table, n).map(({ bytes }) => bytes));
  }
  expect(found.length).toBe(count);
  rig.check();
  return found;
}

/** What the wire would show of each segment, built one by one. */
function segmentsOf(options: PacketOptions, size: number): Uint8Array[] {
  const payload = Array.from(options.payload ?? []);
  const count = Math.ceil(payload.length / size);
  return Array.from({ length: count }, (_, i) => {
    let flags = options.flags ?? ACK;
    if (i !== count - 1) flags &= ~(FIN | PSH);
    if (i !== 0) flags &= ~CWR;
    return packet({
      ...options,
      payload: payload.slice(i * size, (i + 1) * size),
      id: ((options.id ?? 100) + i) % 65536,
      sequence: ((options.sequence ?? 1000) + i * size) % 2 ** 32,
      flags,
    });
  });
}

const extension = fc.oneof(
  fc
    .tuple(fc.constantFrom(0, 60), fc.constantFrom(6, 14, 30))
    .map(([type, n]): [number, number[]] => [type, data(n)]),
  // a routing header that has been used up: the address in the packet is the last
  fc.constant<[number, number[]]>([43, [4, 0, 0, 0, 0, 0]]),
);

const options = fc.record({
  version: fc.constantFrom<4 | 6>(4, 6),
  protocol: fc.constantFrom<"tcp" | "udp">("tcp", "tcp", "udp"),
  tags: fc.array(fc.tuple(fc.constantFrom(0x8100, 0x88a8), fc.nat(0xffff)), { maxLength: 2 }),
  tos: fc.nat(255),
  ttl: fc.nat(255),
  id: fc.oneof(fc.nat(0xffff), fc.integer({ min: 0xfff0, max: 0xffff })),
  fragment: fc.constantFrom(0, 0x4000, 0x8000),
  ipOptions: fc.nat(10).map((words) => data(words * 4, 3)),
  extensions: fc.array(extension, { maxLength: 4 }),
  sequence: fc.oneof(fc.nat(0xffffffff), fc.integer({ min: 0xfffffff0, max: 0xffffffff })),
  ack: fc.nat(0xffffffff),
  flags: fc.nat(255),
  reserved: fc.nat(15),
  window: fc.nat(0xffff),
  urgent: fc.nat(0xffff),
  tcpOptions: fc.nat(10).map((words) => data(words * 4, 5)),
});

describe("segmenting what no capture has", () => {
  it("equals a plain segmenter, and frames built one by one, for headers, sizes and scatterings of all kinds", () => {
    fc.assert(
      fc.property(
        options,
        fc.integer({ min: 1, max: 1600 }),
        fc.oneof(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 1, max: 3000 })),
        fc.array(fc.nat(), { maxLength: 18 }),
        fc.nat(),
        (made, size, length, places, seed) => {
          const whole = { ...made, payload: data(Math.min(length, size * 60), seed) };
          const frame = superframe(whole, size);
          const cuts = places.map((at) => at % frame.bytes.length).sort((a, b) => a - b);
          const found = cut(frame, cuts);
          expect(found).toEqual(plainSegments(frame));
          expect(found).toEqual(segmentsOf(whole, size));
        },
      ),
      { seed: SEED, numRuns: 400 },
    );
  });

  it("… also when the payload is an exact multiple of the size, or one segment, or begins and ends in other pieces", () => {
    for (const size of [1, 2, 7, 536, 1448]) {
      for (const length of [size - 1, size, size + 1, size * 3 - 1, size * 3, size * 3 + 1]) {
        if (length === 0) continue;
        const whole: PacketOptions = { payload: data(length, size), flags: ACK | PSH | FIN | CWR };
        const frame = superframe(whole, size);
        const headers = frame.bytes.length - length;
        for (const cuts of [[], [headers], [headers - 1], [headers + 1], [14, 34, headers, headers + size]]) {
          expect(
            cut(
              frame,
              cuts.filter((at) => at < frame.bytes.length),
            ),
          ).toEqual(segmentsOf(whole, size));
        }
      }
    }
  });

  it("accepts a size that is larger than the payload, as long as the one segment fits", () => {
    const whole = { payload: data(1000) };
    expect(cut(superframe(whole, 65535))).toEqual([packet(whole)]);
  });

  it("keeps the destination that a routing header leads to in the checksum", () => {
    const finalDestination = [0xfd, ...data(15, 77)];
    const routing: [number, number[]] = [43, [2, 1, 0, 0, 0, 0, ...finalDestination]];
    const whole: PacketOptions = { version: 6, extensions: [routing], finalDestination, payload: data(5000) };
    expect(cut(superframe(whole, 1300))).toEqual(segmentsOf(whole, 1300));
  });

  it("sums addresses itself when the sender left the checksum to us", () => {
    for (const version of [4, 6] as const) {
      for (const protocol of ["tcp", "udp"] as const) {
        const whole: PacketOptions = { version, protocol, payload: data(3000) };
        const frame = superframe(whole, 1000);
        expect(cut({ ...frame, flags: frame.flags & ~FRAME_NEEDS_CSUM, start: 0, offset: 0 })).toEqual(
          segmentsOf(whole, 1000),
        );
      }
    }
  });

  it("repeats ECN marks and ECE on every segment, CWR on the first only", () => {
    const whole: PacketOptions = { tos: 3, flags: ACK | ECE | CWR, payload: data(2000) };
    const flags = cut(superframe(whole, 500)).map((frame) => frame[14 + 20 + 13]);
    expect(flags).toEqual([ACK | ECE | CWR, ACK | ECE, ACK | ECE, ACK | ECE]);
  });

  it("writes a UDP checksum of 0 as 0xffff, a TCP one as it is", () => {
    for (const protocol of ["udp", "tcp"] as const) {
      const at = protocol === "udp" ? 14 + 20 + 6 : 14 + 20 + 16;
      const first: PacketOptions = { protocol, payload: [...data(98), 0, 0] };
      // what is missing to a sum of all ones goes into the last word
      const bare = packet(first);
      const missing = [bare[at] as number, bare[at + 1] as number];
      const whole: PacketOptions = { protocol, payload: [...data(98), ...missing, ...data(50)] };
      const [segment] = cut(superframe(whole, 100));
      const expected = protocol === "udp" ? [0xff, 0xff] : [0, 0];
      expect([segment?.[at], segment?.[at + 1]]).toEqual(expected);
    }
  });

  it("goes on where it stopped when frames are taken one at a time, and starts anew with begin", () => {
    const one = new Segmenter(rig.space, 1);
    const whole = { payload: data(10_000) };
    const expected = segmentsOf(whole, 1448);
    rig.put(0, superframe(whole, 1448), [60, 61, 62, 5000]);
    for (const stop of [3, expected.length]) {
      expect(one.begin(rig.table, 0)).toBe(expected.length);
      for (const segment of expected.slice(0, stop)) {
        expect(one.next()).toBe(1);
        expect(readFrames(one.table, 1)[0]?.bytes).toEqual(segment);
      }
    }
    expect([one.next(), one.next()]).toEqual([0, 0]);
    expect(one.longest).toBe(1514);
    one.close();
    one.close();
  });

  it("takes superframes in far more pieces than a guest may send, as coalescing makes them", () => {
    const one = new Segmenter(rig.space, 1);
    const whole = { payload: data(3000) };
    const frame = superframe(whole, 1500);
    rig.put(
      0,
      frame,
      Array.from({ length: 2900 }, (_, i) => i + 100),
    );
    expect(one.begin(rig.table, 0)).toBe(2);
    const found = segmentsOf(whole, 1500).map(() => {
      expect(one.next()).toBe(1);
      return readFrames(one.table, 1)[0]?.bytes;
    });
    expect(found).toEqual(segmentsOf(whole, 1500));
    one.close();
  });
});
