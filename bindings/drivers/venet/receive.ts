import {
  BURST_COOKIE,
  BURST_HEAD,
  BURST_LENGTH,
  BURST_POINTER,
  BURST_SET_VALID,
  BURST_SIGNAL,
  BURST_TRANSLATE,
  FRAME_GSO,
  FRAME_NEEDS_CSUM,
} from "../../../assembly/abi/arena.js";
import { BurstTable } from "../../engine/table.js";
import { Batch } from "../../net/batch.js";
import type { Scheduler } from "../../scheduler.js";
import type { ProxyDevice, ProxyQueue } from "../proxy.js";
import { RingBuffers } from "./buffers.js";
import type { GrantedOffloads } from "./offloads.js";
import type { PageRing } from "./pages.js";
import {
  ReceiveSlots,
  SLOT_BAD_LENGTH,
  SLOT_BAD_OFFLOAD,
  SLOT_BAD_PAGE,
  SLOT_FLUSHED,
  SLOT_FRAME,
} from "./receive-slots.js";
import { SLOT_SIZE } from "./transmit-slots.js";

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
  /** Superframes among them (`rx_packets` counts each once). */
  rx_gro: number;
  /** Frames with partial checksums, superframes included. */
  rx_csum_partial: number;
  /** Descriptors that came back empty after a flush. */
  rx_flushed: number;
  /** Descriptors whose length or address the host got wrong; their frames are lost. */
  rx_length_errors: number;
  /** Frames with pages that the host was not given; lost. */
  rx_page_errors: number;
  /** Frames whose checksum or segmentation data contradicts itself, or was not granted; lost. */
  rx_frame_errors: number;
  /** Buffers posted in an older size, because memory was short when the MTU changed. */
  rx_no_buffer: number;
  /** Polls. */
  rx_polls: number;
}

/** Large receive, when it was granted. */
export interface LargeReceive {
  /** Guest-physical address of the pool of slots. */
  readonly pool: number;
  /** The page queue. */
  readonly pages: PageRing;
  /** What the host may send. */
  readonly granted: GrantedOffloads;
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
    rx_gro: 0,
    rx_csum_partial: 0,
    rx_flushed: 0,
    rx_length_errors: 0,
    rx_page_errors: 0,
    rx_frame_errors: 0,
    rx_no_buffer: 0,
    rx_polls: 0,
  };
  readonly #buffers: RingBuffers;
  /** Null: linear frames. */
  readonly #slots: ReceiveSlots | null;
  readonly #table: BurstTable;
  readonly #batch: Batch;
  readonly #scheduler: Scheduler;
  #enabled = false;
  #scheduled = false;
  #polling = false;

  /**
   * @param proxy - the ring, shared as segment 0
   * @param large - large receive, or null for linear frames
   * @param frameSize - size that a buffer should have when it is posted
   * @param receiver - takes frames; borrowed for the call
   * @param onError - the ring broke
   */
  constructor(
    private readonly proxy: ProxyQueue,
    device: ProxyDevice,
    large: LargeReceive | null,
    private readonly frameSize: () => number,
    private readonly receiver: FrameReceiver,
    private readonly onError: (error: unknown) => void,
  ) {
    const { memory, scheduler } = device.bus.transport;
    this.#scheduler = scheduler;
    this.#buffers = new RingBuffers(memory, proxy.queue.count);
    this.#table = BurstTable.allocate(memory.space, Math.min(BURST, proxy.queue.count));
    this.#batch = new Batch(this.#table);
    try {
      this.#slots =
        large === null
          ? null
          : new ReceiveSlots(
              this.#table,
              large.pool,
              proxy.queue.count,
              this.#buffers,
              large.pages,
              large.granted,
            );
    } catch (error) {
      this.#table.close();
      throw error;
    }
  }

  /** Posts a buffer in every descriptor, and gives the host its pages. @throws VbusError ENOMEM */
  post(): void {
    const { queue } = this.proxy;
    const table = this.#table;
    for (let n; (n = queue.reserve("valid", table, table.capacity)) > 0;) {
      for (let i = 0; i < n; i++) {
        const position = table.position(i);
        this.#refill(i);
        if (this.#slots !== null) {
          table.setGpa(i, this.#slots.pointer(position));
          table.setLength(i, SLOT_SIZE);
        }
        table.setCookie(i, position + 1);
      }
      queue.commit("valid", table, n, BURST_POINTER | BURST_LENGTH | BURST_COOKIE | BURST_SET_VALID);
    }
    this.#slots?.pages.refill();
  }

  /** Offers a buffer at the position of entry i: in the entry, or in the position's slot. */
  #refill(i: number): void {
    const table = this.#table;
    const position = table.position(i);
    if (!this.#buffers.prepare(position, this.frameSize(), 1)) this.statistics.rx_no_buffer++;
    if (this.#slots !== null) {
      this.#slots.post(position);
      return;
    }
    table.setGpa(i, this.#buffers.gpa(position));
    table.setLength(i, this.#buffers.size(position));
    table.setCookie(i, position + 1);
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
        const n = this.#peek();
        if (n === 0) {
          this.proxy.wakeups.enable();
          return;
        }
        const taken = this.#handUp(n);
        if (this.#isClosed()) return; // the receiver closed the NIC
        this.#repost(taken, n); // also when it stopped the NIC: what was handed up must not come again
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

  /** Descriptors that came back; with large receive the table then has the frames of their slots. */
  #peek(): number {
    const { queue } = this.proxy;
    const table = this.#table;
    if (this.#slots === null) {
      return queue.peek("inuse", table, table.capacity, BURST_TRANSLATE | BURST_HEAD);
    }
    const n = queue.peek("inuse", table, table.capacity);
    this.#slots.open(n);
    return n;
  }

  #isClosed(): boolean {
    return this.proxy.queue.closed;
  }

  #isEnabled(): boolean {
    return this.#enabled;
  }

  /** Hands up the frames among n descriptors. Returns how many descriptors are done with. */
  #handUp(n: number): number {
    const batch = this.#batch;
    batch.count = n;
    let done = 0;
    while (done < n) {
      let end = done;
      let verdict = SLOT_FRAME;
      while (end < n && (verdict = this.#verdict(end)) === SLOT_FRAME) end++;
      if (end > done) {
        const taken = this.receiver(batch, done, end);
        this.#count(done, done + taken);
        if (taken < end - done) return done + taken;
      }
      if (end < n) {
        this.#countLost(verdict);
        end++;
      }
      done = end;
    }
    return done;
  }

  #count(from: number, to: number): void {
    const { statistics } = this;
    const table = this.#table;
    statistics.rx_packets += to - from;
    statistics.rx_bytes += this.#batch.byteCount(from, to);
    if (this.#slots === null) return;
    for (let i = from; i < to; i++) {
      const flags = table.flags(i);
      if ((flags & FRAME_GSO) !== 0) statistics.rx_gro++;
      if ((flags & FRAME_NEEDS_CSUM) !== 0) statistics.rx_csum_partial++;
    }
  }

  #countLost(verdict: number): void {
    const { statistics } = this;
    if (verdict === SLOT_FLUSHED) statistics.rx_flushed++;
    else if (verdict === SLOT_BAD_PAGE) statistics.rx_page_errors++;
    else if (verdict === SLOT_BAD_OFFLOAD) statistics.rx_frame_errors++;
    else statistics.rx_length_errors++;
  }

  /** What a descriptor came back with (`SLOT_…`): a frame only in the buffer that was posted. */
  #verdict(i: number): number {
    if (this.#slots !== null) return this.#slots.verdict(i);
    const table = this.#table;
    const length = table.length(i);
    const position = table.position(i);
    if (length === 0) return SLOT_FLUSHED;
    return length <= this.#buffers.size(position) &&
      table.bufferAddress(i) === this.#buffers.address(position)
      ? SLOT_FRAME
      : SLOT_BAD_LENGTH;
  }

  /** Posts the first `done` of n descriptors anew. */
  #repost(done: number, n: number): void {
    this.#slots?.settle(done, n);
    if (done === 0) return;
    for (let i = 0; i < done; i++) this.#refill(i);
    const { queue, wakeups } = this.proxy;
    const slots = this.#slots;
    // with slots only those are rewritten: the host keeps the descriptors' lengths in whatever state it likes
    const what = slots === null ? BURST_POINTER | BURST_LENGTH | BURST_COOKIE : 0;
    wakeups.ringIf(queue.release("inuse", this.#table, done, what | BURST_SIGNAL));
    slots?.pages.refill();
  }

  /** Bytes of guest memory that buffers of `size` bytes take more than those that are there. */
  growth(size: number): number {
    return this.#buffers.growth(size);
  }

  /** Ends it; the device is closed already. `released`: the host let go of the buffers, so they are given back. */
  close(released: boolean): void {
    this.#enabled = false;
    if (released) this.#buffers.close();
    this.#slots?.close();
    this.#table.close();
  }
}
