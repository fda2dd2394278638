import type { Queue } from "../engine/queue.js";
import type { Signal } from "../engine/signal.js";
import type { VirtQueue } from "../engine/virtqueue.js";
import type { MemorySpace } from "../memory/space.js";
import type { Scheduler } from "../scheduler.js";
import type { StateReader, StateValue } from "../state/reader.js";
import type { RestoreOptions } from "../state/saveable.js";

/**
 * The interfaces that devices, connectors and drivers meet at (`docs/abi/vbus-bus.md`).
 *
 * All callbacks of devices are synchronous: a guest's access returns their result. A callback reports failure by
 * throwing a `VbusError` (or returning a negated errno where it returns a number); anything else that it throws becomes
 * -EIO for the guest and an `error` event of the bus, and hurts nobody else.
 */

/** Attribute of a device: a line of text under `devices/<name>/<attribute>`. */
export interface Attribute {
  /** Reads it, without a newline. Absent: write-only (-EIO). */
  get?(): string;
  /** Writes it; one trailing newline was stripped. Absent: read-only (-EIO). @throws VbusError EINVAL, EBUSY … */
  set?(value: string): void;
}

/** What a device class gets to create a device with. */
export interface DeviceContext {
  /** Unique name of the device. */
  readonly name: string;
  /** Where deferred work of this thread runs. */
  readonly scheduler: Scheduler;
  /** Reports something that nobody's call can return, as an event of the device tree. */
  report(message: string, error?: unknown): void;
}

/** A factory for one kind of device. */
export interface DeviceClass {
  /** Unique name, such as `venet`. */
  readonly name: string;
  /** Creates a device. Asynchronous resources must have been opened before. @throws VbusError */
  create(context: DeviceContext): Device;
}

/** An instance of a class; host-side only until it is connected to a bus. */
export interface Device {
  /** Attributes by name; fixed for the life of the device. */
  readonly attributes: ReadonlyMap<string, Attribute>;
  /** What it counted, as plain data: numbers, texts, and objects of those. For `vbus/inspect`. */
  readonly statistics?: object;
  /** Publishes interfaces on a bus. @throws VbusError EBUSY when it sits on one and supports only one */
  busConnect(bus: BusPublisher): void;
  /** Withdraws the interfaces from a bus. @throws VbusError EINVAL when it is not connected to it */
  busDisconnect(bus: BusPublisher): void;
  /** The administrator dropped the device, and no connection uses it any more: give everything back. */
  release(): void;
  /** What the administrator set and what was counted, as plain data; sessions are saved on their own. Absent: the attributes. */
  save?(): StateValue;
  /** Becomes what was saved; no guest has it open. @throws StateError; VbusError of attributes that refuse what was saved */
  restore?(state: StateReader, options: RestoreOptions): void;
}

/** What a bus offers to a device that is being connected. */
export interface BusPublisher {
  /** Name of the bus. */
  readonly name: string;
  /** Publishes an interface: DEVADD goes to every client. The device withdraws it later. @throws VbusError ENOSPC */
  publish(implementation: DeviceInterface): PublishedInterface;
}

/** A published interface; its number is unique on the bus and never used again. */
export interface PublishedInterface {
  /** Number on the bus, from 0. */
  readonly id: number;
  /** Withdraws it: DEVDROP goes to every client. Sessions stay usable until their guests close them. Twice is harmless. */
  withdraw(): void;
}

/** A facet of a device: what a guest calls "a device". */
export interface DeviceInterface {
  /** Name within the device, usually `default`. */
  readonly name: string;
  /** Type that drivers match, such as `virtual-ethernet`; 1 … 127 bytes of UTF-8. */
  readonly type: string;
  /** A client opens it. @throws VbusError EINVAL (version), EBUSY (already open), ENXIO (no back end), ENOMEM */
  connect(memory: MemorySpace, version: number): Connection;
  /**
   * A session that {@link Connection.save} saved goes on, with the guest's memory as it was. It is held until
   * {@link Connection.resume}: it must not touch that memory before. Absent: sessions of this device cannot be saved.
   * @throws StateError; VbusError EBUSY (open), ENOMEM; what was taken is given back then
   */
  restoreSession?(
    memory: MemorySpace,
    state: StateReader,
    signals: RestoredSignals,
    options: RestoreOptions,
  ): Connection;
}

/** One open session between a client and an interface. */
export interface Connection {
  /**
   * A device call. `gpa` is the guest-physical address of the data (garbage when `length` is 0), `length` its length.
   * Returns the result for the guest: >= 0, or a negated errno; may throw a VbusError instead.
   */
  call(func: number, gpa: number, length: number, flags: number): number;
  /**
   * The guest shares a segment. Returns >= 0 to accept, a negated errno to refuse (or throws). On refusal the device
   * must not keep the signal: no event may be sent for it.
   */
  shm(id: number, segment: SharedSegment, signal: HostSignal | null, flags: number): number;
  /** The queues that it works on at this moment, for `vbus/inspect`: looked at, never operated. */
  queues?(): readonly SessionQueue[];
  /** The session ends: stop all access to guest memory before returning. Called once. */
  close(): void;
  /**
   * The session is about to be saved: finish what takes time and touches guest memory, and begin nothing of the kind until
   * {@link Connection.resume}. Tasks of the device's scheduler are held already.
   */
  settle?(): Promise<void>;
  /**
   * Nothing may touch guest memory until {@link Connection.resume}: leave what comes from outside where it is (a port: take no
   * frames), remember the rest. Tasks of the device's scheduler are held.
   */
  hold?(): void;
  /** Goes on after {@link Connection.settle} or {@link Connection.hold}, or begins to, after it was restored. */
  resume?(): void;
  /** What the session is, as plain data, while held. Absent: sessions of this device cannot be saved. */
  save?(signals: SavedSignals): StateValue;
}

/** What a session that is saved is told about its signals. */
export interface SavedSignals {
  /** The number by which a restored session gets the signal back. */
  number(signal: HostSignal): number;
}

/** Where a session that is restored gets its signals from. */
export interface RestoredSignals {
  /** The signal of that number, once. @throws StateError contradiction when there is none, or it was taken */
  take(number: StateReader): HostSignal;
}

/** A queue of a session, as it is shown to those who look. */
export interface SessionQueue {
  /** Tells it from the others of its session, such as `rx`. */
  readonly name: string;
  /** The host's end of it. */
  readonly queue: Queue | VirtQueue;
  /** The signal that belongs to it, when the queue has none in itself (virtqueues). */
  readonly signal?: Signal;
}

/** A segment of guest memory that a guest shared. */
export interface SharedSegment {
  /** Guest-physical address. */
  readonly gpa: number;
  /** Length in bytes; the range was inside the guest's memory when it was announced. */
  readonly length: number;
  /** How to reach it. */
  readonly memory: MemorySpace;
}

/**
 * The host's half of a segment's signal, as the bus hands it to a device. The shared record is the device's business
 * (through `Queue`, or `Signal` for bare segments); this object carries what crosses between the sides.
 */
export interface HostSignal {
  /** Offset of the shm-signal record in the segment. */
  readonly offset: number;
  /** Rings the guest: SHMSIGNAL, coalesced while one is queued. Call it when an inject says so. Ignored after release. */
  notify(): void;
  /** Who is told when the guest rings. May be set once the device is ready; earlier doorbells are kept as one. */
  onDoorbell: (() => void) | null;
  /** The device needs the signal no more: SHMCLOSE goes to the guest, once, and nothing after it. Twice is harmless. */
  release(): void;
}

/** Cookie of a segment's signal as a connector keeps it: returned in events, never interpreted. */
export type SignalCookie = unknown;

/** What a guest announces with a signal. */
export interface SignalRequest {
  /** Offset of the record in the segment. */
  offset: number;
  /** Event queue wanted; there is one. */
  prio: number;
  /** Returned in SHMSIGNAL and SHMCLOSE. */
  cookie: SignalCookie;
}

/** An event from a bus to a client (`docs/abi/vbus-bus.md` section 6). */
export type BusEvent =
  | { kind: "devadd"; id: number; type: string }
  | { kind: "devdrop"; id: number }
  | { kind: "shmsignal"; cookie: SignalCookie }
  | { kind: "shmclose"; cookie: SignalCookie };

/**
 * A bus as a connector sees it: 5 calls down, 4 events up. One per foreign consumer (guest). All calls return >= 0 or a
 * negated errno and never throw: their arguments come from a guest.
 */
export interface BusClient {
  /**
   * Opens device `id` with an interface version. > 0: the handle (below 2^32, never reused). -ENOENT (unknown id),
   * -ENOSPC (handles used up), -ENOMEM (too many sessions), -ENOTCONN (disconnected); -EINVAL, -EBUSY, -ENXIO … of the
   * device.
   */
  open(id: number, version: number): number;
  /** Closes a handle: segments and signals go with it. 0, -ENOENT. */
  close(handle: number): number;
  /** Calls a device. The device's result, -ENOENT for an unknown handle. */
  call(handle: number, func: number, gpa: number, length: number, flags: number): number;
  /**
   * Shares a segment. Without a signal 0; with one the signal handle (>= 0, below 2^31, never reused). -ENOENT (unknown
   * handle), -EFAULT (segment outside guest memory), -EINVAL (record outside the segment, misaligned, wrong magic or
   * version), -ENOSPC (signal handles used up), -ENOMEM (too many signals whose SHMCLOSE was not taken), device errors.
   */
  shm(
    handle: number,
    id: number,
    gpa: number,
    length: number,
    signal: SignalRequest | null,
    flags: number,
  ): number;
  /** The guest rang a signal handle. Unknown handles are ignored (-ENOENT is for counting). */
  signal(signalHandle: number): number;
  /**
   * Takes the next event, oldest first, or null. SHMSIGNAL is coalesced per signal while queued, and turns into SHMCLOSE
   * in place when its signal is released.
   */
  nextEvent(): BusEvent | null;
  /**
   * Puts an event back to the front, when there was no room for it: the very object that was taken. Several go back in
   * reverse order. A SHMSIGNAL joins what waits for its signal by now. Events from before a reset are dropped.
   * @throws TypeError for an object that {@link BusClient.nextEvent} did not give
   */
  returnEvent(event: BusEvent): void;
  /**
   * Told when the event queue turns non-empty by a new event, synchronously, perhaps from inside a verb: write the
   * events out or post to the scheduler, but call no verb. When it is set while events wait, it is told in a task.
   */
  onEvents: (() => void) | null;
  /**
   * Told, once, that the host ended the client: the bus was closed, or the member expelled. Not called after
   * the connector's own {@link BusClient.disconnect}.
   */
  onEnd: (() => void) | null;
  /**
   * Starts event delivery: DEVADD for every interface present, in id order. After a {@link BusClient.reset} all
   * interfaces whose DEVADD was taken before get ids that this client has not seen, for the guest may still have the old ones
   * registered (`docs/abi/vbus-pci.md` section 8). Twice is harmless.
   */
  listen(): void;
  /** Ends every session, forgets queued events, stops delivery until the next {@link BusClient.listen}. */
  reset(): void;
  /** Ends the client for good; every session with it. Twice is harmless. */
  disconnect(): void;
}

/** What a connector needs of a bus: a client for one guest. A `Bus` is one. */
export interface ClientSource {
  /** Opens a client. @throws VbusError EPERM when the member was not admitted */
  openClient(options: { member: string; memory: MemorySpace; label?: string }): BusClient;
}
