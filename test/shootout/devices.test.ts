import {
  BurstTable,
  ENTRY_OFF_FRAGMENT_LIST,
  ENTRY_OFF_FRAGMENTS,
  FRAME_CSUM_VALID,
  FRAME_NEEDS_CSUM,
  PIECE_OFF_LENGTH,
  PIECE_SIZE,
} from "vbus/engine";
import { MemorySpace } from "vbus/memory";
import { Batch, HostFrames } from "vbus/net";
import { describe, expect, it } from "vitest";
import { buildSegments, FLOWS, pseudoHeaderSum, type SegmentPlan } from "../../bench/devices/segments.js";
import { OutgoingFlow, Verifier } from "../../bench/devices/stack.js";
import { bytePairSum } from "../../bench/rivals/byte-pairs.js";
import {
  FRAME_SIZES,
  OFFLOADS_OFF,
  OFFLOADS_ON,
  ROUND_TRIPS,
  type DeviceCase,
} from "../../bench/shootout/devices/cases.js";

const KINDS = ["tcp4", "tcp6", "udp"] as const;

/** One's complement sum of a transport segment and its pseudo-header: all ones when the checksum is right. */
function sumOf(frame: Uint8Array, kind: (typeof KINDS)[number]): number {
  const sum = pseudoHeaderSum(frame, kind) + bytePairSum(frame.subarray(FLOWS[kind].transport));
  return (sum & 0xffff) + (sum >>> 16);
}

describe.each(KINDS)("a guest's stack, sending %s", (kind) => {
  const plan = (checksum: SegmentPlan["checksum"]): SegmentPlan => ({
    kind,
    length: 1500,
    count: 5,
    checksum,
    segment: null,
  });

  it("completes every checksum that nobody else will, each time a frame is sent", async () => {
    const flow = await OutgoingFlow.make(plan("summed"), 1, 2);
    const bursts = flow.bursts(2, 1 << 20) as Uint8Array[][];
    expect(bursts.map((burst) => burst.length)).toEqual([2, 2, 1]);
    for (let turn = 0; turn < 2; turn++) {
      for (const burst of bursts) {
        for (const frame of burst) frame[1400]! += 7; // the checksum of last time is wrong now
        flow.finish(burst);
        for (const frame of burst) expect(sumOf(frame, kind)).toBe(0xffff);
      }
    }
  });

  it("leaves checksums alone that are complete, or that others complete", async () => {
    for (const checksum of ["complete", "partial"] as const) {
      const flow = await OutgoingFlow.make(plan(checksum), 1, 2);
      const [burst = []] = flow.bursts(5, 1 << 20);
      flow.finish(burst);
      expect(burst).toEqual(
        buildSegments(plan(checksum), 1, 2).map((frame) =>
          frame.checksum === undefined ? frame.data : frame,
        ),
      );
    }
  });

  it("sends ordinary frames, and superframes that stand for some, of the same headers", () => {
    const superframe = { ...plan("partial"), length: 65_536, segment: 1500 - FLOWS[kind].headers };
    for (const { data, gso, checksum } of buildSegments(superframe, 1, 2)) {
      expect(gso).toEqual({ kind, size: superframe.segment, headerLength: FLOWS[kind].headers });
      expect(checksum?.start).toBe(FLOWS[kind].transport);
      expect(data).toHaveLength(65_536);
    }
  });
});

describe.each(KINDS)("a guest's stack, receiving %s", (kind) => {
  it("accepts what is right, finds one wrong bit, and counts what it verified", async () => {
    const space = await MemorySpace.host();
    const [good] = buildSegments({ kind, length: 1499, count: 1, checksum: "complete", segment: null }, 1, 2);
    const frame = good!.data as Uint8Array;
    const bad = frame.slice();
    bad[1498]! ^= 0x10;
    const { batch } = HostFrames.of(space, [frame, bad]);
    const verifier = new Verifier();
    expect([verifier.accepts(batch, 0, kind), verifier.accepts(batch, 1, kind)]).toEqual([true, false]);
    expect(verifier.summed).toBe(2);
  });

  it("believes a host that has verified a frame, or leaves its checksum open", async () => {
    const space = await MemorySpace.host();
    const [open] = buildSegments({ kind, length: 100, count: 1, checksum: "partial", segment: null }, 1, 2);
    const frames = new HostFrames(space);
    frames.add(open!.data as Uint8Array, { flags: FRAME_NEEDS_CSUM });
    frames.add(open!.data as Uint8Array, { flags: FRAME_CSUM_VALID });
    const verifier = new Verifier();
    expect([0, 1].map((i) => verifier.accepts(frames.batch, i, kind))).toEqual([true, true]);
    expect(verifier.summed).toBe(0);
  });

  it("sums frames that lie in several pieces of any length", async () => {
    const space = await MemorySpace.host();
    const [good] = buildSegments({ kind, length: 1500, count: 1, checksum: "complete", segment: null }, 1, 2);
    const frame = good!.data as Uint8Array;
    const address = space.allocate(4096, 64);
    const table = BurstTable.allocate(space, 1);
    for (const cut of [FLOWS[kind].headers, 101, 750, 1499]) {
      const list = space.allocate(32, 16);
      const [first, second] = [address, address + 2048 + (cut & 1)];
      space.bytes.set(frame.subarray(0, cut), first);
      space.bytes.set(frame.subarray(cut), second);
      table.setBuffer(0, first, frame.length);
      scatter(table, list, [
        [first, cut],
        [second, frame.length - cut],
      ]);
      const batch = new Batch(table);
      batch.count = 1;
      expect(new Verifier().accepts(batch, 0, kind), `cut at ${cut}`).toBe(true);
      space.bytes[second + frame.length - cut - 1]! ^= 1;
      expect(new Verifier().accepts(batch, 0, kind), `cut at ${cut}, damaged`).toBe(false);
    }
  });
});

/** Lets entry 0 consist of pieces. */
function scatter(table: BurstTable, list: number, pieces: readonly (readonly [number, number])[]): void {
  const { data } = table.space.engine;
  data.setUint16(table.entry(0) + ENTRY_OFF_FRAGMENTS, pieces.length, true);
  data.setUint32(table.entry(0) + ENTRY_OFF_FRAGMENT_LIST, list, true);
  pieces.forEach(([address, length], k) => {
    data.setUint32(list + k * PIECE_SIZE, address, true);
    data.setUint32(list + k * PIECE_SIZE + PIECE_OFF_LENGTH, length, true);
  });
}

describe("the rows of the device studies", () => {
  const studies: [string, readonly DeviceCase[]][] = [
    ["off", OFFLOADS_OFF],
    ["on", OFFLOADS_ON],
    ["sizes", FRAME_SIZES],
    ["trips", [ROUND_TRIPS]],
  ];

  it.each(studies)("have names of their own, and a base among them: %s", (_name, cases) => {
    const names = cases.map(({ name }) => name);
    expect(new Set(names).size).toBe(names.length);
    for (const { base, quick } of cases) {
      expect(names).toContain(base);
      const row = cases.find(({ name }) => name === base)!;
      if (quick) expect(row.quick, `${base} is in every report that needs it`).toBe(true);
    }
  });

  it("send superframes just where the card may, and leave no checksum to a card that takes none", () => {
    for (const { plan, sender, name } of [...OFFLOADS_OFF, ...OFFLOADS_ON]) {
      expect(plan.segment !== null, name).toBe(sender.checksum && sender[plan.kind!]);
      expect(plan.checksum, name).toBe(sender.checksum ? "partial" : "summed");
    }
  });

  it("switch each offload of each direction off alone, and on with no more than it needs", () => {
    const switched = (cases: readonly DeviceCase[], value: boolean): Set<string> =>
      new Set(
        cases.flatMap(({ sender, receiver }) =>
          (["checksum", "tcp4", "tcp6", "udp", "mergeable"] as const).flatMap((name) => [
            ...(sender[name] === value && Object.values(sender).filter((on) => on === value).length <= 2
              ? [`out ${name}`]
              : []),
            ...(receiver[name] === value && Object.values(receiver).filter((on) => on === value).length <= 3
              ? [`in ${name}`]
              : []),
          ]),
        ),
      );
    const out = ["out checksum", "out tcp4", "out tcp6", "out udp"];
    const into = ["in checksum", "in tcp4", "in tcp6", "in udp", "in mergeable"];
    for (const name of [...out, ...into]) expect(switched(OFFLOADS_OFF, false)).toContain(name);
    // UDP is never merged by the host, so a guest that takes such superframes finds none when nobody sends them
    for (const name of [...out, ...into.filter((one) => one !== "in udp")])
      expect(switched(OFFLOADS_ON, true)).toContain(name);
  });
});
