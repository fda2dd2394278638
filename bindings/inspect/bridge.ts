import type { BridgeCounters, BridgeHost } from "../connectors/bridge/host.js";
import { inspectQueue, type InspectOptions, type QueueSnapshot } from "./queue.js";

/** A bridge: what carries the bus to one guest. */
export interface BridgeSnapshot {
  /** Name for people; the guest's. */
  name: string;
  /** The guest has negotiated. */
  negotiated: boolean;
  /** The guest has registered an event queue. */
  registered: boolean;
  /** What was counted. */
  counters: BridgeCounters;
  /** The event queue; null while none is registered. */
  eventQueue: QueueSnapshot | null;
}

/** Looks at a bridge, such as `V86Host.function.bridge` or `WorkerHost.bridge`. */
export function inspectBridge(
  bridge: BridgeHost,
  name: string,
  options: InspectOptions = {},
): BridgeSnapshot {
  const { negotiated, registered, eventQueue } = bridge;
  return {
    name,
    negotiated,
    registered,
    counters: bridge.counters(),
    eventQueue: eventQueue === null ? null : inspectQueue({ name: "events", queue: eventQueue }, options),
  };
}
