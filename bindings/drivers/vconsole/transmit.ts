import {
  BURST_CLEAR_VALID,
  BURST_COOKIE,
  BURST_LENGTH,
  BURST_NOFLIP,
  BURST_POINTER,
  BURST_SET_VALID,
  BURST_SIGNAL,
} from "../../../assembly/abi/arena.js";
import { BurstTable } from "../../engine/table.js";
import type { GuestMemory } from "../../memory/guest.js";
import type { ProxyQueue } from "../proxy.js";

/** Descriptors per burst. */
const BURST = 16;
const PUSH = BURST_POINTER | BURST_LENGTH | BURST_COOKIE | BURST_SET_VALID | BURST_SIGNAL;

/** Bytes, or something to do when everything before it is in the ring. */
interface Item {
  bytes: Uint8Array;
  sent: number;
  action: (() => Promise<void>) | null;
  started: boolean;
  resolve: () => void;
  reject: (error: unknown) => void;
}

/**
 * North of the TX ring: pattern (a) of `docs/abi/ioq.md` section 6. Writers and actions in order; completions are
 * reclaimed when room is needed, and notification is enabled only while somebody waits for room.
 */
export class TransmitQueue {
  readonly #table: BurstTable;
  readonly #base: number;
  readonly #items: Item[] = [];
  #sent = 0;
  #waits = 0;

  /**
   * @param size - bytes per descriptor
   * @param mayPush - true while bytes may enter the ring
   * @param onError - the ring broke
   * @throws VbusError ENOMEM
   */
  constructor(
    private readonly proxy: ProxyQueue,
    private readonly memory: GuestMemory,
    private readonly size: number,
    private readonly mayPush: () => boolean,
    private readonly onError: (error: unknown) => void,
  ) {
    this.#table = BurstTable.allocate(memory.space, Math.min(BURST, proxy.queue.count));
    try {
      this.#base = memory.ram.allocate(size * proxy.queue.count, 64);
    } catch (error) {
      this.#table.close();
      throw error;
    }
  }

  /** Bytes put into the ring. */
  get sent(): number {
    return this.#sent;
  }

  /** Times a writer had to wait. */
  get waits(): number {
    return this.#waits;
  }

  #reclaim(): void {
    const { queue } = this.proxy;
    for (let n; (n = queue.peek("valid", null, queue.count)) > 0;)
      queue.release("valid", null, n, BURST_NOFLIP | BURST_CLEAR_VALID);
  }

  /** Puts bytes into the ring, from `first` on, as far as there is room. Returns how many. @throws VbusError EPROTO */
  #push(bytes: Uint8Array, first: number): number {
    const { queue, wakeups } = this.proxy;
    const table = this.#table;
    let at = first;
    while (at < bytes.length) {
      const wanted = Math.min(table.capacity, Math.ceil((bytes.length - at) / this.size));
      let room = queue.reserve("both", table, wanted);
      if (room < wanted) {
        this.#reclaim();
        room = queue.reserve("both", table, wanted);
        if (room === 0) break;
      }
      for (let i = 0; i < room; i++) {
        const chunk = bytes.subarray(at, at + this.size);
        const gpa = this.#base + table.position(i) * this.size;
        this.memory.space.copyTo(gpa, chunk);
        table.setGpa(i, gpa);
        table.setLength(i, chunk.length);
        table.setCookie(i, table.position(i) + 1);
        at += chunk.length;
      }
      wakeups.ringIf(queue.commit("both", table, room, PUSH));
    }
    this.#sent += at - first;
    return at - first;
  }

  /** Puts as many bytes into the ring as there is room for, at once; 0 while others wait. @throws VbusError EPROTO */
  tryPush(bytes: Uint8Array): number {
    if (this.#items.length > 0 || !this.mayPush()) return 0;
    try {
      return this.#push(bytes, 0);
    } catch (error) {
      this.onError(error);
      throw error;
    }
  }

  /** Writes bytes behind everybody who waits. Resolves when all are in the ring. */
  write(bytes: Uint8Array): Promise<void> {
    return this.#add(bytes, null);
  }

  /** Does something when everything before it is in the ring; what comes later waits until it is done. */
  act(action: () => Promise<void>): Promise<void> {
    return this.#add(new Uint8Array(0), action);
  }

  #add(bytes: Uint8Array, action: Item["action"]): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#items.push({ bytes, sent: 0, action, started: false, resolve, reject });
      this.pump();
    });
  }

  /** Goes on with what waits. */
  pump(): void {
    for (let item; (item = this.#items[0]) !== undefined;) {
      if (item.action !== null) {
        this.#start(item, item.action);
        return;
      }
      if (!this.mayPush()) return;
      try {
        item.sent += this.#push(item.bytes, item.sent);
      } catch (error) {
        this.onError(error); // which ends everybody
        return;
      }
      if (item.sent < item.bytes.length) {
        this.#waits++;
        this.proxy.wakeups.enable();
        return;
      }
      this.#items.shift();
      item.resolve();
    }
  }

  #start(item: Item, action: () => Promise<void>): void {
    if (item.started) return;
    item.started = true;
    const next = (): void => {
      if (this.#items[0] !== item) return; // ended meanwhile
      this.#items.shift();
      this.pump();
    };
    action().then(
      () => {
        item.resolve();
        next();
      },
      (error: unknown) => {
        item.reject(error);
        next();
      },
    );
  }

  /** Runs as the queue's notifier. */
  wake(): void {
    this.proxy.wakeups.disable();
    this.pump();
  }

  /** Everybody who waits is told why it is in vain; an action that is under way has its own end. */
  end(reason: Error): void {
    for (const item of this.#items.splice(0)) if (!item.started) item.reject(reason);
  }

  /** Ends it; the device is closed already. `released`: the host let go of the buffers, so they are given back. */
  close(released: boolean): void {
    if (released) this.memory.ram.free(this.#base);
    this.#table.close();
  }
}
