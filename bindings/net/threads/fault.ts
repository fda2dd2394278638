import {
  FRAME_BAD_ADDRESS,
  FRAME_BAD_DESCRIPTOR,
  FRAME_BAD_OFFLOAD,
  FRAME_GSO,
} from "../../../assembly/abi/arena.js";
import { ETH_HEADER_SIZE } from "../../../assembly/abi/venet.js";
import type { Batch } from "../batch.js";
import { FRAME_LENGTH_MAX } from "../frame-store.js";
import { longestSegment } from "../offload.js";
import type { DropReason } from "../port.js";

/** Why a frame from another thread must not go on, or null. Superframes are looked at even when they will pass untouched. */
export function frameFault(batch: Batch, i: number): DropReason | null {
  const flags = batch.table.flags(i);
  if ((flags & FRAME_BAD_ADDRESS) !== 0) return "bad-address";
  if ((flags & FRAME_BAD_DESCRIPTOR) !== 0) return "bad-descriptor";
  if ((flags & FRAME_BAD_OFFLOAD) !== 0) return "bad-offload";
  const length = batch.length(i);
  if (length < ETH_HEADER_SIZE) return "undersize";
  if (length > FRAME_LENGTH_MAX) return "oversize";
  return (flags & FRAME_GSO) !== 0 && longestSegment(batch, i) < 0 ? "bad-offload" : null;
}
