/**
 * shm-signal: the shared notification record (`docs/abi/shm-signal.md` section 1).
 *
 * ```
 *   0        4        8   9   10  11  12  13  14    16
 *   +--------+--------+---+---+---+---+---+---+-----+
 *   | magic  |  ver   | E | P | D | E | P | D | pad |
 *   +--------+--------+---+---+---+---+---+---+-----+
 *                      irq[0]north  irq[1]south
 * ```
 *
 * `irq[n]` describes notifications received by locale n. E = enabled, P = pending, D = dirty.
 * Every access to these six bytes is a single-byte access (defect R3).
 */

/** Locale of the memory owner (guest, driver). */
export const NORTH = 0;
/** Locale of the host (device). */
export const SOUTH = 1;

/** Value of `magic`. */
export const SIGNAL_MAGIC = 0x58fa39df;
/** Value of `ver`. */
export const SIGNAL_VERSION = 1;
/** Size of the record in bytes. */
export const SIGNAL_SIZE = 16;

/** Offset of the 32-bit `magic`. */
export const SIGNAL_OFF_MAGIC = 0;
/** Offset of the 32-bit `ver`. */
export const SIGNAL_OFF_VERSION = 4;
/** Offset of `irq[0]`; `irq[1]` follows {@link SIGNAL_IRQ_SIZE} bytes later. */
export const SIGNAL_OFF_IRQ = 8;
/** Size of one `irq` record. */
export const SIGNAL_IRQ_SIZE = 3;
/** Offset of `enabled` in an `irq` record. */
export const IRQ_OFF_ENABLED = 0;
/** Offset of `pending` in an `irq` record. */
export const IRQ_OFF_PENDING = 1;
/** Offset of `dirty` in an `irq` record. */
export const IRQ_OFF_DIRTY = 2;
