import { Random } from "vbus/net";
import { afterEach, describe, expect, it } from "vitest";

import { seedOr } from "../engine/seed.js";
import { ALL, DeathMachine, expectBalanced, mac, quiet, until, type Guest } from "./guest-death-machine.js";

const SEED = seedOr(Date.now() % 2 ** 31);
const DURATION_MS = 12_000;
const NICS = [0, 1, 2];

let machine: DeathMachine | null = null;

afterEach(() => {
  machine?.close();
});

/** Sends to everybody else, and to all. */
async function talk(guest: Guest): Promise<void> {
  const others = NICS.filter((nic) => nic !== guest.nic).map(mac);
  await guest.ask("stream", { to: [...others, ...others, ALL], pauseMs: 1 });
}

describe("a host whose guests come, go, die and change their minds", () => {
  it(`keeps its books (VBUS_SEED=${SEED})`, async () => {
    const random = new Random(SEED);
    const pick = <T>(list: readonly T[]): T => list[Math.floor(random.fraction() * list.length)]!;
    const host = (machine = await DeathMachine.start(NICS.length, { stallMs: 50, egressFrames: 64 }));
    const memories = NICS.map(() => host.memory());
    const rings = [1, 2, 7, 32, 256];
    const done: Record<string, number> = {};
    const start = async (nic: number): Promise<Guest> => {
      const options = { rxRing: pick(rings), txRing: pick(rings), lazyIndexes: random.fraction() < 0.5 };
      const guest = await host.guest(nic, memories[nic], { options });
      await guest.ask("open");
      await talk(guest);
      return guest;
    };
    const guests: Guest[] = [];
    for (const nic of NICS) guests.push(await start(nic));

    const acts: Record<string, (guest: Guest) => Promise<void>> = {
      async kill(guest) {
        const how = pick(["none", "bursts", "calls", "exit", "exit after a burst", "exit in a call", "hang"]);
        if (how !== "none") {
          await guest.ask("end", { how, to: pick([ALL, ...NICS.map(mac)]) }).catch((error: unknown) => {
            expect((error as Error).message).toMatch(/ended with code 1/);
          });
        }
        await new Promise((resolve) => setTimeout(resolve, random.fraction() * 150));
        await host.kill(guest);
        guests[guest.nic] = await start(guest.nic);
      },
      async reopen(guest) {
        await guest.ask("endStream");
        await guest.ask("reopen");
        await talk(guest);
      },
      async link(guest) {
        await guest.ask("stop");
        await guest.ask("open");
      },
      async mtu(guest) {
        const mtu = pick([300, 576, 1500, 4000]);
        await host.host.call("write", {
          path: `devices/nic${guest.nic}/mtu`,
          value: String(pick([200, 1500, 4000])),
        });
        await guest.ask("mtu", { mtu });
      },
      async unplug({ nic }) {
        await host.host.call("write", { path: `devices/nic${nic}/enabled`, value: "0" });
        await new Promise((resolve) => setTimeout(resolve, 20));
        await host.host.call("write", { path: `devices/nic${nic}/enabled`, value: "1" });
      },
      async pause() {
        await host.host.call("block", { ms: random.fraction() * 100 });
      },
    };
    const names = Object.keys(acts);
    // a busy machine gets through few acts in that time: go on until each had its turn
    for (
      const end = performance.now() + DURATION_MS;
      performance.now() < end || Object.keys(done).length < names.length;
    ) {
      const act = pick(names);
      await acts[act]!(pick(guests));
      done[act] = (done[act] ?? 0) + 1;
      for (const guest of guests)
        expect((await guest.ask<{ failure: string | null }>("status")).failure).toBeNull();
    }
    for (const guest of guests) await guest.ask("endStream");
    const report = await quiet(host, []);
    expectBalanced(report);
    expect(report).toMatchObject({ clients: 3, sessions: 3, ended: [] });
    expect(report.balance.delivered).toBeGreaterThan(1000);
    for (const guest of guests) {
      const { received } = await guest.ask<{
        received: Record<string, { disorder: number; damaged: number }>;
      }>("status");
      for (const [sender, state] of Object.entries(received))
        expect({ sender, ...state }).toMatchObject({ disorder: 0, damaged: 0 });
    }
    for (const guest of guests) await host.kill(guest);
    const end = await host.report();
    expectBalanced(end);
    expect(end).toMatchObject({ clients: 0, sessions: 0, waiting: { nic0: 0, nic1: 0, nic2: 0 } });
  });
});

type Part = "guests" | "bus" | "vbus" | "switch";

function orders(parts: readonly Part[]): Part[][] {
  if (parts.length === 0) return [[]];
  return parts.flatMap((first) =>
    orders(parts.filter((part) => part !== first)).map((rest) => [first, ...rest]),
  );
}

describe("closing everything under traffic", () => {
  it.each(orders(["guests", "bus", "vbus", "switch"]))("in the order %s, %s, %s, %s", async (...order) => {
    const host = (machine = await DeathMachine.start(2));
    const guests = [await host.guest(0), await host.guest(1)];
    for (const guest of guests) await guest.ask("open");
    for (const guest of guests) await guest.ask("stream", { to: [mac(1 - guest.nic), ALL], pauseMs: 0 });
    await until("traffic", async () => (await host.report()).balance.delivered > 200);
    await host.host.call("stop", { order });
    const final = await host.host.call<object>("final");
    expect(final).toMatchObject({
      balance: { balanced: true, inFlight: 0 },
      clients: 0,
      sessions: 0,
      errors: [],
      ports: 0,
    });
    for (const guest of guests) {
      const failure = async (): Promise<string | null> =>
        (await guest.ask<{ failure: string | null }>("status")).failure;
      await until("the guest to be told", async () => (await failure()) !== null);
      expect(await failure()).toMatch(/^ENOTCONN: the host closed the connection/);
      expect(await guest.ask("after", { to: ALL })).toMatch(/^ENOTCONN/);
      await guest.ask("close");
      await guest.ask("leave");
    }
  });
});
