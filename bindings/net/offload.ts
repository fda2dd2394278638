import {
  COALESCE_ECN,
  COALESCE_TCP4,
  COALESCE_TCP6,
  ENTRY_OFF_FLAGS,
  ENTRY_SIZE,
  FRAME_ECN,
  FRAME_GSO,
  FRAME_NEEDS_CSUM,
  FRAME_TOO_LONG,
  GSO_TCP4,
  GSO_TCP6,
  GSO_UDP_L4,
} from "../../assembly/abi/arena.js";
import { ChecksumFinisher, Coalescer, Segmenter } from "../engine/offload.js";
import type { MemorySpace } from "../memory/space.js";
import { Batch } from "./batch.js";
import { OFFLOAD_CSUM, OFFLOAD_ECN, OFFLOAD_TCP4, OFFLOAD_TCP6, OFFLOAD_UDP_L4 } from "./port.js";

/** What was done to frames that needed something, and what was not. */
export interface OffloadCounters {
  /** Superframes handed on untouched, to somebody who takes them. */
  superframes_passed: number;
  /** Superframes cut in software. */
  segmented: number;
  /** Frames that came out of that. */
  segments: number;
  /** Ordinary frames whose checksum was completed in software. */
  checksummed: number;
}

/** Fresh counters. */
export function emptyOffloadCounters(): OffloadCounters {
  return { superframes_passed: 0, segmented: 0, segments: 0, checksummed: 0 };
}

/** Offload bits that a frame's flags and kind ask of whoever takes it; -1 for a kind that does not exist. */
function offloadsNeeded(flags: number, kind: number): number {
  if ((flags & FRAME_GSO) === 0) return (flags & FRAME_NEEDS_CSUM) === 0 ? 0 : OFFLOAD_CSUM;
  const ecn = (flags & FRAME_ECN) === 0 ? 0 : OFFLOAD_ECN;
  switch (kind) {
    case GSO_TCP4:
      return OFFLOAD_CSUM | OFFLOAD_TCP4 | ecn;
    case GSO_TCP6:
      return OFFLOAD_CSUM | OFFLOAD_TCP6 | ecn;
    case GSO_UDP_L4:
      return OFFLOAD_CSUM | OFFLOAD_UDP_L4 | ecn;
    default:
      return -1;
  }
}

/** True when whoever takes `offloads` (`OFFLOAD_…` bits) takes frame i as it is. */
export function takesFrame(offloads: number, batch: Batch, i: number): boolean {
  const flags = batch.table.flags(i);
  if ((flags & (FRAME_GSO | FRAME_NEEDS_CSUM)) === 0) return true;
  const needed = offloadsNeeded(flags, batch.gsoKind(i));
  return needed !== -1 && (needed & ~offloads) === 0;
}

/** First frame in [from, to) that {@link takesFrame} denies; `to` when there is none. */
export function firstUnfinished(offloads: number, batch: Batch, from: number, to: number): number {
  const { words } = batch.space.engine;
  const unfinished = FRAME_GSO | FRAME_NEEDS_CSUM;
  let at = (batch.table.entry(from) + ENTRY_OFF_FLAGS) >>> 2;
  for (let i = from; i < to; i++, at += ENTRY_SIZE >>> 2) {
    if (((words[at] as number) & unfinished) !== 0 && !takesFrame(offloads, batch, i)) return i;
  }
  return to;
}

/** Number of superframes in [from, to). */
export function countSuperframes(batch: Batch, from: number, to: number): number {
  const { words } = batch.space.engine;
  let n = 0;
  for (let i = from; i < to; i++) {
    if (((words[(batch.table.entry(i) + ENTRY_OFF_FLAGS) >>> 2] as number) & FRAME_GSO) !== 0) n++;
  }
  return n;
}

/** Forgets what an earlier receiver of the same frames noted in their flags. */
export function clearResults(batch: Batch, from: number, to: number): void {
  const { table } = batch;
  for (let i = from; i < to; i++) {
    const flags = table.flags(i);
    if ((flags & FRAME_TOO_LONG) !== 0) table.setFlags(i, flags & ~FRAME_TOO_LONG);
  }
}

/** Segmenter and checksum finisher of a memory; their areas live in its arena, as long as it does. */
interface Tools {
  /** Looks at superframes that come in while others are being cut. */
  validator: Segmenter;
  segmenter: Segmenter;
  segments: Batch;
  finisher: ChecksumFinisher;
  finished: Batch;
  coalescer?: Coalescer;
  merged?: Batch;
}

const toolsBySpace = new WeakMap<MemorySpace, Tools>();

function toolsOf(space: MemorySpace): Tools {
  let tools = toolsBySpace.get(space);
  if (tools === undefined) {
    const segmenter = new Segmenter(space);
    const finisher = new ChecksumFinisher(space);
    tools = {
      validator: new Segmenter(space, 1),
      segmenter,
      segments: new Batch(segmenter.table),
      finisher,
      finished: new Batch(finisher.table),
    };
    toolsBySpace.set(space, tools);
  }
  return tools;
}

/**
 * Length of the longest segment that a superframe would be cut into, or the negated reason (`SEG_BAD_…`) why it is
 * malformed. Superframes are looked at when they enter, even when they pass untouched.
 */
export function longestSegment(batch: Batch, i: number): number {
  const { validator } = toolsOf(batch.space);
  const count = validator.begin(batch.table, i);
  return count < 0 ? count : validator.longest;
}

/**
 * Merges segments of one flow among frames [from, to) into superframes, as far as `kinds` (`OFFLOAD_TCP…` bits) allow.
 * Returns the batch itself when nothing was merged, else another one, valid until the next call for the same memory.
 */
export function coalesceFrames(batch: Batch, from: number, to: number, kinds: number): Batch {
  const tools = toolsOf(batch.space);
  const coalescer = (tools.coalescer ??= new Coalescer(batch.space));
  const merged = (tools.merged ??= new Batch(coalescer.table));
  const wanted =
    ((kinds & OFFLOAD_TCP4) === 0 ? 0 : COALESCE_TCP4) |
    ((kinds & OFFLOAD_TCP6) === 0 ? 0 : COALESCE_TCP6) |
    ((kinds & OFFLOAD_ECN) === 0 ? 0 : COALESCE_ECN);
  const n = coalescer.run(batch.table, from, to, wanted);
  if (n === to - from) return batch;
  merged.count = n;
  return merged;
}

/** Takes frames [from, to) of a batch; returns how many. */
export type FrameTaker = (batch: Batch, from: number, to: number) => number;

/**
 * The one place where frames are finished in software for somebody who does not take them as they are: superframes are
 * cut, partial checksums completed, both without touching the frame, which may belong to a guest (headers are copied,
 * payload is not). What `takes` covers passes untouched.
 */
export class OffloadStage {
  /** @param counters - where it is counted */
  constructor(readonly counters: OffloadCounters) {}

  /**
   * Hands frames [from, to) to `take`, those that `takes` denies finished. Returns how many of them are done with: taken,
   * or refused as malformed (`refuse` is told how many). Segments of a superframe that `take` leaves go to `keep`, which
   * disposes of all of them; `grown` is told how many frames a superframe became beyond itself.
   */
  hand(
    batch: Batch,
    from: number,
    to: number,
    takes: number,
    take: FrameTaker,
    keep: FrameTaker,
    refuse: (n: number) => void,
    grown: (n: number) => void,
  ): number {
    let i = from;
    while (i < to) {
      const end = firstUnfinished(takes, batch, i, to);
      if (end > i) {
        const taken = take(batch, i, end);
        if ((takes & ~(OFFLOAD_CSUM | OFFLOAD_ECN)) !== 0) {
          this.counters.superframes_passed += countSuperframes(batch, i, i + taken);
        }
        i += taken;
        if (i < end) break;
      } else if ((batch.table.flags(i) & FRAME_GSO) !== 0) {
        const all = this.segment(batch, i, take, keep, refuse, grown);
        i++;
        if (!all) break;
      } else {
        const done = this.finish(batch, i, to, takes, take, refuse);
        if (done === 0) break;
        i += done;
      }
    }
    return i - from;
  }

  /** Cuts one superframe. False when not everything was taken (the rest went to `keep`). */
  segment(
    batch: Batch,
    i: number,
    take: FrameTaker,
    keep: FrameTaker,
    refuse: (n: number) => void,
    grown: (n: number) => void,
  ): boolean {
    const { segmenter, segments } = toolsOf(batch.space);
    const count = segmenter.begin(batch.table, i);
    if (count < 0) {
      refuse(1);
      return true;
    }
    this.counters.segmented++;
    this.counters.segments += count;
    grown(count - 1);
    let open = true;
    for (let n; (n = segmenter.next()) > 0;) {
      segments.count = n;
      const taken = open ? take(segments, 0, n) : 0;
      if (taken < n) {
        open = false;
        keep(segments, taken, n);
      }
    }
    return open;
  }

  /** Completes the checksums of frames from `from` on that need nothing else. Returns how many are done with. */
  finish(
    batch: Batch,
    from: number,
    to: number,
    takes: number,
    take: FrameTaker,
    refuse: (n: number) => void,
  ): number {
    const { finisher, finished } = toolsOf(batch.space);
    let n = 0;
    let bad = false;
    while (from + n < to && n < finisher.table.capacity && !bad) {
      const flags = batch.table.flags(from + n);
      if ((flags & FRAME_GSO) !== 0 || (flags & FRAME_NEEDS_CSUM) === 0 || takesFrame(takes, batch, from + n))
        break;
      if (finisher.finish(batch.table, from + n, n)) n++;
      else bad = true;
    }
    finished.count = n;
    const taken = n === 0 ? 0 : take(finished, 0, n);
    this.counters.checksummed += taken;
    if (bad && taken === n) {
      refuse(1);
      return n + 1;
    }
    return taken;
  }
}
