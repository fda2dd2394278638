import { Worker } from "node:worker_threads";
import { attachWorkerGuest, watchWorker } from "vbus/connectors/worker";
import type { Terminal } from "vbus/devices/vconsole";
import { allocateGuestMemory } from "vbus/memory";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { until } from "../connectors/remote-guest.js";
import { expectBalanced, expectBytes, pattern, readAll, readBytes, TestMachine } from "./machine.js";

const PROGRAM = new URL("../../.build/test/workers/vconsole-guest.js", import.meta.url);

interface Guest {
  worker: Worker;
  /** Window sizes that the guest heard of. */
  sizes: string[];
  /** Resolves with the bytes that it received, when it left by itself. */
  done: Promise<number>;
  died: Promise<void>;
}

let machine: TestMachine;
let terminal: Terminal;
let workers: Worker[];

beforeEach(() => {
  machine = new TestMachine();
  terminal = machine.addConsole("console0", { cols: 100, rows: 40, backlog: 5000 });
  machine.bus.admit("guest");
  workers = [];
});

afterEach(async () => {
  await Promise.all(workers.map((worker) => worker.terminate()));
  await machine.close();
  expect(machine.errors).toEqual([]);
  expect(machine.bus.clients).toHaveLength(0);
});

async function startGuest(mode: "echo" | "flood"): Promise<Guest> {
  const init = allocateGuestMemory({ size: 1 << 20, arenaSize: 1 << 17, shared: true });
  const connector = await attachWorkerGuest({
    bus: machine.bus,
    member: "guest",
    init,
    scheduler: machine.scheduler,
  });
  const worker = new Worker(PROGRAM, { workerData: { init, mode } });
  workers.push(worker);
  const sizes: string[] = [];
  const died = new Promise<void>((resolve) => {
    watchWorker(worker, () => {
      connector.close();
      resolve();
    });
  });
  const done = new Promise<number>((resolve, reject) => {
    worker.on("message", (message: { size?: string; done?: number }) => {
      if (message.size !== undefined) sizes.push(message.size);
      if (message.done !== undefined) resolve(message.done);
    });
    worker.on("error", reject);
  });
  done.catch((error: unknown) => machine.errors.push(error));
  return { worker, sizes, done, died };
}

describe("a guest in another thread", () => {
  it("gets every byte and sends it back, learns the window size, and hears the hang-up last", async () => {
    const guest = await startGuest("echo");
    await until("the conversation", () => terminal.connected); // what came before would be dropped beyond the back-log
    const bytes = pattern(300_000);
    const writing = (async () => {
      for (let at = 0, n = 1; at < bytes.length; at += n, n = (n * 7 + 3) % 3001)
        await terminal.write(bytes.subarray(at, at + n));
    })();
    expectBytes(await readBytes(terminal, bytes.length), bytes);
    await writing;
    for (let i = 1; i <= 500; i++) terminal.resize(i, 50);
    await until("the last window size", () => guest.sizes.at(-1) === "500x50");
    expect(guest.sizes[0]).toBe("100x40");
    expect(guest.sizes.length).toBeLessThan(100);
    await terminal.hangup();
    expect(await guest.done).toBe(bytes.length);
    await guest.worker.terminate();
    await guest.died;
    const { rx, tx } = terminal.statistics();
    expect(rx).toMatchObject({ passed: bytes.length, drops: {} });
    expect(tx).toMatchObject({ passed: bytes.length, drops: {} });
  });

  it("that is killed in the middle of a flood leaves a prefix of what it sent, and a console for the next one", async () => {
    for (let round = 0; round < 3; round++) {
      const guest = await startGuest("flood");
      const wanted = 20_000 + round * 777;
      const first = await readBytes(terminal, wanted);
      void terminal.write(pattern(50_000)); // the guest never reads
      // killed while the terminal takes no more; else while it sends
      if (round === 1) await until("a full back-log", () => terminal.statistics().tx.held >= 5000);
      void guest.worker.terminate();
      const rest = round === 1 ? null : await readAll(terminal); // read on while it dies
      await guest.died;
      const last = rest ?? (await readAll(terminal));
      const all = Buffer.concat([first, last]);
      const sent = Buffer.concat(
        Array.from({ length: Math.ceil(all.length / 1000) }, (_, n) => pattern(1000, n)),
      );
      expectBytes(all, sent.subarray(0, all.length));
      expect(terminal.connected).toBe(false);
      const statistics = terminal.statistics();
      expectBalanced("console0", statistics);
      expect(statistics.rx.held).toBe(0);
      expect(statistics.rx.bytes).toBe(statistics.rx.passed + (statistics.rx.drops.hangup ?? 0));
    }
    const guest = await startGuest("echo");
    await terminal.write(pattern(4000));
    expectBytes(await readBytes(terminal, 4000), pattern(4000));
    await terminal.hangup();
    await guest.done;
    expect(terminal.statistics()).toMatchObject({ conversations: 4, hangups: 4 });
  });
});
