/**
 * The PCI bridge: one bus in front of one guest as a PCI function (`docs/abi/vbus-pci.md`). Knows no emulator; the
 * adapters in `vbus/emulators/…` use it, and so may yours.
 * @module
 */
export {
  PciConfigSpace,
  type AccessWidth,
  type ConfigChange,
  type MsiMessage,
  type PciConfigOptions,
} from "./config.js";
export {
  PciBridge,
  type PciBridgeCounters,
  type PciBridgeOptions,
  type PciInterruptSink,
} from "./function.js";
