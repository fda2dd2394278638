import { FRAME_NEEDS_CSUM } from "vbus/engine";
import { allocateGuestMemory, GuestMemory, MemorySpace } from "vbus/memory";
import { FrameStore, HostFrames, Loopback } from "vbus/net";
import { VirtualScheduler } from "vbus/scheduler";
import { beforeEach, describe, expect, it } from "vitest";

import { frame, range, Station, station } from "./rig.js";

let scheduler: VirtualScheduler;
let space: MemorySpace;

beforeEach(async () => {
  scheduler = new VirtualScheduler();
  space = await MemorySpace.host();
});

describe("retaining a batch", () => {
  it("copies frames of every size and their offload data from a guest's memory, and outlives them", async () => {
    const guest = await GuestMemory.open(allocateGuestMemory({ size: 1 << 20 }));
    const lengths = [14, 60, 64, 65, 511, 512, 513, 1514, 9014, 65022];
    const frames = new HostFrames(guest.space, 16, 1 << 17);
    const sent = lengths.map((n, i) => frame(station(1), station(0), i, Math.max(18, n)).subarray(0, n));
    for (const bytes of sent)
      frames.add(bytes, { flags: FRAME_NEEDS_CSUM, checksumStart: 34, checksumOffset: 16 });
    const store = new FrameStore(space);
    const kept = frames.batch.retain(store);
    const some = frames.batch.retain(store, 2, 4);
    guest.space.bytes.fill(0xee, guest.space.arena.start + 4096);
    expect(range(0, kept.count).map((i) => kept.copy(i))).toEqual(sent);
    expect(kept.destination(7)).toBe(station(1));
    expect(kept.checksumPlace(3)).toEqual({ start: 34, offset: 16 });
    expect(kept.needsChecksum(3)).toBe(true);
    expect([some.count, some.copy(0), some.copy(1)]).toEqual([2, sent[2], sent[3]]);
    expect(store.frames).toBe(12);
    const copies = (n: number): number => (n <= 512 ? 3 * n : n); // small ones are staged between two memories
    expect(store.copiedBytes).toBe([...lengths, 64, 65].reduce((sum, n) => sum + copies(n), 0));
    kept.release();
    kept.release();
    some.release();
    expect(store.frames).toBe(0);
  });

  it("uses the same memory again and again", () => {
    const store = new FrameStore(space);
    const frames = HostFrames.of(
      space,
      range(0, 32).map((i) => frame(station(1), station(0), i, 60 + 45 * i)),
    );
    frames.batch.retain(store).release();
    const { footprint } = store;
    const { available } = space.arena;
    for (let i = 0; i < 100; i++) frames.batch.retain(store).release();
    expect(store.footprint).toBe(footprint);
    expect(space.arena.available).toBe(available);
    store.close();
    store.close();
    expect(() => frames.batch.retain(store)).toThrow(/ENOTCONN/);
  });

  it("refuses a frame that is longer than any can be, and keeps nothing of the batch", () => {
    const store = new FrameStore(space);
    const frames = HostFrames.of(space, [new Uint8Array(60), new Uint8Array(65537)]);
    const { available } = space.arena;
    expect(() => frames.batch.retain(store)).toThrow(/EINVAL: a frame of 65537 bytes/);
    expect(store.frames).toBe(0);
    expect(space.arena.available).toBeLessThanOrEqual(available);
  });

  it("says no when there is no memory left, and works again when there is", async () => {
    const memory = new WebAssembly.Memory({ initial: 8, maximum: 8 });
    const small = await MemorySpace.attach(memory, { address: 65536, size: 6 * 65536 }, []);
    const store = new FrameStore(small);
    const frames = HostFrames.of(
      space,
      range(0, 8).map((i) => frame(station(1), station(0), i, 65000)),
    );
    const first = frames.batch.retain(store, 0, 1);
    expect(() => frames.batch.retain(store)).toThrow(/ENOMEM: no memory left to retain 8 frames/);
    expect(store.frames).toBe(1);
    first.release();
    const again = frames.batch.retain(store, 3, 4);
    expect(again.copy(0)).toEqual(frame(station(1), station(0), 3, 65000));
  });
});

describe("frames made by TypeScript", () => {
  it("are added until the batch is full, and can be started over", () => {
    const frames = new HostFrames(space, 4, 4096);
    expect(range(0, 6).map((i) => frames.add(frame(1, 2, i)))).toEqual([
      true,
      true,
      true,
      true,
      false,
      false,
    ]);
    frames.clear();
    expect(frames.add(new Uint8Array(4096))).toBe(true);
    expect(frames.add(new Uint8Array(1))).toBe(false);
    frames.close();
    frames.close();
    expect(() => frames.add(new Uint8Array(1))).toThrow(/ENOTCONN/);
  });
});

describe("the loopback", () => {
  function loop(options: { maxFrames?: number; maxBytes?: number } = {}) {
    const loopback = new Loopback({ scheduler, space, ...options });
    return { loopback, a: new Station(loopback, scheduler, space) };
  }

  it("gives every frame back, in order, unchanged", () => {
    const { loopback, a } = loop();
    const sent = range(0, 1000).map((i) => frame(station(1), station(0), i, 60 + i));
    a.send(...sent);
    scheduler.run();
    expect(a.received).toEqual(sent);
    expect(loopback.balance()).toMatchObject({
      received: 1000,
      delivered: 1000,
      inFlight: 0,
      balanced: true,
    });
  });

  it("pushes back when its queue is full, and goes on when the peer takes frames", () => {
    const { loopback, a } = loop({ maxFrames: 8 });
    a.room = 5;
    a.send(...range(0, 30).map((i) => frame(station(1), station(0), i)));
    scheduler.run();
    expect(a.serials()).toEqual(range(0, 5));
    expect(loopback.counters().inFlight).toBe(3);
    for (let i = 0; i < 10; i++) {
      a.makeRoom(3);
      scheduler.run();
      expect(loopback.balance().balanced).toBe(true);
    }
    expect(a.serials()).toEqual(range(0, 30));
  });

  it("counts what it holds when it is unplugged or closed", () => {
    const { loopback, a } = loop();
    a.room = 0;
    a.transmit(frame(station(1), station(0), 1));
    loopback.detach();
    expect(a.transmit(frame(station(1), station(0), 2))).toBe(1);
    expect(loopback.counters().drops).toEqual({ "no-link": 2 });
    loopback.attach(a);
    a.transmit(frame(station(1), station(0), 3));
    loopback.close();
    loopback.close();
    expect(a.transmit(frame(station(1), station(0), 4))).toBe(1);
    expect(loopback.balance()).toMatchObject({
      drops: { "no-link": 2, closed: 2 },
      inFlight: 0,
      balanced: true,
    });
    scheduler.run();
    expect(a.received).toEqual([]);
  });
});
