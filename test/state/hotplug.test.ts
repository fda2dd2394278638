/** Devices that come and go between saving and restoring, and states of machines with other devices. */
import { Vbus } from "vbus/bus";
import { MemoryBackend, vblkClass } from "vbus/devices/vblk";
import { Terminal, vconsoleClass } from "vbus/devices/vconsole";
import { encodeState, quiesce, restoreState, StateError, type Saveable } from "vbus/state";
import { describe, expect, it } from "vitest";
import { DEVADD, DEVDROP, LP64, type WireEvent } from "../connectors/bare-guest.js";
import { ECHO_VERSION } from "../connectors/echo.js";
import { EchoHost } from "../connectors/machine.js";
import { FORMS as LINE_FORMS, LineMachine } from "../connectors/mmio-machine.js";
import { PciMachine } from "../connectors/pci-machine.js";
import { DiskMachine, expectBytes, pattern } from "../vblk/machine.js";
import { ClientPart, memoryImage } from "./client-part.js";

/** A machine whose guest is written by hand, however it is interrupted. */
interface HandMachine {
  machine: PciMachine | LineMachine;
  vbus: Vbus;
  part: Saveable;
  /** Lets the guest handle its interrupts. */
  events(): WireEvent[];
}

async function pci(way: "MSI" | "INTx" | "INTx, as drivers of 2009 know it"): Promise<HandMachine> {
  const machine = new PciMachine(2);
  await machine.boot(LP64);
  machine.enable();
  if (way === "MSI") machine.enableMsi();
  const reads = way === "INTx";
  machine.bringUp(reads);
  expect(machine.fn.counters().messages > 0).toBe(way === "MSI");
  return { machine, vbus: machine.vbus, part: machine.fn, events: () => machine.events(reads) };
}

async function lineOf(form: (typeof LINE_FORMS)[number]): Promise<HandMachine> {
  const host = new EchoHost(2);
  const machine = new LineMachine(host);
  await machine.boot(form, LP64);
  machine.bringUp();
  return { machine, vbus: host.vbus, part: machine.bridge, events: () => machine.events() };
}

const WAYS: [string, () => Promise<HandMachine>][] = [
  ["the PCI bridge by MSI", () => pci("MSI")],
  ["the PCI bridge by INTx", () => pci("INTx")],
  ["the PCI bridge by INTx, as drivers of 2009 know it", () => pci("INTx, as drivers of 2009 know it")],
  ...LINE_FORMS.map((form): [string, () => Promise<HandMachine>] => [`the ${form}`, () => lineOf(form)]),
];

/** Saves; what puts all of it back, the interrupt controller included. */
async function save({ machine, part }: HandMachine): Promise<() => Promise<void>> {
  const quiesced = await quiesce([part]);
  const state = quiesced.save();
  const { line } = machine;
  const putBack = memoryImage(machine.memory);
  quiesced.resume();
  return () =>
    restoreState([part], state, {
      memory: () => {
        putBack();
        machine.line = line;
      },
    });
}

const short = (events: WireEvent[]): [number, bigint][] => events.map(({ id, value }) => [id, value]);

describe.each(WAYS)("a guest that is interrupted by %s", (_way, make) => {
  it("hears of devices that came and went since it was saved", async () => {
    const hand = await make();
    const { machine, vbus, events } = hand;
    const restore = await save(hand);
    vbus.removeDevice("echo0");
    machine.plug("later");
    await restore();
    expect(short(events())).toEqual([
      [DEVDROP, 0n],
      [DEVADD, 2n],
    ]);
    // once: the next state knows of it
    await (
      await save(hand)
    )();
    expect(events()).toEqual([]);
    expect(machine.guest.open(2, ECHO_VERSION).result).toBe(0);
    expect(machine.guest.open(0, ECHO_VERSION).result).toBeLessThan(0);
    expect(machine.errors).toEqual([]);
  });

  it("hears of it, too, when an interrupt of its was on its way when it was saved", async () => {
    const hand = await make();
    const { machine, vbus, events } = hand;
    machine.plug("announced");
    machine.scheduler.run(); // the event is in its queue, and it was interrupted
    const up = machine.line;
    const restore = await save(hand);
    vbus.removeDevice("announced");
    machine.plug("later");
    await restore();
    if (up) expect(machine.line, "the line is up still").toBe(true);
    expect(short(events())).toEqual([
      [DEVADD, 2n],
      [DEVDROP, 2n],
      [DEVADD, 3n],
    ]);
    expect(machine.line).toBe(false);
    expect(machine.errors).toEqual([]);
  });

  it("that took none of its events yet gets all that is there, and nothing that is not", async () => {
    const hand = await make();
    const { machine, vbus, events } = hand;
    expect(machine.guest.negotiate().result).toBe(1); // once more: its event queue is gone
    const restore = await save(hand);
    vbus.removeDevice("echo1");
    machine.plug("later");
    await restore();
    machine.guest.makeEventQueue(16);
    expect(machine.guest.qreg()).toBe(0);
    const added = short(events());
    expect(added.map(([id]) => id)).toEqual([DEVADD, DEVADD]);
    for (const [, id] of added) expect(machine.guest.open(id, ECHO_VERSION).result).toBe(0);
  });
});

describe("a guest with a disk", () => {
  async function saved(): Promise<{
    machine: DiskMachine;
    content: MemoryBackend;
    part: ClientPart;
    state: Uint8Array;
  }> {
    const content = new MemoryBackend(1 << 16);
    const machine = new DiskMachine(content);
    const guest = await machine.addGuest();
    await guest.disk.write(0, pattern(4096));
    const part = new ClientPart(guest.client);
    const quiesced = await quiesce([machine.vbus, part]);
    const state = quiesced.save();
    quiesced.resume();
    return { machine, content, part, state };
  }

  it("finds it again when it was removed since, and the tree is restored with the guest", async () => {
    const { machine, content, part, state } = await saved();
    const putBack = memoryImage(machine.guests[0]!.host);
    machine.vbus.removeDevice("disk0");
    expect(machine.vbus.device("disk0")).toBeUndefined();
    // the guest's half is in JavaScript objects: it must not hear of what did not happen to it
    await restoreState([machine.vbus, part], state, { memory: putBack });
    expect(machine.bus.devices.map(({ name }) => name)).toEqual(["disk0"]);
    expectBytes(content.bytes.subarray(0, 4096), pattern(4096));
    expect(part.client.connections).toMatchObject([{ device: "disk0" }]);
    machine.vbus.close();
  });

  it("is refused where there is none, with what to do about it, and nothing of it is left", async () => {
    const { state } = await saved();
    const other = new DiskMachine(new MemoryBackend(1 << 16));
    const guest = await other.addGuest();
    other.vbus.removeDevice("disk0");
    const free = guest.host.arena.available;
    const part = new ClientPart(guest.client);
    await expect(restoreState([part], state)).rejects.toThrow(
      /holds a part "vbus", which this machine lacks/,
    );
    const alone = await quiesce([new ClientPart((await saved()).machine.guests[0]!.client)]);
    const session = alone.save();
    alone.resume();
    await expect(restoreState([part], session)).rejects.toMatchObject({
      fault: "mismatch",
      message: expect.stringMatching(/had disk0 open.*create it first/) as string,
    });
    expect(part.client.connections).toEqual([]);
    expect(guest.host.arena.available).toBeGreaterThanOrEqual(free);
    other.vbus.close();
  });

  it("is refused where a disk of another size is, and where something else has its name", async () => {
    const { state } = await saved();
    const small = new DiskMachine(new MemoryBackend(1 << 15));
    const guest = await small.addGuest();
    const part = new ClientPart(guest.client);
    await expect(restoreState([small.vbus, part], state)).rejects.toThrow(StateError);
    expect(part.client.connections).toEqual([]);
    small.vbus.close();

    const console = { name: "disk0", class: "vconsole", state: null };
    const other = await saved();
    const [victim] = other.machine.guests;
    other.part.hold();
    const parts = { vbus: { devices: [console], buses: [] }, guest: other.part.save() };
    other.part.release();
    other.machine.vbus.registerClass(vconsoleClass({ terminal: () => new Terminal() }));
    await expect(
      restoreState([other.machine.vbus, other.part], encodeState({ parts, extra: null })),
    ).rejects.toThrow(/device "disk0" of class "vconsole"; here it is one of class "vblk"/);
    expectBytes(await victim!.disk.read(0, 4096), pattern(4096));
    other.machine.vbus.close();
  });

  it("is refused by a tree without its class, which stays as it was", async () => {
    const { state } = await saved();
    const vbus = new Vbus({ scheduler: (await saved()).machine.scheduler });
    const tree = vbus.tree();
    const machine = new DiskMachine(new MemoryBackend(1 << 16));
    const part = new ClientPart((await machine.addGuest()).client);
    await expect(restoreState([vbus, part], state)).rejects.toThrow(/register that class first/);
    expect(vbus.tree()).toBe(tree);
    vbus.registerClass(vblkClass({ backend: () => new MemoryBackend(1 << 16) }));
    vbus.close();
    await machine.close();
  });
});
