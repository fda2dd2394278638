import { IOQ_MAX_COUNT } from "../../../assembly/abi/ioq.js";
import { VCONSOLE_CHUNK_MAX } from "../../../assembly/abi/vconsole.js";
import type { QueueCounters } from "../../engine/queue.js";
import { VbusError } from "../../errors.js";

/** How a console is driven. */
export interface VconsoleOptions {
  /** Descriptors of the RX ring; default 16, at most 2048. */
  rxRing?: number;
  /** Descriptors of the TX ring; default 16, at most 2048. */
  txRing?: number;
  /** Descriptors of the event ring; default 8, at most 2048. */
  eventRing?: number;
  /** Bytes per RX and TX buffer; default 1024, at most 65536. */
  bufferSize?: number;
  /** Received bytes kept before the ring is left to fill (back-pressure); default 65536. */
  backlog?: number;
}

/** Counters of a console in a guest. */
export interface VirtualConsoleStatistics {
  /** Bytes received in conversations. */
  rxBytes: number;
  /** Bytes received for a conversation that the guest had left. */
  rxDiscarded: number;
  /** Buffers or event records whose length the host got wrong. */
  rxErrors: number;
  /** Bytes put into the TX ring. */
  txBytes: number;
  /** Times a writer had to wait for room. */
  txWaits: number;
  /** The rings' counters, by this side. */
  queues: Record<"rx" | "tx" | "events", QueueCounters>;
}

/** Fills in the defaults. @throws VbusError EINVAL for what is out of range */
export function checkOptions(options: VconsoleOptions): Required<VconsoleOptions> {
  const full = { rxRing: 16, txRing: 16, eventRing: 8, bufferSize: 1024, backlog: 65536, ...options };
  const limits = {
    rxRing: IOQ_MAX_COUNT,
    txRing: IOQ_MAX_COUNT,
    eventRing: IOQ_MAX_COUNT,
    bufferSize: VCONSOLE_CHUNK_MAX,
    backlog: Number.MAX_SAFE_INTEGER,
  };
  for (const [name, most] of Object.entries(limits)) {
    const value = full[name as keyof typeof full];
    if (!Number.isInteger(value) || value < 1 || value > most)
      throw new VbusError("EINVAL", `${name}: ${value}; use a whole number from 1 to ${most}`);
  }
  return full;
}
