/** vconsole, the virtual console (`docs/abi/vconsole.md`). */

/** Version that DEVOPEN must ask for. */
export const VCONSOLE_VERSION = 1;

/** Segment: the RX ring, bytes for the guest (RX and TX are the guest's). */
export const VCONSOLE_QUEUE_RX = 0;
/** Segment: the TX ring, bytes from the guest. */
export const VCONSOLE_QUEUE_TX = 1;
/** Segment: the event ring. */
export const VCONSOLE_QUEUE_EVENTS = 2;

/** Call: the guest takes part in a conversation; the result is its number. */
export const VCONSOLE_READY = 0;
/** Call: the guest hangs up, after what is in the TX ring. */
export const VCONSOLE_HANGUP = 1;
/** Call: read the window size (8 bytes). */
export const VCONSOLE_WINSIZE = 2;
/** Call: the guest sends a break, after what is in the TX ring. */
export const VCONSOLE_BREAK = 3;

/** Longest descriptor of the TX ring. */
export const VCONSOLE_CHUNK_MAX = 65536;

/** `winsize`: cols 0/2, rows 2/2, reserved 4/4. */
export const VCONSOLE_WINSIZE_SIZE = 8;
/** Offset of `cols` in a `winsize`. */
export const VCONSOLE_WINSIZE_OFF_COLS = 0;
/** Offset of `rows` in a `winsize`. */
export const VCONSOLE_WINSIZE_OFF_ROWS = 2;

/**
 * Size of an event record.
 *
 * ```
 *    0 flags     4 size
 *    8 id       12 conversation
 *   16 position u64
 *   24 cols u16, rows u16      28 reserved
 * ```
 */
export const VCONSOLE_EVENT_SIZE = 32;
/** Offset of the 32-bit `flags`, 0. */
export const VCONSOLE_EVENT_OFF_FLAGS = 0;
/** Offset of the 32-bit `size`. */
export const VCONSOLE_EVENT_OFF_SIZE = 4;
/** Offset of the 32-bit `id`. */
export const VCONSOLE_EVENT_OFF_ID = 8;
/** Offset of the 32-bit `conversation`. */
export const VCONSOLE_EVENT_OFF_CONVERSATION = 12;
/** Offset of the 64-bit `position`. */
export const VCONSOLE_EVENT_OFF_POSITION = 16;
/** Offset of the 16-bit `cols`. */
export const VCONSOLE_EVENT_OFF_COLS = 24;
/** Offset of the 16-bit `rows`. */
export const VCONSOLE_EVENT_OFF_ROWS = 26;

/** Event: the window has another size. */
export const VCONSOLE_EVENT_WINSIZE = 0;
/** Event: the conversation begins. */
export const VCONSOLE_EVENT_OPENED = 1;
/** Event: the terminal hung up. */
export const VCONSOLE_EVENT_HANGUP = 2;
/** Event: the terminal sent a break. */
export const VCONSOLE_EVENT_BREAK = 3;
