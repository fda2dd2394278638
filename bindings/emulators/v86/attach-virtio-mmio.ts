import { VIRTIO_MMIO_SIZE } from "../../../assembly/abi/virtio-mmio.js";
import { VirtioMmio, type VirtioMmioCounters } from "../../connectors/virtio-mmio/registers.js";
import { VbusError } from "../../errors.js";
import type { MemorySpace } from "../../memory/space.js";
import type { EventLoopScheduler } from "../../scheduler.js";
import type { VirtioRingOptions } from "../../virtio/features.js";
import type { VirtioFace } from "../../virtio/types.js";
import { V86Doorbells } from "./doorbells.js";
import type { V86Emulator } from "./internals.js";
import { V86Interrupts, type V86InterruptCounters } from "./interrupts.js";
import { V86Machine, type V86MachineOptions, type V86Part } from "./machine.js";
import { savedPart } from "./saved-part.js";

const PAGE = 0x1000;
/** Free for memory-mapped registers: see docs/v86.md. The first two pieces are the bridge's and the MSI-X tables'. */
const MEMORY_START = 0xfea40000;
const MEMORY_END = 0xfeb00000;
/** Interrupts that v86's own devices or the processor have; 10 and 11 are where PCI lines end. */
const TAKEN_IRQS = [0, 1, 2, 6, 8, 9, 10, 11, 12, 13, 14, 15];

/** How to put a virtio device in front of a guest of v86's, without PCI. */
export interface V86VirtioMmioOptions extends V86MachineOptions {
  /** The device. */
  readonly device: VirtioFace;
  /** Where its registers lie: a page of their own, from 0xfea40000 to 0xfeaff000. */
  readonly memoryAddress: number;
  /** Its interrupt: 5 and 7 are free in every v86, 3 and 4 are where there is no such serial port. */
  readonly irq: number;
  /** What is offered of rings and transport. */
  readonly rings?: VirtioRingOptions;
}

/** What the adapter counted of a device. */
export interface V86VirtioMmioCounters extends VirtioMmioCounters, V86InterruptCounters {
  /** Kicks that were served when the current slice of the guest was over: all of them, several of one queue as one. */
  postponed: number;
  /** Ranges of guest memory that v86 was told to look at for stale translated code: of the machine. */
  invalidated: number;
}

/** A virtio device in front of a guest of v86's. Made by {@link attachVirtioMmio}; everything of it runs in v86's thread. */
export class V86VirtioMmioHost {
  /** The registers. */
  readonly registers: VirtioMmio;
  /** The scheduler that the device runs on. */
  readonly scheduler: EventLoopScheduler;
  /** The guest's memory. */
  readonly memory: MemorySpace;
  readonly #machine: V86Machine;
  readonly #interrupts: V86Interrupts;
  readonly #doorbells: V86Doorbells;
  readonly #part: V86Part;
  #closed = false;

  /** @internal Use {@link attachVirtioMmio}. */
  constructor(machine: V86Machine, options: V86VirtioMmioOptions) {
    const { device, memoryAddress, irq, rings, onError, scheduler = machine.scheduler } = options;
    this.#machine = machine;
    this.scheduler = scheduler;
    this.memory = machine.memory;
    this.#interrupts = new V86Interrupts(
      machine,
      (asserted) => {
        machine.internals.setIrq(irq, asserted);
      },
      () => undefined, // the interrupt status is the device's own register
    );
    const registers = new VirtioMmio({
      face: device,
      memory: machine.memory,
      scheduler,
      stateName: `mmio-${memoryAddress.toString(16)}`,
      interrupt: (asserted) => {
        this.#interrupts.setLine(asserted);
      },
      ...(rings === undefined ? {} : { rings }),
      ...(onError === undefined ? {} : { onError }),
    });
    this.registers = registers;
    this.#doorbells = new V86Doorbells(
      machine,
      (queue) => {
        registers.device.kick(queue);
      },
      (queue) => {
        registers.device.postpone(queue);
      },
    );
    registers.onKick = (queue) => {
      this.#doorbells.ring(queue);
    };
    try {
      machine.internals.pci.mapMemory({
        kind: "memory",
        size: VIRTIO_MMIO_SIZE,
        address: memoryAddress,
        read: (offset, width) => machine.in("memory", () => registers.read(offset, width)),
        write: (offset, width, value) => {
          machine.in("memory", () => {
            registers.write(offset, width, value);
          });
        },
      });
    } catch (error) {
      registers.close();
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
        registers.machineReset();
      },
      saved: savedPart(registers, null, this.#interrupts, () => undefined),
    };
    machine.join(this.#part, scheduler);
  }

  /** What was counted so far. */
  counters(): V86VirtioMmioCounters {
    return {
      ...this.registers.counters(),
      ...this.#interrupts.counters(),
      postponed: this.#doorbells.postponed,
      invalidated: this.#machine.invalidated,
    };
  }

  /** Takes the device away from the guest, as `V86VirtioHost.close` does. Twice is harmless. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.registers.close();
    this.#doorbells.clear();
    this.#machine.leave(this.#part, this.scheduler);
    this.#machine.release();
  }
}

function check({ memoryAddress, irq }: V86VirtioMmioOptions): void {
  if (!(memoryAddress >= MEMORY_START && memoryAddress < MEMORY_END && memoryAddress % PAGE === 0))
    throw new VbusError(
      "EINVAL",
      `registers at 0x${memoryAddress.toString(16)}; give a multiple of 4 KiB from 0xfea40000 to 0xfeaff000`,
    );
  if (!(Number.isInteger(irq) && irq >= 0 && irq < 16) || TAKEN_IRQS.includes(irq))
    throw new VbusError("EINVAL", `interrupt ${irq}; 5 and 7 are free in every v86`);
}

/**
 * Puts a virtio device in front of a guest of an unmodified v86, as memory-mapped registers, which the guest must be told of
 * (by its command line, a device tree, or an ACPI table with an `LNRO0005`). PCI functions (`attachVirtio`) are found by
 * themselves, and are faster here: in v86 an access to memory cannot be answered with an interrupt at once.
 *
 * @throws VbusError EOPNOTSUPP for a v86 of another layout; EBUSY when the memory is taken; EINVAL; ENOMEM
 */
export async function attachVirtioMmio(
  emulator: V86Emulator,
  options: V86VirtioMmioOptions,
): Promise<V86VirtioMmioHost> {
  check(options);
  return V86Machine.attach(emulator, options, (machine) => new V86VirtioMmioHost(machine, options));
}
