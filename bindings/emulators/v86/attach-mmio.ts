import {
  attachVbusMmio as attachPage,
  type VbusMmioAttachment,
  type VbusMmioAttachmentCounters,
  type VbusMmioOptions,
} from "../attach-vbus-mmio.js";
import { checkBus } from "../bus-options.js";
import { V86EmulatorHost } from "./host.js";
import type { V86Emulator } from "./internals.js";
import { checkMemory } from "./mapped-memory.js";

/** How to put a bus in front of a guest of v86's, without PCI. */
export interface V86VbusMmioOptions extends VbusMmioOptions {
  /** Where its register page lies: from 0xfea40000 to 0xfeaff000. */
  readonly memoryAddress: number;
  /** Its interrupt: 5 and 7 are free in every v86, 3 and 4 are where there is no such serial port. */
  readonly irq: number;
}

/** What the adapter counted. */
export type V86VbusMmioCounters = VbusMmioAttachmentCounters;

/** A bus in front of a guest of v86's. Made by {@link attachVbusMmio}; everything of it runs in v86's thread. */
export type V86VbusMmioHost = VbusMmioAttachment;

/**
 * Puts a bus in front of a guest of an unmodified v86 as a page of memory-mapped registers, which the guest must be told of
 * (`vbus.ko` by its parameter, `mmio_device=4K@<address>:<irq>`). The bridge on the PCI bus (`attachVbus`) is found by itself,
 * and is faster here: in v86 an access to memory cannot be answered with an interrupt at once.
 *
 * @throws VbusError EOPNOTSUPP for a v86 of another layout; EBUSY when the memory is taken; EPERM when the bus has not
 *   admitted the member; EINVAL; ENOMEM
 */
export async function attachVbusMmio(
  emulator: V86Emulator,
  options: V86VbusMmioOptions,
): Promise<V86VbusMmioHost> {
  checkBus(options);
  checkMemory(options.memoryAddress);
  return V86EmulatorHost.whenReady(emulator, (host) => attachPage(host, options));
}
