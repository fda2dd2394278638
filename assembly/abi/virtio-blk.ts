/**
 * virtio-blk (Virtual I/O Device specification, version 1.2, section 5.2).
 *
 * ```
 * request (5.2.6)
 *    readable: 0 type u32 | 4 reserved u32 | 8 sector u64 | 16 data of a write, or segments …
 *    writable: data of a read …, then the status u8 as the very last byte
 *
 * segment of a discard or a write-zeroes:  0 sector u64 | 8 sectors u32 | 12 flags u32
 * ```
 */

/* ---- feature bits (5.2.3) ---------------------------------------------------------------------- */

/** The configuration says how long a segment may be. */
export const VIRTIO_BLK_F_SIZE_MAX = 1;
/** The configuration says how many segments a request may have. */
export const VIRTIO_BLK_F_SEG_MAX = 2;
/** Nothing may be written. */
export const VIRTIO_BLK_F_RO = 5;
/** The configuration says the block size. */
export const VIRTIO_BLK_F_BLK_SIZE = 6;
/** Flush; without it every write is durable when it completes. */
export const VIRTIO_BLK_F_FLUSH = 9;
/** The configuration says how blocks lie on the medium. */
export const VIRTIO_BLK_F_TOPOLOGY = 10;
/** The driver may turn the write cache off and on. */
export const VIRTIO_BLK_F_CONFIG_WCE = 11;
/** Several queues. */
export const VIRTIO_BLK_F_MQ = 12;
/** Discard. */
export const VIRTIO_BLK_F_DISCARD = 13;
/** Write zeroes. */
export const VIRTIO_BLK_F_WRITE_ZEROES = 14;

/* ---- configuration (5.2.4) --------------------------------------------------------------------- */

/** Capacity in sectors of 512 bytes, u64. */
export const VIRTIO_BLK_CONFIG_OFF_CAPACITY = 0;
/** Longest segment, u32. */
export const VIRTIO_BLK_CONFIG_OFF_SIZE_MAX = 8;
/** Most segments of a request, u32. */
export const VIRTIO_BLK_CONFIG_OFF_SEG_MAX = 12;
/** Block size, u32. */
export const VIRTIO_BLK_CONFIG_OFF_BLK_SIZE = 20;
/** Logical blocks per physical one, as an exponent of 2, u8. */
export const VIRTIO_BLK_CONFIG_OFF_PHYSICAL_EXP = 24;
/** First aligned logical block, u8. */
export const VIRTIO_BLK_CONFIG_OFF_ALIGNMENT = 25;
/** Smallest access that costs nothing extra, in logical blocks, u16. */
export const VIRTIO_BLK_CONFIG_OFF_MIN_IO = 26;
/** Best size of an access, in logical blocks, u32. */
export const VIRTIO_BLK_CONFIG_OFF_OPT_IO = 28;
/** 1: writes may be cached; written by the driver, u8. */
export const VIRTIO_BLK_CONFIG_OFF_WRITEBACK = 32;
/** Number of queues, u16. */
export const VIRTIO_BLK_CONFIG_OFF_NUM_QUEUES = 34;
/** Longest segment of a discard, in sectors, u32. */
export const VIRTIO_BLK_CONFIG_OFF_MAX_DISCARD_SECTORS = 36;
/** Most segments of a discard, u32. */
export const VIRTIO_BLK_CONFIG_OFF_MAX_DISCARD_SEG = 40;
/** Alignment of discards, in sectors, u32. */
export const VIRTIO_BLK_CONFIG_OFF_DISCARD_ALIGNMENT = 44;
/** Longest segment of a write-zeroes, in sectors, u32. */
export const VIRTIO_BLK_CONFIG_OFF_MAX_ZEROES_SECTORS = 48;
/** Most segments of a write-zeroes, u32. */
export const VIRTIO_BLK_CONFIG_OFF_MAX_ZEROES_SEG = 52;
/** 1: write-zeroes may free what it covers, u8. */
export const VIRTIO_BLK_CONFIG_OFF_ZEROES_MAY_UNMAP = 56;
/** Size of the configuration, up to what is offered here. */
export const VIRTIO_BLK_CONFIG_SIZE = 60;

/* ---- requests (5.2.6) -------------------------------------------------------------------------- */

/** Request: kind, u32. */
export const VIRTIO_BLK_REQUEST_OFF_TYPE = 0;
/** Request: first sector, u64. */
export const VIRTIO_BLK_REQUEST_OFF_SECTOR = 8;
/** Size of what begins every request. */
export const VIRTIO_BLK_REQUEST_SIZE = 16;
/** Kind: read. */
export const VIRTIO_BLK_T_IN = 0;
/** Kind: write. */
export const VIRTIO_BLK_T_OUT = 1;
/** Kind: flush. */
export const VIRTIO_BLK_T_FLUSH = 4;
/** Kind: the serial number. */
export const VIRTIO_BLK_T_GET_ID = 8;
/** Kind: discard. */
export const VIRTIO_BLK_T_DISCARD = 11;
/** Kind: write zeroes. */
export const VIRTIO_BLK_T_WRITE_ZEROES = 13;
/** Length of a serial number, padded with zeroes. */
export const VIRTIO_BLK_ID_SIZE = 20;

/** Segment: first sector, u64. */
export const VIRTIO_BLK_SEGMENT_OFF_SECTOR = 0;
/** Segment: number of sectors, u32. */
export const VIRTIO_BLK_SEGMENT_OFF_SECTORS = 8;
/** Segment: flags, u32. */
export const VIRTIO_BLK_SEGMENT_OFF_FLAGS = 12;
/** Size of a segment. */
export const VIRTIO_BLK_SEGMENT_SIZE = 16;
/** Segment flag: what is zeroed may be freed. */
export const VIRTIO_BLK_SEGMENT_F_UNMAP = 1;

/** Status: done. */
export const VIRTIO_BLK_S_OK = 0;
/** Status: failed. */
export const VIRTIO_BLK_S_IOERR = 1;
/** Status: not offered. */
export const VIRTIO_BLK_S_UNSUPP = 2;
/** Sectors have this size whatever the block size is. */
export const VIRTIO_BLK_SECTOR_SIZE = 512;
