import {
  ENTRY_OFF_FLAGS,
  ENTRY_SIZE,
  FRAME_CSUM_VALID,
  FRAME_ECN,
  FRAME_GSO,
  FRAME_NEEDS_CSUM,
  FRAME_TOO_LONG,
  GSO_TCP4,
  GSO_TCP6,
  GSO_UDP_L4,
} from "../../assembly/abi/arena.js";
import type { Checksum } from "../engine/checksum.js";
import type { Batch } from "./batch.js";
import { OFFLOAD_CSUM, OFFLOAD_ECN, OFFLOAD_TCP4, OFFLOAD_TCP6, OFFLOAD_UDP_L4 } from "./port.js";

/** Distance of the checksum from the start of a UDP header; TCP's is 16, ICMPv6's 2. */
const UDP_CHECKSUM_OFFSET = 6;

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

/**
 * True when frame i can be finished by {@link completeChecksum}: a partial checksum whose places lie inside the frame.
 * Superframes cannot: there is no software segmentation in this version, and they are dropped as "bad-offload" on their
 * way to a port that does not take them.
 */
export function isCompletable(batch: Batch, i: number): boolean {
  if ((batch.table.flags(i) & FRAME_GSO) !== 0 || !batch.needsChecksum(i)) return false;
  const { start, offset } = batch.checksumPlace(i);
  return start + offset + 2 <= batch.length(i);
}

/** Completes the checksum of a frame of our own (never of a guest's buffer, which it may be rewriting). */
export function completeChecksum(checksum: Checksum, batch: Batch, i: number): void {
  const { table } = batch;
  const { start, offset } = batch.checksumPlace(i);
  checksum.complete(table.bufferAddress(i), table.length(i), start, offset, offset === UDP_CHECKSUM_OFFSET);
  table.setFlags(i, (table.flags(i) & ~FRAME_NEEDS_CSUM) | FRAME_CSUM_VALID);
}

/** Forgets what an earlier receiver of the same frames noted in their flags. */
export function clearResults(batch: Batch, from: number, to: number): void {
  const { table } = batch;
  for (let i = from; i < to; i++) {
    const flags = table.flags(i);
    if ((flags & FRAME_TOO_LONG) !== 0) table.setFlags(i, flags & ~FRAME_TOO_LONG);
  }
}
