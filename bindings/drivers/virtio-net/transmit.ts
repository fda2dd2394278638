import {
  ENTRY_OFF_COOKIE,
  ENTRY_OFF_GPA,
  ENTRY_OFF_LENGTH,
  ENTRY_SIZE,
  FRAME_ECN,
  FRAME_GSO,
  FRAME_NEEDS_CSUM,
} from "../../../assembly/abi/arena.js";
import { VENET_GSO_MAX, VSG_GSO_TCPV4, VSG_GSO_TCPV6, VSG_GSO_UDP_L4 } from "../../../assembly/abi/venet.js";
import {
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_GSO_ECN,
  VIRTIO_NET_HDR_GSO_TCPV4,
  VIRTIO_NET_HDR_GSO_TCPV6,
  VIRTIO_NET_HDR_GSO_UDP_L4,
  VIRTIO_NET_HDR_SIZE,
} from "../../../assembly/abi/virtio-net.js";
import { BurstTable } from "../../engine/table.js";
import { VirtQueueWakeups } from "../../engine/virtqueue-wakeup.js";
import type { GuestMemory } from "../../memory/guest.js";
import type { OutgoingFrame, Sendable } from "../venet/frames.js";
import type { VirtioDriverQueue, VirtioDriverTransport } from "../virtio/transport.js";
import { FrameBuffers } from "./buffers.js";

/** Frames per burst. */
const BURST = 64;
/** Words of a table's entry. */
const ENTRY_WORDS = ENTRY_SIZE >>> 2;

const GSO_TYPES: Readonly<Record<number, number>> = {
  [VSG_GSO_TCPV4]: VIRTIO_NET_HDR_GSO_TCPV4,
  [VSG_GSO_TCPV6]: VIRTIO_NET_HDR_GSO_TCPV6,
  [VSG_GSO_UDP_L4]: VIRTIO_NET_HDR_GSO_UDP_L4,
};

interface Waiter {
  frames: readonly Sendable[];
  sent: number;
  resolve: () => void;
  reject: (error: Error) => void;
}

/** Counters of the sending half, named as `ethtool -S` would. */
export interface VirtioTransmitStatistics {
  /** Frames put into the ring. */
  tx_packets: number;
  /** Bytes of those. */
  tx_bytes: number;
  /** Superframes among them (`tx_packets` counts each once). */
  tx_tso: number;
  /** Frames that left their checksum to the device, superframes included. */
  tx_csum_partial: number;
  /** Times a sender had to wait for room. */
  tx_queue_stopped: number;
}

/**
 * The transmit queue (virtio 1.2: 5.1.6.2). Each descriptor has a buffer: header and frame in one piece. What the device has
 * used is taken back when room is needed, and interrupts are asked for only while somebody waits for room.
 */
export class TransmitSide {
  readonly statistics: VirtioTransmitStatistics = {
    tx_packets: 0,
    tx_bytes: 0,
    tx_tso: 0,
    tx_csum_partial: 0,
    tx_queue_stopped: 0,
  };
  readonly #memory: GuestMemory;
  readonly #buffers: FrameBuffers;
  /** Slots that have no frame under way. */
  readonly #free: number[];
  /** Large buffer of the frame in a slot, or 0. */
  readonly #largeOf: Float64Array;
  readonly #largeFree: number[] = [];
  #largeLeft: number;
  readonly #table: BurstTable;
  readonly #reaped: BurstTable;
  readonly #wakeups: VirtQueueWakeups;
  readonly #waiters: Waiter[] = [];
  /** Buffers of superframes, whatever their length. */
  readonly #large: FrameBuffers[] = [];
  #ended: Error | null = null;

  /** @throws VbusError ENOMEM */
  constructor(
    private readonly queue: VirtioDriverQueue,
    transport: VirtioDriverTransport,
    frameSize: number,
    superframeMemory: number,
    onError: (error: unknown) => void,
  ) {
    const { ring } = queue;
    this.#memory = transport.memory;
    const { space } = transport.memory;
    this.#buffers = new FrameBuffers(transport.memory, ring.size, frameSize);
    this.#free = Array.from({ length: ring.size }, (_, i) => ring.size - 1 - i);
    this.#largeOf = new Float64Array(ring.size);
    this.#largeLeft = Math.floor(superframeMemory / FrameBuffers.sizeFor(VENET_GSO_MAX)) || 1;
    this.#table = BurstTable.allocate(space, Math.min(BURST, ring.size));
    this.#reaped = BurstTable.allocate(space, Math.min(BURST, ring.size));
    // whatever the frame, its entry is one piece that the device reads
    const { address, capacity } = this.#table;
    space.engine.words.fill(0, address >>> 2, (address >>> 2) + capacity * ENTRY_WORDS);
    this.#wakeups = new VirtQueueWakeups(ring, {
      scheduler: transport.scheduler,
      notifier: () => {
        this.#serve();
      },
      onBroken: onError,
    });
    this.#wakeups.disable(); // the memory of a new ring asks for interrupts
  }

  /** Runs as the queue's interrupt. */
  readonly interrupt = (): void => {
    this.#wakeups.wakeup();
  };

  /** True while senders wait for room. */
  get stopped(): boolean {
    return this.#waiters.length > 0;
  }

  /** Takes back what the device has used. */
  #reclaim(): void {
    const { address, capacity } = this.#reaped;
    for (let n; (n = this.queue.ring.reap(this.#reaped, capacity)) > 0;) {
      const { words } = this.#memory.space.engine;
      for (let at = (address + ENTRY_OFF_COOKIE) >>> 2, i = 0; i < n; i++, at += ENTRY_WORDS) {
        const slot = words[at] as number;
        const large = this.#largeOf[slot] as number;
        if (large !== 0) {
          this.#largeOf[slot] = 0;
          this.#largeFree.push(large);
        }
        this.#free.push(slot);
      }
    }
  }

  /** A buffer for a superframe, or 0 while too many are under way. @throws VbusError ENOMEM when there is not even one */
  #takeLarge(): number {
    const free = this.#largeFree.pop();
    if (free !== undefined) return free;
    if (this.#largeLeft === 0) return 0;
    const large = new FrameBuffers(this.#memory, 1, VENET_GSO_MAX);
    this.#largeLeft--;
    this.#large.push(large);
    return large.gpa;
  }

  /**
   * Puts as many frames as there is room for into the ring, from `first` on. Returns how many.
   * @throws VbusError EPROTO when the ring broke, ENOTCONN after the end, ENOMEM
   */
  push(frames: readonly Sendable[], first: number): number {
    if (this.#ended !== null) throw this.#ended;
    const table = this.#table;
    let at = first;
    while (at < frames.length) {
      const wanted = Math.min(table.capacity, frames.length - at);
      if (this.#free.length < wanted) this.#reclaim();
      const room = Math.min(wanted, this.#free.length);
      const n = this.#fill(frames, at, room);
      if (n === 0) break;
      if (this.queue.ring.add(table, n)) this.queue.kick();
      at += n;
      if (n < wanted) break;
    }
    return at - first;
  }

  /** Places frames from `at` on; fewer than `room` when memory runs out, and when there is none for even one throws. */
  #fill(frames: readonly Sendable[], at: number, room: number): number {
    const { bytes, words } = this.#memory.space.engine;
    const buffers = this.#buffers.address();
    let entry = this.#table.address >>> 2;
    let n = 0;
    try {
      while (n < room && this.#place(bytes, words, buffers, entry, frames[at + n] as Sendable)) {
        entry += ENTRY_WORDS;
        n++;
      }
    } catch (error) {
      if (n === 0) throw error; // the next attempt begins with this frame
    }
    return n;
  }

  /** Copies a frame to a buffer and describes it in the entry at word `entry`. False while there is none that is large enough. */
  #place(bytes: Uint8Array, words: Uint32Array, buffers: number, entry: number, frame: Sendable): boolean {
    const { gpa: first, size } = this.#buffers;
    const length = frame.length + VIRTIO_NET_HDR_SIZE;
    const slot = this.#free.pop() as number;
    let address = buffers + slot * size;
    let gpa = first + slot * size;
    if (length > size) {
      if (this.#largeFree.length === 0 && this.#largeLeft === 0) this.#reclaim();
      gpa = this.#takeLargeFor(slot);
      if (gpa === 0) return false;
      address = this.#memory.space.translate(gpa, length);
    }
    let to = address + VIRTIO_NET_HDR_SIZE;
    if (frame instanceof Uint8Array) {
      const header = address >>> 2;
      words[header] = 0;
      words[header + 1] = 0;
      words[header + 2] = 0;
      bytes.set(frame, to);
    } else {
      this.#header(words, address >>> 2, frame);
      for (const part of frame.parts) {
        bytes.set(part, to);
        to += part.length;
      }
    }
    words[entry + (ENTRY_OFF_LENGTH >>> 2)] = length;
    words[entry + (ENTRY_OFF_GPA >>> 2)] = gpa >>> 0;
    words[entry + (ENTRY_OFF_GPA >>> 2) + 1] = Math.floor(gpa / 2 ** 32);
    words[entry + (ENTRY_OFF_COOKIE >>> 2)] = slot;
    this.#count(frame);
    return true;
  }

  /** The superframe buffer of a slot. 0 while there is none; then, and when there never will be, the slot is free again. */
  #takeLargeFor(slot: number): number {
    let gpa = 0;
    try {
      gpa = this.#takeLarge();
    } finally {
      if (gpa === 0) this.#free.push(slot);
    }
    this.#largeOf[slot] = gpa;
    return gpa;
  }

  /** Writes a header at word `at`: flags, type and header length; segment size and checksum start; checksum offset. */
  #header(words: Uint32Array, at: number, frame: OutgoingFrame): void {
    const { flags } = frame;
    let first = 0;
    let middle = 0;
    let last = 0;
    if ((flags & FRAME_NEEDS_CSUM) !== 0) {
      first = VIRTIO_NET_HDR_F_NEEDS_CSUM;
      middle = frame.checksumStart << 16;
      last = frame.checksumOffset;
    }
    if ((flags & FRAME_GSO) !== 0) {
      const ecn = (flags & FRAME_ECN) === 0 ? 0 : VIRTIO_NET_HDR_GSO_ECN;
      first |= (((GSO_TYPES[frame.type] as number) | ecn) << 8) | (frame.headerLength << 16);
      middle |= frame.segmentSize;
    }
    words[at] = first;
    words[at + 1] = middle;
    words[at + 2] = last;
  }

  #count(frame: Sendable): void {
    const { statistics } = this;
    statistics.tx_packets++;
    statistics.tx_bytes += frame.length;
    if (frame instanceof Uint8Array) return;
    if ((frame.flags & FRAME_GSO) !== 0) statistics.tx_tso++;
    if ((frame.flags & FRAME_NEEDS_CSUM) !== 0) statistics.tx_csum_partial++;
  }

  /** Sends frames in order, waiting for room; behind everybody who waits already. */
  async send(frames: readonly Sendable[]): Promise<void> {
    const sent = this.#waiters.length === 0 ? this.push(frames, 0) : 0;
    if (this.#ended !== null) throw this.#ended;
    if (sent === frames.length) return;
    this.statistics.tx_queue_stopped++;
    return new Promise((resolve, reject) => {
      this.#waiters.push({ frames, sent, resolve, reject });
      this.#wakeups.enable();
    });
  }

  /** There may be room: those who wait get it, in order. */
  #serve(): void {
    this.#reclaim();
    for (let waiter; (waiter = this.#waiters[0]) !== undefined;) {
      try {
        waiter.sent += this.push(waiter.frames, waiter.sent);
      } catch (error) {
        if (this.queue.ring.broken !== null) throw error;
        this.#waiters.shift();
        waiter.reject(error as Error);
        continue;
      }
      if (waiter.sent < waiter.frames.length) return;
      this.#waiters.shift();
      waiter.resolve();
    }
    this.#wakeups.disable();
  }

  /** No frame is taken from now on; who waits is told why. */
  end(reason: Error): void {
    if (this.#ended !== null) return;
    this.#ended = reason;
    this.#wakeups.close();
    for (const waiter of this.#waiters.splice(0)) waiter.reject(reason);
  }

  /** Gives its memory back. `released`: the device has let go of the buffers; else they are never used again. */
  close(released: boolean): void {
    this.#table.close();
    this.#reaped.close();
    if (released) for (const buffers of [this.#buffers, ...this.#large]) buffers.close();
  }
}
