/**
 * Virtio devices on the bus, the host half of virtio over vbus (`docs/abi/virtio-vbus.md`): a device class for any virtio
 * device. Its driver half is `vbus/drivers/virtio`, or `guest/linux/virtio_vbus` with the kernel's own virtio drivers.
 * @module
 */
export { virtioClass, type VirtioClassOptions, type VirtioVbusDevice } from "./device.js";
export type { VirtioVbusQueueReport } from "./connection.js";
