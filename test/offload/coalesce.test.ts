import {
  BurstTable,
  COALESCE_ECN,
  COALESCE_TCP4,
  COALESCE_TCP6,
  Coalescer,
  FRAME_CSUM_VALID,
  FRAME_ECN,
  FRAME_GSO,
  FRAME_NEEDS_CSUM,
  GSO_TCP4,
  GSO_TCP6,
} from "vbus/engine";
import { MemorySpace } from "vbus/memory";
import { beforeAll, describe, expect, it } from "vitest";

import { ACK, CWR, data, ECE, FIN, packet, PSH, RST, send, superframe, SYN, URG } from "./packets.js";
import type { PacketOptions } from "./packets.js";
import { plainSegments } from "./plain-segmenter.js";
import { finished, readFrames, Rig, type TestFrame } from "./rig.js";

let rig: Rig;
let coalescer: Coalescer;

beforeAll(async () => {
  rig = await Rig.open();
  coalescer = new Coalescer(rig.space);
});

const asFrame = (frame: Uint8Array | TestFrame): TestFrame =>
  frame instanceof Uint8Array ? finished(frame) : frame;

function run(frames: readonly (Uint8Array | TestFrame)[], kinds?: number, by = coalescer): TestFrame[] {
  rig.clear();
  for (const [i, frame] of frames.entries()) rig.put(i, asFrame(frame));
  const n = by.run(rig.table, 0, frames.length, kinds);
  rig.check();
  return readFrames(by.table, n);
}

/** How many segments each entry holds that comes out; every one is checked to give back what went in. */
function sizes(frames: readonly (Uint8Array | TestFrame)[], kinds?: number, by = coalescer): number[] {
  const found = run(frames, kinds, by);
  const inputs = frames.map((frame) => Buffer.from(asFrame(frame).bytes).toString("hex"));
  const outputs: string[] = [];
  const counts = found.map((frame) => {
    // superframes that went in stay what they were
    const cut = (frame.flags & FRAME_GSO) !== 0 && !inputs.includes(Buffer.from(frame.bytes).toString("hex"));
    const parts = cut ? plainSegments(frame) : [frame.bytes];
    if (typeof parts === "string") throw new Error(`a superframe with bad ${parts}`);
    outputs.push(...parts.map((bytes) => Buffer.from(bytes).toString("hex")));
    return parts.length;
  });
  expect([...outputs].sort()).toEqual([...inputs].sort());
  return counts;
}

describe("coalescing", () => {
  it("merges consecutive segments into one superframe with a partial checksum", () => {
    const [four] = run(send(5, 1448));
    expect(four).toMatchObject({
      flags: FRAME_NEEDS_CSUM | FRAME_GSO,
      kind: GSO_TCP4,
      size: 1448,
      start: 34,
      offset: 16,
    });
    const payload = Array.from({ length: 5 }, (_, i) => data(1448, i + 1)).flat();
    expect(four?.bytes).toEqual(superframe({ payload }, 1448).bytes);
    expect([coalescer.merged, coalescer.superframes]).toEqual([5, 1]);

    const [six] = run(send(5, 1428, { version: 6 }));
    expect(six).toMatchObject({ kind: GSO_TCP6, start: 54, offset: 16, size: 1428 });
    expect(six?.bytes).toEqual(superframe({ version: 6, payload: payloadOf(5, 1428) }, 1428).bytes);
  });

  function payloadOf(n: number, size: number): number[] {
    return Array.from({ length: n }, (_, i) => data(size, i + 1)).flat();
  }

  it.each<[string, PacketOptions]>([
    ["tags", { tags: [[0x8100, 0x2005]] }],
    ["two tags", { tags: [[0x88a8, 1], [0x8100, 2]] }], // prettier-ignore
    ["no options", { tcpOptions: [] }],
    ["all options that fit", { tcpOptions: data(40) }],
    ["IPv6 extension headers", { version: 6, extensions: [[0, data(6)], [60, data(14)]] }], // prettier-ignore
    ["ECN marks and ECE", { tos: 3, flags: ACK | ECE }],
    ["sequence numbers and identification that wrap", { sequence: 0xffffff00, id: 0xfffe }],
    ["one byte each", {}],
  ])("merges segments with %s", (what, options) => {
    expect(sizes(send(4, what === "one byte each" ? 1 : 500, options))).toEqual([4]);
  });

  it("ends a superframe with a shorter segment, which is its last", () => {
    const frames = send(4, 1000, {}, (i) => (i === 2 ? { payload: data(999) } : {}));
    expect(sizes(frames)).toEqual([3, 1]);
  });

  it("… also when what follows goes on exactly there", () => {
    const short = packet({ sequence: 3000, id: 102, payload: data(999) });
    const after = send(2, 999, { sequence: 3999, id: 103 });
    expect(sizes([...send(2, 1000), short, ...after])).toEqual([3, 2]);
  });

  it("does not append a longer segment; it begins anew", () => {
    const [a, , , ] = send(1, 500); // prettier-ignore
    const rest = send(3, 1000, { sequence: 1500, id: 101 });
    expect(sizes([a as Uint8Array, ...rest])).toEqual([1, 3]);
  });

  it.each([
    ["PSH", PSH],
    ["FIN", FIN],
  ])("ends a superframe with %s, and keeps the flag", (_, flag) => {
    const frames = send(5, 1000, {}, (i) => (i === 2 ? { flags: ACK | flag } : {}));
    expect(sizes(frames)).toEqual([3, 2]);
    expect(run(frames)[0]?.bytes[34 + 13]).toBe(ACK | flag);
    expect(sizes(send(3, 1000, {}, (i) => (i === 0 ? { flags: ACK | flag } : {})))).toEqual([1, 2]);
  });

  it.each([
    ["SYN", { flags: ACK | SYN }],
    ["RST", { flags: ACK | RST }],
    ["URG", { flags: ACK | URG }],
    ["other flags", { flags: ACK | ECE }],
    ["a reserved bit", { reserved: 1 }],
    ["another acknowledgement", { ack: 2001 }],
    ["another window", { window: 501 }],
    ["another urgent pointer", { urgent: 1 }],
    ["other options of the same length", { tcpOptions: [1, 1, 8, 10, 0, 0, 0, 8, 0, 0, 0, 9] }],
    ["options of another length", { tcpOptions: [] }],
    ["another time to live", { ttl: 63 }],
    ["another type of service", { tos: 4 }],
    ["congestion reported by the network", { tos: 3 }],
    ["fragmentation allowed", { fragment: 0 }],
    ["the reserved bit of IPv4", { fragment: 0xc000 }],
    ["an identification that does not follow", { id: 7 }],
    ["the identification of the one before", { id: 101 }],
    ["a gap before it", { sequence: 5000 }],
    ["a sequence number seen already", { sequence: 1000 }],
    ["IPv4 options", { ipOptions: [1, 1, 1, 0] }],
    ["a wrong TCP checksum", { spoilChecksum: 1 }],
    ["a wrong IPv4 header checksum", { spoilIpChecksum: 0x100 }],
    ["a length beyond the frame", { spoilLength: 1 }],
    ["no payload", { payload: [] }],
    ["a trailer", { trailer: [1, 2, 3, 4] }],
  ] as [string, PacketOptions][])("does not merge a segment with %s, and lets none overtake it", (_, odd) => {
    const frames = send(7, 1000, {}, (i) => (i === 2 ? odd : {}));
    const found = run(frames);
    expect(found[0]?.bytes.length).toBe(66 + 2000);
    // alone; where it could begin a superframe, what follows does not continue it
    const third = found.findIndex(({ bytes }) => Buffer.compare(bytes, frames[2] as Uint8Array) === 0);
    expect(third).toBe(1);
    expect(sizes(frames)).toEqual([2, 1, 4]);
  });

  it("lets a frame without payload close its flow, though what follows would go on exactly there", () => {
    const six: PacketOptions = { version: 6 };
    const acknowledgement = packet({ ...six, sequence: 3000 });
    const frames = [...send(2, 1000, six), acknowledgement, ...send(2, 1000, { ...six, sequence: 3000 })];
    expect(sizes(frames)).toEqual([2, 1, 2]);
    expect(run(frames)[1]?.bytes).toEqual(acknowledgement);
  });

  it("does not merge headers that are longer than it keeps", () => {
    const options = (n: number): PacketOptions => ({
      version: 6,
      extensions: [[60, data(n)]],
      tcpOptions: data(40),
    });
    expect(sizes(send(3, 500, options(70)))).toEqual([3]);
    expect(sizes(send(3, 500, options(78)))).toEqual([1, 1, 1]);
    expect(sizes(send(3, 500, options(110)))).toEqual([1, 1, 1]);
    expect(sizes(send(3, 500, options(206)))).toEqual([1, 1, 1]);
  });

  it.each([
    ["flow label", { flowLabel: 6 }],
    ["hop limit", { ttl: 63 }],
    ["traffic class", { tos: 8 }],
    ["extension header", { extensions: [[60, data(6, 9)]] }],
    ["routing header that is not used up", { extensions: [[43, [4, 1, 0, 0, 0, 0]]] }],
    ["wrong checksum", { spoilChecksum: 0x8000 }],
    ["length beyond the frame", { spoilLength: 1 }],
  ] as [string, PacketOptions][])("does not merge an IPv6 segment with another %s", (_, odd) => {
    const options: PacketOptions = { version: 6, extensions: [[60, data(6)]] };
    expect(sizes(send(7, 1000, options, (i) => (i === 2 ? odd : {})))).toEqual([2, 1, 4]);
  });

  it.each([
    ["destination address", { destinationMac: [2, 0, 0, 0, 0, 3] }],
    ["source address", { sourceMac: [2, 0, 0, 0, 0, 3] }],
    ["tag", { tags: [[0x8100, 6]] }],
    ["kind of tag", { tags: [[0x88a8, 5]] }],
    ["IP source", { source: [10, 0, 0, 3] }],
    ["IP destination", { destination: [10, 0, 0, 3] }],
    ["source port", { sourcePort: 40001 }],
    ["destination port", { destinationPort: 81 }],
  ] as [string, PacketOptions][])("treats another %s as another flow, which waits for nobody", (_, other) => {
    const options: PacketOptions = { tags: [[0x8100, 5]] };
    const frames = send(6, 1000, options, (i) => (i % 3 === 2 ? other : {}));
    // 0 1 . 3 4 . : a gap where the other flow's segments were taken from
    expect(sizes(frames)).toEqual([2, 1, 2, 1]);
    const mine = send(4, 1000, options);
    const theirs = send(4, 1000, { ...options, ...other });
    const mixed = mine.flatMap((frame, i) => [frame, theirs[i] as Uint8Array]);
    expect(sizes(mixed)).toEqual([4, 4]);
    expect(run(mixed)[1]?.bytes.subarray(0, 66)).not.toEqual(run(mixed)[0]?.bytes.subarray(0, 66));
  });

  it("merges CWR only as the first, marks the superframe, and leaves it alone where ECN is not taken", () => {
    const first = send(4, 1000, {}, (i) => (i === 0 ? { flags: ACK | CWR } : {}));
    expect(sizes(first)).toEqual([4]);
    expect(run(first)[0]?.flags).toBe(FRAME_NEEDS_CSUM | FRAME_GSO | FRAME_ECN);
    expect(sizes(first, COALESCE_TCP4 | COALESCE_TCP6)).toEqual([1, 3]);
    const third = send(4, 1000, {}, (i) => (i === 2 ? { flags: ACK | CWR } : {}));
    expect(sizes(third)).toEqual([2, 2]);
    expect(sizes(send(4, 1000, { flags: ACK | CWR }))).toEqual([1, 1, 1, 1]);
  });

  it("merges only the kinds that the receiver takes", () => {
    const frames = [...send(2, 1000), ...send(2, 1000, { version: 6 })];
    expect(sizes(frames, COALESCE_TCP4)).toEqual([2, 1, 1]);
    expect(sizes(frames, COALESCE_TCP6)).toEqual([1, 1, 2]);
    expect(sizes(frames, COALESCE_ECN)).toEqual([1, 1, 1, 1]);
  });

  it("trims the padding of short frames, and merges nothing that is not padding", () => {
    const short = send(3, 2, { tcpOptions: [] }, () => ({ trailer: [0, 0, 0, 0] }));
    expect(short[0]?.length).toBe(60);
    const [frame, ...others] = run(short);
    expect(others).toEqual([]);
    expect(frame?.bytes).toEqual(superframe({ tcpOptions: [], payload: payloadOf(3, 2) }, 2).bytes);
    const lastPadded = send(3, 1000, { tcpOptions: [] }, (i) =>
      i === 2 ? { payload: [7], trailer: [0, 0, 0, 0, 0] } : {},
    );
    expect(run(lastPadded).map(({ bytes }) => bytes.length)).toEqual([54 + 2001]);
    // 66 bytes and a trailer of 4 are more than the padding of any frame
    expect(sizes(send(3, 12, { tcpOptions: [] }, () => ({ trailer: [0, 0, 0, 0] })))).toEqual([1, 1, 1]);
  });

  it("lets everything else pass in its place", () => {
    const merging = send(4, 1000);
    const others = [
      packet({ protocol: "udp", payload: data(100) }),
      packet({ fragment: 0x2000, payload: data(100) }),
      packet({ version: 6, protocol: "udp", payload: data(100) }),
      new Uint8Array([...data(12), 0x08, 0x06, ...data(46)]),
      new Uint8Array(14),
      new Uint8Array(3),
      new Uint8Array(0),
      packet({ version: 6, extensions: [[44, data(6)]], payload: data(100) }),
      packet({ version: 6, extensions: [[51, data(6)]], payload: data(100) }),
      packet({ payload: data(100) }).subarray(0, 40),
    ];
    const mixed = merging.flatMap((frame, i) => [frame, ...others.slice(i * 3, i * 3 + 3)]);
    const found = run(mixed);
    expect(found.map(({ bytes }) => bytes.length)).toEqual([4066, ...others.map(({ length }) => length)]);
    expect(found.slice(1).map(({ bytes }) => bytes)).toEqual(others);
  });

  it("lets superframes pass, which close their flow", () => {
    const big = superframe({ payload: data(3000), sequence: 3000, id: 102 }, 1000);
    const frames = [...send(2, 1000), big, ...send(2, 1000, { sequence: 6000, id: 105 })];
    expect(sizes(frames)).toEqual([2, 1, 2]);
  });

  it("merges frames whose checksum is still partial, if it begins as it must", () => {
    const parts = (change: (frame: TestFrame) => TestFrame): (Uint8Array | TestFrame)[] =>
      [0, 1, 2, 3].map((i) => {
        const options = { sequence: 1000 + i * 1000, id: 100 + i, payload: data(1000, i) };
        const frame: TestFrame = { ...superframe(options, 0), flags: FRAME_NEEDS_CSUM, kind: 0 };
        return i === 0 ? packet(options) : i === 3 ? change(frame) : frame;
      });
    const whole = run(parts((frame) => frame));
    expect(whole.length).toBe(1);
    expect(whole[0]?.bytes).toEqual(
      superframe({ payload: [0, 1, 2, 3].flatMap((i) => data(1000, i)) }, 1000).bytes,
    );
    expect(run(parts((frame) => ({ ...frame, start: 36 }))).length).toBe(2);
    expect(run(parts((frame) => ({ ...frame, offset: 18 }))).length).toBe(2);
    const wrong = (frame: TestFrame): TestFrame => {
      const bytes = Uint8Array.from(frame.bytes);
      bytes[50] = (bytes[50] as number) ^ 1;
      return { ...frame, bytes };
    };
    expect(run(parts(wrong)).length).toBe(2);
  });

  it("does not sum again what was verified here already", () => {
    const spoilt = send(3, 1000, {}, () => ({ spoilChecksum: 1 }));
    expect(run(spoilt).length).toBe(3);
    expect(run(spoilt.map((bytes) => finished(bytes, FRAME_CSUM_VALID))).length).toBe(1);
    // the other spelling of 0 is right, but segmenting would give the usual one back
    const odd = spoilt.map((bytes) => {
      const frame = Uint8Array.from(bytes);
      frame.set([0xff, 0xff], 34 + 16);
      return finished(frame, FRAME_CSUM_VALID);
    });
    expect(sizes(odd)).toEqual([1, 1, 1]);
  });

  it("makes no superframe longer than 65535 bytes, or than it was told", () => {
    expect(sizes(send(64, 1448))).toEqual([45, 19]);
    expect(run(send(64, 1448)).every(({ bytes }) => bytes.length <= 65535)).toBe(true);
    const small = new Coalescer(rig.space, 64, { maxBytes: 66 + 3000 });
    expect(sizes(send(7, 1000), undefined, small)).toEqual([3, 3, 1]);
    small.close();
    const few = new Coalescer(rig.space, 64, { maxSegments: 4 });
    expect(sizes(send(10, 100), undefined, few)).toEqual([4, 4, 2]);
    few.close();
    const none = new Coalescer(rig.space, 64, { maxSegments: 1 });
    expect(sizes(send(3, 100), undefined, none)).toEqual([1, 1, 1]);
    none.close();
  });

  it("follows 16 flows at a time; one more closes the oldest", () => {
    const flows = (n: number): Uint8Array[] =>
      [0, 1].flatMap((i) =>
        Array.from({ length: n }, (_, port) => send(2, 100, { sourcePort: port })[i] as Uint8Array),
      );
    expect(sizes(flows(16))).toEqual(Array<number>(16).fill(2));
    // each of the second frames finds its flow closed by the one that came just before it
    expect(sizes(flows(17))).toEqual(Array<number>(34).fill(1));
  });

  it("stops merging when there is no room for more pieces", () => {
    rig.clear();
    const frames = send(64, 200);
    const cuts = Array.from({ length: 18 }, (_, i) => 10 + i * 12);
    for (const [i, frame] of frames.entries()) rig.put(i, finished(frame), cuts);
    const n = coalescer.run(rig.table, 0, 64);
    expect(n).toBeGreaterThan(1);
    const back = readFrames(coalescer.table, n).flatMap((frame) => {
      const parts = (frame.flags & FRAME_GSO) === 0 ? [frame.bytes] : plainSegments(frame);
      if (typeof parts === "string") throw new Error(`a superframe with bad ${parts}`);
      return parts;
    });
    expect(back).toEqual(frames);
    rig.check();
  });

  it("takes part of a batch, and nothing at all", () => {
    rig.clear();
    for (const [i, frame] of send(6, 1000).entries()) rig.put(i, finished(frame));
    expect(coalescer.run(rig.table, 2, 5)).toBe(1);
    expect(readFrames(coalescer.table, 1)[0]?.bytes.length).toBe(3066);
    expect(coalescer.table.position(0)).toBe(1002);
    expect(coalescer.run(rig.table, 3, 3)).toBe(0);
    expect([coalescer.merged, coalescer.superframes]).toEqual([0, 0]);
  });

  it("says what is wrong with limits, too many frames and a table of another memory", async () => {
    const elsewhere = BurstTable.allocate(await MemorySpace.host(), 1);
    expect(() => coalescer.run(elsewhere, 0, 1)).toThrow(/another memory/);
    expect(() => coalescer.run(rig.table, 0, 65)).toThrow(/65 frames/);
    expect(() => coalescer.run(rig.table, 1, 0)).toThrow(RangeError);
    expect(() => new Coalescer(rig.space, 64, { maxBytes: 65536 })).toThrow(/maxBytes/);
    expect(() => new Coalescer(rig.space, 64, { maxSegments: 0 })).toThrow(/maxSegments/);
    expect(() => new Coalescer(rig.space, 5000)).toThrow(RangeError);
    const { available } = rig.space.arena;
    const other = new Coalescer(rig.space, 4);
    other.close();
    other.close();
    expect(rig.space.arena.available).toBe(available);
  });
});
