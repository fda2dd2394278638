/**
 * vblk, the host half: the device class `vblk` (`docs/abi/vblk.md`) and its back ends. The one for files in Node is
 * `vbus/devices/vblk/node-file`.
 * @module
 */
export { vblkClass, type VblkClassOptions } from "./device.js";
export type { BlockBackend } from "./backend.js";
export type { BlockOperation, VblkStatistics } from "./statistics.js";
export { MemoryBackend } from "./backends/memory.js";
export { BlobBackend } from "./backends/blob.js";
export { OpfsBackend, type SyncAccessHandle } from "./backends/opfs.js";
export { CowOverlay, type CowOverlayOptions } from "./backends/overlay.js";
