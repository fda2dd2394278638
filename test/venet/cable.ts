import { VbusError } from "vbus/engine";
import type { Batch, Port, PortCounters, PortPeer } from "vbus/net";

/** One end of a cable between two NICs: the simplest network there is. */
export class CableEnd implements Port {
  readonly offloads = 0;
  other!: CableEnd;
  peer: PortPeer | null = null;
  readonly #counters: PortCounters = {
    received: 0,
    receivedBytes: 0,
    delivered: 0,
    deliveredBytes: 0,
    drops: {},
    inFlight: 0,
  };
  #blocked = false;

  constructor(readonly name: string) {}

  transmit(batch: Batch, from: number, to: number): number {
    const taken = this.other.peer === null ? to - from : this.other.peer.receive(batch, from, to);
    this.#counters.received += taken;
    this.#blocked = taken < to - from;
    return taken;
  }

  attach(peer: PortPeer): void {
    if (this.peer !== null) throw new VbusError("EBUSY", "there is a peer already");
    this.peer = peer;
  }

  detach(): void {
    this.peer = null;
  }

  ready(): void {
    if (this.other.#blocked) this.other.peer?.writable();
  }

  counters(): PortCounters {
    return { ...this.#counters };
  }

  close(): void {
    this.peer = null;
  }
}

/** Two ends. */
export function cable(): [CableEnd, CableEnd] {
  const a = new CableEnd("a");
  const b = new CableEnd("b");
  a.other = b;
  b.other = a;
  return [a, b];
}
