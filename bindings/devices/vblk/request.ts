import { EFAULT, EINVAL, ENOSPC, EOPNOTSUPP, EROFS } from "../../../assembly/abi/errno.js";
import {
  VBLK_FLAG_FUA,
  VBLK_ID_SIZE,
  VBLK_MAX_BULK,
  VBLK_MAX_LENGTH,
  VBLK_MAX_PIECES,
  VBLK_OP_DISCARD,
  VBLK_OP_FLUSH,
  VBLK_OP_GET_ID,
  VBLK_OP_READ,
  VBLK_OP_WRITE,
  VBLK_OP_WRITE_ZEROES,
  VBLK_PIECE_OFF_LENGTH,
  VBLK_PIECE_OFF_POINTER,
  VBLK_PIECE_SIZE,
  VBLK_REQUEST_OFF_COUNT,
  VBLK_REQUEST_OFF_FLAGS,
  VBLK_REQUEST_OFF_LENGTH,
  VBLK_REQUEST_OFF_OP,
  VBLK_REQUEST_OFF_PIECES,
  VBLK_REQUEST_OFF_SECTOR,
  VBLK_REQUEST_OFF_TAG,
  VBLK_SECTOR_SIZE,
} from "../../../assembly/abi/vblk.js";
import { VbusError } from "../../errors.js";
import type { MemorySpace } from "../../memory/space.js";
import type { BlockOperation } from "./statistics.js";

/** Guest memory that a request reads or fills. */
export interface Piece {
  /** Guest-physical address. */
  gpa: number;
  /** Length in bytes. */
  length: number;
}

/** A request that passed every check. */
export interface BlockRequest {
  /** The guest's number for it. */
  tag: number;
  /** What to do. */
  operation: BlockOperation;
  /** First byte of the medium. */
  offset: number;
  /** Bytes: of the medium, or of the serial number. */
  length: number;
  /** Where the guest has the data, or wants it. */
  pieces: Piece[];
  /** Durable before it completes. */
  forced: boolean;
}

/** What a request is checked against. */
export interface Limits {
  /** Size of the medium in bytes. */
  readonly size: number;
  /** True: nothing may change. */
  readonly readOnly: boolean;
  /** True: discard is offered. */
  readonly discards: boolean;
}

const OPERATIONS = new Map<number, BlockOperation>([
  [VBLK_OP_READ, "read"],
  [VBLK_OP_WRITE, "write"],
  [VBLK_OP_FLUSH, "flush"],
  [VBLK_OP_DISCARD, "discard"],
  [VBLK_OP_WRITE_ZEROES, "writeZeroes"],
  [VBLK_OP_GET_ID, "getId"],
]);

/** A 64-bit member; rounded, but never to something small, above 2^53. */
function long(view: DataView, offset: number): number {
  return view.getUint32(offset, true) + view.getUint32(offset + 4, true) * 2 ** 32;
}

/**
 * Checks a request record (`docs/abi/vblk.md` section 6), in the order given there. `view` is a private copy of its first
 * `size` bytes (at least 32). Returns the request, or a negated errno to complete it with.
 */
export function checkRequest(
  view: DataView,
  size: number,
  limits: Limits,
  memory: MemorySpace,
): BlockRequest | number {
  const operation = OPERATIONS.get(view.getUint32(VBLK_REQUEST_OFF_OP, true));
  if (operation === undefined || (operation === "discard" && !limits.discards)) return -EOPNOTSUPP;
  const flags = view.getUint32(VBLK_REQUEST_OFF_FLAGS, true);
  const stores = operation === "write" || operation === "writeZeroes";
  if ((flags & ~(stores ? VBLK_FLAG_FUA : 0)) !== 0) return -EINVAL;
  if ((stores || operation === "discard") && limits.readOnly) return -EROFS;

  const sector = long(view, VBLK_REQUEST_OFF_SECTOR);
  const length = long(view, VBLK_REQUEST_OFF_LENGTH);
  const count = view.getUint32(VBLK_REQUEST_OFF_COUNT, true);
  const carriesData = operation === "read" || operation === "write" || operation === "getId";
  if (carriesData ? count < 1 || count > VBLK_MAX_PIECES : count !== 0) return -EINVAL;
  if (VBLK_REQUEST_OFF_PIECES + count * VBLK_PIECE_SIZE > size) return -EINVAL;

  if (operation === "flush") {
    if (length !== 0) return -EINVAL;
  } else if (operation === "getId") {
    if (length !== VBLK_ID_SIZE) return -EINVAL;
  } else {
    const most = carriesData ? VBLK_MAX_LENGTH : VBLK_MAX_BULK;
    if (length === 0 || length > most || length % VBLK_SECTOR_SIZE !== 0) return -EINVAL;
    // both are compared with what is left, and nothing is added: no sum can wrap
    const capacity = limits.size / VBLK_SECTOR_SIZE;
    if (sector > capacity || length / VBLK_SECTOR_SIZE > capacity - sector) return -ENOSPC;
  }

  const pieces: Piece[] = [];
  let sum = 0;
  for (let i = 0; i < count; i++) {
    const at = VBLK_REQUEST_OFF_PIECES + i * VBLK_PIECE_SIZE;
    const piece = {
      gpa: long(view, at + VBLK_PIECE_OFF_POINTER),
      length: view.getUint32(at + VBLK_PIECE_OFF_LENGTH, true),
    };
    if (piece.length === 0) return -EINVAL;
    sum += piece.length; // at most 16 times 4 GiB
    pieces.push(piece);
  }
  if (carriesData && sum !== length) return -EINVAL;
  for (const { gpa, length: bytes } of pieces) if (!inside(memory, gpa, bytes)) return -EFAULT;

  const ranged = operation !== "flush" && operation !== "getId";
  return {
    tag: view.getUint32(VBLK_REQUEST_OFF_TAG, true),
    operation,
    offset: ranged ? sector * VBLK_SECTOR_SIZE : 0,
    length,
    pieces,
    forced: (flags & VBLK_FLAG_FUA) !== 0,
  };
}

function inside(memory: MemorySpace, gpa: number, length: number): boolean {
  try {
    memory.translate(gpa, length);
    return true;
  } catch (error) {
    if (error instanceof VbusError && error.code === "EFAULT") return false;
    throw error;
  }
}
