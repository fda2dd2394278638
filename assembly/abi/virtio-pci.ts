/**
 * Virtio over PCI (Virtual I/O Device specification, version 1.2, section 4.1; sections below are its own): identity,
 * vendor capabilities, the common configuration, and where this package's functions put all that.
 *
 *     capability (4.1.4)                         common configuration (4.1.4.3)
 *     byte  +3      +2      +1      +0           byte  +3      +2      +1      +0
 *         +-------+-------+-------+-------+          +-------+-------+-------+-------+
 *      00 | type  | len   | next  | id 09 |       00 | device_feature_select         |
 *      04 | padding       | id    | bar   |       04 | device_feature                |
 *      08 | offset                        |       08 | driver_feature_select         |
 *      0c | length                        |       0c | driver_feature                |
 *         +-------+-------+-------+-------+       10 | num_queues    | config_vector |
 *      10 | notify: multiplier            |       14 | queue_select  | gen   | status|
 *         | access: data                  |       18 | queue_vector  | queue_size    |
 *         +-------+-------+-------+-------+       1c | notify_off    | queue_enable  |
 *                                                 20 | queue_desc                    |
 *     the register BAR, 256 ports or 4 KiB        28 | queue_driver                  |
 *         +-------------------------------+       30 | queue_device                  |
 *      00 | common configuration          |       38 | queue_reset   | notify_data   |
 *      40 | notification: all queues      |          +-------+-------+-------+-------+
 *      44 | ISR status                    |
 *      48 | device configuration          |       the MSI-X BAR, 4 KiB of memory
 *         +-------------------------------+          000: table   800: pending bits
 */

/** Vendor of all virtio functions (4.1.2). */
export const VIRTIO_PCI_VENDOR = 0x1af4;
/** Device of a function: this and the device's type (4.1.2). */
export const VIRTIO_PCI_DEVICE = 0x1040;
/** Revision: not transitional (4.1.2.1). */
export const VIRTIO_PCI_REVISION = 1;
/** Subsystem: at least this, for devices that are not transitional (4.1.2.1). */
export const VIRTIO_PCI_SUBSYSTEM = 0x40;

/** Capability id: vendor-specific. */
export const VIRTIO_PCI_CAP_ID = 9;
/** Capability: offset of its length. */
export const VIRTIO_PCI_CAP_OFF_LENGTH = 2;
/** Capability: offset of what it describes. */
export const VIRTIO_PCI_CAP_OFF_TYPE = 3;
/** Capability: offset of the number of the BAR. */
export const VIRTIO_PCI_CAP_OFF_BAR = 4;
/** Capability: offset of the offset in that BAR. */
export const VIRTIO_PCI_CAP_OFF_OFFSET = 8;
/** Capability: offset of the length there. */
export const VIRTIO_PCI_CAP_OFF_SIZE = 12;
/** Length of a capability. */
export const VIRTIO_PCI_CAP_SIZE = 16;
/** Notification capability: offset of the multiplier of notify offsets. */
export const VIRTIO_PCI_NOTIFY_CAP_OFF_MULTIPLIER = 16;
/** Access capability: offset of the data. */
export const VIRTIO_PCI_ACCESS_CAP_OFF_DATA = 16;
/** Length of a notification or access capability. */
export const VIRTIO_PCI_CAP_LONG_SIZE = 20;

/** Type: common configuration (4.1.4.3). */
export const VIRTIO_PCI_CAP_COMMON = 1;
/** Type: notifications (4.1.4.4). */
export const VIRTIO_PCI_CAP_NOTIFY = 2;
/** Type: ISR status (4.1.4.5). */
export const VIRTIO_PCI_CAP_ISR = 3;
/** Type: device-specific configuration (4.1.4.6). */
export const VIRTIO_PCI_CAP_DEVICE = 4;
/** Type: access to BARs through configuration space (4.1.4.9). */
export const VIRTIO_PCI_CAP_ACCESS = 5;

/** Common: which 32 bits `device_feature` shows. */
export const VIRTIO_PCI_COMMON_OFF_DEVICE_FEATURE_SELECT = 0x00;
/** Common: 32 offered bits; read-only. */
export const VIRTIO_PCI_COMMON_OFF_DEVICE_FEATURE = 0x04;
/** Common: which 32 bits `driver_feature` is. */
export const VIRTIO_PCI_COMMON_OFF_DRIVER_FEATURE_SELECT = 0x08;
/** Common: 32 chosen bits. */
export const VIRTIO_PCI_COMMON_OFF_DRIVER_FEATURE = 0x0c;
/** Common: MSI-X vector of configuration changes. */
export const VIRTIO_PCI_COMMON_OFF_CONFIG_VECTOR = 0x10;
/** Common: number of queues; read-only. */
export const VIRTIO_PCI_COMMON_OFF_NUM_QUEUES = 0x12;
/** Common: device status, 8 bits. */
export const VIRTIO_PCI_COMMON_OFF_STATUS = 0x14;
/** Common: generation of the configuration, 8 bits; read-only. */
export const VIRTIO_PCI_COMMON_OFF_GENERATION = 0x15;
/** Common: which queue the fields below are of. */
export const VIRTIO_PCI_COMMON_OFF_QUEUE_SELECT = 0x16;
/** Common: descriptors of the queue; 0 where there is none. */
export const VIRTIO_PCI_COMMON_OFF_QUEUE_SIZE = 0x18;
/** Common: MSI-X vector of the queue. */
export const VIRTIO_PCI_COMMON_OFF_QUEUE_VECTOR = 0x1a;
/** Common: 1 enables the queue. */
export const VIRTIO_PCI_COMMON_OFF_QUEUE_ENABLE = 0x1c;
/** Common: where its notifications go, in multipliers; read-only. */
export const VIRTIO_PCI_COMMON_OFF_QUEUE_NOTIFY_OFF = 0x1e;
/** Common: address of the descriptor area, 64 bits. */
export const VIRTIO_PCI_COMMON_OFF_QUEUE_DESC = 0x20;
/** Common: address of the driver area, 64 bits. */
export const VIRTIO_PCI_COMMON_OFF_QUEUE_DRIVER = 0x28;
/** Common: address of the device area, 64 bits. */
export const VIRTIO_PCI_COMMON_OFF_QUEUE_DEVICE = 0x30;
/** Common: what to write to the notification register (NOTIF_CONFIG_DATA); read-only. */
export const VIRTIO_PCI_COMMON_OFF_QUEUE_NOTIFY_DATA = 0x38;
/** Common: 1 resets the queue (RING_RESET). */
export const VIRTIO_PCI_COMMON_OFF_QUEUE_RESET = 0x3a;
/** Length of the common configuration. */
export const VIRTIO_PCI_COMMON_SIZE = 0x3c;

/** A vector that is none: answer to one that the function does not have (4.1.5.1.2). */
export const VIRTIO_MSI_NO_VECTOR = 0xffff;
/** ISR bit: a queue used buffers. */
export const VIRTIO_ISR_QUEUE = 1;
/** ISR bit: the configuration changed. */
export const VIRTIO_ISR_CONFIG = 2;

/** Register BAR of this package's functions. */
export const VIRTIO_PCI_REGISTER_BAR = 0;
/** MSI-X BAR of this package's functions. */
export const VIRTIO_PCI_MSIX_BAR = 1;
/** Register BAR: offset of the common configuration. */
export const VIRTIO_PCI_OFF_COMMON = 0x00;
/** Register BAR: offset of the notification register, which all queues share. */
export const VIRTIO_PCI_OFF_NOTIFY = 0x40;
/** Length of the notification register. */
export const VIRTIO_PCI_NOTIFY_SIZE = 4;
/** Register BAR: offset of the ISR status, 8 bits. */
export const VIRTIO_PCI_OFF_ISR = 0x44;
/** Register BAR: offset of the device configuration. */
export const VIRTIO_PCI_OFF_DEVICE = 0x48;
/** Length of the register BAR, when it is ports; the device configuration ends here at the latest. */
export const VIRTIO_PCI_PORTS = 0x100;
/** Length of a BAR in memory. */
export const VIRTIO_PCI_MEMORY_SIZE = 0x1000;
/** MSI-X BAR: offset of the table. */
export const VIRTIO_PCI_OFF_MSIX_TABLE = 0;
/** MSI-X BAR: offset of the pending bits. */
export const VIRTIO_PCI_OFF_MSIX_PENDING = 0x800;
/** Most vectors that the MSI-X BAR has room for. */
export const VIRTIO_PCI_VECTORS_MAX = 128;
