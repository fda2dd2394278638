import { countDrop, type DropCounts, type DropReason } from "../../net/port.js";

/**
 * Frames of one direction of a NIC. The equation `frames = passed + Σ drops` holds between any two calls.
 */
export interface VenetDirection {
  /** Frames that entered: sent by the guest, or offered by the network. */
  frames: number;
  /** Frames that left: handed to the network, or put into the guest's buffers. */
  passed: number;
  /** Bytes of those. */
  bytes: number;
  /** Frames dropped here, by reason. */
  drops: DropCounts;
}

/** What a NIC counted since it was created, over all sessions. */
export interface VenetStatistics {
  /** From the guest. */
  tx: VenetDirection;
  /** Towards the guest. */
  rx: VenetDirection;
  /** Times the guest's receive ring had no descriptor for a frame. */
  rxCongested: number;
  /** Times the network had no room for a frame. */
  txCongested: number;
  /** Receive descriptors returned empty by FLUSHRX. */
  flushed: number;
}

/** Fresh counters. */
export function emptyStatistics(): VenetStatistics {
  const direction = (): VenetDirection => ({ frames: 0, passed: 0, bytes: 0, drops: {} });
  return { tx: direction(), rx: direction(), rxCongested: 0, txCongested: 0, flushed: 0 };
}

/** Counts frames that entered a direction and were dropped at once. */
export function dropFrames(direction: VenetDirection, reason: DropReason, n = 1): void {
  direction.frames += n;
  countDrop(direction.drops, reason, n);
}
