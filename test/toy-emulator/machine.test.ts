/** The whole machine: its guest boots, finds the bus, and exchanges frames with a guest written in TypeScript. */
import { afterEach, describe, expect, it } from "vitest";
import { attachVbusMmio } from "vbus/emulators";
import { BUS_LINE, Lab, type LabOptions } from "../../examples/toy-emulator/lab.js";
import { ATTACH_BASE } from "../../examples/toy-emulator/map.js";
import { parseProgram } from "../../examples/toy-emulator/program.js";
import { ToyMachine } from "../../examples/toy-emulator/machine.js";
import { compileToyGuest, toyImageOrigin, toySourcesDigest } from "../../scripts/toy-guest.mjs";

const IP = Uint8Array.of(10, 0, 0, 2);
const program = parseProgram(toyImageOrigin().text);

let lab: Lab | null = null;
let errors: unknown[] = [];
let printed = "";

async function build(options: Partial<LabOptions> = {}): Promise<Lab> {
  errors = [];
  printed = "";
  lab = await Lab.build({
    program,
    print: (byte) => {
      printed += String.fromCharCode(byte);
    },
    onError: (error) => errors.push(error),
    ...options,
  });
  return lab;
}

afterEach(async () => {
  await lab?.close();
  lab = null;
  expect(errors).toEqual([]);
});

/** Everything that the guest can do, and the end of it. */
async function tour({ machine, peer, net }: Lab): Promise<void> {
  const ended = machine.run();
  const toy = await peer.find(IP);
  expect([...toy.mac]).toEqual([2, 0, 0, 0, 0, 2]);
  const { drops: early } = net.balance(); // what asked before the machine's link was up
  for (const [sequence, size] of [0, 2, 56, 1472].entries()) await peer.ping(toy, sequence, size);
  expect((await peer.flood(toy, 3000, 60)).frames).toBe(3000);
  expect((await peer.flood(toy, 1000, 1514)).frames).toBe(1000);
  await peer.ping(toy, 99);
  await peer.powerOff(toy);
  expect(await ended).toBe(0);
  const { drops, ...balance } = net.balance();
  expect(balance).toMatchObject({ balanced: true, inFlight: 0 });
  expect(drops).toEqual(early);
}

describe("the guest of the toy machine", () => {
  it("finds the bus, answers ARP and ping, sends floods in order and unharmed, and switches the machine off", async () => {
    const { attachment } = await build();
    await tour(lab as Lab);
    expect(printed).toMatch(
      /^vbus: at 10010000\ndevice \d+: virtual-ethernet\nvenet: 02:00:00:00:00:02, link up, 10\.0\.0\.2\nflood: 3000 frames of 60 bytes, \d+ doorbells, .*\nflood: 1000 frames of 1514 bytes, .*\noff\n$/,
    );
    const { interrupts, signalDoorbells, strayDoorbells, deferred, ignored } = attachment.counters();
    expect(interrupts).toBeGreaterThan(0);
    expect(signalDoorbells).toBeLessThan(4000); // most frames need none
    expect([strayDoorbells, deferred, ignored]).toEqual([0, 0, 0]);
  });

  it("finds the bus on another page, and says so where there is none", async () => {
    await build({ memoryAddress: ATTACH_BASE + 0x5000 });
    const ended = (lab as Lab).machine.run();
    await (lab as Lab).peer.find(IP);
    expect(printed).toContain("vbus: at 10015000\n");
    (lab as Lab).machine.stop();
    expect(await ended).toBe(null);

    let said = "";
    const alone = new ToyMachine({ program, print: (byte) => (said += String.fromCharCode(byte)) });
    expect(await alone.run()).toBe(1);
    expect(said).toBe("vbus: error 19\n");
  });

  it("starts anew after a reset of the machine, with nothing left of its first life", async () => {
    const { machine, peer } = await build();
    const ended = machine.run();
    await peer.ping(await peer.find(IP), 1);
    machine.space.write(0x0010_0000, 4, 0x7777);
    const again = await peer.find(IP);
    await peer.ping(again, 2);
    expect(printed.match(/link up/g)).toHaveLength(2);
    await peer.powerOff(again);
    expect(await ended).toBe(0);
  });

  it("loses its bus when the host takes it away; page, interrupt and memory are free again", async () => {
    const { machine, peer, attachment, vbus } = await build();
    const ended = machine.run();
    await peer.find(IP);
    const before = machine.memory.buffer.byteLength;
    const { bus, scheduler } = attachment;
    attachment.close();
    attachment.close();
    expect(machine.space.read(ATTACH_BASE, 4)).toBe(0);
    expect(vbus.tree()).not.toContain("connected by toy");
    attachVbusMmio(machine.host, { bus, scheduler, memoryAddress: ATTACH_BASE, irq: BUS_LINE }).close();
    expect(machine.memory.buffer.byteLength).toBe(before);
    machine.stop();
    expect(await ended).toBe(null);
  });
});

describe("the image of the guest program", () => {
  it("was made of the sources that lie beside it", () => {
    expect(toyImageOrigin().digest, "run npm run toy -- --build").toBe(toySourcesDigest());
  });

  it("does what a freshly compiled one does, and is the same when the compiler is", async () => {
    const { bytes, compiler } = await compileToyGuest();
    if (compiler === toyImageOrigin().compiler)
      expect(Buffer.from(bytes).equals(Buffer.from(program))).toBe(true);
    await build({ program: bytes });
    await tour(lab as Lab);
  });
});
