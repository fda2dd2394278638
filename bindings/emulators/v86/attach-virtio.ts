import { VIRTIO_PCI_MEMORY_SIZE, VIRTIO_PCI_PORTS } from "../../../assembly/abi/virtio-pci.js";
import { VirtioPci, type VirtioPciCounters } from "../../connectors/virtio-pci/function.js";
import { VbusError } from "../../errors.js";
import type { MemorySpace } from "../../memory/space.js";
import type { EventLoopScheduler } from "../../scheduler.js";
import type { VirtioRingOptions } from "../../virtio/features.js";
import type { VirtioFace } from "../../virtio/types.js";
import { V86ConfigSpace } from "./config-space.js";
import { V86Doorbells } from "./doorbells.js";
import type { V86Emulator } from "./internals.js";
import { V86Interrupts, type V86InterruptCounters } from "./interrupts.js";
import { V86Machine, type V86MachineOptions, type V86Part } from "./machine.js";
import type { V86Bar } from "./pci-internals.js";
import { savedPart } from "./saved-part.js";

/** Slots that are free in every configuration of v86; 0x10 is left to the bridge as long as there is another. */
const SLOTS = [
  0x11, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x19, 0x1a, 0x1b, 0x1c, 0x1d, 0x1f, 0x0d, 0x0e, 0x0f, 0x10,
];
/** Ports of slot 0: 256 for each slot, none of them v86's; firmware moves them. */
const FIRST_PORT = 0xdf00;
/** MSI-X tables: a page for each slot, in one of the pieces that v86 maps at once. In the host bridge's window, not v86's. */
const FIRST_MEMORY = 0xfea20000;
const MEMORY_START = 0xfea00000;
const MEMORY_END = 0xfeb00000;

/** How to put a virtio device in front of a guest of v86's. */
export interface V86VirtioOptions extends V86MachineOptions {
  /** The device. */
  readonly device: VirtioFace;
  /** PCI slot, 0 … 31; default: a free one from 0x11 on. A saved state finds its devices by their slots: name them then. */
  readonly slot?: number;
  /** First of 256 ports, a multiple of 256 from 0x1000 on; firmware moves them. Default: by slot. */
  readonly port?: number;
  /** Where the 4 KiB of the MSI-X BAR lie, from 0xfea00000 to 0xfeaff000; v86 cannot move them. Default: by slot. */
  readonly memoryAddress?: number;
  /** What is offered of rings and transport. */
  readonly rings?: VirtioRingOptions;
  /**
   * MSI-X vectors, 0 (no MSI-X) to 128; default: one for each queue and one for the configuration. Without `acpi: true` v86
   * has no local APIC, and there are none.
   */
  readonly vectors?: number;
  /** Offers an MSI capability besides; default false. */
  readonly msi?: boolean;
}

/** What the adapter counted of a function. */
export interface V86VirtioCounters extends VirtioPciCounters, V86InterruptCounters {
  /** Kicks that were served when the current slice of the guest was over, several of one queue as one. */
  postponed: number;
  /** Ranges of guest memory that v86 was told to look at for stale translated code: of the machine. */
  invalidated: number;
}

/** A virtio device in front of a guest of v86's. Made by {@link attachVirtio}; everything of it runs in v86's thread. */
export class V86VirtioHost {
  /** The PCI function. */
  readonly function: VirtioPci;
  /** Its slot. */
  readonly slot: number;
  /** The scheduler that the device runs on. */
  readonly scheduler: EventLoopScheduler;
  /** The guest's memory. */
  readonly memory: MemorySpace;
  readonly #machine: V86Machine;
  readonly #interrupts: V86Interrupts;
  readonly #doorbells: V86Doorbells;
  readonly #part: V86Part;
  #closed = false;

  /** @internal Use {@link attachVirtio}. */
  constructor(machine: V86Machine, options: V86VirtioOptions) {
    const { device, rings, msi, onError, scheduler = machine.scheduler } = options;
    const { pci, hasApic } = machine.internals;
    const { slot = SLOTS.find((candidate) => !pci.taken(candidate << 3)) } = options;
    if (slot === undefined) throw new VbusError("EBUSY", "no slot of v86's PCI bus is free");
    const { port = FIRST_PORT + slot * VIRTIO_PCI_PORTS } = options;
    const { memoryAddress = FIRST_MEMORY + slot * VIRTIO_PCI_MEMORY_SIZE } = options;
    this.#machine = machine;
    this.slot = slot;
    this.scheduler = scheduler;
    this.memory = machine.memory;
    const space = new V86ConfigSpace();
    this.#interrupts = new V86Interrupts(
      machine,
      (asserted) => {
        machine.internals.pci.setLine(slot << 3, asserted);
      },
      space.showInterrupt,
    );
    const { vectors } = options;
    this.function = new VirtioPci({
      face: device,
      memory: machine.memory,
      scheduler,
      interrupts: this.#interrupts,
      stateName: `pci-${slot.toString(16)}`,
      place: { registers: "io", registerAddress: port, msixAddress: memoryAddress },
      ...(hasApic ? (vectors === undefined ? {} : { vectors }) : { vectors: 0 }),
      ...(rings === undefined ? {} : { rings }),
      ...(msi === undefined ? {} : { msi }),
      ...(onError === undefined ? {} : { onError }),
    });
    this.#doorbells = new V86Doorbells(
      machine,
      (queue) => {
        this.function.device.kick(queue);
      },
      (queue) => {
        this.function.device.postpone(queue);
      },
    );
    this.function.onKick = (queue) => {
      this.#doorbells.ring(queue);
    };
    try {
      this.#register(space);
    } catch (error) {
      this.function.close();
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
        this.function.machineReset();
        space.putBackAll(this.function.config);
      },
      saved: savedPart(this.function, null, this.#interrupts, () => {
        space.putBackAll(this.function.config);
      }),
    };
    machine.join(this.#part, scheduler);
  }

  #register(space: V86ConfigSpace): void {
    const { function: fn } = this;
    const machine = this.#machine;
    const bars = fn.bars.map((bar, index): V86Bar | null => {
      if (bar === null) return null;
      const context = bar.kind === "io" ? "port" : "memory";
      return {
        kind: bar.kind,
        size: bar.size,
        address: bar.address ?? 0,
        read: (offset, width) => machine.in(context, () => fn.barRead(index, offset, width)),
        write: (offset, width, value) => {
          machine.in(context, () => {
            fn.barWrite(index, offset, width, value);
          });
        },
      };
    });
    space.attach(
      machine.internals.pci.register({
        name: `virtio ${fn.device.face.name}`,
        devfn: this.slot << 3,
        config: fn.config.image(),
        bars,
        configWritten: (live, offset, width) => {
          machine.in("port", () => {
            fn.configWritten(offset, live.slice(offset, offset + width));
          });
          space.putBack(fn.config, offset, width);
        },
        configRead: (offset, width) =>
          fn.touchesAccessData(offset, width) ? machine.in("port", () => fn.configRead(offset, width)) : null,
      }),
    );
  }

  /** What was counted so far. */
  counters(): V86VirtioCounters {
    return {
      ...this.function.counters(),
      ...this.#interrupts.counters(),
      postponed: this.#doorbells.postponed,
      invalidated: this.#machine.invalidated,
    };
  }

  /**
   * Takes the device away from the guest: its queues are dead, and its registers lead nowhere. To the guest that looks like a
   * reset of which it knows nothing: have its driver unbound before. Twice is harmless.
   */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.function.close();
    this.#doorbells.clear();
    this.#machine.leave(this.#part, this.scheduler);
    this.#machine.release();
  }
}

function check({ slot, port, memoryAddress }: V86VirtioOptions): void {
  if (slot !== undefined && !(Number.isInteger(slot) && slot >= 0 && slot < 32))
    throw new VbusError("EINVAL", `PCI slot ${slot}; there are 0 to 31`);
  if (port !== undefined && !(port >= 0x1000 && port <= 0xff00 && port % VIRTIO_PCI_PORTS === 0))
    throw new VbusError(
      "EINVAL",
      `registers at port 0x${port.toString(16)}; give a multiple of 256 from 0x1000 to 0xff00`,
    );
  if (
    memoryAddress !== undefined &&
    !(
      memoryAddress >= MEMORY_START &&
      memoryAddress < MEMORY_END &&
      memoryAddress % VIRTIO_PCI_MEMORY_SIZE === 0
    )
  )
    throw new VbusError(
      "EINVAL",
      `the MSI-X BAR at 0x${memoryAddress.toString(16)}; give a multiple of 4 KiB from 0xfea00000 to 0xfeaff000`,
    );
}

/**
 * Puts a virtio device in front of a guest of an unmodified v86, as a PCI function of its own: for guests that have virtio
 * drivers and none of this project's. Call it right after `new V86(…)`, in the thread that runs it, once for each device, and
 * beside `attachVbus`: the functions of a machine share what can be shared. Resolves when it is on the PCI bus.
 *
 * With `acpi: true` interrupts are MSI-X messages; without, v86 has no local APIC, and they are INTx.
 *
 * @throws VbusError EOPNOTSUPP for a v86 of another layout; EBUSY when the slot or the memory is taken; EINVAL; ENOMEM
 */
export async function attachVirtio(emulator: V86Emulator, options: V86VirtioOptions): Promise<V86VirtioHost> {
  check(options);
  return V86Machine.attach(emulator, options, (machine) => new V86VirtioHost(machine, options));
}
