/**
 * Numbers of the pcapng format (IETF draft-ietf-opsawg-pcapng), for its writer and its reader.
 *
 *     block:  type u32 | total length u32 | body, padded to 4 | total length u32
 *     option: code u16 | length u16 | value, padded to 4
 */

/** Block type: section header. Reads the same in both byte orders. */
export const BLOCK_SECTION = 0x0a0d0d0a;
/** Block type: interface description. */
export const BLOCK_INTERFACE = 1;
/** Block type: packet (obsolete). */
export const BLOCK_PACKET = 2;
/** Block type: simple packet. */
export const BLOCK_SIMPLE_PACKET = 3;
/** Block type: interface statistics. */
export const BLOCK_STATISTICS = 5;
/** Block type: enhanced packet. */
export const BLOCK_ENHANCED_PACKET = 6;
/** Byte-order magic of a section header. */
export const BYTE_ORDER_MAGIC = 0x1a2b3c4d;
/** Type and both lengths. */
export const BLOCK_OVERHEAD = 12;

/** Option: end of options. */
export const OPT_END = 0;
/** Option: comment. */
export const OPT_COMMENT = 1;
/** Section option: application. */
export const OPT_SECTION_APPLICATION = 4;
/** Interface option: name. */
export const OPT_INTERFACE_NAME = 2;
/** Interface option: description. */
export const OPT_INTERFACE_DESCRIPTION = 3;
/** Interface option: resolution of time stamps. */
export const OPT_INTERFACE_TSRESOL = 9;
/** Interface option: seconds to add to time stamps. */
export const OPT_INTERFACE_TSOFFSET = 14;
/** Packet option: flags. */
export const OPT_PACKET_FLAGS = 2;
/** Statistics option: end of the capture. */
export const OPT_STATISTICS_END = 3;
/** Statistics option: frames received. */
export const OPT_STATISTICS_RECEIVED = 4;
/** Statistics option: frames dropped. */
export const OPT_STATISTICS_DROPPED = 5;

/** Packet flags, bits 0 and 1: inbound. */
export const DIRECTION_INBOUND = 1;
/** Packet flags, bits 0 and 1: outbound. */
export const DIRECTION_OUTBOUND = 2;

/** Link type of Ethernet. */
export const LINKTYPE_ETHERNET = 1;
