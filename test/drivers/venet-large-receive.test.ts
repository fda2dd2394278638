import type { VenetNic } from "vbus/drivers/venet";
import { afterEach, describe, expect, it } from "vitest";
import { superframes } from "../offload/captures.js";
import { expectKernelFrames } from "./kernel-frames.js";
import {
  EVENT_QUEUE,
  EVERYTHING,
  leave,
  openNic,
  PAGE_QUEUE,
  pattern,
  tcp4,
  type South,
} from "./venet-south.js";

let south: South;
let nic: VenetNic;

async function start(...args: Parameters<typeof openNic>): Promise<void> {
  ({ south, nic } = await openNic(...args));
}

const end = (): Promise<void> => leave(south);

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
