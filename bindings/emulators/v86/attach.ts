import { BAR1_SIZE } from "../../../assembly/abi/pci.js";
import {
  attachVbusPci,
  type VbusPciAttachment,
  type VbusPciCounters,
  type VbusPciOptions,
} from "../attach-vbus-pci.js";
import { checkBus, type HostedBusOptions, type HostedDevice } from "../bus-options.js";
import { checkSlot } from "../pci-function.js";
import { checkAddress } from "../validation.js";
import { V86EmulatorHost } from "./host.js";
import type { V86Emulator } from "./internals.js";
import { MMIO_GRANULE } from "./pci-internals.js";

/** Slot 0x10 is free in every configuration of v86, and so are those above it but 0x12 and 0x1e. */
const DEFAULT_SLOT = 0x10;
/** In the host bridge's window with and without ACPI, and nothing of v86's lies there. */
const DEFAULT_MEMORY = 0xfea00000;
const MEMORY_LAST = 0xfeae0000;
/** Free of v86's own devices; firmware moves it. */
const DEFAULT_PORT = 0xd000;

/** A device that {@link attachVbus} creates. */
export type V86Device = HostedDevice;

/** How to put a bus in front of a guest of v86's. Give either a bus, or devices to make one of. */
export interface V86Options extends HostedBusOptions {
  /** PCI slot, 0 … 31; default 0x10. Several bridges in one machine need different slots, addresses and ports. */
  readonly slot?: number;
  /** First guest-physical address of BAR 0: a multiple of 128 KiB from 0xfea00000 to 0xfeae0000. v86 cannot move it. */
  readonly memoryAddress?: number;
  /** First port of BAR 1, a multiple of 32 from 0x1000 on; firmware moves it. Default 0xd000. */
  readonly port?: number;
}

/** What the adapter counted. */
export type V86Counters = VbusPciCounters;

/**
 * A bus in front of a guest of v86's. Made by {@link attachVbus}; everything of it runs in v86's thread. When doorbells are
 * served: see `docs/v86.md`.
 */
export type V86Host = VbusPciAttachment;

function check(options: V86Options): void {
  checkBus(options);
  const { slot = DEFAULT_SLOT, memoryAddress = DEFAULT_MEMORY, port = DEFAULT_PORT } = options;
  checkSlot(slot);
  checkAddress("BAR 0 at", memoryAddress, { multiple: MMIO_GRANULE, from: DEFAULT_MEMORY, to: MEMORY_LAST });
  checkAddress("BAR 1 at port", port, { multiple: BAR1_SIZE, from: 0x1000, to: 0xffe0 });
}

/**
 * Puts a bus in front of a guest of an unmodified v86. Call it right after `new V86(…)`, in the thread that runs it: the
 * bridge must be on the PCI bus before firmware looks, and before a saved state is applied. Resolves when it is.
 *
 * The machine should have `acpi: true`: without ACPI v86 has no local APIC, so the guest cannot use MSI (the driver of 2009
 * insists on it; ours then uses INTx).
 *
 * @throws VbusError EOPNOTSUPP for a v86 of another layout; EBUSY when the slot is taken; EPERM when the bus has not
 *   admitted the member; EINVAL; ENOMEM
 */
export async function attachVbus(emulator: V86Emulator, options: V86Options): Promise<V86Host> {
  check(options);
  const { slot = DEFAULT_SLOT, memoryAddress = DEFAULT_MEMORY, port = DEFAULT_PORT } = options;
  const placed: VbusPciOptions = { ...options, slot, place: { bar0: memoryAddress, bar1: port } };
  return V86EmulatorHost.whenReady(emulator, (host) => attachVbusPci(host, placed));
}
