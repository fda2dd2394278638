/**
 * Scattered frames. An entry with more than one fragment has a list of pieces; every other entry is one piece itself.
 * All addresses were translated and checked when the entry was made; lengths are private copies.
 */
import {
  ENTRY_OFF_ADDRESS,
  ENTRY_OFF_FRAGMENT_LIST,
  ENTRY_OFF_FRAGMENTS,
  ENTRY_OFF_GPA,
  ENTRY_OFF_LENGTH,
  PIECE_OFF_ADDRESS,
  PIECE_OFF_GPA,
  PIECE_OFF_LENGTH,
  PIECE_SIZE,
} from "./abi/arena";
import { checksumAdd, checksumRange, checksumSwap } from "./checksum";
import { copyBytes } from "./copy";
import { logWrite } from "./regions";

/** Number of pieces of an entry, at least 1. */
export function pieceCount(entry: usize): u32 {
  const n = <u32>load<u16>(entry, ENTRY_OFF_FRAGMENTS);
  return n > 1 ? n : 1;
}

/** Address of piece i of an entry with a list, or 0 for an entry that is its own piece. */
function pieceAt(entry: usize, i: u32): usize {
  if (load<u16>(entry, ENTRY_OFF_FRAGMENTS) <= 1) return 0;
  return <usize>load<u32>(entry, ENTRY_OFF_FRAGMENT_LIST) + <usize>i * PIECE_SIZE;
}

/** Where piece i lies. */
export function pieceAddress(entry: usize, i: u32): usize {
  const piece = pieceAt(entry, i);
  return piece == 0 ? <usize>load<u32>(entry, ENTRY_OFF_ADDRESS) : <usize>load<u32>(piece, PIECE_OFF_ADDRESS);
}

/** Its length. */
export function pieceLength(entry: usize, i: u32): u32 {
  const piece = pieceAt(entry, i);
  return piece == 0 ? load<u32>(entry, ENTRY_OFF_LENGTH) : load<u32>(piece, PIECE_OFF_LENGTH);
}

/** Its guest-physical address. */
export function pieceGpa(entry: usize, i: u32): u64 {
  const piece = pieceAt(entry, i);
  return piece == 0 ? load<u64>(entry, ENTRY_OFF_GPA) : load<u64>(piece, PIECE_OFF_GPA);
}

/** Writes a piece. */
export function putPiece(piece: usize, address: usize, length: u32, gpa: u64): void {
  store<u32>(piece, <u32>address, PIECE_OFF_ADDRESS);
  store<u32>(piece, length, PIECE_OFF_LENGTH);
  store<u64>(piece, gpa, PIECE_OFF_GPA);
}

/** Copies up to `length` bytes from `offset` of a frame to `target`. Returns the number copied: less at the frame's end. */
export function gatherBytes(entry: usize, offset: u32, target: usize, length: u32): u32 {
  const count = <u32>load<u16>(entry, ENTRY_OFF_FRAGMENTS);
  if (count <= 1) {
    const size = load<u32>(entry, ENTRY_OFF_LENGTH);
    if (offset >= size) return 0;
    const n = size - offset < length ? size - offset : length;
    copyBytes(target, <usize>load<u32>(entry, ENTRY_OFF_ADDRESS) + <usize>offset, n);
    return n;
  }
  let piece = <usize>load<u32>(entry, ENTRY_OFF_FRAGMENT_LIST);
  const end = piece + <usize>count * PIECE_SIZE;
  let skip = offset;
  let done: u32 = 0;
  while (piece != end && done < length) {
    const size = load<u32>(piece, PIECE_OFF_LENGTH);
    if (skip < size) {
      const n = size - skip < length - done ? size - skip : length - done;
      copyBytes(target + <usize>done, <usize>load<u32>(piece, PIECE_OFF_ADDRESS) + <usize>skip, n);
      skip = 0;
      done += n;
    } else {
      skip -= size;
    }
    piece += PIECE_SIZE;
  }
  return done;
}

/** Copies the first `length` bytes of a frame in several pieces, which was checked to be that long, to `target`. */
function gatherFrame(entry: usize, target: usize, length: u32): void {
  let piece = <usize>load<u32>(entry, ENTRY_OFF_FRAGMENT_LIST);
  let count = <u32>load<u16>(entry, ENTRY_OFF_FRAGMENTS);
  let left = length;
  if (count == 2) {
    // what segmentation makes: a header and its payload
    const size = load<u32>(piece, PIECE_OFF_LENGTH);
    const n = size < left ? size : left;
    copyBytes(target, load<u32>(piece, PIECE_OFF_ADDRESS), n);
    copyBytes(target + <usize>n, load<u32>(piece + PIECE_SIZE, PIECE_OFF_ADDRESS), left - n);
    return;
  }
  while (left != 0 && count != 0) {
    const size = load<u32>(piece, PIECE_OFF_LENGTH);
    const n = size < left ? size : left;
    copyBytes(target, load<u32>(piece, PIECE_OFF_ADDRESS), n);
    target += <usize>n;
    left -= n;
    piece += PIECE_SIZE;
    count--;
  }
}

/** Copies `length` bytes to the pieces of a frame that was checked to be that long. Logged for `regions`. */
export function scatterBytes(entry: usize, source: usize, length: u32, regions: usize): void {
  const count = pieceCount(entry);
  let left = length;
  for (let i: u32 = 0; i < count && left != 0; i++) {
    const size = pieceLength(entry, i);
    const n = size < left ? size : left;
    copyBytes(pieceAddress(entry, i), source, n);
    logWrite(regions, pieceGpa(entry, i), n);
    source += <usize>n;
    left -= n;
  }
}

/** Internet checksum sum of a range of a frame that starts at an even offset of what is summed. */
export function sumBytes(entry: usize, offset: u32, length: u32): u32 {
  const count = pieceCount(entry);
  let skip = offset;
  let left = length;
  let sum: u32 = 0;
  let odd = false;
  for (let i: u32 = 0; i < count && left != 0; i++) {
    const size = pieceLength(entry, i);
    if (skip >= size) {
      skip -= size;
      continue;
    }
    const n = size - skip < left ? size - skip : left;
    const part = checksumRange(pieceAddress(entry, i) + <usize>skip, n);
    sum = checksumAdd(sum, odd ? checksumSwap(part) : part);
    if ((n & 1) != 0) odd = !odd;
    skip = 0;
    left -= n;
  }
  return sum;
}

/** Writes the pieces of a range of a frame to a list of at most `max`. Returns how many, or 0 when they do not fit. */
export function slicePieces(entry: usize, offset: u32, length: u32, list: usize, max: u32): u32 {
  const count = pieceCount(entry);
  let skip = offset;
  let left = length;
  let n: u32 = 0;
  for (let i: u32 = 0; i < count && left != 0; i++) {
    const size = pieceLength(entry, i);
    if (skip >= size) {
      skip -= size;
      continue;
    }
    if (n == max) return 0;
    const part = size - skip < left ? size - skip : left;
    const gpa = pieceGpa(entry, i);
    putPiece(
      list + <usize>n * PIECE_SIZE,
      pieceAddress(entry, i) + <usize>skip,
      part,
      gpa == 0 ? 0 : gpa + skip,
    );
    n++;
    skip = 0;
    left -= part;
  }
  return left == 0 ? n : 0;
}

/** Copies `length` bytes of one frame into the pieces of another; both were checked to be that long. Logged for `regions`. */
export function copyPieces(target: usize, source: usize, length: u32, regions: usize): void {
  if (load<u16>(target, ENTRY_OFF_FRAGMENTS) <= 1 && load<u16>(source, ENTRY_OFF_FRAGMENTS) > 1) {
    gatherFrame(source, load<u32>(target, ENTRY_OFF_ADDRESS), length);
    logWrite(regions, load<u64>(target, ENTRY_OFF_GPA), length);
    return;
  }
  const sources = pieceCount(source);
  const targets = pieceCount(target);
  let si: u32 = 0;
  let ti: u32 = 0;
  let sOff: u32 = 0;
  let tOff: u32 = 0;
  let left = length;
  while (left != 0 && si < sources && ti < targets) {
    const sLeft = pieceLength(source, si) - sOff;
    const tLeft = pieceLength(target, ti) - tOff;
    let n = sLeft < tLeft ? sLeft : tLeft;
    if (n > left) n = left;
    if (n != 0) {
      copyBytes(pieceAddress(target, ti) + <usize>tOff, pieceAddress(source, si) + <usize>sOff, n);
      logWrite(regions, pieceGpa(target, ti) + tOff, n);
    }
    left -= n;
    sOff += n;
    tOff += n;
    if (sOff == pieceLength(source, si)) {
      si++;
      sOff = 0;
    }
    if (tOff == pieceLength(target, ti)) {
      ti++;
      tOff = 0;
    }
  }
}
