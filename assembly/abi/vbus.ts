/**
 * The bridge: calls, event records, doorbells (`docs/abi/vbus-pci.md` sections 2 to 8).
 * Names end in `_ILP32` where the i386 layout of 2009 differs; the others hold for both.
 */

/** `magic` of NEGOTIATE. */
export const BRIDGE_MAGIC = 0xbf53eef5;
/** PCI ABI version: the PCI revision. */
export const PCI_ABI_VERSION = 2;
/** Version of the bus calls: the `version` of NEGOTIATE. */
export const BRIDGE_VERSION = 1;

/** Bridge vector: reset and agree on a version. */
export const BRIDGE_NEGOTIATE = 0;
/** Bridge vector: register the event queue. */
export const BRIDGE_QREG = 1;
/** Bridge vector: issue one bus call. */
export const BRIDGE_SLOWCALL = 2;
/** Bridge vector: add a fastcall channel. */
export const BRIDGE_FASTCALL_ADD = 3;
/** Bridge vector: defined, never implemented (-EINVAL). */
export const BRIDGE_FASTCALL_DROP = 4;

/** Bus call: open a device. */
export const HC_DEVOPEN = 0;
/** Bus call: close a device. */
export const HC_DEVCLOSE = 1;
/** Bus call: call a device. */
export const HC_DEVCALL = 2;
/** Bus call: share a segment with a device. */
export const HC_DEVSHM = 3;

/** `bridge_negotiate`: magic 0/4, version 4/4, capabilities 8/8. */
export const NEGOTIATE_SIZE = 16;
/** Offset of `magic`. */
export const NEGOTIATE_OFF_MAGIC = 0;
/** Offset of `version`. */
export const NEGOTIATE_OFF_VERSION = 4;
/** Offset of the 64-bit `capabilities`. */
export const NEGOTIATE_OFF_CAPABILITIES = 8;

/** `call_desc`: vector 0/4, len 4/4, datap 8/8. */
export const CALL_SIZE = 16;
/** Offset of `vector`. */
export const CALL_OFF_VECTOR = 0;
/** Offset of `len`. */
export const CALL_OFF_LEN = 4;
/** Offset of the 64-bit `datap`. */
export const CALL_OFF_DATAP = 8;

/** `fastcall_desc`: `call_desc`, then result. */
export const FASTCALL_SIZE = 24;
/** The same in the i386 layout. */
export const FASTCALL_SIZE_ILP32 = 20;
/** Offset of the signed 32-bit `result`. */
export const FASTCALL_OFF_RESULT = 16;

/** `busreg` with one event queue. */
export const BUSREG_SIZE = 32;
/** Offset of the number of queues. */
export const BUSREG_OFF_COUNT = 0;
/** Offset of `eventq[0].count`. */
export const BUSREG_OFF_EVENTQ_COUNT = 8;
/** Offset of the 64-bit `eventq[0].ring`. */
export const BUSREG_OFF_EVENTQ_RING = 16;
/** Offset of the 64-bit `eventq[0].data`. */
export const BUSREG_OFF_EVENTQ_DATA = 24;
/** `busreg` in the i386 layout. */
export const BUSREG_SIZE_ILP32 = 24;
/** Offset of `eventq[0].count`, i386 layout. */
export const BUSREG_OFF_EVENTQ_COUNT_ILP32 = 4;
/** Offset of `eventq[0].ring`, i386 layout. */
export const BUSREG_OFF_EVENTQ_RING_ILP32 = 8;
/** Offset of `eventq[0].data`, i386 layout. */
export const BUSREG_OFF_EVENTQ_DATA_ILP32 = 16;

/** `deviceopen`: devid 0/4, version 4/4, handle (out) 8/8. */
export const DEVICEOPEN_SIZE = 16;
/** Offset of `devid`. */
export const DEVICEOPEN_OFF_DEVID = 0;
/** Offset of `version`. */
export const DEVICEOPEN_OFF_VERSION = 4;
/** Offset of the 64-bit `handle`. */
export const DEVICEOPEN_OFF_HANDLE = 8;

/** DEVCLOSE block: one 64-bit handle. */
export const DEVICECLOSE_SIZE = 8;

/** `devicecall`. */
export const DEVICECALL_SIZE = 32;
/** `devicecall`, i386 layout. */
export const DEVICECALL_SIZE_ILP32 = 28;
/** Offset of the 64-bit `devh`. */
export const DEVICECALL_OFF_DEVH = 0;
/** Offset of `func`. */
export const DEVICECALL_OFF_FUNC = 8;
/** Offset of `len`. */
export const DEVICECALL_OFF_LEN = 12;
/** Offset of `flags`. */
export const DEVICECALL_OFF_FLAGS = 16;
/** Offset of the 64-bit `datap`. */
export const DEVICECALL_OFF_DATAP = 24;
/** Offset of the 64-bit `datap`, i386 layout. */
export const DEVICECALL_OFF_DATAP_ILP32 = 20;

/** `deviceshm`. */
export const DEVICESHM_SIZE = 48;
/** `deviceshm`, i386 layout. */
export const DEVICESHM_SIZE_ILP32 = 44;
/** Offset of the 64-bit `devh`. */
export const DEVICESHM_OFF_DEVH = 0;
/** Offset of `id`. */
export const DEVICESHM_OFF_ID = 8;
/** Offset of `len`. */
export const DEVICESHM_OFF_LEN = 12;
/** Offset of `flags`. */
export const DEVICESHM_OFF_FLAGS = 16;
/** Offset of `signal.offset`. */
export const DEVICESHM_OFF_SIGNAL_OFFSET = 24;
/** Offset of `signal.prio`. */
export const DEVICESHM_OFF_SIGNAL_PRIO = 28;
/** Offset of the 64-bit `signal.cookie`. */
export const DEVICESHM_OFF_SIGNAL_COOKIE = 32;
/** Offset of the 64-bit `datap`. */
export const DEVICESHM_OFF_DATAP = 40;
/** Offset of `signal.offset`, i386 layout. */
export const DEVICESHM_OFF_SIGNAL_OFFSET_ILP32 = 20;
/** Offset of `signal.prio`, i386 layout. */
export const DEVICESHM_OFF_SIGNAL_PRIO_ILP32 = 24;
/** Offset of `signal.cookie`, i386 layout. */
export const DEVICESHM_OFF_SIGNAL_COOKIE_ILP32 = 28;
/** Offset of `datap`, i386 layout. */
export const DEVICESHM_OFF_DATAP_ILP32 = 36;
/** `signal.offset` of a segment without a signal. */
export const NO_SIGNAL = 0xffffffff;

/** `event`: eventid 0/4, data 8/136. */
export const EVENT_SIZE = 144;
/** `event`, i386 layout: eventid 0/4, data 4/136. */
export const EVENT_SIZE_ILP32 = 140;
/** Offset of `eventid`. */
export const EVENT_OFF_ID = 0;
/** Offset of the union (add.id, or handle). */
export const EVENT_OFF_DATA = 8;
/** The same, i386 layout. */
export const EVENT_OFF_DATA_ILP32 = 4;
/** Offset of `add.type` from the union's start. */
export const EVENT_DATA_OFF_TYPE = 8;
/** Length of `add.type`, its NUL included. */
export const DEVTYPE_SIZE = 128;

/** Event: an interface was published. */
export const EVENT_DEVADD = 0;
/** Event: an interface was withdrawn. */
export const EVENT_DEVDROP = 1;
/** Event: a device injected on a segment's signal. */
export const EVENT_SHMSIGNAL = 2;
/** Event: the host released its last reference to a signal. */
export const EVENT_SHMCLOSE = 3;

/** Signal port: host side of the event queue. */
export const PORT_EVENTQ = 0;
/** Signal port: run a fastcall channel. */
export const PORT_FASTCALL = 4;
/** Signal port: wake a segment's signal. */
export const PORT_SHMSIGNAL = 8;

/** Number of event records a guest allocates by default. */
export const EVENTQ_DEFAULT_COUNT = 1024;
