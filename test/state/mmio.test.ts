/** The register page and the hypercalls: saved and put back while all that is behind them is under load. */
import { Vbus, type Bus } from "vbus/bus";
import { MemoryBackend, vblkClass, type VblkStatistics } from "vbus/devices/vblk";
import { Terminal, vconsoleClass } from "vbus/devices/vconsole";
import { venetClass } from "vbus/devices/venet";
import { VblkDriver, type VblkDisk } from "vbus/drivers/vblk";
import { VconsoleDriver, type VirtualConsole } from "vbus/drivers/vconsole";
import { VenetDriver, type VenetNic } from "vbus/drivers/venet";
import { MemorySpace } from "vbus/memory";
import { Switch } from "vbus/net";
import { EventLoopScheduler } from "vbus/scheduler";
import { StateError, StateReader } from "vbus/state";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { turns } from "../event-loop.js";
import { expectBytes, pattern } from "../vblk/machine.js";
import { readBytes } from "../vconsole/machine.js";
import { introduce, sendFrames } from "./card-traffic.js";
import { FORMS, LineGuest, type Form } from "./line-guest.js";

const ROUNDS = 100;
const BLOCK = 4096;

let errors: unknown[];
let scheduler: EventLoopScheduler;
let vbus: Vbus;
let net: Switch;
let terminals: Map<string, Terminal>;
let guests: Guest[];

/** A guest, and its drivers' half of all three devices. */
interface Guest {
  machine: LineGuest;
  bus: Bus;
  nic: VenetNic;
  disk: VblkDisk;
  console: VirtualConsole;
}

beforeEach(async () => {
  errors = [];
  terminals = new Map();
  guests = [];
  scheduler = new EventLoopScheduler((error) => errors.push(error));
  vbus = new Vbus({ scheduler });
  vbus.on("error", (event) => errors.push(event));
  net = new Switch({ scheduler, space: await MemorySpace.host(), stallMs: 60_000 });
  vbus.registerClass(venetClass({ port: (name) => net.addPort(name) }));
  vbus.registerClass(vblkClass({ backend: () => new MemoryBackend(1 << 18) }));
  vbus.registerClass(
    vconsoleClass({
      terminal: (name) => {
        const terminal = new Terminal({ backlog: 5000 });
        terminals.set(name, terminal);
        return terminal;
      },
    }),
  );
});

afterEach(async () => {
  for (const { machine } of guests) await machine.close();
  vbus.close();
  net.close();
  expect(errors).toEqual([]);
});

async function addGuest(form: Form, name: string): Promise<Guest> {
  const bus = vbus.createBus(name);
  bus.admit("guest");
  bus.connect(vbus.createDevice(`nic-${name}`, "venet", { enabled: "1" }));
  bus.connect(vbus.createDevice(`disk-${name}`, "vblk", { queue_depth: "32" }));
  bus.connect(vbus.createDevice(`console-${name}`, "vconsole"));
  const found: Partial<Guest> = {};
  const drivers = [
    new VenetDriver((nic) => (found.nic = nic)),
    new VblkDriver((disk) => (found.disk = disk)),
    new VconsoleDriver((console) => (found.console = console), { rxRing: 3, txRing: 3, bufferSize: 100 }),
  ];
  const machine = await LineGuest.start(form, bus, scheduler, drivers, (error) => errors.push(error));
  while (found.nic === undefined || found.disk === undefined || found.console === undefined) await turns(1);
  const guest: Guest = { machine, bus, nic: found.nic, disk: found.disk, console: found.console };
  guests.push(guest);
  await guest.nic.open();
  await guest.console.open();
  return guest;
}

/** Writes and reads until told to end; every request is answered rightly. */
async function useDisk(disk: VblkDisk, goesOn: () => boolean): Promise<number> {
  let requests = 0;
  for (let round = 1; goesOn(); round++) {
    const blocks = Array.from({ length: 16 }, (_, i) => pattern(BLOCK, round * 16 + i));
    await Promise.all(blocks.map((block, i) => disk.write((i * BLOCK) / 512, block)));
    await disk.flush();
    const read = await Promise.all(blocks.map((_, i) => disk.read((i * BLOCK) / 512, BLOCK)));
    for (const [i, block] of blocks.entries()) expectBytes(read[i]!, block);
    requests += 33;
    await turns(1); // a disk in memory answers without one
  }
  return requests;
}

/** Bytes both ways, none lost, none doubled. */
async function converse(console: VirtualConsole, terminal: Terminal): Promise<void> {
  const input = pattern(50_000, 1);
  const output = pattern(50_000, 2);
  const fromGuest: Uint8Array[] = [];
  terminal.onData = (bytes) => {
    fromGuest.push(bytes);
  };
  const writing = console.write(output);
  const typing = (async () => {
    for (let at = 0; at < input.length;) {
      at += terminal.connected ? terminal.tryWrite(input.subarray(at, at + 700)) : 0;
      await turns(1);
    }
  })();
  expectBytes(await readBytes(console, input.length), input);
  await Promise.all([writing, typing]);
  while (Buffer.concat(fromGuest).length < output.length) await turns(1);
  expectBytes(Buffer.concat(fromGuest), output);
}

describe.each(FORMS)("a guest behind %s, with network card, disk and console under load", (form) => {
  it("is restored a hundred times; not a frame, request or byte of its own is lost or doubled", async () => {
    const a = await addGuest(form, "a");
    const b = await addGuest(form, "b");
    await introduce(a.nic, b.nic);
    let rounds = 0;
    const restoring = (async () => {
      for (; rounds < ROUNDS; rounds++) {
        await a.machine.replaceHost();
        await turns(1);
      }
    })();
    const [requests] = await Promise.all([
      useDisk(a.disk, () => rounds < ROUNDS),
      sendFrames(a.nic, b.nic),
      converse(a.console, terminals.get("console-a")!),
    ]);
    await restoring;
    const counted = JSON.parse(vbus.read("devices/disk-a/statistics")) as VblkStatistics;
    expect(counted).toMatchObject({ requests, completed: requests, failed: 0, outstanding: 0 });
    const { strayDoorbells, resets, discarded } = a.machine.part.counters();
    expect({ strayDoorbells, discarded }).toEqual({ strayDoorbells: 0, discarded: 0 });
    expect(resets).toBeGreaterThanOrEqual(ROUNDS);
    await sendFrames(b.nic, a.nic);
  });

  it("is saved with its line up and an event queue that is full, and hears everything when it is restored", async () => {
    const a = await addGuest(form, "a");
    const { machine } = a;
    await machine.standingStill(async () => {
      // more devices come than the event queue has room for
      for (let n = 0; n < 40; n++) a.bus.connect(vbus.createDevice(`more${n}`, "vconsole"));
      while (!machine.line || machine.part.counters().backlogs === 0) await turns(1);
      for (let round = 0; round < 3; round++) await machine.replaceHost();
    });
    while (machine.bus.devices.length < 43) await turns(1);
    expect(new Set(machine.bus.devices.map(({ id }) => id)).size).toBe(43);
    await machine.bus.settled();
    for (let n = 0; n < 40; n++) vbus.removeDevice(`more${n}`);
    await machine.replaceHost();
    while (machine.bus.devices.length > 3) await turns(1);
  });

  it("takes no state in which its interrupt line and the reasons for it contradict each other", async () => {
    const { machine } = await addGuest(form, "a");
    const { part, host } = machine;
    part.hold();
    const saved = part.save() as { line?: object; status?: number; registers?: unknown };
    const page = form === "a register page";
    const lineOf = (line: boolean, status: number): StateReader => {
      const inner = { ...((page ? saved.line : saved) as object), line, status };
      return new StateReader(page ? { ...saved, line: inner } : inner, "state");
    };
    const free = host.arena.available;
    for (const [line, status] of [
      [true, 0],
      [false, 1],
      [true, 2],
    ] as const) {
      expect(() => {
        part.clear();
        part.restore(lineOf(line, status));
      }).toThrow(StateError);
      expect(machine.line).toBe(false);
      expect(part.line.state).toBe(0);
      expect(host.arena.available).toBeGreaterThanOrEqual(free);
    }
    part.release();
  });

  it("that was taken off its bus takes no state, and says so before anything changes", async () => {
    const a = await addGuest(form, "a");
    const { part } = a.machine;
    part.hold();
    const state = new StateReader(part.save(), "state");
    part.release();
    a.bus.expel("guest");
    await turns(2);
    expect(() => {
      part.check(state);
    }).toThrow(expect.objectContaining({ fault: "mismatch" }) as Error);
    await a.machine.bus.close();
    errors.length = 0; // the guest was told that its bus is gone
  });
});
