/** The register page in v86, reached as its guest would by instructions. */
import type { V86 } from "v86";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { Bus, Vbus } from "vbus/bus";
import { virtioEntropy } from "vbus/devices/virtio-rng";
import { attachVbus, attachVbusMmio, attachVirtioMmio, type V86VbusMmioHost } from "vbus/emulators/v86";
import { EventLoopScheduler } from "vbus/scheduler";
import { DEVADD, type BareGuest } from "../connectors/bare-guest.js";
import { ECHO_REVERSE, ECHO_TYPE, ECHO_VERSION } from "../connectors/echo.js";
import { PageDoor } from "../connectors/mmio-machine.js";
import { generator, seedOr } from "../engine/seed.js";
import { cpuOf, echoBus, GUEST_RAM, guestIn, Machines, type Cpu } from "./v86-machine.js";

const PAGE = 0xfea80000;
const NEIGHBOUR = 0xfea81000;
const IRQ = 5;
const FREE_IRQ = 7;

let machines: Machines;
let made: V86;
let cpu: Cpu;
let scheduler: EventLoopScheduler;
let vbus: Vbus;
let bus: Bus;
let errors: unknown[];
/** What the interrupt controller was told of our interrupt, in order. */
let told: string[];

beforeEach(async () => {
  errors = [];
  told = [];
  scheduler = new EventLoopScheduler((error) => errors.push(error));
  ({ vbus, bus } = echoBus(scheduler));
  machines = new Machines();
  made = machines.make();
  await machines.ready(made);
  cpu = cpuOf(made);
  for (const [name, word] of [
    ["device_raise_irq", "up"],
    ["device_lower_irq", "down"],
  ] as const) {
    const original = cpu[name].bind(cpu);
    cpu[name] = (irq) => {
      if (irq === IRQ) told.push(word);
      original(irq);
    };
  }
});

afterEach(async () => {
  vbus.close();
  await machines.close();
  expect(errors).toEqual([]);
});

/** A 32-bit access as v86 makes it for its guest. */
const door = (address = PAGE): PageDoor =>
  new PageDoor({
    read: (offset) => cpu.mmap_read32((address + offset) | 0) >>> 0,
    write: (offset, _width, value) => {
      cpu.mmap_write32((address + offset) | 0, value | 0);
    },
  });

const guestAt = (address = PAGE): BareGuest => guestIn(cpu, door(address));

const attach = (memoryAddress = PAGE, irq = IRQ): Promise<V86VbusMmioHost> =>
  attachVbusMmio(made, { bus, scheduler, memoryAddress, irq, onError: (error) => errors.push(error) });

/** The end of a slice: where v86 lets us raise interrupts. */
const between = (): number => cpu.run_hardware_timers(1, performance.now());

function bringUp(guest: BareGuest): void {
  expect(guest.negotiate().result).toBe(1);
  guest.makeEventQueue(16);
  expect(guest.qreg()).toBe(0);
}

describe("a register page in v86", () => {
  it("refuses addresses and interrupts that are not free, and buses that are no bus", async () => {
    for (const [options, message] of [
      [{ bus, scheduler, memoryAddress: 0xfea00000, irq: IRQ }, /multiple of 4 KiB from 0xfea40000/],
      [{ bus, scheduler, memoryAddress: PAGE + 4, irq: IRQ }, /multiple of 4 KiB/],
      [{ bus, scheduler, memoryAddress: 0xfeb00000, irq: IRQ }, /multiple of 4 KiB/],
      [{ bus, scheduler, memoryAddress: String(PAGE), irq: IRQ }, /at "4272422912"; give a number/],
      [{ bus, scheduler, irq: IRQ }, /registers at missing; give a number/],
      [{ bus, scheduler, memoryAddress: PAGE }, /irq is missing/],
      [{ bus, scheduler: {}, memoryAddress: PAGE, irq: IRQ }, /scheduler.post is missing/],
      [undefined, /options is missing/],
      [{ bus, scheduler, memoryAddress: PAGE, irq: 11 }, /5 and 7 are free/],
      [{ bus, scheduler, memoryAddress: PAGE, irq: 5.5 }, /5 and 7 are free/],
      [{ bus, memoryAddress: PAGE, irq: IRQ }, /scheduler/],
      [{ memoryAddress: PAGE, irq: IRQ }, /either a bus or devices/],
    ] as const)
      await expect(attachVbusMmio(made, options as never), String(message)).rejects.toThrow(message);
    const host = await attach();
    await expect(attach(PAGE, FREE_IRQ)).rejects.toMatchObject({ code: "EBUSY" });
    expect(bus.clients).toHaveLength(1); // nothing is left behind
    host.close();
    expect(bus.clients).toHaveLength(0);
    bus.expel("v86");
    await expect(attach()).rejects.toMatchObject({ code: "EPERM" });
  });

  it("serves a guest, and raises its interrupt between slices only, never within an access to memory", async () => {
    const host = await attach();
    const guest = guestAt();
    expect(cpu.mmap_read32(PAGE | 0)).toBe(0x73756276);
    bringUp(guest);
    expect(told).toEqual([]);
    between();
    expect(told).toEqual(["up"]);
    expect(cpu.mmap_read32((PAGE + 0x40) | 0)).toBe(1);
    cpu.mmap_write32((PAGE + 0x44) | 0, 1);
    expect(told).toEqual(["up"]); // the acknowledge is an access, too
    between();
    expect(told).toEqual(["up", "down"]);
    expect(guest.takeEvents().events).toEqual([{ id: DEVADD, value: 0n, type: ECHO_TYPE }]);
    const { channel, result } = guest.addChannel(0);
    expect(result).toBe(0);
    const { handle } = guest.open(0, ECHO_VERSION, channel);
    const data = guest.allocate(4);
    guest.setU32(data, 0x04030201);
    expect(guest.call(handle, ECHO_REVERSE, data, 4, 0, channel)).toBe(4);
    expect(guest.u32(data)).toBe(0x01020304);
    expect(host.counters()).toMatchObject({ fastcalls: 2, lines: 1, acknowledged: 1, ignored: 0 });
  });

  it("that acknowledges and gets another event within one slice sees an edge", async () => {
    await attach();
    const guest = guestAt();
    bringUp(guest);
    between();
    const host = guest.host as PageDoor;
    host.acknowledge();
    guest.takeEvents();
    bus.connect(vbus.createDevice("later", "echo"));
    between();
    expect(told).toEqual(["up", "down", "up"]);
  });

  it("is served for 64-bit writes, which v86 splits, and by no narrower ones", async () => {
    const host = await attach();
    const guest = guestAt();
    const gpa = guest.block(16);
    guest.setU32(gpa, 0xbf53eef5);
    guest.setU32(gpa + 4, 1);
    cpu.mmap_write64((PAGE + 0x10) | 0, gpa, 0);
    cpu.mmap_write64((PAGE + 0x18) | 0, 16, 0); // LEN, CALL: NEGOTIATE
    expect(cpu.mmap_read32((PAGE + 0x20) | 0)).toBe(1);
    const { calls, ignored } = host.counters();
    for (let byte = 0; byte < 4; byte++) cpu.mmap_write8((PAGE + 0x1c + byte) | 0, 0);
    cpu.mmap_write16((PAGE + 0x50) | 0, 1);
    expect(cpu.mmap_read8(PAGE | 0)).toBe(0);
    expect(host.counters()).toMatchObject({ calls, ignored: ignored + 7 });
    expect(cpu.mmap_read32((PAGE + 0x54) | 0)).toBe(1);
  });

  it("ends with its machine's reset, and with its host, and the page is free again", async () => {
    const host = await attach();
    const guest = guestAt();
    bringUp(guest);
    between();
    expect(told).toEqual(["up"]);
    cpu.reboot_internal();
    expect(cpu.mmap_read32((PAGE + 0x54) | 0)).toBe(0);
    between();
    expect(told.at(-1)).toBe("down");
    bringUp(guestAt());
    host.close();
    host.close();
    expect([cpu.mmap_read32(PAGE | 0), bus.clients.length]).toEqual([0, 0]);
    const again = await attach();
    const second = guestAt();
    bringUp(second);
    between();
    expect(second.takeEvents().events).toHaveLength(1);
    again.close();
  });

  it("lies beside a bridge on the PCI bus, on the same bus, and both hear of a new device", async () => {
    bus.admit("by PCI");
    const [page, pci] = await Promise.all([
      attach(),
      attachVbus(made, { bus, scheduler, member: "by PCI", slot: 0x10 }),
    ]);
    bringUp(guestAt());
    between();
    expect(bus.clients).toHaveLength(2);
    expect(page.memory).toBe(pci.memory);
    pci.close();
    expect(cpu.mmap_read32((PAGE + 0x54) | 0)).toBe(3);
    page.close();
  });
});

describe("garbage for a register page in v86", () => {
  it.each([1, 2, 3])(
    "does not reach its neighbour, whose registers and interrupt are its own (seed %i)",
    async (n) => {
      const seed = seedOr(97 * n);
      const random = generator(seed);
      await attach();
      const device = virtioEntropy();
      const neighbour = await attachVirtioMmio(made, {
        device,
        scheduler,
        memoryAddress: NEIGHBOUR,
        irq: FREE_IRQ,
      });
      const before = Array.from({ length: 128 }, (_, i) => cpu.mmap_read32((NEIGHBOUR + 4 * i) | 0));
      for (let step = 0; step < 20_000; step++) {
        const offset = random() % 4 === 0 ? random() % 0x1000 : (random() % 24) * 4;
        const address = (PAGE + offset) | 0;
        const value =
          [random(), random() & 3, GUEST_RAM + (random() & 0xffff8), 16, 24, 32][random() % 6]! | 0;
        switch (random() % 6) {
          case 0:
            cpu.mmap_write8(address, value & 0xff);
            break;
          case 1:
            cpu.mmap_write16((PAGE + (offset & ~1)) | 0, value & 0xffff);
            break;
          case 2:
            cpu.mmap_read8(address);
            break;
          case 3:
            cpu.mmap_read32((PAGE + (offset & ~3)) | 0);
            break;
          default:
            cpu.mmap_write32((PAGE + (offset & ~3)) | 0, value);
        }
        if (step % 100 === 0) between();
      }
      const after = Array.from({ length: 128 }, (_, i) => cpu.mmap_read32((NEIGHBOUR + 4 * i) | 0));
      expect(after, `seed ${seed}`).toEqual(before);
      expect(neighbour.counters()).toMatchObject({ lines: 0, kicks: 0 });
      door().reset();
      const guest = guestAt();
      bringUp(guest);
      between();
      expect(guest.takeEvents().events).toHaveLength(1);
      neighbour.close();
    },
  );
});
