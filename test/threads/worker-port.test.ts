/** What ports over shared memory do beyond what every port between threads does. */
import { once } from "node:events";
import { Worker } from "node:worker_threads";
import type { VbusError } from "vbus/engine";
import { MemorySpace } from "vbus/memory";
import { OFFLOAD_ALL, totalDrops } from "vbus/net";
import { createFrameLink, WorkerPort, type FrameLink } from "vbus/net/threads";
import { EventLoopScheduler } from "vbus/scheduler";
import { afterEach, describe, expect, it } from "vitest";
import { HostileThread } from "../engine/hostile-thread.js";
import { generator, seedOr } from "../engine/seed.js";
import { turns } from "../event-loop.js";
import { frame, range, serialOf, station } from "../net/rig.js";
import { superframes } from "../offload/captures.js";
import { finished, type TestFrame } from "../offload/rig.js";
import type { PortThreadWork } from "../workers/thread-port.js";
import { Collector, Source, unbalanced, until, workers as open } from "./pairs.js";

const SEED = seedOr(0x11e4);
const plain = (n: number, length = 200): TestFrame => finished(frame(station(2), station(1), n, length));

describe("the end of a frame link", () => {
  it("is opened once, and says so", async () => {
    const link = createFrameLink();
    const scheduler = new EventLoopScheduler();
    const port = await WorkerPort.open(link, { side: "host", scheduler });
    await expect(WorkerPort.open(link, { side: "host", scheduler })).rejects.toThrow(
      /EBUSY.*createFrameLink/,
    );
    const waiting = port.whenUp();
    port.close();
    await expect(waiting).rejects.toThrow(/ENOTCONN/);
    const late = await WorkerPort.open(link, { side: "guest", scheduler });
    await until(() => late.lost !== null);
    await expect(late.whenUp()).rejects.toThrow(/ENOTCONN/);
    late.close();
  });

  it.each([
    [{ frames: 0 }, /EINVAL.*1 to 2048/],
    [{ frames: 2049 }, /EINVAL.*1 to 2048/],
    [{ bytes: 131_071 }, /EINVAL.*131072/],
    [{ bytes: Number.NaN }, /EINVAL/],
  ])("is not made of %j", (options, message) => {
    expect(() => createFrameLink(options)).toThrow(message);
  });

  it("refuses a memory that is no frame link", async () => {
    const scheduler = new EventLoopScheduler();
    const link = createFrameLink();
    const other: FrameLink = { ...link, frames: 2000, bytes: 1 << 29 };
    await expect(WorkerPort.open(other, { side: "host", scheduler })).rejects.toThrow(
      /EINVAL.*createFrameLink/,
    );
    const memory = new WebAssembly.Memory({
      initial: link.memory.buffer.byteLength / 65536,
      maximum: link.memory.buffer.byteLength / 65536,
    });
    await expect(WorkerPort.open({ ...link, memory }, { side: "host", scheduler })).rejects.toThrow(
      /EOPNOTSUPP/,
    );
  });

  it("drops and counts what is sent before the other end is there", async () => {
    const link = createFrameLink();
    const scheduler = new EventLoopScheduler();
    const space = await MemorySpace.host();
    const a = await WorkerPort.open(link, { side: "host", scheduler });
    const source = new Source(a, space, new Collector(a));
    source.send(plain(0), plain(1));
    expect(a.counters()).toMatchObject({ received: 2, sent: 0, outgoingDrops: { "no-link": 2 } });
    const b = await WorkerPort.open(link, { side: "guest", scheduler });
    const right = new Collector(b);
    await a.whenUp();
    source.send(plain(2));
    await until(() => right.frames.length === 1);
    expect(serialOf(right.frames[0]!.bytes)).toBe(2);
    a.close();
    b.close();
  });

  it.each([
    ["of the longest kind, two of which fill it exactly", () => 65_536],
    [
      "of every size",
      (() => {
        const random = generator(SEED);
        return (n: number) => (n % 5 === 0 ? 65_536 : 60 + (random() % 30_000));
      })(),
    ],
  ])("carries frames %s through the smallest ring of bytes", async (_what, length) => {
    const { a, b, space } = await open({ frames: 64, bytes: 131_072 });
    const [left, right] = [new Collector(a), new Collector(b)];
    const frames = range(0, 400).map((n) => plain(n, length(n)));
    const source = new Source(a, space, left, 8);
    source.send(...frames);
    await until(() => right.frames.length === frames.length, "all frames");
    expect(right.frames.every(({ bytes }, i) => Buffer.compare(bytes, frames[i]!.bytes) === 0)).toBe(true);
    a.close();
    b.close();
  });

  it("works where only a timer wakes", async () => {
    const { a, b, space } = await open({ poll: true });
    const [left, right] = [new Collector(a), new Collector(b)];
    new Source(a, space, left).send(...range(0, 300).map((n) => plain(n)));
    await until(() => right.frames.length === 300);
    expect(b.wakeups.sleeps).toBe(0);
    a.close();
    b.close();
  });

  it("hears its doorbell in a thread that is kept away from its event loop", async () => {
    const { a, b, space, scheduler } = await open();
    const [left, right] = [new Collector(a), new Collector(b)];
    const source = new Source(a, space, left);
    await turns();
    for (let n = 0; n < 500; n++) {
      source.send(plain(n));
      while (!scheduler.runPending(5)); // no turn of the event loop
      expect(right.frames).toHaveLength(n + 1);
    }
    a.close();
    b.close();
  });

  it("accounts for frames that the other thread left behind when it died, and for those that it never took", async () => {
    const { a, b, space } = await open({ frames: 64 });
    const [left, right] = [new Collector(a), new Collector(b)];
    right.room = 5;
    left.room = 0;
    new Source(b, space, right).send(...range(0, 9).map((n) => plain(n))); // stay in the ring
    const source = new Source(a, space, left);
    source.send(...range(0, 40).map((n) => plain(n)));
    await until(() => right.frames.length === 5);
    a.otherDied(); // b takes no part in this any more
    await until(() => a.lost !== null);
    expect(a.counters()).toMatchObject({
      received: 40,
      acknowledged: 5,
      outgoingDrops: { closed: 35 },
    });
    left.makeRoom(100);
    await until(() => left.frames.length === 9, "what was left in the ring");
    expect(a.balance()).toMatchObject({ balanced: true, inFlight: 0 });
    source.send(plain(99));
    expect(a.counters().outgoingDrops).toEqual({ closed: 35, "no-link": 1 });
    a.close();
    await until(() => b.lost !== null, "the other end to notice that it was given up");
  });
});

describe("a thread at the other end that goes mad", () => {
  const hostile: HostileThread[] = [];
  afterEach(async () => {
    for (const thread of hostile.splice(0)) await thread.terminate();
  });

  it.each(range(0, 6))(
    "hurts nothing but this link, and every frame is accounted for (%i)",
    async (round) => {
      const { a, b, space } = await open({ frames: 32, offloads: round % 2 === 0 ? OFFLOAD_ALL : 0 });
      const { a: c, b: d } = await open({ frames: 32 });
      const [left, right, third, fourth] = [a, b, c, d].map((port) => new Collector(port));
      const { memory, address, ring, slots } = ringTowards(b, 32);
      const thread = new HostileThread({
        memory,
        address: round < 3 ? address + ring.at : address + slots.at,
        length: round < 3 ? ring.length : slots.length,
        stride: round < 3 ? 32 : 36,
        header: round < 3 ? 56 : 0,
        seed: SEED + round,
      });
      hostile.push(thread);
      await thread.started();
      const captured = superframes();
      const source = new Source(a, space, left!);
      const back = new Source(b, space, right!);
      const other = new Source(c, space, third!);
      let sent = 0;
      for (let turn = 0; turn < 400 && a.lost === null; turn++) {
        if (turn % 8 === 0) thread.letWrite(4);
        if (source.waiting < 64)
          for (let n = 0; n < 16; n++) source.send(captured[sent++ % captured.length]!);
        back.send(plain(turn));
        await turns(2);
      }
      expect(await thread.stop()).toBeGreaterThan(0);
      source.stop();
      back.stop();
      a.close();
      b.close();
      await turns(16);
      const told = JSON.stringify([a.counters(), b.counters()]);
      expect(unbalanced(a.balance(), b.balance()), told).toEqual([]);
      expect([a.counters().inFlight, b.counters().inFlight], told).toEqual([0, 0]);
      // nobody else noticed
      other.send(...range(0, 200).map((n) => plain(n)));
      await until(() => fourth!.frames.length === 200);
      c.close();
      d.close();
    },
  );

  it("is told apart by what it writes to the doorbell page", async () => {
    for (let round = 0; round < 40; round++) {
      const random = generator(SEED + round);
      const { a, b, space } = await open({ frames: 64 });
      const [left, right] = [new Collector(a), new Collector(b)];
      const [out, back] = [new Source(a, space, left), new Source(b, space, right)];
      const words = pageOf(a);
      for (let turn = 0; turn < 30; turn++) {
        out.send(plain(turn));
        back.send(plain(turn));
        // states, heartbeats, sequences, doorbells that do not exist
        const at = [2, 3, 6, 7, 16, 64, 32 + (random() % 32), 80 + (random() % 32)][random() % 8]!;
        if (random() % 4 === 0) {
          Atomics.store(words, at, random() % 3 === 0 ? random() | 0 : random() % 4);
          Atomics.notify(words, 16);
          Atomics.notify(words, 64);
        }
        await turns(1);
      }
      out.stop();
      back.stop();
      a.close();
      b.close();
      await turns(4);
      const told = `seed ${SEED + round}: ${JSON.stringify([a.counters(), b.counters()])}`;
      expect(unbalanced(a.balance(), b.balance()), told).toEqual([]);
    }
  });
});

describe("a thread of its own", () => {
  async function start(work: Omit<PortThreadWork, "link">): Promise<[WorkerPort, Worker, VbusError[]]> {
    const link = createFrameLink({ frames: 64 });
    const worker = new Worker(new URL("../../.build/test/workers/thread-port.js", import.meta.url), {
      workerData: { link, ...work } satisfies PortThreadWork,
    });
    const lost: VbusError[] = [];
    const port = await WorkerPort.open(link, {
      side: "host",
      scheduler: new EventLoopScheduler(),
      otherTimeoutMs: 1000,
      onLost: (error) => lost.push(error),
    });
    await port.whenUp();
    return [port, worker, lost];
  }

  it("echoes frames, superframes too, and leaves in order", async () => {
    const [port, worker, lost] = await start({ echo: true });
    const collector = new Collector(port, OFFLOAD_ALL);
    const captured = superframes();
    const source = new Source(port, await MemorySpace.host(), collector);
    source.send(...captured);
    await until(() => collector.frames.length === captured.length, "the echoes");
    for (const [i, { bytes, flags }] of collector.frames.entries()) {
      expect(Buffer.compare(bytes, captured[i]!.bytes)).toBe(0);
      expect(flags & 7).toBe(captured[i]!.flags);
    }
    worker.postMessage("close");
    const [theirs] = (await once(worker, "message")) as [Record<string, number>];
    await until(() => lost.length === 1, "the end");
    expect(lost[0]!.message).toMatch(/ENOTCONN.*closed/);
    expect(theirs["arrived"]).toBe(port.counters().acknowledged);
    expect(theirs["acknowledged"]).toBe(port.counters().arrived);
    port.close();
    await worker.terminate();
  });

  it("that is terminated is noticed by its heartbeat, and its frames are counted", async () => {
    const [port, worker, lost] = await start({ echo: false });
    const collector = new Collector(port);
    const source = new Source(port, await MemorySpace.host(), collector);
    source.send(...range(0, 100).map((n) => plain(n))); // it takes none
    await worker.terminate();
    await until(() => lost.length === 1, "the heartbeat to be missed");
    expect(lost[0]!.message).toMatch(/died/);
    source.pump();
    const counters = port.counters();
    expect(counters).toMatchObject({ received: 100, inFlight: 0 });
    expect(counters.acknowledged + totalDrops(counters.outgoingDrops)).toBe(100);
    expect(port.balance().balanced).toBe(true);
    port.close();
  });
});

/** Where the ring and the slots towards an end lie. A test of what another thread may write has to look inside. */
function ringTowards(
  port: WorkerPort,
  frames: number,
): {
  memory: WebAssembly.Memory;
  address: number;
  ring: { at: number; length: number };
  slots: { at: number; length: number };
} {
  const { link } = port as unknown as { link: FrameLink };
  const [region] = link.layout.regions;
  const up = (n: number): number => Math.ceil(n / 64) * 64;
  const ringLength = 56 + 32 * frames;
  const slots = up(8 + ringLength);
  const size = slots + up(frames * 48) + up(link.bytes);
  return {
    memory: link.memory,
    address: region!.address + size, // towards the guest
    ring: { at: 8, length: ringLength },
    slots: { at: slots, length: frames * 48 },
  };
}

function pageOf(port: WorkerPort): Int32Array {
  const { link } = port as unknown as { link: FrameLink };
  return new Int32Array(link.memory.buffer, link.layout.link.address, 1024);
}
