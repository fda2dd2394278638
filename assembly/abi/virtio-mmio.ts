/**
 * Virtio over memory-mapped registers (Virtual I/O Device specification, version 1.2, section 4.2.2): 512 bytes or more.
 * Registers below 0x100 are 32 bits wide, and accessed as such; R: read-only, W: write-only.
 *
 *     000 R  magic value            050 W  queue: notify             0ac W  shared memory: select
 *     004 R  version                060 R  interrupt status          0b0 R  … length (64 bits)
 *     008 R  device type            064 W  interrupt acknowledge     0b8 R  … base (64 bits)
 *     00c R  vendor                 070    status                    0c0    queue: reset
 *     010 R  device features        080 W  queue: descriptor area    0fc R  configuration generation
 *     014 W  … select               090 W  queue: driver area        100    device configuration
 *     020 W  driver features        0a0 W  queue: device area
 *     024 W  … select                      (64 bits each)
 *     030 W  queue: select
 *     034 R  queue: most descriptors
 *     038 W  queue: descriptors
 *     044    queue: ready
 */

/** Contents of the magic value register: "virt". */
export const VIRTIO_MMIO_MAGIC = 0x74726976;
/** Contents of the version register: not the legacy interface. */
export const VIRTIO_MMIO_VERSION = 2;

/** Register: magic value. */
export const VIRTIO_MMIO_OFF_MAGIC = 0x000;
/** Register: version. */
export const VIRTIO_MMIO_OFF_VERSION = 0x004;
/** Register: device type. */
export const VIRTIO_MMIO_OFF_DEVICE_ID = 0x008;
/** Register: vendor. */
export const VIRTIO_MMIO_OFF_VENDOR_ID = 0x00c;
/** Register: 32 offered feature bits. */
export const VIRTIO_MMIO_OFF_DEVICE_FEATURES = 0x010;
/** Register: which. */
export const VIRTIO_MMIO_OFF_DEVICE_FEATURES_SELECT = 0x014;
/** Register: 32 chosen feature bits. */
export const VIRTIO_MMIO_OFF_DRIVER_FEATURES = 0x020;
/** Register: which. */
export const VIRTIO_MMIO_OFF_DRIVER_FEATURES_SELECT = 0x024;
/** Register: which queue the queue registers are of. */
export const VIRTIO_MMIO_OFF_QUEUE_SELECT = 0x030;
/** Register: most descriptors of the queue; 0 where there is none. */
export const VIRTIO_MMIO_OFF_QUEUE_MAX = 0x034;
/** Register: its descriptors. */
export const VIRTIO_MMIO_OFF_QUEUE_SIZE = 0x038;
/** Register: 1 enables the queue, 0 stops it. */
export const VIRTIO_MMIO_OFF_QUEUE_READY = 0x044;
/** Register: kicks a queue. */
export const VIRTIO_MMIO_OFF_QUEUE_NOTIFY = 0x050;
/** Register: why the device interrupts (`VIRTIO_ISR_…`). */
export const VIRTIO_MMIO_OFF_INTERRUPT_STATUS = 0x060;
/** Register: clears bits of that. */
export const VIRTIO_MMIO_OFF_INTERRUPT_ACK = 0x064;
/** Register: device status. */
export const VIRTIO_MMIO_OFF_STATUS = 0x070;
/** Register: descriptor area of the queue, 64 bits. */
export const VIRTIO_MMIO_OFF_QUEUE_DESC = 0x080;
/** Register: driver area of the queue, 64 bits. */
export const VIRTIO_MMIO_OFF_QUEUE_DRIVER = 0x090;
/** Register: device area of the queue, 64 bits. */
export const VIRTIO_MMIO_OFF_QUEUE_DEVICE = 0x0a0;
/** Register: which shared memory region the next four are of. */
export const VIRTIO_MMIO_OFF_SHM_SELECT = 0x0ac;
/** Registers: length and base of a shared memory region; all ones: there is none. */
export const VIRTIO_MMIO_OFF_SHM = 0x0b0;
/** Register: 1 resets the queue. */
export const VIRTIO_MMIO_OFF_QUEUE_RESET = 0x0c0;
/** Register: generation of the configuration. */
export const VIRTIO_MMIO_OFF_GENERATION = 0x0fc;
/** Where the device configuration begins. */
export const VIRTIO_MMIO_OFF_CONFIG = 0x100;
/** Length of everything. */
export const VIRTIO_MMIO_SIZE = 0x200;
