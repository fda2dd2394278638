/** Machines of v86's without a guest, and what a guest would do in them by instructions. */
import { createRequire } from "node:module";
import { V86, type V86Options as EmulatorOptions } from "v86";
import { Vbus, type Bus } from "vbus/bus";
import type { GuestMemoryInit } from "vbus/memory";
import type { Scheduler } from "vbus/scheduler";
import { BareGuest, LP64, type BridgeDoor } from "../connectors/bare-guest.js";
import { echoClass } from "../connectors/echo.js";
import type { PciAccess, Width } from "../virtio/doors.js";

const { resolve } = createRequire(import.meta.url);

/** Accesses to ports. */
interface Ports {
  port_write8(port: number, value: number): void;
  port_write16(port: number, value: number): void;
  port_write32(port: number, value: number): void;
  port_read8(port: number): number;
  port_read16(port: number): number;
  port_read32(port: number): number;
}

/** What these tests touch of v86's machine. */
export interface Cpu {
  wasm_memory: WebAssembly.Memory;
  mem8: { byteOffset: number };
  instruction_counter: { byteOffset: number };
  io: Ports;
  wm: { exports: { v86_malloc(size: number): number } };
  mmap_read8(address: number): number;
  mmap_write8(address: number, value: number): void;
  mmap_write16(address: number, value: number): void;
  mmap_read32(address: number): number;
  mmap_write32(address: number, value: number): void;
  mmap_write64(address: number, low: number, high: number): void;
  read32s(address: number): number;
  run_hardware_timers(acpi: number, now: number): number;
  main_loop(): number;
  reboot_internal(): void;
  jit_dirty_cache(start: number, end: number): void;
  device_raise_irq(irq: number): void;
  device_lower_irq(irq: number): void;
  handle_irqs(): void;
  devices: { pci: { device_spaces: (Int32Array | undefined)[]; raise_irq(devfn: number): void } };
}

/** The machine of an emulator that is ready. */
export const cpuOf = (made: V86): Cpu => (made as unknown as { v86: { cpu: Cpu } }).v86.cpu;

/** The machines of a test. */
export class Machines {
  readonly #made = new Map<V86, Promise<void>>();

  /** Makes one; it exists a little later. */
  make(options: Partial<EmulatorOptions> = {}): V86 {
    const made = new V86({
      wasm_path: resolve("v86/build/v86.wasm"),
      memory_size: 16 << 20,
      vga_memory_size: 2 << 20,
      acpi: true,
      autostart: false,
      disable_keyboard: true,
      disable_mouse: true,
      disable_speaker: true,
      ...options,
    });
    this.#made.set(
      made,
      new Promise<void>((done) => {
        made.add_listener("emulator-ready", () => done());
      }),
    );
    return made;
  }

  /** Resolves when the machine exists. */
  ready(made: V86): Promise<void> {
    return this.#made.get(made) as Promise<void>;
  }

  /** Takes all of them apart. */
  async close(): Promise<void> {
    for (const [made, exists] of this.#made) {
      await exists;
      await made.destroy();
    }
    this.#made.clear();
  }
}

/** A bus with one test device, to which `v86` is admitted. */
export function echoBus(scheduler: Scheduler): { vbus: Vbus; bus: Bus } {
  const vbus = new Vbus({ scheduler });
  vbus.registerClass(echoClass);
  const bus = vbus.createBus("machine");
  bus.admit("v86");
  vbus.createDevice("echo0", "echo");
  bus.connect("echo0");
  return { vbus, bus };
}

/** First guest-physical address of what the tests use of guest RAM. */
export const GUEST_RAM = 0x200000;

/** A hand-written driver of the bridge, in 1 MiB of the machine's RAM. */
export function guestIn(cpu: Cpu, door: BridgeDoor): BareGuest {
  const init: GuestMemoryInit = {
    memory: cpu.wasm_memory,
    layout: {
      regions: [{ gpa: GUEST_RAM, length: 1 << 20, address: cpu.mem8.byteOffset + GUEST_RAM }],
      guestArena: { address: 0, size: 0 },
      hostArena: { address: 0, size: 0 },
      link: { address: 0, size: 0 },
    },
  };
  return new BareGuest(init, door, LP64);
}

/** A function as a driver finds it: by its slot. */
export class SlotAccess implements PciAccess {
  constructor(
    private readonly cpu: Cpu,
    private readonly slot: number,
  ) {}

  #select(offset: number): void {
    this.cpu.io.port_write32(0xcf8, 0x80000000 | (this.slot << 11) | (offset & 0xfc) | 0);
  }
  configRead(offset: number, width: Width): number {
    this.#select(offset);
    return this.#in(0xcfc + (offset & 3), width);
  }
  configWrite(offset: number, width: Width, value: number): void {
    this.#select(offset);
    this.#out(0xcfc + (offset & 3), width, value);
  }
  bar(index: number): number {
    return this.configRead(0x10 + 4 * index, 4) >>> 0;
  }
  barRead(index: number, offset: number, width: Width): number {
    const bar = this.bar(index);
    if ((bar & 1) === 1) return this.#in((bar & 0xfffc) + offset, width);
    const at = ((bar & ~15) + offset) | 0;
    if (width === 4) return this.cpu.mmap_read32(at) >>> 0;
    let value = 0;
    for (let i = 0; i < width; i++) value |= this.cpu.mmap_read8(at + i) << (8 * i);
    return value;
  }
  barWrite(index: number, offset: number, width: Width, value: number): void {
    const bar = this.bar(index);
    if ((bar & 1) === 1) {
      this.#out((bar & 0xfffc) + offset, width, value);
      return;
    }
    const at = ((bar & ~15) + offset) | 0;
    if (width === 4) this.cpu.mmap_write32(at, value | 0);
    else for (let i = 0; i < width; i++) this.cpu.mmap_write8(at + i, (value >>> (8 * i)) & 0xff);
  }
  #in(port: number, width: Width): number {
    const { io } = this.cpu;
    if (width === 1) return io.port_read8(port) & 0xff;
    return width === 2 ? io.port_read16(port) & 0xffff : io.port_read32(port) >>> 0;
  }
  #out(port: number, width: Width, value: number): void {
    const { io } = this.cpu;
    if (width === 1) io.port_write8(port, value & 0xff);
    else if (width === 2) io.port_write16(port, value & 0xffff);
    else io.port_write32(port, value | 0);
  }
}
