import {
  IRQ_OFF_DIRTY,
  IRQ_OFF_ENABLED,
  IRQ_OFF_PENDING,
  NORTH,
  SIGNAL_OFF_IRQ,
  SIGNAL_IRQ_SIZE,
  SIGNAL_SIZE,
  SOUTH,
} from "../../assembly/abi/shm-signal.js";
import { SIG_OFF_GPA } from "../../assembly/abi/arena.js";
import type { Signal, SignalCounters } from "../engine/signal.js";
import type { MemorySpace } from "../memory/space.js";
import { guestBytes } from "./guest-bytes.js";

/** Notifications towards one side (`docs/abi/shm-signal.md` section 1): three bytes of the shared record, as they are. */
export interface NotificationBytes {
  /** 0: the side does not want to be told. */
  enabled: number;
  /** Not 0: it was told and has not looked yet. */
  pending: number;
  /** Not 0: there is something that it has not looked at. */
  dirty: number;
}

/** Both directions of a shared signal record, as its memory says at this moment. */
export interface SignalBytes {
  /** Towards the guest. */
  north: NotificationBytes;
  /** Towards the host. */
  south: NotificationBytes;
}

/** A signal that stands alone. */
export interface SignalSnapshot {
  /** Guest-physical address of the record. */
  gpa: number;
  /** The record; null when its memory is gone. */
  bytes: SignalBytes | null;
  /** What this side counted. */
  counters: SignalCounters;
}

/** Looks at the 16 bytes of a record. */
export function signalBytes(record: DataView): SignalBytes {
  const side = (locale: number): NotificationBytes => {
    const at = SIGNAL_OFF_IRQ + locale * SIGNAL_IRQ_SIZE;
    return {
      enabled: record.getUint8(at + IRQ_OFF_ENABLED),
      pending: record.getUint8(at + IRQ_OFF_PENDING),
      dirty: record.getUint8(at + IRQ_OFF_DIRTY),
    };
  };
  return { north: side(NORTH), south: side(SOUTH) };
}

/** Looks at a signal that stands alone. */
export function inspectSignal(signal: Signal): SignalSnapshot {
  const gpa = privateAddress(signal.space, signal.address + SIG_OFF_GPA);
  const record = guestBytes(signal.space, gpa, SIGNAL_SIZE);
  return { gpa, bytes: record === null ? null : signalBytes(record), counters: signal.counters() };
}

/** A guest-physical address of the engine's private state. */
export function privateAddress(space: MemorySpace, address: number): number {
  return space.engine.counter(address);
}
