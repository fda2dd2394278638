import { afterEach, describe, expect, it } from "vitest";
import { cable } from "./cable.js";
import { expectFrames, TestMachine, testFrame, type TestGuest } from "./machine.js";
import type { VenetOptions } from "vbus/drivers/venet";
import type { GuestMemoryOptions } from "vbus/memory";

let machine: TestMachine;
let a: TestGuest;
let b: TestGuest;

async function start(
  options: VenetOptions = {},
  receiver: VenetOptions = options,
  memory: GuestMemoryOptions = {},
): Promise<void> {
  const [left, right] = cable();
  machine = new TestMachine((name) => (name === "nic0" ? left : right));
  machine.addNic("nic0", { client_mac: "02:00:00:00:00:0a", mtu: "65000" });
  machine.addNic("nic1", { client_mac: "02:00:00:00:00:0b", mtu: "65000" });
  a = await machine.addGuest("a", 0, options, memory);
  b = await machine.addGuest("b", 1, receiver, memory);
  await a.nic.open();
  await b.nic.open();
}

afterEach(async () => {
  machine.assertBalanced();
  await machine.close();
  expect(machine.errors.splice(0)).toEqual([]);
});

const frames = (count: number, length: (n: number) => number = (n) => 60 + ((n * 37) % 1400)): Uint8Array[] =>
  Array.from({ length: count }, (_, n) => testFrame(b.nic.mac, a.nic.mac, length(n), n));

async function receive(guest: TestGuest, count: number): Promise<Uint8Array[]> {
  const received: Uint8Array[] = [];
  while (received.length < count) received.push(...(await guest.nic.receive()));
  return received;
}

describe("two drivers over a cable", () => {
  it.each([
    [1, 1],
    [2, 1],
    [1, 2048],
    [2, 2],
    [3, 3],
    [64, 3],
    [3, 64],
    [256, 256],
    [2048, 2048],
  ])("TX ring of %i, RX ring of %i: everything arrives, in order", async (txRing, rxRing) => {
    await start({ txRing, rxRing }, { txRing, rxRing }, { size: 24 << 20 });
    const sent = frames(txRing === 2048 ? 5000 : 500);
    const sending = a.nic.send(sent);
    expectFrames(await receive(b, sent.length), sent);
    await sending;
    expect(a.nic.statistics()).toMatchObject({ tx_packets: sent.length });
    expect(b.nic.statistics()).toMatchObject({ rx_packets: sent.length, rx_length_errors: 0 });
    expect(machine.statistics("nic0").tx).toMatchObject({ frames: sent.length, drops: {} });
  });

  it.each([false, true])("lazy indexes offered and allowed: %s; the traffic is the same", async (allowed) => {
    const [left, right] = cable();
    machine = new TestMachine((name) => (name === "nic0" ? left : right));
    const lazy_indexes = allowed ? "1" : "0";
    machine.addNic("nic0", { lazy_indexes });
    machine.addNic("nic1", { lazy_indexes });
    a = await machine.addGuest("a", 0, { lazyIndexes: true, txRing: 8, rxRing: 8, offloads: false });
    b = await machine.addGuest("b", 1, { lazyIndexes: true, txRing: 8, rxRing: 8, offloads: false });
    await a.nic.open();
    await b.nic.open();
    const sent = frames(300);
    const sending = a.nic.send(sent);
    expectFrames(await receive(b, sent.length), sent);
    await sending;
    // the shared inuse.tail of the TX ring tells whether it was written for every frame
    const extension = a.memory.space.copyFrom(firstRing(a), 56);
    expect(new DataView(extension.buffer).getUint32(52, true)).toBe(allowed ? 0x80000001 : 1);
  });

  it.each([
    { offloads: false, txc: "0" },
    { offloads: true, txc: "0" },
    { offloads: false, txc: "1" },
    { offloads: true, txc: "1" },
  ])(
    "compact descriptors carry the same traffic (offloads $offloads, completions $txc)",
    async ({ offloads, txc }) => {
      const [left, right] = cable();
      machine = new TestMachine((name) => (name === "nic0" ? left : right));
      const attributes = { compact_descriptors: "1", lazy_indexes: "1", txc };
      machine.addNic("nic0", attributes);
      machine.addNic("nic1", attributes);
      const options = { compactDescriptors: true, lazyIndexes: true, txRing: 8, rxRing: 8, offloads };
      a = await machine.addGuest("a", 0, options);
      b = await machine.addGuest("b", 1, options);
      await a.nic.open();
      await b.nic.open();
      const sent = frames(300);
      const sending = a.nic.send(sent);
      expectFrames(await receive(b, sent.length), sent);
      await sending;
      // with offloads the event queue is the first of its memory
      const header = new DataView(a.memory.space.copyFrom(firstRing(a), 56).buffer);
      if (!offloads) expect(header.getUint32(52, true)).toBe(0x80000003);
      expect(a.nic.statistics()).toMatchObject({ tx_packets: sent.length });
    },
  );

  it("lazy indexes allowed but not offered: strict v4, the word stays 0", async () => {
    const [left, right] = cable();
    machine = new TestMachine((name) => (name === "nic0" ? left : right));
    machine.addNic("nic0", { lazy_indexes: "1" });
    machine.addNic("nic1", { lazy_indexes: "1" });
    a = await machine.addGuest("a", 0, { offloads: false });
    b = await machine.addGuest("b", 1, { offloads: false });
    await a.nic.open();
    await b.nic.open();
    const sent = frames(10);
    await a.nic.send(sent);
    expectFrames(await receive(b, 10), sent);
    const header = new DataView(a.memory.space.copyFrom(firstRing(a), 56).buffer);
    expect(header.getUint32(52, true)).toBe(0);
    expect(header.getUint32(36 + 4, true)).toBe(0); // nothing was received here
  });

  it("a receiver that does not look stops the sender, and nothing is lost", async () => {
    await start({ txRing: 16, rxRing: 16, receiveBacklog: 10 });
    const sent = frames(500);
    let done = false;
    const sending = a.nic.send(sent).then(() => (done = true));
    await machine.settle();
    expect(done).toBe(false);
    expect(machine.statistics("nic0").tx.frames).toBe(10 + 16);
    expect(a.nic.statistics().tx_packets).toBe(10 + 16 + 16);
    expect(a.nic.trySend(frames(1))).toBe(0);
    expectFrames(await receive(b, 500), sent);
    await sending;
  });

  it("a receiver of batches that takes a part gets the rest when it asks, in order", async () => {
    await start({ rxRing: 32 });
    const received: Uint8Array[] = [];
    let appetite = 3;
    b.nic.onFrames = (batch, from, to) => {
      const take = Math.min(to - from, appetite);
      for (let i = from; i < from + take; i++) received.push(batch.copy(i));
      appetite -= take;
      return take;
    };
    const sent = frames(100);
    const sending = a.nic.send(sent);
    for (let rounds = 0; received.length < 100; rounds++) {
      expect(rounds).toBeLessThan(1000);
      await machine.settle(1);
      appetite = 1 + (rounds % 7);
      b.nic.resumeReceive();
    }
    await sending;
    expectFrames(received, sent);
    expect(b.nic.statistics().rx_packets).toBe(100);
  });

  it("a receiver that stops the NIC in the middle of a batch gets no frame twice", async () => {
    await start();
    const received: Uint8Array[] = [];
    let stopped: Promise<void> | undefined;
    b.nic.onFrames = (batch, from, to) => {
      for (let i = from; i < to; i++) received.push(batch.copy(i));
      stopped ??= b.nic.stop();
      return to - from;
    };
    const sent = frames(20);
    await a.nic.send(sent);
    await machine.settle();
    await stopped;
    const before = received.length;
    expect(before).toBeGreaterThan(0);
    await b.nic.open();
    await machine.settle();
    expectFrames(received, sent.slice(0, received.length));
    expect(b.nic.statistics().rx_packets).toBe(received.length);
  });

  it("several senders at once keep their order: first come, first served", async () => {
    await start({ txRing: 4, rxRing: 4 });
    const parts = [frames(20), frames(1), frames(7), frames(30)].map((list, part) =>
      list.map((frame) => {
        frame[14] = part;
        return frame;
      }),
    );
    const finished: number[] = [];
    const sending = parts.map((part, i) => a.nic.send(part).then(() => finished.push(i)));
    const sent = parts.flat();
    expectFrames(await receive(b, sent.length), sent);
    await Promise.all(sending);
    expect(finished).toEqual([0, 1, 2, 3]);
    expect(a.nic.statistics().tx_queue_stopped).toBe(4);
  });

  it("trySend sends what there is room for", async () => {
    await start({ txRing: 8 });
    const sent = frames(20);
    expect(a.nic.trySend(sent)).toBe(8);
    expectFrames(await receive(b, 8), sent.slice(0, 8));
    expect(a.nic.trySend([])).toBe(0);
    await a.nic.send([]);
  });

  it("frames of a wrong length are refused before anything is sent", async () => {
    await start();
    const good = testFrame(b.nic.mac, a.nic.mac, 60);
    await expect(a.nic.send([good, good.subarray(0, 13)])).rejects.toMatchObject({ code: "EINVAL" });
    await expect(a.nic.send([new Uint8Array(1519)])).rejects.toThrow(/1518/);
    expect(() => a.nic.trySend([new Uint8Array(13)])).toThrow(/14 to 1518/);
    expect(a.nic.statistics()).toMatchObject({ tx_packets: 0, tx_bytes: 0 });
  });

  it("frames sent while the link is down wait for it", async () => {
    await start({ txRing: 8 });
    await a.nic.stop();
    const sent = frames(20);
    const sending = a.nic.send(sent);
    await machine.settle();
    expect(machine.statistics("nic0").tx.frames).toBe(0);
    await a.nic.open();
    expectFrames(await receive(b, 20), sent);
    await sending;
  });

  it("the receiver's link goes down and up in the middle: what was offered meanwhile is dropped and counted", async () => {
    await start({ txRing: 16, rxRing: 16 });
    const links: boolean[] = [];
    b.nic.onLink = (up) => links.push(up);
    const sending = a.nic.send(frames(200));
    const received = await receive(b, 20);
    await b.nic.stop();
    await sending;
    await machine.settle();
    await b.nic.open();
    await a.nic.send(frames(5));
    await machine.settle();
    received.push(...(await b.nic.receive()));
    expect(links).toEqual([false, true]);
    const all = machine.assertBalanced();
    expect(all["nic0"]?.tx.frames).toBe(205);
    expect(all["nic1"]?.rx.passed).toBe(received.length);
  });

  it("a busy sender rings few doorbells, and completions that nobody waits for ring none", async () => {
    await start();
    for (let n = 0; n < 20; n++) {
      await a.nic.send(frames(100));
      await receive(b, 100);
    }
    const { txQueue } = a.nic.statistics();
    expect(txQueue.sent + txQueue.suppressed + txQueue.masked).toBe(40); // one announcement per burst of 64
    expect(txQueue.sent).toBeLessThanOrEqual(40);
    expect(txQueue.wakeups).toBeLessThanOrEqual(20);
    const host = JSON.parse(machine.bus.read("devices/nic0/queues")) as {
      tx: { sent: number; masked: number };
    };
    expect(host.tx.sent).toBe(0);
    expect(host.tx.masked).toBeGreaterThan(0);
  });

  it("runs entirely above 2 GiB", async () => {
    await start({ txRing: 8, rxRing: 8 }, { txRing: 8, rxRing: 8 }, { padding: 2 ** 31, size: 1 << 20 });
    expect(a.memory.space.translate(a.memory.ram.start, 1)).toBeGreaterThan(2 ** 31);
    const sent = frames(100);
    const sending = a.nic.send(sent);
    expectFrames(await receive(b, 100), sent);
    await sending;
  });

  it("runs with guest-physical addresses above 4 GiB", async () => {
    await start({ txRing: 8, rxRing: 8 }, undefined, { gpa: 2 ** 40 });
    const sent = frames(100);
    const sending = a.nic.send(sent);
    expectFrames(await receive(b, 100), sent);
    await sending;
  });
});

describe("changing the MTU", () => {
  it("to 9000, 68 and back, under traffic: frames of each size arrive, flushed buffers are counted", async () => {
    await start({ txRing: 32, rxRing: 32 }, undefined, { size: 12 << 20 });
    for (const mtu of [9000, 68, 1500, 65000, 1500]) {
      const flushed = machine.statistics("nic1").flushed;
      await Promise.all([a.nic.setMtu(mtu), b.nic.setMtu(mtu)]);
      expect(a.nic.mtu).toBe(mtu);
      expect(machine.statistics("nic1").flushed).toBeGreaterThan(flushed);
      await machine.settle(1);
      const sent = frames(100, (n) => (n % 2 === 0 ? mtu + 14 : 60));
      const sending = a.nic.send(sent);
      expectFrames(await receive(b, 100), sent);
      await sending;
    }
    expect(machine.statistics("nic1").flushed).toBe(b.nic.statistics().rx_flushed);
    expect(b.nic.statistics().rx_no_buffer).toBe(0);
  });

  it("in the middle of traffic loses nothing that fits", async () => {
    await start({ txRing: 16, rxRing: 16 });
    const sent = frames(400, (n) => 60 + (n % 20));
    const sending = a.nic.send(sent);
    const received: Uint8Array[] = [];
    for (let rounds = 0; received.length < sent.length; rounds++) {
      await b.nic.setMtu([9000, 68, 1500][rounds % 3] ?? 1500);
      received.push(...(await b.nic.receive()));
    }
    await sending;
    expectFrames(received, sent);
    expect(machine.statistics("nic1").flushed).toBeGreaterThan(0);
  });

  it("while the link is down takes effect at the next open", async () => {
    await start({ txRing: 8, rxRing: 8 });
    await b.nic.stop();
    await b.nic.setMtu(9000);
    expect(machine.statistics("nic1").flushed).toBe(0);
    await b.nic.open();
    await machine.settle(1);
    expect(machine.statistics("nic1").flushed).toBe(8);
    await a.nic.setMtu(9000);
    const sent = frames(20, () => 9014);
    const sending = a.nic.send(sent);
    expectFrames(await receive(b, 20), sent);
    await sending;
  });

  it.each([67, 65001, 1500.5, NaN])("refuses %d with EINVAL", async (mtu) => {
    await start();
    await expect(a.nic.setMtu(mtu)).rejects.toMatchObject({ code: "EINVAL" });
    expect(a.nic.mtu).toBe(1500);
  });

  it("to what the guest's memory cannot hold is ENOMEM, and everything goes on as before", async () => {
    await start();
    await expect(b.nic.setMtu(65000)).rejects.toMatchObject({ code: "ENOMEM" });
    expect(b.nic.mtu).toBe(1500);
    const sent = frames(50);
    await a.nic.send(sent);
    expectFrames(await receive(b, 50), sent);
  });

  it("where memory runs short on the way keeps old buffers, counted, instead of failing", async () => {
    await start({ txRing: 4, rxRing: 16 }, { txRing: 4, rxRing: 16 }, { size: 5 << 18 });
    await a.nic.setMtu(9000);
    const { ram } = b.memory;
    // enough memory in all, but in small pieces
    const hold = Array.from({ length: 200 }, () => ram.allocate(4096, 1));
    const rest = ram.allocate(ram.available - 65536, 1);
    for (let i = 0; i < hold.length; i += 2) ram.free(hold[i] as number);
    expect(ram.available).toBeGreaterThan(20 * 9018);
    await b.nic.setMtu(9000);
    await machine.settle(1);
    expect(b.nic.statistics().rx_no_buffer).toBeGreaterThan(0);
    const short = frames(50, () => 1000);
    const sending = a.nic.send(short);
    expectFrames(await receive(b, 50), short);
    await sending;
    for (let i = 1; i < hold.length; i += 2) ram.free(hold[i] as number);
    ram.free(rest);
    await b.nic.setMtu(9000);
    await machine.settle(1);
    const long = frames(20, () => 9014);
    const sendingLong = a.nic.send(long);
    expectFrames(await receive(b, 20), long);
    await sendingLong;
  });
});

/** Guest-physical address of the guest's first ring: the RX ring is the first thing that a probe allocates in linear mode. */
function firstRing(guest: TestGuest): number {
  const { start } = guest.memory.ram;
  return Math.ceil((start - 8) / 64) * 64 + 8;
}
