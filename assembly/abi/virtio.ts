/**
 * Virtqueues and feature bits of virtio (Virtual I/O Device specification, version 1.2; sections are its own).
 *
 * ```
 * split (2.7), three areas                            packed (2.8), one ring and two event areas
 *
 *   descriptor table, 16 bytes each                     descriptor ring, 16 bytes each
 *      0 addr u64 | 8 len u32 | 12 flags u16              0 addr u64 | 8 len u32 | 12 id u16
 *     14 next u16                                        14 flags u16
 *   driver area (available ring)                        driver area (2.8.14: what interrupts the driver wants)
 *      0 flags u16 | 2 idx u16                            0 off_wrap u16 | 2 flags u16
 *      4 ring[size] u16 | used_event u16                device area (what kicks the device wants)
 *   device area (used ring)                               0 off_wrap u16 | 2 flags u16
 *      0 flags u16 | 2 idx u16
 *      4 ring[size]: id u32, len u32 | avail_event u16
 * ```
 */

/* ---- feature bits that concern every device (6) ------------------------------------------------ */

/** Indirect descriptors (2.7.5.3, 2.8.7). */
export const VIRTIO_F_INDIRECT_DESC = 28;
/** `used_event` and `avail_event`, or their packed form (2.7.7, 2.7.10, 2.8.10). */
export const VIRTIO_F_EVENT_IDX = 29;
/** A device of version 1, not a legacy one. */
export const VIRTIO_F_VERSION_1 = 32;
/** The device's memory access is translated or restricted by the platform. */
export const VIRTIO_F_ACCESS_PLATFORM = 33;
/** Packed virtqueues (2.8). */
export const VIRTIO_F_RING_PACKED = 34;
/** Buffers are used in the order in which they were made available (2.7.9, 2.8.8). */
export const VIRTIO_F_IN_ORDER = 35;
/** Memory accesses of driver and device are ordered by the platform's rules. */
export const VIRTIO_F_ORDER_PLATFORM = 36;
/** Single root I/O virtualization. */
export const VIRTIO_F_SR_IOV = 37;
/** Kicks carry the position in the ring (2.9). */
export const VIRTIO_F_NOTIFICATION_DATA = 38;
/** Kicks carry a value that the device chose. */
export const VIRTIO_F_NOTIF_CONFIG_DATA = 39;
/** One queue may be reset (2.6.1). */
export const VIRTIO_F_RING_RESET = 40;

/* ---- descriptors, both formats ----------------------------------------------------------------- */

/** Descriptor: guest-physical address of the buffer, u64. */
export const VIRTQ_DESC_OFF_ADDR = 0;
/** Descriptor: length in bytes, u32. */
export const VIRTQ_DESC_OFF_LEN = 8;
/** Size of a descriptor. */
export const VIRTQ_DESC_SIZE = 16;
/** Descriptor flag: the chain goes on. */
export const VIRTQ_DESC_F_NEXT = 1;
/** Descriptor flag: the device writes the buffer; without it, it reads. */
export const VIRTQ_DESC_F_WRITE = 2;
/** Descriptor flag: the buffer is a table of descriptors. */
export const VIRTQ_DESC_F_INDIRECT = 4;

/* ---- split (2.7) ------------------------------------------------------------------------------- */

/** Split descriptor: flags, u16. */
export const SPLIT_DESC_OFF_FLAGS = 12;
/** Split descriptor: the next one's number, u16. */
export const SPLIT_DESC_OFF_NEXT = 14;
/** Both rings: flags, u16. */
export const SPLIT_RING_OFF_FLAGS = 0;
/** Both rings: where the next entry will be put, modulo 2^16, u16. */
export const SPLIT_RING_OFF_IDX = 2;
/** Both rings: first entry. */
export const SPLIT_RING_OFF_ENTRIES = 4;
/** Size of an entry of the available ring: a head's number. */
export const SPLIT_AVAIL_ENTRY_SIZE = 2;
/** Size of an entry of the used ring: id u32, len u32. */
export const SPLIT_USED_ENTRY_SIZE = 8;
/** What follows the entries of either ring: the event index, u16. */
export const SPLIT_EVENT_SIZE = 2;
/** Available ring flag: interrupts are not needed (2.7.7). */
export const VIRTQ_AVAIL_F_NO_INTERRUPT = 1;
/** Used ring flag: kicks are not needed (2.7.10). */
export const VIRTQ_USED_F_NO_NOTIFY = 1;

/* ---- packed (2.8) ------------------------------------------------------------------------------ */

/** Packed descriptor: buffer id, u16. */
export const PACKED_DESC_OFF_ID = 12;
/** Packed descriptor: flags, u16. */
export const PACKED_DESC_OFF_FLAGS = 14;
/** Packed descriptor flag: equal to the driver's wrap counter when made available (2.8.1). */
export const PACKED_DESC_F_AVAIL = 0x80;
/** Packed descriptor flag: equal to {@link PACKED_DESC_F_AVAIL} when used, different when available. */
export const PACKED_DESC_F_USED = 0x8000;
/** Event area: position (15 bits) and wrap counter (bit 15), u16. */
export const PACKED_EVENT_OFF_POSITION = 0;
/** Event area: flags, u16. */
export const PACKED_EVENT_OFF_FLAGS = 2;
/** Size of an event area. */
export const PACKED_EVENT_AREA_SIZE = 4;
/** Event flags: notify. */
export const PACKED_EVENT_ENABLE = 0;
/** Event flags: do not notify. */
export const PACKED_EVENT_DISABLE = 1;
/** Event flags: notify when the position is passed (needs VIRTIO_F_EVENT_IDX). */
export const PACKED_EVENT_DESC = 2;

/** Most descriptors of a queue, both formats. */
export const VIRTQ_MAX_SIZE = 32768;
/** Alignment of descriptors, both formats. */
export const VIRTQ_DESC_ALIGN = 16;
/** Alignment of the available ring. */
export const SPLIT_AVAIL_ALIGN = 2;
/** Alignment of the used ring. */
export const SPLIT_USED_ALIGN = 4;
/** Alignment of an event area. */
export const PACKED_EVENT_ALIGN = 4;
