import {
  ENTRY_HEAD_SIZE,
  ENTRY_OFF_FLAGS,
  ENTRY_OFF_FRAGMENTS,
  ENTRY_OFF_HEAD,
  FRAME_GSO,
  FRAME_NEEDS_CSUM,
  FRAME_TOO_LONG,
} from "../../assembly/abi/arena.js";
import type { MemorySpace } from "../memory/space.js";
import type { BurstTable } from "./table.js";

/** Longest frame that is staged; longer ones are set directly, for then one copy costs less than two. */
const STAGED_LENGTH = 512;
/** Size of a staging area: at least one whole burst of small frames. */
const STAGING_SIZE = 128 * 1024;
/** The same for frames in several pieces, each of which would cost a call: always, as long as they fit. */
const STAGED_SCATTERED = STAGING_SIZE;

const stagings = new WeakMap<MemorySpace, number>();
const results = new WeakMap<MemorySpace, number>();

/** A piece of a space's arena, allocated on first use and kept as long as the space. */
function scratch(pieces: WeakMap<MemorySpace, number>, space: MemorySpace, size: number): number {
  let address = pieces.get(space);
  if (address === undefined) {
    address = space.allocate(size, 64);
    pieces.set(space, address);
  }
  return address;
}

/** What {@link moveFrames} did. */
export interface Moved {
  /** Frames taken from the source, those flagged FRAME_TOO_LONG included. */
  taken: number;
  /** Buffers of the target that now hold a frame. */
  filled: number;
}

/**
 * Copies frames [from, to) of one table into the buffers [start, end) of another, in order: the one place that decides
 * how frames move. Within one memory the engine copies; between two, small frames are gathered, carried over in one
 * piece and scattered, large ones are carried one by one. One payload copy between memories for large frames, none in
 * between within one.
 *
 * The target's entries hold capacities before and frame lengths afterwards. A frame that is longer than the next buffer
 * is flagged FRAME_TOO_LONG in the source and skipped; the buffer stays for the frame after it.
 */
export function moveFrames(
  source: BurstTable,
  from: number,
  to: number,
  target: BurstTable,
  start: number,
  end: number,
): Moved {
  if (source.space.engine.memory === target.space.engine.memory) {
    const result = scratch(results, target.space, 8);
    const { engine } = target.space;
    engine.exports.framesDeliver(
      source.entry(from),
      to - from,
      target.entry(start),
      end - start,
      target.space.regionTable,
      result,
    );
    return {
      taken: engine.words[result >>> 2] as number,
      filled: engine.words[(result >>> 2) + 1] as number,
    };
  }
  return carry(source, from, to, target, start, end);
}

function carry(
  source: BurstTable,
  from: number,
  to: number,
  target: BurstTable,
  start: number,
  end: number,
): Moved {
  const inward = scratch(stagings, target.space, STAGING_SIZE);
  const outward = scratch(stagings, source.space, STAGING_SIZE);
  const sourceEngine = source.space.engine;
  const targetEngine = target.space.engine;
  let frame = from;
  let buffer = start;
  // a run of small frames that lie next to each other in both tables
  let runFrame = frame;
  let runBuffer = buffer;
  let runBytes = 0;

  const flushRun = (): void => {
    const n = frame - runFrame;
    if (n > 0) {
      const used = sourceEngine.exports.framesGather(source.entry(runFrame), n, outward);
      targetEngine.bytes.set(sourceEngine.bytes.subarray(outward, outward + used), inward);
      targetEngine.exports.framesScatter(target.entry(runBuffer), n, inward, target.space.regionTable);
    }
    runBytes = 0;
  };

  for (; frame < to && buffer < end; frame++) {
    const length = source.length(frame);
    if (length > target.length(buffer)) {
      flushRun();
      source.setFlags(frame, source.flags(frame) | FRAME_TOO_LONG);
      runFrame = frame + 1;
      runBuffer = buffer;
      continue;
    }
    const scattered = source.fragments(frame) > 1 || target.fragments(buffer) > 1;
    const staged = length <= (scattered ? STAGED_SCATTERED : STAGED_LENGTH);
    const room = (length + 15) & ~15;
    if (!staged || runBytes + room > STAGING_SIZE) {
      flushRun();
      runFrame = frame;
      runBuffer = buffer;
    }
    target.setLength(buffer, length);
    if (staged) {
      runBytes += room;
    } else if (scattered) {
      carryScattered(source, frame, target, buffer, length);
      runFrame = frame + 1;
      runBuffer = buffer + 1;
    } else {
      const address = source.bufferAddress(frame);
      targetEngine.bytes.set(
        sourceEngine.bytes.subarray(address, address + length),
        target.bufferAddress(buffer),
      );
      target.space.noteWrite(target.gpa(buffer), length);
      runFrame = frame + 1;
      runBuffer = buffer + 1;
    }
    const flags = source.flags(frame);
    if ((flags & (FRAME_NEEDS_CSUM | FRAME_GSO)) !== 0) copyNeeds(source, frame, target, buffer);
    else target.setFlags(buffer, flags);
    buffer++;
  }
  flushRun();
  return { taken: frame - from, filled: buffer - start };
}

/** Carries one frame piece by piece; its pieces and those of the buffer need not match. */
function carryScattered(source: BurstTable, i: number, target: BurstTable, j: number, length: number): void {
  const from = source.space.engine.bytes;
  const to = target.space.engine.bytes;
  let sourcePiece = source.piece(i, 0);
  let targetPiece = target.piece(j, 0);
  for (let left = length, s = 0, t = 0, sourceAt = 0, targetAt = 0; left > 0;) {
    const n = Math.min(left, sourcePiece.length - sourceAt, targetPiece.length - targetAt);
    const address = sourcePiece.address + sourceAt;
    to.set(from.subarray(address, address + n), targetPiece.address + targetAt);
    left -= n;
    sourceAt += n;
    targetAt += n;
    if (left > 0 && sourceAt === sourcePiece.length) {
      sourcePiece = source.piece(i, ++s);
      sourceAt = 0;
    }
    if (left > 0 && targetAt === targetPiece.length) {
      target.space.noteWrite(targetPiece.gpa, targetPiece.length);
      targetPiece = target.piece(j, ++t);
      targetAt = 0;
    }
  }
  target.space.noteWrite(targetPiece.gpa, targetPiece.length);
}

/** Copies what a frame needs (flags, checksum positions, segmentation, header length) from one entry to another. */
function copyNeeds(source: BurstTable, i: number, target: BurstTable, j: number): void {
  const at = source.entry(i);
  const to = target.entry(j);
  const needs = source.space.engine.bytes.subarray(at + ENTRY_OFF_FLAGS, at + ENTRY_OFF_FRAGMENTS);
  target.space.engine.bytes.set(needs, to + ENTRY_OFF_FLAGS);
}

/** Copies what a frame needs and the private copy of its head to another table's entry: all but where the frame lies. */
export function copyOffload(source: BurstTable, i: number, target: BurstTable, j: number): void {
  copyNeeds(source, i, target, j);
  const at = source.entry(i) + ENTRY_OFF_HEAD;
  const head = source.space.engine.bytes.subarray(at, at + ENTRY_HEAD_SIZE);
  target.space.engine.bytes.set(head, target.entry(j) + ENTRY_OFF_HEAD);
}
