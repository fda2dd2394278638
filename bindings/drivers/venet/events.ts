import {
  BURST_COOKIE,
  BURST_LENGTH,
  BURST_POINTER,
  RECHECK_INUSE_HEAD,
} from "../../../assembly/abi/arena.js";
import {
  VENET_EVENT_LINKSTATE,
  VENET_EVENT_OFF_ID,
  VENET_EVENT_OFF_SIZE,
  VENET_EVENT_SIZE,
  VENET_EVENT_TXC,
  VENET_EVQQUERY,
  VENET_LINKSTATE_OFF_STATE,
  VENET_LINKSTATE_SIZE,
  VENET_QUERY_SIZE,
  VENET_TXC_OFF_COOKIE,
  VENET_TXC_OFF_TXQID,
  VENET_TXC_SIZE,
} from "../../../assembly/abi/venet.js";
import { BurstTable } from "../../engine/table.js";
import { VbusError } from "../../errors.js";
import type { MemorySpace } from "../../memory/space.js";
import type { ProxyDevice, ProxyQueue } from "../proxy.js";

/** Records per burst. */
const BURST = 64;
/** Largest record that a host may ask for. */
const RECORD_MAX = 4096;

/** Counters of the event queue. */
export interface EventStatistics {
  /** Events received. */
  events: number;
  /** Events that were skipped: an unknown id, one that was not granted, or a record that is too short for it. */
  events_unknown: number;
}

/** What to do about events. */
export interface EventHandlers {
  /** The link went up or down. */
  link(up: boolean): void;
  /** A frame was sent; its cookie, in two halves. */
  completed(low: number, high: number): void;
  /** After the last of several completions. */
  completedAll(): void;
  /** The ring broke. */
  broken(error: unknown): void;
}

/** Which events were granted. */
export interface GrantedEvents {
  /** Link state. */
  readonly linkState: boolean;
  /** Completions. */
  readonly completions: boolean;
}

/**
 * North of venet's event queue (`docs/abi/venet.md` section 9): records in a pool, all posted, that the host fills.
 * Each is decoded, zeroed and posted again; the host is told once per run.
 */
export class EventRing {
  readonly statistics: EventStatistics = { events: 0, events_unknown: 0 };
  readonly #space: MemorySpace;
  readonly #table: BurstTable;
  #proxy: ProxyQueue | null = null;
  #completed = false;

  private constructor(
    device: ProxyDevice,
    private readonly pool: number,
    private readonly recordSize: number,
    count: number,
    private readonly granted: GrantedEvents,
    private readonly handlers: EventHandlers,
  ) {
    this.#space = device.bus.transport.memory.space;
    this.#table = BurstTable.allocate(this.#space, Math.min(BURST, count));
  }

  /**
   * Asks for the segments, shares pool and ring, posts every record and unmasks.
   * @param device - opened; an EVENTQ capability was granted
   * @param count - number of records
   * @throws VbusError as the device refuses, EPROTO for records of a size that cannot be, ENOMEM
   */
  static async create(
    device: ProxyDevice,
    count: number,
    granted: GrantedEvents,
    handlers: EventHandlers,
  ): Promise<EventRing> {
    const query = new Uint8Array(VENET_QUERY_SIZE);
    await device.call(VENET_EVQQUERY, query);
    // flags, then the size of a record and the ids of pool and ring
    const [, recordSize = 0, poolId = 0, queueId = 0] = queryWords(query);
    const least = granted.completions ? VENET_EVENT_SIZE : VENET_LINKSTATE_SIZE;
    if (recordSize < least || recordSize > RECORD_MAX || recordSize % 4 !== 0) {
      throw new VbusError(
        "EPROTO",
        `the host wants event records of ${recordSize} bytes; events need ${least}`,
      );
    }
    const pool = await device.createPool(poolId, count * recordSize);
    const events = new EventRing(device, pool, recordSize, count, granted, handlers);
    try {
      const proxy = await device.createQueue(queueId, {
        count,
        role: "northReceive",
        recheck: RECHECK_INUSE_HEAD,
        notifier: () => {
          events.drain();
        },
        onBroken: (error) => {
          handlers.broken(error);
        },
      });
      events.#start(proxy);
    } catch (error) {
      events.close();
      throw error;
    }
    return events;
  }

  #start(proxy: ProxyQueue): void {
    this.#proxy = proxy;
    const { queue } = proxy;
    const table = this.#table;
    for (let n; (n = queue.reserve("valid", table, table.capacity)) > 0;) {
      for (let i = 0; i < n; i++) {
        const position = table.position(i);
        table.setGpa(i, position * this.recordSize);
        table.setLength(i, this.recordSize);
        table.setCookie(i, position + 1);
      }
      // without the private mark: the ABI leaves `valid` alone on these
      queue.commit("valid", table, n, BURST_POINTER | BURST_LENGTH | BURST_COOKIE);
    }
    proxy.wakeups.inject();
    proxy.wakeups.enable();
  }

  /** Takes at most one turn of the ring; the wake-up loop, which has a budget, finds what is left. */
  drain(): void {
    const proxy = this.#proxy;
    if (proxy === null || proxy.queue.closed) return;
    const { queue, wakeups } = proxy;
    const table = this.#table;
    const states: boolean[] = [];
    let left = queue.count;
    for (let n; left > 0 && (n = queue.peek("inuse", table, Math.min(table.capacity, left))) > 0; left -= n) {
      const { bytes, engine } = this.#space;
      const pool = this.#space.translate(this.pool, queue.count * this.recordSize);
      for (let i = 0; i < n; i++) {
        const record = pool + table.position(i) * this.recordSize;
        if (!this.#decode(engine.data, record, states)) this.statistics.events_unknown++;
        bytes.fill(0, record, record + this.recordSize);
      }
      this.statistics.events += n;
      queue.release("inuse", table, n, 0);
    }
    if (left < queue.count) wakeups.inject();
    if (this.#completed) {
      this.#completed = false;
      this.handlers.completedAll();
    }
    for (const up of states) this.handlers.link(up);
  }

  /** False for an event to be skipped. */
  #decode(data: DataView, record: number, states: boolean[]): boolean {
    const size = data.getUint32(record + VENET_EVENT_OFF_SIZE, true);
    switch (data.getUint32(record + VENET_EVENT_OFF_ID, true)) {
      case VENET_EVENT_LINKSTATE:
        if (!this.granted.linkState || size < VENET_LINKSTATE_SIZE) return false;
        states.push(data.getUint8(record + VENET_LINKSTATE_OFF_STATE) !== 0);
        return true;
      case VENET_EVENT_TXC:
        if (!this.granted.completions || size < VENET_TXC_SIZE) return false;
        if (data.getUint32(record + VENET_TXC_OFF_TXQID, true) !== 0) return false; // there is one TX ring
        this.handlers.completed(
          data.getUint32(record + VENET_TXC_OFF_COOKIE, true),
          data.getUint32(record + VENET_TXC_OFF_COOKIE + 4, true),
        );
        this.#completed = true;
        return true;
      default:
        return false;
    }
  }

  /** Ends it; ring and pool are the device's. Twice is harmless. */
  close(): void {
    this.#table.close();
    this.#proxy = null;
  }
}

/** The words of a query's answer. */
export function queryWords(query: Uint8Array): number[] {
  const view = new DataView(query.buffer, query.byteOffset, query.byteLength);
  return Array.from({ length: query.length >>> 2 }, (_, i) => view.getUint32(i * 4, true));
}
