import { VbusError } from "../../errors.js";
import { checkShape } from "../validation.js";
import { PCI_MEMBERS, PORT_MEMBERS, V86PciBus, type Pci, type Ports } from "./pci-internals.js";

/*
 * What this package knows of v86's internals, with pci-internals.ts. v86 has no interface for devices from outside; what is
 * used here was found to work in the release named below, whose property names survive minification, and is checked when it
 * is attached. Another release may have moved things: then the check says so, and nothing is touched.
 *
 * v86 hands control to JavaScript in three places, and they differ in what may be done there:
 *
 *     port access     ends a block of translated code: interrupts may be raised
 *     memory access   does not: the guest's registers are in wasm locals, so raising an interrupt corrupts the guest.
 *                     It is kept for later, and the slice is ended, so that later is soon
 *     timer hook      between two slices: interrupts may be raised
 *
 * and besides, tasks of the event loop run while the guest does not.
 */

/** The release of v86 that this adapter was tested with. */
export const V86_VERSION = "0.5.462";

interface VirtQueue {
  is_configured(): boolean;
  count_requests(): number;
}

interface Cpu {
  io: Ports | undefined;
  devices: { pci: Pci; virtio_net?: { virtio: { queues: VirtQueue[] } } };
  wasm_memory: WebAssembly.Memory;
  mem8: { byteOffset: number };
  memory_size: ArrayLike<number>;
  acpi_enabled: ArrayLike<number>;
  instruction_counter: { byteOffset: number };
  in_hlt: { byteOffset: number };
  wm: { exports: Record<string, unknown> };
  read32s(address: number): number;
  jit_dirty_cache(start: number, end: number): void;
  handle_irqs(): void;
  get_apic_addr(): number;
  device_raise_irq(irq: number): void;
  device_lower_irq(irq: number): void;
  run_hardware_timers(acpi: number, now: number): number;
  main_loop(): number;
  reboot_internal(): void;
}

/** One direction of v86's bus of named messages. */
export interface V86Bus {
  register(name: string, listener: (message: never) => void, receiver: object): void;
  unregister(name: string, listener: (message: never) => void): void;
  send(name: string, message?: unknown): void;
}

/** An instance of v86's `V86` class, as far as this package uses it. Give it the real one. */
export interface V86Emulator {
  add_listener(event: "emulator-ready", listener: () => void): void;
  remove_listener(event: "emulator-ready", listener: () => void): void;
}

interface Emulator extends V86Emulator {
  v86?: { cpu: Cpu; running: boolean; save_state(): ArrayBuffer; restore_state(state: ArrayBuffer): void };
  is_running(): boolean;
  run(): Promise<void>;
  stop(): Promise<void>;
  bus: V86Bus;
  emulator_bus: V86Bus;
}

const CPU_MEMBERS = [
  "wasm_memory",
  "mem8",
  "memory_size",
  "acpi_enabled",
  "instruction_counter",
  "in_hlt",
  "read32s",
  "jit_dirty_cache",
  "handle_irqs",
  "get_apic_addr",
  "device_raise_irq",
  "device_lower_irq",
  "run_hardware_timers",
  "main_loop",
  "reboot_internal",
] as const;

/** Where VGA memory hides RAM from the guest. */
const HOLE_START = 0xa0000;
const HOLE_END = 0xc0000;
/** Ports of the ACPI hot-plug registers that v86 lacks. */
const HOTPLUG_PORTS = 0xae00;
const HOTPLUG_PORTS_END = 0xae14;
/** Longest that v86 runs translated code before it looks for interrupts, in instructions. */
const SLICE_INSTRUCTIONS = 100_003;
/** Words of v86's local APIC. */
const APIC_WORDS = 46;
const APIC_IRR = 16;
const APIC_TMR = 32;
/** First vector that may be requested. */
const FIRST_VECTOR = 16;
/** A vector that no system uses for a device, for the check of the layout. */
const SPARE_VECTOR = 0x6f;
function mismatch(what: string): VbusError {
  return new VbusError(
    "EOPNOTSUPP",
    `this v86 is built differently (${what}); vbus works with v86 ${V86_VERSION}, install exactly that`,
  );
}

function requireMembers(object: object, name: string, members: readonly string[]): void {
  const missing = members.find((member) => !(member in object));
  if (missing !== undefined) throw mismatch(`${name}.${missing} is missing`);
}

/** What runs when, of {@link V86Internals.hook}. */
export interface V86Hooks {
  /** The guest is about to run, after tasks of the event loop. */
  enter(): void;
  /** Between two slices of a running guest, and while it idles. */
  between(): void;
  /** The machine was reset. */
  reset(): void;
}

/** @throws VbusError EINVAL for what is no emulator at all */
function checkEmulator(emulator: V86Emulator): void {
  const shape = { add_listener: "function", remove_listener: "function" } as const;
  checkShape("the emulator", emulator, shape, "give the object that new V86(…) made");
}

/**
 * Calls `ready` as soon as the machine exists: now, or in v86's `emulator-ready`, before a saved state is applied.
 * @throws VbusError EINVAL for what is no emulator at all
 */
export function whenReady(emulator: V86Emulator, ready: () => void): void {
  checkEmulator(emulator);
  if ((emulator as Emulator).v86?.cpu.io !== undefined) {
    ready();
    return;
  }
  const listener = (): void => {
    emulator.remove_listener("emulator-ready", listener);
    ready();
  };
  emulator.add_listener("emulator-ready", listener);
}

/**
 * v86's two ends of its network: `devices` is where its machine's devices listen and speak, `host` where its network
 * back ends and the page do. @throws VbusError EINVAL for what is no emulator at all; EOPNOTSUPP for another layout
 */
export function networkBuses(emulator: V86Emulator): { devices: V86Bus; host: V86Bus } {
  checkEmulator(emulator);
  const { bus, emulator_bus } = emulator as Partial<Emulator>;
  for (const [name, end] of [
    ["bus", bus],
    ["emulator_bus", emulator_bus],
  ] as const) {
    if (end === undefined) throw mismatch(`${name} is missing`);
    requireMembers(end, name, ["register", "unregister", "send"]);
  }
  return { devices: (emulator as Emulator).emulator_bus, host: (emulator as Emulator).bus };
}

/**
 * How many frames v86's own virtio-net takes at this moment: it loses those that find no buffer, and counts them nowhere.
 * 0 until the guest has set it up. Infinity when the machine has another NIC, which does not tell.
 */
export function receiveBuffers(emulator: V86Emulator): number {
  const queue = (emulator as Partial<Emulator>).v86?.cpu.devices.virtio_net?.virtio.queues[0];
  if (queue === undefined) return Infinity;
  return queue.is_configured() ? queue.count_requests() : 0;
}

/** A function that tells how many instructions the guest has executed, modulo 2^32. */
export function instructionClock(emulator: V86Emulator): () => number {
  let words = new Uint32Array(0);
  return () => {
    const cpu = (emulator as Partial<Emulator>).v86?.cpu;
    if (cpu?.wasm_memory === undefined) return 0; // not there yet
    if (words.buffer !== cpu.wasm_memory.buffer) words = new Uint32Array(cpu.wasm_memory.buffer);
    return words[cpu.instruction_counter.byteOffset >>> 2] as number;
  };
}

/** Stopping, saving and restoring an emulator, as far as v86 itself goes. */
export interface V86State {
  /** The guest runs. */
  readonly running: boolean;
  /** Lets it run. */
  run(): Promise<void>;
  /** Stops it. */
  stop(): Promise<void>;
  /** Its state. */
  save(): ArrayBuffer;
  /** Puts it back; v86 throws what it cannot use. */
  restore(state: ArrayBuffer): void;
}

/** @throws VbusError EOPNOTSUPP for another layout */
export function stateOf(emulator: V86Emulator): V86State {
  const { v86 } = emulator as Partial<Emulator>;
  if (v86 === undefined) throw mismatch("v86 is missing");
  requireMembers(v86, "v86", ["save_state", "restore_state"]);
  requireMembers(emulator, "emulator", ["is_running", "run", "stop"]);
  const made = emulator as Emulator;
  return {
    get running() {
      return made.is_running();
    },
    run: () => made.run(),
    stop: () => made.stop(),
    save: () => v86.save_state(),
    restore: (state) => {
      v86.restore_state(state);
    },
  };
}

/** A machine of v86's, from the inside. Used by the thread it runs on. */
export class V86Internals {
  /** Guest-physical RAM in bytes. */
  readonly ramSize: number;
  /** Where guest-physical 0 lies in the memory; constant for the life of the machine. */
  readonly ramAddress: number;
  /** True when there is a local APIC, which messages need. */
  readonly hasApic: boolean;
  readonly #cpu: Cpu;
  readonly #io: Ports;
  /** PCI functions. */
  readonly pci: V86PciBus;
  readonly #counterIndex: number;
  readonly #haltedAddress: number;
  #apic = new Uint32Array(0);
  #counter = new Uint32Array(0);
  #halted = new Uint8Array(0);
  #undo: (() => void)[] = [];

  /** @throws VbusError EOPNOTSUPP when this is no v86, or one of another layout; ENOTCONN before it is ready */
  constructor(emulator: V86Emulator) {
    const cpu = (emulator as Partial<Emulator>).v86?.cpu;
    if (cpu === undefined) throw mismatch("v86.cpu is missing");
    requireMembers(cpu, "cpu", CPU_MEMBERS);
    if (cpu.io === undefined)
      throw new VbusError("ENOTCONN", "this machine does not exist yet; wait for emulator-ready");
    requireMembers(cpu.io, "cpu.io", PORT_MEMBERS);
    requireMembers(cpu.devices, "cpu.devices", ["pci"]);
    requireMembers(cpu.devices.pci, "cpu.devices.pci", PCI_MEMBERS);
    requireMembers(cpu.wm.exports, "cpu.wm.exports", ["v86_malloc", "v86_free"]);
    this.#cpu = cpu;
    this.#io = cpu.io;
    this.pci = new V86PciBus(cpu.io, cpu.devices.pci, this.#replace);
    this.ramSize = (cpu.memory_size[0] ?? 0) >>> 0;
    this.ramAddress = cpu.mem8.byteOffset;
    if (
      !(cpu.wasm_memory instanceof WebAssembly.Memory) ||
      !(this.ramAddress > 0) ||
      this.ramSize < HOLE_END ||
      this.ramAddress + this.ramSize > cpu.wasm_memory.buffer.byteLength
    ) {
      throw mismatch("its memory is not where it used to be");
    }
    this.#counterIndex = cpu.instruction_counter.byteOffset >>> 2;
    this.#haltedAddress = cpu.in_hlt.byteOffset;
    this.hasApic = cpu.acpi_enabled[0] === 1;
    if (this.hasApic) this.#checkApic();
  }

  /** v86's memory: not shared, grows at any time, guest RAM in the middle of it. */
  get memory(): WebAssembly.Memory {
    return this.#cpu.wasm_memory;
  }

  /** RAM as regions: all of it but what VGA memory hides. */
  get regions(): { gpa: number; length: number; address: number }[] {
    return [
      { gpa: 0, length: HOLE_START, address: this.ramAddress },
      { gpa: HOLE_END, length: this.ramSize - HOLE_END, address: this.ramAddress + HOLE_END },
    ];
  }

  /**
   * Memory of v86's own allocator, out of the guest's reach. May grow the memory.
   * @throws VbusError ENOMEM
   */
  allocatePrivate(size: number): number {
    const allocate = this.#cpu.wm.exports.v86_malloc as (size: number) => number;
    let address: number;
    try {
      address = allocate(size) >>> 0;
    } catch (cause) {
      throw new VbusError("ENOMEM", `v86 has no ${size} bytes left`, { cause });
    }
    if (address === 0) throw new VbusError("ENOMEM", `v86 has no ${size} bytes left`);
    return address;
  }

  /** Gives it back. */
  freePrivate(address: number, size: number): void {
    (this.#cpu.wm.exports.v86_free as (address: number, size: number) => void)(address, size);
  }

  /** Tells v86 that guest RAM was written: code that it translated from there is stale. */
  written(gpa: number, length: number): void {
    this.#cpu.jit_dirty_cache(gpa, gpa + length);
  }

  readonly #replace = <K extends string, F>(object: Record<K, F>, name: K, replacement: F): void => {
    const original = object[name];
    const own = Object.hasOwn(object, name);
    object[name] = replacement;
    this.#undo.push(() => {
      if (object[name] !== replacement) return; // somebody wrapped it again: leave the chain alone
      if (own) object[name] = original;
      else Reflect.deleteProperty(object, name);
    });
  };

  /** Runs `hooks` at the places where v86 hands over control. */
  hook(hooks: V86Hooks): void {
    this.pci.cure();
    const cpu = this.#cpu;
    const timers = cpu.run_hardware_timers.bind(cpu);
    const mainLoop = cpu.main_loop.bind(cpu);
    const reboot = cpu.reboot_internal.bind(cpu);
    this.#replace<"run_hardware_timers", Cpu["run_hardware_timers"]>(
      cpu,
      "run_hardware_timers",
      (acpi, now) => {
        const wait = timers(acpi, now);
        hooks.between();
        return wait;
      },
    );
    this.#replace<"main_loop", Cpu["main_loop"]>(cpu, "main_loop", () => {
      hooks.enter();
      return mainLoop();
    });
    this.#replace<"reboot_internal", Cpu["reboot_internal"]>(cpu, "reboot_internal", () => {
      reboot();
      hooks.reset();
    });
  }

  /** Takes all hooks out. Handlers of ports and memory stay: v86 cannot remove them. */
  unhook(): void {
    for (const undo of this.#undo.reverse()) undo();
    this.#undo = [];
  }

  /**
   * With ACPI on, v86's missing hot-plug registers read as ones, and Linux removes every PCI device from slot 2 up. This
   * makes them read as zeros.
   */
  cureAcpiHotplug(): void {
    if (!this.hasApic) return;
    const zero = (): number => 0;
    for (let port = HOTPLUG_PORTS; port < HOTPLUG_PORTS_END; port += 4)
      this.#io.register_read(port, {}, zero, zero, zero);
  }

  /**
   * Sets the request bit of a vector in the local APIC. Allowed anywhere; the guest sees it when v86 looks. False when
   * there is no APIC, or no such vector: the first 16 belong to the processor.
   */
  request(vector: number): boolean {
    if (!this.hasApic || vector < FIRST_VECTOR || vector > 0xff) return false;
    const apic = this.#apicWords();
    const word = (vector >>> 5) & 7;
    const bit = 1 << (vector & 31);
    apic[APIC_IRR + word] = (apic[APIC_IRR + word] as number) | bit;
    apic[APIC_TMR + word] = (apic[APIC_TMR + word] as number) & ~bit; // an edge
    return true;
  }

  /** Lets v86 look for interrupts. Never from within a memory access. */
  deliver(): void {
    this.#cpu.handle_irqs();
  }

  /** Ends the slice that runs at this moment, so that v86 looks for interrupts soon: for memory accesses. */
  endSlice(): void {
    const words = this.#counterWords();
    const at = this.#counterIndex;
    words[at] = (words[at] as number) + SLICE_INSTRUCTIONS;
  }

  /** How many instructions the guest has executed, modulo 2^32. */
  get instructions(): number {
    return this.#counterWords()[this.#counterIndex] as number;
  }

  /** True while the guest waits for an interrupt. */
  get halted(): boolean {
    const { buffer } = this.#cpu.wasm_memory;
    if (this.#halted.buffer !== buffer) this.#halted = new Uint8Array(buffer);
    return this.#halted[this.#haltedAddress] === 1;
  }

  #counterWords(): Uint32Array {
    const { buffer } = this.#cpu.wasm_memory;
    if (this.#counter.buffer !== buffer) this.#counter = new Uint32Array(buffer);
    return this.#counter;
  }

  /** Sets the level of one of the 16 interrupts of old, past the PCI bus. Never from within a memory access. */
  setIrq(irq: number, asserted: boolean): void {
    if (asserted) this.#cpu.device_raise_irq(irq);
    else this.#cpu.device_lower_irq(irq);
  }

  #apicWords(): Uint32Array {
    const { buffer } = this.#cpu.wasm_memory;
    if (this.#apic.buffer !== buffer)
      this.#apic = new Uint32Array(buffer, this.#cpu.get_apic_addr(), APIC_WORDS);
    return this.#apic;
  }

  /** Toggles bits of a spare vector, and looks at them the way the guest does. */
  #checkApic(): void {
    const word = SPARE_VECTOR >>> 5;
    const bit = 1 << (SPARE_VECTOR & 31);
    for (const [index, register] of [
      [APIC_IRR, 0xfee00200],
      [APIC_TMR, 0xfee00180],
    ] as const) {
      const apic = this.#apicWords();
      const before = apic[index + word] as number;
      for (const value of [(before | bit) >>> 0, (before & ~bit) >>> 0]) {
        this.#apicWords()[index + word] = value;
        const seen = this.#cpu.read32s((register + word * 16) | 0) >>> 0;
        if (seen !== value) {
          this.#apicWords()[index + word] = before;
          throw mismatch("its local APIC has another layout");
        }
      }
      this.#apicWords()[index + word] = before;
    }
  }
}
