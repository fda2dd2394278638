/**
 * What both virtqueue formats share: the endpoint's private state, table entries that describe chains, indirect tables.
 *
 * An endpoint believes nothing of the shared areas twice: size, flags and its own positions are private copies, each
 * descriptor is read once into locals and checked there, in 64 bits, and every loop is bounded by a private number.
 * A violation breaks this queue only: the endpoint keeps the reason, counts it, and refuses everything from then on.
 */
import {
  ENTRY_OFF_ADDRESS,
  ENTRY_OFF_COOKIE,
  ENTRY_OFF_FLAGS,
  ENTRY_OFF_FRAGMENT_LIST,
  ENTRY_OFF_GPA,
  ENTRY_OFF_HEAD,
  PIECE_OFF_ADDRESS,
  PIECE_OFF_GPA,
  PIECE_OFF_LENGTH,
  PIECE_SIZE,
  REGIONS_OFF_WRITE_LOG,
} from "./abi/arena";
import {
  CHAIN_LISTED,
  CHAIN_OFF_READABLE_PIECES,
  CHAIN_OFF_WRITABLE_PIECES,
  CHAIN_WRITABLE,
  VQ_INDIRECT,
  VQ_OFF_BROKEN,
  VQ_OFF_FLAGS,
  VQ_OFF_INDIRECT,
  VQ_OFF_INDIRECT_GPA,
  VQ_OFF_INDIRECT_SIZE,
  VQ_OFF_MAX_PIECES,
  VQ_OFF_NOTIFIED,
  VQ_OFF_POOL,
  VQ_OFF_REGIONS,
  VQ_OFF_SUPPRESSED,
  VQ_OFF_VIOLATIONS,
  VQ_RECORD_SIZE,
  VQ_VIOLATION_ADDRESS,
  VQ_VIOLATION_INDIRECT,
  VQ_VIOLATION_KINDS,
} from "./abi/arena-virtq";
import { EPROTO } from "./abi/errno";
import {
  VIRTQ_DESC_F_NEXT,
  VIRTQ_DESC_F_WRITE,
  VIRTQ_DESC_OFF_LEN,
  VIRTQ_DESC_SIZE,
  VIRTQ_MAX_SIZE,
} from "./abi/virtio";
import { addCounter } from "./memory-order";
import { pieceCount } from "./pieces";
import { logWrite, translateRange } from "./regions";

/** Breaks the queue for a reason and counts it. Returns -EPROTO for the caller to pass on. */
export function virtqViolate(vq: usize, kind: u32): i32 {
  if (load<u32>(vq, VQ_OFF_BROKEN) == 0) store<u32>(vq, kind, VQ_OFF_BROKEN);
  const counter = vq + VQ_OFF_VIOLATIONS + (<usize>kind % VQ_VIOLATION_KINDS) * 4;
  store<u32>(counter, load<u32>(counter) + 1);
  return -EPROTO;
}

/** True when all bits of a `VQ_…` flag are set. */
export function has(vq: usize, flag: u32): bool {
  return (load<u32>(vq, VQ_OFF_FLAGS) & flag) != 0;
}

/** True when somebody listens to what the engine writes. */
export function isLogging(vq: usize): bool {
  return load<u32>(<usize>load<u32>(vq, VQ_OFF_REGIONS), REGIONS_OFF_WRITE_LOG) != 0;
}

/** A driver's record of a descriptor (split) or buffer id (packed). `number` is below the queue's size: the caller checked it. */
export function recordOf(vq: usize, number: u32): usize {
  return <usize>load<u32>(vq, VQ_OFF_POOL) + <usize>number * VQ_RECORD_SIZE;
}

/** Notes `length` bytes at `offset` of an area, whose guest-physical address lies at `gpaOffset` of the state. */
export function logArea(vq: usize, gpaOffset: usize, offset: u32, length: u32): void {
  logWrite(load<u32>(vq, VQ_OFF_REGIONS), load<u64>(vq + gpaOffset) + offset, length);
}

/** Counts a publication by whether the peer is to be notified, which it passes on. */
export function countNotification(vq: usize, needed: bool): i32 {
  addCounter(vq + (needed ? VQ_OFF_NOTIFIED : VQ_OFF_SUPPRESSED), 1);
  return needed ? 1 : 0;
}

/** Most pieces of a chain: what the queue takes, and what fits the table's lists. */
export function pieceLimit(vq: usize, room: u32): u32 {
  const limit = load<u32>(vq, VQ_OFF_MAX_PIECES);
  return limit < room ? limit : room;
}

/**
 * Checks a reference to an indirect table (2.7.5.3, 2.8.7) and returns the table's address, or 0 with the queue broken.
 * `plain`: nothing forbids one here (not in another table, no NEXT beside it).
 */
export function indirectTable(vq: usize, gpa: u64, length: u32, plain: bool): usize {
  if (
    !plain ||
    !has(vq, VQ_INDIRECT) ||
    length == 0 ||
    length % VIRTQ_DESC_SIZE != 0 ||
    length / VIRTQ_DESC_SIZE > load<u32>(vq, VQ_OFF_MAX_PIECES)
  ) {
    virtqViolate(vq, VQ_VIOLATION_INDIRECT);
    return 0;
  }
  const table = translateRange(load<u32>(vq, VQ_OFF_REGIONS), gpa, length);
  if (table == 0) virtqViolate(vq, VQ_VIOLATION_ADDRESS);
  return table;
}

/**
 * Fills the entry of a chain in one piece. Members that are neighbours are stored together; `writable` is 0 or 1.
 * `length` is not 0 and the address was checked.
 */
export function putSingle(entry: usize, id: u32, address: u32, length: u64, gpa: u64, writable: u64): void {
  store<u64>(entry, (<u64>address) | (length << 32), ENTRY_OFF_ADDRESS);
  v128.store(entry, i32x4(0, 0, 0, 0x10000), ENTRY_OFF_FLAGS); // no flags, no offload, one fragment
  store<u64>(entry, (<u64>id) << 32, ENTRY_OFF_FRAGMENT_LIST);
  store<u64>(entry, (0 - writable) & (length | 0x100000000), ENTRY_OFF_HEAD); // writable bytes and pieces
  store<u64>(entry, writable ^ 1, ENTRY_OFF_HEAD + 8); // readable pieces
  store<u64>(entry, gpa, ENTRY_OFF_GPA);
  store<u64>(entry, 1, ENTRY_OFF_COOKIE); // one slot, nothing written yet
}

/** Fills the entry of a chain whose pieces are in the list: it shows the readable part, or when there is none the writable one. */
export function putChain(
  entry: usize,
  list: usize,
  id: u32,
  slots: u32,
  readable: u32,
  readableBytes: u64,
  writable: u32,
  writableBytes: u64,
): void {
  const shown = readable != 0 ? readable : writable;
  const bytes = readable != 0 ? readableBytes : writableBytes;
  store<u64>(entry, (<u64>load<u32>(list, PIECE_OFF_ADDRESS)) | (bytes << 32), ENTRY_OFF_ADDRESS);
  v128.store(entry, i32x4(0, 0, 0, 0), ENTRY_OFF_FLAGS);
  store<u32>(entry, shown << 16, ENTRY_OFF_FLAGS + 12);
  store<u64>(entry, (<u64>list) | ((<u64>id) << 32), ENTRY_OFF_FRAGMENT_LIST);
  store<u64>(entry, writableBytes | ((<u64>writable) << 32), ENTRY_OFF_HEAD);
  store<u64>(entry, readable, ENTRY_OFF_HEAD + 8);
  store<u64>(entry, load<u64>(list, PIECE_OFF_GPA), ENTRY_OFF_GPA);
  store<u64>(entry, slots, ENTRY_OFF_COOKIE);
}

/* ---- driver: chains to be made available --------------------------------------------------------- */

/** Number of pieces of a chain; 0 when its entry says so, which no queue takes. */
export function chainPieces(entry: usize): u32 {
  if ((load<u32>(entry, ENTRY_OFF_FLAGS) & CHAIN_LISTED) != 0) {
    const pieces =
      <u64>load<u32>(entry, CHAIN_OFF_READABLE_PIECES) + load<u32>(entry, CHAIN_OFF_WRITABLE_PIECES);
    return pieces > <u64>VIRTQ_MAX_SIZE ? 0 : <u32>pieces;
  }
  return pieceCount(entry);
}

/** How many of them, the last ones, the device writes. */
export function writablePieces(entry: usize, pieces: u32): u32 {
  const flags = load<u32>(entry, ENTRY_OFF_FLAGS);
  if ((flags & CHAIN_LISTED) != 0) return load<u32>(entry, CHAIN_OFF_WRITABLE_PIECES);
  return (flags & CHAIN_WRITABLE) != 0 ? pieces : 0;
}

/** Bytes of a listed chain that the device may write; -1 for no pieces, one of no bytes, or 2^32 bytes (2.7.5.2). */
export function chainCapacity(entry: usize, pieces: u32): i64 {
  if (pieces == 0) return -1;
  const readable = pieces - writablePieces(entry, pieces);
  const list = <usize>load<u32>(entry, ENTRY_OFF_FRAGMENT_LIST);
  let all: i64 = 0;
  let capacity: i64 = 0;
  for (let i: u32 = 0; i < pieces; i++) {
    const length = load<u32>(list + <usize>i * PIECE_SIZE, PIECE_OFF_LENGTH);
    if (length == 0) return -1;
    all += length;
    if (i >= readable) capacity += length;
  }
  return all > <i64>u32.MAX_VALUE ? -1 : capacity;
}

/** True when a chain goes into an indirect table: negotiated, several pieces, and the tables are that large. */
export function usesIndirect(vq: usize, pieces: u32): bool {
  return pieces > 1 && pieces <= load<u32>(vq, VQ_OFF_INDIRECT_SIZE) && load<u32>(vq, VQ_OFF_INDIRECT) != 0;
}

/**
 * Writes a chain to the indirect table that belongs to a record, and returns the table's guest-physical address.
 * `linked`: descriptors name their successor (split); otherwise they just follow each other (packed).
 */
export function fillIndirect(vq: usize, entry: usize, pieces: u32, record: u32, linked: bool): u64 {
  const offset = <usize>record * load<u32>(vq, VQ_OFF_INDIRECT_SIZE) * VIRTQ_DESC_SIZE;
  const readable = pieces - writablePieces(entry, pieces);
  let piece = <usize>load<u32>(entry, ENTRY_OFF_FRAGMENT_LIST);
  let descriptor = <usize>load<u32>(vq, VQ_OFF_INDIRECT) + offset;
  for (let i: u32 = 0; i < pieces; i++) {
    let flags: u64 = i >= readable ? VIRTQ_DESC_F_WRITE : 0;
    if (linked) {
      // split: flags, then the successor's number; packed: an id that nobody reads, then the flags
      if (i + 1 < pieces) flags |= VIRTQ_DESC_F_NEXT | ((i + 1) << 16);
      flags <<= 32;
    } else {
      flags <<= 48;
    }
    const rest = (<u64>load<u32>(piece, PIECE_OFF_LENGTH)) | flags;
    store<u64>(descriptor, load<u64>(piece, PIECE_OFF_GPA));
    store<u64>(descriptor, rest, VIRTQ_DESC_OFF_LEN);
    piece += PIECE_SIZE;
    descriptor += VIRTQ_DESC_SIZE;
  }
  const gpa = load<u64>(vq, VQ_OFF_INDIRECT_GPA) + <u64>offset;
  if (isLogging(vq)) logWrite(load<u32>(vq, VQ_OFF_REGIONS), gpa, pieces * VIRTQ_DESC_SIZE);
  return gpa;
}

/** What a reaped chain shows in the table: its cookie and the bytes written. */
export function putReaped(entry: usize, record: usize, length: u32): void {
  store<u64>(entry, (<u64>length) << 32, ENTRY_OFF_ADDRESS);
  v128.store(entry, i32x4(0, 0, 0, 0), ENTRY_OFF_FLAGS);
  store<u64>(entry, load<u64>(record), ENTRY_OFF_COOKIE);
}
