import {
  COALESCE_ECN,
  COALESCE_OFF_SUPERFRAMES,
  COALESCE_OPEN_SIZE,
  COALESCE_RECORD_SIZE,
  COALESCE_TCP4,
  COALESCE_TCP6,
  ENTRY_OFF_FRAGMENTS,
  HEADERS_MAX,
  PIECE_SIZE,
  SEG_OFF_HEADER_LENGTH,
  SEG_OFF_PAYLOAD,
  SEG_OFF_SIZE,
  SEG_STATE_SIZE,
} from "../../assembly/abi/arena.js";
import type { MemorySpace } from "../memory/space.js";
import { BurstTable } from "./table.js";

/** Headers of ordinary frames, extension headers and options included, take less; longer ones make a batch smaller. */
const HEADER_ROOM = 128;
/** Pieces for each frame that a list has room for: its header, and a payload that crosses two boundaries. */
const PIECES_EACH = 4;
/** Pieces for each frame whose checksum is finished: the copied head and what a guest may scatter the rest over. */
const FINISHER_PIECES = 32;

/** Pieces for each frame that is merged: a few more than a guest scatters an MTU-sized frame over. */
const MERGED_PIECES_EACH = 8;
/** Longest superframe: what the lengths of an IP packet and of a scatter-gather descriptor both have room for. */
const SUPERFRAME_MAX = 65535;
/** Most segments of a superframe when nobody says otherwise: as many MTU-sized ones as fit. */
const SEGMENTS_DEFAULT = 64;

/** Pieces that make up entry i of a table, at least 1. */
function fragments(table: BurstTable, i: number): number {
  return Math.max(
    1,
    (table.space.engine.words[(table.entry(i) + ENTRY_OFF_FRAGMENTS) >>> 2] as number) >>> 16,
  );
}

function checkMemory(space: MemorySpace, table: BurstTable): void {
  if (table.space.engine.memory !== space.engine.memory) {
    throw new TypeError(
      "the frames lie in another memory; make one of these for each memory that frames come from",
    );
  }
}

function checkCapacity(capacity: number): void {
  if (!Number.isInteger(capacity) || capacity < 1 || capacity > 4096) {
    throw new RangeError(`${capacity} entries; give a whole number of 1 to 4096`);
  }
}

/**
 * Cuts superframes into frames with complete checksums (`docs/abi/venet.md` 5.2). Nothing is copied but headers: the
 * entries of {@link Segmenter.table} are a header of ours followed by slices of the superframe's payload where it lies.
 * So they are valid until the next `begin` or `next`, and as long as the superframe is. One thread, one superframe at a
 * time:
 *
 * ```ts
 * const count = segmenter.begin(batch.table, i);
 * if (count < 0) drop(-count); // SEG_BAD_HEADERS, SEG_BAD_SIZE or SEG_BAD_CHECKSUM
 * else for (let n = segmenter.next(); n > 0; n = segmenter.next()) moveFrames(segmenter.table, 0, n, …);
 * ```
 */
export class Segmenter {
  /** The finished frames of the last {@link Segmenter.next}. */
  readonly table: BurstTable;
  readonly #state: number;
  readonly #headers: number;
  readonly #headerBytes: number;
  #list: number;
  #pieces: number;
  /** Segments that are still to come. */
  #left = 0;
  #closed = false;

  /**
   * @param space - the memory that the superframes lie in
   * @param capacity - most frames per {@link Segmenter.next}
   * @throws RangeError for a capacity outside 1 … 4096; VbusError ENOMEM
   */
  constructor(
    readonly space: MemorySpace,
    capacity = 64,
  ) {
    checkCapacity(capacity);
    this.#headerBytes = Math.max(HEADERS_MAX, capacity * HEADER_ROOM);
    this.#pieces = capacity * PIECES_EACH;
    this.#state = space.allocate(SEG_STATE_SIZE + this.#headerBytes, 64);
    this.#headers = this.#state + SEG_STATE_SIZE;
    this.#list = 0;
    try {
      this.#list = space.allocate(this.#pieces * PIECE_SIZE, 64);
      this.table = BurstTable.allocate(space, capacity);
    } catch (error) {
      space.free(this.#state);
      if (this.#list !== 0) space.free(this.#list);
      throw error;
    }
  }

  /**
   * Parses superframe `i` of a table in the same memory. Entry and payload must stay as they are until the last
   * {@link Segmenter.next}. Returns the number of segments, or the negated reason (`SEG_BAD_…`) to drop it.
   * @throws TypeError for a table of another memory; VbusError ENOMEM for a superframe in more pieces than ever before
   */
  begin(table: BurstTable, i: number): number {
    checkMemory(this.space, table);
    this.#left = 0;
    // one segment may touch every piece of the superframe
    const needed = fragments(table, i) + 2;
    if (needed > this.#pieces) {
      const list = this.space.allocate(needed * PIECE_SIZE, 64);
      this.space.free(this.#list);
      this.#list = list;
      this.#pieces = needed;
    }
    const count = this.space.engine.exports.segmentBegin(table.entry(i), this.#state);
    this.#left = Math.max(0, count);
    return count;
  }

  /** Length of the longest segment of the superframe that was begun. */
  get longest(): number {
    const { words } = this.space.engine;
    const at = this.#state >>> 2;
    const size = words[at + (SEG_OFF_SIZE >>> 2)] as number;
    const payload = words[at + (SEG_OFF_PAYLOAD >>> 2)] as number;
    return (words[at + (SEG_OFF_HEADER_LENGTH >>> 2)] as number) + Math.min(size, payload);
  }

  /** Puts the next segments into {@link Segmenter.table}, as entries 0 … n-1. Returns n; 0 when there are no more. */
  next(): number {
    if (this.#left === 0) return 0;
    const { table } = this;
    const n = this.space.engine.exports.segmentNext(
      this.#state,
      table.address,
      table.capacity,
      this.#headers,
      this.#headerBytes,
      this.#list,
      this.#pieces,
    );
    this.#left -= n;
    return n;
  }

  /** Gives the memory back. Closing twice is harmless. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#left = 0;
    this.table.close();
    this.space.free(this.#list);
    this.space.free(this.#state);
  }
}

/**
 * Completes partial checksums without writing to the frames, which may belong to a guest: the bytes up to the checksum
 * are copied and completed, the rest stays where it lies. One thread.
 */
export class ChecksumFinisher {
  /** The finished frames, in the slots that the caller chose. */
  readonly table: BurstTable;
  readonly #headers: number;
  readonly #list: number;
  #closed = false;

  /**
   * @param space - the memory that the frames lie in
   * @param capacity - number of slots
   * @throws RangeError for a capacity outside 1 … 4096; VbusError ENOMEM
   */
  constructor(
    readonly space: MemorySpace,
    capacity = 64,
  ) {
    checkCapacity(capacity);
    const bytes = HEADERS_MAX + FINISHER_PIECES * PIECE_SIZE;
    this.#headers = space.allocate(capacity * bytes, 64);
    this.#list = this.#headers + capacity * HEADERS_MAX;
    try {
      this.table = BurstTable.allocate(space, capacity);
    } catch (error) {
      space.free(this.#headers);
      throw error;
    }
  }

  /**
   * Finishes frame `i` of a table in the same memory: entry `slot` of {@link ChecksumFinisher.table} is then the frame
   * with a complete checksum, valid until the slot is used again and as long as the frame is. False when the checksum
   * does not lie inside the frame and its first 512 bytes, or the frame is in more than 31 pieces: drop it.
   * @throws TypeError for a table of another memory; RangeError for a slot that does not exist
   */
  finish(table: BurstTable, i: number, slot: number): boolean {
    checkMemory(this.space, table);
    if (!(slot >= 0 && slot < this.table.capacity)) {
      throw new RangeError(`slot ${slot} of a finisher with ${this.table.capacity}`);
    }
    const pieces = this.space.engine.exports.checksumFinish(
      table.entry(i),
      this.table.entry(slot),
      this.#headers + slot * HEADERS_MAX,
      HEADERS_MAX,
      this.#list + slot * FINISHER_PIECES * PIECE_SIZE,
      FINISHER_PIECES,
    );
    return pieces > 0;
  }

  /** Gives the memory back. Closing twice is harmless. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.table.close();
    this.space.free(this.#headers);
  }
}

/** Limits of a {@link Coalescer}. */
export interface CoalescerOptions {
  /** Longest superframe in bytes, Ethernet header included; at most 65535, which is also the default. */
  maxBytes?: number;
  /** Most segments of a superframe; 64 by default. */
  maxSegments?: number;
}

/**
 * Merges TCP segments of one flow that follow each other within a batch into superframes with partial checksums, as the
 * Linux kernel's GRO does, after verifying their checksums. Cutting a superframe gives the frames back that it was made
 * of. Frames that cannot be merged pass as they are; the order within a flow is kept; at the end of a batch everything
 * is flushed. Nothing is copied but headers. One thread.
 *
 * Frames that were coalesced by somebody else already (`FRAME_GSO`) pass; frames with a partial checksum (from a sender
 * of ours) are merged without summing.
 */
export class Coalescer {
  /**
   * The frames of the last {@link Coalescer.run}. Valid until the next, and as long as the batch is that they came from.
   */
  readonly table: BurstTable;
  /** Longest superframe in bytes. */
  readonly maxBytes: number;
  /** Most segments of a superframe. */
  readonly maxSegments: number;
  readonly #scratch: number;
  readonly #list: number;
  readonly #pieces: number;
  #merged = 0;
  #superframes = 0;
  #closed = false;

  /**
   * @param space - the memory that the frames lie in
   * @param capacity - most frames per {@link Coalescer.run}
   * @param options - limits of a superframe
   * @throws RangeError for a capacity outside 1 … 4096, or a limit that makes no sense; VbusError ENOMEM
   */
  constructor(
    readonly space: MemorySpace,
    capacity = 64,
    options: CoalescerOptions = {},
  ) {
    checkCapacity(capacity);
    const { maxBytes = SUPERFRAME_MAX, maxSegments = SEGMENTS_DEFAULT } = options;
    if (!Number.isInteger(maxBytes) || maxBytes < 1 || maxBytes > SUPERFRAME_MAX) {
      throw new RangeError(`maxBytes ${maxBytes}; give a whole number of 1 to ${SUPERFRAME_MAX}`);
    }
    if (!Number.isInteger(maxSegments) || maxSegments < 1 || maxSegments > SUPERFRAME_MAX) {
      throw new RangeError(`maxSegments ${maxSegments}; give a whole number of 1 to ${SUPERFRAME_MAX}`);
    }
    this.maxBytes = maxBytes;
    this.maxSegments = maxSegments;
    this.#pieces = capacity * MERGED_PIECES_EACH;
    const scratchBytes = COALESCE_OPEN_SIZE + capacity * COALESCE_RECORD_SIZE;
    this.#scratch = space.allocate(scratchBytes + this.#pieces * PIECE_SIZE, 64);
    this.#list = this.#scratch + scratchBytes;
    try {
      this.table = BurstTable.allocate(space, capacity);
    } catch (error) {
      space.free(this.#scratch);
      throw error;
    }
  }

  /**
   * Puts frames [from, to) of a table in the same memory into {@link Coalescer.table}, merged as far as they can be, and
   * returns how many entries that makes. `kinds` (`COALESCE_TCP4`, `COALESCE_TCP6`, `COALESCE_ECN`) says what the
   * receiver takes; without ECN, segments that report congestion (CWR) are not merged.
   * @throws TypeError for a table of another memory; RangeError for more frames than the capacity
   */
  run(
    table: BurstTable,
    from: number,
    to: number,
    kinds = COALESCE_TCP4 | COALESCE_TCP6 | COALESCE_ECN,
  ): number {
    checkMemory(this.space, table);
    const n = to - from;
    if (!(n >= 0 && n <= this.table.capacity)) {
      throw new RangeError(
        `${n} frames; a coalescer of ${this.table.capacity} takes at most so many at a time`,
      );
    }
    const out = this.space.engine.exports.coalesceBurst(
      table.entry(from),
      n,
      this.table.address,
      this.#scratch,
      this.#list,
      this.#pieces,
      kinds,
      this.maxBytes,
      this.maxSegments,
    );
    this.#superframes = this.space.engine.words[(this.#scratch + COALESCE_OFF_SUPERFRAMES) >>> 2] as number;
    this.#merged = n - out + this.#superframes;
    return out;
  }

  /** Frames of the last run that went into superframes. */
  get merged(): number {
    return this.#merged;
  }

  /** Superframes that the last run made. */
  get superframes(): number {
    return this.#superframes;
  }

  /** Gives the memory back. Closing twice is harmless. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.table.close();
    this.space.free(this.#scratch);
  }
}
