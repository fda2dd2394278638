import { VIRTIO_MMIO_SIZE } from "../../assembly/abi/virtio-mmio.js";
import { VirtioMmio, type VirtioMmioCounters } from "../connectors/virtio-mmio/registers.js";
import type { MemorySpace } from "../memory/space.js";
import type { EventLoopScheduler } from "../scheduler.js";
import type { VirtioRingOptions } from "../virtio/features.js";
import type { VirtioFace } from "../virtio/types.js";
import { Part, type AttachmentCounters } from "./attachment.js";
import type { EmulatorHost, Mapping } from "./host.js";
import { EmulatorMachine, type MachineOptions } from "./machine.js";
import { mappedMemory } from "./mapped-memory.js";
import { checkHost, checkRegisters } from "./validation.js";
import { checkDevice } from "./virtio-options.js";

/** How to put a virtio device in front of a guest, without PCI. */
export interface HostedVirtioMmioOptions extends MachineOptions {
  /** The device. */
  readonly device: VirtioFace;
  /** Guest-physical address of its registers: a multiple of 0x200, their size, outside of RAM; best a page of their own. */
  readonly memoryAddress: number;
  /** Number of its interrupt. */
  readonly irq: number;
  /** What is offered of rings and transport. */
  readonly rings?: VirtioRingOptions;
}

/** What was counted of a device. */
export interface VirtioMmioAttachmentCounters extends VirtioMmioCounters, AttachmentCounters {}

/**
 * A virtio device in front of a guest, behind memory-mapped registers. Made by {@link attachVirtioMmio}; everything of it runs
 * in the emulator's thread.
 */
export class VirtioMmioAttachment {
  /** The registers. */
  readonly registers: VirtioMmio;
  /** The scheduler that the device runs on. */
  readonly scheduler: EventLoopScheduler;
  /** The guest's memory. */
  readonly memory: MemorySpace;
  readonly #part: Part;
  readonly #mapping: Mapping;

  /** @internal Use {@link attachVirtioMmio}. */
  constructor(machine: EmulatorMachine, options: HostedVirtioMmioOptions) {
    const { device, memoryAddress, irq, rings, onError, scheduler = machine.scheduler } = options;
    this.scheduler = scheduler;
    this.memory = machine.memory;
    this.#part = new Part(machine, scheduler, {
      onError,
      line: machine.openLine(irq),
      answer: (queue) => {
        this.registers.device.kick(queue);
      },
      silence: (queue) => {
        this.registers.device.postpone(queue);
      },
      reset: () => {
        this.registers.machineReset();
      },
      saved: () => ({
        name: `mmio-${memoryAddress.toString(16)}`,
        connector: this.registers,
        line: () => this.registers.line,
      }),
    });
    let registers: VirtioMmio | null = null;
    try {
      this.registers = registers = new VirtioMmio({
        face: device,
        memory: machine.memory,
        scheduler,
        interrupt: (asserted) => {
          this.#part.interrupts.setLine(asserted);
        },
        ...(rings === undefined ? {} : { rings }),
        ...(onError === undefined ? {} : { onError }),
      });
      registers.onKick = (queue) => {
        this.#part.doorbells.ring(queue);
      };
      this.#mapping = mappedMemory(machine, memoryAddress, VIRTIO_MMIO_SIZE, registers);
    } catch (error) {
      registers?.close();
      this.#part.discard();
      throw error;
    }
    this.#part.join();
  }

  /** What was counted so far. */
  counters(): VirtioMmioAttachmentCounters {
    return { ...this.registers.counters(), ...this.#part.counters() };
  }

  /** Takes the device away from the guest, as `VirtioPciAttachment.close` does. Twice is harmless. */
  close(): void {
    this.#part.close(() => {
      this.registers.close();
      this.#mapping.unmap();
    });
  }
}

/**
 * Puts a virtio device in front of an emulator's guest, as memory-mapped registers, which the guest must be told of: by its
 * command line, a device tree, an ACPI table with an `LNRO0005`. Call it in the emulator's thread, once for each device.
 *
 * @throws VbusError EBUSY when the memory or the interrupt is taken; EOPNOTSUPP when the machine cannot map any; EINVAL; ENOMEM
 */
export function attachVirtioMmio(host: EmulatorHost, options: HostedVirtioMmioOptions): VirtioMmioAttachment {
  checkDevice(options);
  checkHost(host);
  checkRegisters(host, options, VIRTIO_MMIO_SIZE);
  return EmulatorMachine.attach(host, options, (machine) => new VirtioMmioAttachment(machine, options));
}
