/*
 * The toy machine's physical addresses. The guest program has the same numbers in guest/machine.h.
 *
 *     00100000  power        write 0x5555: off, exit code in the upper half; 0x7777: reset
 *     02000000  timer        mtime, mtimecmp (as in a CLINT)
 *     0c000000  interrupts   pending, enable: 31 lines
 *     10000000  console      a 16550 as far as polling needs one
 *     10010000  free         for what is attached from outside: pages that nobody has read as zeros
 *     80000000  RAM
 */

/** Power register. */
export const POWER_BASE = 0x0010_0000;
/** Timer. */
export const TIMER_BASE = 0x0200_0000;
/** Interrupt controller. */
export const INTERRUPTS_BASE = 0x0c00_0000;
/** Console. */
export const CONSOLE_BASE = 0x1000_0000;
/** First page for registers from outside. */
export const ATTACH_BASE = 0x1001_0000;
/** Between these, addresses without a device read as zeros; anywhere else an access that finds nothing is a fault. */
export const DEVICES_START = POWER_BASE;
/** End of that. */
export const DEVICES_END = 0x2000_0000;
/** First byte of RAM, where the guest's program begins. */
export const RAM_BASE = 0x8000_0000;
