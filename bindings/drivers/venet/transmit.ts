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
import { VbusError } from "../../errors.js";
import type { ProxyDevice, ProxyQueue } from "../proxy.js";
import { RingBuffers } from "./buffers.js";

/** Frames per burst. */
const BURST = 64;
const PUSH = BURST_POINTER | BURST_LENGTH | BURST_COOKIE | BURST_SET_VALID | BURST_SIGNAL;

interface Waiter {
  frames: readonly Uint8Array[];
  sent: number;
  resolve: () => void;
  reject: (error: Error) => void;
}

/** Counters of the sending half, named as `ethtool -S` would. */
export interface TransmitStatistics {
  /** Frames put into the ring. */
  tx_packets: number;
  /** Bytes of those. */
  tx_bytes: number;
  /** Times a sender had to wait for room. */
  tx_queue_stopped: number;
}

/**
 * North of the TX ring: pattern (a) of `docs/abi/ioq.md` section 6. Completions are reclaimed when room is needed, and
 * notification is enabled only while somebody waits for room: a completion that nobody waits for costs no wake-up.
 */
export class TransmitRing {
  readonly statistics: TransmitStatistics = { tx_packets: 0, tx_bytes: 0, tx_queue_stopped: 0 };
  readonly #buffers: RingBuffers;
  readonly #table: BurstTable;
  readonly #waiters: Waiter[] = [];
  #ended: Error | null = null;

  /**
   * @param proxy - the ring, shared as segment 1
   * @param frameSize - size of a new buffer, asked anew for every frame
   * @param onError - the ring broke
   */
  constructor(
    private readonly proxy: ProxyQueue,
    device: ProxyDevice,
    private readonly frameSize: () => number,
    private readonly onError: (error: unknown) => void,
  ) {
    const { memory } = device.bus.transport;
    this.#buffers = new RingBuffers(memory, proxy.queue.count);
    this.#table = BurstTable.allocate(memory.space, Math.min(BURST, proxy.queue.count));
  }

  /** Takes back what the host has sent. */
  #reclaim(): void {
    const { queue } = this.proxy;
    for (let n; (n = queue.peek("valid", null, queue.count)) > 0;) {
      queue.release("valid", null, n, BURST_NOFLIP | BURST_CLEAR_VALID);
    }
  }

  /**
   * Puts as many frames as there is room for into the ring, from `first` on. Returns how many.
   * @throws VbusError EPROTO when the ring broke, ENOTCONN when the NIC was closed, ENOMEM when there is no memory for
   *   even the first frame
   */
  push(frames: readonly Uint8Array[], first: number): number {
    if (this.#ended !== null) throw this.#ended;
    try {
      return this.#push(frames, first);
    } catch (error) {
      if (this.proxy.queue.broken !== null) this.onError(error);
      throw error;
    }
  }

  #push(frames: readonly Uint8Array[], first: number): number {
    const { queue, wakeups } = this.proxy;
    const table = this.#table;
    let at = first;
    while (at < frames.length) {
      const wanted = Math.min(table.capacity, frames.length - at);
      let room = queue.reserve("both", table, wanted);
      if (room < wanted) {
        this.#reclaim();
        room = queue.reserve("both", table, wanted);
        if (room === 0) break;
      }
      const filled = this.#fill(frames, at, room, at === first ? 1 : 0);
      if (filled === 0) break;
      wakeups.ringIf(queue.commit("both", table, filled, PUSH));
      this.statistics.tx_packets += filled;
      for (let i = 0; i < filled; i++) this.statistics.tx_bytes += table.length(i);
      at += filled;
      if (filled < room) break;
    }
    return at - first;
  }

  /** Copies frames to reserved descriptors. Returns how many: fewer than `room`, but not than `required`, without memory. */
  #fill(frames: readonly Uint8Array[], first: number, room: number, required: number): number {
    const table = this.#table;
    for (let i = 0; i < room; i++) {
      const frame = frames[first + i] as Uint8Array;
      const position = table.position(i);
      try {
        this.#buffers.prepare(position, Math.max(this.frameSize(), frame.length), frame.length);
      } catch (error) {
        if (i < required) throw error;
        return i; // the next attempt begins with this frame
      }
      table.space.bytes.set(frame, this.#buffers.address(position));
      table.setGpa(i, this.#buffers.gpa(position));
      table.setLength(i, frame.length);
      table.setCookie(i, position + 1);
    }
    return room;
  }

  /** Sends frames in order, waiting for room; behind everybody who waits already. */
  async send(frames: readonly Uint8Array[]): Promise<void> {
    if (this.#ended !== null) throw this.#ended;
    const sent = this.#waiters.length === 0 ? this.push(frames, 0) : 0;
    if (sent === frames.length) return;
    this.statistics.tx_queue_stopped++;
    return new Promise((resolve, reject) => {
      this.#waiters.push({ frames, sent, resolve, reject });
      this.proxy.wakeups.enable();
    });
  }

  /** True while a sender waits for room. */
  get stopped(): boolean {
    return this.#waiters.length > 0;
  }

  /** The host returned descriptors: serves those who wait. Runs as the queue's notifier. */
  wake(): void {
    const { wakeups } = this.proxy;
    wakeups.disable();
    for (let waiter; (waiter = this.#waiters[0]) !== undefined;) {
      try {
        waiter.sent += this.push(waiter.frames, waiter.sent);
      } catch (error) {
        if (this.#ended !== null) return; // everybody was told
        this.#waiters.shift();
        waiter.reject(error as Error);
        continue;
      }
      if (waiter.sent < waiter.frames.length) {
        wakeups.enable();
        return;
      }
      this.#waiters.shift();
      waiter.resolve();
    }
  }

  /** Nothing can be sent any more; everybody who waits is told why. */
  end(reason: Error): void {
    this.#ended ??= reason;
    for (const waiter of this.#waiters.splice(0)) waiter.reject(this.#ended);
  }

  /** Bytes of guest memory that buffers of `size` bytes take more than those that are there. */
  growth(size: number): number {
    return this.#buffers.growth(size);
  }

  /** Ends it; the device is closed already. `released`: the host let go of the buffers, so they are given back. */
  close(released: boolean): void {
    this.end(new VbusError("ENOTCONN", "the NIC is closed"));
    if (released) this.#buffers.close();
    this.#table.close();
  }
}
