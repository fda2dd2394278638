/** Guests that write anything anywhere: the device survives, its neighbours notice nothing. Seeds are fixed; VBUS_SEED explores. */
import { afterEach, describe, expect, it } from "vitest";
import { generator, seedOr } from "../engine/seed.js";
import { capabilityOf, PciDoor } from "./doors.js";
import { TRANSPORTS, VirtioMachine } from "./machine.js";
import { Recorder } from "./recorder.js";

const STEPS = 30_000;

interface Victim {
  machine: VirtioMachine;
  face: Recorder;
}

const machines: VirtioMachine[] = [];

async function victim(transport: (typeof TRANSPORTS)[number]): Promise<Victim> {
  const face = new Recorder();
  const machine = await VirtioMachine.create(transport, face, {
    ...(transport === "pci" ? { pci: { msi: true } } : {}),
  });
  machines.push(machine);
  return { machine, face };
}

/** One write of the guest's, anywhere. */
function writeAnywhere({ machine }: Victim, random: () => number): void {
  const width = ([1, 2, 4] as const)[random() % 3]!;
  const value = [random(), random() & 0xff, random() & 0xf, 0, 0xffffffff, 1][random() % 6]!;
  if (machine.fn === null) {
    machine.registers!.write(random() % 0x220, width, value);
    return;
  }
  switch (random() % 4) {
    case 0:
      machine.fn.configWrite(random() % 260, width, value);
      return;
    case 1:
      machine.fn.barWrite(1, random() % 0x1010, width, value);
      return;
    default:
      machine.fn.barWrite(random() % 8 === 0 ? random() % 7 : 0, random() % 0x108, width, value);
  }
}

function readAnywhere({ machine }: Victim, random: () => number): number {
  const width = ([1, 2, 4] as const)[random() % 3]!;
  if (machine.fn === null) return machine.registers!.read(random() % 0x220, width);
  if (random() % 4 === 0) return machine.fn.configRead(random() % 260, width);
  return machine.fn.barRead(random() % 3, random() % 0x1010, width);
}

afterEach(() => {
  for (const machine of machines.splice(0)) {
    machine.close();
    expect(machine.line).toBe(false);
    expect(machine.memory.arena.available).toBe(machine.free);
  }
});

describe.each(TRANSPORTS)("a guest that writes garbage to %s registers", (transport) => {
  it.each([1, 2, 3])(
    "gets plain numbers back, breaks its own device, and can set it up again (seed %i)",
    async (n) => {
      const seed = seedOr(1000 * n);
      const random = generator(seed);
      const bad = await victim(transport);
      const good = await victim(transport);
      good.machine.bringUp();
      for (let step = 0; step < STEPS; step++) {
        if (random() % 3 === 0) {
          const value = readAnywhere(bad, random);
          if (!(Number.isInteger(value) && value >= 0 && value < 2 ** 32))
            throw new Error(`a read returned ${value} (seed ${seed}, step ${step})`);
        } else {
          writeAnywhere(bad, random);
        }
        // now and then there is a driver, so that garbage meets a device at work
        if (step % 3000 === 0) bringUpAgain(bad);
        if (step % 500 === 0) {
          bad.machine.scheduler.run();
          good.machine.exercise();
          good.machine.door.acknowledge();
        }
      }
      bringUpAgain(bad);
      bad.machine.exercise();
      expect(good.face.log.filter((line) => line === "stop")).toEqual([]);
      expect(good.machine.errors).toEqual([]);
    },
  );

  it("gets nothing out of kicking whatever number comes to its mind", async () => {
    const bad = await victim(transport);
    bad.machine.bringUp();
    const random = generator(seedOr(77));
    for (let i = 0; i < 10_000; i++) bad.machine.door.kick(2 + (random() % 0xfffe));
    expect(bad.machine.counters()["strayKicks"]).toBe(10_000);
    bad.machine.exercise();
  });

  it("may scribble over its rings while they are used: it ruins itself, until it resets its device", async () => {
    const random = generator(seedOr(4711));
    const bad = await victim(transport);
    const good = await victim(transport);
    good.machine.bringUp();
    let broken = 0;
    for (let round = 0; round < 200; round++) {
      bringUpAgain(bad);
      const queue = bad.machine.queues.get(0)!;
      const { space } = bad.machine.guest;
      const areas = (["descriptors", "driver", "device"] as const).map((area) =>
        bad.machine.device.queue(0)!.address(area, false),
      );
      bad.machine.offer(queue, 8, 0, "never");
      for (let i = 0; i < 1 + (random() % 4); i++)
        space.copyTo(areas[random() % 3]! + (random() % 40), Uint8Array.of(random() & 0xff));
      try {
        bad.machine.door.kick(0);
      } finally {
        if ((bad.face.queues.get(0)?.ring.broken ?? null) !== null) broken++;
      }
      good.machine.exercise();
      good.machine.door.acknowledge();
    }
    expect(broken).toBeGreaterThan(10);
    bringUpAgain(bad);
    bad.machine.exercise();
    expect(good.machine.errors).toEqual([]);
  });
});

function bringUpAgain({ machine, face }: Victim): void {
  const { fn } = machine;
  if (fn !== null) {
    fn.configWrite(capabilityOf(fn, 0x11) + 2, 2, 0);
    fn.configWrite(capabilityOf(fn, 5) + 2, 2, 0);
    fn.configWrite(0x04, 2, 7);
  }
  machine.bringUp();
  face.written.length = 0;
}

describe("MSI-X table garbage", () => {
  it("sends at worst what the guest itself wrote, and only while it is enabled and unmasked", async () => {
    const { machine, face } = await victim("pci");
    const fn = machine.fn!;
    const random = generator(seedOr(2009));
    const control = capabilityOf(fn, 0x11) + 2;
    machine.bringUp();
    let sent = 0;
    for (let round = 0; round < 3000; round++) {
      fn.configWrite(control, 2, [0x8000, 0xc000, 0][random() % 3]!);
      for (let i = 0; i < 6; i++)
        fn.barWrite(1, random() % 0x40, ([1, 2, 4] as const)[random() % 3]!, random());
      machine.door.kick(0);
      face.context!.configChanged();
      const entry = (vector: number): { address: number; data: number; masked: number } => ({
        address: fn.barRead(1, 16 * vector, 4) + fn.barRead(1, 16 * vector + 4, 4) * 2 ** 32,
        data: fn.barRead(1, 16 * vector + 8, 4),
        masked: fn.barRead(1, 16 * vector + 12, 4),
      });
      for (let vector = 0; vector < 3; vector++) {
        expect(entry(vector).masked & ~1).toBe(0);
        expect(entry(vector).address % 4).toBe(0);
      }
      sent += machine.messages.splice(0).length;
      const vector = random() % 5;
      machine.door.acknowledge();
      PciDoor.of(machine.door).mapConfig(vector);
    }
    expect(sent).toBeGreaterThan(0);
    fn.configWrite(control, 2, 0);
    machine.exercise();
  });
});
