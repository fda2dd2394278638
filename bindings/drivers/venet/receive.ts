import {
  BURST_COOKIE,
  BURST_HEAD,
  BURST_LENGTH,
  BURST_POINTER,
  BURST_SET_VALID,
  BURST_SIGNAL,
  BURST_TRANSLATE,
} from "../../../assembly/abi/arena.js";
import { BurstTable } from "../../engine/table.js";
import { Batch } from "../../net/batch.js";
import type { Scheduler } from "../../scheduler.js";
import type { ProxyDevice, ProxyQueue } from "../proxy.js";
import { RingBuffers } from "./buffers.js";

/** Frames per burst. */
const BURST = 64;
/** Frames per poll before other work of the thread gets its turn (`docs/abi/venet.md` section 10). */
const POLL_BUDGET = 128;

/** Counters of the receiving half, named as `ethtool -S` would. */
export interface ReceiveStatistics {
  /** Frames handed up. */
  rx_packets: number;
  /** Bytes of those. */
  rx_bytes: number;
  /** Descriptors that came back empty after a flush. */
  rx_flushed: number;
  /** Descriptors whose length or address the host got wrong; their frames are lost. */
  rx_length_errors: number;
  /** Buffers posted in an older size, because memory was short when the MTU changed. */
  rx_no_buffer: number;
  /** Polls. */
  rx_polls: number;
}

/** Who takes received frames. Returns how many it took; the rest stays in the ring until {@link ReceiveRing.poll}. */
export type FrameReceiver = (batch: Batch, from: number, to: number) => number;

/**
 * North of the RX ring: pattern (b) of `docs/abi/ioq.md` section 6 with the notification behaviour of
 * `docs/abi/venet.md` section 11: a wakeup masks and polls; a poll that finds nothing unmasks.
 */
export class ReceiveRing {
  readonly statistics: ReceiveStatistics = {
    rx_packets: 0,
    rx_bytes: 0,
    rx_flushed: 0,
    rx_length_errors: 0,
    rx_no_buffer: 0,
    rx_polls: 0,
  };
  readonly #buffers: RingBuffers;
  readonly #table: BurstTable;
  readonly #batch: Batch;
  readonly #scheduler: Scheduler;
  #enabled = false;
  #scheduled = false;
  #polling = false;

  /**
   * @param proxy - the ring, shared as segment 0
   * @param frameSize - size that a buffer should have when it is posted
   * @param receiver - takes frames; borrowed for the call
   * @param onError - the ring broke
   */
  constructor(
    private readonly proxy: ProxyQueue,
    device: ProxyDevice,
    private readonly frameSize: () => number,
    private readonly receiver: FrameReceiver,
    private readonly onError: (error: unknown) => void,
  ) {
    const { memory, scheduler } = device.bus.transport;
    this.#scheduler = scheduler;
    this.#buffers = new RingBuffers(memory, proxy.queue.count);
    this.#table = BurstTable.allocate(memory.space, Math.min(BURST, proxy.queue.count));
    this.#batch = new Batch(this.#table);
  }

  /** Posts a buffer in every descriptor. @throws VbusError ENOMEM */
  post(): void {
    const { queue } = this.proxy;
    for (let n; (n = queue.reserve("valid", this.#table, this.#table.capacity)) > 0;) {
      for (let i = 0; i < n; i++) this.#refill(i);
      queue.commit("valid", this.#table, n, BURST_POINTER | BURST_LENGTH | BURST_COOKIE | BURST_SET_VALID);
    }
  }

  #refill(i: number): void {
    const position = this.#table.position(i);
    if (!this.#buffers.prepare(position, this.frameSize(), 1)) this.statistics.rx_no_buffer++;
    this.#table.setGpa(i, this.#buffers.gpa(position));
    this.#table.setLength(i, this.#buffers.size(position));
    this.#table.setCookie(i, position + 1);
  }

  /** Starts polling (after LINKUP). */
  start(): void {
    this.#enabled = true;
    this.schedule();
  }

  /** Stops polling; frames stay in the ring. */
  stop(): void {
    this.#enabled = false;
    this.proxy.wakeups.disable();
  }

  /** Runs as the queue's notifier. */
  wake(): void {
    this.proxy.wakeups.disable();
    this.schedule();
  }

  /** Polls soon. Call it when the receiver can take frames again. */
  schedule(): void {
    if (this.#scheduled || !this.#enabled) return;
    this.#scheduled = true;
    this.#scheduler.post(() => {
      this.#scheduled = false;
      this.#poll();
    });
  }

  #poll(): void {
    if (!this.#enabled || this.#polling || this.proxy.queue.closed) return;
    this.#polling = true;
    this.statistics.rx_polls++;
    try {
      for (let polled = 0; polled < POLL_BUDGET;) {
        const n = this.proxy.queue.peek(
          "inuse",
          this.#table,
          this.#table.capacity,
          BURST_TRANSLATE | BURST_HEAD,
        );
        if (n === 0) {
          this.proxy.wakeups.enable();
          return;
        }
        const taken = this.#handUp(n);
        if (this.#isClosed()) return; // the receiver closed the NIC
        this.#repost(taken); // also when it stopped the NIC: what was handed up must not come again
        if (!this.#isEnabled()) return;
        polled += taken;
        if (taken < n) return; // the receiver calls schedule() when it wants more
      }
      this.schedule();
    } catch (error) {
      this.stop();
      this.onError(error);
    } finally {
      this.#polling = false;
    }
  }

  #isClosed(): boolean {
    return this.proxy.queue.closed;
  }

  #isEnabled(): boolean {
    return this.#enabled;
  }

  /** Hands up the frames among n descriptors. Returns how many descriptors are done with. */
  #handUp(n: number): number {
    const table = this.#table;
    const batch = this.#batch;
    batch.count = n;
    let done = 0;
    while (done < n) {
      let end = done;
      let bytes = 0;
      while (end < n && this.#isFrame(end)) bytes += table.length(end++);
      if (end > done) {
        const taken = this.receiver(batch, done, end);
        if (taken < end - done) {
          bytes = 0;
          for (let i = done; i < done + taken; i++) bytes += table.length(i);
        }
        this.statistics.rx_packets += taken;
        this.statistics.rx_bytes += bytes;
        if (taken < end - done) return done + taken;
      }
      if (end < n) {
        if (table.length(end) === 0) this.statistics.rx_flushed++;
        else this.statistics.rx_length_errors++;
        end++;
      }
      done = end;
    }
    return done;
  }

  /** True for a frame in the buffer that was posted; length 0 is a flushed descriptor. */
  #isFrame(i: number): boolean {
    const table = this.#table;
    const length = table.length(i);
    const position = table.position(i);
    return (
      length > 0 &&
      length <= this.#buffers.size(position) &&
      table.bufferAddress(i) === this.#buffers.address(position)
    );
  }

  #repost(n: number): void {
    if (n === 0) return;
    for (let i = 0; i < n; i++) this.#refill(i);
    const { queue, wakeups } = this.proxy;
    wakeups.ringIf(
      queue.release("inuse", this.#table, n, BURST_POINTER | BURST_LENGTH | BURST_COOKIE | BURST_SIGNAL),
    );
  }

  /** Bytes of guest memory that buffers of `size` bytes take more than those that are there. */
  growth(size: number): number {
    return this.#buffers.growth(size);
  }

  /** Ends it; the device is closed already. `released`: the host let go of the buffers, so they are given back. */
  close(released: boolean): void {
    this.#enabled = false;
    if (released) this.#buffers.close();
    this.#table.close();
  }
}
