import { CHAIN_WRITABLE } from "../../../assembly/abi/arena-virtq.js";
import {
  ENTRY_HEAD_SIZE,
  ENTRY_OFF_CSUM_OFFSET,
  ENTRY_OFF_CSUM_START,
  ENTRY_OFF_FRAGMENT_LIST,
  ENTRY_OFF_FRAGMENTS,
  ENTRY_OFF_GSO_KIND,
  ENTRY_OFF_GSO_SIZE,
  ENTRY_OFF_HEAD,
  ENTRY_OFF_HEADER_LENGTH,
  FRAME_CSUM_VALID,
  FRAME_ECN,
  FRAME_GSO,
  FRAME_NEEDS_CSUM,
  PIECE_OFF_ADDRESS,
  PIECE_OFF_GPA,
  PIECE_OFF_LENGTH,
  PIECE_SIZE,
} from "../../../assembly/abi/arena.js";
import { ETH_HEADER_SIZE, VENET_GSO_MAX } from "../../../assembly/abi/venet.js";
import {
  VIRTIO_NET_HDR_F_DATA_VALID,
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_GSO_ECN,
  VIRTIO_NET_HDR_GSO_NONE,
  VIRTIO_NET_HDR_GSO_TCPV4,
  VIRTIO_NET_HDR_GSO_TCPV6,
  VIRTIO_NET_HDR_GSO_UDP_L4,
  VIRTIO_NET_HDR_OFF_CSUM_OFFSET,
  VIRTIO_NET_HDR_OFF_CSUM_START,
  VIRTIO_NET_HDR_OFF_FLAGS,
  VIRTIO_NET_HDR_OFF_GSO_SIZE,
  VIRTIO_NET_HDR_OFF_GSO_TYPE,
  VIRTIO_NET_HDR_OFF_HDR_LEN,
  VIRTIO_NET_HDR_OFF_NUM_BUFFERS,
  VIRTIO_NET_HDR_SIZE,
} from "../../../assembly/abi/virtio-net.js";
import { BurstTable } from "../../engine/table.js";
import { VirtQueueWakeups } from "../../engine/virtqueue-wakeup.js";
import type { GuestMemory } from "../../memory/guest.js";
import { Batch } from "../../net/batch.js";
import { SUPERFRAME_KINDS, type GrantedOffloads, type SuperframeKind } from "../venet/offloads.js";
import type { VirtioDriverQueue, VirtioDriverTransport } from "../virtio/transport.js";

/** Frames per burst. */
const BURST = 64;
const LINE = 64;

const KINDS: Readonly<Record<number, SuperframeKind>> = {
  [VIRTIO_NET_HDR_GSO_TCPV4]: "tcp4",
  [VIRTIO_NET_HDR_GSO_TCPV6]: "tcp6",
  [VIRTIO_NET_HDR_GSO_UDP_L4]: "udp",
};

/** Counters of the receiving half, named as `ethtool -S` would. */
export interface VirtioReceiveStatistics {
  /** Frames handed up. */
  rx_packets: number;
  /** Bytes of those. */
  rx_bytes: number;
  /** Superframes among them (`rx_packets` counts each once). */
  rx_gro: number;
  /** Frames with partial checksums, superframes included. */
  rx_csum_partial: number;
  /** Frames with lengths or numbers of buffers that cannot be; lost. */
  rx_length_errors: number;
  /** Frames whose checksum or segmentation data contradicts itself, or was not negotiated; lost. */
  rx_frame_errors: number;
  /** Polls. */
  rx_polls: number;
}

/** Who takes received frames. Returns how many it took; the rest waits until {@link ReceiveSide.resume}. */
export type FrameReceiver = (batch: Batch, from: number, to: number) => number;

/**
 * The receive queue (virtio 1.2: 5.1.6.3, 5.1.6.4). All descriptors have a buffer of one size; a frame lies in one, or, where that
 * was negotiated, in several that were used one after the other. Every header is read once.
 */
export class ReceiveSide {
  readonly statistics: VirtioReceiveStatistics = {
    rx_packets: 0,
    rx_bytes: 0,
    rx_gro: 0,
    rx_csum_partial: 0,
    rx_length_errors: 0,
    rx_frame_errors: 0,
    rx_polls: 0,
  };
  readonly #memory: GuestMemory;
  readonly #size: number;
  readonly #buffers: number;
  readonly #maxPieces: number;
  readonly #lists: number;
  readonly #table: BurstTable;
  /** Buffers that go back to the device. */
  readonly #posted: BurstTable;
  readonly #batch: Batch;
  readonly #wakeups: VirtQueueWakeups;
  /** Used buffers in order that are not handed up yet: slot and bytes written. */
  readonly #used: { slot: number; length: number }[] = [];
  /** Buffers of each frame of the batch. */
  readonly #counts: number[] = [];
  #ended = false;

  /** @throws VbusError ENOMEM */
  constructor(
    private readonly queue: VirtioDriverQueue,
    transport: VirtioDriverTransport,
    frameSize: number,
    private readonly granted: GrantedOffloads,
    private readonly receiver: FrameReceiver,
    onError: (error: unknown) => void,
  ) {
    const { size } = queue.ring;
    this.#memory = transport.memory;
    const { space, ram } = transport.memory;
    this.#size = Math.ceil((frameSize + VIRTIO_NET_HDR_SIZE) / LINE) * LINE;
    this.#maxPieces = granted.scatterGather
      ? Math.min(size, Math.ceil((VENET_GSO_MAX + VIRTIO_NET_HDR_SIZE) / this.#size) + 1)
      : 1;
    this.#buffers = ram.allocate(size * this.#size, LINE);
    const burst = Math.min(BURST, size);
    this.#table = BurstTable.allocate(space, burst);
    this.#posted = BurstTable.allocate(space, burst);
    this.#lists = space.allocate(burst * this.#maxPieces * PIECE_SIZE, 64);
    this.#batch = new Batch(this.#table);
    this.#wakeups = new VirtQueueWakeups(queue.ring, {
      scheduler: transport.scheduler,
      notifier: () => {
        this.#poll();
      },
      onBroken: onError,
    });
  }

  /** Runs as the queue's interrupt. */
  readonly interrupt = (): void => {
    this.#wakeups.wakeup();
  };

  /** Posts all buffers and listens. */
  start(): void {
    const { size } = this.queue.ring;
    for (let at = 0; at < size; at += this.#posted.capacity)
      this.#post(Array.from({ length: Math.min(this.#posted.capacity, size - at) }, (_, i) => at + i));
    this.#wakeups.enable();
  }

  /** The receiver can take frames again. */
  resume(): void {
    if (this.#ended) return;
    this.#wakeups.enable();
    this.#wakeups.schedule(); // what waits here, no interrupt announces
  }

  /** Gives buffers to the device; at most a burst. */
  #post(slots: readonly number[]): void {
    const table = this.#posted;
    for (const [i, slot] of slots.entries()) {
      table.setBuffer(i, 0, this.#size);
      table.setGpa(i, this.#buffers + slot * this.#size);
      table.setFlags(i, CHAIN_WRITABLE);
      table.setCookie(i, slot);
    }
    if (slots.length > 0 && this.queue.ring.add(table, slots.length)) this.queue.kick();
  }

  /** Gives the first n used buffers back. */
  #repost(n: number): void {
    const slots = this.#used.splice(0, n).map(({ slot }) => slot);
    for (let at = 0; at < slots.length; at += this.#posted.capacity)
      this.#post(slots.slice(at, at + this.#posted.capacity));
  }

  /** One burst of used buffers; the wake-up loop comes again when there is more. */
  #poll(): void {
    this.statistics.rx_polls++;
    const { ring } = this.queue;
    const n = ring.reap(this.#table, this.#table.capacity);
    for (let i = 0; i < n; i++)
      this.#used.push({ slot: this.#table.cookie(i), length: this.#table.length(i) });
    for (let frames; (frames = this.#assemble()) > 0;) {
      this.#batch.count = frames;
      const taken = this.receiver(this.#batch, 0, frames);
      if (this.#isEnded()) return;
      this.#count(taken);
      this.#repost(this.#counts.slice(0, taken).reduce((sum, count) => sum + count, 0));
      if (taken < frames) {
        this.#wakeups.disable();
        return;
      }
    }
  }

  #isEnded(): boolean {
    return this.#ended;
  }

  /** Describes frames whose buffers are all there in the table; those that cannot be are counted and given back. */
  #assemble(): number {
    let frames = 0;
    for (let at = 0; frames < this.#table.capacity && at < this.#used.length;) {
      const count = this.#buffersOf(at);
      if (at + count > this.#used.length) break;
      if (count > 0 && this.#describe(frames, at, count)) {
        this.#counts[frames++] = count;
        at += count;
      } else {
        // those before it stay in front of it
        const [first, rest] = [this.#used.slice(0, at), this.#used.slice(at)];
        this.#used.splice(0, this.#used.length, ...rest);
        if (count === 0) this.statistics.rx_length_errors++;
        this.#repost(Math.max(count, 1));
        this.#used.unshift(...first);
      }
    }
    return frames;
  }

  #headerAt(at: number): number {
    const { slot } = this.#used[at] as { slot: number };
    return this.#memory.space.translate(this.#buffers + slot * this.#size, this.#size);
  }

  /** How many buffers the frame at a place among the used ones takes; 0 for nonsense. */
  #buffersOf(at: number): number {
    const { length } = this.#used[at] as { length: number };
    if (length < VIRTIO_NET_HDR_SIZE) return 0;
    if (!this.granted.scatterGather) return 1;
    const count = this.#memory.space.engine.data.getUint16(
      this.#headerAt(at) + VIRTIO_NET_HDR_OFF_NUM_BUFFERS,
      true,
    );
    return count <= this.#maxPieces ? count : 0;
  }

  /** Describes a frame in entry i. False when it cannot be. */
  #describe(i: number, at: number, count: number): boolean {
    const { space } = this.#memory;
    const { words, bytes } = space.engine;
    const table = this.#table;
    const header = this.#headerAt(at);
    const list = this.#lists + i * this.#maxPieces * PIECE_SIZE;
    let total = 0;
    for (let k = 0; k < count; k++) {
      const { slot, length } = this.#used[at + k] as { slot: number; length: number };
      const skip = k === 0 ? VIRTIO_NET_HDR_SIZE : 0;
      if (length <= skip || length > this.#size) {
        this.statistics.rx_length_errors++;
        return false;
      }
      const gpa = this.#buffers + slot * this.#size + skip;
      const piece = (list + k * PIECE_SIZE) >>> 2;
      words[piece + (PIECE_OFF_ADDRESS >>> 2)] = space.translate(gpa, length - skip);
      words[piece + (PIECE_OFF_LENGTH >>> 2)] = length - skip;
      words[piece + (PIECE_OFF_GPA >>> 2)] = gpa >>> 0;
      words[piece + (PIECE_OFF_GPA >>> 2) + 1] = Math.floor(gpa / 2 ** 32);
      total += length - skip;
    }
    const first = header + VIRTIO_NET_HDR_SIZE;
    if (total < ETH_HEADER_SIZE || total > VENET_GSO_MAX) {
      this.statistics.rx_length_errors++;
      return false;
    }
    table.setBuffer(i, first, total);
    table.setGpa(i, words[(list + PIECE_OFF_GPA) >>> 2] as number);
    const entry = table.entry(i);
    if (count > 1) {
      space.engine.data.setUint16(entry + ENTRY_OFF_FRAGMENTS, count, true);
      words[(entry + ENTRY_OFF_FRAGMENT_LIST) >>> 2] = list;
    }
    bytes.copyWithin(entry + ENTRY_OFF_HEAD, first, first + ENTRY_HEAD_SIZE);
    if (this.#describeOffload(i, header, total)) return true;
    this.statistics.rx_frame_errors++;
    return false;
  }

  /** What is left to do about the frame in entry i. False for what contradicts itself, or was not negotiated. */
  #describeOffload(i: number, header: number, length: number): boolean {
    const { data, bytes } = this.#memory.space.engine;
    const flags = data.getUint8(header + VIRTIO_NET_HDR_OFF_FLAGS);
    const type = data.getUint8(header + VIRTIO_NET_HDR_OFF_GSO_TYPE);
    const entry = this.#table.entry(i);
    let result = (flags & VIRTIO_NET_HDR_F_DATA_VALID) === 0 ? 0 : FRAME_CSUM_VALID;
    if ((flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) !== 0) {
      const start = data.getUint16(header + VIRTIO_NET_HDR_OFF_CSUM_START, true);
      const offset = data.getUint16(header + VIRTIO_NET_HDR_OFF_CSUM_OFFSET, true);
      if (!this.granted.checksum || start + offset + 2 > length) return false;
      data.setUint16(entry + ENTRY_OFF_CSUM_START, start, true);
      data.setUint16(entry + ENTRY_OFF_CSUM_OFFSET, offset, true);
      result |= FRAME_NEEDS_CSUM;
    }
    if (type !== VIRTIO_NET_HDR_GSO_NONE) {
      const kind = KINDS[type & ~VIRTIO_NET_HDR_GSO_ECN];
      const ecn = (type & VIRTIO_NET_HDR_GSO_ECN) !== 0;
      const size = data.getUint16(header + VIRTIO_NET_HDR_OFF_GSO_SIZE, true);
      if (kind === undefined || !this.granted[kind] || (ecn && !this.granted.ecn)) return false;
      if (size === 0 || (result & FRAME_NEEDS_CSUM) === 0) return false;
      bytes[entry + ENTRY_OFF_GSO_KIND] = SUPERFRAME_KINDS[kind].gso;
      data.setUint16(entry + ENTRY_OFF_GSO_SIZE, size, true);
      const headers = data.getUint16(header + VIRTIO_NET_HDR_OFF_HDR_LEN, true);
      data.setUint16(entry + ENTRY_OFF_HEADER_LENGTH, Math.min(headers, length), true);
      result |= FRAME_GSO | (ecn ? FRAME_ECN : 0);
    }
    this.#table.setFlags(i, result);
    return true;
  }

  #count(taken: number): void {
    const { statistics } = this;
    statistics.rx_packets += taken;
    statistics.rx_bytes += this.#batch.byteCount(0, taken);
    for (let i = 0; i < taken; i++) {
      const flags = this.#table.flags(i);
      if ((flags & FRAME_GSO) !== 0) statistics.rx_gro++;
      if ((flags & FRAME_NEEDS_CSUM) !== 0) statistics.rx_csum_partial++;
    }
  }

  /** No frame is handed up from now on. */
  end(): void {
    this.#ended = true;
    this.#wakeups.close();
  }

  /** Gives its memory back. `released`: the device has let go of the buffers; else they are never used again. */
  close(released: boolean): void {
    this.end();
    this.#table.close();
    this.#posted.close();
    this.#memory.space.free(this.#lists);
    if (released) this.#memory.ram.free(this.#buffers);
  }
}
