/**
 * Virtio devices in guests written in TypeScript: what a virtio driver needs of its transport, and virtio over vbus, which
 * is one (`docs/abi/virtio-vbus.md`).
 * @module
 */
export { initializeVirtio } from "./initialize.js";
export { virtioBusDriver, type VirtioBinding } from "./driver.js";
export { VbusVirtioTransport } from "./vbus.js";
export type {
  VirtioDriver,
  VirtioDriverQueue,
  VirtioDriverQueueOptions,
  VirtioDriverTransport,
} from "./transport.js";
