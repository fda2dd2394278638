/**
 * The bridge as a PCI function: identity, configuration space, base address registers
 * (`docs/abi/vbus-pci.md` sections 1, 3 and 4; the layout of the standard header is that of PCI 3.0 section 6.1,
 * that of the MSI capability section 6.8.1).
 *
 *     byte  +3        +2        +1        +0
 *         +---------+---------+---------+---------+
 *      00 | device 2000       | vendor 11da       |
 *      04 | status            | command           |
 *      08 | class 0680        | prog 00 | rev 02  |
 *      0c | BIST    | type 00 | latency | line sz |
 *      10 | BAR 0: memory, 64 bytes               |
 *      14 | BAR 1: I/O ports, 32 bytes            |
 *      18 | BAR 2 … 5, CardBus: none              |
 *      2c | subsystem 1100    | vendor 1af4       |
 *      34 |                             | cap 40  |
 *      3c | max lat | min gnt | pin 01  | line    |
 *      40 | message control   | next 00 | id 05   |
 *      44 | message address                       |
 *      48 |                   | message data      |
 *         +---------+---------+---------+---------+
 */

/** Vendor. */
export const PCI_VENDOR = 0x11da;
/** Device. */
export const PCI_DEVICE = 0x2000;
/** Class and subclass: bridge, other. */
export const PCI_CLASS = 0x0680;
/** Subsystem vendor. */
export const PCI_SUBSYSTEM_VENDOR = 0x1af4;
/** Subsystem. */
export const PCI_SUBSYSTEM_DEVICE = 0x1100;
/** Interrupt pin: INTA. */
export const PCI_INTERRUPT_PIN = 1;

/** Size of a function's configuration space. */
export const PCI_CONFIG_SIZE = 256;
/** Offset of the vendor. */
export const PCI_OFF_VENDOR = 0x00;
/** Offset of the device. */
export const PCI_OFF_DEVICE = 0x02;
/** Offset of the command register. */
export const PCI_OFF_COMMAND = 0x04;
/** Offset of the status register. */
export const PCI_OFF_STATUS = 0x06;
/** Offset of the revision. */
export const PCI_OFF_REVISION = 0x08;
/** Offset of class and subclass. */
export const PCI_OFF_CLASS = 0x0a;
/** Offset of the cache line size, which is plain storage. */
export const PCI_OFF_CACHE_LINE = 0x0c;
/** Offset of the latency timer, which is plain storage. */
export const PCI_OFF_LATENCY = 0x0d;
/** Offset of base address register 0. */
export const PCI_OFF_BAR0 = 0x10;
/** Offset of base address register 1. */
export const PCI_OFF_BAR1 = 0x14;
/** Offset of the subsystem vendor. */
export const PCI_OFF_SUBSYSTEM_VENDOR = 0x2c;
/** Offset of the subsystem. */
export const PCI_OFF_SUBSYSTEM_DEVICE = 0x2e;
/** Offset of the first capability's offset. */
export const PCI_OFF_CAPABILITIES = 0x34;
/** Offset of the interrupt line, which is plain storage. */
export const PCI_OFF_INTERRUPT_LINE = 0x3c;
/** Offset of the interrupt pin. */
export const PCI_OFF_INTERRUPT_PIN = 0x3d;

/** Command bit: the function answers to I/O ports. */
export const PCI_COMMAND_IO = 1;
/** Command bit: the function answers to memory. */
export const PCI_COMMAND_MEMORY = 2;
/** Command bit: the function may reach memory. */
export const PCI_COMMAND_MASTER = 4;
/** Command bit: the function must not raise INTx. */
export const PCI_COMMAND_INTX_DISABLE = 0x400;
/** Command bits that a guest can set here. */
export const PCI_COMMAND_WRITABLE = 0x407;
/** Status bit: an INTx interrupt is pending. */
export const PCI_STATUS_INTERRUPT = 8;
/** Status bit: there is a capability list. */
export const PCI_STATUS_CAPABILITIES = 0x10;

/** Offset of the MSI capability, and its id. */
export const PCI_MSI_OFFSET = 0x40;
/** Length that the MSI capability takes. */
export const PCI_MSI_SIZE = 16;
/** Capability id of MSI. */
export const PCI_MSI_ID = 5;
/** Offset of message control: one vector, 32-bit address, no mask. */
export const PCI_MSI_OFF_CONTROL = 0x42;
/** Offset of the message address. */
export const PCI_MSI_OFF_ADDRESS = 0x44;
/** Offset of the message data. */
export const PCI_MSI_OFF_DATA = 0x48;
/** Message control bit: MSI is enabled. */
export const PCI_MSI_ENABLE = 1;

/** BAR 0: bridge-call registers, in memory. */
export const BAR0_SIZE = 64;
/** BAR 0: offset of `vector`. A 32-bit read here makes the call and returns its result. */
export const BAR0_OFF_VECTOR = 0;
/** BAR 0: offset of `len`. */
export const BAR0_OFF_LEN = 4;
/** BAR 0: offset of the 64-bit `datap`. */
export const BAR0_OFF_DATAP = 8;
/** BAR 1: doorbells, I/O ports (`PORT_…`). */
export const BAR1_SIZE = 32;
/** BAR 1: a 32-bit read returns and clears the INTx status (`docs/abi/extensions.md` section 3). */
export const PORT_INTX_STATUS = 12;
/** Bit of the INTx status: this bridge raised the line. */
export const INTX_STATUS_RAISED = 1;
