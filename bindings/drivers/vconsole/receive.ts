import {
  BURST_COOKIE,
  BURST_LENGTH,
  BURST_POINTER,
  BURST_SET_VALID,
  BURST_SIGNAL,
} from "../../../assembly/abi/arena.js";
import { BurstTable } from "../../engine/table.js";
import type { GuestMemory } from "../../memory/guest.js";
import type { ProxyQueue } from "../proxy.js";

/** Descriptors per burst. */
const BURST = 16;

/**
 * North of a ring that the host fills, with one buffer of fixed size for each position: patterns (b) and (c) of
 * `docs/abi/ioq.md` section 6. Serves the RX ring and the event ring.
 */
export class FilledRing {
  readonly #table: BurstTable;
  readonly #base: number;

  /** @throws VbusError ENOMEM */
  constructor(
    readonly proxy: ProxyQueue,
    private readonly memory: GuestMemory,
    private readonly size: number,
  ) {
    this.#table = BurstTable.allocate(memory.space, Math.min(BURST, proxy.queue.count));
    try {
      this.#base = memory.ram.allocate(size * proxy.queue.count, 64);
    } catch (error) {
      this.#table.close();
      throw error;
    }
  }

  #prepare(i: number): void {
    const position = this.#table.position(i);
    this.#table.setGpa(i, this.#base + position * this.size);
    this.#table.setLength(i, this.size);
    this.#table.setCookie(i, position + 1);
  }

  /** Posts a buffer in every descriptor. */
  post(): void {
    const { queue } = this.proxy;
    for (let n; (n = queue.reserve("valid", this.#table, this.#table.capacity)) > 0;) {
      for (let i = 0; i < n; i++) this.#prepare(i);
      queue.commit("valid", this.#table, n, BURST_POINTER | BURST_LENGTH | BURST_COOKIE | BURST_SET_VALID);
    }
  }

  /** Looks for filled buffers: how many there are, at most one burst. They stay until {@link FilledRing.release}. */
  peek(): number {
    return this.proxy.queue.peek("inuse", this.#table, this.#table.capacity);
  }

  /** Bytes of a peeked buffer, borrowed until its release; null when the host claims more than it was given, or none. */
  bytes(i: number): Uint8Array | null {
    const length = this.#table.length(i);
    if (length === 0 || length > this.size) return null;
    return this.memory.space.view(this.#base + this.#table.position(i) * this.size, length);
  }

  /** Posts the first n peeked buffers again. */
  release(n: number): void {
    if (n === 0) return;
    for (let i = 0; i < n; i++) this.#prepare(i);
    const { queue, wakeups } = this.proxy;
    wakeups.ringIf(
      queue.release("inuse", this.#table, n, BURST_POINTER | BURST_LENGTH | BURST_COOKIE | BURST_SIGNAL),
    );
  }

  /** Ends it; the device is closed already. `released`: the host let go of the buffers, so they are given back. */
  close(released: boolean): void {
    if (released) this.memory.ram.free(this.#base);
    this.#table.close();
  }
}
