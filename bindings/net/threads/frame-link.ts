import { IOQ_MAX_COUNT } from "../../../assembly/abi/ioq.js";
import { VSG_IOV_SIZE, VSG_SIZE_FIXED } from "../../../assembly/abi/venet.js";
import { DoorbellPage } from "../../doorbells/page.js";
import { queueSegmentLength } from "../../engine/queue.js";
import { VbusError } from "../../errors.js";
import { allocateGuestMemory, type GuestMemoryInit } from "../../memory/guest.js";
import { FRAME_LENGTH_MAX } from "../frame-store.js";

/** Which end of a frame link: by convention the emulator's thread is the guest, that of switch and world the host. */
export type FrameLinkSide = "host" | "guest";

/** Size of what describes one frame: a scatter-gather descriptor with one piece (`docs/abi/venet.md` 5.2). */
export const FRAME_SLOT_SIZE = VSG_SIZE_FIXED + VSG_IOV_SIZE;
/** Frames lie at multiples of this. */
export const FRAME_ALIGN = 64;

const SEGMENT_PLACE = 8; // a ring lies at ≡ 8 (mod 64): no descriptor straddles a cache line

const up = (n: number): number => Math.ceil(n / FRAME_ALIGN) * FRAME_ALIGN;

/**
 * A memory that two threads exchange frames through, see {@link createFrameLink}. Plain data and a shared memory: hand it
 * to the other thread by `postMessage` or `workerData`.
 */
export interface FrameLink extends GuestMemoryInit {
  /** Most frames under way in one direction. */
  readonly frames: number;
  /** Room for their bytes. */
  readonly bytes: number;
}

/** What a {@link createFrameLink | frame link} is made of. */
export interface FrameLinkOptions {
  /** Most frames under way in each direction, 1 … 2048; default 512. */
  frames?: number;
  /** Room for their bytes, in each direction, at least 128 KiB; default 2 MiB. */
  bytes?: number;
  /** Size of each end's private arena in bytes; default 2 MiB. */
  arenaSize?: number;
}

/** Where the parts of one direction lie, as guest-physical addresses of the link's memory. */
export interface FrameLinkPlaces {
  /** The ring. */
  readonly ring: number;
  /** Length of its segment. */
  readonly ringLength: number;
  /** Descriptions of the frames, one slot for each ring position. */
  readonly slots: number;
  /** Their bytes. */
  readonly frames: number;
}

function directionSize(frames: number, bytes: number): number {
  return up(SEGMENT_PLACE + queueSegmentLength(frames)) + up(frames * FRAME_SLOT_SIZE) + up(bytes);
}

/**
 * Allocates a frame link: two rings of the engine, one in each direction, with room for frames, and a doorbell page, in a
 * shared memory of its own (`docs/abi/worker-wire.md` section 7). Open a `WorkerPort` on it in each of two threads. A link
 * connects once; make another one for another connection.
 * @throws VbusError EINVAL for sizes out of range; EOPNOTSUPP in a page without cross-origin isolation (use a
 *   `MessagePortPort` there); ENOMEM
 */
export function createFrameLink(options: FrameLinkOptions = {}): FrameLink {
  const { frames = 512, bytes = 2 << 20, arenaSize = 2 << 20 } = options;
  if (!Number.isInteger(frames) || frames < 1 || frames > IOQ_MAX_COUNT) {
    throw new VbusError("EINVAL", `${frames} frames in a frame link; use 1 to ${IOQ_MAX_COUNT}`);
  }
  if (!Number.isInteger(bytes) || bytes < 2 * FRAME_LENGTH_MAX || bytes > 2 ** 30) {
    throw new VbusError(
      "EINVAL",
      `${bytes} bytes in a frame link; use ${2 * FRAME_LENGTH_MAX} (two superframes) to ${2 ** 30}`,
    );
  }
  const size = 2 * directionSize(frames, bytes);
  const link = { ...allocateGuestMemory({ size, arenaSize, shared: true }), frames, bytes };
  DoorbellPage.format(link);
  return link;
}

/**
 * Where the direction towards a side lies. Both ends compute it from the plain part of the link, never from the memory.
 * @throws VbusError EINVAL for a link that was not made by {@link createFrameLink}
 */
export function linkPlaces(link: FrameLink, towards: FrameLinkSide): FrameLinkPlaces {
  const { frames, bytes } = link;
  const [region] = link.layout.regions;
  const size = directionSize(frames, bytes);
  if (region === undefined || !(size > 0) || region.length < 2 * size) {
    throw new VbusError("EINVAL", "this is no frame link; make one with createFrameLink()");
  }
  const start = region.gpa + (towards === "host" ? 0 : size);
  const ringLength = queueSegmentLength(frames);
  const slots = start + up(SEGMENT_PLACE + ringLength);
  return { ring: start + SEGMENT_PLACE, ringLength, slots, frames: slots + up(frames * FRAME_SLOT_SIZE) };
}
