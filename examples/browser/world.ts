/**
 * Everything behind the page: one switch, guests with up to four cards on it, and a station for each of their networks.
 *
 *     guest 1                guest 2
 *     eth0 eth1 eth2 (eth3)  eth0 eth1 eth2 …
 *      └────┴────┴─────┴───────┴────┴────┴──── switch ──── stations 10.0.N.1, the same program for all cards
 */
import { MemorySpace } from "vbus/memory";
import { Switch } from "vbus/net";
import { EventLoopScheduler } from "vbus/scheduler";
import { CARD_NAMES, peerAddresses, type CardAddresses, type CardName } from "../linux/cards.js";
import { NetPeer } from "../../test/support/net-peer.js";
import { PageGuest } from "./page-guest.js";
import type { GuestPieces } from "./pieces.js";
import { Recorder } from "./recorder.js";
import { MTU, SPARE_STATION } from "./spare-network.js";

/** Guests in one page; each takes the memory of a machine, and they share one thread. */
export const MOST_GUESTS = 4;

/** Told of what happens. */
export type Report = (message: string) => void;

/** One switch and all that is plugged into it. */
export class World {
  readonly recorder = new Recorder();
  readonly net: Switch;
  readonly #peers = new Map<CardName, NetPeer>();
  readonly #spare: NetPeer;
  readonly #guests: PageGuest[] = [];
  #numbers = 0;

  private constructor(
    readonly pieces: GuestPieces,
    readonly scheduler: EventLoopScheduler,
    readonly space: MemorySpace,
    readonly report: Report,
  ) {
    this.net = new Switch({ scheduler, space, name: "switch" });
    const station = (name: string, addresses: CardAddresses): NetPeer =>
      new NetPeer({ port: this.net.addPort(name), scheduler, space, ...addresses, mtu: MTU });
    for (const name of CARD_NAMES) this.#peers.set(name, station(`${name}-station`, peerAddresses(name)));
    this.#spare = station("eth3-station", SPARE_STATION);
  }

  /** @param report - told of what happens; errors of tasks go there, too */
  static async open(pieces: GuestPieces, report: Report): Promise<World> {
    const scheduler = new EventLoopScheduler((error) => {
      report(`error: ${error instanceof Error ? error.message : String(error)}`);
    });
    return new World(pieces, scheduler, await MemorySpace.host(), report);
  }

  /** The guests, in the order in which they came. */
  get guests(): readonly PageGuest[] {
    return this.#guests;
  }

  /** The station behind all cards of that name. */
  station(name: CardName): NetPeer {
    return this.#peers.get(name)!;
  }

  /** Starts another guest, with its cards up. @throws PageError, GuestError, RangeError when there are enough */
  async addGuest(): Promise<PageGuest> {
    if (this.#guests.length >= MOST_GUESTS)
      throw new RangeError(`a page has at most ${MOST_GUESTS} guests: they share one thread`);
    const guest = await PageGuest.start(this, ++this.#numbers);
    this.#guests.push(guest);
    return guest;
  }

  /** Switches everything off. */
  async close(): Promise<void> {
    for (const guest of this.#guests.splice(0)) await guest.close();
    for (const peer of this.#peers.values()) peer.close();
    this.#spare.close();
    this.net.close();
  }
}
