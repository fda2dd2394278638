/** Ports between threads that really are two: no wake-up is lost, no frame vanishes uncounted, whoever dies when. */
import process from "node:process";
import { once } from "node:events";
import { Worker } from "node:worker_threads";
import { totalDrops } from "vbus/net";
import { createFrameLink } from "vbus/net/threads";
import { describe, expect, it } from "vitest";
import { generator, seedOr } from "../engine/seed.js";
import type { PortTrafficEnd, PortTrafficReport, PortTrafficWork } from "../workers/port-traffic.js";

const SEED = seedOr((Date.now() ^ (process.pid << 16)) >>> 0);
const MILLISECONDS = 3_000;
/** Far beyond what a busy machine takes; two threads that wait for each other for ever end here. */
const LIMIT_MS = 150_000;

function start(work: PortTrafficWork): Worker {
  return new Worker(new URL("../../.build/test/workers/port-traffic.js", import.meta.url), {
    workerData: work,
    transferList: work.port === undefined ? [] : [work.port as never],
  });
}

function says<T>(worker: Worker, what: string): Promise<T> {
  return new Promise((resolve, reject) => {
    const fail = (message: string, cause?: unknown): void => {
      settle();
      reject(new Error(`${what}: ${message} (seed ${SEED})`, { cause }));
    };
    const timer = setTimeout(() => fail(`nothing for ${LIMIT_MS} ms`), LIMIT_MS);
    const onMessage = (message: T): void => {
      settle();
      resolve(message);
    };
    const onError = (error: unknown): void => fail("failed", error);
    const onExit = (code: number): void => fail(`ended with ${code}`);
    const settle = (): void => {
      clearTimeout(timer);
      worker.off("message", onMessage).off("error", onError).off("exit", onExit);
    };
    worker.on("message", onMessage).on("error", onError).on("exit", onExit);
  });
}

/** Two threads that are connected. */
async function connect(kind: string, seed: number, ms: number, spin = 0): Promise<[Worker, Worker]> {
  const sides = ["host", "guest"] as const;
  let works: PortTrafficWork[];
  if (kind === "worker") {
    const link = createFrameLink({ frames: 64 + (seed % 200), bytes: 131_072 + 4096 * (seed % 100) });
    works = sides.map((side, i) => ({ link, side, seed: seed + i, ms, spin }));
  } else {
    const { port1, port2 } = new MessageChannel();
    works = [port1, port2].map((port, i) => ({ port, side: sides[i]!, seed: seed + i, ms, spin }));
  }
  const [a, b] = works.map(start) as [Worker, Worker];
  expect(await Promise.all([says(a, "the first"), says(b, "the second")])).toEqual(["up", "up"]);
  return [a, b];
}

describe(`two threads (seed ${SEED})`, () => {
  it.each([
    ["worker", 0],
    ["worker", 500],
    ["MessagePort", 0],
  ] as const)("exchange frames over a %s port, polling %i times before they sleep", async (kind, spin) => {
    const [a, b] = await connect(kind, SEED + spin, MILLISECONDS, spin);
    const [one, two] = await Promise.all([
      says<PortTrafficReport>(a, "the first"),
      says<PortTrafficReport>(b, "the second"),
    ]);
    expect([one.faults, two.faults]).toEqual([[], []]);
    expect([one.got, two.got]).toEqual([two.sent, one.sent]);
    expect(one.sent).toBeGreaterThan(100);
    for (const thread of [a, b]) thread.postMessage("close");
    const ends = await Promise.all([
      says<PortTrafficEnd>(a, "the first"),
      says<PortTrafficEnd>(b, "the second"),
    ]);
    const [left, right] = ends.map(({ counters }) => counters) as [
      PortTrafficEnd["counters"],
      PortTrafficEnd["counters"],
    ];
    expect(ends.map(({ balanced }) => balanced)).toEqual([true, true]);
    expect(left).toMatchObject({ received: one.sent + 1, drops: {}, inFlight: 0, violations: 0 });
    expect(right).toMatchObject({ received: two.sent + 1, drops: {}, inFlight: 0, violations: 0 });
    expect([left.acknowledged, right.acknowledged]).toEqual([right.arrived, left.arrived]);
  });

  it.each(["worker", "MessagePort"])(
    "are closed in the middle of it, in any order, and the books of a %s connection agree",
    async (kind) => {
      const random = generator(SEED);
      for (let round = 0; round < 8; round++) {
        const [a, b] = await connect(kind, SEED + round, 60_000);
        await new Promise((resolve) => setTimeout(resolve, random() % 60));
        const order = random() % 2 === 0 ? [a, b] : [b, a];
        const answers: Promise<PortTrafficEnd>[] = [];
        for (const thread of order) {
          answers.push(says<PortTrafficEnd>(thread, "a thread"));
          thread.postMessage("close");
          if (random() % 2 === 0) await new Promise((resolve) => setTimeout(resolve, random() % 5));
        }
        const [first, second] = await Promise.all(answers);
        const told = `round ${round}, seed ${SEED}: ${JSON.stringify([first, second])}`;
        expect([first!.balanced, second!.balanced], told).toEqual([true, true]);
        for (const { counters } of [first!, second!])
          expect(counters, told).toMatchObject({ inFlight: 0, violations: 0 });
        expect(first!.counters.acknowledged, told).toBe(second!.counters.arrived);
        expect(second!.counters.acknowledged, told).toBe(first!.counters.arrived);
      }
    },
  );

  it("of which one is killed at any moment leave nothing uncounted at the other one", async () => {
    const random = generator(SEED ^ 0xdead);
    for (let round = 0; round < 8; round++) {
      const [a, b] = await connect("worker", SEED + round, 60_000);
      await new Promise((resolve) => setTimeout(resolve, random() % 60));
      const [victim, living] = random() % 2 === 0 ? [a, b] : [b, a];
      const exit = once(victim, "exit");
      await victim.terminate();
      await exit;
      for (const order of ["died", "close"]) {
        const answer = says<PortTrafficEnd>(living, "the one that is left");
        living.postMessage(order);
        const { counters, balanced } = await answer;
        const told = `round ${round}, seed ${SEED}, ${order}: ${JSON.stringify(counters)}`;
        expect(balanced, told).toBe(true);
        if (order === "close") {
          expect(counters.inFlight, told).toBe(0);
          expect(counters.acknowledged + totalDrops(counters.outgoingDrops), told).toBe(counters.received);
        }
      }
    }
  });
});
