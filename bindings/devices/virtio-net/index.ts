/**
 * virtio-net, the device: a network card for drivers that know virtio (virtio 1.2: 5.1), on the same data path as venet.
 * @module
 */
export { VirtioNet, virtioNet, type VirtioNetOptions } from "./device.js";
export type { VirtioNetStatistics } from "./statistics.js";
