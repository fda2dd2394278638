import { EFAULT, ENOENT, ENOMEM, ENOSPC, ENOTCONN } from "../../assembly/abi/errno.js";
import { negatedErrno, VbusError } from "../errors.js";
import type { MemorySpace } from "../memory/space.js";
import type { Scheduler } from "../scheduler.js";
import type { ClientNotice, ConnectionNotice, Emitter } from "./emitter.js";
import { EventQueue, type EventEntry } from "./events.js";
import { checkSignalRecord, SessionSignal, type SignalOwner } from "./host-signal.js";
import type { InterfaceTable, Published } from "./interfaces.js";
import { Session, type SessionView } from "./session.js";
import type { BusClient, BusEvent, Connection, SharedSegment, SignalRequest } from "./types.js";

/** What one client may use up. Guests choose how much they ask for, so everything they can pile up has a limit. */
export interface ClientLimits {
  /** Highest device handle; open fails with -ENOSPC behind it. Default 2^32 - 1. */
  readonly lastHandle: number;
  /** Highest signal handle; shm with a signal fails with -ENOSPC behind it. Default 2^31 - 1: results are signed. */
  readonly lastSignalHandle: number;
  /** Sessions open at a time; open fails with -ENOMEM above it. Default 65536. */
  readonly sessions: number;
  /** Signals whose SHMCLOSE was not taken yet; shm with a signal fails with -ENOMEM above it. Default 65536. */
  readonly signals: number;
}

/** The limits that hold unless others are given. */
export const CLIENT_LIMITS: ClientLimits = {
  lastHandle: 2 ** 32 - 1,
  lastSignalHandle: 2 ** 31 - 1,
  sessions: 65536,
  signals: 65536,
};

/** What a client needs of its bus. */
export interface ClientHost {
  /** What is published there. */
  readonly interfaces: InterfaceTable;
  /** Where listeners are told. */
  readonly emitter: Emitter;
  /** Where deferred work runs. */
  readonly scheduler: Scheduler;
  /** The client disconnected. */
  clientClosed(client: Client): void;
}

/** An interface as this client knows it. */
interface Announcement {
  readonly published: Published;
  /** Number that the guest uses; null from a reset to the next listen, when it must be a fresh one. */
  id: number | null;
  /** Its DEVADD, once queued. */
  entry: EventEntry | null;
}

/**
 * The host-side object for one foreign consumer of a bus (`docs/abi/vbus-bus.md` sections 1 and 5). It translates
 * handles: nothing that a guest says is more than a key to look up. Created by `Bus.openClient`; used by one thread.
 *
 * Verbs may be called from within device callbacks, and `close`, `reset` and `disconnect` from anywhere, at any time.
 */
export class Client implements BusClient {
  readonly #events: EventQueue;
  readonly #signalOwner: SignalOwner;
  readonly #announcements = new Map<Published, Announcement>();
  /** Lowest number that this guest has not seen. */
  #nextId = 0;
  readonly #byId = new Map<number, Announcement>();
  readonly #sessions = new Map<number, Session>();
  readonly #signals = new Map<number, SessionSignal>();
  readonly #unobserve: () => void;
  #opening = 0;
  #nextHandle = 1;
  #nextSignalHandle = 0;
  #listening = false;
  #closed = false;
  /** Counts resets: what began before one must not take effect after it. */
  #epoch = 0;
  #onEvents: (() => void) | null = null;
  /** {@inheritDoc BusClient.onEnd} */
  onEnd: (() => void) | null = null;

  /** Only for `Bus.openClient`. @hidden */
  constructor(
    private readonly host: ClientHost,
    /** Name of the bus. */
    readonly bus: string,
    /** The member it belongs to. */
    readonly member: string,
    /** Name for messages and events. */
    readonly label: string,
    /** The guest's memory, as every device gets to see it. */
    readonly memory: MemorySpace,
    private readonly limits: ClientLimits,
  ) {
    this.#events = new EventQueue(() => {
      this.#eventsWait();
    });
    this.#signalOwner = {
      events: this.#events,
      scheduler: host.scheduler,
      signalReleased: (signal) => {
        this.#signals.delete(signal.handle);
        signal.session.forget(signal);
      },
      doorbellFailed: (error) => {
        this.#failed(null, "a doorbell handler failed", error);
      },
    };
    for (const published of host.interfaces.entries) this.#admit(published);
    this.#unobserve = host.interfaces.observe({
      published: (published) => {
        const announcement = this.#admit(published);
        if (this.#listening) this.#announce(announcement);
      },
      withdrawn: (published) => {
        this.#withdrawn(published);
      },
    });
  }

  /** True until it was disconnected. */
  get connected(): boolean {
    return !this.#closed;
  }

  /** Sessions open now. */
  get connections(): readonly ConnectionNotice[] {
    return [...this.#sessions.values()].map((session) => session.notice);
  }

  /** Sessions open now, with what their devices show of their queues. */
  get sessions(): readonly SessionView[] {
    return [...this.#sessions.values()].map((session) => session.view);
  }

  /** Events that wait to be taken. */
  get waiting(): number {
    return this.#events.length;
  }

  get onEvents(): (() => void) | null {
    return this.#onEvents;
  }

  set onEvents(told: (() => void) | null) {
    this.#onEvents = told;
    if (told === null || !this.#listening || this.#events.length === 0) return;
    // what came before nobody was told of
    this.host.scheduler.post(() => {
      if (this.#events.length > 0) this.#eventsWait();
    });
  }

  /** {@inheritDoc BusClient.open} */
  open(id: number, version: number): number {
    if (this.#closed) return -ENOTCONN;
    const announcement = this.#byId.get(id);
    if (announcement === undefined) return -ENOENT;
    if (this.#nextHandle > this.limits.lastHandle) return -ENOSPC;
    if (this.#sessions.size + this.#opening >= this.limits.sessions) return -ENOMEM;
    const { published } = announcement;
    const { device, implementation } = published;
    const handle = this.#nextHandle++;
    const epoch = this.#epoch;
    device.hold();
    this.#opening++;
    let connection: Connection;
    try {
      connection = implementation.connect(this.memory, version);
    } catch (error) {
      // the number was never told to anybody
      if (this.#nextHandle === handle + 1) this.#nextHandle = handle;
      if (!(error instanceof VbusError)) this.#failed(device.name, "the device failed in connect()", error);
      device.drop();
      return negatedErrno(error);
    } finally {
      this.#opening--;
    }
    const notice = { ...this.notice, device: device.name, interface: implementation.name, handle };
    const session = new Session(handle, published, connection, notice, (message, error) => {
      this.#failed(device.name, message, error);
    });
    if (epoch !== this.#epoch) {
      // the device's connect() led to a reset or to the end of this client
      session.close();
      return -ENOTCONN;
    }
    this.#sessions.set(handle, session);
    this.host.emitter.emit("connectionOpened", notice);
    return handle;
  }

  /** {@inheritDoc BusClient.close} */
  close(handle: number): number {
    const session = this.#sessions.get(handle);
    if (session === undefined) return -ENOENT;
    for (const signal of session.signals) this.#signals.delete(signal.handle);
    this.#sessions.delete(handle);
    session.close();
    this.host.emitter.emit("connectionClosed", session.notice);
    return 0;
  }

  /** {@inheritDoc BusClient.call} */
  call(handle: number, func: number, gpa: number, length: number, flags: number): number {
    const session = this.#sessions.get(handle);
    if (session === undefined) return -ENOENT;
    return session.run("call()", () => session.connection.call(func, gpa, length, flags));
  }

  /** {@inheritDoc BusClient.shm} */
  shm(
    handle: number,
    id: number,
    gpa: number,
    length: number,
    request: SignalRequest | null,
    flags: number,
  ): number {
    const session = this.#sessions.get(handle);
    if (session === undefined) return -ENOENT;
    let address: number;
    try {
      address = this.memory.translate(gpa, length);
    } catch {
      // the guest is told by the result, which is all that the message could say
      return -EFAULT;
    }
    const segment: SharedSegment = { gpa, length, memory: this.memory };
    if (request === null) {
      // the device's own result is not for the guest
      return Math.min(
        0,
        session.run("shm()", () => session.connection.shm(id, segment, null, flags)),
      );
    }
    const checked = checkSignalRecord(this.memory, address, length, request.offset);
    if (checked !== 0) return checked;
    return this.#shmWithSignal(session, id, segment, request, flags);
  }

  #shmWithSignal(
    session: Session,
    id: number,
    segment: SharedSegment,
    request: SignalRequest,
    flags: number,
  ): number {
    if (this.#nextSignalHandle > this.limits.lastSignalHandle) return -ENOSPC;
    if (this.#events.outstandingSignals >= this.limits.signals) return -ENOMEM;
    const signal = new SessionSignal(this.#signalOwner, session, this.#nextSignalHandle++, { ...request });
    const result = session.run("shm()", () => session.connection.shm(id, segment, signal, flags));
    if (result < 0 || !session.open) {
      signal.refuse();
      if (this.#nextSignalHandle === signal.handle + 1) this.#nextSignalHandle = signal.handle;
      return result < 0 ? result : -ENOENT; // the session ended inside the call
    }
    this.#signals.set(signal.handle, signal);
    session.adopt(signal);
    signal.accept();
    return signal.handle;
  }

  /** {@inheritDoc BusClient.signal} */
  signal(signalHandle: number): number {
    return this.#signals.get(signalHandle)?.ring() ?? -ENOENT;
  }

  /** {@inheritDoc BusClient.nextEvent} */
  nextEvent(): BusEvent | null {
    return this.#listening ? this.#events.take() : null;
  }

  /** {@inheritDoc BusClient.returnEvent} */
  returnEvent(event: BusEvent): void {
    this.#events.giveBack(event);
  }

  /** {@inheritDoc BusClient.listen} */
  listen(): void {
    if (this.#closed || this.#listening) return;
    const announcements = [...this.#announcements.values()];
    for (const announcement of announcements) {
      if (announcement.id === null) this.#number(announcement, this.#nextId);
    }
    // fresh numbers are higher than those of interfaces that came during the reset: the guest expects rising ones
    announcements.sort((a, b) => (a.id ?? 0) - (b.id ?? 0));
    for (const announcement of announcements) this.#announce(announcement);
    this.#listening = true;
    if (this.#events.length > 0) this.#eventsWait();
  }

  /** {@inheritDoc BusClient.reset} */
  reset(): void {
    if (this.#closed) return;
    this.#end();
    for (const announcement of this.#announcements.values()) {
      // a DEVADD that was never taken cannot have registered anything in the guest
      if (announcement.entry?.taken === true && announcement.id !== null) {
        this.#byId.delete(announcement.id);
        announcement.id = null;
      }
      announcement.entry = null;
    }
  }

  /** The host ends the client: the connector is told. */
  end(): void {
    const told = this.onEnd;
    this.disconnect();
    try {
      told?.();
    } catch (error) {
      this.#failed(null, "the connector failed in onEnd()", error);
    }
  }

  /** {@inheritDoc BusClient.disconnect} */
  disconnect(): void {
    if (this.#closed) return;
    this.onEnd = null;
    this.#closed = true;
    this.#onEvents = null;
    this.#unobserve();
    this.#end();
    this.#announcements.clear();
    this.#byId.clear();
    this.host.clientClosed(this);
    this.host.emitter.emit("clientClosed", this.notice);
  }

  /** What listeners are told about it. */
  get notice(): ClientNotice {
    return { bus: this.bus, member: this.member, client: this.label };
  }

  /** Sessions stay: DEVDROP closes nothing. */
  #withdrawn(published: Published): void {
    const announcement = this.#announcements.get(published);
    if (announcement === undefined) return;
    this.#announcements.delete(published);
    if (announcement.id === null) return;
    this.#byId.delete(announcement.id);
    if (announcement.entry !== null) this.#events.announce({ kind: "devdrop", id: announcement.id });
  }

  #admit(published: Published): Announcement {
    // the bus's own number, unless a reset has used it up for this guest
    const id = Math.max(published.id, this.#nextId);
    const announcement: Announcement = { published, id: null, entry: null };
    this.#announcements.set(published, announcement);
    this.#number(announcement, id);
    return announcement;
  }

  /** Gives an interface a number that this guest has not seen. A guest that resets for ever exhausts its own numbers only. */
  #number(announcement: Announcement, id: number): void {
    if (id > this.host.interfaces.lastId) {
      const { device } = announcement.published;
      const error = new VbusError(
        "ENOSPC",
        "this guest has used all its interface numbers; let it connect anew",
      );
      this.#failed(device.name, "an interface cannot be announced to a guest", error);
      return;
    }
    announcement.id = id;
    this.#nextId = id + 1;
    this.#byId.set(id, announcement);
  }

  #announce(announcement: Announcement): void {
    if (announcement.id === null) return;
    const { type } = announcement.published.implementation;
    announcement.entry = this.#events.announce({ kind: "devadd", id: announcement.id, type });
  }

  #eventsWait(): void {
    if (!this.#listening || this.#onEvents === null) return;
    try {
      this.#onEvents();
    } catch (error) {
      this.#failed(null, "the connector failed in onEvents()", error);
    }
  }

  /** Ends everything that the guest began. Events first, so that none of the old incarnation gets out. */
  #end(): void {
    this.#epoch++;
    this.#listening = false;
    this.#events.clear();
    // devices may close further sessions meanwhile, so no iterator is kept
    for (;;) {
      const next = this.#sessions.keys().next();
      if (next.done === true) break;
      this.close(next.value);
    }
  }

  #failed(device: string | null, message: string, error: unknown): void {
    const source = device === null ? `instances/${this.bus}` : `devices/${device}`;
    this.host.emitter.error(source, `${message} (client "${this.label}" of bus "${this.bus}")`, error);
  }
}
