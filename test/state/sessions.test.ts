import { afterEach, describe, expect, it } from "vitest";
import { MemoryBackend } from "vbus/devices/vblk";
import { quiesce } from "vbus/state";
import { MemorySpace, type GuestMemoryOptions } from "vbus/memory";
import { Switch, totalDrops } from "vbus/net";
import { pause, turns } from "../event-loop.js";
import { DiskMachine, expectBytes, pattern as diskPattern } from "../vblk/machine.js";
import { pattern, readBytes, TestMachine as ConsoleMachine } from "../vconsole/machine.js";
import { expectFrames, testFrame, TestMachine, type TestGuest } from "../venet/machine.js";
import { introduce } from "./card-traffic.js";
import { ClientPart, replaceHost } from "./client-part.js";

const ROUNDS = 100;

describe("network cards under load", () => {
  let machine: TestMachine;
  let net: Switch;
  let a: TestGuest;
  let b: TestGuest;

  async function start(options = {}, attributes = {}, memory: GuestMemoryOptions = {}): Promise<void> {
    const space = await MemorySpace.host();
    machine = new TestMachine((name) => net.addPort(name));
    net = new Switch({ scheduler: machine.scheduler, space, stallMs: 60_000 });
    machine.addNic("nic0", { client_mac: "02:00:00:00:00:0a", ...attributes });
    machine.addNic("nic1", { client_mac: "02:00:00:00:00:0b", ...attributes });
    a = await machine.addGuest("a", 0, options, memory);
    b = await machine.addGuest("b", 1, options, memory);
    await a.nic.open();
    await b.nic.open();
    await introduce(a.nic, b.nic);
  }

  afterEach(async () => {
    machine.assertBalanced();
    await machine.close();
    net.close();
    expect(machine.errors).toEqual([]);
  });

  const sequence = (n: number): Uint8Array[] =>
    Array.from({ length: n }, (_, i) => testFrame(b.nic.mac, a.nic.mac, 60 + (i % 1400), i));

  it.each([
    ["in linear mode", { offloads: false }, {}],
    ["with everything that can be negotiated", {}, { lazy_indexes: "1", compact_descriptors: "1", txc: "1" }],
  ])("are saved a hundred times without a frame being lost, %s", async (_what, options, attributes) => {
    await start(options, attributes);
    const frames = sequence(2000);
    const received: Uint8Array[] = [];
    const sending = a.nic.send(frames);
    let saved = 0;
    const saving = (async () => {
      for (; saved < ROUNDS; saved++) {
        const quiesced = await quiesce([new ClientPart(saved % 2 === 0 ? a.client : b.client)]);
        expect(quiesced.save().length).toBeGreaterThan(1000);
        quiesced.resume();
        await turns(1);
      }
    })();
    while (received.length < frames.length) received.push(...(await b.nic.receive()));
    await sending;
    await saving;
    expectFrames(received, frames);
    expect(machine.statistics("nic1").rx.drops).toEqual({});
    expect(machine.statistics("nic0").tx.drops).toEqual({});
  });

  it.each([
    ["in linear mode", { offloads: false }, {}],
    ["with superframes", {}, {}],
    ["with everything that can be negotiated", {}, { lazy_indexes: "1", compact_descriptors: "1", txc: "1" }],
  ])(
    "go on from a saved state a hundred times in a row, what a guest sends never being lost or doubled, %s",
    async (_what, options, attributes) => {
      await start(options, attributes);
      const frames = sequence(2000);
      const received: Uint8Array[] = [];
      const sending = a.nic.send(frames);
      let rounds = 0;
      const restoring = (async () => {
        for (; rounds < ROUNDS; rounds++) {
          await replaceHost(a.client, a.host);
          await turns(1);
        }
      })();
      const own = (frame: Uint8Array): boolean => frame[12] === 0x88 && frame[13] === 0xb5;
      while (received.length < frames.length) received.push(...(await b.nic.receive()).filter(own));
      await sending;
      await restoring;
      expectFrames(received, frames);
    },
  );

  it("go on as the receiver, a hundred times in a row: in order, and what the network lost meanwhile is counted", async () => {
    await start();
    const frames = sequence(2000);
    const received: number[] = [];
    let done = false;
    const receiving = (async () => {
      while (!done) {
        for (const frame of await b.nic.receive()) {
          const n = frames.findIndex(
            (sent, i) => i > (received.at(-1) ?? -1) && Buffer.compare(sent, frame) === 0,
          );
          received.push(n);
        }
      }
    })();
    const sending = a.nic.send(frames);
    for (let round = 0; round < ROUNDS; round++) {
      await replaceHost(b.client, b.host);
      await turns(1);
    }
    await sending;
    await pause(300);
    done = true;
    await a.nic.send([testFrame(b.nic.mac, a.nic.mac, 60, 1)]); // wakes the receiver
    await receiving;
    received.pop();
    expect(received).not.toContain(-1);
    const { rx } = machine.statistics("nic1");
    const lost = net.counters().drops;
    expect(received.length, "received").toBeGreaterThan(frames.length / 2);
    expect(received.length + totalDrops(lost) + totalDrops(rx.drops)).toBeGreaterThanOrEqual(frames.length);
  });
});

describe("a disk under load", () => {
  it("is restored a hundred times in a row, and every request is answered once and rightly", async () => {
    const machine = new DiskMachine(new MemoryBackend(1 << 20), { queue_depth: "32" });
    const guest = await machine.addGuest();
    const { disk } = guest;
    const BLOCK = 4096;
    const content = Array.from({ length: 16 }, () => new Uint8Array(BLOCK));
    let running = true;
    const work = (async () => {
      for (let round = 1; running; round++) {
        await Promise.all(
          content.map(async (_, i) => {
            const data = diskPattern(BLOCK, round * 16 + i);
            await disk.write((i * BLOCK) / 512, data);
            content[i] = data;
          }),
        );
        await disk.flush();
        await Promise.all(
          content.map(async (data, i) => {
            expectBytes(await disk.read((i * BLOCK) / 512, BLOCK), data);
          }),
        );
        await turns(1); // requests to a disk in memory are answered without one: the host must get its turns, too
      }
    })();
    for (let round = 0; round < ROUNDS; round++) {
      await replaceHost(guest.client, guest.host);
      await turns(1);
    }
    running = false;
    await work;
    expect(machine.statistics().outstanding).toBe(0);
    await machine.close();
  });
});

describe("a console under load", () => {
  it("is restored a hundred times in a row, and not a byte is lost or doubled in either direction", async () => {
    const machine = new ConsoleMachine();
    const terminal = machine.addConsole("console0", { backlog: 5000 });
    const guest = await machine.addGuest("guest", 0, { rxRing: 3, txRing: 3, bufferSize: 100 });
    await guest.console.open();
    const fromGuest: Uint8Array[] = [];
    terminal.onData = (bytes) => {
      fromGuest.push(bytes);
    };
    const input = pattern(100_000, 1);
    const output = pattern(100_000, 2);
    const writing = guest.console.write(output);
    const typing = (async () => {
      for (let at = 0; at < input.length;) {
        at += terminal.connected ? terminal.tryWrite(input.subarray(at, at + 700)) : 0;
        await turns(1);
      }
    })();
    const restoring = (async () => {
      for (let round = 0; round < ROUNDS; round++) {
        await replaceHost(guest.client, guest.host);
        await turns(1);
      }
    })();
    const got = await readBytes(guest.console, input.length);
    await Promise.all([writing, typing, restoring]);
    await pause(50);
    expect(Buffer.compare(got, input)).toBe(0);
    expect(Buffer.compare(Buffer.concat(fromGuest), output)).toBe(0);
    for (const open of [guest.bus]) await open.close();
  });
});
