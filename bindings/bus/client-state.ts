import { SIGNAL_SIZE } from "../../assembly/abi/shm-signal.js";
import type { StateReader, StateValue } from "../state/reader.js";
import type { EventEntry } from "./events.js";
import type { SignalCookie } from "./types.js";

/** An interface as a guest knows it. */
export interface SavedInterface {
  /** Name of its device. */
  readonly device: string;
  /** Name within the device. */
  readonly name: string;
  /** Number that the guest uses; null: none until the next listen. */
  readonly id: number | null;
  /** Its DEVADD: not queued, waits, was taken. */
  readonly told: "no" | "waits" | "yes";
}

/** A signal of a session. */
export interface SavedSignal {
  /** Number that the guest rings. */
  readonly handle: number;
  /** Offset of the record in its segment. */
  readonly offset: number;
  /** Number of its cookie. */
  readonly cookie: number;
  /** A doorbell was kept. */
  readonly rung: boolean;
}

/** A session. */
export interface SavedSession {
  /** Number that the guest uses. */
  readonly handle: number;
  /** Name of the device. */
  readonly device: string;
  /** Name of the interface within the device. */
  readonly name: string;
  /** Its signals. */
  readonly signals: readonly SavedSignal[];
  /** What the device saved. */
  readonly state: StateReader;
}

/** An event that waits. */
export type SavedEvent =
  | { readonly kind: "devadd"; readonly id: number; readonly type: string }
  | { readonly kind: "devdrop"; readonly id: number }
  | { readonly kind: "shmsignal" | "shmclose"; readonly cookie: number };

/** A client of a bus, as it was saved; nothing in it contradicts anything else. */
export interface ClientState {
  readonly listening: boolean;
  readonly nextId: number;
  readonly nextHandle: number;
  readonly nextSignalHandle: number;
  readonly interfaces: readonly SavedInterface[];
  readonly sessions: readonly SavedSession[];
  readonly events: readonly SavedEvent[];
}

/** How cookies, which belong to the connector, are saved: by numbers. */
export type CookieNumber = (cookie: SignalCookie) => number;

const NAME_MAX = 255;
const INTERFACES_MAX = 65536;
const U32 = 2 ** 32;

/** Events that wait, as plain data. */
export function savedEvents(entries: readonly EventEntry[], numberOf: CookieNumber): StateValue[] {
  return entries.map(({ event }): StateValue => {
    switch (event.kind) {
      case "devadd":
        return { kind: event.kind, id: event.id, type: event.type };
      case "devdrop":
        return { kind: event.kind, id: event.id };
      default:
        return { kind: event.kind, cookie: numberOf(event.cookie) };
    }
  });
}

/** A number that must not come twice. */
function unique(seen: Set<number>, reader: StateReader, value: number): number {
  if (seen.has(value)) reader.fail(`${value} comes twice`);
  seen.add(value);
  return value;
}

/**
 * Reads the state of a client, which may be anything.
 * @param limits - what a client may use up
 * @param cookies - number of cookies that there are
 * @throws StateError contradiction
 */
export function readClientState(
  reader: StateReader,
  limits: { readonly sessions: number; readonly signals: number },
  cookies: number,
): ClientState {
  const nextId = reader.get("nextId").number(0, U32);
  const nextHandle = reader.get("nextHandle").number(1, U32);
  const nextSignalHandle = reader.get("nextSignalHandle").number(0, 2 ** 31);
  const ids = new Set<number>();
  const handles = new Set<number>();
  const signalHandles = new Set<number>();
  const owners = new Set<number>();
  const below = (limit: number, item: StateReader): number => {
    if (limit === 0) item.fail("there is none");
    return item.number(0, limit - 1);
  };
  const interfaces = reader
    .get("interfaces")
    .items(INTERFACES_MAX)
    .map((item): SavedInterface => {
      const id = item.get("id").nullable((at) => unique(ids, at, below(nextId, at)));
      const told = item.get("told").oneOf("no", "waits", "yes");
      if (id === null && told !== "no")
        item.fail("the guest cannot have been told of an interface without a number");
      return { device: item.get("device").text(NAME_MAX), name: item.get("name").text(NAME_MAX), id, told };
    });
  const sessions = reader
    .get("sessions")
    .items(limits.sessions)
    .map((item): SavedSession => {
      const handle = item.get("handle");
      const value = unique(handles, handle, handle.number(1, Math.max(1, nextHandle - 1)));
      if (value >= nextHandle) handle.fail("no such handle was given out");
      return {
        handle: value,
        device: item.get("device").text(NAME_MAX),
        name: item.get("name").text(NAME_MAX),
        signals: item
          .get("signals")
          .items(limits.signals)
          .map((signal) => ({
            handle: unique(signalHandles, signal, below(nextSignalHandle, signal.get("handle"))),
            offset: signal.get("offset").number(0, U32 - SIGNAL_SIZE),
            cookie: unique(owners, signal, below(cookies, signal.get("cookie"))),
            rung: signal.get("rung").boolean(),
          })),
        state: item.get("state"),
      };
    });
  if (signalHandles.size > limits.signals) reader.fail(`more than ${limits.signals} signals`);
  return {
    listening: reader.get("listening").boolean(),
    nextId,
    nextHandle,
    nextSignalHandle,
    interfaces,
    sessions,
    events: readEvents(reader.get("events"), nextId, cookies, owners),
  };
}

/** Each signal has one place in the queue at most, and one that no session has any more can only be closed. */
function readEvents(
  reader: StateReader,
  nextId: number,
  cookies: number,
  owners: ReadonlySet<number>,
): SavedEvent[] {
  const seen = new Set<number>();
  return reader.items(4 * INTERFACES_MAX).map((item): SavedEvent => {
    const kind = item.get("kind").oneOf("devadd", "devdrop", "shmsignal", "shmclose");
    if (kind === "devadd" || kind === "devdrop") {
      const id = item.get("id").number(0, Math.max(0, nextId - 1));
      return kind === "devadd" ? { kind, id, type: item.get("type").text(NAME_MAX) } : { kind, id };
    }
    const cookie = unique(seen, item, item.get("cookie").number(0, Math.max(0, cookies - 1)));
    if (cookie >= cookies) item.fail("there is no such cookie");
    if (owners.has(cookie) !== (kind === "shmsignal"))
      item.fail("the signal of a session is open, any other closed");
    return { kind, cookie };
  });
}
