/**
 * MSI-X (PCI Local Bus Specification 3.0, section 6.8.2): a capability that says where table and pending bits are, and the
 * table, in memory of the function.
 *
 *     capability                                     table entry
 *     byte  +3        +2        +1        +0
 *         +---------+---------+---------+---------+      +-----------------------+
 *      00 | message control   | next    | id 11   |   00 | message address       |
 *      04 | table: offset            | BAR number |   04 | upper half of it      |
 *      08 | pending: offset          | BAR number |   08 | message data          |
 *         +---------+---------+---------+---------+   0c | vector control        |
 *                                                        +-----------------------+
 */

/** Capability id of MSI-X. */
export const PCI_MSIX_ID = 0x11;
/** Length of the capability. */
export const PCI_MSIX_SIZE = 12;
/** Capability: offset of message control. */
export const PCI_MSIX_OFF_CONTROL = 2;
/** Capability: offset of the table's place; the low three bits are the number of the BAR. */
export const PCI_MSIX_OFF_TABLE = 4;
/** Capability: offset of the pending bits' place, likewise. */
export const PCI_MSIX_OFF_PENDING = 8;
/** Message control: vectors - 1. */
export const PCI_MSIX_VECTORS = 0x7ff;
/** Message control bit: no vector may interrupt. */
export const PCI_MSIX_FUNCTION_MASK = 0x4000;
/** Message control bit: MSI-X is enabled. */
export const PCI_MSIX_ENABLE = 0x8000;

/** Length of a table entry. */
export const MSIX_ENTRY_SIZE = 16;
/** Entry: offset of the message address. */
export const MSIX_ENTRY_OFF_ADDRESS = 0;
/** Entry: offset of its upper half. */
export const MSIX_ENTRY_OFF_ADDRESS_HIGH = 4;
/** Entry: offset of the message data. */
export const MSIX_ENTRY_OFF_DATA = 8;
/** Entry: offset of the vector control. */
export const MSIX_ENTRY_OFF_CONTROL = 12;
/** Vector control bit: this vector must not interrupt. */
export const MSIX_ENTRY_MASKED = 1;
