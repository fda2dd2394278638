import { emptyNicStatistics, type NicDirection, type NicStatistics } from "../ethernet/statistics.js";

/** Frames of one direction of a venet NIC. */
export type VenetDirection = NicDirection;

/** What a NIC counted since it was created, over all sessions. */
export interface VenetStatistics extends NicStatistics {
  /** Times the guest had given no page for a superframe. */
  rxPagesShort: number;
  /** Receive descriptors returned empty by FLUSHRX. */
  flushed: number;
  /** Events told to the guest. */
  events: number;
}

/** Fresh counters. */
export function emptyStatistics(): VenetStatistics {
  return { ...emptyNicStatistics(), rxPagesShort: 0, flushed: 0, events: 0 };
}
