import { fc, test } from "@fast-check/vitest";
import { VENET_LINKUP } from "vbus/abi";
import { MemorySpace } from "vbus/memory";
import { FaultInjector, OFFLOAD_ALL, OFFLOAD_CSUM, Switch, type Port } from "vbus/net";
import { VirtualScheduler } from "vbus/scheduler";
import { beforeEach, describe, expect, it } from "vitest";
import { byFlow, segments, superframes } from "../offload/captures.js";
import { expectFrames, TestMachine, testFrame } from "./machine.js";
import { EVERYTHING, ModernNic, type KernelFrame, type ModernOptions } from "./modern-nic.js";
import { TestPort } from "./port.js";
import { RawGuest } from "./raw-guest.js";
import { vsgSize } from "./vsg.js";

const TO = [2, 0, 0, 0, 0, 0x0b];
const MAC = [2, 0, 0, 0, 0, 0x0a];
const captured = superframes();
/** What the bridge itself sent is not in the file before segmentation. */
const wire = byFlow(segments());

let scheduler: VirtualScheduler;
let machine: TestMachine;
let port: TestPort;
let guest: RawGuest;
let nic: ModernNic;

function start(options: ModernOptions = {}, offloads = 0): void {
  scheduler = new VirtualScheduler();
  port = new TestPort();
  port.offloads = offloads;
  machine = new TestMachine(() => port, scheduler);
  machine.addNic("nic0");
  guest = new RawGuest(machine, "raw", { size: 8 << 20 });
  guest.open();
  nic = new ModernNic(guest, { sg: EVERYTHING, uso: EVERYTHING, ...options });
  expect(guest.call(VENET_LINKUP)).toBe(0);
  scheduler.run();
}

const tx = () => {
  const statistics = machine.assertBalanced()["nic0"];
  if (statistics === undefined) throw new Error("no nic0");
  return statistics;
};

/** Sends all, reaping whenever the ring is full. */
function sendAll(frames: readonly KernelFrame[], cuts: (i: number) => readonly number[] = () => []): void {
  for (const [i, frame] of frames.entries()) {
    if (!nic.room) {
      scheduler.run();
      nic.reap();
    }
    expect(nic.send(frame, cuts(i))).toBeDefined();
  }
  scheduler.run();
  nic.reap();
}

/** Deterministic places to cut a frame of a length at. */
function scatter(length: number, seed: number, most = 17): number[] {
  const cuts: number[] = [];
  for (let n = seed % (most + 1), x = seed * 2654435761 + 1; n > 0; n--) {
    x = (Math.imul(x, 1103515245) + 12345) >>> 0;
    cuts.push((x >>> 4) % (length + 1));
  }
  return cuts;
}

describe.each([
  ["16-byte pieces, PMTD pool, exact lengths (N2)", {}],
  ["16-byte pieces, slots anywhere, exact lengths", { pool: false }],
  ["16-byte pieces, PMTD pool, slot lengths of 304", { fullLength: true, slotSize: 304 }],
  [
    "16-byte pieces, slots anywhere, slot lengths of 320 (N1)",
    { fullLength: true, pool: false, slotSize: 320 },
  ],
  ["16-byte pieces, PMTD pool, slot lengths of 336 (V13)", { fullLength: true, slotSize: 336 }],
  ["12-byte pieces, PMTD pool, exact lengths", { ilp32: true }],
  ["12-byte pieces, slots anywhere, slot lengths of 248", { ilp32: true, pool: false, fullLength: true }],
] satisfies [string, ModernOptions][])("frames in scatter-gather descriptors: %s", (_name, options) => {
  beforeEach(() => {
    start({ count: 16, ...options });
  });

  it("arrive byte for byte, in order, however they are cut", () => {
    const most = Math.floor((nic.slotSize - 32) / (nic.ilp32 ? 12 : 16)) - 1;
    const frames = Array.from({ length: 120 }, (_, n) => testFrame(TO, MAC, 14 + ((n * 97) % 1501), n));
    sendAll(
      frames.map((bytes) => ({ bytes })),
      (i) => scatter(frames[i]?.length ?? 0, i, most),
    );
    expectFrames(port.sent, frames);
    expect(tx().tx).toMatchObject({ frames: 120, passed: 120, replicated: 0 });
    expect(tx().tx.drops).toEqual({});
    expect(nic.freed).toHaveLength(120);
  });

  it("with pieces of no length, whose address means nothing, arrive", () => {
    const frame = testFrame(TO, MAC, 100);
    nic.send({ bytes: frame }, [0, 0, 40, 40, 100]);
    scheduler.run();
    expect(port.sent).toEqual([frame]);
  });
});

it("19 pieces are taken where the slot holds them (V13)", () => {
  for (const ilp32 of [false, true]) {
    start({ slotSize: vsgSize(19, ilp32), ilp32 });
    const frame = testFrame(TO, MAC, 190);
    nic.send(
      { bytes: frame },
      Array.from({ length: 18 }, (_, n) => (n + 1) * 10),
    );
    scheduler.run();
    expect(port.sent).toEqual([frame]);
  }
});

describe("partial checksums", () => {
  const unfinished = captured.filter((frame) => frame.flags === 1);

  it("are completed for a port that does not take them, byte for byte as the kernel does", () => {
    start({ count: 16 });
    sendAll(unfinished, (i) => scatter(unfinished[i]?.bytes.length ?? 0, i));
    expect(port.sent).toHaveLength(unfinished.length);
    for (const [flow, frames] of byFlow(port.sent))
      for (const frame of frames) expect(wire.get(flow)).toContain(frame);
    expect(tx()).toMatchObject({ checksummed: unfinished.length, segmented: 0 });
  });

  it("pass untouched to a port that takes them", () => {
    start({ count: 16 }, OFFLOAD_CSUM);
    sendAll(unfinished, (i) => scatter(unfinished[i]?.bytes.length ?? 0, i + 3));
    expectFrames(
      port.sent,
      unfinished.map((frame) => frame.bytes),
    );
    expect(port.needs).toEqual(
      unfinished.map(({ flags, kind, size, start, offset }) => ({ flags, kind, size, start, offset })),
    );
    expect(tx()).toMatchObject({ checksummed: 0 });
  });
});

describe("superframes", () => {
  const count = captured.filter((frame) => (frame.flags & 2) !== 0).length;

  it.each([0, 1, 2])("become the kernel's own segments at a plain port (scattering %i)", (round) => {
    start({ count: 16 });
    sendAll(captured, (i) => (round === 0 ? [] : scatter(captured[i]?.bytes.length ?? 0, i * 3 + round)));
    for (const [flow, frames] of byFlow(port.sent)) expect(frames).toEqual(wire.get(flow));
    const statistics = tx();
    expect(statistics.segmented).toBe(count);
    expect(statistics.tx.frames).toBe(captured.length);
    expect(statistics.tx.passed).toBe(port.sent.length);
    expect(statistics.tx.replicated).toBe(statistics.segments - count);
    expect(statistics.superframes_passed).toBe(0);
  });

  it("pass untouched to a port that takes them", () => {
    start({ count: 16 }, OFFLOAD_ALL);
    sendAll(captured, (i) => scatter(captured[i]?.bytes.length ?? 0, i));
    expectFrames(
      port.sent,
      captured.map((frame) => frame.bytes),
    );
    expect(tx()).toMatchObject({ superframes_passed: count, segmented: 0, segments: 0, checksummed: 0 });
  });

  it("of kinds that a port does not take are cut, the others pass", () => {
    start({ count: 16 }, OFFLOAD_CSUM | 2); // TCP over IPv4
    sendAll(captured);
    const passed = captured.filter((frame) => frame.kind === 1).length;
    expect(tx()).toMatchObject({ superframes_passed: passed, segmented: count - passed, checksummed: 0 });
  });

  it("that are malformed are dropped even when they would pass, their neighbours delivered", () => {
    start({ count: 16 }, OFFLOAD_ALL);
    const good = captured.find((frame) => frame.kind === 1) as KernelFrame;
    const bad = new Uint8Array(good.bytes);
    bad[14] = 0x65; // IP version 6 in a frame that says IPv4
    sendAll([good, { ...good, bytes: bad }, good]);
    expect(port.sent).toHaveLength(2);
    expect(tx().tx.drops).toEqual({ "bad-offload": 1 });
  });

  it("are held in order where a port takes only part, and nothing is lost or overtaken", () => {
    const first = captured.findIndex((frame) => frame.bytes.length > 20_000);
    const frames = captured.slice(first - 6, first + 8);
    expect(frames.filter((frame) => (frame.flags & 2) !== 0).length).toBeGreaterThan(2);
    start({ count: 16 });
    sendAll(frames);
    const expected = port.sent.slice();
    start({ count: 16 });
    port.room = 0;
    for (const frame of frames) nic.send(frame);
    scheduler.run();
    for (let n = 0; port.sent.length < expected.length; n++) {
      expect(n).toBeLessThan(1000);
      port.open(1 + (n % 3));
      scheduler.run();
      tx();
    }
    expectFrames(port.sent, expected);
    expect(nic.reap()).toBe(frames.length);
    expect(tx().tx.held).toBe(0);
    expect(tx().tx.drops).toEqual({});
  });

  it("held while their port takes small frames only: what comes after waits, too", () => {
    start({ count: 16 });
    const big = captured.find((frame) => frame.bytes.length > 20_000) as KernelFrame;
    const small = testFrame(TO, MAC, 60);
    port.room = 2;
    const transmit = port.transmit.bind(port);
    // a port with room for whatever is small
    port.transmit = (batch, from, to) => {
      if (batch.length(from) < 100) port.room = 1;
      return transmit(batch, from, to);
    };
    nic.send(big);
    nic.send({ bytes: new Uint8Array(5) }); // dropped in between
    nic.send({ bytes: small });
    scheduler.run();
    expect(port.sent.every((frame) => frame.length > 100)).toBe(true);
    expect(tx().tx.held).toBeGreaterThan(0);
    port.open(Infinity);
    scheduler.run();
    expect(port.sent.at(-1)).toEqual(small);
  });

  it("whose rest is held have come back to the guest, which is told at once", () => {
    start({ count: 1 });
    machine.bus.write("devices/nic0/txmitigation", "1000");
    const big = captured.find((frame) => frame.bytes.length > 20_000) as KernelFrame;
    port.room = 1;
    nic.send(big);
    guest.events();
    scheduler.run();
    expect(guest.events().filter((event) => event.kind === "shmsignal")).toHaveLength(1);
    expect(nic.reap()).toBe(1);
  });

  it("whose rest is held when the session ends are counted as closed", () => {
    start({ count: 16 });
    const big = captured.find((frame) => frame.bytes.length > 20_000) as KernelFrame;
    port.room = 2;
    nic.send(big);
    scheduler.run();
    const { held } = tx().tx;
    expect(held).toBeGreaterThan(5);
    guest.client.close(guest.handle);
    expect(tx().tx).toMatchObject({ held: 0, passed: 2, drops: { closed: held } });
  });

  it("end well when the session ends inside the port", () => {
    start({ count: 16 });
    const big = captured.find((frame) => frame.bytes.length > 20_000) as KernelFrame;
    sendAll([big]);
    guest.client.close(guest.handle);
    const arena = guest.host.arena.available;
    guest.open();
    nic = new ModernNic(guest, { sg: EVERYTHING });
    guest.call(VENET_LINKUP);
    const transmit = port.transmit.bind(port);
    port.transmit = (batch, from, to) => {
      guest.client.close(guest.handle);
      return transmit(batch, from, Math.min(to, from + 3));
    };
    nic.send(big);
    scheduler.run();
    expect(tx().tx.held).toBe(0);
    expect(guest.host.arena.available).toBe(arena);
    expect(machine.errors).toEqual([]);
  });

  it("that a NIC without carrier is given are dropped as no-link, and so is the rest of one", () => {
    start({ count: 16 });
    const big = captured.find((frame) => frame.bytes.length > 20_000) as KernelFrame;
    port.room = 2;
    nic.send(big);
    scheduler.run();
    machine.bus.write("devices/nic0/link", "down");
    scheduler.run();
    nic.send(big);
    scheduler.run();
    const { tx: counts } = tx();
    expect(counts.held).toBe(0);
    expect(counts).toMatchObject({ frames: 2, passed: 2 });
    expect(Object.keys(counts.drops)).toEqual(["no-link"]);
  });
});

describe("between guests on a switch", () => {
  /** Two guests, the second with these options; everything the first sends of the capture goes to the second. */
  async function exchange(
    receiver: ModernOptions,
    wrap = (port: Port): Port => port,
  ): Promise<{ b: ModernNic; network: Switch }> {
    scheduler = new VirtualScheduler();
    const network = new Switch({ scheduler, space: await MemorySpace.host(8 << 20) });
    machine = new TestMachine((name) => wrap(network.addPort(name)), scheduler);
    machine.addNic("nic0", { client_mac: "02:00:00:00:00:0a" });
    machine.addNic("nic1", { client_mac: "02:00:00:00:00:0b", coalesce: "0" });
    const [a, b] = ([{ sg: EVERYTHING, uso: EVERYTHING }, receiver] satisfies ModernOptions[]).map(
      (options, i) => {
        const guest = new RawGuest(machine, `guest${i}`, { size: 8 << 20 });
        guest.open(i);
        const nic = new ModernNic(guest, { count: 64, pages: 40, ...options });
        expect(guest.call(VENET_LINKUP)).toBe(0);
        return nic;
      },
    ) as [ModernNic, ModernNic];
    for (const [i, frame] of captured.entries()) {
      expect(a.send(frame, scatter(frame.bytes.length, i))).toBeDefined();
      for (let quiet = 0; quiet < 2; quiet = scheduler.run() + b.poll() === 0 ? quiet + 1 : 0);
      a.reap();
    }
    machine.assertBalanced();
    expect(network.balance().balanced).toBe(true);
    expect(machine.errors).toEqual([]);
    return { b, network };
  }

  it("a linear guest gets the kernel's own segments", async () => {
    const { b, network } = await exchange({});
    for (const [flow, frames] of byFlow(b.arrived.map((frame) => frame.bytes)))
      expect(frames).toEqual(wire.get(flow));
    expect(network.counters()).toMatchObject({ superframes_passed: 0, segmented: 89 });
  });

  it("a capable guest gets superframes and partial checksums as they were sent", async () => {
    const { b, network } = await exchange({ l4ro: EVERYTHING, uso: EVERYTHING });
    expectFrames(
      b.arrived.map((frame) => frame.bytes),
      captured.map((frame) => frame.bytes),
    );
    for (const [i, { flags, kind, size, start, offset }] of captured.entries()) {
      expect(b.arrived[i]).toMatchObject({ flags, kind, size: kind === 0 ? 0 : size, start, offset });
    }
    expect(network.counters()).toMatchObject({ superframes_passed: 89, segmented: 0, checksummed: 0 });
  });

  it("… also through middleware that holds every frame for a while", async () => {
    const space = await MemorySpace.host(8 << 20);
    const { b, network } = await exchange(
      { l4ro: EVERYTHING, uso: EVERYTHING },
      (port) => new FaultInjector(port, { scheduler, space, direction: "both" }),
    );
    expectFrames(
      b.arrived.map((frame) => frame.bytes),
      captured.map((frame) => frame.bytes),
    );
    expect(network.counters()).toMatchObject({ superframes_passed: 89, segmented: 0, checksummed: 0 });
  });

  it("… and a linear guest behind it gets the kernel's own segments", async () => {
    const space = await MemorySpace.host(8 << 20);
    const { b } = await exchange(
      {},
      (port) => new FaultInjector(port, { scheduler, space, direction: "both" }),
    );
    for (const [flow, frames] of byFlow(b.arrived.map((frame) => frame.bytes)))
      expect(frames).toEqual(wire.get(flow));
  });

  it("a guest that takes large frames but not UDP's gets those cut", async () => {
    const { b } = await exchange({ l4ro: EVERYTHING });
    expect(b.arrived.filter((frame) => frame.kind === 3)).toEqual([]);
    expect(b.arrived.filter((frame) => frame.kind !== 0)).toHaveLength(83);
  });

  it("a guest that takes checksums only gets everything cut", async () => {
    const { b, network } = await exchange({ l4ro: 1 });
    expect(b.arrived.filter((frame) => frame.kind !== 0)).toEqual([]);
    expect(network.counters()).toMatchObject({ superframes_passed: 0, segmented: 89, checksummed: 0 });
  });
});

describe("random scattering", () => {
  test.prop(
    {
      lengths: fc.array(fc.integer({ min: 14, max: 1514 }), { minLength: 1, maxLength: 12 }),
      seed: fc.integer({ min: 0, max: 1 << 20 }),
      ilp32: fc.boolean(),
      pool: fc.boolean(),
      room: fc.integer({ min: 1, max: 5 }),
    },
    { numRuns: 40 },
  )("never changes a frame, its order, or the equation", ({ lengths, seed, ilp32, pool, room }) => {
    start({ ilp32, pool, count: 16 });
    const frames = lengths.map((length, n) => testFrame(TO, MAC, length, n + seed));
    port.room = room;
    for (const [i, bytes] of frames.entries()) nic.send({ bytes }, scatter(bytes.length, seed + i));
    scheduler.run();
    tx();
    port.open(Infinity);
    scheduler.run();
    expectFrames(port.sent, frames);
    expect(nic.reap()).toBe(frames.length);
    expect(tx().tx.drops).toEqual({});
  });
});
