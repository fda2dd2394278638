import type { SessionQueue } from "../bus/types.js";
import { Queue } from "../engine/queue.js";
import { inspectIoq, type IoqSnapshot } from "./ioq.js";
import { inspectVirtqueue, type VirtqueueSnapshot } from "./virtqueue.js";

/** One side of a queue. */
export type QueueSnapshot = IoqSnapshot | VirtqueueSnapshot;

/** How closely to look. */
export interface InspectOptions {
  /** Whether queues come with their maps, one character for each descriptor; default true. */
  maps?: boolean;
}

/**
 * Looks at one side of one queue, of whichever side this thread has: a `Queue` or `VirtQueue`, with its name, and the signal
 * that belongs to it. Null when it was closed. Nothing is changed, and nothing that a peer wrote is believed.
 */
export function inspectQueue(shown: SessionQueue, options: InspectOptions = {}): QueueSnapshot | null {
  const { name, queue, signal = null } = shown;
  const { maps = true } = options;
  if (queue.closed) return null;
  return queue instanceof Queue ? inspectIoq(queue, name, maps) : inspectVirtqueue(queue, name, maps, signal);
}
