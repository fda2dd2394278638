import { VirtioPci, type VirtioPciCounters } from "../connectors/virtio-pci/function.js";
import type { VirtioPciPlace } from "../connectors/virtio-pci/layout.js";
import type { MemorySpace } from "../memory/space.js";
import type { EventLoopScheduler } from "../scheduler.js";
import type { VirtioRingOptions } from "../virtio/features.js";
import type { VirtioFace } from "../virtio/types.js";
import { Part, type AttachmentCounters } from "./attachment.js";
import type { EmulatorHost } from "./host.js";
import { EmulatorMachine, type MachineOptions } from "./machine.js";
import { checkSlot, HostedFunction } from "./pci-function.js";
import { checkHost } from "./validation.js";
import { checkDevice } from "./virtio-options.js";

/** How to put a virtio device in front of a guest as a PCI function. */
export interface HostedVirtioPciOptions extends MachineOptions {
  /** The device. */
  readonly device: VirtioFace;
  /** PCI slot, 0 … 31. */
  readonly slot: number;
  /** Where its BARs are, and what. */
  readonly place?: VirtioPciPlace;
  /** What is offered of rings and transport. */
  readonly rings?: VirtioRingOptions;
  /**
   * MSI-X vectors, 0 (no MSI-X) to 128; default: one for each queue and one for the configuration. On a machine without
   * messages there are none.
   */
  readonly vectors?: number;
  /** Offers an MSI capability besides; default false. */
  readonly msi?: boolean;
}

/** What was counted of a function. */
export interface VirtioPciAttachmentCounters extends VirtioPciCounters, AttachmentCounters {}

/**
 * A virtio device in front of a guest, as a PCI function. Made by {@link attachVirtioPci}; everything of it runs in the
 * emulator's thread.
 */
export class VirtioPciAttachment {
  /** The PCI function. */
  readonly function: VirtioPci;
  /** Its slot. */
  readonly slot: number;
  /** The scheduler that the device runs on. */
  readonly scheduler: EventLoopScheduler;
  /** The guest's memory. */
  readonly memory: MemorySpace;
  readonly #part: Part;
  readonly #place: HostedFunction;

  /** @internal Use {@link attachVirtioPci}. */
  constructor(machine: EmulatorMachine, options: HostedVirtioPciOptions) {
    const { device, slot, place, rings, vectors, msi, onError, scheduler = machine.scheduler } = options;
    this.slot = slot;
    this.scheduler = scheduler;
    this.memory = machine.memory;
    const seat = new HostedFunction(machine);
    this.#place = seat;
    this.#part = new Part(machine, scheduler, {
      onError,
      line: seat.line,
      shown: seat.shown,
      answer: (queue) => {
        this.function.device.kick(queue);
      },
      silence: (queue) => {
        this.function.device.postpone(queue);
      },
      reset: () => {
        this.function.machineReset();
        seat.refresh();
      },
      saved: () => ({
        name: `pci-${slot.toString(16)}`,
        connector: this.function,
        line: () => this.function.line,
        refresh: () => {
          seat.refresh();
        },
      }),
    });
    const fn = new VirtioPci({
      face: device,
      memory: machine.memory,
      scheduler,
      interrupts: this.#part.interrupts,
      ...(machine.host.messages === undefined ? { vectors: 0 } : vectors === undefined ? {} : { vectors }),
      ...(place === undefined ? {} : { place }),
      ...(rings === undefined ? {} : { rings }),
      ...(msi === undefined ? {} : { msi }),
      ...(onError === undefined ? {} : { onError }),
    });
    this.function = fn;
    fn.onKick = (queue) => {
      this.#part.doorbells.ring(queue);
    };
    try {
      seat.plug(fn, {
        name: `virtio ${device.name}`,
        slot,
        bars: fn.bars,
        read: (bar, offset, width) => fn.barRead(bar, offset, width),
        write: (bar, offset, width, value) => {
          fn.barWrite(bar, offset, width, value);
        },
        readsThrough: (offset, width) => fn.touchesAccessData(offset, width),
      });
    } catch (error) {
      fn.close();
      throw error;
    }
    this.#part.join();
  }

  /** What was counted so far. */
  counters(): VirtioPciAttachmentCounters {
    return { ...this.function.counters(), ...this.#part.counters() };
  }

  /**
   * Takes the device away from the guest: its queues are dead, and its registers lead nowhere. To the guest that looks like a
   * reset of which it knows nothing: have its driver unbound before. Twice is harmless.
   */
  close(): void {
    this.#part.close(() => {
      this.function.close();
      this.#place.unplug();
    });
  }
}

/**
 * Puts a virtio device in front of an emulator's guest, as a PCI function of its own: for guests that have virtio drivers and
 * none of this project's. Call it in the emulator's thread before firmware looks at the PCI bus, once for each device.
 *
 * @throws VbusError EOPNOTSUPP on a machine without PCI; EBUSY when the slot is taken; EINVAL; ENOMEM
 */
export function attachVirtioPci(host: EmulatorHost, options: HostedVirtioPciOptions): VirtioPciAttachment {
  checkDevice(options);
  checkSlot(options.slot);
  checkHost(host);
  return EmulatorMachine.attach(host, options, (machine) => new VirtioPciAttachment(machine, options));
}
