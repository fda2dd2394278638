import type { MemorySpace } from "../memory/space.js";
import { StateError } from "../state/error.js";
import type { StateReader, StateValue } from "../state/reader.js";
import type { RestoreOptions } from "../state/saveable.js";
import type { Announcements } from "./announcements.js";
import { savedEvents, type ClientState, type CookieNumber, type SavedSession } from "./client-state.js";
import type { EventQueue } from "./events.js";
import type { SessionSignal } from "./host-signal.js";
import type { Published } from "./interfaces.js";
import type { Session } from "./session.js";
import type { SignalTable } from "./signal-table.js";
import type { Connection, HostSignal, RestoredSignals, SignalCookie } from "./types.js";

/** What of a client its sessions and events are saved from, and restored into. */
export interface SessionParts {
  /** The guest's memory. */
  readonly memory: MemorySpace;
  /** What the guest knows of the bus. */
  readonly announcements: Announcements;
  /** What waits for the guest. */
  readonly events: EventQueue;
  /** Sessions by the number that the guest uses. */
  readonly sessions: Map<number, Session>;
  /** Its signals. */
  readonly signals: SignalTable;
  /** A session that takes over a reference to its device; in no table yet. */
  readonly session: (handle: number, published: Published, connection: Connection) => Session;
}

/** How cookies come back from their numbers. */
export type CookieAt = (number: number) => SignalCookie;

/** A session whose device left the bus: the guest was told, and only has to let go of it. */
export function isOrphan({ announcements }: Pick<SessionParts, "announcements">, session: Session): boolean {
  return !announcements.has(session.published);
}

/** The sessions as plain data, while held: `sessions` of a `ClientState`. Orphans end with the saving. */
export function saveSessions(parts: SessionParts, numberOf: CookieNumber): StateValue {
  return [...parts.sessions.values()]
    .filter((session) => !isOrphan(parts, session))
    .map((session) => saveSession(session, numberOf));
}

function saveSession(session: Session, numberOf: CookieNumber): StateValue {
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

/** The events that wait, as plain data: `events` of a `ClientState`. The signals of orphans are closed in it already. */
export function saveEvents(parts: SessionParts, numberOf: CookieNumber): StateValue {
  const orphans = [...parts.sessions.values()].filter((session) => isOrphan(parts, session));
  const cookies = new Set(orphans.flatMap((session) => [...session.signals].map(({ cookie }) => cookie)));
  const waiting = parts.events.waiting.filter(
    ({ event }) => !("cookie" in event) || !cookies.has(event.cookie),
  );
  return [
    ...savedEvents(waiting, numberOf),
    ...[...cookies].map((cookie): StateValue => ({ kind: "shmclose", cookie: numberOf(cookie) })),
  ];
}

/**
 * A saved session goes on, with its signals; both are in the client's tables then. The gate of its device stays held.
 * @throws StateError; VbusError ENOMEM. The session may be in the tables then, and is the client's to close; the gate is not held
 */
export function restoreSession(
  parts: SessionParts,
  reader: StateReader,
  saved: SavedSession,
  cookieAt: CookieAt,
  options: RestoreOptions,
): Session {
  const published = parts.announcements.named(saved.device, saved.name);
  const restore = published?.implementation.restoreSession?.bind(published.implementation);
  if (published === undefined || restore === undefined)
    throw new StateError(
      "mismatch",
      `the guest had ${saved.device} open, and there is no such device here whose sessions can be restored; create it first`,
    );
  const { device } = published;
  let session: Session | null = null;
  const offered = new Map<number, SessionSignal>();
  for (const { handle, offset, cookie } of saved.signals) {
    const request = { offset, prio: 0, cookie: cookieAt(cookie) };
    offered.set(
      handle,
      parts.signals.offer(() => session, handle, request),
    );
  }
  const left = new Map(offered);
  device.hold();
  device.gate.hold();
  try {
    const connection = reader.rebuild(`the session with ${device.name}`, () =>
      restore(parts.memory, saved.state, takenFrom(left), options),
    );
    session = parts.session(saved.handle, published, connection);
    parts.sessions.set(saved.handle, session);
    for (const signal of offered.values()) parts.signals.accept(session, signal);
    for (const { handle, rung } of saved.signals) if (rung) parts.signals.find(handle)?.ringLater();
    if (left.size > 0) reader.fail(`the session with ${device.name} has signals that belong to nothing`);
    return session;
  } catch (error) {
    if (session === null) device.drop();
    device.gate.release();
    throw error;
  }
}

/** Each signal is given out once. */
function takenFrom(signals: Map<number, SessionSignal>): RestoredSignals {
  return {
    take: (number) => {
      const handle = number.number(0, 2 ** 31);
      const signal = signals.get(handle) ?? number.fail("the session has no such signal, or it is taken");
      signals.delete(handle);
      return signal;
    },
  };
}

/** What waited for the guest waits again, in the same order. @throws StateError contradiction */
export function restoreEvents(
  parts: SessionParts,
  reader: StateReader,
  { events, interfaces }: ClientState,
  cookieAt: CookieAt,
): void {
  const waiting = new Set(interfaces.filter(({ told }) => told === "waits").map(({ id }) => id));
  const signals = new Map<SignalCookie, SessionSignal>();
  for (const signal of parts.signals.live) signals.set(signal.cookie, signal);
  for (const event of events) {
    switch (event.kind) {
      case "devadd":
        if (!waiting.delete(event.id)) reader.fail("a device is announced that does not wait for that");
        parts.announcements.announceAgain(event.id);
        break;
      case "devdrop":
        parts.events.announce({ kind: "devdrop", id: event.id });
        break;
      case "shmsignal":
        signals.get(cookieAt(event.cookie))?.notify();
        break;
      case "shmclose":
        parts.events.closeSignal(parts.events.openSignal(cookieAt(event.cookie)));
        break;
    }
  }
  if (waiting.size > 0) reader.fail("a device waits to be announced, and no event does that");
}
