import {
  BURST_TRANSLATE,
  RECHECK_INUSE_TAIL,
  RECHECK_NONE,
  STATE_SIZE,
} from "../../../assembly/abi/arena.js";
import { EFAULT, EINVAL } from "../../../assembly/abi/errno.js";
import {
  DESC_OFF_LEN,
  DESC_OFF_PTR,
  IOQ_DESC_SIZE,
  IOQ_DESC_SIZE_ILP32,
  IOQ_MAX_COUNT,
  IOQ_OFF_RING,
  IOQ_OFF_RING_ILP32,
} from "../../../assembly/abi/ioq.js";
import {
  DEVTYPE_SIZE,
  EVENT_DATA_OFF_TYPE,
  EVENT_DEVADD,
  EVENT_DEVDROP,
  EVENT_OFF_ID,
  EVENT_SHMCLOSE,
  EVENT_SHMSIGNAL,
} from "../../../assembly/abi/vbus.js";
import type { BusClient, BusEvent } from "../../bus/types.js";
import { Queue, queueSegmentLength, type ViolationName } from "../../engine/queue.js";
import { BurstTable } from "../../engine/table.js";
import { QueueWakeups } from "../../engine/wakeup.js";
import { negatedErrno, VbusError } from "../../errors.js";
import type { MemorySpace } from "../../memory/space.js";
import type { Scheduler, Timer } from "../../scheduler.js";
import type { StateReader, StateValue } from "../../state/reader.js";
import type { CookieStore } from "./cookies.js";
import { KeptCookie } from "./cookies.js";
import { ILP32, LP64, type BridgeLayout } from "./layout.js";

/** Records written per reservation. */
const BURST = 64;
/**
 * How often a back-log is tried again without being told: an original guest lacks the full barriers of shm-signal and
 * can lose a notification (`docs/abi/shm-signal.md` section 5, R1).
 */
const RETRY_MS = 100;

/** What registers an event queue: the contents of `eventqreg`, with 64-bit addresses in two halves. */
export interface EventQueueRegistration {
  /** Number of descriptors and of records. */
  readonly count: number;
  /** Guest-physical address of the ring segment. */
  readonly ring: { readonly low: number; readonly high: number };
  /** Guest-physical address of the event array. */
  readonly data: { readonly low: number; readonly high: number };
  /** Layout of the block that announced it; also of the records. */
  readonly layout: BridgeLayout;
}

/** What an {@link EventDelivery} works on. */
export interface EventDeliveryOptions {
  /** Where events come from, and wait. */
  readonly client: BusClient;
  /** The host's view of the guest's memory. */
  readonly memory: MemorySpace;
  /** Where deliveries run. */
  readonly scheduler: Scheduler;
  /** The cookies of the guest's signals. */
  readonly cookies: CookieStore;
  /** Raises the interrupt. */
  readonly interrupt: () => void;
  /** A signal's SHMCLOSE has been taken from the client: nothing refers to its cookie any more. */
  readonly closed: (cookie: KeptCookie) => void;
  /** The guest broke its event queue. */
  readonly onBroken: (error: unknown) => void;
}

interface Attached {
  readonly queue: Queue;
  readonly wakeups: QueueWakeups;
  readonly layout: BridgeLayout;
  /** First guest-physical address of the event array, and the last one at which a record may start. */
  readonly first: number;
  readonly last: number;
}

const gpaOf = (address: { low: number; high: number }): number => address.low + address.high * 2 ** 32;

/**
 * The host's half of a bridge's event queue (`docs/abi/vbus-pci.md` section 8): takes events from the client and writes
 * them into the guest's records, one signal per batch. When there is no room they stay with the client, and the queue's
 * notification is enabled until they are gone.
 *
 * A guest that posts a malformed descriptor breaks this queue only: its events are thrown away from then on.
 */
export class EventDelivery {
  /** Records written. */
  events = 0;
  /** Events thrown away, for there was no event queue or a broken one. */
  discarded = 0;
  /** How often the guest left no room. */
  backlogs = 0;
  #attached: Attached | null = null;
  #broken = false;
  #backlogged = false;
  #keepListening = false;
  #scheduled = false;
  #retry: Timer | null = null;
  #closed = false;
  readonly #table: BurstTable;
  readonly #encoder = new TextEncoder();

  /** @throws VbusError ENOMEM when the arena is exhausted */
  constructor(private readonly options: EventDeliveryOptions) {
    this.#table = BurstTable.allocate(options.memory, BURST);
    options.client.onEvents = () => {
      this.schedule();
    };
  }

  /** True between attach and detach, broken or not. */
  get isAttached(): boolean {
    return this.#attached !== null;
  }

  /** Why the queue is broken, or null. */
  get violation(): ViolationName | null {
    return this.#attached?.queue.broken ?? null;
  }

  /** The ring, or null without one; for those who look at it. */
  get queue(): Queue | null {
    return this.#attached?.queue ?? null;
  }

  /** Interrupts that shm-signal suppressed, and descriptors pushed: the queue's own counters, or null without a queue. */
  get counters(): ReturnType<Queue["counters"]> | null {
    return this.#attached?.queue.counters() ?? null;
  }

  /** Binds to a guest's event queue. 0, -EINVAL (header, layout), -EFAULT (range), -EPROTO (index), -ENOMEM. */
  attach(registration: EventQueueRegistration): number {
    const { memory } = this.options;
    const { count, ring, data, layout } = registration;
    if (count === 0 || count > IOQ_MAX_COUNT) return -EINVAL;
    const size = count * layout.event.size;
    if (memory.engine.exports.translate(memory.regionTable, data.low, data.high, size) === 0) return -EFAULT;
    const length = layout === ILP32 ? this.#probe(registration) : queueSegmentLength(count);
    if (length < 0) return length;
    let queue: Queue;
    try {
      queue = Queue.attach(memory, { gpa: gpaOf(ring), length, role: "southReceive" });
    } catch (error) {
      return negatedErrno(error);
    }
    const wakeups = this.#bind(queue, layout, gpaOf(data));
    if (this.#keepListening) wakeups.enable();
    return 0;
  }

  /**
   * Length of the ring segment of a 32-bit guest, whose QREG does not tell it: both strides are tried on descriptors 0
   * and 1, which hold the first two records (`docs/abi/vbus-pci.md` section 6).
   */
  #probe({ count, ring, data, layout }: EventQueueRegistration): number {
    const { memory } = this.options;
    const view = memory.engine.data;
    let reachable = false;
    for (const [header, stride] of [
      [IOQ_OFF_RING_ILP32, IOQ_DESC_SIZE_ILP32],
      [IOQ_OFF_RING, IOQ_DESC_SIZE],
    ] as const) {
      const length = header + count * stride;
      const address = memory.engine.exports.translate(memory.regionTable, ring.low, ring.high, length) >>> 0;
      if (address === 0) continue;
      reachable = true;
      let fits = true;
      for (let i = 0; i < Math.min(count, 2); i++) {
        const at = address + header + i * stride;
        const expected = gpaOf(data) + i * layout.event.size;
        fits &&=
          view.getUint32(at + DESC_OFF_PTR, true) === expected >>> 0 &&
          view.getUint32(at + DESC_OFF_PTR + 4, true) === Math.floor(expected / 2 ** 32) &&
          view.getUint32(at + DESC_OFF_LEN, true) === layout.event.size &&
          view.getUint32(at + DESC_OFF_LEN + 4, true) === 0;
      }
      if (fits) return length;
    }
    return reachable ? -EINVAL : -EFAULT;
  }

  /** Lets go of the guest's queue: nothing is written to it any more. Its events are thrown away until the next attach. */
  detach(): void {
    const attached = this.#attached;
    this.#attached = null;
    this.#broken = false;
    this.#backlogged = false;
    this.#retry?.cancel();
    this.#retry = null;
    attached?.wakeups.close();
    attached?.queue.close();
  }

  /** Ends for good and gives the arena back what it took. Twice is harmless. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.detach();
    this.options.client.onEvents = null;
    this.#table.close();
  }

  /**
   * While on, the guest rings the doorbell whenever it has taken events, and not only after it left no room: for carriers
   * to whom that doorbell is the acknowledge of their interrupt.
   */
  set keepListening(on: boolean) {
    if (on === this.#keepListening) return;
    this.#keepListening = on;
    const attached = this.#attached;
    if (attached === null || this.#broken) return;
    if (on) attached.wakeups.enable();
    else if (!this.#backlogged) attached.wakeups.disable();
  }

  /** What it is, as plain data; null while nothing is attached. */
  save(): StateValue {
    const attached = this.#attached;
    if (attached === null) return null;
    return {
      queue: attached.queue.exportState(),
      layout: attached.layout === ILP32 ? "ilp32" : "lp64",
      records: attached.first,
      broken: this.#broken,
      backlogged: this.#backlogged,
      keepListening: this.#keepListening,
    };
  }

  /** Becomes what was saved, with nothing attached before. @throws StateError; VbusError ENOMEM */
  restore(state: StateReader): void {
    const { memory } = this.options;
    const layout = state.get("layout").oneOf("lp64", "ilp32") === "ilp32" ? ILP32 : LP64;
    const first = state.get("records").number(0, Number.MAX_SAFE_INTEGER);
    const broken = state.get("broken").boolean();
    const backlogged = state.get("backlogged").boolean();
    const keepListening = state.get("keepListening").boolean();
    const image = state.get("queue");
    const queue = image.rebuild("the event queue", () =>
      Queue.importState(memory, image.bytes(STATE_SIZE), "southReceive"),
    );
    try {
      if (queue.count > IOQ_MAX_COUNT) image.fail(`a queue of up to ${IOQ_MAX_COUNT} is wanted`);
      image.rebuild("the event records", () => memory.translate(first, queue.count * layout.event.size));
    } catch (error) {
      queue.close();
      throw error;
    }
    this.#keepListening = keepListening;
    this.#bind(queue, layout, first);
    this.#broken = broken || queue.broken !== null;
    if (this.#broken) this.#attached?.wakeups.close();
    else if (backlogged && this.#attached !== null) this.#setBacklogged(this.#attached, true);
  }

  #bind(queue: Queue, layout: BridgeLayout, first: number): QueueWakeups {
    const wakeups = new QueueWakeups(queue, {
      scheduler: this.options.scheduler,
      recheck: RECHECK_NONE, // there is room most of the time, which means nothing while no event waits
      notifier: this.flush,
      ring: this.options.interrupt,
      onBroken: (error) => {
        this.#break(error);
      },
    });
    const last = first + (queue.count - 1) * layout.event.size;
    this.#attached = { queue, wakeups, layout, first, last };
    return wakeups;
  }

  /** The guest rang the event queue's doorbell. */
  doorbell(): void {
    if (!this.#broken) this.#attached?.wakeups.wakeup();
  }

  /** Delivers soon; several calls are one. */
  schedule(): void {
    if (this.#scheduled || this.#closed) return;
    this.#scheduled = true;
    this.options.scheduler.post(() => {
      this.#scheduled = false;
      this.flush();
    });
  }

  /** Delivers what waits, as far as there is room; discards it when there is no queue, or the guest has broken it. */
  readonly flush = (): void => {
    const attached = this.#attached;
    if (this.#closed) return;
    if (attached === null || this.#broken) {
      this.#discard();
      return;
    }
    try {
      this.#deliver(attached);
    } catch (error) {
      this.#break(error);
    }
  };

  /** @throws VbusError EPROTO when the guest broke the queue: the rest of the events is still the client's */
  #deliver(attached: Attached): void {
    const { client } = this.options;
    const { queue, wakeups } = attached;
    let event = client.nextEvent();
    if (event === null && !this.#backlogged) return;
    let written = 0;
    /** Events written that the guest does not know of yet. */
    let n = 0;
    try {
      while (event !== null) {
        // no more than one turn of the ring at a time: a guest that takes as fast as it is given gets the rest later
        const granted =
          written < queue.count
            ? queue.reserve("inuse", this.#table, this.#table.capacity, BURST_TRANSLATE)
            : 0;
        if (granted === 0) {
          client.returnEvent(event);
          break;
        }
        for (; n < granted && event !== null; n++, event = client.nextEvent())
          this.#write(attached, n, event);
        queue.commit("inuse", this.#table, n, 0);
        written += n;
        this.events += n;
        n = 0;
      }
    } catch (error) {
      this.discarded += n;
      if (event !== null) {
        this.discarded++;
        this.#taken(event);
      }
      throw error;
    }
    if (written > 0) wakeups.inject();
    this.#setBacklogged(attached, event !== null);
  }

  #setBacklogged(attached: Attached, on: boolean): void {
    if (on) {
      if (!this.#backlogged) this.backlogs++;
      this.#backlogged = true;
      attached.wakeups.recheck = RECHECK_INUSE_TAIL;
      attached.wakeups.enable();
      this.#retry ??= this.options.scheduler.after(RETRY_MS, () => {
        this.#retry = null;
        this.schedule();
      });
    } else if (this.#backlogged) {
      this.#backlogged = false;
      this.#retry?.cancel();
      this.#retry = null;
      attached.wakeups.recheck = RECHECK_NONE;
      if (!this.#keepListening) attached.wakeups.disable();
    }
  }

  /** Writes one event into the record that table entry i posts. @throws VbusError EPROTO for a malformed descriptor */
  #write({ queue, layout, first, last }: Attached, i: number, event: BusEvent): void {
    const { memory } = this.options;
    const table = this.#table;
    const gpa = table.gpa(i);
    const address = table.bufferAddress(i);
    if (table.length(i) < layout.event.size || gpa < first || gpa > last || address === 0) {
      const what = `${table.length(i)} bytes at guest address 0x${gpa.toString(16)}`;
      queue.violate("descriptor");
      throw new VbusError(
        "EPROTO",
        `the guest posted an event record of ${what}; it needs ${layout.event.size} inside its event array`,
      );
    }
    const { bytes, data } = memory.engine;
    const union = address + layout.event.data;
    bytes.fill(0, address, address + layout.event.size);
    switch (event.kind) {
      case "devadd":
        data.setUint32(address + EVENT_OFF_ID, EVENT_DEVADD, true);
        this.#writeId(union, event.id);
        // the record keeps a NUL at the end: guests compare a C string
        bytes.set(
          this.#encoder.encode(event.type).subarray(0, DEVTYPE_SIZE - 1),
          union + EVENT_DATA_OFF_TYPE,
        );
        break;
      case "devdrop":
        data.setUint32(address + EVENT_OFF_ID, EVENT_DEVDROP, true);
        this.#writeId(union, event.id);
        break;
      case "shmsignal":
      case "shmclose":
        data.setUint32(
          address + EVENT_OFF_ID,
          event.kind === "shmclose" ? EVENT_SHMCLOSE : EVENT_SHMSIGNAL,
          true,
        );
        this.options.cookies.copyTo(union, event.cookie as KeptCookie);
        this.#taken(event);
        break;
    }
    memory.noteWrite(gpa, layout.event.size);
  }

  #writeId(address: number, id: number): void {
    const { data } = this.options.memory.engine;
    data.setUint32(address, id >>> 0, true);
    data.setUint32(address + 4, Math.floor(id / 2 ** 32), true);
  }

  #taken(event: BusEvent): void {
    if (event.kind === "shmclose" && event.cookie instanceof KeptCookie) this.options.closed(event.cookie);
  }

  #discard(): void {
    for (let event; (event = this.options.client.nextEvent()) !== null; this.discarded++) this.#taken(event);
  }

  #break(error: unknown): void {
    if (this.#broken || this.#closed) return;
    this.#broken = true;
    this.#attached?.wakeups.close();
    this.#retry?.cancel();
    this.#retry = null;
    this.options.onBroken(error);
    this.#discard();
  }
}
