/**
 * virtio-blk, the device: a disk for drivers that know virtio (virtio 1.2: 5.2), on the back ends of `vbus/devices/vblk`.
 * @module
 */
export { VirtioBlk, virtioBlk, type VirtioBlkOptions } from "./device.js";
export type { VirtioBlkStatistics } from "./statistics.js";
