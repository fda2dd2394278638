/** Virtio functions in v86, without a guest: accesses as v86 makes them for its guest, by ports and memory. */
import type { V86 } from "v86";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { virtioEntropy, type VirtioEntropy } from "vbus/devices/virtio-rng";
import { attachVbus, attachVirtio, type V86VirtioHost, type V86VirtioOptions } from "vbus/emulators/v86";
import { GuestMemory, MemorySpace } from "vbus/memory";
import { EventLoopScheduler } from "vbus/scheduler";
import { generator, seedOr } from "../engine/seed.js";
import { capabilityOf, PciDoor, structuresOf } from "../virtio/doors.js";
import { RegisterDriver, VERSION_1 } from "../virtio/driver.js";
import { cpuOf, Machines, SlotAccess, type Cpu } from "./v86-machine.js";

let machines: Machines;
let scheduler: EventLoopScheduler;
let errors: unknown[];

/** A driver in the machine, with RAM of its own from `gpa` on. */
function driverOf(
  cpu: Cpu,
  slot: number,
  { gpa = 0x200000, acpi = true } = {},
): RegisterDriver & { access: SlotAccess } {
  const arena = { address: cpu.wm.exports.v86_malloc(1 << 20) >>> 0, size: 1 << 20 };
  const region = { gpa, length: 1 << 20, address: cpu.mem8.byteOffset + gpa };
  const space = MemorySpace.attachSync(cpu.wasm_memory, arena, [region]);
  const access = new SlotAccess(cpu, slot);
  const driver = new RegisterDriver(new PciDoor(access), GuestMemory.over(space), 1, () => {
    cpu.run_hardware_timers(acpi ? 1 : 0, performance.now());
  });
  return Object.assign(driver, { access });
}

/** Whether a vector is requested at the local APIC, as the guest reads it. */
const requested = (cpu: Cpu, vector: number): boolean =>
  ((cpu.read32s((0xfee00200 + 16 * (vector >>> 5)) | 0) >>> (vector & 31)) & 1) === 1;

let made: V86;
let cpu: Cpu;
const hosts: { close(): void }[] = [];

async function attach(
  options: Partial<V86VirtioOptions> = {},
): Promise<{ host: V86VirtioHost; device: VirtioEntropy }> {
  const device = virtioEntropy();
  const host = await attachVirtio(made, {
    device,
    scheduler,
    onError: (error) => errors.push(error),
    ...options,
  });
  cpu = cpuOf(made);
  hosts.push(host);
  return { host, device };
}

beforeEach(() => {
  machines = new Machines();
  errors = [];
  scheduler = new EventLoopScheduler((error) => errors.push(error));
  made = machines.make();
});

afterEach(async () => {
  for (const host of hosts.splice(0)) host.close();
  await machines.close();
  expect(errors).toEqual([]);
});

describe("attaching virtio devices to v86", () => {
  it("puts each into a free slot, with ports and memory of its own", async () => {
    const { host: first } = await attach();
    const { host: second } = await attach();
    expect([first.slot, second.slot]).toEqual([0x11, 0x13]); // 0x12 is the VGA's
    for (const { slot } of [first, second]) {
      const access = new SlotAccess(cpu, slot);
      expect(access.configRead(0, 4)).toBe(0x10441af4);
      expect([...structuresOf(access).keys()]).toEqual([1, 2, 3, 5]);
    }
    const bars = [first, second].flatMap(({ slot }) => {
      const access = new SlotAccess(cpu, slot);
      return [access.bar(0), access.bar(1)];
    });
    expect(new Set(bars).size).toBe(4);
  });

  it("refuses places that cannot be, or are taken, and leaves nothing behind", async () => {
    for (const [options, message] of [
      [{ slot: 32 }, /0 to 31/],
      [{ port: 0xd010 }, /multiple of 256/],
      [{ port: 0x300 }, /multiple of 256/],
      [{ memoryAddress: 0xfea00800 }, /4 KiB/],
      [{ memoryAddress: 0xfec00000 }, /4 KiB/],
      [{ vectors: 200 }, /0 to 128/],
    ] as const)
      await expect(attach(options), String(message)).rejects.toThrow(message);
    await attach({ slot: 0x14 });
    await expect(attach({ slot: 0x14 })).rejects.toMatchObject({ code: "EBUSY" });
    await expect(attach({ slot: 0x15, memoryAddress: 0xfea20000 + 0x14000 })).rejects.toMatchObject({
      code: "EBUSY",
    });
    expect(cpu.devices.pci.device_spaces[0x15 << 3]).toBeUndefined();
    const driver = driverOf(cpu, 0x14);
    driver.bringUp();
    driver.exercise();
  });

  it("has no MSI-X in a machine without a local APIC", async () => {
    made = machines.make({ acpi: false });
    const { host } = await attach();
    const access = new SlotAccess(cpu, host.slot);
    expect(capabilityOf(access, 0x11)).toBe(0);
    expect(access.bar(1)).toBe(0);
    const driver = driverOf(cpu, host.slot, { acpi: false });
    driver.bringUp();
    driver.exercise();
    expect(host.counters()).toMatchObject({ lines: 1, messages: 0 });
  });

  it("shares memory and hooks with a bridge, whichever comes and goes first", async () => {
    const bridge = await attachVbus(made, { devices: [], scheduler });
    const { host: first } = await attach();
    const { host: second } = await attach();
    expect(first.memory).toBe(bridge.memory);
    const free = bridge.memory.arena.available;
    const driver = driverOf(cpu, first.slot);
    driver.bringUp();
    driver.exercise();
    bridge.close();
    second.close();
    driver.exercise();
    first.close();
    expect(first.memory.arena.available).toBeGreaterThanOrEqual(free);
    const again = await attachVbus(made, { devices: [], scheduler, slot: 0x16 });
    expect(again.memory).not.toBe(first.memory);
    again.close();
  });

  it("runs the tasks of the scheduler that each device was made with", async () => {
    const own = new EventLoopScheduler((error) => errors.push(error));
    await attach();
    await attach({ scheduler: own });
    const ran: string[] = [];
    scheduler.post(() => ran.push("shared"));
    own.post(() => ran.push("own"));
    cpu.run_hardware_timers(1, performance.now());
    expect(ran).toEqual(["shared", "own"]);
  });
});

describe("a virtio function in v86", () => {
  let host: V86VirtioHost;
  let device: VirtioEntropy;
  let driver: ReturnType<typeof driverOf>;
  let access: SlotAccess;

  beforeEach(async () => {
    ({ host, device } = await attach());
    driver = driverOf(cpu, host.slot);
    ({ access } = driver);
  });

  const enableMsix = (vector: number): void => {
    access.barWrite(1, 16, 4, 0xfee00000);
    access.barWrite(1, 20, 4, 0);
    access.barWrite(1, 24, 4, vector);
    access.barWrite(1, 28, 4, 0);
    access.configWrite(capabilityOf(access, 0x11) + 2, 2, 0x8000);
  };

  it("works by port accesses alone", () => {
    driver.bringUp();
    for (let i = 0; i < 10; i++) driver.exercise(1 + i);
    expect(device.counters().requests).toBe(55);
  });

  it("sends MSI-X messages to the local APIC", () => {
    enableMsix(0x51);
    driver.negotiate(VERSION_1);
    driver.makeQueue(0);
    expect(PciDoor.of(driver.door).mapQueue(0, 1)).toBe(1);
    driver.driverOk();
    expect(requested(cpu, 0x51)).toBe(false);
    driver.exercise();
    expect(requested(cpu, 0x51)).toBe(true);
    expect(host.counters()).toMatchObject({ impossible: 0, lines: 0 });
  });

  it.each([
    ["to memory instead of the APIC", 0x1000, 0, 0x51],
    ["to an address above 4 GiB", 0xfee00000, 1, 0x51],
    ["for a vector that is the processor's own", 0xfee00000, 0, 0x0e],
    ["as a non-maskable interrupt", 0xfee00000, 0, 0x451],
  ])("sends no messages %s, and counts them", (_what, low, high, data) => {
    enableMsix(0x51);
    access.barWrite(1, 16, 4, low);
    access.barWrite(1, 20, 4, high);
    access.barWrite(1, 24, 4, data);
    driver.negotiate(VERSION_1);
    driver.makeQueue(0);
    PciDoor.of(driver.door).mapQueue(0, 1);
    driver.driverOk();
    driver.exercise();
    expect(requested(cpu, 0x51)).toBe(false);
    expect(host.counters().impossible).toBeGreaterThan(0);
  });

  it("keeps a message that unmasking a vector lets out until the slice is over: that is a memory access", () => {
    enableMsix(0x61);
    access.barWrite(1, 28, 4, 1); // masked
    driver.negotiate(VERSION_1);
    driver.makeQueue(0);
    PciDoor.of(driver.door).mapQueue(0, 1);
    driver.driverOk();
    driver.exercise();
    expect(requested(cpu, 0x61)).toBe(false);
    const looked: string[] = [];
    const original = cpu.handle_irqs.bind(cpu);
    cpu.handle_irqs = () => {
      looked.push("now");
      original();
    };
    access.barWrite(1, 28, 4, 0);
    expect(looked).toEqual([]);
    expect(host.counters().deferred).toBe(1);
    cpu.main_loop(); // v86 comes by
    expect(looked).not.toEqual([]);
  });

  it("serves a driver that kicks again and again at the end of the slice, and has it kick no more until then", () => {
    driver.bringUp(VERSION_1); // without event index a flag in the ring says so
    const queue = driver.queues.get(0)!;
    driver.offer(queue, 1, 0, "always");
    expect(driver.reap(queue)).toHaveLength(1); // after a pause: at once
    driver.offer(queue, 1, 0, "always");
    expect(driver.reap(queue)).toHaveLength(0);
    expect(host.counters().postponed).toBe(1);
    queue.chains.setChain(0, [], [{ gpa: queue.buffers, length: 8 }]);
    expect(queue.ring.add(queue.chains, 1)).toBe(false); // no kick wanted
    driver.settle();
    expect(driver.reap(queue)).toHaveLength(2);
    queue.chains.setChain(0, [], [{ gpa: queue.buffers, length: 8 }]);
    expect(queue.ring.add(queue.chains, 1)).toBe(true);
  });

  describe("serves a guest by the time that its slices take", () => {
    let now: number;

    /** Slices of the guest, 100,000 instructions each; it never idles. */
    const slices = (n: number, ms: number): void => {
      for (let i = 0; i < n; i++) {
        execute(100_000);
        now += ms;
        driver.settle();
      }
    };
    const execute = (instructions: number): void => {
      const words = new Uint32Array(cpu.wasm_memory.buffer);
      words[cpu.instruction_counter.byteOffset >>> 2]! += instructions;
    };
    /** Kicks once; whether that was answered by the time the access was over. */
    const atOnce = (): boolean => {
      const queue = driver.queues.get(0)!;
      driver.offer(queue, 1, 0, "always");
      return driver.reap(queue).length > 0;
    };
    const clear = (): void => {
      driver.settle();
      driver.reap(driver.queues.get(0)!);
    };

    beforeEach(() => {
      now = 1000;
      vi.spyOn(performance, "now").mockImplementation(() => now);
      driver.bringUp();
    });
    afterEach(() => {
      vi.restoreAllMocks();
    });

    it("at the end of a slice, while it is busy and slices are short", () => {
      slices(10, 1);
      expect(atOnce()).toBe(false);
      clear();
      execute(50_000);
      expect(atOnce(), "after a pause: it has more to say nonetheless").toBe(false);
    });

    it("at once, while slices take long: it polls, and kicks as soon as it has its answer", () => {
      slices(10, 60);
      for (let i = 0; i < 50; i++) {
        expect(atOnce(), `kick ${i}`).toBe(true);
        execute(3000);
        now += 2;
        if (i % 3 === 0) driver.settle(); // its slice, which the kick ended
      }
      expect(host.counters().postponed).toBe(0);
    });

    it("at the end of the slice again, once it has become fast", () => {
      slices(10, 60);
      expect(atOnce()).toBe(true);
      slices(8, 1);
      expect(atOnce()).toBe(false);
    });

    it("at once, when only some of its slices take long: a boot loader calls the firmware, and copies memory", () => {
      slices(10, 1);
      for (let i = 0; i < 10; i++) {
        slices(1, 60);
        slices(1, 1);
      }
      expect(atOnce()).toBe(true);
    });

    it("as before when one slice took long: the host had something else to do", () => {
      slices(10, 1);
      for (let i = 0; i < 10; i++) {
        slices(7, 1);
        slices(1, 100);
        expect(atOnce(), `round ${i}`).toBe(false);
        clear();
      }
    });

    it("as before when it idled for long, which says nothing of its speed", () => {
      slices(10, 1);
      for (let i = 0; i < 10; i++) {
        execute(500);
        now += 50;
        driver.settle();
      }
      expect(atOnce()).toBe(false);
    });
  });

  it("forgets kicks that were postponed when its machine is reset, and starts anew", () => {
    driver.bringUp();
    const queue = driver.queues.get(0)!;
    for (let i = 0; i < 3; i++) driver.offer(queue, 1, 0, "always");
    cpu.reboot_internal();
    driver.settle();
    expect(driver.door.status()).toBe(0);
    expect(access.configRead(0x04, 2)).toBe(0);
    driver.bringUp();
    driver.exercise();
  });

  it("keeps what no guest may change of its configuration space", () => {
    const readOnly = [0x00, 0x08, 0x2c, 0x34, 0x40, 0x44, 0x48, 0x4c];
    for (const offset of readOnly) {
      const before = access.configRead(offset, 4);
      access.configWrite(offset, 4, 0xffffffff);
      access.configWrite(offset, 1, 0x55);
      expect(access.configRead(offset, 4)).toBe(before);
    }
  });

  it("answers reads and writes through its access capability", () => {
    driver.bringUp();
    const { at } = structuresOf(access).get(5)!;
    access.configWrite(at + 4, 1, 0);
    access.configWrite(at + 8, 4, 0x14);
    access.configWrite(at + 12, 4, 1);
    expect(access.configRead(at + 16, 1)).toBe(0xf);
    expect(access.configRead(at + 16, 4) & 0xff).toBe(0xf);
    access.configWrite(at + 16, 1, 0); // a reset
    expect(host.function.device.status).toBe(0);
    expect(access.configRead(at + 16, 1)).toBe(0);
  });

  it("may have its ports moved, onto those that another one leaves later, too", async () => {
    const { host: second } = await attach();
    const other = new SlotAccess(cpu, second.slot);
    const [mine, yours] = [access.bar(0) & 0xfffc, other.bar(0) & 0xfffc];
    access.configWrite(0x10, 4, yours); // onto the other's
    other.configWrite(0x10, 4, mine); // which leaves now, and must not take them along
    driver.bringUp();
    driver.exercise();
    const neighbour = driverOf(cpu, second.slot, { gpa: 0x400000 });
    neighbour.bringUp();
    neighbour.exercise();
    driver.exercise();
  });

  it("lets go of its interrupt line alone, when another function shares it", async () => {
    const { host: second } = await attach({ slot: host.slot + 4 }); // the same line
    const neighbour = driverOf(cpu, second.slot, { gpa: 0x400000 });
    new SlotAccess(cpu, 1).configWrite(0x60, 4, 0x0b0a0b0a); // what firmware does: four lines, two interrupts
    driver.bringUp();
    neighbour.bringUp();
    const lowered: number[] = [];
    const lower = cpu.device_lower_irq.bind(cpu);
    cpu.device_lower_irq = (irq) => {
      if (irq === 10 || irq === 11) lowered.push(irq); // others are timers
      lower(irq);
    };
    driver.exercise();
    neighbour.exercise();
    expect(driver.door.acknowledge()).toBe(1);
    expect(lowered).toEqual([]); // the other one still wants it
    expect(neighbour.door.acknowledge()).toBe(1);
    expect(lowered).toHaveLength(1);
  });

  it("takes garbage in every register of every kind, and its neighbours notice nothing", async () => {
    const { host: second } = await attach();
    const neighbour = driverOf(cpu, second.slot, { gpa: 0x400000 });
    neighbour.bringUp();
    const seed = seedOr(86);
    const random = generator(seed);
    for (let step = 0; step < 6000; step++) {
      const width = ([1, 2, 4] as const)[random() % 3]!;
      const value = [random(), random() & 0xff, 0, 0xffffffff][random() % 4]!;
      const aligned = (limit: number): number => (random() % limit) & -width;
      const where = random() % 3;
      if (where === 0) {
        // where BARs lie is the guest's own business: it may lay them over each other
        const offset = aligned(256);
        if (offset + width <= 0x10 || offset >= 0x28) access.configWrite(offset, width, value);
      } else access.barWrite(where - 1, aligned(where === 1 ? 0x100 : 0x1000), width, value);
      access.barRead(random() % 2, aligned(0x100), width);
      if (step % 300 === 0) {
        neighbour.exercise();
        neighbour.door.acknowledge();
      }
    }
    errors.length = 0; // what its driver did wrong
    expect(second.counters()).toMatchObject({ needsReset: 0, resets: 1, starts: 1 });
    access.configWrite(capabilityOf(access, 0x11) + 2, 2, 0);
    access.configWrite(0x04, 2, 7);
    driver.bringUp();
    driver.exercise();
    neighbour.exercise();
  });

  it("answers harmlessly once it was closed", () => {
    driver.bringUp();
    const queue = driver.queues.get(0)!;
    host.close();
    host.close();
    driver.offer(queue, 1, 0, "always");
    cpu.run_hardware_timers(1, performance.now());
    cpu.main_loop();
    expect(driver.door.status()).toBe(0);
  });
});
