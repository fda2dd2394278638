import { VIRTIO_PCI_MEMORY_SIZE, VIRTIO_PCI_PORTS } from "../../../assembly/abi/virtio-pci.js";
import { VbusError } from "../../errors.js";
import type { VirtioRingOptions } from "../../virtio/features.js";
import type { VirtioFace } from "../../virtio/types.js";
import {
  attachVirtioPci,
  type VirtioPciAttachment,
  type VirtioPciAttachmentCounters,
} from "../attach-virtio-pci.js";
import type { MachineOptions } from "../machine.js";
import { checkSlot } from "../pci-function.js";
import { checkAddress } from "../validation.js";
import { checkDevice } from "../virtio-options.js";
import { V86EmulatorHost } from "./host.js";
import type { V86Emulator } from "./internals.js";

/** Slots that are free in every configuration of v86; 0x10 is left to the bridge as long as there is another. */
const SLOTS = [
  0x11, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x19, 0x1a, 0x1b, 0x1c, 0x1d, 0x1f, 0x0d, 0x0e, 0x0f, 0x10,
];
/** Ports of slot 0: 256 for each slot, none of them v86's; firmware moves them. */
const FIRST_PORT = 0xdf00;
/** MSI-X tables: a page for each slot, in one of the pieces that v86 maps at once. In the host bridge's window, not v86's. */
const FIRST_MEMORY = 0xfea20000;
const MEMORY_START = 0xfea00000;
const MEMORY_LAST = 0xfeaff000;

/** What things are attached to a machine of v86's with; the first one decides about the arena. */
export type V86MachineOptions = MachineOptions;

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
export type V86VirtioCounters = VirtioPciAttachmentCounters;

/** A virtio device in front of a guest of v86's. Made by {@link attachVirtio}; everything of it runs in v86's thread. */
export type V86VirtioHost = VirtioPciAttachment;

function check(options: V86VirtioOptions): void {
  checkDevice(options);
  const { slot = 0, port = FIRST_PORT, memoryAddress = FIRST_MEMORY } = options;
  checkSlot(slot);
  checkAddress("registers at port", port, { multiple: VIRTIO_PCI_PORTS, from: 0x1000, to: 0xff00 });
  checkAddress("the MSI-X BAR at", memoryAddress, {
    multiple: VIRTIO_PCI_MEMORY_SIZE,
    from: MEMORY_START,
    to: MEMORY_LAST,
  });
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
  return V86EmulatorHost.whenReady(emulator, (host) => {
    const { slot = SLOTS.find((candidate) => !host.internals.pci.taken(candidate << 3)) } = options;
    if (slot === undefined) throw new VbusError("EBUSY", "no slot of v86's PCI bus is free");
    const { port = FIRST_PORT + slot * VIRTIO_PCI_PORTS } = options;
    const { memoryAddress = FIRST_MEMORY + slot * VIRTIO_PCI_MEMORY_SIZE } = options;
    return attachVirtioPci(host, {
      ...options,
      slot,
      place: { registers: "io", registerAddress: port, msixAddress: memoryAddress },
    });
  });
}
