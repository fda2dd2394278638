/**
 * vblk, the block device (`docs/abi/vblk.md`). An ABI of this project, not of 2009.
 *
 * ```
 *   request      0 tag u32 | 4 op u32 | 8 flags u32 | 12 count u32 | 16 sector u64 | 24 length u64 | 32 piece[count]
 *   piece        0 len u32 | 4 padding | 8 ptr u64
 *   completion   0 tag u32 | 4 status s32 | 8 value u64
 *   info         0 flags u32 | 4 block_size u32 | 8 capacity u64 | 16 max_pieces u32 | 20 max_length u32
 *               24 max_bulk u32 | 28 queue_depth u32 | 32 max_queues u32 | 36 reserved, 28 bytes
 * ```
 */

/** Version that DEVOPEN must ask for. */
export const VBLK_VERSION = 1;

/** Segment: the request ring of the first queue. */
export const VBLK_QUEUE_REQUEST = 0;
/** Segment: the completion ring of the first queue. */
export const VBLK_QUEUE_COMPLETION = 1;
/** Segments of a queue: those of queue q are `q * VBLK_QUEUE_SEGMENTS + VBLK_QUEUE_REQUEST`, and so on. */
export const VBLK_QUEUE_SEGMENTS = 2;

/** Call: read the device's properties and limits ({@link VBLK_INFO_SIZE} bytes). */
export const VBLK_QUERY = 0;

/** Unit of `sector` and of the capacity, in bytes; also the granularity of lengths. */
export const VBLK_SECTOR_SIZE = 512;

/** Size of the block that QUERY fills. */
export const VBLK_INFO_SIZE = 64;
/** Offset of the 32-bit `flags` (`VBLK_INFO_…`). */
export const VBLK_INFO_OFF_FLAGS = 0;
/** Offset of the 32-bit `block_size` in bytes. */
export const VBLK_INFO_OFF_BLOCK_SIZE = 4;
/** Offset of the 64-bit `capacity` in sectors. */
export const VBLK_INFO_OFF_CAPACITY = 8;
/** Offset of the 32-bit `max_pieces`. */
export const VBLK_INFO_OFF_MAX_PIECES = 16;
/** Offset of the 32-bit `max_length` in bytes: the longest read or write. */
export const VBLK_INFO_OFF_MAX_LENGTH = 20;
/** Offset of the 32-bit `max_bulk` in bytes: the longest discard or write-zeroes. */
export const VBLK_INFO_OFF_MAX_BULK = 24;
/** Offset of the 32-bit `queue_depth`. */
export const VBLK_INFO_OFF_QUEUE_DEPTH = 28;
/** Offset of the 32-bit `max_queues`: queues that a session may have; 0 means one. */
export const VBLK_INFO_OFF_MAX_QUEUES = 32;

/** `flags` of info: nothing that changes data is accepted. */
export const VBLK_INFO_READ_ONLY = 1;
/** `flags` of info: discard is supported. */
export const VBLK_INFO_DISCARD = 2;
/** `flags` of info: write-zeroes is supported. */
export const VBLK_INFO_WRITE_ZEROES = 4;

/** Size of a request record without its pieces. */
export const VBLK_REQUEST_SIZE = 32;
/** Size of a request record with as many pieces as there may be. */
export const VBLK_REQUEST_MAX_SIZE = 288;
/** Offset of the 32-bit `tag`: below the queue depth, and not outstanding. */
export const VBLK_REQUEST_OFF_TAG = 0;
/** Offset of the 32-bit `op` (`VBLK_OP_…`). */
export const VBLK_REQUEST_OFF_OP = 4;
/** Offset of the 32-bit `flags` (`VBLK_FLAG_…`). */
export const VBLK_REQUEST_OFF_FLAGS = 8;
/** Offset of the 32-bit `count`: number of pieces. */
export const VBLK_REQUEST_OFF_COUNT = 12;
/** Offset of the 64-bit `sector`. */
export const VBLK_REQUEST_OFF_SECTOR = 16;
/** Offset of the 64-bit `length` in bytes. */
export const VBLK_REQUEST_OFF_LENGTH = 24;
/** Offset of the first piece. */
export const VBLK_REQUEST_OFF_PIECES = 32;

/** Size of a piece. */
export const VBLK_PIECE_SIZE = 16;
/** Offset of the 32-bit `len` in a piece. */
export const VBLK_PIECE_OFF_LENGTH = 0;
/** Offset of the 64-bit guest-physical `ptr` in a piece. */
export const VBLK_PIECE_OFF_POINTER = 8;
/** Most pieces of a request. */
export const VBLK_MAX_PIECES = 16;

/** Operation: medium to memory. */
export const VBLK_OP_READ = 0;
/** Operation: memory to medium. */
export const VBLK_OP_WRITE = 1;
/** Operation: everything that completed before is made durable. */
export const VBLK_OP_FLUSH = 2;
/** Operation: the range's content is not needed any more. */
export const VBLK_OP_DISCARD = 3;
/** Operation: the range reads as zeroes from now on. */
export const VBLK_OP_WRITE_ZEROES = 4;
/** Operation: read the serial number ({@link VBLK_ID_SIZE} bytes). */
export const VBLK_OP_GET_ID = 5;

/** `flags` of a request: a write or write-zeroes completes only when it is durable. */
export const VBLK_FLAG_FUA = 1;

/** Length of the serial number: ASCII, filled up with NUL. */
export const VBLK_ID_SIZE = 20;

/** Size of a completion record. */
export const VBLK_COMPLETION_SIZE = 16;
/** Offset of the 32-bit `tag`. */
export const VBLK_COMPLETION_OFF_TAG = 0;
/** Offset of the signed 32-bit `status`: 0 or a negated errno; of an event: its number (`VBLK_EVENT_…`). */
export const VBLK_COMPLETION_OFF_STATUS = 4;
/** Offset of the 64-bit `value`: bytes transferred; of an event: see there. */
export const VBLK_COMPLETION_OFF_VALUE = 8;

/** `tag` of a completion that is an event. */
export const VBLK_TAG_EVENT = 0xffffffff;
/** Event: the capacity changed; `value` is the new one in sectors. */
export const VBLK_EVENT_RESIZE = 1;

/** Most requests that a device may allow to be outstanding. */
export const VBLK_MAX_DEPTH = 1024;
/** Requests that may be outstanding when nobody says otherwise. */
export const VBLK_DEFAULT_DEPTH = 64;
/** Most queues that a device may allow. */
export const VBLK_MAX_QUEUES = 16;
/** Queues that a session may have when nobody says otherwise. */
export const VBLK_DEFAULT_QUEUES = 4;
/** Longest read or write of this host, in bytes. */
export const VBLK_MAX_LENGTH = 0x100000;
/** Longest discard or write-zeroes of this host, in bytes. */
export const VBLK_MAX_BULK = 0x1000000;
