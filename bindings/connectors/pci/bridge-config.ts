import {
  BAR0_SIZE,
  BAR1_SIZE,
  PCI_CLASS,
  PCI_DEVICE,
  PCI_INTERRUPT_PIN,
  PCI_SUBSYSTEM_DEVICE,
  PCI_SUBSYSTEM_VENDOR,
  PCI_VENDOR,
} from "../../../assembly/abi/pci.js";
import { PCI_ABI_VERSION } from "../../../assembly/abi/vbus.js";
import { VbusError } from "../../errors.js";
import { msiCapability } from "./capabilities.js";
import { PciConfigSpace, type PciBar } from "./config-space.js";

/** What can be chosen of the bridge's configuration space. */
export interface PciConfigOptions {
  /** First guest-physical address of BAR 0, when it is fixed; else firmware assigns it. */
  readonly bar0?: number;
  /** First port of BAR 1, when it is fixed; else firmware assigns it. */
  readonly bar1?: number;
  /** What the size probe of BAR 0 answers; a power of two, 64 by default. For emulators that cannot map less than a page. */
  readonly bar0Size?: number;
}

/** The bridge's base address registers, by number. @throws VbusError EINVAL for a BAR 0 that is too small */
export function bridgeBars(options: PciConfigOptions = {}): PciBar[] {
  const { bar0 = 0, bar1 = 0, bar0Size = BAR0_SIZE } = options;
  if (bar0Size < BAR0_SIZE)
    throw new VbusError("EINVAL", `BAR 0 of ${bar0Size} bytes; give a power of two from ${BAR0_SIZE} on`);
  return [
    { kind: "memory", size: bar0Size, address: bar0 },
    { kind: "io", size: BAR1_SIZE, address: bar1 },
  ];
}

/**
 * The bridge's configuration space (`docs/abi/vbus-pci.md` section 1): two base address registers, one MSI capability.
 * @throws VbusError EINVAL for addresses that a BAR of that size cannot hold
 */
export function bridgeConfigSpace(options: PciConfigOptions = {}): PciConfigSpace {
  return new PciConfigSpace({
    vendor: PCI_VENDOR,
    device: PCI_DEVICE,
    revision: PCI_ABI_VERSION,
    classCode: PCI_CLASS << 8,
    subsystemVendor: PCI_SUBSYSTEM_VENDOR,
    subsystem: PCI_SUBSYSTEM_DEVICE,
    interruptPin: PCI_INTERRUPT_PIN,
    bars: bridgeBars(options),
    capabilities: [msiCapability()],
  });
}
