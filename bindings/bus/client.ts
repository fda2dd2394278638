import { EFAULT, ENOENT, ENOMEM, ENOSPC, ENOTCONN } from "../../assembly/abi/errno.js";
import { negatedErrno, VbusError } from "../errors.js";
import { Gate } from "../gate.js";
import type { MemorySpace } from "../memory/space.js";
import type { Scheduler } from "../scheduler.js";
import { StateError } from "../state/error.js";
import type { StateReader, StateValue } from "../state/reader.js";
import type { RestoreOptions } from "../state/saveable.js";
import {
  readClientState,
  savedEvents,
  type ClientState,
  type CookieNumber,
  type SavedSession,
} from "./client-state.js";
import type { ClientNotice, ConnectionNotice, Emitter } from "./emitter.js";
import { EventQueue, type EventEntry } from "./events.js";
import { checkSignalRecord, SessionSignal, type SignalOwner } from "./host-signal.js";
import type { InterfaceTable, Published } from "./interfaces.js";
import { Session, type SessionView } from "./session.js";
import type {
  BusClient,
  BusEvent,
  Connection,
  HostSignal,
  SharedSegment,
  SignalCookie,
  SignalRequest,
} from "./types.js";

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
  /** Where everything of this client runs. */
  readonly #gate: Gate;
  /** Sessions that were settled or held, and go on together. */
  #held: Session[] | null = null;
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
    this.#gate = new Gate(host.scheduler);
    this.#events = new EventQueue(() => {
      this.#eventsWait();
    });
    this.#signalOwner = {
      events: this.#events,
      scheduler: this.#gate,
      signalReleased: (signal) => {
        this.#signals.delete(signal.handle);
        signal.session?.forget(signal);
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
    this.#gate.post(() => {
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
    const signal = new SessionSignal(this.#signalOwner, () => session, this.#nextSignalHandle++, {
      ...request,
    });
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
    const signal = this.#signals.get(signalHandle);
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

  /**
   * The guest is about to be saved: devices finish what takes time. Nothing of its sessions runs until
   * {@link Client.resume}. @throws VbusError EOPNOTSUPP for an open device whose sessions cannot be saved
   */
  async settle(): Promise<void> {
    for (const session of this.#sessions.values()) {
      const { connection, notice } = session;
      if (connection.save === undefined && !this.#isOrphan(session))
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
      nextId: this.#nextId,
      nextHandle: this.#nextHandle,
      nextSignalHandle: this.#nextSignalHandle,
      interfaces: [...this.#announcements.values()].map(({ published, id, entry }) => ({
        device: published.device.name,
        name: published.implementation.name,
        id,
        told: entry === null ? "no" : entry.queued ? "waits" : "yes",
      })),
      sessions: [...this.#sessions.values()]
        .filter((session) => !this.#isOrphan(session))
        .map((session) => this.#saveSession(session, numberOf)),
      events: this.#saveEvents(numberOf),
    };
  }

  /** A session whose device left the bus: the guest was told, and only has to let go of it. */
  #isOrphan(session: Session): boolean {
    return !this.#announcements.has(session.published);
  }

  /** Sessions of devices that are gone end with the saving: in the saved state their signals are closed already. */
  #saveEvents(numberOf: CookieNumber): StateValue {
    const orphans = [...this.#sessions.values()].filter((session) => this.#isOrphan(session));
    const cookies = new Set(orphans.flatMap((session) => [...session.signals].map(({ cookie }) => cookie)));
    const waiting = this.#events.waiting.filter(
      ({ event }) => !("cookie" in event) || !cookies.has(event.cookie),
    );
    return [
      ...savedEvents(waiting, numberOf),
      ...[...cookies].map((cookie): StateValue => ({ kind: "shmclose", cookie: numberOf(cookie) })),
    ];
  }

  #saveSession(session: Session, numberOf: CookieNumber): StateValue {
    const numbers = new Map<HostSignal, number>();
    const signals = [...session.signals].map((signal): StateValue => {
      numbers.set(signal, signal.handle);
      const { handle, offset, cookie, rung } = signal;
      return { handle, offset, cookie: numberOf(cookie), rung };
    });
    const { device, interface: name, handle } = session.notice;
    const state = session.connection.save?.({
      // a signal that the device released has no number any more; it must not be asked for one
      number: (signal) => numbers.get(signal) ?? -1,
    });
    return { handle, device, name, signals, state: state ?? null };
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
  restore(
    reader: StateReader,
    cookies: number,
    cookieAt: (number: number) => SignalCookie,
    options: RestoreOptions = {},
  ): void {
    const state = readClientState(reader, this.limits, cookies);
    this.reset();
    try {
      const taken = this.#restoreInterfaces(state);
      for (const saved of state.sessions) this.#restoreSession(reader, saved, cookieAt, options);
      this.#restoreEvents(reader, state, cookieAt);
      for (const [announcement, told] of taken) {
        if (told === "yes" && announcement.id !== null)
          announcement.entry = this.#events.tookBefore({
            kind: "devadd",
            id: announcement.id,
            type: announcement.published.implementation.type,
          });
      }
      this.#nextHandle = state.nextHandle;
      this.#nextSignalHandle = state.nextSignalHandle;
      this.#followChanges(state);
    } catch (error) {
      this.reset();
      throw error;
    }
    this.#listening = state.listening;
    this.#gate.post(() => {
      if (this.#events.length > 0) this.#eventsWait();
    });
  }

  /** Numbers interfaces as the guest knows them. Returns those that it was told of, or is about to be. */
  #restoreInterfaces(state: ClientState): Map<Announcement, "no" | "waits" | "yes"> {
    const told = new Map<Announcement, "no" | "waits" | "yes">();
    const saved = new Map(state.interfaces.map((entry) => [`${entry.device}\0${entry.name}`, entry]));
    this.#byId.clear();
    this.#nextId = state.nextId;
    for (const announcement of this.#announcements.values()) {
      const { device, implementation } = announcement.published;
      const found = saved.get(`${device.name}\0${implementation.name}`);
      announcement.entry = null;
      announcement.id = found?.id ?? null;
      if (announcement.id !== null) this.#byId.set(announcement.id, announcement);
      if (found !== undefined) told.set(announcement, found.told);
    }
    return told;
  }

  #restoreSession(
    reader: StateReader,
    saved: SavedSession,
    cookieAt: (number: number) => SignalCookie,
    options: RestoreOptions,
  ): void {
    const published = [...this.#announcements.keys()].find(
      ({ device, implementation }) => device.name === saved.device && implementation.name === saved.name,
    );
    if (published?.implementation.restoreSession === undefined)
      throw new StateError(
        "mismatch",
        `the guest had ${saved.device} open, and there is no such device here whose sessions can be restored; create it first`,
      );
    const { device, implementation } = published;
    const signals = new Map<number, SessionSignal>();
    let session: Session | null = null;
    device.hold();
    device.gate.hold();
    try {
      const offered: SessionSignal[] = [];
      const restored = { session: null as Session | null };
      for (const { handle, offset, cookie } of saved.signals) {
        const request = { offset, prio: 0, cookie: cookieAt(cookie) };
        const signal = new SessionSignal(this.#signalOwner, () => restored.session, handle, request);
        signals.set(handle, signal);
        offered.push(signal);
      }
      const take = (number: StateReader): SessionSignal => {
        const handle = number.number(0, 2 ** 31);
        const signal = signals.get(handle) ?? number.fail("the session has no such signal, or it is taken");
        signals.delete(handle);
        return signal;
      };
      const connection = reader.rebuild(`the session with ${device.name}`, () =>
        implementation.restoreSession?.(this.memory, saved.state, { take }, options),
      ) as Connection;
      const notice = {
        ...this.notice,
        device: device.name,
        interface: implementation.name,
        handle: saved.handle,
      };
      session = new Session(saved.handle, published, connection, notice, (message, error) => {
        this.#failed(device.name, message, error);
      });
      restored.session = session;
      this.#sessions.set(saved.handle, session);
      for (const signal of offered) {
        this.#signals.set(signal.handle, signal);
        session.adopt(signal);
        signal.accept();
      }
      for (const { handle, rung } of saved.signals) if (rung) this.#signals.get(handle)?.ringLater();
    } catch (error) {
      if (session === null) device.drop();
      device.gate.release();
      throw error;
    }
    if (signals.size > 0) {
      device.gate.release();
      reader.fail(`the session with ${device.name} has signals that belong to nothing`);
    }
    this.#held?.push(session);
    if (this.#held === null) device.gate.release();
    this.host.emitter.emit("connectionOpened", session.notice);
  }

  #restoreEvents(
    reader: StateReader,
    { events, interfaces }: ClientState,
    cookieAt: (number: number) => SignalCookie,
  ): void {
    const waiting = new Set(interfaces.filter(({ told }) => told === "waits").map(({ id }) => id));
    for (const event of events) {
      switch (event.kind) {
        case "devadd": {
          if (!waiting.delete(event.id)) reader.fail("a device is announced that does not wait for that");
          const announcement = this.#byId.get(event.id);
          if (announcement !== undefined) this.#announce(announcement);
          break;
        }
        case "devdrop":
          this.#events.announce({ kind: "devdrop", id: event.id });
          break;
        case "shmsignal": {
          const cookie = cookieAt(event.cookie);
          for (const signal of this.#signals.values()) if (signal.cookie === cookie) signal.notify();
          break;
        }
        case "shmclose":
          this.#events.closeSignal(this.#events.openSignal(cookieAt(event.cookie)));
          break;
      }
    }
    if (waiting.size > 0) reader.fail("a device waits to be announced, and no event does that");
  }

  /** Devices came and went while the state lay about: the guest hears of it as of any other hot-plugging. */
  #followChanges(state: ClientState): void {
    const here = new Set([...this.#announcements.values()].map(({ id }) => id));
    for (const { id, told } of state.interfaces)
      if (id !== null && told === "yes" && !here.has(id)) this.#events.announce({ kind: "devdrop", id });
    for (const announcement of this.#announcements.values()) {
      if (announcement.id !== null || !state.listening) continue;
      this.#number(announcement, this.#nextId);
      this.#announce(announcement);
    }
    if (state.listening) return;
    // a guest that does not listen yet learns of everything when it does
    for (const announcement of this.#announcements.values())
      if (announcement.id === null && !state.interfaces.some((saved) => this.#isOf(saved, announcement)))
        this.#number(announcement, this.#nextId);
  }

  #isOf(saved: { device: string; name: string }, { published }: Announcement): boolean {
    return published.device.name === saved.device && published.implementation.name === saved.name;
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
