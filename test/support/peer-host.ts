import type { MemorySpace } from "vbus/memory";
import type { Scheduler } from "vbus/scheduler";
import type { Route } from "./header-template.js";
import type { IpAddress } from "./ip-address.js";
import type { Packet } from "./packet.js";
import type { PatternMemory } from "./pattern.js";
import type { PeerCounters } from "./peer-counters.js";
import type { Ticker } from "./ticker.js";
import type { TransmitQueue } from "./transmit-queue.js";

/** What the protocols of a network peer have in common. */
export interface PeerHost {
  /** The host's memory: where frames are made. */
  readonly space: MemorySpace;
  readonly scheduler: Scheduler;
  readonly counters: PeerCounters;
  readonly queue: TransmitQueue;
  readonly ticker: Ticker;
  readonly pattern: PatternMemory;
  readonly mac: number;
  readonly mtu: number;
  /** Its address. @throws PeerError EADDRNOTAVAIL when it has none of that version */
  localAddress(version: 4 | 6): IpAddress;
  /** One of its addresses, or null. */
  ownAddress(version: number, words: Uint32Array): IpAddress | null;
  /** The way to a station, which is asked for when it is not known. @throws PeerError EHOSTUNREACH */
  route(destination: IpAddress, tag: number): Promise<Route>;
  /** The way back to where a packet came from. */
  reply(packet: Packet): Route;
}
