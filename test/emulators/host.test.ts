/** What is attached to an emulator of any kind: by the interface alone, with accesses made by hand. */
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { virtioEntropy } from "vbus/devices/virtio-rng";
import {
  attachVbusMmio,
  attachVbusPci,
  attachVirtioMmio,
  attachVirtioPci,
  type EmulatorHost,
  type RegisterBlock,
} from "vbus/emulators";
import { GuestMemory, MemorySpace } from "vbus/memory";
import { EventLoopScheduler } from "vbus/scheduler";
import { echoClass } from "../connectors/echo.js";
import { MmioDoor, PciDoor, type Door } from "../virtio/doors.js";
import { RegisterDriver } from "../virtio/driver.js";
import { SimulatedHost } from "./simulated-host.js";

let scheduler: EventLoopScheduler;
let errors: unknown[];
let attached: { close(): void }[];

beforeEach(() => {
  errors = [];
  attached = [];
  scheduler = new EventLoopScheduler((error) => errors.push(error));
});

afterEach(() => {
  for (const one of attached) one.close();
  expect(errors).toEqual([]);
});

const keep = <T extends { close(): void }>(one: T): T => {
  attached.push(one);
  return one;
};

/** A driver with memory from 0x10000 on, of a guest that is busy for a while before each kick when it says so. */
function driver(host: SimulatedHost, door: Door): RegisterDriver {
  const arena = { address: host.allocPrivate(1 << 20), size: 1 << 20 };
  host.privateBytes -= 1 << 20;
  const region = { gpa: 0x10000, length: 0x80000, address: (host.regions[0]?.address as number) + 0xf000 };
  const space = MemorySpace.attachSync(host.memory, arena, [region]);
  return new RegisterDriver(door, GuestMemory.over(space), 1, () => {
    host.between();
  });
}

/** The registers of a block, as `VirtioMmio` has them. */
function mmioDoor(host: SimulatedHost, block: RegisterBlock): MmioDoor {
  const registers = {
    read: (offset: number, width: 1 | 2 | 4) => host.access(() => block.read(offset, width)),
    write: (offset: number, width: 1 | 2 | 4, value: number) => {
      host.access(() => {
        block.write(offset, width, value);
      });
    },
  };
  return new MmioDoor(registers as unknown as ConstructorParameters<typeof MmioDoor>[0]);
}

const entropy = (): ReturnType<typeof virtioEntropy> => virtioEntropy();

describe("a virtio device", () => {
  it.each([
    ["interrupts in accesses are allowed", true],
    ["interrupts in accesses are forbidden", false],
  ])("behind registers works where %s", (_name, interruptsInAccesses) => {
    const host = new SimulatedHost({ interruptsInAccesses });
    const device = keep(
      attachVirtioMmio(host, { device: entropy(), scheduler, memoryAddress: 0x4000_0000, irq: 3 }),
    );
    const [block] = host.blocks as Set<RegisterBlock> & Iterable<RegisterBlock>;
    const guest = driver(host, mmioDoor(host, block as RegisterBlock));
    guest.bringUp();
    host.take();
    host.instructions += 1_000_000;
    host.idle = true;
    host.between();
    guest.exercise();
    expect(host.take(/line/)).toEqual(["line 3 up"]);
    guest.door.acknowledge();
    host.between();
    expect(host.take(/line/)).toEqual(["line 3 down"]);
    const { deferred, postponed, invalidated } = device.counters();
    expect(invalidated).toBeGreaterThan(0);
    if (interruptsInAccesses) expect([deferred, postponed]).toEqual([0, 0]);
    else expect(deferred + postponed).toBeGreaterThan(0);
    guest.forgetQueues();
  });

  it("is a PCI function where there is a bus, by lines when there is nobody to take messages", () => {
    const host = new SimulatedHost();
    const { function: fn } = keep(
      attachVirtioPci(host, { device: entropy(), scheduler, slot: 4, vectors: 2 }),
    );
    expect(fn.bars[1]).toBe(null); // no MSI-X
    const guest = driver(host, new PciDoor(host.pci(4)));
    host.pci(4).configWrite(4, 2, 7);
    guest.bringUp();
    guest.exercise();
    expect(host.take(/INTA/)).toEqual(["INTA of 4 up"]);
    expect(host.pci(4).configRead(6, 2) & 8).toBe(8);
    expect(guest.door.acknowledge()).toBe(1);
    expect(host.take(/INTA/)).toEqual(["INTA of 4 down"]);
    guest.forgetQueues();
  });

  it("sends messages where somebody takes them, and waits for the slice to end where it must", () => {
    for (const interruptsInAccesses of [true, false]) {
      const host = new SimulatedHost({ interruptsInAccesses, messages: true });
      const device = keep(
        attachVirtioPci(host, { device: entropy(), scheduler, slot: 4, msi: true, vectors: 0 }),
      );
      const pci = host.pci(4);
      let msi = pci.configRead(0x34, 1);
      while (pci.configRead(msi, 1) !== 5) msi = pci.configRead(msi + 1, 1);
      pci.configWrite(msi + 4, 4, 0xfee00000);
      pci.configWrite(msi + 8, 2, 77);
      pci.configWrite(msi + 2, 2, 1);
      pci.configWrite(4, 2, 7);
      const guest = driver(host, new PciDoor(pci));
      guest.bringUp();
      host.instructions += 1_000_000;
      host.idle = true;
      host.between();
      host.take();
      guest.exercise(3);
      expect(host.take(/request|deliver/)).toEqual([
        "request fee00000 77",
        interruptsInAccesses ? "deliver in port" : "deliver in hook",
      ]);
      pci.configWrite(msi + 4, 4, 0x1000);
      guest.exercise(1);
      expect(device.counters().impossible).toBe(1);
      guest.forgetQueues();
    }
  });
});

describe("what is attached to one host", () => {
  it("shares hooks and memory, and gives everything back with the last", () => {
    const host = new SimulatedHost();
    const first = attachVirtioMmio(host, { device: entropy(), memoryAddress: 0x4000_0000, irq: 3 });
    const second = attachVbusMmio(host, {
      devices: [{ name: "echo0", class: echoClass }],
      memoryAddress: 0x4000_1000,
      irq: 4,
    });
    const third = attachVbusPci(host, { devices: [{ name: "echo1", class: echoClass }], slot: 5 });
    expect(second.memory).toBe(first.memory);
    expect(third.scheduler).toBe(first.scheduler);
    expect(host.privateBytes).toBe(8 << 20);
    expect([host.blocks.size, host.lines.size, host.functions.size]).toEqual([2, 2, 1]);
    for (const one of [first, third, second]) {
      expect(host.hooks).not.toBe(null);
      one.close();
      one.close();
    }
    expect([host.blocks.size, host.lines.size, host.functions.size]).toEqual([0, 0, 0]);
    expect([host.privateBytes, host.hooks]).toEqual([0, null]);
  });

  it("leaves nothing behind when attaching fails", () => {
    const host = new SimulatedHost();
    host.mapRegisters = () => {
      throw new Error("no room");
    };
    expect(() => attachVirtioMmio(host, { device: entropy(), memoryAddress: 0, irq: 3 })).toThrow("no room");
    expect(() =>
      attachVbusMmio(host, { devices: [{ name: "e", class: echoClass }], memoryAddress: 0, irq: 3 }),
    ).toThrow("no room");
    host.addPciFunction = () => {
      throw new Error("no slot");
    };
    expect(() => attachVirtioPci(host, { device: entropy(), slot: 3 })).toThrow("no slot");
    expect(() => attachVbusPci(host, { devices: [], slot: 3 })).toThrow("no slot");
    expect([host.privateBytes, host.lines.size, host.hooks]).toEqual([0, 0, null]);
  });

  it("is told when its line throws after the slice, and all goes on", () => {
    const host = new SimulatedHost({ interruptsInAccesses: false });
    let ill = false;
    host.openLine = () => ({
      set: () => {
        if (ill) throw new Error("no such pin");
      },
      close: () => {},
    });
    const told: unknown[] = [];
    const device = attachVirtioMmio(host, {
      device: entropy(),
      scheduler,
      memoryAddress: 0x4000_0000,
      irq: 3,
      onError: (error) => told.push(error),
    });
    const [block] = host.blocks as Set<RegisterBlock> & Iterable<RegisterBlock>;
    const guest = driver(host, mmioDoor(host, block as RegisterBlock));
    guest.bringUp();
    host.instructions += 1_000_000;
    host.idle = true;
    host.between();
    guest.exercise();
    ill = true;
    guest.door.acknowledge();
    expect([device.counters().deferred, told]).toEqual([1, []]);
    host.between();
    expect(told).toMatchObject([{ code: "EIO", cause: new Error("no such pin") }]);
    ill = false;
    guest.exercise();
    guest.forgetQueues();
    device.close();
  });

  it("says what to do where there is no PCI, and when the options cannot be", () => {
    const host: EmulatorHost = Object.assign(new SimulatedHost(), { addPciFunction: undefined });
    expect(() => attachVbusPci(host, { devices: [], slot: 1 })).toThrow(
      /simulated has no PCI bus.*attachVbusMmio/,
    );
    expect(() => attachVirtioPci(host, { device: entropy(), slot: 32 })).toThrow(
      /PCI slot 32; there are 0 to 31/,
    );
    expect(() => attachVbusMmio(host, { memoryAddress: 0, irq: 1 })).toThrow(/either a bus or devices/);
  });

  it("goes on when memory is added, and refuses when memory moves", () => {
    const host = new SimulatedHost();
    const { memory } = keep(attachVbusMmio(host, { devices: [], memoryAddress: 0x4000_0000, irq: 3 }));
    const [ram] = host.regions;
    expect(() => memory.translate(0x200000, 4)).toThrow();
    host.regions = [
      { gpa: 0x200000, length: 0x1000, address: host.memory.grow(1) * 65536 },
      { ...(ram as (typeof host.regions)[0]), length: 0x180000 },
    ];
    host.hooks?.regionsChanged();
    expect(memory.translate(0x200000, 4)).toBe(host.regions[0]?.address);
    host.regions = [{ ...(host.regions[1] as (typeof host.regions)[0]), address: 65536 }];
    expect(() => host.hooks?.regionsChanged()).toThrow(/RAM at 0x200000 moved or went away/);
    expect(memory.translate(0x200000, 4)).toBeGreaterThan(0);
  });
});
