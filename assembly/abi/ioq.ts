/**
 * IOQ version 4: the ring segment (`docs/abi/ioq.md` section 1).
 *
 * ```
 *    0 magic      4 ver
 *    8 shm-signal record, 16 bytes
 *   24 idx[0] "valid":  head, tail, full, pad[3]
 *   36 idx[1] "inuse":  head, tail, full, pad[3]
 *   48 count     52 padding / extension word (docs/abi/extensions.md)
 *   56 ring[count], 32 bytes each            (LP64 layout)
 *   52 ring[count], 28 bytes each            (i386 layout of 2009)
 *
 *   descriptor:  0 cookie u64 | 8 ptr u64 | 16 len u64 | 24 valid u8 | 25 sown u8 | pad
 * ```
 */

/** Value of `magic`. */
export const IOQ_MAGIC = 0x47fa2fe4;
/** Value of `ver`. */
export const IOQ_VERSION = 4;

/** Offset of the 32-bit `magic`. */
export const IOQ_OFF_MAGIC = 0;
/** Offset of the 32-bit `ver`. */
export const IOQ_OFF_VERSION = 4;
/** Offset of the embedded shm-signal record. */
export const IOQ_OFF_SIGNAL = 8;
/** Offset of `idx[0]`; `idx[1]` follows {@link IOQ_IDX_SIZE} bytes later. */
export const IOQ_OFF_IDX = 24;
/** Size of one index record. */
export const IOQ_IDX_SIZE = 12;
/** Offset of the 32-bit `head` in an index record. */
export const IDX_OFF_HEAD = 0;
/** Offset of the 32-bit `tail` in an index record. */
export const IDX_OFF_TAIL = 4;
/** Offset of the byte `full` in an index record. */
export const IDX_OFF_FULL = 8;
/** Offset of the 32-bit `count`. */
export const IOQ_OFF_COUNT = 48;
/** Offset of the extension word (padding in strict v4; LP64 layout only). */
export const IOQ_OFF_EXTENSION = 52;

/** Offset of the first descriptor, LP64 layout. */
export const IOQ_OFF_RING = 56;
/** Size of a descriptor, LP64 layout. */
export const IOQ_DESC_SIZE = 32;
/** Offset of the first descriptor, i386 layout of 2009. */
export const IOQ_OFF_RING_ILP32 = 52;
/** Size of a descriptor, i386 layout of 2009. */
export const IOQ_DESC_SIZE_ILP32 = 28;

/** Offset of the 64-bit `cookie` in a descriptor. */
export const DESC_OFF_COOKIE = 0;
/** Offset of the 64-bit `ptr` in a descriptor. */
export const DESC_OFF_PTR = 8;
/** Offset of the 64-bit `len` in a descriptor. */
export const DESC_OFF_LEN = 16;
/** Offset of the byte `valid` in a descriptor: north's private mark. */
export const DESC_OFF_VALID = 24;
/** Offset of the byte `sown` in a descriptor: who owns it. */
export const DESC_OFF_SOWN = 25;

/** Offset of the 64-bit `ptr` in a compact descriptor (docs/abi/extensions.md 5). */
export const COMPACT_OFF_PTR = 0;
/** Offset of the 32-bit `len` in a compact descriptor. */
export const COMPACT_OFF_LEN = 8;
/** Offset of the byte `sown` in a compact descriptor; three bytes that are 0 follow it. */
export const COMPACT_OFF_SOWN = 12;
/** Size of a compact descriptor. */
export const COMPACT_DESC_SIZE = 16;
/** Size of a cookie in the list that follows the compact descriptors; a list of the bytes `valid` follows that one. */
export const COMPACT_COOKIE_SIZE = 8;

/** Index type "valid": descriptors that north has put into service. */
export const IDX_VALID = 0;
/** Index type "inuse": descriptors that carry payload. */
export const IDX_INUSE = 1;
/** Index type "both": iterators bound to valid that move inuse as well. */
export const IDX_BOTH = 2;

/** Seek to the index's tail. */
export const SEEK_TAIL = 0;
/** Seek one position on, wrapping. */
export const SEEK_NEXT = 1;
/** Seek to the index's head. */
export const SEEK_HEAD = 2;
/** Seek to a given position. */
export const SEEK_SET = 3;

/** Iterator flag: signal the peer after every push and pop. */
export const ITER_AUTOUPDATE = 1;
/** Iterator flag: push and pop leave `sown` alone. */
export const ITER_NOFLIPOWNER = 2;

/** Host limit on `count` for device queues and for the bridge's event queue. */
export const IOQ_MAX_COUNT = 2048;

/** Extension bit: shared indexes are written lazily (docs/abi/extensions.md). */
export const EXT_LAZY_INDEXES = 1;
/** Extension bit: descriptors of 16 bytes (docs/abi/extensions.md). */
export const EXT_COMPACT = 2;
/** Extension word: set by south, together with the bits it accepts. */
export const EXT_ACCEPTED = 0x80000000;
/** Extension bits that this implementation knows. */
export const EXT_KNOWN = 3;
