import { VbusError } from "../../errors.js";
import { ChannelPort, type ChannelPortOptions, type MessageCarrier } from "./channel-port.js";

/** What is used of a `BroadcastChannel`. */
interface Channel {
  onmessage: ((event: { data: unknown }) => void) | null;
  onmessageerror: ((event: { data: unknown }) => void) | null;
  postMessage(message: unknown): void;
  close(): void;
}

/** How a {@link BroadcastChannelPort} joins the others. */
export interface BroadcastChannelPortOptions extends ChannelPortOptions {
  /** Name of the channel: pages of one origin that use the same one are on one network. */
  readonly channel: string;
  /** Most others that are listened to; default 16. */
  readonly maxPeers?: number;
  /** How long one that takes nothing holds up the others, in ms; default 1000. Nobody waits for it until it has caught up. */
  readonly stallMs?: number;
  /** How long until such a one is forgotten, in ms; default 30000. */
  readonly forgetMs?: number;
}

class ChannelCarrier implements MessageCarrier {
  readonly #channel: Channel;

  constructor(name: string) {
    const { BroadcastChannel } = globalThis as { BroadcastChannel?: new (name: string) => unknown };
    if (BroadcastChannel === undefined) {
      throw new VbusError("EOPNOTSUPP", "there is no BroadcastChannel here; use a MessagePortPort");
    }
    this.#channel = new BroadcastChannel(name) as Channel;
  }

  post(message: ArrayBuffer): void {
    this.#channel.postMessage(message);
  }

  listen(receive: (data: unknown) => void): void {
    this.#channel.onmessage = (event) => {
      receive(event.data);
    };
    this.#channel.onmessageerror = () => {
      receive(null); // something that cannot be read here: counted as such
    };
  }

  close(): void {
    this.#channel.onmessage = null;
    this.#channel.onmessageerror = null;
    this.#channel.close();
  }
}

/**
 * A port over a `BroadcastChannel`: the tabs, frames and workers of one origin that name the same channel are on one
 * network, like stations at a hub: whatever one sends, all others get. Give each of them a switch of its own behind it, so
 * that what is for another tab stops there.
 *
 * The slowest one is waited for, but not one that takes nothing for `stallMs` (a tab that the browser froze). A tab that
 * comes gets what is sent from then on. Any page of the origin may send anything: what is no message of ours is counted and
 * dropped.
 */
export class BroadcastChannelPort extends ChannelPort {
  /** @throws RangeError for limits out of range; VbusError EOPNOTSUPP without `BroadcastChannel`; ENOMEM */
  constructor(options: BroadcastChannelPortOptions) {
    const { channel, maxPeers = 16, stallMs = 1000, forgetMs = 30_000 } = options;
    for (const [what, value] of Object.entries({ maxPeers, stallMs, forgetMs })) {
      if (!(value > 0)) throw new RangeError(`${what} of ${value}; give a number above 0`);
    }
    super(options, {
      connect: () => new ChannelCarrier(channel),
      maxPeers,
      stallMs,
      forgetMs,
      name: `channel-${channel}`,
    });
  }
}
