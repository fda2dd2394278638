import {
  attachVirtioMmio as attachRegisters,
  type HostedVirtioMmioOptions,
  type VirtioMmioAttachment,
  type VirtioMmioAttachmentCounters,
} from "../attach-virtio-mmio.js";
import { checkDevice } from "../virtio-options.js";
import { V86EmulatorHost } from "./host.js";
import type { V86Emulator } from "./internals.js";
import { checkMemory } from "./mapped-memory.js";

/** How to put a virtio device in front of a guest of v86's, without PCI. */
export interface V86VirtioMmioOptions extends HostedVirtioMmioOptions {
  /** Where its registers lie: a page of their own, from 0xfea40000 to 0xfeaff000. */
  readonly memoryAddress: number;
  /** Its interrupt: 5 and 7 are free in every v86, 3 and 4 are where there is no such serial port. */
  readonly irq: number;
}

/** What the adapter counted of a device. */
export type V86VirtioMmioCounters = VirtioMmioAttachmentCounters;

/** A virtio device in front of a guest of v86's. Made by {@link attachVirtioMmio}; everything of it runs in v86's thread. */
export type V86VirtioMmioHost = VirtioMmioAttachment;

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
  checkDevice(options);
  checkMemory(options.memoryAddress);
  return V86EmulatorHost.whenReady(emulator, (host) => attachRegisters(host, options));
}
