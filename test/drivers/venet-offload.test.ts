import type { TransmitFrame, VenetNic } from "vbus/drivers/venet";
import type { VbusError } from "vbus/engine";
import { afterEach, describe, expect, it } from "vitest";
import { EVENT_POOL, EVERYTHING, leave, openNic, pattern, South, tcp4 } from "./venet-south.js";

let south: South;
let nic: VenetNic;

async function start(...args: Parameters<typeof openNic>): Promise<void> {
  ({ south, nic } = await openNic(...args));
}

const end = (): Promise<void> => leave(south);

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
