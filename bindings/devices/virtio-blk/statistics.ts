import type { BlockOperation } from "../vblk/statistics.js";

/**
 * What a virtio-blk device counted since it was created, over all sessions and queues. Between any two calls
 * `requests = completed + failed + unsupported + cancelled + outstanding`.
 */
export interface VirtioBlkStatistics {
  /** Requests taken from a queue. */
  requests: number;
  /** Those that were well-formed and went to the back end, by operation. */
  operations: Record<BlockOperation, number>;
  /** Completed well. */
  completed: number;
  /** Completed with an error. */
  failed: number;
  /** Refused as not offered. */
  unsupported: number;
  /** Never completed: the queue or the session ended before. */
  cancelled: number;
  /** Taken and not completed yet. */
  outstanding: number;
  /** Bytes that completed reads put into guest memory. */
  bytesRead: number;
  /** Bytes that completed writes stored. */
  bytesWritten: number;
  /** Queues that broke, such as by a request that has no room for an answer. */
  violations: number;
}

/** Fresh counters. */
export function emptyStatistics(): VirtioBlkStatistics {
  return {
    requests: 0,
    operations: { read: 0, write: 0, flush: 0, discard: 0, writeZeroes: 0, getId: 0 },
    completed: 0,
    failed: 0,
    unsupported: 0,
    cancelled: 0,
    outstanding: 0,
    bytesRead: 0,
    bytesWritten: 0,
    violations: 0,
  };
}
