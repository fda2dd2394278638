import {
  BUSREG_OFF_EVENTQ_COUNT,
  BUSREG_OFF_EVENTQ_COUNT_ILP32,
  BUSREG_OFF_EVENTQ_DATA,
  BUSREG_OFF_EVENTQ_DATA_ILP32,
  BUSREG_OFF_EVENTQ_RING,
  BUSREG_OFF_EVENTQ_RING_ILP32,
  BUSREG_SIZE,
  BUSREG_SIZE_ILP32,
  DEVICECALL_OFF_DATAP,
  DEVICECALL_OFF_DATAP_ILP32,
  DEVICECALL_SIZE,
  DEVICECALL_SIZE_ILP32,
  DEVICESHM_OFF_DATAP,
  DEVICESHM_OFF_DATAP_ILP32,
  DEVICESHM_OFF_SIGNAL_COOKIE,
  DEVICESHM_OFF_SIGNAL_COOKIE_ILP32,
  DEVICESHM_OFF_SIGNAL_OFFSET,
  DEVICESHM_OFF_SIGNAL_OFFSET_ILP32,
  DEVICESHM_SIZE,
  DEVICESHM_SIZE_ILP32,
  EVENT_OFF_DATA,
  EVENT_OFF_DATA_ILP32,
  EVENT_SIZE,
  EVENT_SIZE_ILP32,
} from "../../../assembly/abi/vbus.js";

/** Where the members of the parameter blocks lie that differ between the layouts (`docs/abi/vbus-pci.md` section 6). */
export interface BridgeLayout {
  /** `busreg`. */
  readonly busreg: {
    readonly size: number;
    readonly count: number;
    readonly ring: number;
    readonly data: number;
  };
  /** `devicecall`. */
  readonly call: { readonly size: number; readonly datap: number };
  /** `deviceshm`. */
  readonly shm: {
    readonly size: number;
    readonly offset: number;
    readonly cookie: number;
    readonly datap: number;
  };
  /** `event`: size of a record and offset of its union. */
  readonly event: { readonly size: number; readonly data: number };
}

/** The wire ABI: x86-64, and MSVC in 32 and 64 bit. */
export const LP64: BridgeLayout = {
  busreg: {
    size: BUSREG_SIZE,
    count: BUSREG_OFF_EVENTQ_COUNT,
    ring: BUSREG_OFF_EVENTQ_RING,
    data: BUSREG_OFF_EVENTQ_DATA,
  },
  call: { size: DEVICECALL_SIZE, datap: DEVICECALL_OFF_DATAP },
  shm: {
    size: DEVICESHM_SIZE,
    offset: DEVICESHM_OFF_SIGNAL_OFFSET,
    cookie: DEVICESHM_OFF_SIGNAL_COOKIE,
    datap: DEVICESHM_OFF_DATAP,
  },
  event: { size: EVENT_SIZE, data: EVENT_OFF_DATA },
};

/** i386 Linux of 2009, where 64-bit members are aligned to 4 bytes. */
export const ILP32: BridgeLayout = {
  busreg: {
    size: BUSREG_SIZE_ILP32,
    count: BUSREG_OFF_EVENTQ_COUNT_ILP32,
    ring: BUSREG_OFF_EVENTQ_RING_ILP32,
    data: BUSREG_OFF_EVENTQ_DATA_ILP32,
  },
  call: { size: DEVICECALL_SIZE_ILP32, datap: DEVICECALL_OFF_DATAP_ILP32 },
  shm: {
    size: DEVICESHM_SIZE_ILP32,
    offset: DEVICESHM_OFF_SIGNAL_OFFSET_ILP32,
    cookie: DEVICESHM_OFF_SIGNAL_COOKIE_ILP32,
    datap: DEVICESHM_OFF_DATAP_ILP32,
  },
  event: { size: EVENT_SIZE_ILP32, data: EVENT_OFF_DATA_ILP32 },
};

/**
 * The layout whose block of a kind has this length, or null: calls are told apart by their length alone.
 * @param kind - which block
 * @param length - as the guest announced it
 */
export function layoutOf(kind: "busreg" | "call" | "shm", length: number): BridgeLayout | null {
  if (length === LP64[kind].size) return LP64;
  return length === ILP32[kind].size ? ILP32 : null;
}
