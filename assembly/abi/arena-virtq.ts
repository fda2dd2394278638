/**
 * Private state of a virtqueue endpoint, and what a burst table's entries hold when they describe chains. Like
 * everything in `arena.ts` it lies in an arena, outside every guest region; only the engine and its typed door know it.
 */

/* ---- endpoint: one side of one virtqueue ------------------------------------------------------- */

/** Address of the region table. */
export const VQ_OFF_REGIONS = 0;
/** Number of descriptors. */
export const VQ_OFF_SIZE = 4;
/** `VQ_…` flags: side, format, negotiated features. */
export const VQ_OFF_FLAGS = 8;
/** 0, or the `VQ_VIOLATION_…` that broke this queue. */
export const VQ_OFF_BROKEN = 12;
/** Absolute address of the descriptor area (cache). */
export const VQ_OFF_DESC = 16;
/** Absolute address of the driver area (cache). */
export const VQ_OFF_DRIVER = 20;
/** Absolute address of the device area (cache). */
export const VQ_OFF_DEVICE = 24;
/** Most pieces of a chain. */
export const VQ_OFF_MAX_PIECES = 28;
/** Guest-physical address of the descriptor area, u64. */
export const VQ_OFF_DESC_GPA = 32;
/** Guest-physical address of the driver area, u64. */
export const VQ_OFF_DRIVER_GPA = 40;
/** Guest-physical address of the device area, u64. */
export const VQ_OFF_DEVICE_GPA = 48;
/** Where the next chain is made available or taken: modulo 2^16 (split), position in the ring (packed). */
export const VQ_OFF_AVAIL = 56;
/** Where the next chain is used or reaped: as {@link VQ_OFF_AVAIL}. */
export const VQ_OFF_USED = 60;
/** Packed: wrap counter that goes with {@link VQ_OFF_AVAIL}. */
export const VQ_OFF_AVAIL_WRAP = 64;
/** Packed: wrap counter that goes with {@link VQ_OFF_USED}. */
export const VQ_OFF_USED_WRAP = 68;
/** Split: the peer's index, as last read and checked. */
export const VQ_OFF_PEER = 72;
/** Chains in flight: taken and not completed (device), made available and not reaped (driver). */
export const VQ_OFF_IN_FLIGHT = 76;
/** Descriptors of the ring that they take. */
export const VQ_OFF_SLOTS = 80;
/** Device: chains that the last peek found and no advance took. */
export const VQ_OFF_GRANTED = 84;
/** Device: descriptors of the ring that they take. */
export const VQ_OFF_GRANTED_SLOTS = 88;
/** Device: table of the last peek; entry of the first chain that no advance took. */
export const VQ_OFF_GRANTED_TABLE = 92;
/** Driver: first free record. */
export const VQ_OFF_FREE_HEAD = 96;
/** Address of the records (driver), or of the order list (device, in order). */
export const VQ_OFF_POOL = 100;
/** Driver: guest-physical address of the indirect tables, u64. */
export const VQ_OFF_INDIRECT_GPA = 104;
/** Driver: absolute address of the indirect tables (cache), 0 = none. */
export const VQ_OFF_INDIRECT = 112;
/** Driver: descriptors of each indirect table. */
export const VQ_OFF_INDIRECT_SIZE = 116;
/** Driver, in order: the batch that is being reaped ends with this id; {@link VQ_NO_BATCH}: none. */
export const VQ_OFF_BATCH_ID = 120;
/** Driver, in order: bytes that the device wrote into the last chain of that batch. */
export const VQ_OFF_BATCH_LENGTH = 124;
/** Chains completed (device) or reaped (driver), u64. */
export const VQ_OFF_CHAINS = 128;
/** Bytes that the device wrote, as it said, u64. */
export const VQ_OFF_BYTES = 136;
/** Publications that asked for a notification of the peer, u64. */
export const VQ_OFF_NOTIFIED = 144;
/** Publications that the peer wanted no notification of, u64. */
export const VQ_OFF_SUPPRESSED = 152;
/** Times that enable found something available already, u64. */
export const VQ_OFF_DEFERRED = 160;
/** Violations by kind, u32 each. */
export const VQ_OFF_VIOLATIONS = 176;
/** Size of an endpoint's state. */
export const VQ_STATE_SIZE = 256;

/** Endpoint flag: the driver's side; without it the device's. */
export const VQ_DRIVER = 1;
/** Endpoint flag: packed format. */
export const VQ_PACKED = 2;
/** Endpoint flag: event index negotiated. */
export const VQ_EVENT_INDEX = 4;
/** Endpoint flag: indirect descriptors negotiated. */
export const VQ_INDIRECT = 8;
/** Endpoint flag: in-order use negotiated. */
export const VQ_IN_ORDER = 16;
/** All endpoint flags. */
export const VQ_FLAGS_KNOWN = 31;
/** No batch is being reaped. */
export const VQ_NO_BATCH = 0xffffffff;

/** The peer's index is further ahead than there are descriptors. */
export const VQ_VIOLATION_INDEX = 1;
/** A head, a next or an id that is no descriptor of this queue, or none that is in flight. */
export const VQ_VIOLATION_HEAD = 2;
/** A chain that comes back to itself, or is longer than the queue. */
export const VQ_VIOLATION_LOOP = 3;
/** An indirect table that was not negotiated, lies in another one, goes on behind itself, or has an impossible length. */
export const VQ_VIOLATION_INDIRECT = 4;
/** A buffer to read behind one to write. */
export const VQ_VIOLATION_ORDER = 5;
/** A buffer of no bytes. */
export const VQ_VIOLATION_EMPTY = 6;
/** A buffer or an indirect table outside the guest's memory. */
export const VQ_VIOLATION_ADDRESS = 7;
/** More pieces than this queue takes in one chain. */
export const VQ_VIOLATION_PIECES = 8;
/** More descriptors in flight than the queue has. */
export const VQ_VIOLATION_OVERFLOW = 9;
/** A chain of 2^32 bytes or more, or more bytes written than there was room for. */
export const VQ_VIOLATION_LENGTH = 10;
/** What a device found wrong in a chain: its own format. */
export const VQ_VIOLATION_REQUEST = 11;
/** Number of violation kinds, none included. */
export const VQ_VIOLATION_KINDS = 16;

/* ---- driver's records: one for each descriptor (split) or buffer id (packed) -------------------- */

/** Record: the cookie, u64. */
export const VQ_RECORD_OFF_COOKIE = 0;
/** Record: bytes that the device may write, u32. */
export const VQ_RECORD_OFF_CAPACITY = 8;
/** Record: descriptors that the chain takes, 0 = not in flight, u16. */
export const VQ_RECORD_OFF_SLOTS = 12;
/** Record: the next free one, or the next one of the chain, u16. */
export const VQ_RECORD_OFF_NEXT = 14;
/** Size of a record. */
export const VQ_RECORD_SIZE = 16;
/** Order list of a device with in-order use, one for each descriptor: id u32, bytes that may be written u32. */
export const VQ_ORDER_SIZE = 8;

/* ---- chains in a burst table ------------------------------------------------------------------- */

/** Bytes of the writable part, u32. (From here to {@link CHAIN_OFF_READABLE_PIECES} where frames keep their heads.) */
export const CHAIN_OFF_WRITABLE_BYTES = 32;
/** Pieces of the writable part, u32. */
export const CHAIN_OFF_WRITABLE_PIECES = 36;
/** Pieces of the readable part, u32. */
export const CHAIN_OFF_READABLE_PIECES = 40;
/** Number of the head descriptor (split), or buffer id (packed), u32. */
export const CHAIN_OFF_ID = 28;
/** Descriptors of the ring that the chain takes, u32. */
export const CHAIN_OFF_SLOTS = 56;
/** Bytes that the device wrote, u32; the device sets it before it completes. */
export const CHAIN_OFF_USED = 60;

/** Entry flag, driver: the device writes the buffer (all of its pieces). */
export const CHAIN_WRITABLE = 0x1000000;
/** Entry flag, driver: the piece list holds the readable, then the writable pieces, as many as the entry says. */
export const CHAIN_LISTED = 0x2000000;

/* ---- exported state ---------------------------------------------------------------------------- */

/** Magic of an exported endpoint. (Header as in `arena.ts`: magic, version, length of what follows, 0.) */
export const VQ_STATE_MAGIC = 0x71727664;
/** Version of the exported format. */
export const VQ_STATE_VERSION = 1;
