import {
  ENTRY_OFF_CSUM_OFFSET,
  ENTRY_OFF_CSUM_START,
  ENTRY_OFF_HEAD,
  ENTRY_OFF_LENGTH,
  ENTRY_SIZE,
  FRAME_NEEDS_CSUM,
  GSO_NONE,
  ENTRY_OFF_GSO_KIND,
} from "../../assembly/abi/arena.js";
import type { BurstTable } from "../engine/table.js";
import type { MemorySpace } from "../memory/space.js";
import type { FrameStore, RetainedBatch } from "./frame-store.js";

/**
 * A batch: frames of one memory, described by a burst table. Whoever hands a batch on keeps it alive for the duration of
 * the call and no longer; a receiver that wants to keep frames copies them ({@link Batch.retain}).
 *
 * Headers that decide anything (MAC addresses, EtherType) are read from the private copy in the table, never from the
 * buffer, which a guest may be rewriting.
 */
export class Batch {
  /** Number of frames. */
  count = 0;

  constructor(
    /** The table with the frames' addresses, lengths and flags. */
    readonly table: BurstTable,
  ) {}

  /** The memory that the frames lie in. */
  get space(): MemorySpace {
    return this.table.space;
  }

  /** Length of a frame in bytes. */
  length(i: number): number {
    return this.table.length(i);
  }

  /** Destination MAC address as a 48-bit number (first byte most significant). */
  destination(i: number): number {
    return this.#mac(this.table.entry(i) + ENTRY_OFF_HEAD);
  }

  /** Source MAC address as a 48-bit number. */
  source(i: number): number {
    return this.#mac(this.table.entry(i) + ENTRY_OFF_HEAD + 6);
  }

  #mac(at: number): number {
    const bytes = this.space.engine.bytes;
    const high = ((bytes[at] as number) << 8) | (bytes[at + 1] as number);
    const low =
      ((bytes[at + 2] as number) << 24) |
      ((bytes[at + 3] as number) << 16) |
      ((bytes[at + 4] as number) << 8) |
      (bytes[at + 5] as number);
    return high * 2 ** 32 + (low >>> 0);
  }

  /** EtherType (of the outermost tag, when there is one). */
  etherType(i: number): number {
    const at = this.table.entry(i) + ENTRY_OFF_HEAD + 12;
    const bytes = this.space.engine.bytes;
    return ((bytes[at] as number) << 8) | (bytes[at + 1] as number);
  }

  /** True when the frame has a partial checksum that somebody must complete before it leaves for a port that cannot. */
  needsChecksum(i: number): boolean {
    return (this.table.flags(i) & FRAME_NEEDS_CSUM) !== 0;
  }

  /** Where summing starts, and where from there the result goes (with {@link Batch.needsChecksum}). */
  checksumPlace(i: number): { start: number; offset: number } {
    const { data } = this.space.engine;
    const entry = this.table.entry(i);
    return {
      start: data.getUint16(entry + ENTRY_OFF_CSUM_START, true),
      offset: data.getUint16(entry + ENTRY_OFF_CSUM_OFFSET, true),
    };
  }

  /** Segmentation kind (`GSO_…`); GSO_NONE for ordinary frames. */
  gsoKind(i: number): number {
    return this.space.engine.bytes[this.table.entry(i) + ENTRY_OFF_GSO_KIND] ?? GSO_NONE;
  }

  /** A frame's bytes. Borrowed: valid until the batch is handed back. */
  bytes(i: number): Uint8Array {
    return this.table.bytes(i);
  }

  /**
   * Copies frames [from, to), with their offload data, to a store in the host's memory. The result is yours until its
   * `release()`. @throws VbusError ENOMEM
   */
  retain(store: FrameStore, from = 0, to = this.count): RetainedBatch {
    return store.retain(this, from, to);
  }

  /** Sum of the lengths of frames [from, to), in bytes. */
  byteCount(from: number, to: number): number {
    const { words } = this.space.engine; // once per run: fetching a view costs more than all the rest
    let bytes = 0;
    for (let at = this.table.entry(from) >>> 2, i = from; i < to; i++, at += ENTRY_SIZE >>> 2) {
      bytes += words[at + (ENTRY_OFF_LENGTH >>> 2)] as number;
    }
    return bytes;
  }

  /**
   * End of the flow that begins at frame `from`: the first frame below `to` that has another destination or source
   * address, or a length outside `shortest` … `longest`.
   */
  flowEnd(from: number, to: number, shortest: number, longest: number): number {
    const { words } = this.space.engine;
    const first = (this.table.entry(from) + ENTRY_OFF_HEAD) >>> 2;
    const a = words[first] as number;
    const b = words[first + 1] as number;
    const c = words[first + 2] as number;
    let i = from + 1;
    for (let at = this.table.entry(i) >>> 2; i < to; i++, at += ENTRY_SIZE >>> 2) {
      const length = words[at + (ENTRY_OFF_LENGTH >>> 2)] as number;
      const head = at + (ENTRY_OFF_HEAD >>> 2);
      if (length < shortest || length > longest) break;
      if (words[head] !== a || words[head + 1] !== b || words[head + 2] !== c) break;
    }
    return i;
  }

  /** A copy of a frame. Yours. */
  copy(i: number): Uint8Array<ArrayBuffer> {
    const bytes = this.bytes(i);
    // a scattered frame's bytes are a copy already
    return this.table.fragments(i) > 1 ? (bytes as Uint8Array<ArrayBuffer>) : new Uint8Array(bytes);
  }
}

/** Formats a 48-bit number as a MAC address, `02:00:00:00:00:0a`. */
export function formatMac(mac: number): string {
  return mac
    .toString(16)
    .padStart(12, "0")
    .replace(/(..)(?=.)/g, "$1:");
}

/** Parses `02:00:00:00:00:0a`; returns null for anything else. */
export function parseMac(text: string): number | null {
  return /^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i.test(text) ? parseInt(text.replaceAll(":", ""), 16) : null;
}

/** True for group addresses (multicast, broadcast). */
export function isGroupMac(mac: number): boolean {
  return (Math.floor(mac / 2 ** 40) & 1) !== 0;
}
