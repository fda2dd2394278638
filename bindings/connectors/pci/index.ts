/**
 * PCI functions, without an emulator: the bridge, which is one bus in front of one guest (`docs/abi/vbus-pci.md`), and what
 * every function has: a configuration space, capabilities, an MSI-X table. The adapters in `vbus/emulators/…` use them, and
 * so may yours.
 * @module
 */
export { bridgeConfigSpace, type PciConfigOptions } from "./bridge-config.js";
export { msiCapability, msixCapability, type MsixPlace, type PciCapability } from "./capabilities.js";
export {
  PciConfigSpace,
  type AccessWidth,
  type ConfigChange,
  type MsiMessage,
  type PciBar,
  type PciFunctionLayout,
} from "./config-space.js";
export { MsixTable } from "./msix-table.js";
export {
  PciBridge,
  type PciBridgeCounters,
  type PciBridgeOptions,
  type PciInterruptSink,
} from "./function.js";
