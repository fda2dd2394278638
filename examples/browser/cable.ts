/** A cable between two ports: what comes out of one goes into the other. */
import type { Port, PortPeer } from "vbus/net";

/** Plugged in when it is made. While it is unplugged, its ports drop frames and count them as "no-link". */
export class Cable {
  #plugged = false;

  constructor(
    private readonly a: Port,
    private readonly b: Port,
  ) {
    this.plugged = true;
  }

  /** Whether it is plugged in, at both ends. */
  get plugged(): boolean {
    return this.#plugged;
  }

  set plugged(plugged: boolean) {
    if (plugged === this.#plugged) return;
    this.#plugged = plugged;
    const { a, b } = this;
    if (plugged) {
      a.attach(endAt(b));
      b.attach(endAt(a));
    } else {
      a.detach();
      b.detach();
    }
  }
}

/** What one port sees of the cable that leads to another. */
function endAt(far: Port): PortPeer {
  return {
    offloads: far.offloads,
    receive: (batch, from, to) => far.transmit(batch, from, to),
    writable: () => {
      far.ready();
    },
  };
}
