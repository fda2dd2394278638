import type { ErrorCode } from "../../errors.js";

/** Operations by name. */
export type BlockOperation = "read" | "write" | "flush" | "discard" | "writeZeroes" | "getId";

/**
 * What a block device counted since it was created, over all sessions. Between any two calls
 * `requests = completed + failed + cancelled + outstanding`.
 */
export interface VblkStatistics {
  /** Requests taken from a request ring. */
  requests: number;
  /** Those that were well-formed and went to the back end, by operation. */
  operations: Record<BlockOperation, number>;
  /** Completed with status 0. */
  completed: number;
  /** Completed with an error. */
  failed: number;
  /** Those by error. */
  errors: Partial<Record<ErrorCode, number>>;
  /** Never completed: the session ended before. */
  cancelled: number;
  /** Taken and not completed yet. */
  outstanding: number;
  /** Bytes that completed reads put into guest memory. */
  bytesRead: number;
  /** Bytes that completed writes stored. */
  bytesWritten: number;
  /** Resize events delivered. */
  events: number;
  /** Times the completion ring had no room. */
  congested: number;
  /** Request rings that broke, such as by a request that no completion could answer. */
  violations: number;
}

/** Fresh counters. */
export function emptyStatistics(): VblkStatistics {
  return {
    requests: 0,
    operations: { read: 0, write: 0, flush: 0, discard: 0, writeZeroes: 0, getId: 0 },
    completed: 0,
    failed: 0,
    errors: {},
    cancelled: 0,
    outstanding: 0,
    bytesRead: 0,
    bytesWritten: 0,
    events: 0,
    congested: 0,
    violations: 0,
  };
}
