import {
  BURST_CLEAR_VALID,
  BURST_SET_VALID,
  BURST_SIGNAL,
  ENTRY_OFF_COOKIE,
  FRAME_ECN,
  FRAME_GSO,
  FRAME_NEEDS_CSUM,
  RECHECK_VALID_HEAD,
} from "../../../assembly/abi/arena.js";
import {
  DESC_OFF_LEN,
  DESC_OFF_PTR,
  EXT_LAZY_INDEXES,
  IOQ_DESC_SIZE,
  IOQ_OFF_RING,
} from "../../../assembly/abi/ioq.js";
import { VSG_IOV_OFF_PTR, VSG_SIZE_FIXED } from "../../../assembly/abi/venet.js";
import { Queue, RECLAIM, type QueueCounters } from "../../engine/queue.js";
import { BurstTable } from "../../engine/table.js";
import { moveFrames } from "../../engine/transfer.js";
import { QueueWakeups } from "../../engine/wakeup.js";
import type { MemorySpace } from "../../memory/space.js";
import type { Scheduler } from "../../scheduler.js";
import type { Batch } from "../batch.js";
import { FRAME_ALIGN, FRAME_SLOT_SIZE, type FrameLinkPlaces } from "./frame-link.js";

/** Frames per burst. */
const BURST = 64;
/** Flags that cross; whatever else a receiver noted stays here. */
const CROSSING = FRAME_NEEDS_CSUM | FRAME_GSO | FRAME_ECN;

/** How an {@link OutgoingRing} is wired. */
export interface OutgoingRingOptions {
  space: MemorySpace;
  places: FrameLinkPlaces;
  /** Number of descriptors. */
  count: number;
  /** Room for frames. */
  bytes: number;
  scheduler: Scheduler;
  /** Rings the other thread: frames came. */
  ring: () => void;
  /** There is room again, after {@link OutgoingRing.waitForRoom}. */
  room: () => void;
  /** The other thread broke the ring. */
  broken: (error: unknown) => void;
}

/*
 * Transmit with reclaim (`docs/abi/ioq.md` 6a): this thread is north of the ring that it sends by. Frames lie one after
 * the other in a ring of bytes of our own; they come back in ring order, so that two positions are all the allocator that
 * is needed. What is not believed: descriptors and slots, which the other thread may rewrite. Where a frame lies, and how
 * much room it takes, is in private books.
 */

/** North of the ring from this thread to the other one. */
export class OutgoingRing {
  readonly #queue: Queue;
  readonly #table: BurstTable;
  readonly #wakeups: QueueWakeups;
  readonly #slots: number;
  readonly #frames: number;
  readonly #framesGpa: number;
  /** What the frame at a ring position takes of the bytes, what was skipped at the end included. */
  readonly #taken: Uint32Array;
  /** Where the next frame would have gone before it was placed. */
  readonly #before: Uint32Array;
  /** Frames that {@link OutgoingRing.push} took and could not send: they grew meanwhile. */
  skipped = 0;
  #head = 0;
  #used = 0;
  /** Ring position of the oldest frame. */
  #oldest = 0;
  #outstanding = 0;

  /** Formats the ring. @throws VbusError ENOMEM */
  constructor(private readonly options: OutgoingRingOptions) {
    const { space, places, count, bytes, scheduler } = options;
    this.#slots = space.translate(places.slots, count * FRAME_SLOT_SIZE);
    this.#frames = space.translate(places.frames, bytes);
    this.#framesGpa = places.frames;
    this.#taken = new Uint32Array(count);
    this.#before = new Uint32Array(count);
    this.#queue = Queue.create(space, {
      gpa: places.ring,
      count,
      role: "northTransmit",
      offer: EXT_LAZY_INDEXES,
    });
    this.#table = BurstTable.allocate(space, BURST);
    const { data } = space.engine;
    const ring = space.translate(places.ring, places.ringLength);
    for (let i = 0; i < count; i++) {
      // each position has its slot for good
      const descriptor = ring + IOQ_OFF_RING + i * IOQ_DESC_SIZE;
      data.setUint32(descriptor + DESC_OFF_PTR, places.slots + i * FRAME_SLOT_SIZE, true);
      data.setUint32(descriptor + DESC_OFF_LEN, FRAME_SLOT_SIZE, true);
    }
    this.#wakeups = new QueueWakeups(this.#queue, {
      scheduler,
      recheck: RECHECK_VALID_HEAD,
      notifier: () => {
        this.#wakeups.disable();
        options.room();
      },
      ring: options.ring,
      onBroken: options.broken,
    });
    this.#wakeups.disable();
  }

  /** The other thread attached the ring. @throws VbusError EPROTO */
  attached(): void {
    this.#queue.negotiated();
  }

  /** The other thread rang: there may be room. */
  readonly doorbell = (): void => {
    this.#wakeups.wakeup();
  };

  /** Has `room` called once frames came back. */
  waitForRoom(): void {
    this.#wakeups.enable();
  }

  /** Frames that the other thread has not given back, as far as known. */
  get outstanding(): number {
    return this.#outstanding;
  }

  /** Sends frames [from, to), in order, as many as there is room for. Returns how many. @throws VbusError EPROTO */
  push(batch: Batch, from: number, to: number): number {
    let at = from;
    while (at < to) {
      const n = this.#burst(batch, at, to);
      at += n;
      if (n === 0) break;
    }
    return at - from;
  }

  #burst(batch: Batch, from: number, to: number): number {
    const table = this.#table;
    const queue = this.#queue;
    const max = Math.min(BURST, to - from);
    if (this.#queue.count - this.#outstanding < max) this.reclaim();
    const granted = queue.reserve("both", table, max);
    let n = 0;
    for (; n < granted; n++) {
      const length = batch.length(from + n);
      const position = table.position(n) % queue.count;
      let place = this.#place(length, position);
      if (place < 0 && n === 0) {
        this.reclaim();
        place = this.#place(length, position);
      }
      if (place < 0) break;
      table.setBuffer(n, this.#frames + place, length);
      this.#describe(n, position, this.#framesGpa + place);
    }
    if (n === 0) return 0;
    const { filled } = moveFrames(batch.table, from, from + n, table, 0, n);
    // only a frame whose length changed since it was read finds no room: its owner rewrites our books
    for (let i = n; i > filled; i--) this.#unplace(table.position(i - 1) % queue.count);
    this.skipped += n - filled;
    for (let i = 0; i < filled; i++) table.setFlags(i, table.flags(i) & CROSSING);
    queue.space.engine.exports.vsgFinish(queue.address, table.address, filled, 0);
    const doorbell = queue.commit("both", null, filled, BURST_SET_VALID | BURST_SIGNAL);
    this.#outstanding += filled;
    this.#wakeups.ringIf(doorbell);
    return n;
  }

  /** Room for a frame, as an offset; -1: there is none. Taken for the descriptor at that position. */
  #place(length: number, position: number): number {
    const { bytes } = this.options;
    const size = Math.ceil(length / FRAME_ALIGN) * FRAME_ALIGN;
    if (this.#used === 0) this.#head = 0; // the longest run
    const wraps = this.#head + size > bytes;
    const skipped = wraps ? bytes - this.#head : 0;
    if (this.#used + skipped + size > bytes) return -1;
    const place = wraps ? 0 : this.#head;
    this.#before[position] = this.#head;
    this.#head = place + size;
    this.#used += skipped + size;
    this.#taken[position] = skipped + size;
    return place;
  }

  /** Takes back the youngest {@link OutgoingRing.#place}. */
  #unplace(position: number): void {
    this.#used -= this.#taken[position] as number;
    this.#head = this.#before[position] as number;
  }

  /** Points an entry at the slot of its descriptor, and the slot at the frame. */
  #describe(i: number, position: number, gpa: number): void {
    const { words } = this.#queue.space.engine;
    const slot = this.#slots + position * FRAME_SLOT_SIZE;
    words[(this.#table.entry(i) + ENTRY_OFF_COOKIE) >>> 2] = slot;
    words[(slot + VSG_SIZE_FIXED + VSG_IOV_OFF_PTR) >>> 2] = gpa;
    words[((slot + VSG_SIZE_FIXED + VSG_IOV_OFF_PTR) >>> 2) + 1] = 0;
  }

  /** Takes back what the other thread is done with. Returns how many frames. @throws VbusError EPROTO */
  reclaim(): number {
    const queue = this.#queue;
    const n = queue.peek("valid", null, this.#outstanding);
    if (n === 0) return 0;
    queue.release("valid", null, n, RECLAIM | BURST_CLEAR_VALID);
    for (let i = 0; i < n; i++) {
      this.#used -= this.#taken[this.#oldest] as number;
      this.#oldest = this.#oldest + 1 === queue.count ? 0 : this.#oldest + 1;
    }
    this.#outstanding -= n;
    return n;
  }

  /** What was counted on the ring, by this side. */
  counters(): QueueCounters {
    return this.#queue.counters();
  }

  /** Gives the private state back. Frames in the ring stay there. */
  close(): void {
    this.#wakeups.close();
    this.#queue.close();
    this.#table.close();
  }
}
