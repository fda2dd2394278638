import { EFAULT, ENOENT, ENOMEM, ENOSPC, ENOTCONN } from "../../assembly/abi/errno.js";
import { negatedErrno, VbusError } from "../errors.js";
import { Gate } from "../gate.js";
import type { MemorySpace } from "../memory/space.js";
import type { Scheduler } from "../scheduler.js";
import { StateError } from "../state/error.js";
import type { StateReader, StateValue } from "../state/reader.js";
import type { RestoreOptions } from "../state/saveable.js";
import { Announcements } from "./announcements.js";
import { readClientState, type CookieNumber } from "./client-state.js";
import type { ClientNotice, ConnectionNotice, Emitter } from "./emitter.js";
import { EventQueue } from "./events.js";
import { checkSignalRecord } from "./host-signal.js";
import type { InterfaceTable, Published } from "./interfaces.js";
import {
  isOrphan,
  restoreEvents,
  restoreSession,
  saveEvents,
  saveSessions,
  type CookieAt,
  type SessionParts,
} from "./saved-sessions.js";
import { Session, type SessionView } from "./session.js";
import { SignalTable } from "./signal-table.js";
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

/**
 * The host-side object for one foreign consumer of a bus (`docs/abi/vbus-bus.md` sections 1 and 5). It translates
 * handles: nothing that a guest says is more than a key to look up. Created by `Bus.openClient`; used by one thread.
 *
 * Verbs may be called from within device callbacks, and `close`, `reset` and `disconnect` from anywhere, at any time.
 */
export class Client implements BusClient {
  readonly #events: EventQueue;
  readonly #announcements: Announcements;
  readonly #sessions = new Map<number, Session>();
  readonly #signals: SignalTable;
  readonly #unobserve: () => void;
  /** Where everything of this client runs. */
  readonly #gate: Gate;
  readonly #parts: SessionParts;
  /** Sessions that were settled or held, and go on together. */
  #held: Session[] | null = null;
  #opening = 0;
  #nextHandle = 1;
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
    this.#gate = new Gate(host.scheduler);
    this.#events = new EventQueue(() => {
      this.#eventsWait();
    });
    this.#signals = new SignalTable(this.#events, this.#gate, limits, (error) => {
      this.#failed(null, "a doorbell handler failed", error);
    });
    this.#announcements = new Announcements(host.interfaces, this.#events, ({ device }, error) => {
      this.#failed(device.name, "an interface cannot be announced to a guest", error);
    });
    this.#parts = {
      memory,
      announcements: this.#announcements,
      events: this.#events,
      sessions: this.#sessions,
      signals: this.#signals,
      session: (handle, published, connection) => this.#session(handle, published, connection),
    };
    this.#unobserve = host.interfaces.observe({
      published: (published) => {
        this.#announcements.published(published, this.#listening);
      },
      withdrawn: (published) => {
        this.#announcements.withdrawn(published);
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
    this.#gate.post(() => {
      if (this.#events.length > 0) this.#eventsWait();
    });
  }

  /** {@inheritDoc BusClient.open} */
  open(id: number, version: number): number {
    if (this.#closed) return -ENOTCONN;
    const published = this.#announcements.find(id);
    if (published === undefined) return -ENOENT;
    if (this.#nextHandle > this.limits.lastHandle) return -ENOSPC;
    if (this.#sessions.size + this.#opening >= this.limits.sessions) return -ENOMEM;
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
    const session = this.#session(handle, published, connection);
    if (epoch !== this.#epoch) {
      // the device's connect() led to a reset or to the end of this client
      session.close();
      return -ENOTCONN;
    }
    this.#sessions.set(handle, session);
    this.host.emitter.emit("connectionOpened", session.notice);
    return handle;
  }

  #session(handle: number, published: Published, connection: Connection): Session {
    const { device, implementation } = published;
    const notice = { ...this.notice, device: device.name, interface: implementation.name, handle };
    return new Session(handle, published, connection, notice, (message, error) => {
      this.#failed(device.name, message, error);
    });
  }

  /** {@inheritDoc BusClient.close} */
  close(handle: number): number {
    const session = this.#sessions.get(handle);
    if (session === undefined) return -ENOENT;
    this.#signals.forget(session);
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
    return this.#signals.share(session, request, (signal) =>
      session.connection.shm(id, segment, signal, flags),
    );
  }

  /** {@inheritDoc BusClient.signal} */
  signal(signalHandle: number): number {
    const signal = this.#signals.find(signalHandle);
    if (signal === undefined) return -ENOENT;
    if (this.#held === null) return signal.ring();
    signal.ringLater(); // a guest that was not stopped: what it rings for is served when everything goes on
    return 0;
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
    this.#announcements.announceAll();
    this.#listening = true;
    if (this.#events.length > 0) this.#eventsWait();
  }

  /** {@inheritDoc BusClient.reset} */
  reset(): void {
    if (this.#closed) return;
    this.#end();
    this.#announcements.reset();
  }

  /**
   * The guest is about to be saved: devices finish what takes time. Nothing of its sessions runs until
   * {@link Client.resume}. @throws VbusError EOPNOTSUPP for an open device whose sessions cannot be saved
   */
  async settle(): Promise<void> {
    for (const session of this.#sessions.values()) {
      const { connection, notice } = session;
      if (connection.save === undefined && !isOrphan(this.#parts, session))
        throw new VbusError(
          "EOPNOTSUPP",
          `the guest has ${notice.device} open, and its class does not say how a session is saved; have the guest close it`,
        );
    }
    const sessions = this.#heldSessions();
    await Promise.all(
      sessions.map(async ({ connection }) => {
        await connection.settle?.();
      }),
    );
  }

  /** Nothing of the guest's sessions touches its memory from now on; events wait. */
  hold(): void {
    for (const session of this.#heldSessions()) session.connection.hold?.();
  }

  /** Holds the gates of the client and of its sessions' devices, once. */
  #heldSessions(): Session[] {
    if (this.#held !== null) return this.#held;
    this.#gate.hold();
    this.#held = [...this.#sessions.values()];
    for (const session of this.#held) session.gate.hold();
    return this.#held;
  }

  /** Goes on after {@link Client.settle} or {@link Client.hold}. Harmless otherwise. */
  resume(): void {
    const held = this.#held;
    if (held === null) return;
    this.#held = null;
    for (const session of held) if (session.open) session.connection.resume?.();
    for (const session of held) session.gate.release();
    this.#gate.release();
  }

  /**
   * What the guest has of the bus, as plain data, while held.
   * @param numberOf - numbers the connector's cookies
   */
  save(numberOf: CookieNumber): StateValue {
    return {
      listening: this.#listening,
      nextId: this.#announcements.nextId,
      nextHandle: this.#nextHandle,
      nextSignalHandle: this.#signals.next,
      interfaces: this.#announcements.save(),
      sessions: saveSessions(this.#parts, numberOf),
      events: saveEvents(this.#parts, numberOf),
    };
  }

  /** Looks at a saved state without changing anything. @throws StateError contradiction, mismatch */
  check(reader: StateReader, cookies: number): void {
    const state = readClientState(reader, this.limits, cookies);
    if (this.#closed)
      throw new StateError(
        "mismatch",
        `the guest "${this.label}" was taken off bus "${this.bus}"; attach it anew before restoring`,
      );
    const ids = new Set(state.interfaces.map(({ id }) => id));
    for (const event of state.events)
      if (event.kind === "devadd" && !ids.has(event.id))
        reader.fail("a device is announced that is not there");
  }

  /**
   * Becomes what was saved, while held: the client had just been reset. Interfaces that are gone since are dropped for the
   * guest, new ones are announced.
   * @param cookieAt - the connector's cookie of a number below `cookies`
   * @throws StateError; VbusError ENOMEM; then the client is as after a reset
   */
  restore(reader: StateReader, cookies: number, cookieAt: CookieAt, options: RestoreOptions = {}): void {
    const state = readClientState(reader, this.limits, cookies);
    this.reset();
    try {
      this.#announcements.restore(state);
      for (const saved of state.sessions) {
        const session = restoreSession(this.#parts, reader, saved, cookieAt, options);
        if (this.#held === null) session.gate.release();
        else this.#held.push(session);
        this.host.emitter.emit("connectionOpened", session.notice);
      }
      restoreEvents(this.#parts, reader, state, cookieAt);
      this.#nextHandle = state.nextHandle;
      this.#signals.next = state.nextSignalHandle;
      this.#announcements.followChanges(state);
    } catch (error) {
      this.reset();
      throw error;
    }
    this.#listening = state.listening;
    this.#gate.post(() => {
      if (this.#events.length > 0) this.#eventsWait();
    });
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
    this.host.clientClosed(this);
    this.host.emitter.emit("clientClosed", this.notice);
  }

  /** What listeners are told about it. */
  get notice(): ClientNotice {
    return { bus: this.bus, member: this.member, client: this.label };
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
