/**
 * Everything behind the page: one switch, guests with up to four cards on it, and a station for each of their networks.
 *
 *     guest 1                guest 2
 *     eth0 eth1 eth2 (eth3)  eth0 eth1 eth2 …
 *      └────┴────┴─────┴───────┴────┴────┴──── switch ──── stations 10.0.N.1, the same program for all cards
 */
import { MemorySpace } from "vbus/memory";
import { Switch, type Port } from "vbus/net";
import { EventLoopScheduler } from "vbus/scheduler";
import { CARD_NAMES, peerAddresses, type CardAddresses, type CardName } from "../linux/cards.js";
import { NetPeer } from "../../test/support/net-peer.js";
import { PageGuest } from "./page-guest.js";
import type { GuestPieces } from "./pieces.js";
import { Recorder } from "./recorder.js";
import type { SavedGuest } from "./saved-guest.js";
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
  #ports = 0;

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

  /** The guests, by their numbers. */
  get guests(): readonly PageGuest[] {
    return this.#guests;
  }

  /** The station behind all cards of that name. */
  station(name: CardName): NetPeer {
    return this.#peers.get(name)!;
  }

  /** A port of the switch for a card; cards of one name follow each other, and may be there at the same time for a moment. */
  addPort(card: string): Port {
    return this.net.addPort(`${card}-${++this.#ports}`);
  }

  /** Starts another guest, with its cards up. @throws PageError, GuestError, RangeError when there are enough */
  async addGuest(): Promise<PageGuest> {
    this.#requireRoom();
    let number = 1;
    while (this.#guests.some((guest) => guest.number === number)) number++;
    const guest = await PageGuest.start(this, number);
    this.#keep(guest);
    return guest;
  }

  /**
   * A guest goes on from a moment at which it was saved, here or elsewhere, in a machine of its own. A guest with its number
   * that is there stands still meanwhile: it is gone when the other one runs, and goes on when that does not get there.
   * @throws PageError, GuestError, StateError; RangeError when there are enough
   */
  async goOn(saved: SavedGuest): Promise<PageGuest> {
    const before = this.#guests.find((guest) => guest.number === saved.number);
    if (before === undefined) this.#requireRoom();
    await before?.pause();
    let guest;
    try {
      guest = await PageGuest.start(this, saved.number, saved);
    } catch (error) {
      await before?.resume();
      throw error;
    }
    if (before !== undefined) await this.removeGuest(before);
    this.#keep(guest);
    return guest;
  }

  /** Switches a guest off and forgets it. */
  async removeGuest(guest: PageGuest): Promise<void> {
    const index = this.#guests.indexOf(guest);
    if (index >= 0) this.#guests.splice(index, 1);
    await guest.close();
  }

  #keep(guest: PageGuest): void {
    this.#guests.push(guest);
    this.#guests.sort((a, b) => a.number - b.number);
  }

  #requireRoom(): void {
    if (this.#guests.length >= MOST_GUESTS)
      throw new RangeError(
        `a page has at most ${MOST_GUESTS} guests, which share one thread: switch one off first`,
      );
  }

  /** Switches everything off. */
  async close(): Promise<void> {
    for (const guest of this.#guests.splice(0)) await guest.close();
    for (const peer of this.#peers.values()) peer.close();
    this.#spare.close();
    this.net.close();
  }
}
