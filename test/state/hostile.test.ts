import { describe, expect, it } from "vitest";
import type { Client } from "vbus/bus";
import { MemoryBackend } from "vbus/devices/vblk";
import { VblkDriver, type VblkDisk } from "vbus/drivers/vblk";
import { VbusError } from "vbus/engine";
import { MemorySpace } from "vbus/memory";
import { Switch } from "vbus/net";
import { StateReader, type Saveable } from "vbus/state";
import { turns } from "../event-loop.js";
import { seedOr } from "../engine/seed.js";
import { DiskMachine, expectBytes, pattern } from "../vblk/machine.js";
import { readBytes, TestMachine as ConsoleMachine } from "../vconsole/machine.js";
import { testFrame, TestMachine } from "../venet/machine.js";
import { ClientPart, memoryImage } from "./client-part.js";
import { FORMS, LineGuest } from "./line-guest.js";
import { copy, dice, mutate } from "./tampering.js";

const TRIES = 400;

/** Restores spoiled states again and again; each is refused or taken, and the true one works afterwards. */
async function torment(
  part: Saveable,
  client: Client,
  host: MemorySpace,
  seed: number,
): Promise<{ refused: number; taken: number }> {
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
        part.restore(bad, {});
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
    part.restore(new StateReader(copy(good), "state"), {});
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
      const outcome = await torment(new ClientPart(a.client), a.client, a.host, seed);
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
      const outcome = await torment(new ClientPart(guest.client), guest.client, guest.host, seed);
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
      const outcome = await torment(new ClientPart(guest.client), guest.client, guest.host, seed);
      expect(outcome.refused).toBeGreaterThan(TRIES / 4);
      expectGuilty(machine.errors);
      await terminal.write(pattern(50, 3));
      expect((await readBytes(guest.console, 50)).length).toBe(50);
      await guest.bus.close();
      machine.vbus.close();
    });

    it.each(FORMS)("of %s are refused or taken, crash nothing, and hurt nobody", async (form) => {
      const machine = new DiskMachine(new MemoryBackend(1 << 16));
      machine.bus.admit("guest");
      const found: VblkDisk[] = [];
      const drivers = [new VblkDriver((disk) => found.push(disk))];
      const report = (error: unknown): number => machine.errors.push(error);
      const guest = await LineGuest.start(form, machine.bus, machine.scheduler, drivers, report);
      while (found.length === 0) await turns(1);
      const disk = found[0]!;
      await disk.write(0, pattern(4096));
      const [client] = machine.bus.clients;
      const outcome = await guest.standingStill(() => torment(guest.part, client!, guest.host, seed));
      expect(outcome.refused).toBeGreaterThan(TRIES / 4);
      expectGuilty(machine.errors);
      expectBytes(await disk.read(0, 4096), pattern(4096));
      await guest.close();
      machine.vbus.close();
    });
  },
);
