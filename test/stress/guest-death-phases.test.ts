import { totalDrops } from "vbus/net";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

import {
  ALL,
  DeathMachine,
  expectBalanced,
  from,
  mac,
  quiet,
  settle,
  until,
  type Guest,
} from "./guest-death-machine.js";

const A = 0;
const B = 1;
const VICTIM = 2;

let machine: DeathMachine;
let a: Guest;
let b: Guest;

beforeAll(async () => {
  // on busy cores a live guest may be off its core for longer than the default allows
  machine = await DeathMachine.start(3, { stallMs: 3000 });
  a = await machine.guest(A);
  b = await machine.guest(B);
  await a.ask("open");
  await b.ask("open");
});

afterAll(() => {
  machine.close();
});

/** A and B talk to each other, to the victim, and to all. */
async function talk(): Promise<void> {
  await a.ask("stream", { to: [mac(B), mac(VICTIM), mac(B), ALL], pauseMs: 1 });
  await b.ask("stream", { to: [mac(A), mac(VICTIM), mac(A)], pauseMs: 1 });
}

/** Waits for n more frames each way between A and B. */
async function progress(n: number): Promise<void> {
  const [toA, toB] = [await a.received(from(B)), await b.received(from(A))];
  await until("frames from B to A", async () => (await a.received(from(B))).frames >= toA.frames + n);
  await until("frames from A to B", async () => (await b.received(from(A))).frames >= toB.frames + n);
}

const linked = async (victim: Guest): Promise<void> => {
  await victim.ask("open");
  await victim.ask("stream", { to: [mac(A), mac(B)], pauseMs: 1 });
  await until("frames to the victim", async () => (await victim.received(from(A))).frames > 50);
  await until("frames of the victim", async () => (await b.received(from(VICTIM))).frames > 50);
};

/** Frames that the host may have found in the ring beyond those that the victim had noted: one burst. */
const BURST = 32;

const phases: [string, { reach?: (victim: Guest) => Promise<void>; how: string; slack: number }][] = [
  ["before open, by its own exit", { how: "exit", slack: 0 }],
  ["before open, terminated", { how: "none", slack: 0 }],
  ["while it opens, by its own exit", { how: "exit in open", slack: 0 }],
  ["while it opens and closes, terminated", { how: "opens", slack: 0 }],
  ["linked, by its own exit", { reach: linked, how: "exit", slack: 0 }],
  ["linked, terminated", { reach: linked, how: "none", slack: BURST }],
  ["after a burst, by its own exit", { reach: linked, how: "exit after a burst", slack: 0 }],
  ["in the middle of a burst, by its own exit", { reach: linked, how: "exit in a burst", slack: 0 }],
  ["in the middle of bursts, terminated", { reach: linked, how: "bursts", slack: BURST }],
  ["in a call, by its own exit", { reach: linked, how: "exit in a call", slack: 0 }],
  ["in calls, terminated", { reach: linked, how: "calls", slack: BURST }],
];

describe("a guest's thread ends", () => {
  it.each(phases)("%s: the others notice nothing, and the next one takes its place", async (_name, phase) => {
    const empty = await machine.report();
    await talk();
    const victim = await machine.guest(VICTIM, undefined, { options: { txRing: 128, rxRing: 64 } });
    const before = await machine.nic(VICTIM);
    await phase.reach?.(victim);
    await progress(100);
    if (phase.how.startsWith("exit")) {
      await victim.ask("end", { how: phase.how, to: mac(A) }).catch((error: unknown) => {
        expect((error as Error).message).toContain("ended with code 1");
      });
    } else {
      if (phase.how !== "none") await victim.ask("end", { how: phase.how, to: mac(A) });
      if (phase.how === "bursts") await until("bursts", () => Atomics.load(victim.committed, 0) > 500);
      await progress(100);
      victim.thread.terminate();
    }
    await machine.bury(victim);
    await progress(300);
    await settle([a, b]);

    const report = await quiet(machine, [a, b]);
    expectBalanced(report);
    expect(report).toMatchObject({
      clients: 2,
      sessions: 2,
      stalled: [],
      waiting: { nic0: 0, nic1: 0, nic2: 0 },
    });
    expect(report.nics["nic2"]!.link).toBe("down");
    expect(report.ended).toEqual(empty.ended);
    // what the victim had put into its ring is accounted for: passed on, or found there at the end
    const { tx } = report.nics["nic2"]!.statistics;
    const taken = tx.frames - before.statistics.tx.frames;
    const committed = Atomics.load(victim.committed, 0);
    expect(taken).toBeGreaterThanOrEqual(committed);
    expect(taken).toBeLessThanOrEqual(committed + phase.slack);
    expect(Object.keys(tx.drops).filter((reason) => reason !== "closed")).toEqual([]);

    const heir = await machine.guest(VICTIM, victim.init);
    await heir.ask("open");
    const known = await a.received(from(VICTIM));
    await heir.ask("stream", { to: [mac(A), mac(B)], pauseMs: 1 });
    await talk();
    await until(
      "frames of the heir",
      async () => (await a.received(from(VICTIM))).frames > known.frames + 50,
    );
    await until("frames to the heir", async () => (await heir.received(from(B))).frames > 50);
    await settle([a, b]);
    await heir.ask("endStream");
    await heir.ask("leave");
    await until("the heir to be gone", async () => (await machine.report()).clients === 2);
    await machine.kill(heir);
  });
});

describe("twenty guests in one place", () => {
  it("die one after the other, and the host is what it was", async () => {
    const ways = phases.map(([, phase]) => phase);
    const init = machine.memory();
    const bytes: number[] = [];
    let committed = 0;
    const before = await quiet(machine, [a, b]);
    await talk();
    for (let i = 0; i < 20; i++) {
      const { reach, how } = ways[i % ways.length]!;
      const victim = await machine.guest(VICTIM, init, { options: { txRing: 128, rxRing: 16 } });
      await reach?.(victim);
      if (how !== "none") await victim.ask("end", { how, to: mac(A) }).catch(() => undefined);
      await machine.kill(victim);
      committed += Atomics.load(victim.committed, 0);
      bytes.push((await machine.report()).hostBytes);
    }
    await progress(100);
    await settle([a, b]);
    const report = await quiet(machine, [a, b]);
    expectBalanced(report);
    expect(report).toMatchObject({
      clients: 2,
      sessions: 2,
      stalled: [],
      waiting: { nic0: 0, nic1: 0, nic2: 0 },
    });
    const taken = report.nics["nic2"]!.statistics.tx.frames - before.nics["nic2"]!.statistics.tx.frames;
    expect(taken).toBeGreaterThanOrEqual(committed);
    // the frame store keeps what it once needed: after the first half nothing is added but what a deeper queue takes
    expect(bytes.at(-1)! - bytes[9]!).toBeLessThan(256 * 1024);
  });
});

describe("a guest that hangs", () => {
  it("is stalled: its frames are dropped and counted, nobody waits for it", async () => {
    await talk();
    const victim = await machine.guest(VICTIM, undefined, { options: { rxRing: 16 } });
    await linked(victim);
    const before = await machine.report();
    await victim.ask("end", { how: "hang" });
    const stalled = async (): Promise<number> => (await machine.report()).balance.drops.stalled ?? 0;
    const known = before.balance.drops.stalled ?? 0;
    await until("the stall", async () => (await stalled()) > known + 100);
    expect((await machine.report()).stalled).toEqual(["nic2"]);
    await progress(500);
    expect((await machine.report()).stalled).toEqual(["nic2"]);
    await settle([a, b]);
    const report = await machine.report();
    expectBalanced(report);
    expect(report.sessions).toBe(3); // it hangs, it is not dead
    await machine.kill(victim);
    expectBalanced(await quiet(machine, [a, b]));
  });

  it("loses its place by its heartbeat where the host listens to it, although it never ends", async () => {
    await talk();
    const victim = await machine.guest(VICTIM, undefined, { guestTimeoutMs: 3000 });
    await linked(victim);
    const { ended } = await machine.report();
    await victim.ask("end", { how: "hang" });
    await until("the host to notice", async () => (await machine.report()).ended.length > ended.length);
    const report = await machine.report();
    expect(report.ended.at(-1)).toMatch(/ETIMEDOUT: the guest showed no sign of life for 3000 ms/);
    expect(report).toMatchObject({ clients: 2, sessions: 2 });
    const heir = await machine.guest(VICTIM); // while the other still spins
    await linked(heir);
    await progress(100);
    await settle([a, b]);
    await machine.kill(victim);
    await machine.kill(heir);
    expectBalanced(await quiet(machine, [a, b]));
  });
});

describe("a host that dies", () => {
  it.each(["served nobody any more", "was idle"])(
    "after it %s: everything that guests wait for rejects",
    async (how) => {
      const doomed = await DeathMachine.start(2);
      try {
        const guests = [
          await doomed.guest(0, undefined, { hostTimeoutMs: 3000 }),
          await doomed.guest(1, undefined, { hostTimeoutMs: 3000, callTimeoutMs: 1500 }),
        ];
        for (const guest of guests) await guest.ask("open");
        await guests[0]!.ask("stream", { to: [mac(1)], pauseMs: 1 });
        await until("traffic", async () => (await guests[1]!.received(from(0))).frames > 50);
        await guests[0]!.ask("endStream");
        if (how === "was idle") {
          doomed.host.terminate();
          for (const guest of guests) await guest.ask("pend", { to: mac(1 - guest.nic) });
        } else {
          const blocked = doomed.host.call("block", { ms: 60_000 });
          const gone = expect(blocked).rejects.toThrow(/thread host ended/);
          for (const guest of guests) await guest.ask("pend", { to: mac(1 - guest.nic) });
          doomed.host.terminate();
          await gone;
        }
        for (const guest of guests) {
          await until(
            "all outcomes",
            async () => Object.keys(await guest.ask<object>("outcomes")).length === 5,
          );
          const outcomes = await guest.ask<Record<string, string>>("outcomes");
          expect(outcomes.lost).toMatch(/^ENOTCONN: the host showed no sign of life for 3000 ms/);
          expect(outcomes.send).toMatch(/^ENOTCONN: /);
          expect(outcomes.receive).toMatch(/^ENOTCONN: /);
          expect(outcomes.call).toMatch(/^(ENOTCONN|ETIMEDOUT): /);
          expect(outcomes.stop).toMatch(/^(ENOTCONN|ETIMEDOUT): /);
          expect(await guest.ask("after", { to: mac(0) })).toMatch(/^ENOTCONN: /);
          await guest.ask("close"); // and closing what is left is harmless
          await guest.ask("close");
          await guest.ask("leave");
        }
      } finally {
        doomed.close();
      }
    },
  );
});

describe("drops of the whole story", () => {
  it("were all told by name", async () => {
    const { balance, nics } = await quiet(machine, [a, b]);
    const names = new Set(Object.keys(balance.drops));
    for (const { statistics } of Object.values(nics))
      for (const drops of [statistics.tx.drops, statistics.rx.drops])
        for (const name of Object.keys(drops)) names.add(name);
    const expected = ["stalled", "no-link", "closed", "queue-full", "no-port", "buffer-too-small"];
    expect([...names].filter((name) => !expected.includes(name))).toEqual([]);
    expect(totalDrops(balance.drops)).toBeGreaterThan(0);
  });
});
