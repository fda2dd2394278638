import { countDrop, type DropCounts, type DropReason, type PortCounters } from "../port.js";
import { FrameTally, type FrameBalance } from "../tally.js";

/**
 * What an end of a connection to another thread or page counted. `received`, `delivered`, `drops` and `inFlight` are those
 * of every port, both ways together; the others tell the two ways apart. Between calls
 *
 * ```text
 * received            = sent        + Σ outgoingDrops + waiting to be sent
 * sent                = acknowledged + unacknowledged
 * arrived + replicated = delivered  + Σ incomingDrops + waiting for the peer
 * ```
 *
 * and, once both ends are closed, what one end has `acknowledged` is what the other end counted as `arrived`: see each port
 * for when that holds.
 */
export interface ThreadPortCounters extends PortCounters {
  /** Frames handed to the other side. */
  sent: number;
  /** Those that the other side is done with: delivered there, or dropped and counted there. */
  acknowledged: number;
  /** Frames taken from the other side. */
  arrived: number;
  /** Segments of superframes that were cut for the peer, beyond those superframes. */
  replicated: number;
  /** Frames from the peer that were dropped here, by reason. */
  outgoingDrops: DropCounts;
  /** Frames from the other side that were dropped here, by reason. */
  incomingDrops: DropCounts;
  /** What the other side did that it must not do. */
  violations: number;
}

/** The books of one end: one tally for each way. */
export class ThreadPortTally {
  /** From the peer to the other side; `delivered` counts those acknowledged. */
  readonly out = new FrameTally();
  /** From the other side to the peer. */
  readonly in = new FrameTally();
  sent = 0;
  violations = 0;

  /** A snapshot; `toSend` frames wait to be sent, `toDeliver` for the peer. */
  counters(toSend: number, toDeliver: number): ThreadPortCounters {
    const { out, in: into, sent } = this;
    return {
      received: out.received,
      receivedBytes: out.receivedBytes,
      delivered: into.delivered,
      deliveredBytes: into.deliveredBytes,
      drops: this.#drops(),
      inFlight: toSend + toDeliver + sent - out.delivered,
      sent,
      acknowledged: out.delivered,
      arrived: into.received,
      replicated: into.replicated,
      outgoingDrops: { ...out.drops },
      incomingDrops: { ...into.drops },
      violations: this.violations,
    };
  }

  #drops(): DropCounts {
    const drops: DropCounts = { ...this.out.drops };
    for (const [reason, n] of Object.entries(this.in.drops)) countDrop(drops, reason as DropReason, n);
    return drops;
  }

  /** The frame equation of this end, both ways together: what was acknowledged counts as delivered. */
  balance(toSend: number, toDeliver: number): FrameBalance {
    const out = this.out.balance(toSend + this.sent - this.out.delivered);
    const into = this.in.balance(toDeliver);
    return {
      received: out.received + into.received,
      replicated: into.replicated,
      delivered: out.delivered + into.delivered,
      drops: this.#drops(),
      inFlight: out.inFlight + into.inFlight,
      balanced: out.balanced && into.balanced,
    };
  }
}
