import {
  ENTRY_HEAD_SIZE,
  ENTRY_OFF_FLAGS,
  ENTRY_OFF_FRAGMENTS,
  ENTRY_OFF_HEAD,
  ENTRY_OFF_LENGTH,
  FRAME_GSO,
  FRAME_NEEDS_CSUM,
  FRAME_TOO_LONG,
} from "../../assembly/abi/arena.js";
import { VbusError } from "../errors.js";
import type { MemorySpace } from "../memory/space.js";
import type { BurstTable } from "./table.js";

/**
 * Longest frame in one piece that is staged; longer ones are set directly, for then one copy costs less than two. Frames in
 * several pieces are always staged, for each piece would cost a call.
 */
const STAGED_LENGTH = 512;
/** Size of a staging area: at least one whole burst of small frames. */
const STAGING_SIZE = 128 * 1024;
/** Members of a table entry as 32-bit words; the address is word 0. */
const LENGTH_WORD = ENTRY_OFF_LENGTH >>> 2;
const FLAGS_WORD = ENTRY_OFF_FLAGS >>> 2;
/** The number of pieces is the upper half of this word. */
const FRAGMENTS_WORD = ENTRY_OFF_FRAGMENTS >>> 2;
const FRAGMENTS_SHIFT = 16;

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
  /** Bytes of those that were copied three times (gathered, carried over, scattered) instead of once. */
  staged: number;
}

/**
 * Copies frames [from, to) of one table into the buffers [start, end) of another, in order: the one place that decides
 * how frames move. Within one memory the engine copies, with nothing in between. Between two, small frames and those in
 * several pieces are gathered, carried over at once and scattered; large ones in one piece are carried one by one.
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
      staged: 0,
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
  // nothing below makes a memory grow, so the views are fetched once: that costs more than the rest per frame
  const sourceWords = sourceEngine.words;
  const targetWords = targetEngine.words;
  let frame = from;
  let buffer = start;
  // a run of staged frames that lie next to each other in both tables
  let runFrame = frame;
  let runBuffer = buffer;
  let runBytes = 0;
  let stagedBytes = 0;

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
    const at = source.entry(frame) >>> 2;
    const place = target.entry(buffer) >>> 2;
    const length = sourceWords[at + LENGTH_WORD] as number;
    const flags = sourceWords[at + FLAGS_WORD] as number;
    if (length > (targetWords[place + LENGTH_WORD] as number)) {
      flushRun();
      sourceWords[at + FLAGS_WORD] = flags | FRAME_TOO_LONG;
      runFrame = frame + 1;
      runBuffer = buffer;
      continue;
    }
    const pieces =
      (sourceWords[at + FRAGMENTS_WORD] as number) | (targetWords[place + FRAGMENTS_WORD] as number);
    const scattered = pieces >>> FRAGMENTS_SHIFT > 1;
    const staged = length <= (scattered ? STAGING_SIZE : STAGED_LENGTH);
    if (scattered && !staged) {
      throw new VbusError(
        "EINVAL",
        `a scattered frame of ${length} bytes; at most ${STAGING_SIZE} are moved`,
      );
    }
    const room = (length + 15) & ~15;
    if (!staged || runBytes + room > STAGING_SIZE) {
      flushRun();
      runFrame = frame;
      runBuffer = buffer;
    }
    targetWords[place + LENGTH_WORD] = length;
    if (staged) {
      runBytes += room;
      stagedBytes += length;
    } else {
      const address = sourceWords[at] as number;
      targetEngine.bytes.set(sourceEngine.bytes.subarray(address, address + length), targetWords[place]);
      target.space.noteWrite(target.gpa(buffer), length);
      runFrame = frame + 1;
      runBuffer = buffer + 1;
    }
    if ((flags & (FRAME_NEEDS_CSUM | FRAME_GSO)) !== 0) copyNeeds(source, frame, target, buffer);
    else targetWords[place + FLAGS_WORD] = flags;
    buffer++;
  }
  flushRun();
  return { taken: frame - from, filled: buffer - start, staged: stagedBytes };
}

/** Bytes that were copied altogether to move frames of so many bytes, of which `staged` took three copies. */
export function bytesCopied(bytes: number, staged: number): number {
  return bytes + 2 * staged;
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
