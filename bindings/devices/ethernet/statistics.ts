import { emptyOffloadCounters, type OffloadCounters } from "../../net/offload.js";
import { countDrop, type DropCounts, type DropReason } from "../../net/port.js";

/**
 * Frames of one direction of a NIC. The equation `frames + replicated = passed + merged + Σ drops + held` holds between any
 * two calls.
 */
export interface NicDirection {
  /** Frames that entered: sent by the guest, or offered by the network. */
  frames: number;
  /** Frames that superframes became beyond themselves when they were cut here. */
  replicated: number;
  /** Frames that left: handed to the network, or put into the guest's buffers. */
  passed: number;
  /** Frames that went into a superframe with others. */
  merged: number;
  /** Bytes of those that left. */
  bytes: number;
  /** Frames dropped here, by reason. */
  drops: DropCounts;
  /** Segments that wait for the network (their superframe is done with). */
  held: number;
}

/** What a NIC counted since it was created, over all sessions and all its queues. */
export interface NicStatistics extends OffloadCounters {
  /** From the guest. */
  tx: NicDirection;
  /** Towards the guest. */
  rx: NicDirection;
  /** Superframes made of segments for the guest. */
  coalesced: number;
  /**
   * Bytes copied to put frames into the guest's buffers: those of `rx.bytes` once, or three times where frames between two
   * memories were staged.
   */
  rxCopiedBytes: number;
  /** Times the guest had no receive buffer for a frame. */
  rxCongested: number;
  /** Times the network had no room for a frame. */
  txCongested: number;
}

/** Fresh counters. */
export function emptyNicStatistics(): NicStatistics {
  const direction = (): NicDirection => ({
    frames: 0,
    replicated: 0,
    passed: 0,
    merged: 0,
    bytes: 0,
    drops: {},
    held: 0,
  });
  return {
    tx: direction(),
    rx: direction(),
    ...emptyOffloadCounters(),
    coalesced: 0,
    rxCopiedBytes: 0,
    rxCongested: 0,
    txCongested: 0,
  };
}

/** Counts frames that entered a direction and were dropped at once. */
export function dropFrames(direction: NicDirection, reason: DropReason, n = 1): void {
  direction.frames += n;
  countDrop(direction.drops, reason, n);
}
