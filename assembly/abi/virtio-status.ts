/**
 * The device status field, and kinds of virtio devices (Virtual I/O Device specification, version 1.2; sections are its own).
 */

/** The driver has noticed the device (2.1). */
export const VIRTIO_STATUS_ACKNOWLEDGE = 1;
/** There is a driver for the device. */
export const VIRTIO_STATUS_DRIVER = 2;
/** The driver is ready: the device may work. */
export const VIRTIO_STATUS_DRIVER_OK = 4;
/** The driver has chosen features; when the device refuses them, the bit does not stick. */
export const VIRTIO_STATUS_FEATURES_OK = 8;
/** The device is in a state that only a reset ends (2.1.2). */
export const VIRTIO_STATUS_NEEDS_RESET = 64;
/** The driver has given the device up. */
export const VIRTIO_STATUS_FAILED = 128;

/** Kind: network card (5.1). */
export const VIRTIO_ID_NET = 1;
/** Kind: block device (5.2). */
export const VIRTIO_ID_BLOCK = 2;
/** Kind: console (5.3). */
export const VIRTIO_ID_CONSOLE = 3;
/** Kind: entropy source (5.4). */
export const VIRTIO_ID_ENTROPY = 4;
