import {
  VIRTIO_BLK_ID_SIZE,
  VIRTIO_BLK_REQUEST_OFF_SECTOR,
  VIRTIO_BLK_REQUEST_OFF_TYPE,
  VIRTIO_BLK_REQUEST_SIZE,
  VIRTIO_BLK_S_IOERR,
  VIRTIO_BLK_S_UNSUPP,
  VIRTIO_BLK_SECTOR_SIZE,
  VIRTIO_BLK_SEGMENT_F_UNMAP,
  VIRTIO_BLK_SEGMENT_OFF_FLAGS,
  VIRTIO_BLK_SEGMENT_OFF_SECTOR,
  VIRTIO_BLK_SEGMENT_OFF_SECTORS,
  VIRTIO_BLK_SEGMENT_SIZE,
  VIRTIO_BLK_T_DISCARD,
  VIRTIO_BLK_T_FLUSH,
  VIRTIO_BLK_T_GET_ID,
  VIRTIO_BLK_T_IN,
  VIRTIO_BLK_T_OUT,
  VIRTIO_BLK_T_WRITE_ZEROES,
} from "../../../assembly/abi/virtio-blk.js";
import { readChain } from "../../engine/chain-bytes.js";
import type { ChainTable } from "../../engine/chain-table.js";
import type { BlockOperation } from "../vblk/statistics.js";

/** Most data segments of a request. */
export const SEGMENTS_MAX = 126;
/** Longest of them, as drivers are told. */
export const SEGMENT_SIZE_MAX = 32 * 1024;
/** Most bytes of a request: all that those make. */
export const LENGTH_MAX = SEGMENTS_MAX * SEGMENT_SIZE_MAX;
/** Most segments of a discard or a write-zeroes. */
export const BULK_SEGMENTS_MAX = 16;
/** Longest of them, in sectors: 1 GiB. */
export const BULK_SECTORS_MAX = 1 << 21;

/** Bytes of the medium. */
export interface Range {
  /** First byte. */
  readonly offset: number;
  /** Number of bytes. */
  readonly length: number;
}

/** Guest memory that a request reads or fills. */
export interface Piece {
  /** Guest-physical address. */
  gpa: number;
  /** Length in bytes. */
  length: number;
}

/** A request that passed every check. */
export interface BlockRequest {
  readonly operation: BlockOperation;
  /** What it touches: one range, or, in bulk, several. None for a flush and the serial number. */
  readonly ranges: readonly Range[];
  /** Where the guest has the data, or wants it. */
  readonly pieces: readonly Piece[];
}

/** What a request is checked against. */
export interface Limits {
  /** Size of the medium in bytes. */
  readonly size: number;
  /** True: nothing may change. */
  readonly readOnly: boolean;
  /** True: discard was negotiated. */
  readonly discards: boolean;
  /** True: write-zeroes was negotiated. */
  readonly writesZeroes: boolean;
}

/** A 64-bit member; rounded, but never to something small, above 2^53. */
function long(view: DataView, offset: number): number {
  return view.getUint32(offset, true) + view.getUint32(offset + 4, true) * 2 ** 32;
}

/** Guest memory of a chain from byte `skip` of its readable or writable part on, `length` bytes. */
export function piecesOf(
  chains: ChainTable,
  i: number,
  part: "readable" | "writable",
  skip: number,
  length: number,
): Piece[] {
  const readable = chains.readablePieces(i);
  const end = part === "readable" ? readable : readable + chains.writablePieces(i);
  const pieces: Piece[] = [];
  let left = length;
  for (let k = part === "readable" ? 0 : readable; k < end && left > 0; k++) {
    const piece = chains.piece(i, k);
    const away = Math.min(skip, piece.length);
    skip -= away;
    const n = Math.min(piece.length - away, left);
    if (n > 0) pieces.push({ gpa: piece.gpa + away, length: n });
    left -= n;
  }
  return pieces;
}

/**
 * Checks the request in chain i of a table (virtio 1.2: 5.2.6), which has room for a status. Returns the request, or the
 * status to answer it with. Everything is copied once and looked at in the copy.
 */
export function checkRequest(chains: ChainTable, i: number, limits: Limits): BlockRequest | number {
  const readable = chains.readableBytes(i);
  const data = chains.writableBytes(i) - 1;
  const head = readChain(chains, i, 0, VIRTIO_BLK_REQUEST_SIZE);
  if (head.length < VIRTIO_BLK_REQUEST_SIZE) return VIRTIO_BLK_S_IOERR;
  const view = new DataView(head.buffer);
  const sector = long(view, VIRTIO_BLK_REQUEST_OFF_SECTOR);
  const sent = readable - VIRTIO_BLK_REQUEST_SIZE;
  switch (view.getUint32(VIRTIO_BLK_REQUEST_OFF_TYPE, true)) {
    case VIRTIO_BLK_T_IN: {
      const ranges = transfer(sector, data, limits);
      if (ranges === null) return VIRTIO_BLK_S_IOERR;
      return { operation: "read", ranges, pieces: piecesOf(chains, i, "writable", 0, data) };
    }
    case VIRTIO_BLK_T_OUT: {
      const ranges = limits.readOnly ? null : transfer(sector, sent, limits);
      if (ranges === null) return VIRTIO_BLK_S_IOERR;
      const pieces = piecesOf(chains, i, "readable", VIRTIO_BLK_REQUEST_SIZE, sent);
      return { operation: "write", ranges, pieces };
    }
    case VIRTIO_BLK_T_FLUSH:
      return { operation: "flush", ranges: [], pieces: [] };
    case VIRTIO_BLK_T_GET_ID:
      if (data < VIRTIO_BLK_ID_SIZE) return VIRTIO_BLK_S_IOERR;
      return {
        operation: "getId",
        ranges: [],
        pieces: piecesOf(chains, i, "writable", 0, VIRTIO_BLK_ID_SIZE),
      };
    case VIRTIO_BLK_T_DISCARD:
      return limits.discards ? bulk("discard", chains, i, sent, limits) : VIRTIO_BLK_S_UNSUPP;
    case VIRTIO_BLK_T_WRITE_ZEROES:
      return limits.writesZeroes ? bulk("writeZeroes", chains, i, sent, limits) : VIRTIO_BLK_S_UNSUPP;
    default:
      return VIRTIO_BLK_S_UNSUPP;
  }
}

/** The range of a read or write; null when it cannot be. Compared with what is left, so that no sum wraps. */
function transfer(sector: number, length: number, limits: Limits): Range[] | null {
  if (length <= 0 || length > LENGTH_MAX || length % VIRTIO_BLK_SECTOR_SIZE !== 0) return null;
  const range = within(sector, length / VIRTIO_BLK_SECTOR_SIZE, limits);
  return range === null ? null : [range];
}

function within(sector: number, sectors: number, limits: Limits): Range | null {
  const capacity = limits.size / VIRTIO_BLK_SECTOR_SIZE;
  if (sector > capacity || sectors > capacity - sector) return null;
  return { offset: sector * VIRTIO_BLK_SECTOR_SIZE, length: sectors * VIRTIO_BLK_SECTOR_SIZE };
}

/** The segments of a discard or a write-zeroes. */
function bulk(
  operation: "discard" | "writeZeroes",
  chains: ChainTable,
  i: number,
  length: number,
  limits: Limits,
): BlockRequest | number {
  const most = BULK_SEGMENTS_MAX * VIRTIO_BLK_SEGMENT_SIZE;
  if (length === 0 || length > most || length % VIRTIO_BLK_SEGMENT_SIZE !== 0) return VIRTIO_BLK_S_IOERR;
  if (limits.readOnly) return VIRTIO_BLK_S_IOERR;
  const segments = readChain(chains, i, VIRTIO_BLK_REQUEST_SIZE, length);
  const view = new DataView(segments.buffer);
  const ranges: Range[] = [];
  for (let at = 0; at < length; at += VIRTIO_BLK_SEGMENT_SIZE) {
    const flags = view.getUint32(at + VIRTIO_BLK_SEGMENT_OFF_FLAGS, true);
    // 5.2.6.2: unknown flags, and unmap with a discard, are not supported
    if ((flags & ~(operation === "discard" ? 0 : VIRTIO_BLK_SEGMENT_F_UNMAP)) !== 0)
      return VIRTIO_BLK_S_UNSUPP;
    const sectors = view.getUint32(at + VIRTIO_BLK_SEGMENT_OFF_SECTORS, true);
    if (sectors === 0 || sectors > BULK_SECTORS_MAX) return VIRTIO_BLK_S_IOERR;
    const range = within(long(view, at + VIRTIO_BLK_SEGMENT_OFF_SECTOR), sectors, limits);
    if (range === null) return VIRTIO_BLK_S_IOERR;
    ranges.push(range);
  }
  return { operation, ranges, pieces: [] };
}
