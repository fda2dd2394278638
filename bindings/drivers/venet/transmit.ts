import {
  BURST_CLEAR_VALID,
  BURST_COOKIE,
  BURST_LENGTH,
  BURST_NOFLIP,
  BURST_POINTER,
  BURST_SET_VALID,
  BURST_SIGNAL,
  FRAME_GSO,
  FRAME_NEEDS_CSUM,
} from "../../../assembly/abi/arena.js";
import { BurstTable } from "../../engine/table.js";
import { VbusError } from "../../errors.js";
import type { ProxyDevice, ProxyQueue } from "../proxy.js";
import { BLOCK_SIZE, BlockPool } from "./blocks.js";
import { RingBuffers } from "./buffers.js";
import type { OutgoingFrame, Sendable } from "./frames.js";
import type { TransmitSlots } from "./transmit-slots.js";

/** Frames per burst. */
const BURST = 64;
const PUSH = BURST_POINTER | BURST_LENGTH | BURST_COOKIE | BURST_SET_VALID | BURST_SIGNAL;

interface Waiter {
  frames: readonly Sendable[];
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
  /** Superframes among them (`tx_packets` counts each once). */
  tx_tso: number;
  /** Frames that left their checksum to the host, superframes included. */
  tx_csum_partial: number;
  /** Frames given in several pieces that were sent in one. */
  tx_linearized: number;
  /** Completion events that fit no frame under way. */
  tx_bad_completions: number;
  /** Times a sender had to wait for room. */
  tx_queue_stopped: number;
}

/** What the host granted for sending. */
export interface TransmitMode {
  /** Scatter-gather descriptors, bound to the ring's positions; null: linear frames. */
  readonly slots: TransmitSlots | null;
  /** Completions are events ({@link TransmitRing.completed}); without, the ring tells. */
  readonly completionEvents: boolean;
  /** Most bytes of guest memory for superframes. */
  readonly superframeMemory: number;
}

/** Position of the ring that waits for its completion event. */
const UNDER_WAY = 1;
/** Position whose completion event came. */
const COMPLETED = 2;

/**
 * North of the TX ring: pattern (a) of `docs/abi/ioq.md` section 6. Completions are reclaimed when room is needed, and
 * notification is enabled only while somebody waits for room: a completion that nobody waits for costs no wake-up.
 *
 * With completion events a descriptor that the host popped stays on the valid index until its event came: so the ring
 * itself says which positions, and which buffers with them, may be used again.
 */
export class TransmitRing {
  readonly statistics: TransmitStatistics = {
    tx_packets: 0,
    tx_bytes: 0,
    tx_tso: 0,
    tx_csum_partial: 0,
    tx_linearized: 0,
    tx_bad_completions: 0,
    tx_queue_stopped: 0,
  };
  readonly #buffers: RingBuffers;
  readonly #blocks: BlockPool;
  /** Blocks of the superframe at a position. */
  readonly #held: (readonly number[] | undefined)[];
  /** With completion events: UNDER_WAY, COMPLETED or 0 for each position. */
  readonly #states: Uint8Array;
  /** Position at the head of the valid index. */
  #head = 0;
  readonly #table: BurstTable;
  readonly #waiters: Waiter[] = [];
  #ended: Error | null = null;

  /**
   * @param proxy - the ring, shared as segment 1
   * @param mode - what was granted
   * @param frameSize - size of a new buffer, asked anew for every frame
   * @param onError - the ring broke
   */
  constructor(
    private readonly proxy: ProxyQueue,
    device: ProxyDevice,
    private readonly mode: TransmitMode,
    private readonly frameSize: () => number,
    private readonly onError: (error: unknown) => void,
  ) {
    const { memory } = device.bus.transport;
    const { count } = proxy.queue;
    this.#buffers = new RingBuffers(memory, count);
    this.#blocks = new BlockPool(device, mode.superframeMemory);
    this.#held = new Array<undefined>(count).fill(undefined);
    this.#states = new Uint8Array(count);
    this.#table = BurstTable.allocate(memory.space, Math.min(BURST, count));
  }

  /** Takes back what the host has sent. */
  #reclaim(): void {
    const { queue } = this.proxy;
    for (let n; (n = queue.peek("valid", null, queue.count)) > 0;) {
      const ready = this.mode.completionEvents ? this.#countCompleted(n) : n;
      if (ready === 0) return;
      this.#settle(ready);
      queue.release("valid", null, ready, BURST_NOFLIP | BURST_CLEAR_VALID);
      if (ready < n) return;
    }
  }

  /** How many of the next n positions to be reclaimed have had their events. */
  #countCompleted(n: number): number {
    const { count } = this.proxy.queue;
    let ready = 0;
    while (ready < n && this.#states[(this.#head + ready) % count] === COMPLETED) ready++;
    return ready;
  }

  /** The next n positions are free again, and what they held. */
  #settle(n: number): void {
    const { count } = this.proxy.queue;
    if (this.mode.completionEvents || this.#blocks.used > 0) {
      for (let i = 0, position = this.#head; i < n; i++, position = (position + 1) % count) {
        this.#states[position] = 0;
        this.#giveBlocks(position);
      }
    }
    this.#head = (this.#head + n) % count;
  }

  #giveBlocks(position: number): void {
    const blocks = this.#held[position];
    if (blocks === undefined) return;
    this.#held[position] = undefined;
    this.#blocks.give(blocks);
  }

  /** A completion event came, quoting a cookie (64 bits, in two halves). Call {@link TransmitRing.wake} after the last. */
  completed(low: number, high: number): void {
    const position = low - 1;
    if (high !== 0 || this.#states[position] !== UNDER_WAY) {
      this.statistics.tx_bad_completions++;
      return;
    }
    this.#states[position] = COMPLETED;
    this.#giveBlocks(position);
  }

  /**
   * Puts as many frames as there is room for into the ring, from `first` on. Returns how many.
   * @throws VbusError EPROTO when the ring broke, ENOTCONN when the NIC was closed, ENOMEM when there is no memory for
   *   even the first frame
   */
  push(frames: readonly Sendable[], first: number): number {
    if (this.#ended !== null) throw this.#ended;
    try {
      return this.#push(frames, first);
    } catch (error) {
      if (this.proxy.queue.broken !== null) this.onError(error);
      throw error;
    }
  }

  #push(frames: readonly Sendable[], first: number): number {
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
      this.#count(frames, at, filled);
      at += filled;
      if (filled < room) break;
    }
    return at - first;
  }

  #count(frames: readonly Sendable[], first: number, n: number): void {
    const { statistics } = this;
    statistics.tx_packets += n;
    for (let i = first; i < first + n; i++) {
      const frame = frames[i] as Sendable;
      statistics.tx_bytes += frame.length;
      if (frame instanceof Uint8Array) continue;
      if ((frame.flags & FRAME_GSO) !== 0) statistics.tx_tso++;
      if ((frame.flags & FRAME_NEEDS_CSUM) !== 0) statistics.tx_csum_partial++;
      if (frame.parts.length > 1 && !this.#needsBlocks(frame)) statistics.tx_linearized++;
    }
  }

  /** Superframes that are no longer than ordinary frames take the buffer that the position has anyway. */
  #needsBlocks(frame: OutgoingFrame): boolean {
    return (frame.flags & FRAME_GSO) !== 0 && frame.length > this.frameSize();
  }

  /**
   * Copies frames to reserved descriptors. Returns how many: fewer than `room` when memory runs out, and when not even
   * `required` can have any throws. Superframes may also have to wait for those before them: then it is fewer, too.
   */
  #fill(frames: readonly Sendable[], first: number, room: number, required: number): number {
    const table = this.#table;
    const { completionEvents } = this.mode;
    for (let i = 0; i < room; i++) {
      const frame = frames[first + i] as Sendable;
      const position = table.position(i);
      try {
        if (!(frame instanceof Uint8Array) && this.#needsBlocks(frame)) {
          if (!this.#placeBlocks(i, position, frame)) return i;
        } else {
          this.#place(i, position, frame);
        }
      } catch (error) {
        if (i < required) throw error;
        return i; // the next attempt begins with this frame
      }
      table.setCookie(i, position + 1);
      if (completionEvents) this.#states[position] = UNDER_WAY;
    }
    return room;
  }

  /** Copies a frame to the buffer of a position. */
  #place(i: number, position: number, frame: Sendable): void {
    const buffers = this.#buffers;
    const table = this.#table;
    const { slots } = this.mode;
    const { length } = frame;
    buffers.prepare(position, Math.max(this.frameSize(), length), length);
    const { bytes } = table.space;
    const gpa = buffers.gpa(position);
    let at = buffers.address(position);
    if (frame instanceof Uint8Array) {
      bytes.set(frame, at);
    } else {
      for (const part of frame.parts) {
        bytes.set(part, at);
        at += part.length;
      }
    }
    if (slots === null) {
      table.setGpa(i, gpa);
      table.setLength(i, length);
      return;
    }
    table.setGpa(i, slots.pointer(position));
    table.setLength(
      i,
      frame instanceof Uint8Array
        ? slots.writePlain(position, gpa, length)
        : slots.writeSingle(position, frame, gpa),
    );
  }

  /** Copies a superframe to blocks. False while too many of them are in use. */
  #placeBlocks(i: number, position: number, frame: OutgoingFrame): boolean {
    const { slots } = this.mode;
    if (slots === null) throw new VbusError("EINVAL", "a superframe for a ring without scatter-gather");
    let blocks = this.#blocks.take(frame.length);
    if (blocks === null) {
      this.#reclaim();
      blocks = this.#blocks.take(frame.length);
      if (blocks === null) return false;
    }
    this.#held[position] = blocks;
    copyToBlocks(this.#table, frame.parts, blocks);
    this.#table.setGpa(i, slots.pointer(position));
    this.#table.setLength(i, slots.writeBlocks(position, frame, blocks, BLOCK_SIZE));
    return true;
  }

  /** Sends frames in order, waiting for room; behind everybody who waits already. */
  async send(frames: readonly Sendable[]): Promise<void> {
    if (this.#ended !== null) throw this.#ended;
    const sent = this.#waiters.length === 0 ? this.push(frames, 0) : 0;
    if (sent === frames.length) return;
    this.statistics.tx_queue_stopped++;
    return new Promise((resolve, reject) => {
      this.#waiters.push({ frames, sent, resolve, reject });
      this.#expectRoom();
    });
  }

  /** With completion events the event queue wakes us. */
  #expectRoom(): void {
    if (!this.mode.completionEvents) this.proxy.wakeups.enable();
  }

  /** True while a sender waits for room. */
  get stopped(): boolean {
    return this.#waiters.length > 0;
  }

  /** The host returned descriptors: serves those who wait. Runs as the queue's notifier. */
  wake(): void {
    this.proxy.wakeups.disable();
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
        this.#expectRoom();
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

/** Copies pieces to blocks, one after the other. */
function copyToBlocks(table: BurstTable, parts: readonly Uint8Array[], blocks: readonly number[]): void {
  const { space } = table;
  const { bytes } = space;
  let block = 0;
  let at = 0;
  let left = 0;
  for (const part of parts) {
    for (let from = 0; from < part.length;) {
      if (left === 0) {
        at = space.translate(blocks[block++] as number, BLOCK_SIZE);
        left = BLOCK_SIZE;
      }
      const n = Math.min(left, part.length - from);
      bytes.set(from === 0 && n === part.length ? part : part.subarray(from, from + n), at);
      from += n;
      at += n;
      left -= n;
    }
  }
}
