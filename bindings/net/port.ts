import { VbusError } from "../errors.js";
import { checkGiven } from "../given.js";
import type { Batch } from "./batch.js";

/** Offload bit: the port takes frames with partial checksums. */
export const OFFLOAD_CSUM = 1;
/** Offload bit: the port takes TCP/IPv4 superframes. */
export const OFFLOAD_TCP4 = 2;
/** Offload bit: the port takes TCP/IPv6 superframes. */
export const OFFLOAD_TCP6 = 4;
/** Offload bit: the port takes UDP superframes. */
export const OFFLOAD_UDP_L4 = 8;
/** Offload bit: superframes may carry the ECN flag. */
export const OFFLOAD_ECN = 16;
/** Everything: for ports that finish frames themselves before they hand them on. */
export const OFFLOAD_ALL = 31;

/** Why a frame was dropped. Every drop is counted under one of these. */
export type DropReason =
  | "oversize" // longer than the NIC's limit
  | "undersize" // shorter than an Ethernet header
  | "bad-address" // the descriptor points outside the guest's memory
  | "bad-descriptor" // a scatter-gather descriptor contradicts itself
  | "bad-offload" // checksum or segmentation data that contradicts itself, or was never negotiated
  | "buffer-too-small" // the posted buffer is shorter than the frame
  | "filtered" // the guest does not want it: another station's, a group or a VLAN that it did not join
  | "no-link" // nobody is attached, or the link is down
  | "stalled" // the port made no progress for stallMs
  | "queue-full" // flooded frame, egress queue full
  | "no-port" // nowhere to send it
  | "source-port" // the destination is the port it came from
  | "closed" // in flight when the port was closed
  | "fault" // dropped on purpose by the fault injector
  | "rate" // dropped by a rate limiter
  | "broken"; // the queue that held it was broken by its guest

/** Counts of dropped frames by reason; absent means 0. */
export type DropCounts = Partial<Record<DropReason, number>>;

/** Frame counters of a port, seen from the network: `received` came in from the attached peer, `delivered` went out to it. */
export interface PortCounters {
  /** Frames taken from the peer. */
  received: number;
  /** Bytes of those. */
  receivedBytes: number;
  /** Frames handed to the peer. */
  delivered: number;
  /** Bytes of those. */
  deliveredBytes: number;
  /** Frames dropped here, by reason. */
  drops: DropCounts;
  /** Frames held here (egress queue, delay line). */
  inFlight: number;
}

/**
 * What is plugged into a port: a NIC's device half, a middleware, a test. Both methods run on the port's thread and
 * never call back into `transmit` synchronously (post to the scheduler instead).
 */
export interface PortPeer {
  /** What it takes unfinished at this moment (`OFFLOAD_…` bits); absent: what its port was told. */
  readonly offloads?: number | undefined;
  /**
   * Takes frames [from, to) of a batch, in order. Returns how many were taken: delivered, or dropped and counted by the
   * peer. Fewer than offered is back-pressure: the peer calls `port.ready()` when it can take more.
   * The batch is borrowed for the duration of the call.
   */
  receive(batch: Batch, from: number, to: number): number;
  /** The port can take frames again after `transmit` took fewer than offered. */
  writable(): void;
}

/**
 * A place where frames leave a guest: a switch port, a loopback, a capture wrapped around either. Middleware wraps a
 * port and is a port. One thread only.
 */
export interface Port {
  /** Name for people: captures, tables, messages. */
  readonly name: string;
  /** What it takes unfinished (`OFFLOAD_…` bits); 0: finished frames only. */
  readonly offloads: number;
  /**
   * Frames [from, to) of a batch enter the network. Returns how many were taken: forwarded, queued, or dropped and
   * counted. Fewer is back-pressure; the port calls `peer.writable()` later. Borrowed as in {@link PortPeer.receive}.
   */
  transmit(batch: Batch, from: number, to: number): number;
  /** Plugs a peer in. @throws VbusError EBUSY when there is one already, ENOTCONN after close. */
  attach(peer: PortPeer): void;
  /** Unplugs it. Frames on their way to it are dropped and counted. Harmless when nobody is attached. */
  detach(): void;
  /** The peer can take frames again after `receive` took fewer than offered. */
  ready(): void;
  /** What went through, in which direction, and what was dropped. A snapshot. */
  counters(): PortCounters;
  /** Ends the port; frames held here are dropped and counted as "closed". Closing twice is harmless. */
  close(): void;
}

/**
 * Passes through what a callback or an option of the embedder gave as a port.
 * @param what - beginning of the message, such as "`port` is"
 * @param must - what it has to do, such as "it must be"
 * @throws VbusError EINVAL for anything that is no port, a promise above all
 */
export function checkPort(port: Port, what: string, must: string): Port {
  const wanted = `${must} a port, not a promise, such as net.addPort(name)`;
  return checkGiven(port, what, wanted, "transmit", "attach", "close");
}

/** Adds to a drop counter. */
export function countDrop(drops: DropCounts, reason: DropReason, n = 1): void {
  if (n > 0) drops[reason] = (drops[reason] ?? 0) + n;
}

/** Sum of all drops. */
export function totalDrops(drops: DropCounts): number {
  return Object.values(drops).reduce((sum, n) => sum + n, 0);
}

/**
 * Refuses a second peer, and any after close: what every `attach` begins with.
 * @throws VbusError EBUSY, ENOTCONN
 */
export function checkAttach(name: string, attached: PortPeer | null, closed: boolean): void {
  if (closed) throw new VbusError("ENOTCONN", `port ${name} is closed; add a new one`);
  if (attached !== null) throw new VbusError("EBUSY", `port ${name} has a peer already; detach it first`);
}
