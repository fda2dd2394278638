/**
 * v86's own virtio-net, looked at while it works: it counts nothing itself. As in `examples/linux/notifications.ts`, that is a
 * debugger's look into v86, and nothing depends on it but charts.
 */
import type { V86 } from "v86";
import type { Notifications } from "../linux/notifications.js";

interface VirtQueue {
  size: number;
  num_staged_replies: number;
  is_configured(): boolean | number;
  count_requests(): number;
  avail_get_flags(): number;
  flush_replies(): void;
}

interface NetworkCard {
  status: number;
  virtio: { queues: VirtQueue[]; notify_config_changes(): void };
}

interface Inside {
  v86: { cpu: { devices: { virtio_net: NetworkCard } } };
}

const NO_INTERRUPT = 1;
const LINK_UP = 1;
const RX = 0;
const TX = 1;

/** What was seen of the card. */
export interface RivalReading {
  doorbells: number;
  suppressed: number;
  interrupts: number;
  tx: number | null;
  rx: number | null;
}

/** Watches the card of one machine. */
export class RivalCard {
  readonly #card: NetworkCard;
  readonly #queues: VirtQueue[];
  #suppressed = 0;

  /** @param notifications - who counts the card's doorbells and interrupts */
  constructor(
    emulator: V86,
    private readonly notifications: Notifications,
  ) {
    this.#card = (emulator as V86 & Inside).v86.cpu.devices.virtio_net;
    this.#queues = this.#card.virtio.queues.slice(0, 2);
    for (const queue of this.#queues) {
      const flush = queue.flush_replies.bind(queue);
      queue.flush_replies = () => {
        if (queue.num_staged_replies > 0 && (queue.avail_get_flags() & NO_INTERRUPT) !== 0)
          this.#suppressed++;
        flush();
      };
    }
  }

  /** Whether the guest is told that there is a carrier. */
  get carrier(): boolean {
    return this.#card.status === LINK_UP;
  }

  set carrier(up: boolean) {
    this.#card.status = up ? LINK_UP : 0;
    this.#card.virtio.notify_config_changes();
  }

  /** All so far. */
  read(): RivalReading {
    const { doorbells, lines } = this.notifications.seen;
    return {
      doorbells,
      suppressed: this.#suppressed,
      interrupts: lines,
      tx: this.#occupancy(TX),
      rx: this.#occupancy(RX),
    };
  }

  #occupancy(index: number): number | null {
    const queue = this.#queues[index];
    // v86 answers with an address, or 0
    return queue?.is_configured() ? queue.count_requests() / queue.size : null;
  }
}
