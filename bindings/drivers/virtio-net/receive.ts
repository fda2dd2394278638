import { CHAIN_WRITABLE } from "../../../assembly/abi/arena-virtq.js";
import {
  ENTRY_HEAD_SIZE,
  ENTRY_OFF_ADDRESS,
  ENTRY_OFF_COOKIE,
  ENTRY_OFF_CSUM_START,
  ENTRY_OFF_FLAGS,
  ENTRY_OFF_FRAGMENT_LIST,
  ENTRY_OFF_GPA,
  ENTRY_OFF_GSO_KIND,
  ENTRY_OFF_HEAD,
  ENTRY_OFF_HEADER_LENGTH,
  ENTRY_OFF_LENGTH,
  ENTRY_SIZE,
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
  VIRTIO_NET_HDR_SIZE,
} from "../../../assembly/abi/virtio-net.js";
import { BurstTable } from "../../engine/table.js";
import { VirtQueueWakeups } from "../../engine/virtqueue-wakeup.js";
import { VbusError } from "../../errors.js";
import type { GuestMemory } from "../../memory/guest.js";
import { Batch } from "../../net/batch.js";
import { SUPERFRAME_KINDS, type GrantedOffloads, type SuperframeKind } from "../venet/offloads.js";
import type { VirtioDriverQueue, VirtioDriverTransport } from "../virtio/transport.js";
import { FrameBuffers } from "./buffers.js";

/** Frames per burst. */
const BURST = 64;
/** Words of a table's entry and of a piece. */
const ENTRY_WORDS = ENTRY_SIZE >>> 2;
const PIECE_WORDS = PIECE_SIZE >>> 2;

const KINDS: readonly (readonly [type: number, kind: SuperframeKind])[] = [
  [VIRTIO_NET_HDR_GSO_TCPV4, "tcp4"],
  [VIRTIO_NET_HDR_GSO_TCPV6, "tcp6"],
  [VIRTIO_NET_HDR_GSO_UDP_L4, "udp"],
];

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
 * was negotiated, in several that were used one after the other. Of every header each member is read once.
 *
 * Used buffers are taken from the ring burst by burst, and wait as pairs of numbers until their frame is whole and was taken.
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
  readonly #buffers: FrameBuffers;
  readonly #maxPieces: number;
  readonly #lists: number;
  readonly #table: BurstTable;
  readonly #batch: Batch;
  readonly #wakeups: VirtQueueWakeups;
  /** Segmentation kind by type of a header, without the ECN bit; 0: none, or not granted. */
  readonly #kinds = new Uint8Array(256);
  /** Used buffers in order that are not handed up yet, from `#head` to `#tail`: their slots … */
  readonly #slots: Uint32Array;
  /** … and the bytes that were written to each. */
  readonly #written: Uint32Array;
  #head = 0;
  #tail = 0;
  /** How many buffers the frames of the batch take, up to and with each. */
  readonly #ends: Uint32Array;
  /** Buffers that go back to the device … */
  readonly #posted: BurstTable;
  /** … and how many these are. */
  #returned = 0;
  /** {@link ReceiveSide.resume} was called. */
  #resumed = false;
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
    const { space } = transport.memory;
    this.#buffers = new FrameBuffers(transport.memory, size, frameSize);
    this.#maxPieces = granted.scatterGather
      ? Math.min(size, Math.ceil((VENET_GSO_MAX + VIRTIO_NET_HDR_SIZE) / this.#buffers.size) + 1)
      : 1;
    const burst = Math.min(BURST, size);
    this.#table = BurstTable.allocate(space, burst);
    this.#posted = BurstTable.allocate(space, burst);
    this.#lists = space.allocate(burst * this.#maxPieces * PIECE_SIZE, 64);
    this.#batch = new Batch(this.#table);
    // what waits is moved to the front when a burst may not fit behind it
    this.#slots = new Uint32Array(size + burst);
    this.#written = new Uint32Array(size + burst);
    this.#ends = new Uint32Array(burst);
    for (const [type, kind] of KINDS) if (granted[kind]) this.#kinds[type] = SUPERFRAME_KINDS[kind].gso;
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
    const { words } = this.#memory.space.engine;
    const { address, capacity } = this.#posted;
    // but for which buffer it is, an entry is always the same
    words.fill(0, address >>> 2, (address >>> 2) + capacity * ENTRY_WORDS);
    for (let i = 0; i < capacity; i++) {
      this.#posted.setLength(i, this.#buffers.size);
      this.#posted.setFlags(i, CHAIN_WRITABLE);
    }
    for (let slot = 0; slot < this.queue.ring.size; slot++) this.#return(words, slot);
    this.#publish();
    this.#wakeups.enable();
  }

  /** The receiver can take frames again. */
  resume(): void {
    if (this.#ended) return;
    this.#resumed = true;
    this.#wakeups.enable();
    this.#wakeups.schedule(); // what waits here, no interrupt announces
  }

  /** A buffer goes back to the device, with the burst that it belongs to. */
  #return(words: Uint32Array, slot: number): void {
    const gpa = this.#buffers.gpa + slot * this.#buffers.size;
    const entry = (this.#posted.address >>> 2) + this.#returned * ENTRY_WORDS;
    words[entry + (ENTRY_OFF_GPA >>> 2)] = gpa >>> 0;
    words[entry + (ENTRY_OFF_GPA >>> 2) + 1] = Math.floor(gpa / 2 ** 32);
    words[entry + (ENTRY_OFF_COOKIE >>> 2)] = slot;
    if (++this.#returned === this.#posted.capacity) this.#publish();
  }

  /** Makes buffers that go back available. */
  #publish(): void {
    const n = this.#returned;
    if (n === 0) return;
    this.#returned = 0;
    if (this.queue.ring.add(this.#posted, n)) this.queue.kick();
  }

  /** One burst of used buffers; the wake-up loop comes again when there is more. */
  #poll(): void {
    this.statistics.rx_polls++;
    this.#reap();
    for (let frames; (frames = this.#assemble()) > 0;) {
      this.#batch.count = frames;
      this.#resumed = false;
      const asked = this.receiver(this.#batch, 0, frames);
      if (this.#isEnded()) return;
      const taken = asked < frames ? asked : frames;
      if (taken > 0) this.#release(taken);
      if (taken < frames) {
        if (!this.#wasResumed()) this.#wakeups.disable();
        break;
      }
    }
    this.#publish();
  }

  #isEnded(): boolean {
    return this.#ended;
  }

  #wasResumed(): boolean {
    return this.#resumed;
  }

  /** Takes a burst of used buffers from the ring. @throws VbusError EPROTO */
  #reap(): void {
    const { ring } = this.queue;
    const { address, capacity } = this.#table;
    if (this.#tail + capacity > this.#slots.length) {
      this.#slots.copyWithin(0, this.#head, this.#tail);
      this.#written.copyWithin(0, this.#head, this.#tail);
      this.#tail -= this.#head;
      this.#head = 0;
    }
    const n = ring.reap(this.#table, Math.min(capacity, this.#slots.length - this.#tail));
    const { words } = this.#memory.space.engine;
    for (let entry = address >>> 2, i = 0; i < n; i++, entry += ENTRY_WORDS) {
      const slot = words[entry + (ENTRY_OFF_COOKIE >>> 2)] as number;
      if (slot >= ring.size)
        throw new VbusError(
          "EPROTO",
          `a buffer of number ${slot} was used, of ${ring.size}; reset the device`,
        );
      this.#slots[this.#tail] = slot;
      this.#written[this.#tail++] = words[entry + (ENTRY_OFF_LENGTH >>> 2)] as number;
    }
  }

  /** Describes frames whose buffers are all there in the table; those that cannot be are counted and given back. */
  #assemble(): number {
    if (this.#head === this.#tail) return 0;
    const { words } = this.#memory.space.engine;
    const { address, capacity } = this.#table;
    const buffers = this.#buffers.address();
    let frames = 0;
    let entry = address >>> 2;
    for (let at = this.#head; frames < capacity && at < this.#tail;) {
      const count = this.#describe(words, buffers, at, frames, entry);
      if (count === 0) break;
      if (count > 0) {
        at += count;
        this.#ends[frames++] = at - this.#head;
        entry += ENTRY_WORDS;
      } else {
        this.#drop(words, at, -count);
        at -= count;
      }
    }
    return frames;
  }

  /**
   * Describes the frame that begins at a place among the used buffers in entry i, which lies at word `entry`. How many buffers it
   * takes; 0 when they are not all there yet; negative, and counted, when it cannot be and so many are to be dropped.
   */
  #describe(words: Uint32Array, buffers: number, at: number, i: number, entry: number): number {
    const offset = (this.#slots[at] as number) * this.#buffers.size;
    const header = (buffers + offset) >>> 2;
    const length = this.#written[at] as number;
    let count = 1;
    let total = length - VIRTIO_NET_HDR_SIZE;
    if (total < 0) return this.#badLength(1);
    // three words: flags, type and header length; segment size and checksum start; checksum offset and number of buffers
    const last = words[header + 2] as number;
    if (this.granted.scatterGather) {
      count = last >>> 16;
      if (count === 0 || count > this.#maxPieces) return this.#badLength(1);
      if (at + count > this.#tail) return 0;
    }
    const list = this.#lists + i * this.#maxPieces * PIECE_SIZE;
    if (count > 1) total = this.#list(words, buffers, at, count, list);
    if (length > this.#buffers.size || total < ETH_HEADER_SIZE || total > VENET_GSO_MAX)
      return this.#badLength(count);

    const gpa = this.#buffers.gpa + offset + VIRTIO_NET_HDR_SIZE;
    const frame = header + (VIRTIO_NET_HDR_SIZE >>> 2);
    words[entry + (ENTRY_OFF_ADDRESS >>> 2)] = frame * 4;
    words[entry + (ENTRY_OFF_LENGTH >>> 2)] = total;
    words[entry + (ENTRY_OFF_GPA >>> 2)] = gpa >>> 0;
    words[entry + (ENTRY_OFF_GPA >>> 2) + 1] = Math.floor(gpa / 2 ** 32);
    words[entry + (ENTRY_OFF_FRAGMENT_LIST >>> 2)] = list;
    const head = entry + (ENTRY_OFF_HEAD >>> 2);
    if (length >= VIRTIO_NET_HDR_SIZE + ENTRY_HEAD_SIZE) {
      for (let k = 0; k < ENTRY_HEAD_SIZE >>> 2; k++) words[head + k] = words[frame + k] as number;
    } else {
      this.#copyHead(buffers, at, count, head * 4);
    }
    if (this.#describeOffload(words, header, last, entry, total, count)) return count;
    this.statistics.rx_frame_errors++;
    return -count;
  }

  #badLength(count: number): number {
    this.statistics.rx_length_errors++;
    return -count;
  }

  /** Lists the pieces of a frame in several buffers. Its length; 0 when one of the buffers has a length that cannot be. */
  #list(words: Uint32Array, buffers: number, at: number, count: number, list: number): number {
    const { gpa: first, size } = this.#buffers;
    let total = 0;
    for (let k = 0, piece = list >>> 2; k < count; k++, piece += PIECE_WORDS) {
      const skip = k === 0 ? VIRTIO_NET_HDR_SIZE : 0;
      const offset = (this.#slots[at + k] as number) * size + skip;
      const length = (this.#written[at + k] as number) - skip;
      if (length <= 0 || length + skip > size) return 0;
      words[piece + (PIECE_OFF_ADDRESS >>> 2)] = buffers + offset;
      words[piece + (PIECE_OFF_LENGTH >>> 2)] = length;
      words[piece + (PIECE_OFF_GPA >>> 2)] = (first + offset) >>> 0;
      words[piece + (PIECE_OFF_GPA >>> 2) + 1] = Math.floor((first + offset) / 2 ** 32);
      total += length;
    }
    return total;
  }

  /** The private copy of the first bytes of a frame whose first buffer has fewer; what the frame lacks reads as zero. */
  #copyHead(buffers: number, at: number, count: number, to: number): void {
    const { bytes } = this.#memory.space.engine;
    bytes.fill(0, to, to + ENTRY_HEAD_SIZE);
    for (let k = 0, done = 0; k < count && done < ENTRY_HEAD_SIZE; k++) {
      const skip = k === 0 ? VIRTIO_NET_HDR_SIZE : 0;
      const from = buffers + (this.#slots[at + k] as number) * this.#buffers.size + skip;
      const length = Math.min((this.#written[at + k] as number) - skip, ENTRY_HEAD_SIZE - done);
      bytes.copyWithin(to + done, from, from + length);
      done += length;
    }
  }

  /**
   * What is left to do about the frame in the entry at word `entry`, by the header at word `header`; its last word was read
   * already. False for what contradicts itself, or was not negotiated.
   */
  #describeOffload(
    words: Uint32Array,
    header: number,
    last: number,
    entry: number,
    length: number,
    count: number,
  ): boolean {
    const first = words[header] as number;
    const middle = words[header + 1] as number;
    const type = (first >>> 8) & 0xff;
    let flags = (first & VIRTIO_NET_HDR_F_DATA_VALID) === 0 ? 0 : FRAME_CSUM_VALID;
    let checksum = 0;
    let kind = 0;
    let headerLength = 0;
    if ((first & VIRTIO_NET_HDR_F_NEEDS_CSUM) !== 0) {
      const start = middle >>> 16;
      const offset = last & 0xffff;
      if (!this.granted.checksum || start + offset + 2 > length) return false;
      checksum = start | (offset << 16);
      flags |= FRAME_NEEDS_CSUM;
    }
    if (type !== VIRTIO_NET_HDR_GSO_NONE) {
      const size = middle & 0xffff;
      const ecn = (type & VIRTIO_NET_HDR_GSO_ECN) !== 0;
      kind = this.#kinds[type & ~VIRTIO_NET_HDR_GSO_ECN] as number;
      if (kind === 0 || (ecn && !this.granted.ecn)) return false;
      if (size === 0 || (flags & FRAME_NEEDS_CSUM) === 0) return false;
      kind |= size << 16;
      headerLength = Math.min(first >>> 16, length);
      flags |= FRAME_GSO | (ecn ? FRAME_ECN : 0);
    }
    words[entry + (ENTRY_OFF_FLAGS >>> 2)] = flags;
    words[entry + (ENTRY_OFF_CSUM_START >>> 2)] = checksum;
    words[entry + (ENTRY_OFF_GSO_KIND >>> 2)] = kind;
    words[entry + (ENTRY_OFF_HEADER_LENGTH >>> 2)] = headerLength | (count << 16);
    return true;
  }

  /** Gives `count` used buffers from `at` on back; those before them stay in front of what comes then. */
  #drop(words: Uint32Array, at: number, count: number): void {
    for (let k = 0; k < count; k++) this.#return(words, this.#slots[at + k] as number);
    this.#slots.copyWithin(this.#head + count, this.#head, at);
    this.#written.copyWithin(this.#head + count, this.#head, at);
    this.#head += count;
  }

  /** The first frames of the batch were taken: counts them, and gives their buffers back. */
  #release(taken: number): void {
    const { words } = this.#memory.space.engine;
    this.#count(words, taken);
    for (const end = this.#head + (this.#ends[taken - 1] as number); this.#head < end; this.#head++)
      this.#return(words, this.#slots[this.#head] as number);
  }

  #count(words: Uint32Array, taken: number): void {
    const { statistics } = this;
    statistics.rx_packets += taken;
    statistics.rx_bytes += this.#batch.byteCount(0, taken);
    let entry = (this.#table.address + ENTRY_OFF_FLAGS) >>> 2;
    for (let i = 0; i < taken; i++, entry += ENTRY_WORDS) {
      const flags = words[entry] as number;
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
    if (released) this.#buffers.close();
  }
}
