import type { GuestMemory } from "../memory/guest.js";
import type { Scheduler } from "../scheduler.js";

/** An event as a guest receives it (`docs/abi/vbus-pci.md` section 8). Cookies are the guest's own numbers. */
export type GuestEvent =
  | { kind: "devadd"; id: number; type: string }
  | { kind: "devdrop"; id: number }
  | { kind: "shmsignal"; cookie: number }
  | { kind: "shmclose"; cookie: number };

/** A signal that a guest announces with a segment. */
export interface GuestSignal {
  /** Offset of the shm-signal record in the segment. */
  offset: number;
  /** Event queue wanted. */
  prio: number;
  /** Comes back in events; a non-zero 32-bit number. */
  cookie: number;
}

/** An opened device, as a connector names it: opaque to drivers. */
export type DeviceHandle = number | object;

/**
 * The guest half of a connector: five calls down, four events up (`docs/abi/vbus-bus.md` section 9). Everything that
 * runs in a guest is written against this, whatever carries it. Used by the guest's thread.
 *
 * Calls reject with a `VbusError`: the host's errno, or ENOTCONN / ETIMEDOUT when the host is gone or does not answer.
 */
export interface GuestTransport {
  /** The guest's memory. */
  readonly memory: GuestMemory;
  /** Where deferred work of the guest's thread runs. */
  readonly scheduler: Scheduler;
  /** Opens a device with the version of its interface that the driver implements. */
  open(id: number, version: number): Promise<DeviceHandle>;
  /** Closes it; its segments' SHMCLOSE events follow. */
  close(handle: DeviceHandle): Promise<void>;
  /** Calls it. `gpa` may be 0 when `length` is 0. Resolves with the device's result (>= 0). */
  call(handle: DeviceHandle, func: number, gpa: number, length: number, flags: number): Promise<number>;
  /** Shares a segment. Resolves with the signal handle when a signal was given, else 0. */
  shm(
    handle: DeviceHandle,
    id: number,
    gpa: number,
    length: number,
    signal: GuestSignal | null,
    flags: number,
  ): Promise<number>;
  /** Rings a signal handle's doorbell. No result; harmless after the connection ended. */
  ring(signalHandle: number): void;
  /** Who gets events; set it before {@link GuestTransport.start}. Never called from within a call or ring. */
  onEvent: ((event: GuestEvent) => void) | null;
  /** Who is told, once, that the host is gone. */
  onLost: ((error: Error) => void) | null;
  /** Starts event delivery: DEVADD for every device present follows. */
  start(): Promise<void>;
  /** Leaves. The host ends all sessions. Twice is harmless. */
  disconnect(): void;
}
