/**
 * virtio-pci: a virtio device as a modern PCI function (virtio 1.2: 4.1). Knows no emulator; the adapters in
 * `vbus/emulators/…` use it, and so may yours.
 * @module
 */
export { VirtioPci, type VirtioPciCounters, type VirtioPciOptions } from "./function.js";
export type { VirtioPciInterruptCounters } from "./interrupts.js";
export type { VirtioPciPlace } from "./layout.js";
