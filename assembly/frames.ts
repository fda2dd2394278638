/**
 * Moving frames between burst tables of one memory, and to and from a staging area when they cross to another.
 *
 * Every address in a table was translated and bounds-checked by the engine when the table was filled; lengths are the
 * private copies of that moment. A guest that rewrites a frame meanwhile changes bytes, never addresses or lengths.
 */
import {
  ENTRY_OFF_ADDRESS,
  ENTRY_OFF_FLAGS,
  ENTRY_OFF_GPA,
  ENTRY_OFF_LENGTH,
  ENTRY_SIZE,
  FRAME_TOO_LONG,
} from "./abi/arena";
import { logWrite } from "./regions";

/** Copies bytes: inline vectors where a call of the copy routine would cost more than the copy. */
export function copyBytes(target: usize, source: usize, length: usize): void {
  if (length > 256) {
    memory.copy(target, source, length);
    return;
  }
  if (length >= 16) {
    const last = length - 16;
    const tail = v128.load(source + last); // read first: the last vector may overlap the one before it
    let i: usize = 0;
    while (i < last) {
      v128.store(target + i, v128.load(source + i));
      i += 16;
    }
    v128.store(target + last, tail);
    return;
  }
  if (length >= 8) {
    const tail = load<u64>(source + length - 8);
    store<u64>(target, load<u64>(source));
    store<u64>(target + length - 8, tail);
    return;
  }
  for (let i: usize = 0; i < length; i++) store<u8>(target + i, load<u8>(source + i));
}

/**
 * Copies frames into posted buffers of the same memory, in order. A frame longer than the next buffer is flagged
 * FRAME_TOO_LONG and skipped; the buffer stays for the next one.
 * `result` receives two words: frames taken, buffers filled. `regions` is the target's (write log).
 */
export function framesDeliver(
  frames: usize,
  frameCount: u32,
  buffers: usize,
  bufferCount: u32,
  regions: usize,
  result: usize,
): void {
  let taken: u32 = 0;
  let filled: u32 = 0;
  let frame = frames;
  let buffer = buffers;
  while (taken < frameCount && filled < bufferCount) {
    const length = load<u32>(frame, ENTRY_OFF_LENGTH);
    if (length > load<u32>(buffer, ENTRY_OFF_LENGTH)) {
      store<u32>(frame, load<u32>(frame, ENTRY_OFF_FLAGS) | FRAME_TOO_LONG, ENTRY_OFF_FLAGS);
    } else {
      copyBytes(load<u32>(buffer, ENTRY_OFF_ADDRESS), load<u32>(frame, ENTRY_OFF_ADDRESS), length);
      store<u32>(buffer, length, ENTRY_OFF_LENGTH);
      logWrite(regions, load<u64>(buffer, ENTRY_OFF_GPA), length);
      buffer += ENTRY_SIZE;
      filled++;
    }
    frame += ENTRY_SIZE;
    taken++;
  }
  store<u32>(result, taken);
  store<u32>(result, filled, 4);
}

/** Distance between two staged frames: 16-byte aligned, so that vectors do not straddle lines without need. */
function stagedSize(length: u32): u32 {
  return (length + 15) & ~15;
}

/** Gathers the bytes of n frames into a staging area, each at the next multiple of 16. Returns the bytes used; the caller made sure of the room. */
export function framesGather(frames: usize, n: u32, staging: usize): u32 {
  let at = staging;
  let frame = frames;
  for (let i: u32 = 0; i < n; i++) {
    const length = load<u32>(frame, ENTRY_OFF_LENGTH);
    copyBytes(at, load<u32>(frame, ENTRY_OFF_ADDRESS), length);
    at += stagedSize(length);
    frame += ENTRY_SIZE;
  }
  return <u32>(at - staging);
}

/** Scatters staged frames into buffers whose entries already hold the frames' lengths. */
export function framesScatter(buffers: usize, n: u32, staging: usize, regions: usize): void {
  let at = staging;
  let buffer = buffers;
  for (let i: u32 = 0; i < n; i++) {
    const length = load<u32>(buffer, ENTRY_OFF_LENGTH);
    copyBytes(load<u32>(buffer, ENTRY_OFF_ADDRESS), at, length);
    logWrite(regions, load<u64>(buffer, ENTRY_OFF_GPA), length);
    at += stagedSize(length);
    buffer += ENTRY_SIZE;
  }
}
