/** The toy machine with its bus, saved and restored: all of a guest behind a register page, its processor included. */
import { ToyMachine } from "../../examples/toy-emulator/machine.js";
import { Lab, type LabOptions } from "../../examples/toy-emulator/lab.js";
import { ATTACH_BASE } from "../../examples/toy-emulator/map.js";
import { parseProgram } from "../../examples/toy-emulator/program.js";
import { restoreToy, saveToy } from "../../examples/toy-emulator/saved.js";
import { toyImageOrigin } from "../../scripts/toy-guest.mjs";
import { savedParts } from "vbus/emulators";
import { decodeState, quiesce, StateError } from "vbus/state";
import { afterEach, describe, expect, it } from "vitest";
import { seedOr } from "../engine/seed.js";
import { turns } from "../event-loop.js";
import { copy, dice, mutate } from "../state/tampering.js";

const IP = Uint8Array.of(10, 0, 0, 2);
const SEED = seedOr(20261128);
const FRAMES = 5000;
const SIZE = 200;
const program = parseProgram(toyImageOrigin().text);

let labs: Lab[] = [];
const errors: unknown[] = [];
let printed = "";

async function build(options: Partial<LabOptions> = {}): Promise<Lab> {
  const lab = await Lab.build({
    program,
    print: (byte) => (printed += String.fromCharCode(byte)),
    onError: (error) => errors.push(error),
    ...options,
  });
  labs.push(lab);
  return lab;
}

afterEach(async () => {
  for (const lab of labs) await lab.close();
  labs = [];
  printed = "";
  expect(errors.splice(0)).toEqual([]);
});

/** Runs until a flood has come so far, and saves. Returns the state, and how many frames had left the machine by then. */
async function saveInFlood(lab: Lab, from: number): Promise<{ state: Uint8Array; sent: number }> {
  const { machine, peer, net, vbus } = lab;
  const nothing = (): void => undefined;
  const unhook = machine.hook({
    enter: nothing,
    reset: nothing,
    regionsChanged: nothing,
    // between two slices: a busy machine leaves the event loop few turns
    between: () => {
      if (peer.expected >= from) machine.stop();
    },
  });
  const stopped = machine.run();
  const flood = peer.flood(await peer.find(IP), FRAMES, SIZE);
  flood.catch(() => undefined); // the rest comes from another machine
  expect(await stopped).toBeNull();
  unhook();
  const quiesced = await quiesce(savedParts(machine.host));
  const state = quiesced.save(machine.save());
  vbus.write("devices/nic-toy/link", "down"); // what lies in its rings is in the state, and must not come twice
  quiesced.resume();
  while (net.balance().inFlight > 0) await turns(1);
  await turns();
  expect(peer.expected).toBeLessThan(FRAMES);
  return { state, sent: peer.expected };
}

describe("a toy machine that is saved", () => {
  it("goes on in another machine in the middle of a flood: not a frame is missing or comes twice", async () => {
    const { state, sent } = await saveInFlood(await build(), 500);
    const boots = printed.match(/link up/g)?.length;
    const { machine, peer } = await build();
    await restoreToy(machine, state);
    const ended = machine.run();
    expect((await peer.followFlood(sent, FRAMES, SIZE)).frames).toBe(FRAMES - sent);
    await peer.ping(await peer.find(IP), 1);
    expect(printed.match(/link up/g)).toHaveLength(boots!);
    expect((await peer.flood(await peer.find(IP), 200, 60)).frames).toBe(200);
    await peer.powerOff(await peer.find(IP));
    expect(await ended).toBe(0);
  });

  it("is rewound in its own machine, from wherever it is by then, several times", async () => {
    const lab = await build();
    const { machine, peer } = lab;
    let ended = machine.run();
    const toy = await peer.find(IP);
    await peer.ping(toy, 1);
    await machine.halt();
    await ended;
    const state = await saveToy(machine);
    const { instructions } = machine.cpu;
    for (let round = 0; round < 5; round++) {
      ended = machine.run();
      await peer.ping(toy, round);
      await peer.flood(toy, 300, SIZE);
      if (round === 2) {
        await peer.powerOff(toy);
        expect(await ended).toBe(0);
      } else if (round === 3) {
        machine.space.write(0x0010_0000, 4, 0x7777); // resets it
        await peer.ping(await peer.find(IP), 2);
      }
      await machine.halt();
      expect(machine.cpu.instructions).toBeGreaterThan(instructions);
      await restoreToy(machine, state);
      expect(machine.cpu.instructions).toBe(instructions);
    }
    void machine.run();
    await peer.ping(toy, 99);
  });

  it("is refused by machines with other memory or another place for the bus, which go on as they were", async () => {
    const first = await build();
    void first.machine.run();
    await first.peer.find(IP);
    await first.machine.halt();
    const state = await saveToy(first.machine);

    const elsewhere = await build({ memoryAddress: ATTACH_BASE + 0x5000 });
    void elsewhere.machine.run();
    const toy = await elsewhere.peer.find(IP);
    await elsewhere.machine.halt();
    await expect(restoreToy(elsewhere.machine, state)).rejects.toMatchObject({ fault: "mismatch" });
    void elsewhere.machine.run();
    await elsewhere.peer.ping(toy, 1);

    const bare = new ToyMachine({ program, ramSize: 1 << 20 });
    await expect(restoreToy(bare, state)).rejects.toMatchObject({ code: "ENOTCONN" });
    const own = decodeState(state).get("extra");
    expect(() => {
      bare.restore(own);
    }).toThrow(/16777216 bytes of RAM, this machine 1048576/);
  });

  it(`takes or refuses states of its own that were tampered with, and goes on after each (seed ${SEED})`, async () => {
    const { machine, peer } = await build({ ramSize: 1 << 20 });
    void machine.run();
    await peer.find(IP);
    await machine.halt();
    const good = machine.save();
    const quiesced = await quiesce(savedParts(machine.host));
    const whole = quiesced.save(good);
    const roll = dice(SEED);
    const bad = Array.from({ length: 40 }, () => quiesced.save(mutate(copy(good), roll)));
    quiesced.resume();
    let refused = 0;
    for (const bytes of bad) {
      await restoreToy(machine, bytes).catch((error: unknown) => {
        expect(error).toBeInstanceOf(StateError);
        refused++;
      });
      void machine.run();
      await turns(1);
      await machine.halt();
    }
    expect(refused).toBeGreaterThan(10);
    await restoreToy(machine, whole);
    void machine.run();
    await peer.ping(await peer.find(IP), 1);
    errors.length = 0; // what a guest with other registers did to its rings
  });
});
