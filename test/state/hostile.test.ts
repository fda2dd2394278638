import { describe, expect, it } from "vitest";
import type { Client } from "vbus/bus";
import { MemoryBackend } from "vbus/devices/vblk";
import { VbusError } from "vbus/engine";
import { MemorySpace } from "vbus/memory";
import { Switch } from "vbus/net";
import { StateReader, type StateValue } from "vbus/state";
import { turns } from "../event-loop.js";
import { seedOr } from "../engine/seed.js";
import { DiskMachine, expectBytes, pattern } from "../vblk/machine.js";
import { readBytes, TestMachine as ConsoleMachine } from "../vconsole/machine.js";
import { testFrame, TestMachine } from "../venet/machine.js";
import { ClientPart, memoryImage } from "./client-part.js";

const TRIES = 400;

/** Numbers in [0, n) by a generator that anybody can repeat. */
function dice(seed: number): (n: number) => number {
  let state = seed >>> 0;
  return (n) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * n);
  };
}

type Tree = Exclude<StateValue, readonly StateValue[]> | Tree[] | { [name: string]: Tree };

function copy(value: StateValue): Tree {
  if (value instanceof Uint8Array) return value.slice();
  if (Array.isArray(value)) return (value as readonly StateValue[]).map(copy);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([name, member]) => [name, copy(member)]));
}

const NUMBERS = [0, 1, -1, 2, 7, 255, 65535, 65536, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 53, 1e300, NaN, 0.5];

/** Something else in the place of a value. */
function spoil(value: Tree, roll: (n: number) => number): Tree {
  if (value instanceof Uint8Array && roll(4) > 0) {
    const bytes = value.slice();
    for (let n = 1 + roll(3); n > 0 && bytes.length > 0; n--)
      bytes[roll(bytes.length)] = roll(3) === 0 ? 255 : roll(256);
    return roll(6) === 0 ? bytes.slice(0, roll(bytes.length + 1)) : bytes;
  }
  if (typeof value === "boolean" && roll(3) > 0) return !value;
  if (typeof value === "number" && roll(3) > 0) return value + [1, -1, 64, 2 ** 31][roll(4)]!;
  return [NUMBERS[roll(NUMBERS.length)]!, null, true, "text", [], {}, new Uint8Array(roll(9))][
    roll(7)
  ] as Tree;
}

/** Changes one place of a tree. */
function mutate(root: Tree, roll: (n: number) => number): Tree {
  let at = root;
  for (;;) {
    const container = at as Record<string, Tree>;
    const names = Array.isArray(at) ? [...at.keys()].map(String) : Object.keys(at as object);
    if (names.length === 0) return root;
    const name = names[roll(names.length)]!;
    const child = container[name] as Tree;
    const inner = typeof child === "object" && child !== null && !(child instanceof Uint8Array);
    if (inner && roll(8) > 0 && Object.keys(child).length > 0) {
      at = child;
      continue;
    }
    const action = roll(10);
    if (action === 0 && Array.isArray(at)) at.push(copy(child));
    else if (action === 1) Reflect.deleteProperty(container, name);
    else container[name] = spoil(child, roll);
    return root;
  }
}

/** Restores spoiled states again and again; each is refused or taken, and the true one works afterwards. */
async function torment(
  client: Client,
  host: MemorySpace,
  seed: number,
): Promise<{ refused: number; taken: number }> {
  const part = new ClientPart(client);
  await part.settle();
  part.hold();
  const good = part.save();
  const putBack = memoryImage(host);
  const roll = dice(seed);
  const outcome = { refused: 0, taken: 0 };
  try {
    for (let n = 0; n < TRIES; n++) {
      const bad = new StateReader(mutate(copy(good), roll), "state");
      part.clear();
      putBack();
      const free = host.arena.available;
      try {
        part.check(bad);
        part.restore(bad);
        outcome.taken++;
      } catch (error) {
        expect(error, `seed ${seed}, try ${n}: ${String(error)}`).toBeInstanceOf(VbusError);
        expect(client.connections, `seed ${seed}, try ${n}: nothing is half restored`).toEqual([]);
        expect(host.arena.available, `seed ${seed}, try ${n}: memory`).toBeGreaterThanOrEqual(free);
        outcome.refused++;
      }
      if (n % 8 === 0) {
        // what was taken may work for a while, on whatever it believes
        part.release();
        await turns(2);
        await part.settle();
        part.hold();
      }
    }
    part.clear();
    putBack();
    part.restore(new StateReader(copy(good), "state"));
  } finally {
    part.release();
  }
  return outcome;
}

/** Whatever was reported is a guest's broken protocol. */
function expectGuilty(errors: unknown[]): void {
  for (const error of errors.splice(0)) {
    const cause = (error as { error?: unknown }).error ?? error;
    expect(cause, String(cause)).toBeInstanceOf(VbusError);
  }
}

describe.each([1, 2, 3].map((n) => seedOr(20090400) + n))(
  "states that were tampered with (seed %i)",
  (seed) => {
    it("of a network card are refused or taken, crash nothing, and hurt nobody", async () => {
      const space = await MemorySpace.host();
      let net: Switch | null = null;
      const machine = new TestMachine((name) => net!.addPort(name));
      net = new Switch({ scheduler: machine.scheduler, space, stallMs: 60_000 });
      machine.addNic("nic0", { client_mac: "02:00:00:00:00:0a", txc: "1" });
      machine.addNic("nic1", { client_mac: "02:00:00:00:00:0b" });
      const a = await machine.addGuest("a", 0);
      const b = await machine.addGuest("b", 1);
      await a.nic.open();
      await b.nic.open();
      await a.nic.send([testFrame(b.nic.mac, a.nic.mac, 100, 1)]);
      while ((await b.nic.receive()).length === 0);
      const outcome = await torment(a.client, a.host, seed);
      expect(outcome.refused).toBeGreaterThan(TRIES / 4);
      expectGuilty(machine.errors);
      const own = (frame: Uint8Array): boolean => frame[12] === 0x88;
      await a.nic.send([testFrame(b.nic.mac, a.nic.mac, 100, 2)]);
      while (!(await b.nic.receive()).some(own));
      await b.nic.send([testFrame(a.nic.mac, b.nic.mac, 100, 3)]);
      while (!(await a.nic.receive()).some(own));
      await machine.close();
      net.close();
    });

    it("of a disk are refused or taken, crash nothing, and hurt nobody", async () => {
      const machine = new DiskMachine(new MemoryBackend(1 << 16));
      const guest = await machine.addGuest();
      await guest.disk.write(0, pattern(4096));
      const outcome = await torment(guest.client, guest.host, seed);
      expect(outcome.refused).toBeGreaterThan(TRIES / 4);
      expectGuilty(machine.errors);
      expectBytes(await guest.disk.read(0, 4096), pattern(4096));
      await guest.bus.close();
      machine.vbus.close();
    });

    it("of a console are refused or taken, crash nothing, and hurt nobody", async () => {
      const machine = new ConsoleMachine();
      const terminal = machine.addConsole("console0");
      const guest = await machine.addGuest("guest");
      await guest.console.open();
      await guest.console.write(pattern(100));
      await readBytes(terminal, 100);
      const outcome = await torment(guest.client, guest.host, seed);
      expect(outcome.refused).toBeGreaterThan(TRIES / 4);
      expectGuilty(machine.errors);
      await terminal.write(pattern(50, 3));
      expect((await readBytes(guest.console, 50)).length).toBe(50);
      await guest.bus.close();
      machine.vbus.close();
    });
  },
);
