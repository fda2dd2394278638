/**
 * A console of the bus whose host does not keep to its side of the rings: descriptors go back with any length, in any order,
 * marks and calls say anything. For guests that must survive their host.
 */
import {
  DESC_OFF_LEN,
  DESC_OFF_PTR,
  DESC_OFF_SOWN,
  IOQ_DESC_SIZE,
  IOQ_OFF_COUNT,
  IOQ_OFF_RING,
  IOQ_OFF_SIGNAL,
  IRQ_OFF_DIRTY,
  NORTH,
  SIGNAL_IRQ_SIZE,
  SIGNAL_OFF_IRQ,
  SOUTH,
  VCONSOLE_EVENT_OFF_COLS,
  VCONSOLE_EVENT_OFF_CONVERSATION,
  VCONSOLE_EVENT_OFF_ID,
  VCONSOLE_EVENT_OFF_POSITION,
  VCONSOLE_EVENT_OFF_ROWS,
  VCONSOLE_EVENT_SIZE,
  VCONSOLE_QUEUE_EVENTS,
  VCONSOLE_QUEUE_RX,
  VCONSOLE_QUEUE_TX,
} from "vbus/abi";
import type {
  Connection,
  Device,
  DeviceClass,
  HostSignal,
  PublishedInterface,
  SharedSegment,
} from "vbus/bus";

/** A ring of the guest's, of which this host does what it likes. */
export class LyingRing {
  /** Number of descriptors. */
  readonly count: number;
  /** The descriptor that an honest host would take next. */
  #next = 0;

  constructor(
    private readonly segment: SharedSegment,
    /** Its signal, to let it go. */
    readonly signal: HostSignal,
  ) {
    this.count = this.#view.getUint32(IOQ_OFF_COUNT, true);
  }

  /** Good until the emulator's memory grows: for one use. */
  get #view(): DataView {
    const { gpa, length, memory } = this.segment;
    const { buffer, byteOffset } = memory.view(gpa, length);
    return new DataView(buffer, byteOffset, length);
  }

  #at(n: number): number {
    return IOQ_OFF_RING + (n % this.count) * IOQ_DESC_SIZE;
  }

  /** True when a descriptor is the host's. */
  isOurs(n: number): boolean {
    return this.#view.getUint8(this.#at(n) + DESC_OFF_SOWN) === SOUTH;
  }

  /** Where its buffer is. */
  pointer(n: number): number {
    return Number(this.#view.getBigUint64(this.#at(n) + DESC_OFF_PTR, true));
  }

  /** How long the guest said that it is. */
  length(n: number): number {
    return Number(this.#view.getBigUint64(this.#at(n) + DESC_OFF_LEN, true));
  }

  /** Gives a descriptor back, whoever's it is. */
  give(n: number, length?: bigint): void {
    const at = this.#at(n);
    if (length !== undefined) this.#view.setBigUint64(at + DESC_OFF_LEN, BigInt.asUintN(64, length), true);
    this.#view.setUint8(at + DESC_OFF_SOWN, NORTH);
  }

  /** Takes one from the guest that it has not given. */
  grab(n: number): void {
    this.#view.setUint8(this.#at(n) + DESC_OFF_SOWN, SOUTH);
  }

  /** Sets all bytes of the header behind its signal: indexes that are no authority. */
  scribble(next: () => number): void {
    for (let at = IOQ_OFF_SIGNAL + 16; at < IOQ_OFF_COUNT; at++) this.#view.setUint8(at, next() & 0xff);
  }

  /** The next one in turn that is the host's, or null. */
  take(): number | null {
    if (!this.isOurs(this.#next)) return null;
    const n = this.#next;
    this.#next = (n + 1) % this.count;
    return n;
  }

  /** Notifies the guest, whether it wants that or not. */
  ring(): void {
    this.#view.setUint8(IOQ_OFF_SIGNAL + SIGNAL_OFF_IRQ + NORTH * SIGNAL_IRQ_SIZE + IRQ_OFF_DIRTY, 1);
    this.signal.notify();
  }
}

/** An event, true or false. */
export interface LyingEvent {
  id: number;
  conversation: number;
  position?: bigint;
  cols?: number;
  rows?: number;
}

/** What the host answers a call with: a result, or a negated errno. Runs within the call. */
export type Answer = (func: number, console: LyingConsole) => number;

/** A session of a guest with such a console; a test drives it. */
export class LyingConsole implements Connection {
  /** The rings, once the guest has shared them. */
  rx!: LyingRing;
  tx!: LyingRing;
  events!: LyingRing;
  /** The session is over. */
  closed = false;
  /** Conversations that the guest was ready for. */
  conversations = 0;
  /** Bytes that were put in the RX ring and could be read there: what an honest host calls the position. */
  position = 0n;

  constructor(
    private readonly memory: SharedSegment["memory"],
    private readonly answer: Answer,
  ) {}

  call(func: number): number {
    return this.answer(func, this);
  }

  shm(id: number, segment: SharedSegment, signal: HostSignal | null): number {
    const ring = new LyingRing(segment, signal!);
    if (id === VCONSOLE_QUEUE_RX) this.rx = ring;
    if (id === VCONSOLE_QUEUE_TX) this.tx = ring;
    if (id === VCONSOLE_QUEUE_EVENTS) this.events = ring;
    return 0;
  }

  /** Sends bytes in the next buffer, which is said to be of a length; of its own when none is given. False: there is none. */
  send(text: string, length = BigInt(text.length)): boolean {
    const n = this.rx.take();
    if (n === null) return false;
    this.memory.copyTo(this.rx.pointer(n), Buffer.from(text, "latin1"));
    this.rx.give(n, length);
    this.position += BigInt(text.length);
    this.rx.ring();
    return true;
  }

  /** Sends an event in the next record. False: there is none. */
  tell({ id, conversation, position = this.position, cols = 80, rows = 25 }: LyingEvent): boolean {
    const n = this.events.take();
    if (n === null) return false;
    const bytes = new Uint8Array(VCONSOLE_EVENT_SIZE);
    const view = new DataView(bytes.buffer);
    view.setUint32(VCONSOLE_EVENT_OFF_ID, id, true);
    view.setUint32(VCONSOLE_EVENT_OFF_CONVERSATION, conversation, true);
    view.setBigUint64(VCONSOLE_EVENT_OFF_POSITION, BigInt.asUintN(64, position), true);
    view.setUint16(VCONSOLE_EVENT_OFF_COLS, cols, true);
    view.setUint16(VCONSOLE_EVENT_OFF_ROWS, rows, true);
    this.memory.copyTo(this.events.pointer(n), bytes);
    this.events.give(n);
    this.events.ring();
    return true;
  }

  /** Takes what the guest has sent, as an honest host does. */
  hear(): string {
    let heard = "";
    for (let n = this.tx.take(); n !== null; n = this.tx.take()) {
      heard += Buffer.from(this.memory.view(this.tx.pointer(n), this.tx.length(n))).toString("latin1");
      this.tx.give(n);
    }
    if (heard !== "") this.tx.ring();
    return heard;
  }

  close(): void {
    this.closed = true;
    for (const ring of [this.rx, this.tx, this.events] as (LyingRing | undefined)[]) ring?.signal.release();
  }
}

/**
 * A class whose one device is such a console.
 * @param answer - what calls return
 * @param opened - gets each session when it begins
 */
export function lyingConsoleClass(
  name: string,
  answer: Answer,
  opened: (console: LyingConsole) => void,
): DeviceClass {
  return {
    name,
    create: (): Device => {
      let published: PublishedInterface | null = null;
      return {
        attributes: new Map(),
        busConnect: (bus) => {
          published = bus.publish({
            name: "default",
            type: "virtual-console",
            connect: (memory) => {
              const session = new LyingConsole(memory, answer);
              opened(session);
              return session;
            },
          });
        },
        busDisconnect: () => {
          published?.withdraw();
        },
        release: () => {},
      };
    },
  };
}
