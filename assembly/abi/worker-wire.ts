/**
 * The worker wire: the doorbell page and its call slots (`docs/abi/worker-wire.md`). Ours, not part of the ABI of 2009.
 *
 * ```
 *    0 magic            4 version
 *    8 host state      12 guest state
 *   16 number of slots
 *   24 host heartbeat  28 guest heartbeat
 *   64 towards-host sequence           128 towards-host bitmap, 32 words
 *  256 towards-guest sequence          320 towards-guest bitmap, 32 words
 *  448 towards-host leftovers          452 towards-guest leftovers (frame links)
 * 1024 call slots, 64 bytes each:
 *       0 state   4 vector   8 len   16 datap low   20 datap high   24 result   28 serial
 * ```
 *
 * Every member is a 32-bit word, and every access to one is a 32-bit atomic.
 */

/** Value of `magic`. */
export const LINK_MAGIC = 0x76627573;
/** Value of `version`. */
export const LINK_VERSION = 1;
/** Size of the page. */
export const LINK_SIZE = 4096;
/** Alignment of the page that keeps its parts in cache lines of their own. */
export const LINK_ALIGN = 64;

/** Offset of `magic`. */
export const LINK_OFF_MAGIC = 0;
/** Offset of `version`. */
export const LINK_OFF_VERSION = 4;
/** Offset of the host's state. */
export const LINK_OFF_HOST_STATE = 8;
/** Offset of the guest's state. */
export const LINK_OFF_GUEST_STATE = 12;
/** Offset of the number of call slots. */
export const LINK_OFF_SLOTS = 16;
/** Offset of the host's heartbeat. */
export const LINK_OFF_HOST_HEARTBEAT = 24;
/** Offset of the guest's heartbeat. */
export const LINK_OFF_GUEST_HEARTBEAT = 28;
/** Offset of the sequence word that the host waits on. */
export const LINK_OFF_HOST_SEQUENCE = 64;
/** Offset of the doorbells towards the host. */
export const LINK_OFF_HOST_BITMAP = 128;
/** Offset of the sequence word that the guest waits on. */
export const LINK_OFF_GUEST_SEQUENCE = 256;
/** Offset of the doorbells towards the guest. */
export const LINK_OFF_GUEST_BITMAP = 320;
/** Offset of the word that says who accounts for frames left in the ring towards the host (frame links). */
export const LINK_OFF_HOST_LEFTOVERS = 448;
/** Offset of the word that says who accounts for frames left in the ring towards the guest (frame links). */
export const LINK_OFF_GUEST_LEFTOVERS = 452;
/** Offset of call slot 0. */
export const LINK_OFF_CALLS = 1024;

/** State of a side: not there yet. */
export const LINK_ABSENT = 0;
/** State of a side: attached. */
export const LINK_ATTACHED = 1;
/** State of a side: closed, broken or gone; final. */
export const LINK_GONE = 2;

/** Words of a doorbell bitmap. */
export const LINK_BITMAP_WORDS = 32;
/** Doorbell, both directions: look at the call slots. */
export const BELL_CALLS = 0;
/** Doorbell: the event queue (towards the host its doorbell, towards the guest the interrupt). */
export const BELL_EVENTQ = 1;
/** First doorbell of signal handles: handle h rings {@link BELL_SIGNALS} + h mod {@link BELL_RESIDUES}. */
export const BELL_SIGNALS = 2;
/** Number of doorbells that signal handles share. */
export const BELL_RESIDUES = 1022;

/** Doorbell of a frame link: the ring from the one that rings exists now, and may be attached. */
export const BELL_RING_READY = 0;
/** Doorbell of a frame link: the ring of the one that is rung was attached; frames may be sent. */
export const BELL_RING_ATTACHED = 1;
/** Doorbell of a frame link: the signal of the ring towards the one that is rung (frames came). */
export const BELL_RING_FRAMES = 2;
/** Doorbell of a frame link: the signal of the ring from the one that is rung (room came). */
export const BELL_RING_ROOM = 3;

/** Fewest call slots. */
export const SLOTS_MIN = 1;
/** Most call slots: what the page has room for. */
export const SLOTS_MAX = 48;
/** Call slots by default. */
export const SLOTS_DEFAULT = 8;
/** Size of a call slot. */
export const SLOT_SIZE = 64;
/** Offset of `state` in a slot. */
export const SLOT_OFF_STATE = 0;
/** Offset of `vector`. */
export const SLOT_OFF_VECTOR = 4;
/** Offset of `len`. */
export const SLOT_OFF_LEN = 8;
/** Offset of the low half of `datap`. */
export const SLOT_OFF_DATAP_LOW = 16;
/** Offset of the high half of `datap`. */
export const SLOT_OFF_DATAP_HIGH = 20;
/** Offset of the signed `result`. */
export const SLOT_OFF_RESULT = 24;
/** Offset of `serial`. */
export const SLOT_OFF_SERIAL = 28;

/** Slot state: free. */
export const SLOT_IDLE = 0;
/** Slot state: the guest made a call. */
export const SLOT_POSTED = 1;
/** Slot state: the host executes it. */
export const SLOT_TAKEN = 2;
/** Slot state: the result is there. */
export const SLOT_DONE = 3;
/** Slot state: the guest timed out before the host took it. */
export const SLOT_CANCELLED = 4;
