import type { BusEvent, SignalCookie } from "./types.js";

/**
 * The events that wait for one client (`docs/abi/vbus-bus.md` section 6).
 *
 * What makes SHMCLOSE come exactly once, and last: a signal owns *one* entry, which is in the queue at most once.
 *
 * ```
 *              notify                      close
 *   idle ────────────────► SHMSIGNAL ───────────────► SHMCLOSE ── taken ──► nothing ever again
 *    ▲  ◄──── taken ─────   queued     (in place)      queued ▲
 *    └──────────────────────── close ─────────────────────────┘
 * ```
 */

/** A place in the queue: an event, and whether it waits or went out. */
export class EventEntry {
  /** True while it waits in the queue. */
  queued = false;
  /** True once it was taken and not returned. */
  taken = false;

  /**
   * @param event - what a client is given
   * @param epoch - counts resets: entries of an earlier epoch are dead
   */
  constructor(
    public event: BusEvent,
    readonly epoch: number,
  ) {}
}

/** The entry of a signal: SHMSIGNAL any number of times, then SHMCLOSE once. Both events exist once and are reused. */
export class SignalEntry extends EventEntry {
  /** True once SHMCLOSE is queued or taken. */
  closed = false;
  readonly ring: BusEvent;
  readonly close: BusEvent;

  constructor(cookie: SignalCookie, epoch: number) {
    const ring: BusEvent = { kind: "shmsignal", cookie };
    super(ring, epoch);
    this.ring = ring;
    this.close = { kind: "shmclose", cookie };
  }
}

/** Taken places at the front are given back once there are so many, and more of them than of events. */
const COMPACT_AT = 256;

/** First in, first out, with coalescing per signal. Costs no allocation per SHMSIGNAL. */
export class EventQueue {
  #entries: EventEntry[] = [];
  #head = 0;
  #epoch = 0;
  #outstanding = 0;
  readonly #owners = new WeakMap<BusEvent, EventEntry>();

  /** @param onFirst - told when the queue turns non-empty by a new event */
  constructor(private readonly onFirst: () => void) {}

  /** Events that wait. */
  get length(): number {
    return this.#entries.length - this.#head;
  }

  /** Signals whose SHMCLOSE was not taken yet: what the queue may have to hold at worst. */
  get outstandingSignals(): number {
    return this.#outstanding;
  }

  /** Queues a DEVADD or DEVDROP. */
  announce(event: BusEvent): EventEntry {
    const entry = new EventEntry(event, this.#epoch);
    this.#owners.set(event, entry);
    this.#append(entry);
    return entry;
  }

  /** Prepares the events of a signal that the device accepted. Owes one SHMCLOSE from now on. */
  openSignal(cookie: SignalCookie): SignalEntry {
    const entry = new SignalEntry(cookie, this.#epoch);
    this.#owners.set(entry.ring, entry);
    this.#owners.set(entry.close, entry);
    this.#outstanding++;
    return entry;
  }

  /** Queues SHMSIGNAL, unless one waits already or the signal is closed. */
  notify(entry: SignalEntry): void {
    if (entry.queued || entry.closed || entry.epoch !== this.#epoch) return;
    entry.event = entry.ring;
    this.#append(entry);
  }

  /** Queues SHMCLOSE, in the place of a waiting SHMSIGNAL. Once per signal. */
  closeSignal(entry: SignalEntry): void {
    if (entry.closed || entry.epoch !== this.#epoch) return;
    entry.closed = true;
    entry.event = entry.close;
    if (!entry.queued) this.#append(entry);
  }

  /** Takes the oldest event. */
  take(): BusEvent | null {
    const entry = this.#entries[this.#head];
    if (entry === undefined) return null;
    this.#head++;
    if (this.#head === this.#entries.length) {
      this.#entries.length = 0;
      this.#head = 0;
    } else if (this.#head >= COMPACT_AT && this.#head * 2 > this.#entries.length) {
      this.#entries.splice(0, this.#head);
      this.#head = 0;
    }
    entry.queued = false;
    entry.taken = true;
    if (entry instanceof SignalEntry && entry.event === entry.close) this.#outstanding--;
    return entry.event;
  }

  /**
   * Puts a taken event back to the front. A SHMSIGNAL joins what waits for its signal by now; it is dropped when its
   * SHMCLOSE was taken after it. Events from before a {@link EventQueue.clear} are dropped.
   * @throws TypeError for an object that {@link EventQueue.take} did not give
   */
  giveBack(event: BusEvent): void {
    const entry = this.#owners.get(event);
    if (entry === undefined) {
      throw new TypeError("this is no event of this client; return the very object that nextEvent() gave");
    }
    if (entry.epoch !== this.#epoch) return;
    if (entry.queued) {
      // only a SHMSIGNAL can have been queued anew after it was taken; everything else was returned twice
      if (!(entry instanceof SignalEntry) || event === entry.close) return;
      this.#entries.splice(this.#entries.indexOf(entry, this.#head), 1);
    } else if (entry instanceof SignalEntry) {
      if (event === entry.close) this.#outstanding++;
      else if (entry.closed) return;
      entry.event = event;
    }
    entry.queued = true;
    entry.taken = false;
    if (this.#head > 0) this.#entries[--this.#head] = entry;
    else this.#entries.unshift(entry);
  }

  /** Events that wait, oldest first. */
  get waiting(): readonly EventEntry[] {
    return this.#entries.slice(this.#head);
  }

  /** A DEVADD that was taken before the state was saved that is being restored. */
  tookBefore(event: BusEvent): EventEntry {
    const entry = new EventEntry(event, this.#epoch);
    entry.taken = true;
    return entry;
  }

  /** Forgets everything: signals that live now will never send an event. */
  clear(): void {
    this.#entries = [];
    this.#head = 0;
    this.#outstanding = 0;
    this.#epoch++;
  }

  #append(entry: EventEntry): void {
    entry.queued = true;
    this.#entries.push(entry);
    if (this.length === 1) this.onFirst();
  }
}
