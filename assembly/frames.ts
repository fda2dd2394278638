/**
 * Moving frames between burst tables of one memory, and to and from a staging area when they cross to another.
 *
 * Every address in a table was translated and bounds-checked by the engine when the table was filled; lengths are the
 * private copies of that moment. A guest that rewrites a frame meanwhile changes bytes, never addresses or lengths.
 */
import {
  ENTRY_OFF_ADDRESS,
  ENTRY_OFF_FLAGS,
  ENTRY_OFF_FRAGMENTS,
  ENTRY_OFF_GPA,
  ENTRY_OFF_GSO_KIND,
  ENTRY_OFF_HEADER_LENGTH,
  ENTRY_OFF_LENGTH,
  ENTRY_SIZE,
  FRAME_TOO_LONG,
} from "./abi/arena";
import { copyBytes } from "./copy";
import { copyPieces, gatherBytes, scatterBytes } from "./pieces";
import { logWrite } from "./regions";

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
      if ((load<u16>(frame, ENTRY_OFF_FRAGMENTS) | load<u16>(buffer, ENTRY_OFF_FRAGMENTS)) > 1) {
        copyPieces(buffer, frame, length, regions);
      } else {
        copyBytes(load<u32>(buffer, ENTRY_OFF_ADDRESS), load<u32>(frame, ENTRY_OFF_ADDRESS), length);
        logWrite(regions, load<u64>(buffer, ENTRY_OFF_GPA), length);
      }
      store<u32>(buffer, length, ENTRY_OFF_LENGTH);
      // what the frame needs goes with it: flags, checksum positions, segmentation, header length
      store<u64>(buffer, load<u64>(frame, ENTRY_OFF_FLAGS), ENTRY_OFF_FLAGS);
      store<u32>(buffer, load<u32>(frame, ENTRY_OFF_GSO_KIND), ENTRY_OFF_GSO_KIND);
      store<u16>(buffer, load<u16>(frame, ENTRY_OFF_HEADER_LENGTH), ENTRY_OFF_HEADER_LENGTH);
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
    gatherBytes(frame, 0, at, length);
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
    scatterBytes(buffer, at, length, regions);
    at += stagedSize(length);
    buffer += ENTRY_SIZE;
  }
}
