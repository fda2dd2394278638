/**
 * Constants and offsets of the ABI: the same source that the engine is compiled from.
 * @module
 */
export * from "../assembly/abi/shm-signal.js";
export * from "../assembly/abi/ioq.js";
export * from "../assembly/abi/vbus.js";
export * from "../assembly/abi/pci.js";
export * from "../assembly/abi/vbus-mmio.js";
export * from "../assembly/abi/msix.js";
export * from "../assembly/abi/venet.js";
export * from "../assembly/abi/vconsole.js";
export * from "../assembly/abi/vblk.js";
export * from "../assembly/abi/virtio-net.js";
export * from "../assembly/abi/virtio-blk.js";
export * from "../assembly/abi/virtio-console.js";
export * from "../assembly/abi/virtio.js";
export * from "../assembly/abi/virtio-pci.js";
export * from "../assembly/abi/virtio-mmio.js";
export * from "../assembly/abi/errno.js";
export * from "../assembly/abi/worker-wire.js";
export * from "../assembly/abi/virtio-status.js";
export * from "../assembly/abi/virtio-vbus.js";
