/** What ports over messages do beyond what every port between threads does: hostile messages, several others, ends. */
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { Worker } from "node:worker_threads";
import { MemorySpace } from "vbus/memory";
import { OFFLOAD_ALL, totalDrops } from "vbus/net";
import {
  BroadcastChannelPort,
  MessagePortPort,
  type BroadcastChannelPortOptions,
  type ChannelPortOptions,
} from "vbus/net/threads";
import { EventLoopScheduler } from "vbus/scheduler";
import { describe, expect, it } from "vitest";
import { generator, seedOr } from "../engine/seed.js";
import { turns } from "../event-loop.js";
import { frame, range, serialOf, station } from "../net/rig.js";
import { superframes } from "../offload/captures.js";
import { finished, type TestFrame } from "../offload/rig.js";
import type { MessageThreadWork } from "../workers/message-port.js";
import { Collector, Source, unbalanced, until } from "./pairs.js";

const SEED = seedOr(0xbc);
const scheduler = new EventLoopScheduler();
const plain = (n: number, length = 200): TestFrame => finished(frame(station(2), station(1), n, length));

const MAGIC = 0x6d666276;
const [HELLO, FRAMES, TAKEN, BYE] = [1, 2, 3, 4] as const;

/** A message as another page may write it. */
function message(type: number, words: readonly number[], tail: Uint8Array = new Uint8Array()): ArrayBuffer {
  const buffer = new ArrayBuffer(32 + tail.length);
  const view = new DataView(buffer);
  [MAGIC, 1 | (type << 8), ...words].forEach((word, i) => {
    view.setUint32(i * 4, word, true);
  });
  new Uint8Array(buffer).set(tail, 32);
  return buffer;
}

/** Records and bytes of frames without offloads. */
function body(frames: readonly Uint8Array[]): Uint8Array {
  const parts = frames.map((bytes) => {
    const record = new Uint8Array(20);
    new DataView(record.buffer).setUint32(0, bytes.length, true);
    return record;
  });
  const padded = frames.map((bytes) => {
    const all = new Uint8Array((bytes.length + 3) & ~3);
    all.set(bytes);
    return all;
  });
  return new Uint8Array(Buffer.concat([...parts, ...padded]));
}

/** A port, and the raw other end of its channel. */
async function against(options: Partial<ChannelPortOptions> = {}) {
  const { port1, port2 } = new MessageChannel();
  const space = await MemorySpace.host();
  const port = new MessagePortPort(port1, {
    scheduler,
    space,
    lingerMs: 50,
    ...options,
  });
  const said: DataView[] = [];
  port2.onmessage = ({ data }) => said.push(new DataView(data as ArrayBuffer));
  const id = 77;
  const say = (type: number, words: readonly number[], tail?: Uint8Array): void => {
    port2.postMessage(message(type, [id, 0, ...words], tail));
  };
  return { port, space, raw: port2, said, id, say };
}

const types = (said: readonly DataView[]): number[] => said.map((view) => view.getUint32(4, true) >>> 8);

describe("a port over a MessagePort whose other end says nothing any more", () => {
  it("ends, although whoever is told of the others throws", async () => {
    const told: unknown[] = [];
    const { port, say } = await against({
      scheduler: new EventLoopScheduler((error) => told.push(error)),
      onPeers: (sides) => {
        if (sides === 0) throw new Error("the embedder is ill");
      },
    });
    say(HELLO, [0, 64, 1 << 20, 0]);
    await until(() => port.sides === 1);
    port.close();
    await port.closed;
    expect(told).toEqual([new Error("the embedder is ill")]);
  });
});

describe("a port over a MessagePort whose other end is hostile", () => {
  it("counts what is no message, and goes on", async () => {
    const { port, raw, say, said } = await against();
    const collector = new Collector(port);
    const garbage: unknown[] = [
      null,
      undefined,
      42,
      "frames",
      { magic: MAGIC },
      new Uint8Array(64),
      new ArrayBuffer(0),
      new ArrayBuffer(31),
      new ArrayBuffer(32),
      new ArrayBuffer(4 << 20),
      message(0, [77]),
      message(5, [77]),
      message(HELLO, [0, 0, 1, 100, 100_000]), // nobody is number 0
      message(HELLO, [77, 0, 1, 0, 100_000]), // a window that nothing fits in
    ];
    for (const item of garbage) raw.postMessage(item);
    await until(() => port.counters().violations === garbage.length);
    say(HELLO, [1, 1000, 1 << 20, 500]);
    say(FRAMES, [500, 2], body([frame(2, 1, 0), frame(2, 1, 1)]));
    await until(() => collector.frames.length === 2);
    expect(types(said)).toEqual([HELLO, HELLO, TAKEN]);
    expect(said[2]!.getUint32(16, true)).toBe(502);
    raw.postMessage(message(HELLO, [78, 0, 1, 1000, 1 << 20])); // there is only one other end
    await until(() => port.counters().violations === garbage.length + 1);
    expect(port.sides).toBe(1);
    port.close();
    await port.closed;
    expect(port.balance()).toMatchObject({ balanced: true, inFlight: 0 });
  });

  it("takes no frames that contradict themselves, none twice, and notices those that are missing", async () => {
    const { port, say } = await against({ offloads: OFFLOAD_ALL });
    const collector = new Collector(port);
    say(HELLO, [0, 1000, 1 << 20, 0]);
    const one = frame(2, 1, 1);
    const bad: [number, number, Uint8Array][] = [
      [0, 0, body([one])],
      [0, 2, body([one])],
      [0, 65, body(range(0, 65).map(() => one))],
      [0, 0xffffffff, body([one])],
      [0, 1, body([one]).subarray(0, 40)],
      [0, 1, new Uint8Array([...body([one]), 0, 0, 0, 0])],
      [0, 1, body([new Uint8Array(65_540)])],
    ];
    for (const [first, count, tail] of bad) say(FRAMES, [first, count], tail);
    await until(() => port.counters().violations === bad.length);
    const offload = body([one]);
    const view = new DataView(offload.buffer);
    view.setUint32(4, 1, true); // a partial checksum …
    view.setUint16(8, 59, true); // … beyond the end
    say(FRAMES, [0, 1], offload);
    say(FRAMES, [1, 1], body([frame(2, 1, 2)]));
    say(FRAMES, [1, 1], body([frame(2, 1, 3)])); // again
    say(FRAMES, [0xfffffff0, 1], body([frame(2, 1, 4)])); // and from long ago
    say(FRAMES, [12, 1], body([frame(2, 1, 5)])); // ten are missing
    say(FRAMES, [13, 1], body([new Uint8Array(5)])); // no frame
    await until(() => collector.frames.length === 2 && totalDrops(port.counters().drops) === 2);
    expect(collector.frames.map(({ bytes }) => serialOf(bytes))).toEqual([2, 5]);
    expect(port.counters()).toMatchObject({
      arrived: 4,
      incomingDrops: { "bad-offload": 1, undersize: 1 },
      violations: bad.length + 2,
    });
    expect(port.missing).toBe(10);
    port.close();
    await port.closed;
  });

  it("holds no more than its limits when the other end sends beyond them", async () => {
    const { port, say } = await against({ frames: 64, bytes: 256 * 1024 });
    const collector = new Collector(port);
    collector.room = 0;
    say(HELLO, [0, 1000, 1 << 20, 0]);
    for (let i = 0; i < 100; i++)
      say(FRAMES, [i * 32, 32], body(range(0, 32).map((n) => frame(2, 1, i * 32 + n))));
    await until(() => port.counters().arrived === 3200);
    expect(port.counters()).toMatchObject({ inFlight: 64, incomingDrops: { "queue-full": 3136 } });
    collector.makeRoom(Infinity);
    await until(() => collector.frames.length === 64);
    expect(port.balance()).toMatchObject({ balanced: true, inFlight: 0 });
    port.close();
    await port.closed;
  });

  it("believes no acknowledgement of what it never sent", async () => {
    const { port, say, space } = await against({ frames: 64 });
    const source = new Source(port, space, new Collector(port));
    say(HELLO, [0, 64, 1 << 20, 0]);
    await until(() => port.sides === 1);
    source.send(...range(0, 100).map((n) => plain(n)));
    expect(port.counters()).toMatchObject({ sent: 64, acknowledged: 0 });
    for (const sequence of [65, 1 << 30, 0xffffffff]) say(TAKEN, [sequence]);
    await until(() => port.counters().violations === 3);
    expect(port.counters()).toMatchObject({ sent: 64, acknowledged: 0 });
    say(TAKEN, [64]);
    await until(() => port.counters().sent === 100);
    say(TAKEN, [3]); // back again
    await until(() => port.counters().violations === 4);
    expect(port.counters()).toMatchObject({ acknowledged: 64, inFlight: 36 });
    port.close();
    await port.closed;
    expect(port.counters()).toMatchObject({ acknowledged: 64, outgoingDrops: { closed: 36 }, inFlight: 0 });
    expect(port.balance().balanced).toBe(true);
  });

  it(`survives messages that were changed at random (seed ${SEED})`, async () => {
    const random = generator(SEED);
    const captured = superframes();
    for (let round = 0; round < 20; round++) {
      const [{ port, say, raw, space }, other] = [await against(), await against()];
      const collector = new Collector(port);
      const source = new Source(port, space, collector);
      // what a real port says, recorded
      const real = new Source(other.port, other.space, new Collector(other.port));
      other.say(HELLO, [1, 1000, 1 << 20, 0]);
      await until(() => other.port.sides === 1);
      real.send(...captured.slice(round * 8, round * 8 + 40), plain(1), plain(2));
      await until(() => other.said.length >= 3);
      say(HELLO, [1, 64, 300_000, 0]);
      await turns(2);
      const recorded = other.said.map(({ buffer }) => new Uint8Array(buffer as ArrayBuffer));
      const id = new DataView(recorded[0]!.buffer).getUint32(8, true);
      for (let i = 0; i < 100; i++) {
        const copy = recorded[random() % recorded.length]!.slice();
        if (random() % 2 === 0) new DataView(copy.buffer).setUint32(8, random() % 4 === 0 ? id : 77, true);
        new DataView(copy.buffer).setUint32(16, random() % 300, true);
        for (let change = random() % 4; change > 0; change--) {
          const at = random() % 2 === 0 ? random() % Math.min(copy.length, 400) : random() % copy.length;
          copy[at] = random();
        }
        raw.postMessage(random() % 8 === 0 ? copy.slice(0, random() % copy.length).buffer : copy.buffer);
        source.send(plain(i));
        if (i % 16 === 0) await turns(1);
      }
      await turns(20);
      const told = `round ${round}: ${JSON.stringify(port.counters())}`;
      expect(port.balance().balanced, told).toBe(true);
      port.close();
      other.port.close();
      await Promise.all([port.closed, other.port.closed]);
      expect(port.balance(), told).toMatchObject({ balanced: true, inFlight: 0 });
    }
  });

  it("leaves in time when the other end says nothing", async () => {
    const { port, say, said } = await against();
    say(HELLO, [0, 64, 1 << 20, 0]);
    await until(() => port.sides === 1);
    port.close();
    await port.closed;
    await turns(4);
    expect(types(said)).toEqual([HELLO, BYE, BYE]);
  });
});

describe("a MessagePort into another thread", () => {
  it("echoes frames, and notices that the thread ended", async () => {
    const { port1, port2 } = new MessageChannel();
    const worker = new Worker(new URL("../../.build/test/workers/message-port.js", import.meta.url), {
      workerData: { port: port2 } satisfies MessageThreadWork,
      transferList: [port2 as never],
    });
    const space = await MemorySpace.host();
    const port = new MessagePortPort(port1, { scheduler, space });
    await until(() => port.sides === 1, "the other thread");
    const collector = new Collector(port, OFFLOAD_ALL);
    const captured = superframes();
    const source = new Source(port, space, collector);
    source.send(...captured, ...captured);
    await until(() => collector.frames.length === 2 * captured.length, "the echoes");
    for (const [i, { bytes }] of collector.frames.entries())
      expect(Buffer.compare(bytes, captured[i % captured.length]!.bytes)).toBe(0);
    source.send(...captured);
    const exit = once(worker, "exit");
    await worker.terminate();
    await exit;
    await until(() => port.sides === 0, "its end");
    source.pump();
    expect(port.balance()).toMatchObject({ balanced: true });
    expect(port.counters().inFlight).toBe(0);
    port.close();
    await port.closed;
  });
});

describe("several ports on one BroadcastChannel", () => {
  async function join(n: number, options: Partial<BroadcastChannelPortOptions> = {}) {
    const channel = `test-${randomUUID()}`;
    const space = await MemorySpace.host();
    const ports = range(0, n).map(() => new BroadcastChannelPort({ scheduler, space, channel, ...options }));
    await until(() => ports.every(({ sides }) => sides === n - 1), "all to have met");
    return { channel, space, ports, collectors: ports.map((port) => new Collector(port)) };
  }

  it("all get what one sends, each in order", async () => {
    const { ports, collectors, space } = await join(4);
    const sources = ports.map((port, i) => new Source(port, space, collectors[i]!));
    for (const [i, source] of sources.entries())
      source.send(...range(0, 300).map((n) => plain(1000 * i + n)));
    await until(() => collectors.every(({ frames }) => frames.length === 900), "all frames");
    for (const [i, { frames }] of collectors.entries()) {
      for (const j of range(0, 4).filter((other) => other !== i)) {
        const from = frames.map(({ bytes }) => serialOf(bytes)).filter((n) => Math.floor(n / 1000) === j);
        expect(from).toEqual(range(1000 * j, 1000 * j + 300));
      }
    }
    await until(() => ports.every((port) => port.counters().inFlight === 0));
    expect(unbalanced(...ports.map((port) => port.balance()))).toEqual([]);
    for (const port of ports) port.close();
    await Promise.all(ports.map(({ closed }) => closed));
    expect(unbalanced(...ports.map((port) => port.balance()))).toEqual([]);
  });

  it("wait for the slowest, but not for one that takes nothing; it is back when it has caught up", async () => {
    const { ports, collectors, space } = await join(3, { frames: 64, stallMs: 50 });
    const [a, b, c] = collectors as [Collector, Collector, Collector];
    c.room = 0;
    const source = new Source(ports[0]!, space, a);
    source.send(...range(0, 1000).map((n) => plain(n)));
    await turns(4);
    expect(b.frames.length).toBeLessThanOrEqual(128); // waiting for the third
    await until(() => b.frames.length === 1000, "the others to go on");
    expect(ports[0]!.counters().outgoingDrops).toEqual({}); // somebody got all of them
    c.makeRoom(Infinity);
    await until(() => ports[2]!.counters().inFlight === 0);
    // what it did not take and nobody waited for was dropped there, and counted
    const { arrived, delivered, incomingDrops } = ports[2]!.counters();
    expect([arrived, delivered + totalDrops(incomingDrops)]).toEqual([1000, 1000]);
    const got = c.frames.length;
    source.send(plain(5000));
    await until(() => c.frames.length === got + 1);
    for (const port of ports) port.close();
    await Promise.all(ports.map(({ closed }) => closed));
  });

  it("blame nobody when it was their own thread that did not get to run", async () => {
    const { ports, collectors, space } = await join(2, { frames: 64, stallMs: 20 });
    const [a, b] = collectors as [Collector, Collector];
    const source = new Source(ports[0]!, space, a);
    for (let round = 0; round < 5; round++) {
      await turns(1); // timers come before messages
      source.send(...range(0, 200).map((n) => plain(200 * round + n)));
      const end = performance.now() + 60;
      while (performance.now() < end);
      await until(() => b.frames.length === 200 * (round + 1), "all frames");
    }
    expect(ports[0]!.counters().outgoingDrops).toEqual({});
    for (const port of ports) port.close();
    await Promise.all(ports.map(({ closed }) => closed));
  });

  it("forget one that never speaks again", async () => {
    const { ports, collectors, space } = await join(2, { frames: 64, stallMs: 20, forgetMs: 100 });
    collectors[1]!.room = 0;
    const source = new Source(ports[0]!, space, collectors[0]!);
    source.send(...range(0, 200).map((n) => plain(n)));
    await until(() => ports[0]!.sides === 0);
    expect(ports[0]!.balance()).toMatchObject({ balanced: true, inFlight: 0, received: 200 });
    expect(ports[0]!.counters().outgoingDrops["stalled"]).toBeGreaterThan(0);
    for (const port of ports) port.close();
    await Promise.all(ports.map(({ closed }) => closed));
  });

  it("listen to so many and no more", async () => {
    const { ports, channel } = await join(3, { maxPeers: 2 });
    const raw = new BroadcastChannel(channel);
    for (let id = 1000; id < 1050; id++) raw.postMessage(message(HELLO, [id, 0, 0, 64, 1 << 20, 0]));
    await until(() => ports.every((port) => port.counters().violations === 50));
    expect(ports.map(({ sides }) => sides)).toEqual([2, 2, 2]);
    raw.close();
    for (const port of ports) port.close();
    await Promise.all(ports.map(({ closed }) => closed));
  });
});

describe("limits of ports over messages", () => {
  it.each([
    [{ frames: 63 }, /64 to 65536/],
    [{ frames: 1e6 }, /64 to 65536/],
    [{ bytes: 1000 }, /262144/],
    [{ stallMs: 0 }, /above 0/],
    [{ maxPeers: -1 }, /above 0/],
  ])("are not %j", async (options, text) => {
    const space = await MemorySpace.host();
    expect(() => new BroadcastChannelPort({ scheduler, space, channel: "limits", ...options })).toThrow(text);
  });
});
