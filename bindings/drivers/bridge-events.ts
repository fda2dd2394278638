import {
  BURST_COOKIE,
  BURST_LENGTH,
  BURST_POINTER,
  BURST_SET_VALID,
  RECHECK_INUSE_HEAD,
} from "../../assembly/abi/arena.js";
import {
  DEVTYPE_SIZE,
  EVENT_DATA_OFF_TYPE,
  EVENT_DEVADD,
  EVENT_DEVDROP,
  EVENT_OFF_DATA,
  EVENT_OFF_ID,
  EVENT_SHMCLOSE,
  EVENT_SHMSIGNAL,
  EVENT_SIZE,
} from "../../assembly/abi/vbus.js";
import { Queue, queueSegmentLength } from "../engine/queue.js";
import { BurstTable } from "../engine/table.js";
import { QueueWakeups } from "../engine/wakeup.js";
import type { GuestMemory } from "../memory/guest.js";
import type { Scheduler } from "../scheduler.js";
import type { GuestEvent } from "./transport.js";

/** Records posted or taken per burst. */
const BURST = 64;

/** How a {@link GuestEventQueue} is wired. */
export interface GuestEventQueueOptions {
  /** The guest's memory. */
  readonly memory: GuestMemory;
  /** Where left-over wake-ups run. */
  readonly scheduler: Scheduler;
  /** Number of records, 1 … 2048. */
  readonly count: number;
  /** Gets every event, in order. */
  readonly onEvent: (event: GuestEvent) => void;
  /** Rings the event queue's doorbell. */
  readonly ring: () => void;
  /** The host broke the queue's protocol. */
  readonly onBroken: (error: unknown) => void;
}

/**
 * The guest's half of the bridge's event queue (`docs/abi/vbus-pci.md` section 8): a ring of records, all posted, that
 * the host fills. Each record is decoded, zeroed and posted again before its event goes out; the host is told once per
 * run.
 */
export class GuestEventQueue {
  /** Guest-physical address of the ring. */
  readonly ringGpa: number;
  /** Guest-physical address of the records. */
  readonly dataGpa: number;
  /** Events with an id that this driver does not know, or with numbers out of reach; skipped. */
  unknown = 0;
  readonly #queue: Queue;
  readonly #table: BurstTable;
  readonly #wakeups: QueueWakeups;
  readonly #decoder = new TextDecoder();
  #closed = false;

  /** Allocates, posts every record and unmasks the interrupt. @throws VbusError EINVAL (count), ENOMEM */
  constructor(private readonly options: GuestEventQueueOptions) {
    const { ram, space } = options.memory;
    const { count } = options;
    const ringGpa = ram.allocate(queueSegmentLength(count), { align: 64, offset: 8 });
    let dataGpa = 0;
    let queue: Queue | undefined;
    try {
      dataGpa = ram.allocate(count * EVENT_SIZE, 64);
      queue = Queue.create(space, { gpa: ringGpa, count, role: "northReceive" });
      this.#table = BurstTable.allocate(space, BURST);
    } catch (error) {
      queue?.close();
      if (dataGpa !== 0) ram.free(dataGpa);
      ram.free(ringGpa);
      throw error;
    }
    this.ringGpa = ringGpa;
    this.dataGpa = dataGpa;
    this.#queue = queue;
    space.view(dataGpa, count * EVENT_SIZE).fill(0);
    this.#post();
    this.#wakeups = new QueueWakeups(queue, {
      scheduler: options.scheduler,
      recheck: RECHECK_INUSE_HEAD,
      notifier: this.#harvest,
      ring: options.ring,
      onBroken: options.onBroken,
    });
    this.#wakeups.enable();
  }

  #post(): void {
    const table = this.#table;
    for (let n; (n = this.#queue.reserve("valid", table, BURST)) > 0;) {
      for (let i = 0; i < n; i++) {
        const position = table.position(i);
        table.setGpa(i, this.dataGpa + position * EVENT_SIZE);
        table.setLength(i, EVENT_SIZE);
        table.setCookie(i, position);
      }
      this.#queue.commit("valid", table, n, BURST_POINTER | BURST_LENGTH | BURST_COOKIE | BURST_SET_VALID);
    }
  }

  /** The interrupt was raised. */
  interrupt(): void {
    this.#wakeups.wakeup();
  }

  /** One run: at most one turn of the ring. What is left is found by the wake-up loop, which has a budget of its own. */
  readonly #harvest = (): void => {
    const { options } = this;
    const { space } = options.memory;
    const events: GuestEvent[] = [];
    let left = this.#queue.count;
    for (
      let n;
      left > 0 && (n = this.#queue.peek("inuse", this.#table, Math.min(BURST, left))) > 0;
      left -= n
    ) {
      const { bytes } = space;
      const data = space.translate(this.dataGpa, options.count * EVENT_SIZE);
      for (let i = 0; i < n; i++) {
        const record = data + (this.#table.position(i) % options.count) * EVENT_SIZE;
        const event = this.#decode(record);
        if (event === null) this.unknown++;
        else events.push(event);
        bytes.fill(0, record, record + EVENT_SIZE);
      }
      this.#queue.release("inuse", this.#table, n, 0);
    }
    if (left < this.#queue.count) this.#wakeups.inject();
    for (const event of events) {
      // a listener that fails must not cost the others their events
      try {
        options.onEvent(event);
      } catch (error) {
        options.scheduler.post(() => {
          throw error;
        });
      }
    }
  };

  #decode(record: number): GuestEvent | null {
    const { data, bytes } = this.options.memory.space.engine;
    const union = record + EVENT_OFF_DATA;
    const low = data.getUint32(union, true);
    const high = data.getUint32(union + 4, true);
    switch (data.getUint32(record + EVENT_OFF_ID, true)) {
      case EVENT_DEVADD: {
        if (high !== 0) return null; // a device that DEVOPEN, with its 32-bit number, could never name
        const type = union + EVENT_DATA_OFF_TYPE;
        const text = bytes.slice(type, type + DEVTYPE_SIZE); // a copy: TextDecoder refuses shared memory
        const end = text.indexOf(0);
        return {
          kind: "devadd",
          id: low,
          type: this.#decoder.decode(end < 0 ? text : text.subarray(0, end)),
        };
      }
      case EVENT_DEVDROP:
        return high === 0 ? { kind: "devdrop", id: low } : null;
      case EVENT_SHMSIGNAL:
        return high === 0 ? { kind: "shmsignal", cookie: low } : null; // a cookie of ours has 32 bits
      case EVENT_SHMCLOSE:
        return high === 0 ? { kind: "shmclose", cookie: low } : null;
      default:
        return null;
    }
  }

  /**
   * Stops. `release`: the host has let go of ring and records, so guest memory gets them back; without it they are never
   * used again, for the host may still write there. Twice is harmless.
   */
  close(release: boolean): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#wakeups.close();
    this.#queue.close();
    this.#table.close();
    if (!release) return;
    this.options.memory.ram.free(this.ringGpa);
    this.options.memory.ram.free(this.dataGpa);
  }
}
