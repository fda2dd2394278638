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
import { EventLoopScheduler, VirtualScheduler } from "vbus/scheduler";
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

describe("what cannot be attached is refused with what to give instead, and before anything happens:", () => {
  /** A function of the package's, as a program in JavaScript may call it. */
  type Attach = (host?: unknown, options?: unknown) => { close(): void };
  const page = { memoryAddress: 0x4000_0000, irq: 3 };
  const bus = { devices: [] };
  const card = (): object => ({ device: entropy() });
  const mmio: [string, Attach, () => object][] = [
    ["attachVbusMmio", attachVbusMmio as Attach, () => ({ ...bus, ...page })],
    ["attachVirtioMmio", attachVirtioMmio as Attach, () => ({ ...card(), ...page })],
  ];
  const all: [string, Attach, () => object][] = [
    ...mmio,
    ["attachVbusPci", attachVbusPci as Attach, () => ({ ...bus, slot: 4 })],
    ["attachVirtioPci", attachVirtioPci as Attach, () => ({ ...card(), slot: 4 })],
  ];
  const refuses = (attach: Attach, host: unknown, options: unknown, message: RegExp): void => {
    let thrown: unknown;
    try {
      attach(host, options).close();
    } catch (error) {
      thrown = error;
    }
    expect(thrown, String(message)).toMatchObject({ code: "EINVAL" });
    expect((thrown as Error).message).toMatch(message);
    if (!(host instanceof SimulatedHost)) return;
    expect([host.privateBytes, host.lines.size, host.functions.size, host.hooks]).toEqual([0, 0, 0, null]);
    expect(host.log).toEqual([]);
  };

  it.each(mmio)("%s: addresses", (_name, attach, options) => {
    for (const [memoryAddress, message] of [
      [undefined, /registers at missing; give a number, a multiple of/],
      ["0x40000000", /registers at "0x40000000"; give a number/],
      [0x4000_0004, /registers at 0x40000004; give a number, a multiple of/],
      [-4096, /registers at -4096; give a number/],
      [NaN, /registers at NaN/],
      [0.5, /registers at 0.5/],
      [2 ** 53, /registers at 9007199254740992/],
      [0x1000, /0x1000 would lie in RAM, which is from 0x1000 to 0x100fff; give an address outside/],
      [0x100000, /would lie in RAM/],
    ] as const)
      refuses(attach, new SimulatedHost(), { ...options(), memoryAddress }, message);
    refuses(attach, new SimulatedHost(), { ...options(), irq: undefined }, /irq is missing; give the number/);
    // the first address that is RAM's no more, and one that only guests of 64 bits have: the emulator decides
    for (const memoryAddress of [0, 0x101000, 2 ** 40])
      attach(new SimulatedHost(), { ...options(), memoryAddress }).close();
  });

  it.each(all)("%s: options", (_name, attach, options) => {
    const promise = Promise.resolve();
    for (const [what, message] of [
      [undefined, /options is missing; give an object with what to attach/],
      [{ ...options(), scheduler: {} }, /scheduler.post is missing; give the EventLoopScheduler/],
      [
        { ...options(), scheduler: EventLoopScheduler },
        /scheduler is a function; give the EventLoopScheduler/,
      ],
      [
        { ...options(), scheduler: new VirtualScheduler() },
        /scheduler.runPending is missing; give the Event/,
      ],
      [{ ...options(), arenaSize: "8M" }, /arenaSize is "8M"; give a number of bytes/],
      [{ ...options(), onError: true }, /onError is true; give a function/],
    ] as const)
      refuses(attach, new SimulatedHost(), what, message);
    if ("devices" in options())
      for (const [what, message] of [
        [{ devices: { name: "e", class: echoClass } }, /devices is an Object; give an array/],
        [
          { devices: [{ class: echoClass }] },
          /devices\[0\].name is missing; give an array of \{ name, class/,
        ],
        [{ devices: [{ name: "e" }] }, /devices\[0\].class is missing/],
        [{ devices: undefined, bus: promise, scheduler }, /bus.openClient is missing; give what createBus/],
      ] as const)
        refuses(attach, new SimulatedHost(), { ...options(), ...what }, message);
    else
      for (const [device, message] of [
        [undefined, /device is missing; give a VirtioFace, such as virtioNet/],
        [promise, /device.name is missing; give a VirtioFace/],
        [echoClass, /device.deviceType is missing; give a VirtioFace/],
      ] as const)
        refuses(attach, new SimulatedHost(), { ...options(), device }, message);
  });

  it.each(all)("%s: hosts", (_name, attach, options) => {
    refuses(attach, undefined, options(), /the host is missing; give an EmulatorHost/);
    refuses(attach, {}, options(), /the host.name is missing; give an EmulatorHost/);
    for (const [members, message] of [
      [{ memory: new ArrayBuffer(65536) }, /memory is an ArrayBuffer; give the WebAssembly.Memory/],
      [{ regions: undefined }, /the host.regions is missing/],
      [{ regions: {} }, /regions is an Object; give an array of \{ gpa, length, address \}/],
      [{ regions: [] }, /regions are empty; give an array of \{ gpa, length, address \}/],
      [{ regions: [{ gpa: 0, size: 65536, address: 65536 }] }, /regions\[0\].length is missing/],
      [{ interruptsIn: undefined }, /the host.interruptsIn is missing/],
      [{ interruptsIn: { memory: true } }, /interruptsIn.port is missing; say for accesses/],
      [{ hook: undefined }, /the host.hook is missing/],
      [{ onHostWrite: true }, /the host's onHostWrite is true/],
      [{ messages: {} }, /messages.request is missing/],
      [{ configAccesses: "ecam" }, /configAccesses is "ecam"; give "port" or "memory"/],
    ] as const)
      refuses(attach, Object.assign(new SimulatedHost(), members), options(), message);
  });

  it.each(mmio)("%s: hosts that keep what they should return", (_name, attach, options) => {
    for (const [members, message] of [
      [{ openLine: () => undefined }, /openLine returned is missing; return \{ set, close \}/],
      [{ hook: () => undefined }, /hook returned is missing; return a function that takes the hooks out/],
      [{ mapRegisters: () => undefined }, /mapRegisters returned is missing; return \{ unmap \}/],
    ] as const) {
      const host: SimulatedHost = Object.assign(new SimulatedHost(), members as object);
      expect(() => attach(host, options())).toThrow(message);
      expect([host.privateBytes, host.lines.size, host.hooks]).toEqual([0, 0, null]);
    }
  });
});
