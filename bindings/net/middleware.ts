import type { Batch } from "./batch.js";
import {
  checkAttach,
  countDrop,
  type DropCounts,
  type DropReason,
  type Port,
  type PortCounters,
  type PortPeer,
} from "./port.js";
import { FrameTally } from "./tally.js";

/** Which way frames go through a middleware: from its peer into the network, or from the network to its peer. */
export type Direction = "transmit" | "receive";

/**
 * Base of everything that wraps a port and is a port: it plugs itself into the inner port as its peer, and passes
 * everything on. What a middleware changes it overrides: the `toNetwork` and `toPeer` of the frames, and the answers to
 * back-pressure.
 *
 * The middleware owns the inner port: closing the outer one closes it.
 */
export abstract class Middleware implements Port {
  /** Frames that crossed the outer edge, and what this middleware dropped or copied. */
  protected readonly tally = new FrameTally();
  #peer: PortPeer | null = null;
  #closed = false;

  /** @param inner - the port to wrap; nobody else may attach to it */
  constructor(protected readonly inner: Port) {}

  /** {@inheritDoc Port.name} */
  get name(): string {
    return this.inner.name;
  }

  /** {@inheritDoc Port.offloads} */
  get offloads(): number {
    return this.inner.offloads;
  }

  /** Who is attached. */
  protected get peer(): PortPeer | null {
    return this.#peer;
  }

  /** True after {@link Middleware.close}. */
  protected get closed(): boolean {
    return this.#closed;
  }

  /** Frames from the peer: returns how many were taken. By default the inner port gets them. */
  protected toNetwork(batch: Batch, from: number, to: number): number {
    return this.inner.transmit(batch, from, to);
  }

  /** Frames from the inner port: returns how many were taken. By default they are handed to the peer. */
  protected toPeer(batch: Batch, from: number, to: number): number {
    return this.hand(batch, from, to);
  }

  /** The inner port can take frames again. */
  protected networkWritable(): void {
    this.#peer?.writable();
  }

  /** The peer can take frames again. */
  protected peerReady(): void {
    this.inner.ready();
  }

  /** Drops what this middleware holds, for the peer (or all of it, when the port is being closed). */
  protected dropHeld(_reason: DropReason): void {
    // holds nothing by default
  }

  /** Frames held here at this moment. */
  protected get held(): number {
    return 0;
  }

  /** Hands frames to the peer, and counts those that it took. */
  protected hand(batch: Batch, from: number, to: number): number {
    if (this.#peer === null) {
      this.tally.drop("no-link", to - from);
      return to - from;
    }
    const n = this.#peer.receive(batch, from, to);
    this.tally.deliver(n, batch.byteCount(from, from + n));
    return n;
  }

  /** {@inheritDoc Port.transmit} */
  transmit(batch: Batch, from: number, to: number): number {
    let n = to - from;
    if (this.#closed) this.tally.drop("closed", n);
    else n = this.toNetwork(batch, from, to);
    this.tally.take(n, batch.byteCount(from, from + n));
    return n;
  }

  /** {@inheritDoc Port.attach} */
  attach(peer: PortPeer): void {
    checkAttach(this.name, this.#peer, this.#closed);
    this.inner.attach({
      // a peer that says what it takes says so through any number of middlewares
      get offloads() {
        return peer.offloads;
      },
      receive: (batch, from, to) => this.toPeer(batch, from, to),
      writable: () => {
        this.networkWritable();
      },
    });
    this.#peer = peer;
  }

  /** {@inheritDoc Port.detach} */
  detach(): void {
    if (this.#peer === null) return;
    this.inner.detach();
    this.dropHeld("no-link");
    this.#peer = null;
  }

  /** {@inheritDoc Port.ready} */
  ready(): void {
    if (!this.#closed) this.peerReady();
  }

  /** {@inheritDoc Port.counters} */
  counters(): PortCounters {
    const inner = this.inner.counters();
    const drops: DropCounts = { ...inner.drops };
    for (const [reason, n] of Object.entries(this.tally.drops)) countDrop(drops, reason as DropReason, n);
    const { received, receivedBytes, delivered, deliveredBytes } = this.tally;
    const inFlight = inner.inFlight + this.held;
    return { received, receivedBytes, delivered, deliveredBytes, drops, inFlight };
  }

  /** {@inheritDoc Port.close} */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.dropHeld("closed");
    this.inner.close();
    this.#peer = null;
  }
}
