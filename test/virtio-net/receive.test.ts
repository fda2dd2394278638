import {
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_IN_ORDER,
  VIRTIO_F_INDIRECT_DESC,
  VIRTIO_F_RING_PACKED,
  VIRTIO_NET_F_CTRL_GUEST_OFFLOADS,
  VIRTIO_NET_F_CTRL_VQ,
  VIRTIO_NET_F_GUEST_CSUM,
  VIRTIO_NET_F_GUEST_TSO4,
  VIRTIO_NET_F_MRG_RXBUF,
  VIRTIO_NET_F_MTU,
  VIRTIO_NET_HDR_F_DATA_VALID,
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_GSO_TCPV4,
} from "vbus/abi";
import { FRAME_CSUM_VALID, FRAME_NEEDS_CSUM } from "vbus/engine";
import { MemorySpace } from "vbus/memory";
import { HostFrames, OFFLOAD_ALL, OFFLOAD_CSUM, OFFLOAD_TCP4, type FrameOffload } from "vbus/net";
import { describe, expect, it } from "vitest";
import { data, send, superframe } from "../offload/packets.js";
import { testFrame } from "../venet/machine.js";
import { bit, NEEDS_RESET, NetMachine } from "./machine.js";

const TO = [2, 0, 0, 0, 0, 0x0a];
const FROM = [2, 0, 0, 0, 0, 1];

async function started(wanted?: bigint, ring = 0n, options = {}): Promise<NetMachine> {
  const machine = await NetMachine.create(options);
  await machine.start(wanted, ring);
  return machine;
}

/** The network offers frames. Returns how many were taken. */
async function offer(
  machine: NetMachine,
  frames: readonly (Uint8Array | [Uint8Array, FrameOffload])[],
): Promise<number> {
  const space = await MemorySpace.host(2 << 20);
  const host = new HostFrames(space, Math.max(1, frames.length), 1 << 20);
  for (const frame of frames) {
    if (frame instanceof Uint8Array) host.add(frame);
    else host.add(frame[0], frame[1]);
  }
  const peer = machine.port.peer;
  if (peer === null) throw new Error("nobody is attached");
  const taken = peer.receive(host.batch, 0, frames.length);
  machine.scheduler.run();
  return taken;
}

const frames = (...lengths: number[]): Uint8Array[] =>
  lengths.map((length, n) => testFrame(TO, FROM, length, n));

const PLAIN = bit(VIRTIO_NET_F_MTU);
const MERGEABLE = bit(VIRTIO_NET_F_MTU, VIRTIO_NET_F_MRG_RXBUF);

const RINGS: [string, bigint][] = [
  ["split", 0n],
  ["split, event index, indirect", bit(VIRTIO_F_EVENT_IDX, VIRTIO_F_INDIRECT_DESC)],
  ["packed", bit(VIRTIO_F_RING_PACKED)],
  ["packed, event index, in order", bit(VIRTIO_F_RING_PACKED, VIRTIO_F_EVENT_IDX, VIRTIO_F_IN_ORDER)],
];

describe.each(RINGS)("frames received on a %s queue", (_name, ring) => {
  it.each([
    ["one piece", [1526], "small"],
    ["a header and a frame", [12, 1514], "small"],
    ["a header that is split", [5, 7, 1514], "small"],
    ["a header and the beginning of the frame", [20, 1506], "all"],
    ["a header byte by byte", [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1514], "small"],
    ["many pieces", [12, 1, 13, 100, 200, 300, 900], "all"],
  ])("come whole into buffers of %s", async (_how, pieces, staged) => {
    const machine = await started(PLAIN, ring);
    machine.post(4, ...pieces);
    const sent = frames(14, 60, 61, 1514);
    expect(await offer(machine, sent)).toBe(4);
    const received = machine.received();
    expect(received.map(({ frame }) => frame)).toEqual(sent);
    for (const { header } of received)
      expect(header).toEqual({
        flags: 0,
        type: 0,
        headerLength: 0,
        size: 0,
        start: 0,
        offset: 0,
        buffers: 1,
      });
    expect(machine.card.statistics.rx).toMatchObject({ frames: 4, passed: 4, bytes: 1649 });
    // from another memory: small and scattered frames are gathered, carried over and scattered
    const stagedBytes = staged === "all" ? 1649 : 1649 - 1514;
    expect(machine.card.statistics.rxCopiedBytes).toBe(1649 + 2 * stagedBytes);
    expect(machine.rx.interrupts).toBe(1);
  });

  it("come in one mergeable buffer each while they fit", async () => {
    const machine = await started(MERGEABLE, ring);
    machine.post(3, 1526);
    const sent = frames(60, 1514, 100);
    expect(await offer(machine, sent)).toBe(3);
    expect(machine.received().map(({ frame, buffers }) => [frame, buffers])).toEqual(
      sent.map((frame) => [frame, 1]),
    );
  });

  it.each([
    ["small buffers", [64]],
    ["buffers in pieces", [12, 50, 30]],
    ["buffers as small as can be", [12]],
  ])("are spread over several mergeable buffers: %s", async (_what, pieces) => {
    const machine = await started(MERGEABLE, ring);
    machine.post(Math.floor(240 / pieces.length), ...pieces);
    const sent = frames(60, 500, 14, 1000, 64);
    expect(await offer(machine, sent)).toBe(5);
    const received = machine.received();
    expect(received.map(({ frame }) => frame)).toEqual(sent);
    const size = pieces.reduce((sum, piece) => sum + piece, 0);
    expect(received.map(({ buffers }) => buffers)).toEqual(
      sent.map(({ length }) => Math.ceil((length + 12) / size)),
    );
    machine.assertBalanced();
  });

  it("mergeable buffers of different sizes are filled one after the other", async () => {
    const machine = await started(MERGEABLE, ring);
    const sizes = [12, 2000, 13, 40, 700, 12, 12, 1600, 3000];
    for (const size of sizes) machine.post(1, size);
    const sent = frames(1514, 500, 1000);
    expect(await offer(machine, sent)).toBe(3);
    expect(machine.received().map(({ frame, buffers }) => [frame, buffers])).toEqual([
      [sent[0], 2],
      [sent[1], 3],
      [sent[2], 3],
    ]);
  });

  it("wait when there are no buffers, and come when the driver posts some", async () => {
    const machine = await started(MERGEABLE, ring);
    machine.post(2, 1526);
    const sent = frames(60, 61, 62, 63);
    expect(await offer(machine, sent)).toBe(2);
    expect(machine.port.readyCalls).toBe(0);
    machine.post(1, 1526);
    machine.scheduler.run();
    expect(machine.port.readyCalls).toBe(1);
    expect(await offer(machine, sent.slice(2))).toBe(1);
    machine.post(1, 1526);
    machine.scheduler.run();
    expect(await offer(machine, sent.slice(3))).toBe(1);
    expect(machine.received().map(({ frame }) => frame)).toEqual(sent);
    machine.assertBalanced();
  });

  it("that need more buffers than are there wait for new ones without a spin, and nothing is half delivered", async () => {
    const machine = await started(MERGEABLE, ring);
    machine.post(3, 400);
    expect(await offer(machine, frames(1514))).toBe(0);
    const ready = machine.port.readyCalls;
    machine.scheduler.advance(1000);
    expect(machine.port.readyCalls, "buffers that were too few already wake nobody").toBe(ready);
    expect(machine.received()).toEqual([]);
    machine.post(1, 400);
    machine.scheduler.run();
    expect(machine.port.readyCalls).toBe(ready + 1);
    expect(await offer(machine, frames(1514))).toBe(1);
    expect(machine.received()[0]).toMatchObject({ frame: frames(1514)[0], buffers: 4 });
    machine.assertBalanced();
  });
});

describe("frames that do not fit", () => {
  it("are dropped and counted when a buffer takes whole frames, and the buffer stays for the next", async () => {
    const machine = await started(PLAIN);
    machine.post(1, 100);
    expect(await offer(machine, frames(89, 88))).toBe(2);
    expect(machine.received().map(({ frame }) => frame.length)).toEqual([88]);
    expect(machine.card.statistics.rx).toMatchObject({
      frames: 2,
      passed: 1,
      drops: { "buffer-too-small": 1 },
    });
  });

  it("are dropped when all the mergeable buffers of a full ring are too few", async () => {
    const machine = await NetMachine.create();
    await machine.start(MERGEABLE, 0n, { 0: 4 });
    machine.post(4, 100);
    const sent = frames(1514, 60);
    expect(await offer(machine, sent)).toBe(2);
    expect(machine.received().map(({ frame }) => frame)).toEqual([sent[1]]);
    expect(machine.card.statistics.rx.drops).toEqual({ "buffer-too-small": 1 });
    machine.assertBalanced();
  });

  it("longer than the MTU never reach a driver that knows it", async () => {
    const machine = await started(PLAIN);
    machine.post(3, 4000);
    const tagged = testFrame(TO, FROM, 1518);
    tagged.set([0x81, 0], 12);
    const sent = [...frames(1514, 1515), tagged];
    expect(await offer(machine, sent)).toBe(3);
    expect(machine.received().map(({ frame }) => frame.length)).toEqual([1514, 1518]);
    expect(machine.card.statistics.rx.drops).toEqual({ oversize: 1 });
  });
});

describe("receive buffers that are none break the queue, and nothing else", () => {
  it.each<[string, (machine: NetMachine) => void]>([
    ["with something to read", (m) => m.rx.add(m.room(20), m.room(2000))],
    ["to be read", (m) => m.rx.add(m.room(2000), [])],
    ["shorter than a header", (m) => m.rx.add([], m.room(11))],
  ])("%s", async (_what, post) => {
    for (const features of [PLAIN, MERGEABLE]) {
      const machine = await started(features);
      machine.post(1, 1526);
      post(machine);
      expect(await offer(machine, frames(60))).toBe(1);
      expect(await offer(machine, frames(61, 62))).toBe(2);
      expect(machine.received().map(({ frame }) => frame)).toEqual(frames(60));
      expect(machine.card.statistics.rx.drops).toEqual({ broken: 2 });
      expect(machine.errors).toHaveLength(1);
      expect(machine.errors[0]).toMatchObject({ code: "EPROTO" });
      expect(machine.transport.device.status & NEEDS_RESET).toBe(NEEDS_RESET);
      machine.send(testFrame(FROM, TO, 60));
      machine.scheduler.run();
      expect(machine.port.sent, "sending goes on").toHaveLength(1);
      machine.assertBalanced();
      await machine.start(features);
      machine.post(1, 1526);
      expect(await offer(machine, frames(63))).toBe(1);
      expect(machine.received()).toHaveLength(1);
    }
  });
});

describe("what a driver takes unfinished", () => {
  const segments = (n: number, size = 1000): Uint8Array[] => send(n, size, { destinationMac: TO });
  const offloadOf = (frame: ReturnType<typeof superframe>): FrameOffload => ({
    flags: frame.flags,
    gsoKind: frame.kind,
    gsoSize: frame.size,
    checksumStart: frame.start,
    checksumOffset: frame.offset,
    headerLength: 66,
  });

  it("is what it negotiated", async () => {
    const machine = await started(PLAIN);
    expect(machine.port.peer?.offloads).toBe(0);
    await machine.start(bit(VIRTIO_NET_F_GUEST_CSUM));
    expect(machine.port.peer?.offloads).toBe(OFFLOAD_CSUM);
    await machine.start(bit(VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4));
    expect(machine.port.peer?.offloads).toBe(OFFLOAD_CSUM | OFFLOAD_TCP4);
    await machine.start();
    expect(machine.port.peer?.offloads).toBe(OFFLOAD_ALL);
  });

  it("comes with the header that says so: partial checksums", async () => {
    const machine = await started(bit(VIRTIO_NET_F_GUEST_CSUM));
    machine.post(1, 1526);
    const [frame] = frames(60) as [Uint8Array];
    await offer(machine, [[frame, { flags: FRAME_NEEDS_CSUM, checksumStart: 34, checksumOffset: 6 }]]);
    expect(machine.received()).toEqual([
      {
        frame,
        buffers: 1,
        header: {
          flags: VIRTIO_NET_HDR_F_NEEDS_CSUM,
          type: 0,
          headerLength: 0,
          size: 0,
          start: 34,
          offset: 6,
          buffers: 1,
        },
      },
    ]);
  });

  it("checksums that were verified are said to be, to drivers that want to know", async () => {
    for (const [features, flags] of [
      [bit(VIRTIO_NET_F_GUEST_CSUM), VIRTIO_NET_HDR_F_DATA_VALID],
      [PLAIN, 0],
    ] as const) {
      const machine = await started(features);
      machine.post(1, 1526);
      await offer(machine, [[frames(60)[0] as Uint8Array, { flags: FRAME_CSUM_VALID }]]);
      expect(machine.received()[0]?.header.flags).toBe(flags);
    }
  });

  it.each(RINGS)("superframes come in mergeable buffers (%s)", async (_name, ring) => {
    const machine = await started(undefined, ring);
    machine.post(60, 1526);
    const frame = superframe({ payload: data(60000), destinationMac: TO }, 1400);
    await offer(machine, [[frame.bytes, offloadOf(frame)]]);
    const [received] = machine.received();
    expect(received?.frame).toEqual(frame.bytes);
    expect(received?.header).toEqual({
      flags: VIRTIO_NET_HDR_F_NEEDS_CSUM,
      type: VIRTIO_NET_HDR_GSO_TCPV4,
      headerLength: 66,
      size: 1400,
      start: frame.start,
      offset: frame.offset,
      buffers: Math.ceil((frame.bytes.length + 12) / 1526),
    });
    expect(machine.card.statistics.superframes_passed).toBe(1);
  });

  it("superframes come in large buffers of drivers without mergeable ones", async () => {
    const machine = await started(bit(VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4));
    machine.post(2, 12, ...new Array<number>(17).fill(4096));
    const frame = superframe({ payload: data(60000), destinationMac: TO }, 1400);
    await offer(machine, [[frame.bytes, offloadOf(frame)]]);
    expect(machine.received()[0]?.frame).toEqual(frame.bytes);
  });

  it("superframes that find too few buffers wait for more, and pass whole", async () => {
    const machine = await started();
    machine.post(5, 1526);
    const frame = superframe({ payload: data(60000), destinationMac: TO }, 1400);
    expect(await offer(machine, [[frame.bytes, offloadOf(frame)]])).toBe(0);
    expect(machine.port.readyCalls).toBe(0);
    expect(machine.port.peer?.offloads).toBe(OFFLOAD_ALL);
    machine.post(60, 1526);
    expect(machine.port.readyCalls).toBe(1);
    expect(await offer(machine, [[frame.bytes, offloadOf(frame)]])).toBe(1);
    expect(machine.received()[0]?.frame).toEqual(frame.bytes);
    expect(machine.card.statistics).toMatchObject({ superframes_passed: 1, rxBuffersShort: 1 });
    machine.assertBalanced();
  });

  it("superframes that have waited in vain are asked for in pieces", async () => {
    const machine = await started(undefined, 0n, { bufferWaitMs: 20 });
    machine.post(5, 1526);
    const frame = superframe({ payload: data(60000), destinationMac: TO }, 1400);
    expect(await offer(machine, [[frame.bytes, offloadOf(frame)]])).toBe(0);
    machine.scheduler.advance(19);
    expect(machine.port.readyCalls).toBe(0);
    machine.scheduler.advance(1);
    expect(machine.port.readyCalls).toBe(1);
    expect(machine.port.peer?.offloads).toBe(OFFLOAD_CSUM | 16);
  });

  it("superframes for which the queue has no place are asked for in pieces at once", async () => {
    const machine = await started(undefined, 0n, { queueSize: 32, bufferWaitMs: 60_000 });
    machine.post(32, 1526);
    const frame = superframe({ payload: data(60000), destinationMac: TO }, 1400);
    expect(await offer(machine, [[frame.bytes, offloadOf(frame)]])).toBe(0);
    expect(machine.port.readyCalls).toBe(1);
    expect(machine.port.peer?.offloads).toBe(OFFLOAD_CSUM | 16);
    expect(machine.received()).toEqual([]);
  });

  it("superframes that find too few buffers are cut where nobody waits, until there are enough again", async () => {
    const machine = await started(undefined, 0n, { bufferWaitMs: 0 });
    machine.post(5, 1526);
    const frame = superframe({ payload: data(60000), destinationMac: TO }, 1400);
    expect(await offer(machine, [[frame.bytes, offloadOf(frame)]])).toBe(0);
    expect(machine.port.readyCalls).toBe(1);
    expect(machine.port.peer?.offloads).toBe(OFFLOAD_CSUM | 16);
    expect(machine.card.statistics.rxBuffersShort).toBe(1);
    machine.post(60, 1526);
    expect(machine.port.peer?.offloads).toBe(OFFLOAD_ALL);
    expect(await offer(machine, [[frame.bytes, offloadOf(frame)]])).toBe(1);
    machine.assertBalanced();
  });

  it("segments of one flow are merged for it", async () => {
    const machine = await started();
    machine.post(60, 1526);
    const sent = segments(8);
    expect(await offer(machine, sent)).toBe(8);
    const received = machine.received();
    expect(received).toHaveLength(1);
    expect(received[0]?.header).toMatchObject({
      flags: VIRTIO_NET_HDR_F_NEEDS_CSUM,
      type: VIRTIO_NET_HDR_GSO_TCPV4,
      size: 1000,
    });
    expect(received[0]?.frame.length).toBe((sent[0] as Uint8Array).length + 7000);
    expect(machine.card.statistics).toMatchObject({ coalesced: 1, rx: { frames: 8, passed: 1, merged: 7 } });
    machine.assertBalanced();
  });

  it("segments are not merged when told not to, nor for drivers that take no superframes", async () => {
    for (const [features, coalesce] of [
      [undefined, false],
      [bit(VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_MRG_RXBUF), true],
    ] as const) {
      const machine = await started(features, 0n, { coalesce });
      machine.post(60, 1526);
      await offer(machine, segments(8));
      expect(machine.received()).toHaveLength(8);
    }
  });

  it("what it never said that it takes is dropped and counted", async () => {
    const machine = await started(bit(VIRTIO_NET_F_GUEST_CSUM));
    machine.post(4, 4000);
    const frame = superframe({ payload: data(3000), destinationMac: TO }, 1400);
    await offer(machine, [[frame.bytes, offloadOf(frame)], frames(60)[0] as Uint8Array]);
    expect(machine.received().map(({ frame: { length } }) => length)).toEqual([60]);
    expect(machine.card.statistics.rx.drops).toEqual({ "bad-offload": 1 });
  });

  it("may be changed by a command, within what was negotiated", async () => {
    const features = bit(
      VIRTIO_NET_F_GUEST_CSUM,
      VIRTIO_NET_F_GUEST_TSO4,
      VIRTIO_NET_F_CTRL_VQ,
      VIRTIO_NET_F_CTRL_GUEST_OFFLOADS,
    );
    const machine = await started(features);
    const set = (bits: bigint): number => {
      const bytes = new Uint8Array(8);
      new DataView(bytes.buffer).setBigUint64(0, bits, true);
      return machine.command(5, 0, bytes).ack;
    };
    expect(set(bit(VIRTIO_NET_F_GUEST_CSUM))).toBe(0);
    expect(machine.port.peer?.offloads).toBe(OFFLOAD_CSUM);
    expect(set(0n)).toBe(0);
    expect(machine.port.peer?.offloads).toBe(0);
    expect(set(bit(VIRTIO_NET_F_GUEST_TSO4)), "TSO4 needs CSUM").toBe(1);
    expect(set(bit(VIRTIO_NET_F_GUEST_CSUM, 8)), "TSO6 was not negotiated").toBe(1);
    expect(set(bit(VIRTIO_NET_F_CTRL_VQ)), "no offload").toBe(1);
    expect(machine.port.peer?.offloads).toBe(0);
    expect(set(bit(VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4))).toBe(0);
    expect(machine.port.peer?.offloads).toBe(OFFLOAD_CSUM | OFFLOAD_TCP4);
  });
});
