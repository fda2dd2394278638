/**
 * Virtio devices and what carries them: the interfaces between the two, and the rules of the status register, feature
 * negotiation and queue set-up, which are the same for every transport.
 * @module
 */
export { VirtioDevice, type VirtioDeviceCounters, type VirtioDeviceOptions } from "./device.js";
export { VirtioConfig } from "./config.js";
export type { VirtioRingOptions } from "./features.js";
export { VirtioQueueSetup, type VirtioQueueArea } from "./queue.js";
export type { VirtioFace, VirtioQueue, VirtioSession, VirtioSessionContext } from "./types.js";
