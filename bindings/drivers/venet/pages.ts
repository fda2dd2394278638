import { BURST_COOKIE, BURST_LENGTH, BURST_POINTER, RECHECK_NONE } from "../../../assembly/abi/arena.js";
import { BurstTable } from "../../engine/table.js";
import type { ProxyDevice, ProxyQueue } from "../proxy.js";

/** Size of a page. */
export const PAGE_SIZE = 4096;
/** Least number of pages: what two of the longest superframes take, however small the RX ring is. */
const PAGES_MIN = 34;
/** Pages per burst. */
const BURST = 64;

const FREE = 0;
const GIVEN = 1;
const HELD = 2;

/** Counters of the page queue. */
export interface PageStatistics {
  /** Pages that came back with frames. */
  rx_pages: number;
  /** Refills that found the host without pages, and none to give: it keeps them all. */
  rx_no_page_refill: number;
}

/**
 * North of the page queue (`docs/abi/venet.md` section 7, pattern (d) of `docs/abi/ioq.md` section 6): free pages that
 * the host appends to frames too long for a posted buffer. A page is free, given to the host, or held by a frame that is
 * being handed up. Its cookie, its number + 1, is all that the host says of it, so it names no page that was not given.
 */
export class PageRing {
  readonly statistics: PageStatistics = { rx_pages: 0, rx_no_page_refill: 0 };
  readonly #states: Uint8Array;
  readonly #free: number[] = [];
  readonly #table: BurstTable;
  readonly #address: number;

  private constructor(
    private readonly proxy: ProxyQueue,
    device: ProxyDevice,
    private readonly gpaOfFirst: number,
  ) {
    const { count } = proxy.queue;
    const { space } = device.bus.transport.memory;
    this.#states = new Uint8Array(count);
    for (let page = count - 1; page >= 0; page--) this.#free.push(page);
    this.#address = space.translate(gpaOfFirst, count * PAGE_SIZE);
    this.#table = BurstTable.allocate(space, Math.min(BURST, count));
  }

  /**
   * Allocates pages and shares their ring as segment `id`; nothing is given yet.
   * @param device - opened; L4RO was granted
   * @param id - segment, as L4ROQUERY said
   * @param rxRing - number of RX descriptors: of pages, too, unless that is too few for superframes
   * @param onBroken - the host broke the ring
   * @throws VbusError as the device refuses, ENOMEM
   */
  static async create(
    device: ProxyDevice,
    id: number,
    rxRing: number,
    onBroken: (error: unknown) => void,
  ): Promise<PageRing> {
    const count = Math.max(rxRing, PAGES_MIN);
    const pages = device.lend(count * PAGE_SIZE, PAGE_SIZE);
    const proxy = await device.createQueue(id, {
      count,
      role: "northFeed",
      recheck: RECHECK_NONE,
      notifier: () => {}, // stays masked: pages are given at every poll
      onBroken,
    });
    return new PageRing(proxy, device, pages);
  }

  /** Gives the host every free page that its ring has room for, and tells it once. @throws VbusError EPROTO */
  refill(): void {
    const { queue, wakeups } = this.proxy;
    if (this.#free.length === 0) {
      if (queue.reserve("inuse", null, queue.count) === queue.count) this.statistics.rx_no_page_refill++;
      return;
    }
    const table = this.#table;
    let given = 0;
    for (;;) {
      const n = queue.reserve("inuse", table, Math.min(table.capacity, this.#free.length));
      if (n === 0) break;
      for (let i = 0; i < n; i++) {
        const page = this.#free.pop() as number;
        this.#states[page] = GIVEN;
        table.setGpa(i, this.gpa(page));
        table.setLength(i, PAGE_SIZE);
        table.setCookie(i, page + 1);
      }
      queue.commit("inuse", table, n, BURST_POINTER | BURST_LENGTH | BURST_COOKIE);
      given += n;
    }
    if (given > 0) wakeups.inject();
  }

  /** The page that a cookie (64 bits, in two halves) names, held from now on; -1 when the host was not given it. */
  hold(low: number, high: number): number {
    const page = low - 1;
    if (high !== 0 || this.#states[page] !== GIVEN) return -1;
    this.#states[page] = HELD;
    return page;
  }

  /** The frame of a held page stays in the ring: back to where it was. */
  unhold(page: number): void {
    this.#states[page] = GIVEN;
  }

  /** The frame of a held page is done with. */
  free(page: number): void {
    this.#states[page] = FREE;
    this.#free.push(page);
    this.statistics.rx_pages++;
  }

  /** Guest-physical address of a page. */
  gpa(page: number): number {
    return this.gpaOfFirst + page * PAGE_SIZE;
  }

  /** Where it lies in the memory. */
  address(page: number): number {
    return this.#address + page * PAGE_SIZE;
  }

  /** Ends it; ring and pages are the device's. Twice is harmless. */
  close(): void {
    this.#table.close();
  }
}
