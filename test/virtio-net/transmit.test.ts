import {
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_IN_ORDER,
  VIRTIO_F_INDIRECT_DESC,
  VIRTIO_F_RING_PACKED,
  VIRTIO_NET_F_CSUM,
  VIRTIO_NET_F_HOST_TSO4,
  VIRTIO_NET_F_MTU,
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_GSO_ECN,
  VIRTIO_NET_HDR_GSO_TCPV4,
  VIRTIO_NET_HDR_GSO_TCPV6,
  VIRTIO_NET_HDR_GSO_UDP,
  VIRTIO_NET_HDR_GSO_UDP_L4,
} from "vbus/abi";
import { FRAME_ECN, FRAME_GSO, FRAME_NEEDS_CSUM, GSO_TCP4, GSO_TCP6, GSO_UDP_L4 } from "vbus/engine";
import { OFFLOAD_ALL, OFFLOAD_CSUM } from "vbus/net";
import { describe, expect, it } from "vitest";
import { superframe } from "../offload/packets.js";
import { testFrame } from "../venet/machine.js";
import { bit, NetMachine, type Header } from "./machine.js";

const TO = [2, 0, 0, 0, 0, 1];
const MAC = [2, 0, 0, 0, 0, 0x0a];

async function started(wanted?: bigint, ring = 0n, options = {}): Promise<NetMachine> {
  const machine = await NetMachine.create(options);
  await machine.start(wanted, ring);
  return machine;
}

const RINGS: [string, bigint][] = [
  ["split", 0n],
  ["split, event index, indirect", bit(VIRTIO_F_EVENT_IDX, VIRTIO_F_INDIRECT_DESC)],
  ["packed", bit(VIRTIO_F_RING_PACKED)],
  ["packed, event index, indirect", bit(VIRTIO_F_RING_PACKED, VIRTIO_F_EVENT_IDX, VIRTIO_F_INDIRECT_DESC)],
  ["packed, in order", bit(VIRTIO_F_RING_PACKED, VIRTIO_F_IN_ORDER)],
];

describe.each(RINGS)("frames sent on a %s queue", (_name, ring) => {
  it.each([
    ["in one piece with the header", []],
    ["behind a header of its own", [12]],
    ["behind a header that is split", [5, 12]],
    ["behind a header byte by byte", [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]],
    ["whose first bytes share the header's piece", [20]],
    ["in many pieces", [12, 13, 14, 20, 21, 300, 301]],
    ["in pieces of which one crosses the header", [7, 40, 41]],
  ])("arrive whole %s", async (_how, cuts) => {
    const machine = await started(undefined, ring);
    const frames = [60, 61, 1514].map((length, n) => testFrame(TO, MAC, length, n));
    for (const frame of frames)
      machine.send(
        frame,
        {},
        cuts.filter((cut) => cut < frame.length),
      );
    machine.scheduler.run();
    expect(machine.port.sent).toEqual(frames);
    expect(machine.tx.reap().map(({ written }) => written)).toEqual([0, 0, 0]);
    expect(machine.card.statistics.tx).toMatchObject({ frames: 3, passed: 3, bytes: 1635 });
    expect(machine.errors).toEqual([]);
  });

  it("wait in the ring while the network has no room, in order, and nothing is lost", async () => {
    const machine = await started(undefined, ring);
    machine.port.room = 3;
    const frames = Array.from({ length: 20 }, (_, n) => testFrame(TO, MAC, 60 + n, n));
    for (const [n, frame] of frames.entries()) machine.send(frame, {}, n % 2 === 0 ? [] : [12]);
    machine.scheduler.run();
    expect(machine.port.sent).toHaveLength(3);
    expect(machine.tx.reap()).toHaveLength(3);
    for (let n = 0; n < 17; n++) {
      machine.port.open(1);
      machine.scheduler.run();
    }
    expect(machine.port.sent).toEqual(frames);
    expect(machine.tx.reap()).toHaveLength(17);
    machine.assertBalanced();
  });

  it("many times what the queue holds are sent with fewer interrupts than frames", async () => {
    const machine = await started(undefined, ring);
    let sent = 0;
    for (let round = 0; round < 40; round++) {
      for (let n = 0; n < 50; n++) machine.send(testFrame(TO, MAC, 60 + (n % 40), sent++));
      machine.scheduler.run();
      for (const { pieces } of machine.tx.reap()) for (const { gpa } of pieces) machine.guest.ram.free(gpa);
    }
    expect(machine.port.sent).toHaveLength(2000);
    expect(machine.tx.interrupts).toBeLessThanOrEqual(80);
    machine.assertBalanced();
  });
});

describe("frames that a driver must not send are dropped, counted, and given back, their neighbours delivered", () => {
  const word = (value: number): Header => ({
    flags: VIRTIO_NET_HDR_F_NEEDS_CSUM,
    ...{ start: value, offset: 0 },
  });

  it.each<[string, string, (machine: NetMachine) => void]>([
    ["shorter than an Ethernet header", "undersize", (m) => m.send(testFrame(TO, MAC, 14).subarray(0, 13))],
    ["of no bytes", "undersize", (m) => m.send(new Uint8Array(0))],
    ["of no bytes behind a header in pieces", "undersize", (m) => m.send(new Uint8Array(0), {}, [6])],
    ["longer than the MTU", "oversize", (m) => m.send(testFrame(TO, MAC, 1515))],
    ["shorter than their header", "bad-descriptor", (m) => m.tx.add(m.place(new Uint8Array(11)), [])],
    [
      "shorter than their header, in pieces",
      "bad-descriptor",
      (m) => m.tx.add(m.place(new Uint8Array(5), new Uint8Array(6)), []),
    ],
    ["that are no frames but room for one", "bad-descriptor", (m) => m.tx.add([], m.room(2000))],
    ["that are room for one, in pieces", "bad-descriptor", (m) => m.tx.add([], m.room(12, 2000))],
    ["longer than anything", "bad-descriptor", (m) => m.send(new Uint8Array(65537))],
    ["with a checksum outside", "bad-offload", (m) => m.send(testFrame(TO, MAC, 60), word(59))],
    [
      "with a checksum far outside",
      "bad-offload",
      (m) => m.send(testFrame(TO, MAC, 60), { flags: 1, start: 65535, offset: 65535 }),
    ],
    [
      "with a kind that does not exist",
      "bad-offload",
      (m) => m.send(testFrame(TO, MAC, 60), { flags: 1, start: 34, offset: 6, type: 2, size: 500 }),
    ],
    [
      "to be fragmented",
      "bad-offload",
      (m) =>
        m.send(testFrame(TO, MAC, 60), {
          flags: 1,
          start: 34,
          offset: 6,
          type: VIRTIO_NET_HDR_GSO_UDP,
          size: 500,
        }),
    ],
    [
      "with ECN alone",
      "bad-offload",
      (m) =>
        m.send(testFrame(TO, MAC, 60), {
          flags: 1,
          start: 34,
          offset: 6,
          type: VIRTIO_NET_HDR_GSO_ECN,
          size: 500,
        }),
    ],
    [
      "with segments of no bytes",
      "bad-offload",
      (m) =>
        m.send(testFrame(TO, MAC, 60), { flags: 1, start: 34, offset: 16, type: VIRTIO_NET_HDR_GSO_TCPV4 }),
    ],
    [
      "superframes without a partial checksum",
      "bad-offload",
      (m) => m.send(testFrame(TO, MAC, 60), { type: VIRTIO_NET_HDR_GSO_TCPV4, size: 500 }),
    ],
    [
      "superframes of something else",
      "bad-offload",
      (m) =>
        m.send(testFrame(TO, MAC, 600), {
          flags: 1,
          start: 34,
          offset: 16,
          type: VIRTIO_NET_HDR_GSO_TCPV4,
          size: 100,
        }),
    ],
  ])("%s", async (_what, reason, send) => {
    const machine = await started();
    const neighbours = [testFrame(TO, MAC, 60, 1), testFrame(TO, MAC, 61, 2)] as const;
    machine.send(neighbours[0]);
    send(machine);
    machine.send(neighbours[1]);
    machine.scheduler.run();
    expect(machine.port.sent).toEqual([...neighbours]);
    expect(machine.tx.reap()).toHaveLength(3);
    expect(machine.card.statistics.tx).toMatchObject({ frames: 3, passed: 2, drops: { [reason]: 1 } });
    machine.assertBalanced();
    expect(machine.errors).toEqual([]);
    expect(machine.transport.device.status & 64, "no reset is needed").toBe(0);
  });

  it("flags and members that mean nothing are ignored", async () => {
    const machine = await started();
    const frame = testFrame(TO, MAC, 60);
    machine.send(frame, { flags: 0xfe, headerLength: 999, size: 77, start: 5000, offset: 6000, buffers: 9 });
    machine.scheduler.run();
    expect(machine.port.sent).toEqual([frame]);
    expect(machine.port.needs[0]?.flags).toBe(0);
  });

  it("a tag makes room for itself, and no more", async () => {
    const machine = await started();
    const tagged = (length: number): Uint8Array => {
      const frame = testFrame(TO, MAC, length);
      frame.set([0x81, 0x00], 12);
      return frame;
    };
    machine.send(tagged(1518));
    machine.send(tagged(1519));
    machine.scheduler.run();
    expect(machine.port.sent.map((frame) => frame.length)).toEqual([1518]);
    expect(machine.card.statistics.tx.drops).toEqual({ oversize: 1 });
  });

  it("checksums are refused that were not negotiated, and so are superframes", async () => {
    const machine = await started(bit(VIRTIO_NET_F_MTU));
    machine.send(testFrame(TO, MAC, 60), { flags: 1, start: 34, offset: 6 });
    const { bytes } = superframe({ payload: new Array<number>(3000).fill(1) }, 1000);
    machine.send(bytes, { flags: 1, start: 34, offset: 16, type: VIRTIO_NET_HDR_GSO_TCPV4, size: 1000 });
    await machine.start(bit(VIRTIO_NET_F_CSUM));
    machine.send(testFrame(TO, MAC, 60), { flags: 1, start: 34, offset: 6 });
    machine.send(bytes, { flags: 1, start: 34, offset: 16, type: VIRTIO_NET_HDR_GSO_TCPV4, size: 1000 });
    machine.scheduler.run();
    expect(machine.port.sent, "the checksum is completed").toHaveLength(1);
    expect(machine.card.statistics).toMatchObject({
      checksummed: 1,
      tx: { drops: { "bad-offload": 1, closed: 2 } },
    });
    machine.assertBalanced();
  });

  it("ECN is refused that was not negotiated", async () => {
    const machine = await started(bit(VIRTIO_NET_F_CSUM, VIRTIO_NET_F_HOST_TSO4));
    const { bytes } = superframe({ payload: new Array<number>(3000).fill(1) }, 1000);
    const header = { flags: 1, start: 34, offset: 16, size: 1000 };
    machine.send(bytes, { ...header, type: VIRTIO_NET_HDR_GSO_TCPV4 | VIRTIO_NET_HDR_GSO_ECN });
    machine.send(bytes, { ...header, type: VIRTIO_NET_HDR_GSO_TCPV4 });
    machine.scheduler.run();
    expect(machine.port.sent).toHaveLength(3);
    expect(machine.card.statistics.tx.drops).toEqual({ "bad-offload": 1 });
  });
});

describe("frames that leave work to the card", () => {
  const CASES: [string, number, number, Parameters<typeof superframe>[0]][] = [
    ["TCP/IPv4", VIRTIO_NET_HDR_GSO_TCPV4, GSO_TCP4, { version: 4, protocol: "tcp" }],
    ["TCP/IPv6", VIRTIO_NET_HDR_GSO_TCPV6, GSO_TCP6, { version: 6, protocol: "tcp" }],
    ["UDP/IPv4", VIRTIO_NET_HDR_GSO_UDP_L4, GSO_UDP_L4, { version: 4, protocol: "udp" }],
    ["UDP/IPv6", VIRTIO_NET_HDR_GSO_UDP_L4, GSO_UDP_L4, { version: 6, protocol: "udp" }],
  ];

  it.each(CASES)(
    "pass untouched to a network that takes %s superframes",
    async (_name, type, kind, options) => {
      const machine = await started();
      machine.port.offloads = OFFLOAD_ALL;
      const frame = superframe(
        { ...options, payload: Array.from({ length: 5000 }, (_, i) => i & 255) },
        1400,
      );
      machine.send(
        frame.bytes,
        { flags: 1, type, size: 1400, start: frame.start, offset: frame.offset },
        [12, 66],
      );
      machine.scheduler.run();
      expect(machine.port.sent).toEqual([frame.bytes]);
      expect(machine.port.needs).toEqual([
        { flags: FRAME_NEEDS_CSUM | FRAME_GSO, kind, size: 1400, start: frame.start, offset: frame.offset },
      ]);
      expect(machine.card.statistics).toMatchObject({
        superframes_passed: 1,
        segmented: 0,
        tx: { frames: 1, passed: 1 },
      });
    },
  );

  it.each(CASES)("are cut for one that takes no %s superframes", async (_name, type, _kind, options) => {
    const machine = await started();
    const frame = superframe({ ...options, payload: Array.from({ length: 5000 }, (_, i) => i & 255) }, 1400);
    machine.send(frame.bytes, { flags: 1, type, size: 1400, start: frame.start, offset: frame.offset });
    machine.scheduler.run();
    expect(machine.port.sent).toHaveLength(4);
    expect(machine.port.needs.every(({ flags }) => flags === 0)).toBe(true);
    expect(machine.card.statistics).toMatchObject({
      segmented: 1,
      segments: 4,
      tx: { frames: 1, replicated: 3, passed: 4 },
    });
    machine.assertBalanced();
  });

  it("keep their place when the network takes only part of what a superframe became", async () => {
    const machine = await started();
    machine.port.room = 2;
    const frame = superframe({ payload: Array.from({ length: 5000 }, (_, i) => i & 255) }, 1000);
    machine.send(frame.bytes, {
      flags: 1,
      type: VIRTIO_NET_HDR_GSO_TCPV4,
      size: 1000,
      start: frame.start,
      offset: frame.offset,
    });
    const last = testFrame(TO, MAC, 60);
    machine.send(last);
    machine.scheduler.run();
    expect(machine.port.sent).toHaveLength(2);
    expect(machine.card.statistics.tx.held).toBe(3);
    expect(machine.tx.reap()).toHaveLength(1);
    machine.assertBalanced();
    for (let n = 0; n < 4; n++) {
      machine.port.open(1);
      machine.scheduler.run();
    }
    expect(machine.port.sent).toHaveLength(6);
    expect(machine.port.sent[5]).toEqual(last);
    machine.assertBalanced();
  });

  it("carry ECN along", async () => {
    const machine = await started();
    machine.port.offloads = OFFLOAD_ALL;
    const frame = superframe({ payload: new Array<number>(3000).fill(1) }, 1000);
    const type = VIRTIO_NET_HDR_GSO_TCPV4 | VIRTIO_NET_HDR_GSO_ECN;
    machine.send(frame.bytes, { flags: 1, type, size: 1000, start: frame.start, offset: frame.offset });
    machine.scheduler.run();
    expect(machine.port.needs[0]?.flags).toBe(FRAME_NEEDS_CSUM | FRAME_GSO | FRAME_ECN);
  });

  it("have their checksums completed, or not, as the network says", async () => {
    const machine = await started();
    const frame = testFrame(TO, MAC, 60);
    machine.send(frame, { flags: 1, start: 34, offset: 6 });
    machine.scheduler.run();
    machine.port.offloads = OFFLOAD_CSUM;
    machine.send(frame, { flags: 1, start: 34, offset: 6 });
    machine.scheduler.run();
    expect(machine.port.needs.map(({ flags }) => flags)).toEqual([0, FRAME_NEEDS_CSUM]);
    expect(machine.port.sent[0]).not.toEqual(frame);
    expect(machine.port.sent[1]).toEqual(frame);
    expect(machine.card.statistics.checksummed).toBe(1);
  });
});
