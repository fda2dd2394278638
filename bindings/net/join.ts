import { VbusError } from "../errors.js";
import type { Batch } from "./batch.js";
import type { Port, PortPeer } from "./port.js";

/** Two ports that were joined; see {@link joinPorts}. */
export interface JoinedPorts {
  /** Takes them apart: both ports have no peer then. Twice is harmless. */
  part(): void;
}

/**
 * Joins two ports of one thread like a patch cable: what either gives, the other one gets, with back-pressure, and each
 * takes unfinished what the other one does. This is how the end of a connection to another thread or page becomes a port of
 * a switch:
 *
 * ```ts
 * joinPorts(net.addPort("worker"), await WorkerPort.open(link, { side: "host", scheduler }));
 * ```
 *
 * Nothing is kept in between. Two ports of the same switch would make a loop.
 * @throws VbusError EBUSY when one of them has a peer, ENOTCONN when one is closed; EINVAL for a port and itself
 */
export function joinPorts(a: Port, b: Port): JoinedPorts {
  if (a === b) throw new VbusError("EINVAL", `port ${a.name} joined with itself; give two ports`);
  a.attach(new Side(b));
  try {
    b.attach(new Side(a));
  } catch (error) {
    a.detach();
    throw error;
  }
  let joined = true;
  return {
    part: () => {
      if (!joined) return;
      joined = false;
      a.detach();
      b.detach();
    },
  };
}

/** What is plugged into one port: the other one. */
class Side implements PortPeer {
  constructor(private readonly other: Port) {}

  get offloads(): number {
    return this.other.offloads;
  }

  receive(batch: Batch, from: number, to: number): number {
    return this.other.transmit(batch, from, to);
  }

  /** Our own port has room again: the other one may go on delivering to it. */
  writable(): void {
    this.other.ready();
  }
}
