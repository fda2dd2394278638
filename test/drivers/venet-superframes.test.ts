import type { ReceivedFrame, SuperframeKind, TransmitFrame, VenetOptions } from "vbus/drivers/venet";
import { FRAME_ECN, FRAME_GSO, FRAME_NEEDS_CSUM } from "vbus/engine";
import { MemorySpace } from "vbus/memory";
import { Switch } from "vbus/net";
import { EventLoopScheduler } from "vbus/scheduler";
import { afterEach, describe, expect, it } from "vitest";
import { superframes } from "../offload/captures.js";
import type { TestFrame } from "../offload/rig.js";
import { expectFrames, TestMachine, testFrame, type TestGuest } from "../venet/machine.js";
import { expectKernelFrames } from "./kernel-frames.js";

const KINDS: (SuperframeKind | null)[] = [null, "tcp4", "tcp6", "udp"];

let machine: TestMachine;
let network: Switch;
let a: TestGuest;
let b: TestGuest;

/** Two guests on a switch that knows both addresses: those of the captures. */
async function start(
  optionsA: VenetOptions = {},
  optionsB: VenetOptions = {},
  attributes: Record<string, string> = {},
): Promise<void> {
  const scheduler = new EventLoopScheduler((error) => machine.errors.push(error));
  network = new Switch({ scheduler, space: await MemorySpace.host() });
  machine = new TestMachine((name) => network.addPort(name), scheduler);
  machine.addNic("nic0", { client_mac: "02:00:00:00:00:0a", ...attributes });
  machine.addNic("nic1", { client_mac: "02:00:00:00:00:0b", ...attributes });
  a = await machine.addGuest("a", 0, optionsA, { size: 16 << 20 });
  b = await machine.addGuest("b", 1, optionsB, { size: 16 << 20 });
  await a.nic.open();
  await b.nic.open();
  await exchange(a, b);
  await exchange(b, a);
}

async function exchange(from: TestGuest, to: TestGuest): Promise<void> {
  const frame = testFrame(to.nic.mac, from.nic.mac, 60);
  const [received] = await Promise.all([to.nic.receive(), from.nic.send([frame])]);
  expectFrames(received, [frame]);
}

/** A frame of the capture as a driver sends it; `pieces`: in that many. */
function outgoing({ bytes, flags, kind, start: first, offset, size }: TestFrame, pieces = 1): TransmitFrame {
  const name = KINDS[kind] ?? null;
  const step = Math.ceil(bytes.length / pieces);
  return {
    data:
      pieces === 1
        ? bytes
        : Array.from({ length: pieces }, (_, i) => bytes.subarray(i * step, (i + 1) * step)),
    ...((flags & FRAME_NEEDS_CSUM) === 0 ? {} : { checksum: { start: first, offset } }),
    ...(name === null
      ? {}
      : { gso: { kind: name, size, headerLength: first, ecn: (flags & FRAME_ECN) !== 0 } }),
  };
}

async function receiveFrames(guest: TestGuest, count: number): Promise<ReceivedFrame[]> {
  const frames: ReceivedFrame[] = [];
  while (frames.length < count) frames.push(...(await guest.nic.receiveFrames()));
  return frames;
}

/** Everything that arrives: until all is sent, and no frame waits in a NIC or in the switch. */
async function receiveAll(guest: TestGuest, sending: Promise<void>): Promise<Uint8Array[]> {
  const frames: Uint8Array[] = [];
  const collecting = (async () => {
    for await (const batch of guest.nic.frames()) frames.push(...batch);
  })();
  await sending;
  const waiting = (): number =>
    network.balance().inFlight +
    Object.values(machine.assertBalanced()).reduce((sum, { tx, rx }) => sum + tx.held + rx.held, 0);
  do await machine.settle(1);
  while (waiting() > 0);
  await guest.nic.close();
  await collecting;
  return frames;
}

afterEach(async () => {
  await machine.close();
  network.close();
  expect(machine.errors).toEqual([]);
  for (const { memory } of machine.guests) expect(memory.ram.available).toBe(memory.ram.size);
});

describe("superframes from guest to guest, over a switch", () => {
  it.each([
    ["with pools", {}],
    ["without a descriptor pool", { offloads: { descriptorPool: false } }],
    ["with completion events", { offloads: { txCompletionEvents: true } }],
    ["with little memory for them", { superframeMemory: 65536, txRing: 16 }],
  ] as [string, VenetOptions][])("arrive untouched, %s", async (_what, options) => {
    await start(options, {}, { coalesce: "0", txc: "1" });
    expect(a.nic.offloads.txCompletionEvents).toBe(_what === "with completion events");
    const capture = superframes();
    const sending = a.nic.send(capture.map((frame, i) => outgoing(frame, 1 + (i % 7))));
    const received = await receiveFrames(b, capture.length);
    await sending;
    for (const [i, { data, checksum, verified, gso }] of received.entries()) {
      const sent = capture[i]!;
      expect(Buffer.compare(data, sent.bytes), `frame ${i}`).toBe(0);
      const partial = (sent.flags & FRAME_NEEDS_CSUM) !== 0;
      expect(checksum).toEqual(partial ? { start: sent.start, offset: sent.offset } : null);
      expect(verified).toBe(partial);
      expect(gso === null).toBe((sent.flags & FRAME_GSO) === 0);
      if (gso !== null) expect(gso).toMatchObject({ kind: KINDS[sent.kind], size: sent.size, ecn: false });
    }
    const total = capture.reduce((sum, { bytes }) => sum + bytes.length, 0);
    expect(a.nic.statistics()).toMatchObject({
      tx_packets: capture.length + 1,
      tx_bytes: total + 60,
      tx_tso: 89,
      tx_csum_partial: 190,
      tx_bad_completions: 0,
    });
    expect(b.nic.statistics()).toMatchObject({
      rx_packets: capture.length + 1,
      rx_bytes: total + 60,
      rx_gro: 89,
      rx_csum_partial: 190,
      rx_length_errors: 0,
      rx_page_errors: 0,
      rx_frame_errors: 0,
    });
    machine.assertBalanced();
  });

  it.each([
    ["a guest in linear mode", { offloads: false }],
    ["a guest that takes no superframes, only partial checksums", { offloads: { receive: false } }],
    ["a guest that takes them, but asks for finished frames", {}],
    ["a guest that takes some kinds", { offloads: { receive: { tcp6: false, udp: false } } }],
  ] as [string, VenetOptions][])("reach %s as the kernel cut them", async (_what, options) => {
    await start({}, options, { coalesce: "0" });
    const sending = a.nic.send(superframes().map((frame) => outgoing(frame)));
    const received = await receiveAll(b, sending);
    expectKernelFrames(received);
    const { tx } = machine.statistics("nic0");
    expect(tx.drops).toEqual({});
    expect(machine.statistics("nic1").rx.drops).toEqual({});
  });

  it("keep their order with ordinary frames, however slowly they are taken", async () => {
    await start({ txRing: 32 }, { rxRing: 16 }, { coalesce: "0" });
    const large = superframes().filter((frame) => frame.bytes.length > 30_000 && frame.kind === 1);
    expect(large.length).toBeGreaterThan(3);
    const sent: Uint8Array[] = [];
    const frames: (TransmitFrame | Uint8Array)[] = [];
    for (let i = 0; i < 150; i++) {
      const frame =
        i % 3 === 0 ? large[i % large.length]!.bytes : testFrame(b.nic.mac, a.nic.mac, 60 + i * 9, i);
      sent.push(frame);
      frames.push(i % 3 === 0 ? outgoing(large[i % large.length]!) : frame);
    }
    // superframes may come cut, by the host, while the guest had no pages left; ordinary frames come as they were sent
    const isOrdinary = (frame: Uint8Array): boolean => frame[12] === 0x88 && frame[13] === 0xb5;
    const received: Uint8Array[] = [];
    let others = 0;
    let room = 0;
    b.nic.onFrames = (batch, from, to) => {
      const n = Math.min(room, to - from);
      for (let i = from; i < from + n; i++) {
        const frame = batch.bytes(i).slice();
        if (isOrdinary(frame)) received.push(frame);
        else others++;
      }
      room -= n;
      return n;
    };
    const sending = a.nic.send(frames);
    for (let turn = 0; received.length < 100 && turn < 2000; turn++) {
      room = 1 + (turn % 5);
      b.nic.resumeReceive();
      await machine.settle(1);
    }
    await sending;
    expectFrames(received, sent.filter(isOrdinary));
    expect(others).toBeGreaterThanOrEqual(50);
    expect(b.nic.statistics()).toMatchObject({ rx_page_errors: 0, rx_length_errors: 0, rx_frame_errors: 0 });
    machine.assertBalanced();
  });
});

describe("the link of a NIC", () => {
  it("follows what the host says of it, and closes without a trace", async () => {
    await start();
    const links: boolean[] = [];
    a.nic.onLink = (up) => links.push(up);
    expect([a.nic.up, a.nic.carrier]).toEqual([true, true]);
    machine.bus.write("devices/nic0/link", "down");
    await machine.settle();
    expect([a.nic.carrier, links]).toEqual([false, [false]]);
    machine.bus.write("devices/nic0/link", "up");
    await machine.settle();
    await a.nic.stop();
    expect(links).toEqual([false, true, false]);
    await a.nic.open();
    await machine.settle();
    expect(links).toEqual([false, true, false, true]);
    await exchange(a, b);
    await a.nic.setMtu(9000);
    await b.nic.setMtu(9000);
    await exchange(b, a);
    await exchange(a, b);
    expect(a.nic.statistics()).toMatchObject({ events: 4, events_unknown: 0 });
  });
});
