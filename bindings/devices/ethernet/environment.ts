import type { Port } from "../../net/port.js";
import type { Scheduler } from "../../scheduler.js";
import type { NicStatistics } from "./statistics.js";

/**
 * What both sides of a NIC's data path need of their NIC, whatever its rings look like; read anew for every burst, for
 * attributes may change under way.
 */
export interface NicEnvironment {
  /** Where deferred work runs. */
  readonly scheduler: Scheduler;
  /** Counters of the NIC. */
  readonly statistics: NicStatistics;
  /** Where frames go; null: nowhere (they are dropped as "no-link"). */
  readonly port: Port | null;
  /** True while the administrator has not taken the carrier away. */
  readonly carrier: boolean;
  /** Current MTU. */
  readonly mtu: number;
  /** Merge segments for guests that take superframes. */
  readonly coalesce: boolean;
  /** How long superframes wait for buffers of the guest before they are cut, in ms; 0: not at all. */
  readonly bufferWaitMs: number;
  /** The guest broke the queue (EPROTO), or something of the host failed; told once for a queue that is broken. */
  failed(queue: "rx" | "tx", error: unknown): void;
}
