/**
 * virtio over vbus (`docs/abi/virtio-vbus.md`). An ABI of this project, not of 2009.
 *
 * ```
 *   info      0 device_id u32 | 4 vendor_id u32 | 8 queue_count u32 | 12 config_size u32 | 16 reserved, 16 bytes
 *   features  0 word[n] u64
 *   config    0 offset u32 | 4 generation u32 | 8 data[n]
 *   queue     0 index u32 | 4 max_size u32 | 8 size u32 | 12 flags u32
 *   rings     0 index u32 | 4 size u32 | 8 descriptors u64 | 16 driver u64 | 24 device u64
 * ```
 */

/** Version that DEVOPEN must ask for. */
export const VIRTIO_VBUS_VERSION = 1;

/** Segment of the configuration's signal; those of the queues have their indexes. */
export const VIRTIO_VBUS_SEGMENT_CONFIG = 0x10000;
/** Most queues of a device. */
export const VIRTIO_VBUS_MAX_QUEUES = 0x10000;
/** Most bytes of device configuration. */
export const VIRTIO_VBUS_MAX_CONFIG = 256;
/** Most 64-bit words of feature bits in a call. */
export const VIRTIO_VBUS_MAX_FEATURE_WORDS = 8;

/** Call: what the device is ({@link VIRTIO_VBUS_INFO_SIZE} bytes out). */
export const VIRTIO_VBUS_QUERY = 0;
/** Call: feature bits offered (words out). */
export const VIRTIO_VBUS_GET_FEATURES = 1;
/** Call: feature bits wanted (words in). */
export const VIRTIO_VBUS_SET_FEATURES = 2;
/** Call: the status is the result. */
export const VIRTIO_VBUS_GET_STATUS = 3;
/** Call: sets the status (u32 in), 0 resets; the status afterwards is the result. */
export const VIRTIO_VBUS_SET_STATUS = 4;
/** Call: reads configuration (config block in and out). */
export const VIRTIO_VBUS_READ_CONFIG = 5;
/** Call: writes configuration (config block in). */
export const VIRTIO_VBUS_WRITE_CONFIG = 6;
/** Call: what a queue can be and is ({@link VIRTIO_VBUS_QUEUE_SIZE} bytes in and out). */
export const VIRTIO_VBUS_GET_QUEUE = 7;
/** Call: puts a queue in service ({@link VIRTIO_VBUS_RINGS_SIZE} bytes in). */
export const VIRTIO_VBUS_ENABLE_QUEUE = 8;
/** Call: takes a queue out of service (index, u32 in). */
export const VIRTIO_VBUS_RESET_QUEUE = 9;

/** Size of the block that QUERY fills. */
export const VIRTIO_VBUS_INFO_SIZE = 32;
/** Offset of the 32-bit `device_id`. */
export const VIRTIO_VBUS_INFO_OFF_DEVICE = 0;
/** Offset of the 32-bit `vendor_id`. */
export const VIRTIO_VBUS_INFO_OFF_VENDOR = 4;
/** Offset of the 32-bit `queue_count`. */
export const VIRTIO_VBUS_INFO_OFF_QUEUES = 8;
/** Offset of the 32-bit `config_size`. */
export const VIRTIO_VBUS_INFO_OFF_CONFIG = 12;
/** `vendor_id` of this host: "vbus". */
export const VIRTIO_VBUS_VENDOR = 0x76627573;

/** Offset of the 32-bit `offset` in a config block. */
export const VIRTIO_VBUS_CONFIG_OFF_OFFSET = 0;
/** Offset of the 32-bit `generation`. */
export const VIRTIO_VBUS_CONFIG_OFF_GENERATION = 4;
/** Offset of the data. */
export const VIRTIO_VBUS_CONFIG_OFF_DATA = 8;

/** Size of a queue block. */
export const VIRTIO_VBUS_QUEUE_SIZE = 16;
/** Offset of the 32-bit `index`. */
export const VIRTIO_VBUS_QUEUE_OFF_INDEX = 0;
/** Offset of the 32-bit `max_size`. */
export const VIRTIO_VBUS_QUEUE_OFF_MAX_SIZE = 4;
/** Offset of the 32-bit `size`. */
export const VIRTIO_VBUS_QUEUE_OFF_SIZE = 8;
/** Offset of the 32-bit `flags`. */
export const VIRTIO_VBUS_QUEUE_OFF_FLAGS = 12;
/** `flags` of a queue: it is in service. */
export const VIRTIO_VBUS_QUEUE_ENABLED = 1;

/** Size of a rings block. */
export const VIRTIO_VBUS_RINGS_SIZE = 32;
/** Offset of the 32-bit `index`. */
export const VIRTIO_VBUS_RINGS_OFF_INDEX = 0;
/** Offset of the 32-bit `size`. */
export const VIRTIO_VBUS_RINGS_OFF_SIZE = 4;
/** Offset of the 64-bit address of the descriptors. */
export const VIRTIO_VBUS_RINGS_OFF_DESCRIPTORS = 8;
/** Offset of the 64-bit address of the driver area. */
export const VIRTIO_VBUS_RINGS_OFF_DRIVER = 16;
/** Offset of the 64-bit address of the device area. */
export const VIRTIO_VBUS_RINGS_OFF_DEVICE = 24;
