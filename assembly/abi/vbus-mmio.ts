/**
 * The bridge as a page of memory-mapped registers, and as hypercalls (`docs/abi/vbus-mmio.md`). An ABI of this project, not
 * of 2009: what the calls, blocks, records and rings are is that of the PCI bridge.
 *
 * Registers are 32 bits wide, and accessed as such; R: read-only, W: write-only.
 *
 *     000 R  magic value       010    datap, low half     030 W  doorbell: event queue    040 R  interrupt status
 *     004 R  version           014    datap, high half    034 W  doorbell: fastcall       044 W  interrupt acknowledge
 *     008 R  bus-call version  018    len                 038 W  doorbell: signal         050 W  reset
 *     00c R  features          01c W  call: vector                                        054 R  state
 *                              020 R  result
 */

/** Contents of the magic value register: "vbus". */
export const VBUS_MMIO_MAGIC = 0x73756276;
/** Contents of the version register. */
export const VBUS_MMIO_VERSION = 1;
/** Contents of the features register: none are defined. */
export const VBUS_MMIO_FEATURES = 0;
/** Length of everything. */
export const VBUS_MMIO_SIZE = 0x1000;

/** Register: magic value. */
export const VBUS_MMIO_OFF_MAGIC = 0x000;
/** Register: version of this page. */
export const VBUS_MMIO_OFF_VERSION = 0x004;
/** Register: version of the bus calls, which NEGOTIATE is to name. */
export const VBUS_MMIO_OFF_HC_VERSION = 0x008;
/** Register: what this page can do beyond its version. */
export const VBUS_MMIO_OFF_FEATURES = 0x00c;
/** Register: guest-physical address of the parameter block, low half. */
export const VBUS_MMIO_OFF_DATAP_LOW = 0x010;
/** Register: high half. */
export const VBUS_MMIO_OFF_DATAP_HIGH = 0x014;
/** Register: length of the parameter block. */
export const VBUS_MMIO_OFF_LEN = 0x018;
/** Register: executes the bridge call whose vector is written. */
export const VBUS_MMIO_OFF_CALL = 0x01c;
/** Register: result of the last one. */
export const VBUS_MMIO_OFF_RESULT = 0x020;
/** Register: doorbell of the event queue. */
export const VBUS_MMIO_OFF_EVENTQ = 0x030;
/** Register: executes the fastcall channel whose id is written. */
export const VBUS_MMIO_OFF_FASTCALL = 0x034;
/** Register: doorbell of the signal whose handle is written. */
export const VBUS_MMIO_OFF_SHMSIGNAL = 0x038;
/** Register: why the line is up (`VBUS_INTERRUPT_…`). */
export const VBUS_MMIO_OFF_INTERRUPT_STATUS = 0x040;
/** Register: clears bits of that. */
export const VBUS_MMIO_OFF_INTERRUPT_ACK = 0x044;
/** Register: 1 makes the page what it was at power-on. */
export const VBUS_MMIO_OFF_RESET = 0x050;
/** Register: what the bridge is like (`VBUS_STATE_…`). */
export const VBUS_MMIO_OFF_STATE = 0x054;

/** Interrupt status: the event queue was signalled. */
export const VBUS_INTERRUPT_EVENTS = 1;

/** State: NEGOTIATE succeeded. */
export const VBUS_STATE_NEGOTIATED = 1;
/** State: an event queue is registered. */
export const VBUS_STATE_REGISTERED = 2;
/** State: the guest broke it, and gets no events until the next NEGOTIATE. */
export const VBUS_STATE_BROKEN = 4;
/** State: the host took the guest off its bus; every call fails. */
export const VBUS_STATE_GONE = 8;

/** First CPUID leaf of the range where hypervisors announce themselves. */
export const VBUS_CPUID_FIRST = 0x40000000;
/** Distance of the places in it where one may begin. */
export const VBUS_CPUID_STEP = 0x100;
/** End of the range: behind the last place. */
export const VBUS_CPUID_END = 0x40010000;
/** The place that is taken unless somebody else is there. */
export const VBUS_CPUID_DEFAULT = 0x40007600;
/** Signature in EBX, ECX and EDX of the first leaf: "vbus" in each. */
export const VBUS_CPUID_SIGNATURE = 0x73756276;
/** Leaves there are: the signature, and the interface. */
export const VBUS_CPUID_LEAVES = 2;
/** Contents of EAX of the interface leaf. */
export const VBUS_HYPERCALL_VERSION = 1;
/** EDX of the interface leaf: events come by no interrupt, the guest polls. */
export const VBUS_NO_INTERRUPT = 0xffffffff;

/** Hypercall: a bridge call (vector, len, datap low, datap high). */
export const VBUS_HYPERCALL_CALL = 0x76620000;
/** Hypercall: doorbell of the event queue (0). */
export const VBUS_HYPERCALL_EVENTQ = 0x76620001;
/** Hypercall: executes a fastcall channel (its id). */
export const VBUS_HYPERCALL_FASTCALL = 0x76620002;
/** Hypercall: doorbell of a signal (its handle). */
export const VBUS_HYPERCALL_SHMSIGNAL = 0x76620003;
/** Hypercall: returns and clears the interrupt status. */
export const VBUS_HYPERCALL_INTERRUPT = 0x76620004;
/** Hypercall: resets. */
export const VBUS_HYPERCALL_RESET = 0x76620005;
/** Hypercall: the state (`VBUS_STATE_…`). */
export const VBUS_HYPERCALL_STATE = 0x76620006;
