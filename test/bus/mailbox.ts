import { SIGNAL_MAGIC, SIGNAL_VERSION } from "vbus/abi";
import {
  Vbus,
  type Attribute,
  type Bus,
  type BusEvent,
  type BusPublisher,
  type Client,
  type ClientLimits,
  type Connection,
  type Device,
  type DeviceClass,
  type DeviceContext,
  type ErrorReport,
  type HostSignal,
  type ManagedDevice,
  type PublishedInterface,
  type SharedSegment,
} from "vbus/bus";
import { VbusError } from "vbus/engine";
import { allocateGuestMemory, openHostView, type MemorySpace } from "vbus/memory";
import { VirtualScheduler } from "vbus/scheduler";

/** Sums the bytes of the guest's data. */
export const CALL_SUM = 1;
/** Has the handler of the test decide. */
export const CALL_HOOK = 2;
/** Version that the mailbox speaks. */
export const VERSION = 1;

/** What a test lets the device do beyond its own behaviour. */
export interface Hooks {
  connect?: () => void;
  call?: () => number;
  shm?: (signal: HostSignal | null) => number;
  close?: () => void;
  busConnect?: () => void;
  busDisconnect?: () => void;
}

/** A session with a mailbox: keeps what the guest shared. */
export class MailboxSession implements Connection {
  readonly segments: { id: number; segment: SharedSegment; signal: HostSignal | null; flags: number }[] = [];
  closed = 0;

  constructor(
    readonly mailbox: Mailbox,
    readonly memory: MemorySpace,
  ) {}

  call(func: number, gpa: number, length: number, flags: number): number {
    if (func === CALL_SUM) return this.memory.copyFrom(gpa, length).reduce((sum, byte) => sum + byte, flags);
    if (func === CALL_HOOK) return this.mailbox.hooks.call?.() ?? 0;
    throw new VbusError("EINVAL", `a mailbox has no call ${func}`);
  }

  shm(id: number, segment: SharedSegment, signal: HostSignal | null, flags: number): number {
    const result = this.mailbox.hooks.shm?.(signal) ?? 7;
    if (result >= 0) this.segments.push({ id, segment, signal, flags });
    return result;
  }

  close(): void {
    this.closed++;
    this.mailbox.sessions.delete(this);
    this.mailbox.hooks.close?.();
  }
}

/** A device that guests put segments into. */
export class Mailbox implements Device {
  readonly sessions = new Set<MailboxSession>();
  readonly opened: MailboxSession[] = [];
  readonly seats = new Map<BusPublisher, PublishedInterface[]>();
  readonly hooks: Hooks = {};
  released = 0;
  greeting = "hello";
  seatsMax = 1;
  sessionsMax = 1;
  names = ["default"];
  backend = true;
  secret = "";

  readonly attributes = new Map<string, Attribute>([
    [
      "greeting",
      {
        get: () => this.greeting,
        set: (value) => {
          if (this.sessions.size > 0) throw new VbusError("EBUSY", "close the sessions first");
          this.greeting = value;
        },
      },
    ],
    ["sessions", { get: () => String(this.sessions.size) }],
    [
      "secret",
      {
        set: (value) => {
          this.secret = value;
        },
      },
    ],
    [
      "broken",
      {
        get: () => {
          throw new RangeError("out of paper");
        },
      },
    ],
  ]);

  constructor(readonly context: DeviceContext) {}

  busConnect(bus: BusPublisher): void {
    this.hooks.busConnect?.();
    if (this.seats.size >= this.seatsMax)
      throw new VbusError("EBUSY", "this mailbox hangs elsewhere already");
    const published: PublishedInterface[] = [];
    this.seats.set(bus, published);
    for (const name of this.names) {
      published.push(
        bus.publish({ name, type: "mailbox", connect: (memory, version) => this.#connect(memory, version) }),
      );
    }
  }

  busDisconnect(bus: BusPublisher): void {
    this.hooks.busDisconnect?.();
    const published = this.seats.get(bus);
    if (published === undefined) throw new VbusError("EINVAL", "this mailbox does not hang here");
    this.seats.delete(bus);
    for (const each of published) each.withdraw();
  }

  release(): void {
    this.released++;
  }

  #connect(memory: MemorySpace, version: number): Connection {
    this.hooks.connect?.();
    if (version !== VERSION) throw new VbusError("EINVAL", `a mailbox has version ${VERSION}`);
    if (!this.backend) throw new VbusError("ENXIO", "nobody empties this mailbox");
    if (this.sessions.size >= this.sessionsMax) throw new VbusError("EBUSY", "somebody is at this mailbox");
    const session = new MailboxSession(this, memory);
    this.sessions.add(session);
    this.opened.push(session);
    return session;
  }
}

/** The mailbox behind a device. */
export function mailboxOf(device: ManagedDevice | undefined): Mailbox {
  if (!(device?.implementation instanceof Mailbox)) throw new Error("this is no mailbox");
  return device.implementation;
}

/** The class of mailboxes. */
export const mailboxClass: DeviceClass = {
  name: "mailbox",
  create: (context) => new Mailbox(context),
};

/** Where the guest of the tests has its segments. */
export const SEGMENT = 0x20000;
/** Length of those segments. */
export const SEGMENT_LENGTH = 256;
/** Offset of the signal in them. */
export const SIGNAL_OFFSET = 8;

/** Opens the host's view of a fresh guest memory. */
export async function guestMemory(): Promise<MemorySpace> {
  return openHostView(allocateGuestMemory({ size: 1 << 20, arenaSize: 1 << 16 }));
}

/** What north writes before it shares a segment. */
export function formatSignal(
  memory: MemorySpace,
  gpa: number,
  magic = SIGNAL_MAGIC,
  version = SIGNAL_VERSION,
): void {
  const bytes = new Uint8Array(16);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, magic, true);
  view.setUint32(4, version, true);
  memory.copyTo(gpa, bytes);
}

/** A tree with one bus, one mailbox on it, and one guest. */
export class Bench {
  readonly scheduler = new VirtualScheduler();
  readonly vbus = new Vbus({ scheduler: this.scheduler });
  readonly errors: ErrorReport[] = [];
  readonly bus: Bus;
  readonly mailbox: Mailbox;
  readonly client: Client;

  private constructor(
    readonly memory: MemorySpace,
    limits: Partial<ClientLimits>,
  ) {
    this.vbus.on("error", (report) => this.errors.push(report));
    this.vbus.registerClass(mailboxClass);
    this.bus = this.vbus.createBus("bus0", { clientLimits: limits });
    this.mailbox = this.add("box0");
    this.bus.admit("guest");
    this.client = this.guest();
    formatSignal(memory, SEGMENT + SIGNAL_OFFSET);
  }

  static async open(limits: Partial<ClientLimits> = {}): Promise<Bench> {
    return Bench.over(await guestMemory(), limits);
  }

  /** A bench on a memory that exists already. */
  static over(memory: MemorySpace, limits: Partial<ClientLimits> = {}): Bench {
    return new Bench(memory, limits);
  }

  /** One more mailbox on the bus. */
  add(name: string): Mailbox {
    const device = this.vbus.createDevice(name, "mailbox");
    this.bus.connect(device);
    return mailboxOf(device);
  }

  /** One more client. */
  guest(label?: string): Client {
    return this.bus.openClient({
      member: "guest",
      memory: this.memory,
      ...(label === undefined ? {} : { label }),
    });
  }

  /** Opens the mailbox. */
  session(): { handle: number; session: MailboxSession } {
    const handle = this.client.open(0, VERSION);
    const session = this.mailbox.opened.at(-1);
    if (handle <= 0 || session === undefined) throw new Error(`open failed: ${handle}`);
    return { handle, session };
  }

  /** Shares the segment with its signal. */
  share(handle: number, cookie: unknown = "cookie", client: Client = this.client): number {
    return client.shm(handle, 3, SEGMENT, SEGMENT_LENGTH, { offset: SIGNAL_OFFSET, prio: 0, cookie }, 0);
  }

  /** Takes all events. */
  drain(client: Client = this.client): BusEvent[] {
    const events: BusEvent[] = [];
    for (let event; (event = client.nextEvent()) !== null;) events.push(event);
    return events;
  }
}

/** Events as short text. */
export function spell(events: readonly BusEvent[]): string[] {
  return events.map((event) =>
    "cookie" in event ? `${event.kind} ${String(event.cookie)}` : `${event.kind} ${event.id}`,
  );
}

/** The signal that a session got with its last segment. */
export function lastSignal(session: MailboxSession): HostSignal {
  const signal = session.segments.at(-1)?.signal;
  if (signal === undefined || signal === null) throw new Error("the last segment has no signal");
  return signal;
}
