import type { TransmitFrame, VenetNic, VenetOptions } from "vbus/drivers/venet";
import { VbusError } from "vbus/engine";
import type { GuestMemoryOptions } from "vbus/memory";
import { afterEach, describe, expect, it } from "vitest";
import { superframes } from "../offload/captures.js";
import { expectKernelFrames } from "./kernel-frames.js";
import {
  EVENT_POOL,
  EVENT_QUEUE,
  EVERYTHING,
  L4RO_POOL,
  noAnswer,
  PAGE_QUEUE,
  pattern,
  PMTD_POOL,
  South,
  USO,
} from "./venet-south.js";

let south: South;
let nic: VenetNic;

async function start(
  options: VenetOptions = {},
  granted = EVERYTHING,
  memory: GuestMemoryOptions = {},
): Promise<void> {
  south = new South(granted, memory);
  nic = await south.probe({ rxRing: 8, txRing: 8, ...options });
  await nic.open();
  south.log.length = 0;
}

/** Everything comes back: RAM at once, the arena but for what a space keeps for good. */
async function end(): Promise<void> {
  await south.proxy.close();
  expect(south.memory.ram.available).toBe(south.memory.ram.size);
  expect(south.errors).toEqual([]);
}

const WITHOUT_POOL: [number, number][] = [
  [0, 0x0f],
  [2, 0x0f],
];
const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");
const rejection = (work: () => unknown): string => {
  try {
    work();
  } catch (error) {
    return (error as VbusError).message;
  }
  return "nothing";
};

function tcp4(length: number, seed = 1): TransmitFrame {
  return {
    data: pattern(length, seed),
    checksum: { start: 34, offset: 16 },
    gso: { kind: "tcp4", size: 1448, headerLength: 66 },
  };
}

describe("the probe of a venet driver", () => {
  const PROBE_ALL = [
    "open 0 1",
    "negcap 0 0x2f",
    "negcap 1 0x1",
    "evqquery",
    `shm ${EVENT_POOL}`,
    `shm ${EVENT_QUEUE} signal`,
    "negcap 2 0xf",
    "l4roquery",
    `shm ${L4RO_POOL}`,
    `shm ${PAGE_QUEUE} signal`,
    `negcap ${USO} 0x3`,
    "shm 0 signal",
    "shm 1 signal",
    "pmtdquery",
    `shm ${PMTD_POOL}`,
    "macquery",
  ];

  afterEach(end);

  it("negotiates in the order of the Linux driver, with the segments that the host names", async () => {
    south = new South(EVERYTHING);
    nic = await south.probe({ rxRing: 40, txRing: 16 });
    expect(south.log).toEqual(PROBE_ALL);
    expect(nic.offloads).toEqual({
      tx: { scatterGather: true, checksum: true, tcp4: true, tcp6: true, udp: true, ecn: true },
      rx: { scatterGather: true, checksum: true, tcp4: true, tcp6: true, udp: true, ecn: true },
      descriptorPool: true,
      linkState: true,
      txCompletionEvents: false,
    });
    expect(south.segment(EVENT_POOL).length).toBe(16 * 24);
    expect(south.segment(L4RO_POOL).length).toBe(40 * 320);
    expect(south.segment(PMTD_POOL).length).toBe(16 * 320);
    expect(south.queue(EVENT_QUEUE).queue.count).toBe(16);
    expect(south.queue(PAGE_QUEUE).queue.count).toBe(40);
  });

  it("posts what the ABI says: slots, pages, event records", async () => {
    south = new South(EVERYTHING);
    nic = await south.probe({ rxRing: 40, txRing: 16 });
    const { queue, table } = south.queue(0);
    expect(queue.reserve("inuse", table, 64)).toBe(40);
    for (let i = 0; i < 40; i++) {
      expect([table.gpa(i), table.length(i), table.cookie(i)]).toEqual([i * 320, 320, i + 1]);
      const slot = south.host.copyFrom(south.segment(L4RO_POOL).gpa + i * 320, 320);
      const view = new DataView(slot.buffer);
      expect(view.getBigUint64(0, true)).toBe(BigInt(i + 1));
      expect([8, 12, 16, 20, 24].map((at) => view.getUint32(at, true))).toEqual([0, 0, 0, 0, 0]);
      expect(view.getUint32(28, true)).toBe(1);
      expect(view.getUint32(32, true)).toBe(1518);
      south.host.translate(Number(view.getBigUint64(40, true)), 1518);
      expect(slot.subarray(48).every((byte) => byte === 0)).toBe(true);
    }
    const pages = south.queue(PAGE_QUEUE);
    expect(pages.queue.peek("inuse", pages.table, 64)).toBe(40);
    const places = Array.from({ length: 40 }, (_, i) => pages.table.gpa(i));
    expect(new Set(places).size).toBe(40);
    expect(places.every((gpa) => gpa % 4096 === 0)).toBe(true);
    expect(Array.from({ length: 40 }, (_, i) => pages.table.cookie(i))).toEqual(
      Array.from({ length: 40 }, (_, i) => i + 1),
    );
    expect(south.rung.filter((handle) => handle === PAGE_QUEUE).length).toBeLessThanOrEqual(1);
    const events = south.queue(EVENT_QUEUE);
    expect(events.queue.reserve("inuse", events.table, 64)).toBe(16);
    for (let i = 0; i < 16; i++) {
      expect([events.table.gpa(i), events.table.length(i)]).toEqual([i * 24, 24]);
      const descriptor = south.segment(EVENT_QUEUE).gpa + 56 + i * 32;
      expect(south.host.copyFrom(descriptor + 24, 2)).toEqual(new Uint8Array([0, 1])); // not valid, south's
    }
  });

  it.each<[string, VenetOptions["offloads"], string[]]>([
    ["everything, by default", undefined, ["negcap 0 0x2f", "negcap 1 0x1", "negcap 2 0xf"]],
    ["nothing", false, []],
    ["no link state", { linkState: false }, ["negcap 0 0x2f", "negcap 2 0xf"]],
    ["no pool", { descriptorPool: false }, ["negcap 0 0xf", "negcap 1 0x1", "negcap 2 0xf"]],
    ["receive only", { transmit: false, linkState: false }, ["negcap 2 0xf"]],
    [
      "some kinds",
      { transmit: { tcp6: false, ecn: false }, receive: { tcp4: false }, txCompletionEvents: true },
      ["negcap 0 0x23", "negcap 1 0x3", "negcap 2 0xd"],
    ],
  ])(
    "asked for %s calls for just that; a host that grants nothing leaves it linear",
    async (_what, offloads, calls) => {
      south = new South([]);
      nic = await south.probe({ rxRing: 8, txRing: 8, ...(offloads === undefined ? {} : { offloads }) });
      expect(south.log).toEqual(["open 0 1", ...calls, "shm 0 signal", "shm 1 signal", "macquery"]);
      const none = {
        scatterGather: false,
        checksum: false,
        tcp4: false,
        tcp6: false,
        udp: false,
        ecn: false,
      };
      expect(nic.offloads).toEqual({
        tx: none,
        rx: none,
        descriptorPool: false,
        linkState: false,
        txCompletionEvents: false,
      });
      await nic.open();
      const frame = pattern(100);
      await nic.send([frame]);
      expect(south.takeLinear()).toEqual([frame]);
      const { queue, table } = south.queue(0);
      expect(queue.reserve("inuse", table, 8)).toBe(8);
      expect(table.length(0)).toBe(1518);
      expect(nic.carrier).toBe(true);
    },
  );

  it("does not believe bits that it did not ask for, nor segmentation without scatter-gather", async () => {
    south = new South([
      [0, 0xfffffffe],
      [1, 0xffffffff],
      [2, 0xffffffff],
      [USO, 0xffffffff],
    ]);
    nic = await south.probe({
      rxRing: 8,
      txRing: 8,
      offloads: { receive: { udp: false }, txCompletionEvents: false },
    });
    expect(south.log).toContain(`negcap 2 0xf`);
    expect(south.log.some((verb) => verb.startsWith(`negcap ${USO}`))).toBe(false);
    expect(nic.offloads).toMatchObject({
      tx: { scatterGather: false, tcp4: false },
      rx: { scatterGather: true, tcp4: true, udp: false },
      txCompletionEvents: false,
    });
  });

  it("refused at any of its steps it gives everything back and leaves the session closed", async () => {
    south = new South(EVERYTHING);
    const arena = south.memory.space.arena.available;
    for (const failing of PROBE_ALL) {
      const other = new South(EVERYTHING);
      other.intercept = (verb) => {
        if (verb === failing) throw new VbusError("EIO", `no ${verb}`);
      };
      await expect(other.probe({ rxRing: 8, txRing: 8 }), failing).rejects.toMatchObject({ code: "EIO" });
      expect(other.log.at(-1)).toBe(failing === "open 0 1" ? failing : "close");
      expect(other.memory.ram.available, failing).toBe(other.memory.ram.size);
      expect(other.memory.space.arena.available, failing).toBe(arena);
    }
  });

  it("without memory for any of its parts it fails with ENOMEM and gives everything back", async () => {
    south = new South(EVERYTHING);
    const arena = south.memory.space.arena.available;
    for (let size = 65536; size <= 5 * 65536; size += 8192) {
      const other = new South(EVERYTHING);
      const hold = other.memory.ram.allocate(other.memory.ram.available - size, 1);
      await expect(other.probe({ rxRing: 128, txRing: 128 }), `${size}`).rejects.toMatchObject({
        code: "ENOMEM",
      });
      other.memory.ram.free(hold);
      expect(other.memory.ram.available).toBe(other.memory.ram.size);
      expect(other.memory.space.arena.available).toBe(arena);
    }
  });

  it("a host whose event records cannot hold its events is refused", async () => {
    south = new South(EVERYTHING);
    for (const size of [0, 12, 15, 25, 0xffffffff]) {
      const other = new South(EVERYTHING);
      other.eventSize = size;
      await expect(other.probe(), `${size}`).rejects.toMatchObject({ code: "EPROTO" });
      expect(other.memory.ram.available).toBe(other.memory.ram.size);
    }
  });
});

describe("sending with scatter-gather descriptors", () => {
  afterEach(end);

  it.each([
    ["in the pool", EVERYTHING],
    ["wherever descriptors point", WITHOUT_POOL],
  ] as const)("%s: an ordinary frame is one piece, byte for byte as the ABI says", async (_what, granted) => {
    await start({}, [...granted]);
    await nic.send([pattern(100), pattern(1518, 2)]);
    const sent = south.takeSent();
    expect(sent).toHaveLength(2);
    for (const [i, { vsg, pointer, cookie, frame, pieces }] of sent.entries()) {
      const length = [100, 1518][i] as number;
      expect(cookie).toBe(i + 1);
      expect(vsg.length).toBe(48);
      if (granted === EVERYTHING) expect(pointer).toBe(i * 320);
      else south.host.translate(pointer, 320);
      const expected = new DataView(new ArrayBuffer(48));
      expected.setUint32(0, i + 1, true);
      expected.setUint32(12, length, true);
      expected.setUint32(28, 1, true);
      expected.setUint32(32, length, true);
      expected.setBigUint64(40, BigInt(pieces[0]!.gpa), true);
      expect(hex(vsg)).toBe(hex(new Uint8Array(expected.buffer)));
      expect(frame).toEqual(pattern(length, i + 1));
    }
    expect(nic.statistics()).toMatchObject({ tx_packets: 2, tx_bytes: 1618, tx_tso: 0, tx_csum_partial: 0 });
  });

  it("metadata: partial checksum, segmentation of every kind, ECN; nothing of it stays for the next frame", async () => {
    await start();
    const checksum = { start: 0x1234 & 0xff, offset: 16 };
    await nic.send([
      { data: pattern(200), checksum },
      { data: pattern(300), checksum, gso: { kind: "tcp4", size: 0xabcd, headerLength: 66, ecn: true } },
      { data: pattern(300), checksum, gso: { kind: "tcp6", size: 1, headerLength: 0 } },
      { data: pattern(300), checksum, gso: { kind: "udp", size: 65535, headerLength: 300 } },
      { data: pattern(300) },
    ]);
    const heads = south.takeSent().map(({ vsg }) => hex(vsg.subarray(8, 32)));
    const length = (n: number): string => hex(new Uint8Array(new Uint32Array([n]).buffer));
    expect(heads).toEqual([
      `01000000${length(200)}34001000` + "00000000" + "00000000" + "01000000",
      `07000000${length(300)}34001000` + "00004200" + "cdab0000" + "01000000",
      `03000000${length(300)}34001000` + "02000000" + "01000000" + "01000000",
      `03000000${length(300)}34001000` + "03002c01" + "ffff0000" + "01000000",
      `00000000${length(300)}00000000` + "00000000" + "00000000" + "01000000",
    ]);
    expect(nic.statistics()).toMatchObject({ tx_packets: 5, tx_tso: 3, tx_csum_partial: 4 });
    // the slots are used again for ordinary frames
    await nic.send(Array.from({ length: 6 }, (_, i) => pattern(60, i)));
    for (const { vsg } of south.takeSent()) {
      expect(hex(vsg.subarray(8, 32))).toBe(`00000000${length(60)}${"0".repeat(24)}01000000`);
    }
  });

  it("superframes of every size arrive byte for byte, in at most 18 pieces, whatever pieces they were given in", async () => {
    await start({ superframeMemory: 300_000 });
    const sizes = [66, 1518, 1519, 4095, 4096, 4097, 8192, 20_000, 61_440, 65_535, 65_536];
    let seed = 0;
    for (let round = 0; round < 4; round++) {
      for (const size of sizes) {
        const whole = pattern(size, ++seed);
        const cuts = [0, 1, 1 + (seed % 60), size >>> 1, size - 1, size].sort((a, b) => a - b);
        const data = cuts.slice(1).map((cut, i) => whole.subarray(cuts[i], cut));
        await nic.send([{ ...tcp4(size), data }]);
        const [sent] = south.takeSent(1, round % 2 === 0);
        expect(sent!.pieces.length).toBeLessThanOrEqual(18);
        expect(sent!.vsg.length).toBe(32 + 16 * sent!.pieces.length);
        expect(new DataView(sent!.vsg.buffer).getUint32(12, true)).toBe(size);
        expect(Buffer.compare(sent!.frame, whole), `${size}`).toBe(0);
      }
    }
    expect(nic.statistics()).toMatchObject({ tx_tso: seed, tx_linearized: 8 });
  });

  it("memory for superframes is bounded: who has none waits for those before, in order", async () => {
    await start({ superframeMemory: 65536 * 2, txRing: 64 });
    const before = south.memory.ram.available;
    const frames = Array.from({ length: 20 }, (_, i) => tcp4(40_000 + i, i));
    const sending = nic.send(frames);
    const taken: Uint8Array[] = [];
    while (taken.length < frames.length) {
      const sent = south.takeSent(1);
      taken.push(...sent.map(({ frame }) => frame));
      if (sent.length === 0) await south.settle();
      expect(before - south.memory.ram.available).toBeLessThanOrEqual(2 * 65536 + 64 * 1536);
    }
    await sending;
    for (const [i, frame] of taken.entries()) {
      expect(Buffer.compare(frame, frames[i]!.data as Uint8Array), `${i}`).toBe(0);
    }
    expect(nic.statistics()).toMatchObject({ tx_packets: 20, tx_tso: 20, tx_queue_stopped: 1 });
    expect(nic.trySend([tcp4(65_536), tcp4(65_536), tcp4(65_536)])).toBe(2);
    expect(nic.trySend([pattern(60)])).toBe(1); // an ordinary frame has a buffer of its own
  });

  it("a superframe for which the guest has no memory rejects with ENOMEM; ordinary frames go on", async () => {
    await start();
    await nic.send(Array.from({ length: 8 }, () => pattern(60)));
    south.takeSent();
    const hold: number[] = [];
    for (let size = south.memory.ram.available; size >= 16;) {
      try {
        hold.push(south.memory.ram.allocate(size, 1));
      } catch {
        size >>>= 1;
      }
    }
    await expect(nic.send([tcp4(20_000)])).rejects.toMatchObject({ code: "ENOMEM" });
    await nic.send([pattern(60)]);
    expect(south.takeSent()).toHaveLength(1);
    for (const gpa of hold) south.memory.ram.free(gpa);
    await nic.send([tcp4(20_000)]);
    expect(south.takeSent()[0]!.frame.length).toBe(20_000);
  });

  it("what was not granted is refused with a message that says what to do, and nothing is sent", async () => {
    await start({}, [[0, 0x03]]);
    const checksum = { start: 34, offset: 16 };
    const frame = (gso: TransmitFrame["gso"]): TransmitFrame => ({
      data: pattern(3000),
      checksum,
      ...(gso === undefined ? {} : { gso }),
    });
    const gso = { size: 1448, headerLength: 66 };
    expect(rejection(() => nic.trySend([frame({ kind: "tcp6", ...gso })]))).toMatch(
      /^EOPNOTSUPP: .*tcp6.*segment the frame.*nic\.offloads/,
    );
    expect(rejection(() => nic.trySend([frame({ kind: "udp", ...gso })]))).toMatch(/^EOPNOTSUPP/);
    expect(rejection(() => nic.trySend([frame({ kind: "tcp4", ...gso, ecn: true })]))).toMatch(
      /^EOPNOTSUPP: .*with ECN/,
    );
    await expect(nic.send([pattern(60), frame({ kind: "tcp6", ...gso })])).rejects.toThrow(/EOPNOTSUPP/);
    expect(south.takeSent()).toHaveLength(0);
    await nic.send([frame({ kind: "tcp4", ...gso })]);
    expect(south.takeSent()).toHaveLength(1);
    await nic.close();
    await start({}, []);
    expect(rejection(() => nic.trySend([frame({ kind: "tcp4", ...gso })]))).toMatch(/^EOPNOTSUPP/);
    expect(rejection(() => nic.trySend([{ data: pattern(60), checksum }]))).toMatch(
      /^EOPNOTSUPP: .*complete the checksum/,
    );
    await nic.send([{ data: [pattern(60).subarray(0, 20), pattern(60).subarray(20)] }]); // only scattered
    expect(south.takeLinear()).toEqual([pattern(60)]);
    expect(nic.statistics().tx_linearized).toBe(1);
  });

  it.each<[string, TransmitFrame | Uint8Array]>([
    ["a frame longer than the MTU", { data: pattern(1519) }],
    ["a frame shorter than a header", { data: [pattern(6), pattern(7)] }],
    ["a superframe of 65537 bytes", tcp4(65_537)],
    ["segments of 0 bytes", { ...tcp4(100), gso: { kind: "tcp4", size: 0, headerLength: 66 } }],
    ["segments of 65536 bytes", { ...tcp4(100), gso: { kind: "tcp4", size: 65536, headerLength: 66 } }],
    ["headers longer than the frame", { ...tcp4(100), gso: { kind: "tcp4", size: 9, headerLength: 101 } }],
    ["no checksum", { data: pattern(100), gso: { kind: "tcp4", size: 9, headerLength: 66 } }],
    ["a checksum outside", { data: pattern(100), checksum: { start: 83, offset: 16 } }],
    ["a checksum at half a byte", { data: pattern(100), checksum: { start: 3.5, offset: 16 } }],
    [
      "a kind that does not exist",
      { ...tcp4(100), gso: { kind: "tcp5" as "tcp4", size: 9, headerLength: 1 } },
    ],
  ])("%s is refused with EINVAL", async (_what, frame) => {
    await start();
    expect(rejection(() => nic.trySend([pattern(60), frame]))).toMatch(/^EINVAL: /);
    expect(south.takeSent()).toHaveLength(0);
  });
});

describe("transmit completion events", () => {
  const events = { offloads: { txCompletionEvents: true } };
  afterEach(end);

  it("free positions and superframes in whatever order they come; the ring tells nobody", async () => {
    await start({ ...events, superframeMemory: 65536 * 4 });
    const frames = Array.from({ length: 12 }, (_, i) => tcp4(40_000, i + 1));
    const sending = nic.send(frames);
    const first = south.takeSent();
    expect(first.map(({ position }) => position)).toEqual([0, 1, 2, 3, 4, 5]); // memory for six of ten blocks
    const { queue } = south.queue(1);
    queue.inject();
    await south.settle();
    expect(nic.statistics().tx_packets).toBe(6);
    south.complete(3, 1); // blocks for two more, though position 0 is still under way
    await south.settle();
    const second = south.takeSent();
    expect(second.map(({ position }) => position)).toEqual([6, 7]);
    south.complete(7, 6, 5, 4, 2);
    await south.settle();
    expect(south.takeSent()).toHaveLength(0); // the ring is full up to position 0
    south.complete(0);
    await south.settle();
    const third = south.takeSent();
    expect(third.map(({ position }) => position)).toEqual([0, 1, 2, 3]);
    await sending;
    for (const [i, sent] of [...first, ...second, ...third].entries()) {
      expect(Buffer.compare(sent.frame, frames[i]!.data as Uint8Array), `${i}`).toBe(0);
    }
    expect(nic.statistics()).toMatchObject({ tx_packets: 12, tx_bad_completions: 0, events: 8 });
  });

  it("a buffer is not touched before its event, though the host took the descriptor long ago", async () => {
    await start(events);
    const frames = Array.from({ length: 8 }, (_, i) => pattern(500, i));
    await nic.send(frames);
    const sent = south.takeSent();
    expect(nic.trySend([pattern(500, 99)])).toBe(0);
    for (const [i, { pieces }] of sent.entries()) {
      expect(south.host.copyFrom(pieces[0]!.gpa, 500)).toEqual(frames[i]);
    }
    south.complete(0);
    await south.settle();
    expect(nic.trySend([pattern(500, 99), pattern(500, 98)])).toBe(1);
  });

  it("events that fit no frame are counted, and free nothing", async () => {
    await start(events);
    await nic.send(Array.from({ length: 8 }, () => pattern(60)));
    south.takeSent();
    south.complete(8, 0xfffffffe, -1); // beyond the ring, far beyond, cookie 0
    south.event(1, 24, 0, 1, 1); // a cookie with a high half
    south.event(1, 24, 7, 1, 0); // another TX ring: unknown
    south.event(1, 20, 0, 1, 0); // too short: unknown
    await south.settle();
    expect(nic.trySend([pattern(60)])).toBe(0);
    south.complete(0);
    await south.settle();
    south.complete(0); // a second time
    await south.settle();
    expect(nic.statistics()).toMatchObject({ tx_bad_completions: 5, events_unknown: 2, events: 8 });
    expect(nic.trySend([pattern(60), pattern(60)])).toBe(1);
  });

  it("work in linear mode, too: the descriptor's cookie comes back", async () => {
    await start(events, [[1, 0x02]]);
    const sending = nic.send(Array.from({ length: 20 }, (_, i) => pattern(60, i)));
    let next = 0;
    for (let round = 0; round < 10 && next < 20; round++) {
      for (const frame of south.takeLinear()) {
        expect(frame).toEqual(pattern(60, next));
        south.complete(next++ % 8);
        if (next % 4 === 0) await south.settle();
      }
      await south.settle();
    }
    await sending;
    expect(next).toBe(20);
  });
});

describe("events", () => {
  afterEach(end);

  it("link state: no carrier before the first up, none after stop, the observer hears of every change once", async () => {
    south = new South(EVERYTHING);
    nic = await south.probe();
    const links: boolean[] = [];
    nic.onLink = (up) => links.push(up);
    expect(nic.carrier).toBe(false);
    await nic.open();
    expect(links).toEqual([]);
    south.link(true);
    await south.settle();
    south.link(true);
    await south.settle();
    expect([nic.carrier, links]).toEqual([true, [true]]);
    south.link(false);
    south.link(true);
    south.link(false);
    await south.settle();
    expect([nic.carrier, links]).toEqual([false, [true, false, true, false]]);
    south.link(true);
    await south.settle();
    south.link(true); // still in the ring when the link goes down
    await nic.stop();
    await south.settle();
    expect([nic.carrier, links]).toEqual([false, [true, false, true, false, true, false]]);
    await nic.open();
    expect(nic.carrier).toBe(false);
    south.link(true);
    await south.settle();
    expect(links.at(-1)).toBe(true);
    await nic.close();
    expect(links.at(-1)).toBe(false);
  });

  it("unknown, ungranted and short ones are counted and skipped; records are zeroed and posted again, for ever", async () => {
    await start({ txRing: 4 });
    for (let round = 0; round < 10; round++) {
      south.event(2, 24, 1, 2, 3);
      south.event(0xffffffff, 0xffffffff, 1, 2, 3);
      south.event(1, 24, 0, 1, 0); // TXC was not granted
      south.event(0, 12, 1); // too short for a state
      await south.settle();
      const { gpa, length } = south.segment(EVENT_POOL);
      expect(south.host.copyFrom(gpa, length).every((byte) => byte === 0)).toBe(true);
    }
    south.link(true);
    await south.settle();
    expect(nic.carrier).toBe(true);
    expect(nic.statistics()).toMatchObject({ events: 41, events_unknown: 40, tx_bad_completions: 0 });
  });

  it("an observer that throws hurts nobody but itself", async () => {
    await start();
    const thrown = new Error("a bad observer");
    nic.onLink = () => {
      throw thrown;
    };
    south.link(true);
    await south.settle();
    expect(south.errors.splice(0)).toEqual([thrown]);
    await nic.send([pattern(60)]);
    expect(south.takeSent()).toHaveLength(1);
    nic.onLink = null;
  });
});

describe("large receive", () => {
  afterEach(end);

  it("a frame in its buffer and pages arrives whole, with what the host says of it", async () => {
    await start();
    const frame = pattern(20_000);
    south.deliver(frame, [1518, 4096, 4096, 4096, 4096, 2098], {
      flags: 7,
      start: 34,
      offset: 16,
      type: 2,
      headerLength: 86,
      size: 1428,
    });
    south.deliver(pattern(300, 2), [300], { flags: 1, start: 20, offset: 6, type: 9, size: 9 });
    south.deliver(pattern(1518, 3), [1518]);
    await south.settle();
    expect(await nic.receiveFrames()).toEqual([
      {
        data: frame,
        checksum: { start: 34, offset: 16 },
        verified: true,
        gso: { kind: "tcp6", size: 1428, headerLength: 86, ecn: true },
      },
      { data: pattern(300, 2), checksum: { start: 20, offset: 6 }, verified: true, gso: null },
      { data: pattern(1518, 3), checksum: null, verified: false, gso: null },
    ]);
    expect(nic.statistics()).toMatchObject({
      rx_packets: 3,
      rx_bytes: 21_818,
      rx_gro: 1,
      rx_csum_partial: 2,
      rx_pages: 5,
    });
  });

  it("odd pieces, an empty buffer, pages of one byte: pieces as they are for who takes batches, heads gathered", async () => {
    await start();
    const frame = pattern(2011);
    const seen: { pieces: number[]; bytes: Uint8Array; kind: number; type: number }[] = [];
    nic.onFrames = (batch, from, to) => {
      for (let i = from; i < to; i++) {
        const { table } = batch;
        const pieces = Array.from({ length: table.fragments(i) }, (_, k) => table.piece(i, k).length);
        seen.push({
          pieces,
          bytes: batch.bytes(i).slice(),
          kind: batch.gsoKind(i),
          type: batch.etherType(i),
        });
      }
      return to - from;
    };
    const gso = { flags: 3, start: 34, offset: 16, size: 500 };
    const type = ((frame[12] as number) << 8) | (frame[13] as number);
    south.deliver(frame, [0, 2011], gso);
    south.deliver(frame, [5, 1, 0, 3, 1, 1, 2000], gso);
    south.deliver(frame.subarray(0, 13), [6, 7]);
    await south.settle();
    expect(seen.map(({ pieces }) => pieces)).toEqual([[2011], [5, 1, 3, 1, 1, 2000], [6, 7]]);
    expect(seen[0]!.bytes).toEqual(frame);
    expect(seen[1]!.bytes).toEqual(frame);
    expect(seen[2]!.bytes).toEqual(frame.subarray(0, 13));
    expect(seen.map((one) => one.type)).toEqual([type, type, (frame[12] as number) << 8]);
    expect(seen.map(({ kind }) => kind)).toEqual([1, 1, 0]);
    expect(south.pages).toBe(34);
  });

  it("goes on for ever: slots, buffers and pages are used again, and the host is told of pages once per poll", async () => {
    await start({ rxRing: 4 });
    for (let round = 0; round < 60; round++) {
      const n = 1 + (round % 4);
      const sent = Array.from({ length: n }, (_, i) => pattern(8000 + i * 100, round * 4 + i));
      for (const frame of sent)
        south.deliver(frame, [1000, 4096, frame.length - 5096], {
          flags: 3,
          start: 34,
          offset: 16,
          size: 1448,
        });
      const got = await nic.receiveFrames();
      while (got.length < n) got.push(...(await nic.receiveFrames()));
      for (const [i, { data }] of got.entries()) expect(Buffer.compare(data, sent[i]!)).toBe(0);
      await south.settle();
      expect(south.pages).toBe(34);
      const slot = south.nextSlot();
      expect([8, 12, 16, 20, 24, 28, 32].map((at) => south.u32(slot + at))).toEqual([0, 0, 0, 0, 0, 1, 1518]);
      expect(south.host.copyFrom(slot + 48, 272).every((byte) => byte === 0)).toBe(true);
    }
    const statistics = nic.statistics();
    expect(statistics).toMatchObject({ rx_packets: 150, rx_pages: 300, rx_no_page_refill: 0 });
  });

  it("the kernel's superframes: as they came for receiveFrames, as the kernel cut them for receive", async () => {
    await start({ rxRing: 256 });
    const kinds = ["none", "tcp4", "tcp6", "udp"] as const;
    const types = [0, 0, 2, 3];
    const received: Uint8Array[] = [];
    let cut = 0;
    for (const frame of superframes()) {
      const lengths = [Math.min(1518, frame.bytes.length)];
      for (let left = frame.bytes.length - 1518; left > 0; left -= 4096) lengths.push(Math.min(4096, left));
      const fields = {
        flags: frame.flags,
        start: frame.start,
        offset: frame.offset,
        type: types[frame.kind] as number,
        size: frame.size,
      };
      south.deliver(frame.bytes, lengths, fields);
      const [raw] = await nic.receiveFrames();
      expect(Buffer.compare(raw!.data, frame.bytes)).toBe(0);
      expect(raw!.gso?.kind ?? "none").toBe(kinds[frame.kind]);
      await south.settle();
      south.deliver(frame.bytes, lengths, fields);
      const finished = await nic.receive();
      if (finished.length > 1) cut++;
      received.push(...finished);
      await south.settle();
    }
    expectKernelFrames(received);
    expect(cut).toBeGreaterThan(80);
  });

  it("a flushed slot is posted anew, with a buffer of the new MTU, up to the largest", async () => {
    await start();
    await nic.setMtu(65_000);
    expect(south.log).toEqual(["flushrx"]);
    const { queue } = south.queue(0);
    for (let i = 0; i < 8; i++) {
      south.nextSlot();
      queue.commit("inuse", null, 1, 0); // untouched: its len is 0
    }
    await nic.setMtu(65_000); // the guest polls by itself
    await south.settle();
    expect(nic.statistics().rx_flushed).toBe(8);
    for (let i = 0; i < 8; i++) {
      expect(south.u32(south.nextSlot() + 32)).toBe(65_018);
      south.deliver(pattern(65_018, i), [65_018]);
    }
    const got = await nic.receiveFrames();
    while (got.length < 8) got.push(...(await nic.receiveFrames()));
    for (const [i, { data }] of got.entries()) expect(Buffer.compare(data, pattern(65_018, i))).toBe(0);
    await nic.send([pattern(65_018)]);
    expect(south.takeSent()[0]!.frame.length).toBe(65_018);
    await nic.setMtu(1500);
  });

  it("frames that the receiver has no room for stay in the ring with their pages, and come again", async () => {
    await start();
    let room = 1;
    const seen: Uint8Array[] = [];
    nic.onFrames = (batch, from, to) => {
      const n = Math.min(room, to - from);
      for (let i = from; i < from + n; i++) seen.push(batch.bytes(i).slice());
      room -= n;
      return n;
    };
    const frames = Array.from({ length: 5 }, (_, i) => pattern(5000 + i, i));
    for (const frame of frames)
      south.deliver(frame, [1518, frame.length - 1518], { flags: 3, size: 9 }, undefined);
    await south.settle();
    expect(seen).toHaveLength(1);
    expect(south.pages).toBe(30);
    room = 2;
    nic.resumeReceive();
    await south.settle();
    expect(seen).toHaveLength(3);
    room = 100;
    nic.resumeReceive();
    await south.settle();
    for (const [i, frame] of frames.entries()) expect(Buffer.compare(seen[i]!, frame)).toBe(0);
    expect(south.pages).toBe(34);
    expect(nic.statistics()).toMatchObject({ rx_packets: 5, rx_pages: 5 });
  });

  describe("from a host that breaks its word", () => {
    const gso = { flags: 3, start: 34, offset: 16, size: 500 };

    it.each<[string, () => void, string]>([
      ["a page that does not exist", () => south.deliver(pattern(200), [100, 100], gso, [[41, 0]]), "page"],
      ["a page with cookie 0", () => south.deliver(pattern(200), [100, 100], gso, [[0, 0]]), "page"],
      ["a page with a high half", () => south.deliver(pattern(200), [100, 100], gso, [[1, 1]]), "page"],
      [
        "an address instead of a page",
        () => south.deliver(pattern(200), [100, 100], gso, [[0x20000, 0]]),
        "page",
      ],
      [
        "the same page twice",
        () => {
          const { cookie } = south.takePage();
          south.deliver(pattern(9), [3, 3, 3], gso, [
            [cookie, 0],
            [cookie, 0],
          ]);
        },
        "page",
      ],
      ["more of a page than it has", () => south.deliver(pattern(5000), [100, 4097], gso), "length"],
      ["more than was posted", () => south.deliver(pattern(1519), [1519]), "length"],
      [
        "a buffer of 4 GiB",
        () => south.deliver(pattern(100), [100], { ...gso, length: 0xffffffff }),
        "length",
      ],
      ["lengths that do not add up", () => south.deliver(pattern(100), [100], { length: 99 }), "length"],
      ["pages but no length", () => south.deliver(pattern(200), [100, 100], { length: 0 }), "length"],
      ["no pieces", () => south.deliver(pattern(100), [100], { count: 0 }), "length"],
      ["19 pieces", () => south.deliver(pattern(100), [100], { count: 19 }), "length"],
      ["2^32 - 1 pieces", () => south.deliver(pattern(100), [100], { count: 0xffffffff }), "length"],
      [
        "a superframe of more than 64 KiB",
        () => south.deliver(pattern(65_537), [1, ...Array<number>(16).fill(4096)], gso),
        "length",
      ],
      ["a kind that does not exist", () => south.deliver(pattern(100), [100], { ...gso, type: 1 }), "frame"],
      ["segments of 0 bytes", () => south.deliver(pattern(100), [100], { ...gso, size: 0 }), "frame"],
      [
        "a checksum outside",
        () => south.deliver(pattern(100), [100], { flags: 1, start: 83, offset: 16 }),
        "frame",
      ],
      [
        "a checksum far outside",
        () => south.deliver(pattern(100), [100], { flags: 1, start: 0xffff, offset: 0xffff }),
        "frame",
      ],
    ])("%s is counted and lost; pages come back, the next frame arrives", async (_what, misbehave, kind) => {
      await start({ rxRing: 40 });
      misbehave();
      const good = pattern(6000, 7);
      south.deliver(good, [1518, 4096, 386], gso);
      await south.settle();
      const [frame, ...more] = await nic.receiveFrames();
      expect(Buffer.compare(frame!.data, good)).toBe(0);
      expect(more).toEqual([]);
      const { rx_length_errors, rx_page_errors, rx_frame_errors, rx_packets } = nic.statistics();
      expect({ rx_packets, length: rx_length_errors, page: rx_page_errors, frame: rx_frame_errors }).toEqual({
        rx_packets: 1,
        length: 0,
        page: 0,
        frame: 0,
        [kind]: 1,
      });
      await south.settle();
      expect(south.pages).toBeGreaterThanOrEqual(39); // forged cookies name pages that are in the queue
    });

    it("kinds that were not asked for are refused", async () => {
      await start({ offloads: { receive: { tcp6: false, udp: false, ecn: false } } });
      south.deliver(pattern(100), [100], { ...gso, type: 2 });
      south.deliver(pattern(100), [100], { ...gso, type: 3 });
      south.deliver(pattern(100), [100], { ...gso, flags: 7 });
      south.deliver(pattern(100), [100], gso);
      await south.settle();
      expect(await nic.receiveFrames()).toHaveLength(1);
      expect(nic.statistics()).toMatchObject({ rx_frame_errors: 3, rx_packets: 1 });
    });

    it("a superframe whose headers are none is lost in receive(), which waits for the next frame", async () => {
      await start();
      const waiting = nic.receive();
      south.deliver(pattern(3000), [1518, 1482], gso);
      await south.settle();
      expect(nic.statistics()).toMatchObject({ rx_packets: 1, rx_frame_errors: 1 });
      south.deliver(pattern(60), [60]);
      expect(await waiting).toEqual([pattern(60)]);
    });

    it("a host that keeps all pages is noticed", async () => {
      await start({ rxRing: 8 });
      for (let i = 0; i < 34; i++) south.takePage();
      south.deliver(pattern(60), [60]);
      await south.settle();
      expect(nic.statistics().rx_no_page_refill).toBeGreaterThan(0);
      expect(await nic.receive()).toEqual([pattern(60)]);
    });

    it("a broken page queue or event queue ends the NIC, once", async () => {
      for (const id of [PAGE_QUEUE, EVENT_QUEUE]) {
        await start();
        const errors: unknown[] = [];
        nic.onError = (error) => errors.push(error);
        const waiting = nic.receive();
        waiting.catch(() => {});
        const ring = south.segment(id).gpa;
        for (let i = 0; i < south.queue(id).queue.count; i++) {
          south.host.copyTo(ring + 56 + i * 32 + 25, new Uint8Array([7]));
        }
        south.deliver(pattern(60), [60]);
        south.signal(EVENT_QUEUE);
        await south.settle();
        if (id === PAGE_QUEUE) nic.resumeReceive();
        await south.settle();
        expect(errors, `${id}`).toHaveLength(1);
        expect(errors[0]).toMatchObject({ code: "EPROTO" });
        await nic.close();
        await nic.close();
        waiting.catch(() => {});
        expect(south.memory.ram.available).toBe(south.memory.ram.size);
      }
    });
  });
});

describe("a guest whose RAM lies above 2 GiB, in memory and in its own counting", () => {
  afterEach(end);

  it("sends and receives superframes as any other", async () => {
    await start({}, EVERYTHING, { padding: 2 ** 31, gpa: 2 ** 33 + 65536, size: 4 << 20 });
    await nic.send([tcp4(65_536), pattern(1518, 2)]);
    const [large, small] = south.takeSent();
    expect(large!.pieces[0]!.gpa).toBeGreaterThan(2 ** 33);
    expect(Buffer.compare(large!.frame, pattern(65_536))).toBe(0);
    expect(small!.frame).toEqual(pattern(1518, 2));
    south.deliver(pattern(9000), [1518, 4096, 3386], { flags: 3, start: 34, offset: 16, size: 1448 });
    const types: number[] = [];
    nic.onFrames = (batch, from, to) => {
      for (let i = from; i < to; i++) types.push(batch.etherType(i));
      return to - from;
    };
    await south.settle();
    expect(types).toEqual([pattern(9000)[12]! * 256 + pattern(9000)[13]!]);
    nic.onFrames = null;
    south.deliver(pattern(9000), [1518, 4096, 3386], { flags: 3, start: 34, offset: 16, size: 1448 });
    const [frame] = await nic.receiveFrames();
    expect(Buffer.compare(frame!.data, pattern(9000))).toBe(0);
  });
});

describe("leaving", () => {
  it("closed and opened again nothing leaks, in RAM or arena", async () => {
    await start();
    const arena: number[] = [];
    for (let cycle = 0; cycle < 3; cycle++) {
      await nic.send([tcp4(50_000), pattern(60)]);
      south.takeSent();
      const super4 = superframes().find(
        (frame) => frame.kind === 1 && frame.bytes.length > 2000 && frame.bytes.length < 5500,
      );
      if (super4 === undefined) throw new Error("the capture has no short superframe");
      const { bytes, flags, start: first, offset, size } = super4;
      south.deliver(bytes, [1518, bytes.length - 1518], { flags, start: first, offset, size });
      expect((await nic.receive()).length).toBeGreaterThan(1);
      south.deliver(bytes, [1518, bytes.length - 1518], { flags, start: first, offset, size });
      await south.settle();
      await nic.close();
      expect((await nic.receive()).length).toBeGreaterThan(1); // what came before the end is still finished
      await expect(nic.receive()).rejects.toMatchObject({ code: "ENOTCONN" });
      expect(south.memory.ram.available).toBe(south.memory.ram.size);
      arena.push(south.memory.space.arena.available);
      await south.proxy.close();
      const memory = south;
      await start();
      expect(memory.errors).toEqual([]);
    }
    const fresh = new South(EVERYTHING);
    expect(new Set(arena)).toEqual(new Set([fresh.memory.space.arena.available]));
    await end();
  });

  it("a host that does not answer DEVCLOSE keeps everything that it was given; the arena comes back", async () => {
    await start();
    await nic.send([tcp4(50_000)]);
    const left = south.memory.ram.available;
    const fresh = new South(EVERYTHING);
    south.closeError = noAnswer();
    await nic.close();
    expect(south.memory.ram.available).toBe(left);
    expect(south.memory.space.arena.available).toBe(fresh.memory.space.arena.available);
    await south.proxy.close();
  });

  it("a host that is lost fails the NIC; whoever waits is told, closing gives the memory back", async () => {
    await start({ superframeMemory: 65536 });
    const errors: unknown[] = [];
    nic.onError = (error) => errors.push(error);
    const waiting = Promise.allSettled([
      nic.receive(),
      nic.receiveFrames(),
      nic.send([tcp4(60_000), tcp4(60_000)]),
    ]);
    const gone = new VbusError("ENOTCONN", "the host is gone");
    south.onLost?.(gone);
    for (const outcome of await waiting) expect(outcome).toMatchObject({ status: "rejected", reason: gone });
    expect(errors).toEqual([gone]);
    south.closeError = gone;
    await nic.close();
    expect(south.memory.ram.available).toBe(south.memory.ram.size);
    await south.proxy.close();
  });
});
