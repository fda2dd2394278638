import {
  BurstTable,
  ENTRY_HEAD_SIZE,
  ENTRY_OFF_ADDRESS,
  ENTRY_OFF_CSUM_START,
  ENTRY_OFF_FLAGS,
  ENTRY_OFF_FRAGMENT_LIST,
  ENTRY_OFF_FRAGMENTS,
  ENTRY_OFF_GSO_KIND,
  ENTRY_OFF_HEAD,
  ENTRY_OFF_HEADER_LENGTH,
  ENTRY_OFF_LENGTH,
  ENTRY_SIZE,
  FRAME_ECN,
  FRAME_GSO,
  FRAME_NEEDS_CSUM,
  PIECE_OFF_LENGTH,
  PIECE_SIZE,
} from "vbus/engine";
import type { MemorySpace } from "vbus/memory";
import {
  Batch,
  emptyOffloadCounters,
  FrameStore,
  OffloadStage,
  type Port,
  type RetainedBatch,
} from "vbus/net";
import type { Scheduler } from "vbus/scheduler";
import { HEADERS_ROOM } from "./header-template.js";
import { countBurst, type PeerCounters } from "./peer-counters.js";

const SLOTS = 1024;
/** Bytes that wait at most; a frame goes in whole. */
const BYTES_MAX = 1 << 20;
/** Pieces of a frame: headers, and a payload that may wrap around the end of a ring buffer. */
const PIECES = 3;
const SLOT_SIZE = HEADERS_ROOM + PIECES * PIECE_SIZE + 16;
/** Rounds of a flush before other work of the thread gets its turn. */
const ROUNDS = 16;

/** What of a frame is left to be done. Reused from frame to frame: set all members. */
export class FrameNeeds {
  /** First byte to sum; 0: the checksum is complete. */
  start = 0;
  /** Where the sum goes, from there. */
  offset = 0;
  /** `GSO_…` kind; 0: no superframe. */
  kind = 0;
  /** Payload bytes per segment. */
  size = 0;
  /** The superframe carries ECN's CWR. */
  ecn = false;

  /** Nothing to be done. */
  clear(): this {
    this.start = 0;
    this.offset = 0;
    this.kind = 0;
    this.size = 0;
    this.ecn = false;
    return this;
  }
}

/** Where a frame's payload lies: up to two ranges of the host's memory, which must stay as they are until it was sent. */
export class Payload {
  count = 0;
  length = 0;
  readonly addresses: [number, number] = [0, 0];
  readonly lengths: [number, number] = [0, 0];

  clear(): this {
    this.count = 0;
    this.length = 0;
    return this;
  }

  add(address: number, length: number): this {
    this.addresses[this.count] = address;
    this.lengths[this.count++] = length;
    this.length += length;
    return this;
  }
}

/**
 * Frames on their way to the port. They lie in a burst table used as a ring, headers in a memory of their own, payload
 * wherever it is, and go in bursts: one call of `transmit` for all that waits. What the port does not take unfinished is
 * finished by the engine. A port that pushes back keeps everything where it is until it says `writable`.
 */
export class TransmitQueue {
  readonly payload = new Payload();
  readonly needs = new FrameNeeds();
  readonly #table: BurstTable;
  readonly #batch: Batch;
  readonly #store: FrameStore;
  readonly #slots: number;
  /** Block of the store that a slot's payload lies in, 0: none. */
  readonly #blocks = new Uint32Array(SLOTS);
  readonly #stage = new OffloadStage(emptyOffloadCounters());
  #start = 0;
  #count = 0;
  #bytes = 0;
  /** Segments that the port did not take all of: they come first. */
  #rest: RetainedBatch[] = [];
  #restFrom = 0;
  #blocked = false;
  #posted = false;
  #flushing = false;
  #closed = false;

  /**
   * @param sends - what may leave unfinished (`OFFLOAD_…` bits), when the port takes it
   * @param pull - asks those who have something to send to do so, as long as there is {@link TransmitQueue.room}
   */
  constructor(
    private readonly port: Port,
    private readonly space: MemorySpace,
    private readonly scheduler: Scheduler,
    private readonly counters: PeerCounters,
    private readonly sends: number,
    private readonly pull: () => void,
  ) {
    this.#table = BurstTable.allocate(space, SLOTS);
    this.#batch = new Batch(this.#table);
    this.#batch.count = SLOTS;
    this.#store = new FrameStore(space);
    this.#slots = space.allocate(SLOTS * SLOT_SIZE, 64);
    space.bytes.fill(0, this.#table.address, this.#table.entry(SLOTS));
  }

  /** There is room for a frame. */
  get room(): boolean {
    return this.#count < SLOTS && this.#bytes < BYTES_MAX && !this.#closed;
  }

  /** Frames that wait. */
  get waiting(): number {
    return this.#count + this.#rest.reduce((sum, batch) => sum + batch.count, 0) - this.#restFrom;
  }

  /**
   * Memory for a frame that its sender fills: hand it to {@link TransmitQueue.pushBlock}. 0: no room, and the frame is
   * counted as unsent.
   */
  block(length: number): number {
    const handle = this.room ? this.#store.block(length) : 0;
    if (handle === 0) this.counters.unsent++;
    return handle;
  }

  /** Where the frame of a block lies. */
  blockAddress(handle: number): number {
    return this.#store.frameAddress(handle);
  }

  /** Queues a block's frame; {@link TransmitQueue.needs} says what is to be done. */
  pushBlock(handle: number, length: number): void {
    const at = this.#store.frameAddress(handle);
    const slot = this.#describe(at, length);
    const { bytes } = this.space;
    bytes.copyWithin(this.#table.entry(slot) + ENTRY_OFF_HEAD, at, at + ENTRY_HEAD_SIZE);
    this.#blocks[slot] = handle;
  }

  /**
   * Queues a frame of headers, which are copied, and {@link TransmitQueue.payload}, which is not. The caller looked at
   * {@link TransmitQueue.room}.
   */
  push(headers: Uint8Array, headerLength: number): void {
    const { payload } = this;
    const { bytes, words } = this.space.engine;
    const next = (this.#start + this.#count) % SLOTS;
    const at = this.#slots + next * SLOT_SIZE;
    const slot = this.#describe(at, headerLength + payload.length);
    for (let i = 0; i < headerLength; i++) bytes[at + i] = headers[i]!; // dozens: cheaper than a view
    const entry = this.#table.entry(slot);
    for (let i = 0; i < ENTRY_HEAD_SIZE; i++) bytes[entry + ENTRY_OFF_HEAD + i] = headers[i]!;
    words[(entry + ENTRY_OFF_HEADER_LENGTH) >>> 2] = headerLength;
    if (payload.count === 0) return;
    const list = at + HEADERS_ROOM;
    words[(entry + ENTRY_OFF_HEADER_LENGTH) >>> 2] = headerLength | ((payload.count + 1) << 16);
    words[(entry + ENTRY_OFF_FRAGMENT_LIST) >>> 2] = list;
    this.#piece(words, list, at, headerLength);
    for (let k = 0; k < payload.count; k++) {
      this.#piece(words, list + (k + 1) * PIECE_SIZE, payload.addresses[k]!, payload.lengths[k]!);
    }
  }

  #piece(words: Uint32Array, at: number, address: number, length: number): void {
    words[at >>> 2] = address;
    words[(at + PIECE_OFF_LENGTH) >>> 2] = length;
    words[(at >>> 2) + 2] = 0;
    words[(at >>> 2) + 3] = 0;
  }

  #describe(address: number, length: number): number {
    const { words } = this.space.engine;
    const { start, offset, kind, size, ecn } = this.needs;
    const slot = (this.#start + this.#count) % SLOTS;
    const entry = this.#table.entry(slot);
    words[(entry + ENTRY_OFF_ADDRESS) >>> 2] = address;
    words[(entry + ENTRY_OFF_LENGTH) >>> 2] = length;
    words[(entry + ENTRY_OFF_FLAGS) >>> 2] =
      (start === 0 ? 0 : FRAME_NEEDS_CSUM) | (kind === 0 ? 0 : FRAME_GSO) | (ecn ? FRAME_ECN : 0);
    words[(entry + ENTRY_OFF_CSUM_START) >>> 2] = start | (offset << 16);
    words[(entry + ENTRY_OFF_GSO_KIND) >>> 2] = kind | (size << 16);
    words[(entry + ENTRY_OFF_FRAGMENTS) >>> 2] = 0;
    this.#blocks[slot] = 0;
    this.#count++;
    this.#bytes += length;
    this.kick();
    return slot;
  }

  /** There is something to send, or to ask for. */
  kick(): void {
    if (this.#posted || this.#blocked || this.#flushing || this.#closed) return;
    this.#posted = true;
    this.scheduler.post(this.#flush);
  }

  /** The port takes frames again. */
  writable(): void {
    this.#blocked = false;
    this.kick();
  }

  readonly #flush = (): void => {
    this.#posted = false;
    if (this.#blocked || this.#closed) return;
    this.#flushing = true;
    try {
      for (let round = 0; round < ROUNDS; round++) {
        if (!this.#sendRest()) return;
        this.pull();
        if (this.#count === 0) return;
        while (this.#count > 0) if (!this.#sendRun()) return;
      }
    } finally {
      this.#flushing = false;
    }
    this.kick();
  };

  #sendRun(): boolean {
    const start = this.#start;
    const run = Math.min(this.#count, SLOTS - start);
    const takes = this.port.offloads & this.sends;
    const n = this.#stage.hand(
      this.#batch,
      start,
      start + run,
      takes,
      this.#take,
      this.#keep,
      this.#refuse,
      ignoreGrowth,
    );
    this.#shift(n);
    return !this.#blocked;
  }

  readonly #take = (batch: Batch, from: number, to: number): number => {
    const { sent } = this.counters;
    const n = this.port.transmit(batch, from, to);
    const { words } = this.space.engine; // not before: the port may have made the memory grow
    if (n < to - from) {
      this.#blocked = true;
      this.counters.pushedBack++;
    }
    if (n === 0) return 0;
    countBurst(sent, n);
    sent.frames += n;
    sent.bytes += batch.byteCount(from, from + n);
    let at = (batch.table.entry(from) + ENTRY_OFF_FLAGS) >>> 2;
    for (let i = 0; i < n; i++, at += ENTRY_SIZE >>> 2) {
      const flags = words[at]!;
      if ((flags & FRAME_NEEDS_CSUM) !== 0) sent.partialChecksums++;
      if ((flags & FRAME_GSO) === 0) continue;
      sent.superframes++;
      if ((flags & FRAME_ECN) !== 0) sent.ecnSuperframes++;
    }
    return n;
  };

  readonly #keep = (batch: Batch, from: number, to: number): number => {
    this.#rest.push(batch.retain(this.#store, from, to));
    return to - from;
  };

  readonly #refuse = (n: number): void => {
    this.counters.refused += n;
  };

  /** Hands over what is left of a superframe. False: the port has no room. */
  #sendRest(): boolean {
    for (let batch; (batch = this.#rest[0]) !== undefined;) {
      this.#restFrom += this.#take(batch, this.#restFrom, batch.count);
      if (this.#restFrom < batch.count) return false;
      this.#rest.shift();
      this.#restFrom = 0;
      batch.release();
      if (this.#blocked) return false;
    }
    return true;
  }

  #shift(n: number): void {
    for (let i = 0; i < n; i++) {
      this.#bytes -= this.#table.length(this.#start);
      const handle = this.#blocks[this.#start]!;
      if (handle !== 0) this.#store.release(handle);
      this.#start = this.#start + 1 === SLOTS ? 0 : this.#start + 1;
    }
    this.#count -= n;
    if (this.#count === 0) this.#start = 0; // the longest runs
  }

  /** Frames that wait are counted as unsent. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.counters.unsent += this.waiting;
    this.#shift(this.#count);
    for (const batch of this.#rest) batch.release();
    this.#rest = [];
    this.#restFrom = 0;
    this.#table.close();
    this.#store.close();
    this.space.free(this.#slots);
  }
}

function ignoreGrowth(): void {
  // a superframe counts as the frames that it was cut into
}
