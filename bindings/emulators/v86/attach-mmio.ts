import { VBUS_MMIO_SIZE } from "../../../assembly/abi/vbus-mmio.js";
import type { Bus } from "../../bus/bus.js";
import type { Vbus } from "../../bus/vbus.js";
import { VbusMmio, type VbusMmioCounters } from "../../connectors/mmio/registers.js";
import { VbusError } from "../../errors.js";
import type { MemorySpace } from "../../memory/space.js";
import type { EventLoopScheduler } from "../../scheduler.js";
import { busFor, type V86Device } from "./attach.js";
import { V86Doorbells } from "./doorbells.js";
import type { V86Emulator } from "./internals.js";
import { V86Interrupts, type V86InterruptCounters } from "./interrupts.js";
import { V86Machine, type V86MachineOptions, type V86Part } from "./machine.js";

const PAGE = 0x1000;
const MEMORY_START = 0xfea40000;
const MEMORY_END = 0xfeb00000;
/** Interrupts that v86's own devices or the processor have; 10 and 11 are where PCI lines end. */
const TAKEN_IRQS = [0, 1, 2, 6, 8, 9, 10, 11, 12, 13, 14, 15];

/** How to put a bus in front of a guest of v86's without PCI. Give either a bus, or devices to make one of. */
export interface V86VbusMmioOptions extends V86MachineOptions {
  /** A bus of yours. */
  readonly bus?: Bus;
  /** Member of it that the guest acts as; the bus must have admitted it. Default `v86`. */
  readonly member?: string;
  /** Devices for a bus of the guest's own. */
  readonly devices?: readonly V86Device[];
  /** Name of the client in the bus tree. */
  readonly label?: string;
  /** Where the register page lies: from 0xfea40000 to 0xfeaff000. */
  readonly memoryAddress: number;
  /** Its interrupt: 5 and 7 are free in every v86, 3 and 4 are where there is no such serial port. */
  readonly irq: number;
}

/** What the adapter counted. */
export interface V86VbusMmioCounters extends VbusMmioCounters, V86InterruptCounters {
  /** Doorbells of signals that were served when the current slice of the guest was over, several of one signal as one. */
  postponed: number;
  /** Ranges of guest memory that v86 was told to look at for stale translated code: of the machine. */
  invalidated: number;
}

/** A bus in front of a guest of v86's. Made by {@link attachVbusMmio}; everything of it runs in v86's thread. */
export class V86VbusMmioHost {
  /** The bus that the guest sees. */
  readonly bus: Bus;
  /** The bus system that was made for `devices`; null when the bus is yours. */
  readonly vbus: Vbus | null;
  /** The scheduler that everything of this bridge runs on. */
  readonly scheduler: EventLoopScheduler;
  /** The guest's memory. */
  readonly memory: MemorySpace;
  /** The register page. */
  readonly registers: VbusMmio;
  readonly #machine: V86Machine;
  readonly #interrupts: V86Interrupts;
  readonly #doorbells: V86Doorbells;
  readonly #part: V86Part;
  #closed = false;

  /** @internal Use {@link attachVbusMmio}. */
  constructor(machine: V86Machine, options: V86VbusMmioOptions) {
    const { memoryAddress, irq, member = "v86", label, onError, scheduler = machine.scheduler } = options;
    this.#machine = machine;
    this.scheduler = scheduler;
    this.memory = machine.memory;
    this.#interrupts = new V86Interrupts(
      machine,
      (asserted) => {
        machine.internals.setIrq(irq, asserted);
      },
      () => undefined, // the status is a register of the page
    );
    let vbus: Vbus | null = null;
    let registers: VbusMmio | null = null;
    try {
      ({ vbus, bus: this.bus } = busFor(options, scheduler));
      this.vbus = vbus;
      this.registers = registers = new VbusMmio({
        bus: this.bus,
        member,
        label,
        memory: machine.memory,
        scheduler,
        interrupt: (asserted) => {
          this.#interrupts.setLine(asserted);
        },
        onError,
      });
      const { line } = registers;
      this.#doorbells = new V86Doorbells(
        machine,
        (handle) => {
          line.serveSignal(handle);
        },
        () => undefined, // ringing marks a signal as being served: the guest rings it no more
      );
      line.onSignal = (handle) => {
        this.#doorbells.ring(handle);
      };
      machine.internals.pci.mapMemory({
        kind: "memory",
        size: VBUS_MMIO_SIZE,
        address: memoryAddress,
        read: (offset, width) => machine.in("memory", () => this.registers.read(offset, width)),
        write: (offset, width, value) => {
          machine.in("memory", () => {
            this.registers.write(offset, width, value);
          });
        },
      });
    } catch (error) {
      registers?.close();
      vbus?.close();
      throw error;
    }
    this.#part = {
      catchUp: () => {
        this.#interrupts.catchUp();
      },
      serve: () => {
        this.#doorbells.serve();
      },
      reset: () => {
        this.#doorbells.clear();
        this.registers.machineReset();
      },
    };
    machine.join(this.#part, scheduler);
  }

  /** What was counted so far. */
  counters(): V86VbusMmioCounters {
    return {
      ...this.registers.counters(),
      ...this.#interrupts.counters(),
      postponed: this.#doorbells.postponed,
      invalidated: this.#machine.invalidated,
    };
  }

  /**
   * Takes the bus away from the guest: every session ends, its calls fail with -ENOTCONN from then on. The bus lives on
   * when it is yours. Twice is harmless.
   */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.registers.close();
    this.vbus?.close();
    this.#doorbells.clear();
    this.#machine.leave(this.#part, this.scheduler);
    this.#machine.release();
  }
}

function check({ memoryAddress, irq, bus, devices, scheduler }: V86VbusMmioOptions): void {
  if ((bus === undefined) === (devices === undefined))
    throw new VbusError("EINVAL", "give attachVbusMmio either a bus or devices to make one of");
  if (bus !== undefined && scheduler === undefined)
    throw new VbusError("EINVAL", "give attachVbusMmio the scheduler that the bus was made with, too");
  if (!(memoryAddress >= MEMORY_START && memoryAddress < MEMORY_END && memoryAddress % PAGE === 0))
    throw new VbusError(
      "EINVAL",
      `registers at 0x${memoryAddress.toString(16)}; give a multiple of 4 KiB from 0xfea40000 to 0xfeaff000`,
    );
  if (!(Number.isInteger(irq) && irq >= 0 && irq < 16) || TAKEN_IRQS.includes(irq))
    throw new VbusError("EINVAL", `interrupt ${irq}; 5 and 7 are free in every v86`);
}

/**
 * Puts a bus in front of a guest of an unmodified v86 as a page of memory-mapped registers, which the guest must be told of
 * (`vbus.ko` by its parameter `mmio_device=4K@<address>:<irq>`). The bridge on the PCI bus (`attachVbus`) is found by itself,
 * and is faster here: in v86 an access to memory cannot be answered with an interrupt at once.
 *
 * @throws VbusError EOPNOTSUPP for a v86 of another layout; EBUSY when the memory is taken; EPERM when the bus has not
 *   admitted the member; EINVAL; ENOMEM
 */
export async function attachVbusMmio(
  emulator: V86Emulator,
  options: V86VbusMmioOptions,
): Promise<V86VbusMmioHost> {
  check(options);
  return V86Machine.attach(emulator, options, (machine) => new V86VbusMmioHost(machine, options));
}
