/**
 * virtio-mmio: a virtio device behind memory-mapped registers (virtio 1.2: 4.2), for emulators without PCI. Knows no emulator.
 * @module
 */
export { VirtioMmio, type MmioWidth, type VirtioMmioCounters, type VirtioMmioOptions } from "./registers.js";
