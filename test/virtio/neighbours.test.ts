/**
 * Drivers that do everything wrong, one thing after the other: their device may need a reset, the other devices of the same
 * machine never notice.
 */
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { generator, seedOr } from "../engine/seed.js";
import { capabilityOf, PciDoor, type Width } from "./doors.js";
import {
  ACKNOWLEDGE,
  DRIVER,
  DRIVER_OK,
  FEATURES_OK,
  NEEDS_RESET,
  RING_RESET,
  TRANSPORTS,
  VERSION_1,
  VirtioMachine,
} from "./machine.js";
import { Recorder } from "./recorder.js";

const SEED = seedOr(20260901);
const WIDTHS = [1, 2, 4] as const;
/** What the neighbour on PCI has its interrupts sent as. */
const MESSAGE = { address: 0xfee00000, data: 0x4051 };

interface Resident {
  machine: VirtioMachine;
  face: Recorder;
}

/** A wrong driver: what it does, and what becomes of its device. */
interface Wrong {
  what: string;
  /** The device still works for its driver, which need not reset it. */
  harmless?: boolean;
  /** The device has to say that it needs a reset. */
  needsReset?: boolean;
  on?: (typeof TRANSPORTS)[number];
  does: (bad: Resident) => void;
}

function running({ machine }: Resident): void {
  machine.bringUp();
  machine.exercise();
}

/** Status, features, queues and DRIVER_OK, without a word about FEATURES_OK. */
function withoutNegotiation({ machine }: Resident): void {
  machine.door.writeStatus(0);
  machine.door.writeStatus(ACKNOWLEDGE | DRIVER);
  machine.makeQueue(0);
  machine.door.writeStatus(ACKNOWLEDGE | DRIVER | DRIVER_OK);
  machine.offer(machine.queues.get(0)!, 4, 0, "always");
}

/** Every width at every offset of everything that the device has, several values. */
function everywhere({ machine }: Resident): void {
  const { fn, registers } = machine;
  for (const value of [0xffffffff, 0, 1, 0x80000001, 0x12345678, 3])
    for (const width of WIDTHS) {
      const spots = (size: number, write: (offset: number, width: Width, value: number) => void): void => {
        for (let offset = 0; offset < size; offset++) write(offset, width, value);
      };
      if (fn === null) {
        spots(0x240, (...access) => {
          registers!.write(...access);
        });
        continue;
      }
      for (let bar = 0; bar < 6; bar++)
        spots(bar === 1 ? 0x1010 : 0x110, (...access) => {
          fn.barWrite(bar, ...access);
        });
      spots(260, (...access) => {
        fn.configWrite(...access);
      });
    }
}

const WRONG: Wrong[] = [
  { what: "skips feature negotiation", needsReset: true, does: withoutNegotiation },
  {
    what: "sets FEATURES_OK after its queues",
    needsReset: true,
    does: (bad) => {
      const { machine } = bad;
      machine.door.writeStatus(ACKNOWLEDGE | DRIVER);
      machine.choose(machine.offered);
      machine.makeQueue(0);
      machine.door.writeStatus(ACKNOWLEDGE | DRIVER | FEATURES_OK);
      machine.driverOk();
      machine.offer(machine.queues.get(0)!, 4, 0, "always");
      expect(machine.device.negotiated).toBe(0n);
    },
  },
  {
    what: "sets FEATURES_OK after DRIVER_OK",
    needsReset: true,
    does: (bad) => {
      withoutNegotiation(bad);
      bad.machine.choose(bad.machine.offered);
      bad.machine.door.writeStatus(ACKNOWLEDGE | DRIVER | DRIVER_OK | FEATURES_OK);
      expect(bad.machine.device.negotiated).toBe(0n);
    },
  },
  {
    what: "accepts features that nobody offered, and goes on regardless",
    needsReset: true,
    does: ({ machine }) => {
      expect(machine.negotiate((1n << 128n) - 1n)).toBe(false);
      machine.makeQueue(0);
      machine.driverOk();
      machine.offer(machine.queues.get(0)!, 4, 0, "always");
    },
  },
  {
    what: "negotiates anew after DRIVER_OK, with chains in flight",
    harmless: true,
    does: (bad) => {
      const { machine } = bad;
      running(bad);
      const before = machine.device.negotiated;
      const queue = machine.queues.get(0)!;
      machine.offer(queue, 3, 0, "never");
      const { features } = machine;
      for (const other of [0n, VERSION_1, machine.offered, (1n << 128n) - 1n]) {
        machine.choose(other);
        machine.door.writeStatus(ACKNOWLEDGE | DRIVER);
        machine.door.writeStatus(ACKNOWLEDGE | DRIVER | FEATURES_OK);
        machine.door.writeStatus(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
        expect(machine.device.negotiated).toBe(before);
      }
      machine.features = features;
      machine.door.kick(0);
      expect(machine.reap(queue)).toHaveLength(3);
      queue.ring.enable();
    },
  },
  {
    what: "kicks every number that there is, at every stage of its life",
    harmless: true,
    does: ({ machine }) => {
      const kickAll = (): void => {
        for (let queue = 0; queue <= 0xffff; queue++) machine.door.kick(queue);
      };
      kickAll();
      machine.negotiate();
      kickAll();
      machine.bringUp();
      kickAll();
    },
  },
  {
    what: "resets its device in the midst of a burst",
    does: (bad) => {
      running(bad);
      bad.face.interlude = () => {
        bad.face.interlude = null;
        bad.machine.door.writeStatus(0);
      };
      bad.machine.offer(bad.machine.queues.get(0)!, 12, 0, "always");
      expect(bad.machine.door.status()).toBe(0);
    },
  },
  {
    what: "resets a queue in the midst of its burst",
    does: (bad) => {
      const { machine, face } = bad;
      running(bad);
      expect(machine.device.negotiated & RING_RESET).not.toBe(0n);
      face.interlude = () => {
        face.interlude = null;
        machine.door.reset(0);
      };
      machine.offer(machine.queues.get(0)!, 12, 0, "always");
      expect(machine.door.enabled(0)).toBe(false);
    },
  },
  {
    what: "gives its device up in the midst of a burst",
    does: (bad) => {
      running(bad);
      bad.face.interlude = () => {
        bad.face.interlude = null;
        bad.machine.door.writeStatus(0xff);
      };
      bad.machine.offer(bad.machine.queues.get(0)!, 12, 0, "always");
      expect(bad.machine.device.running).toBe(false);
    },
  },
  {
    what: "writes every width at every offset, before there is a driver",
    does: everywhere,
  },
  {
    what: "writes every width at every offset of a device at work",
    does: (bad) => {
      running(bad);
      everywhere(bad);
    },
  },
  {
    what: "writes every width at every offset of the configuration of a device at work",
    harmless: true,
    does: (bad) => {
      running(bad);
      for (const width of WIDTHS)
        for (let offset = 0; offset < 64; offset++) bad.machine.door.writeConfig(offset, width, 0xffffffff);
    },
  },
  {
    what: "fills its MSI-X table with garbage, and has interrupts sent by it",
    on: "pci",
    does: (bad) => {
      const { machine, face } = bad;
      const fn = machine.fn!;
      const random = generator(SEED);
      running(bad);
      fn.configWrite(capabilityOf(fn, 0x11) + 2, 2, 0x8000);
      for (let round = 0; round < 300; round++) {
        for (let i = 0; i < 8; i++) fn.barWrite(1, random() % 0x40, WIDTHS[random() % 3]!, random());
        for (const queue of [0, 1]) PciDoor.of(machine.door).mapQueue(queue, random() % 5);
        PciDoor.of(machine.door).mapConfig(random() % 5);
        for (const { index, ring } of machine.queues.values()) {
          machine.offer(machine.queues.get(index)!, 2, 0, "always");
          machine.reap(machine.queues.get(index)!);
          ring.enable();
        }
        face.context!.configChanged();
      }
      expect(machine.messages.splice(0).length).toBeGreaterThan(0);
    },
  },
];

describe.each(TRANSPORTS)(`a driver of a device behind %s registers (seed ${SEED})`, (transport) => {
  let bad: Resident;
  let pci: Resident;
  let mmio: Resident;

  beforeEach(async () => {
    const resident = async (name: (typeof TRANSPORTS)[number], beside?: VirtioMachine): Promise<Resident> => {
      const face = new Recorder();
      const options = beside === undefined ? {} : { beside };
      return { face, machine: await VirtioMachine.create(name, face, options) };
    };
    bad = await resident(transport);
    pci = await resident("pci", bad.machine);
    mmio = await resident("mmio", bad.machine);
    for (const { machine } of [pci, mmio]) machine.bringUp();
    const { fn, door } = pci.machine;
    const table = PciDoor.of(door);
    fn!.configWrite(0x04, 2, 6);
    fn!.configWrite(capabilityOf(fn!, 0x11) + 2, 2, 0x8000);
    fn!.barWrite(1, 0, 4, MESSAGE.address);
    fn!.barWrite(1, 8, 4, MESSAGE.data);
    fn!.barWrite(1, 12, 4, 0);
    for (const queue of [0, 1]) expect(table.mapQueue(queue, 0)).toBe(0);
    expectAtWork();
  });

  afterEach(() => {
    for (const { machine } of [mmio, pci, bad]) {
      machine.close();
      machine.forgetQueues();
      expect(machine.line).toBe(false);
    }
    expect(bad.machine.memory.arena.available).toBe(bad.machine.free);
  });

  /** The neighbours answer, interrupt by what they were told, and have heard of nothing. */
  function expectAtWork(): void {
    for (const { machine, face } of [pci, mmio]) {
      machine.exercise();
      expect(face.log.filter((line) => line.startsWith("st"))).toEqual(["start ++"]);
      expect(machine.errors).toEqual([]);
      expect(machine.counters()).toMatchObject({
        starts: 1,
        strayKicks: 0,
        ignoredWrites: 0,
        needsReset: 0,
        queueResets: 0,
      });
    }
    expect(mmio.machine.line).toBe(true);
    expect(mmio.machine.door.acknowledge()).toBe(1);
    expect(pci.machine.line).toBe(false);
    const messages = pci.machine.messages.splice(0);
    expect(messages.length).toBeGreaterThan(0);
    expect(messages.every(({ address, data }) => address === MESSAGE.address && data === MESSAGE.data)).toBe(
      true,
    );
  }

  it.each(WRONG.filter(({ on }) => on === undefined || on === transport))(
    "that $what hurts nobody but itself",
    ({ does, harmless = false, needsReset = false }) => {
      does(bad);
      expectAtWork();
      if (needsReset) expect(bad.machine.door.status() & NEEDS_RESET).toBe(NEEDS_RESET);
      if (harmless) {
        expect(bad.machine.door.status()).toBe(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
        bad.machine.exercise();
      }
      bad.machine.fn?.configWrite(0x04, 2, 7); // whatever it wrote there: a driver that comes anew enables its device
      bad.machine.bringUp();
      bad.machine.exercise();
      bad.machine.door.acknowledge();
      expectAtWork();
    },
  );
});
