/** The cards that a Linux guest here can have: what they are, where they are, and how the guest brings them up. */
import type { Port } from "vbus/net";
import type { GuestShell } from "./guest.js";
import type { CardPlace, Notifications } from "./notifications.js";
import { adoptFunction } from "./virtio-function.js";
import type { NetPeer } from "../../test/support/net-peer.js";

/** Cards there are. */
export const CARD_NAMES = ["eth0", "eth1", "eth2"] as const;
/** One of them. */
export type CardName = (typeof CARD_NAMES)[number];

/** What each of them is. */
export const CARD_KINDS: Record<CardName, string> = {
  eth0: "virtio-net",
  eth1: "venet",
  eth2: "our virtio-net",
};
const NETWORK: Record<CardName, number> = { eth0: 0, eth1: 1, eth2: 2 };
/** Where their notification registers are, and how many bytes of ports those take. */
export const CARD_PLACES: Record<CardName, CardPlace & { size: number }> = {
  eth0: { slot: 0x0a, bar: 1, interrupt: /virtio\d+\s*$/, size: 4 },
  eth1: { slot: 0x10, bar: 1, interrupt: /vbus/, size: 12 },
  eth2: {
    slot: 0x11,
    bar: 0,
    offset: 0x40,
    interrupt: /virtio\d+-(input|output|control|virtqueues)/,
    size: 4,
  },
};
/** The guest's kernel sees functions at boot: part of what a saved state is. */
const PREPARED: Partial<Record<CardName, string>> = {
  eth1: "vbus-pci bridge in slot 0x10",
  eth2: "virtio-net in slot 0x11",
};
const READY_MS = 30_000;

/** Number of the station behind a card, among the hosts of its network. */
const PEER = 1;
/** Number of a network's first guest. */
const FIRST_GUEST = 2;

/** Names what is attached for cards, for the key of a saved state. */
export function preparedAs(cards: readonly CardName[]): string[] {
  return CARD_NAMES.filter((name) => cards.includes(name)).flatMap((name) => PREPARED[name] ?? []);
}

/** Addresses of one end of a card's network. */
export interface CardAddresses {
  readonly mac: string;
  readonly ip4: string;
  readonly ip6: string;
}

/** Addresses of a host (1 to 254) in one of the networks (0 to 9). */
export function networkAddresses(network: number, host: number): CardAddresses {
  const hex = host.toString(16).padStart(2, "0");
  return {
    mac: `02:00:00:00:0${network}:${hex}`,
    ip4: `10.0.${network}.${host}`,
    ip6: `fd00:0:0:${network}::${host.toString(16)}`,
  };
}

/** Addresses of the station behind a card. */
export function peerAddresses(name: CardName): CardAddresses {
  return networkAddresses(NETWORK[name], PEER);
}

/** Addresses of a guest's card; `guest` counts the guests of a network from 0. */
export function guestAddresses(name: CardName, guest = 0): CardAddresses {
  return networkAddresses(NETWORK[name], FIRST_GUEST + guest);
}

/** A card, and what is behind it. */
export interface Card {
  readonly name: CardName;
  /** `virtio-net`, `venet` or `our virtio-net`. */
  readonly what: string;
  readonly guestAddress: string;
  readonly peerAddress: string;
  /** The IPv6 one. */
  readonly peerAddress6: string;
  /** The peer's MAC address. */
  readonly peerMac: string;
  /** The station behind it. */
  readonly peer: NetPeer;
  readonly notifications: Notifications;
  /**
   * Bytes that the host has copied so far for frames of this card, between the guest's memory and the station: by the card, by
   * the switch when frames have to wait. (The station reads frames where they lie.)
   */
  copied(): number;
}

/**
 * What v86 0.5.462 does to a frame of its own card: out of the guest into an array; a header and the frame into an array, and
 * that into the guest. Its port adds a copy each way.
 */
const V86_COPIES = { out: 2, in: 3 };

/** Bytes that were copied for v86's own card, by what its port counted. */
export function copiedByV86(port: Port): number {
  const { receivedBytes, deliveredBytes } = port.counters();
  return receivedBytes * V86_COPIES.in + deliveredBytes * V86_COPIES.out;
}

/** What measurements need: a guest, and its cards. */
export interface CardLab {
  readonly machine: GuestShell;
  readonly cards: readonly Card[];
}

/** How a card is brought up. */
export interface BringUpOptions {
  mtu: number;
  /** Which guest of the network it is, from 0. Default 0. */
  guest?: number;
}

/** Waits until the guest has a network card of that name. */
export async function awaitCard(machine: GuestShell, name: string): Promise<void> {
  const appears =
    `n=0; until [ -e /sys/class/net/${name} ] || [ $n -ge 100 ]; do n=$((n+1)); usleep 50000; done; ` +
    `[ -e /sys/class/net/${name} ]`;
  await machine.check(appears, { timeoutMs: READY_MS });
}

/**
 * Brings up a card whose drivers are loaded, gives it an address, and pings the station behind it. @throws GuestError
 */
export async function bringUp(machine: GuestShell, name: CardName, options: BringUpOptions): Promise<void> {
  const { mtu, guest = 0 } = options;
  const own = guestAddresses(name, guest);
  if (name === "eth1") {
    await awaitCard(machine, name);
  } else if (name === "eth2") {
    const device = await adoptFunction(machine, CARD_PLACES.eth2.slot);
    const found = (await machine.check(`ls /sys/bus/virtio/devices/${device}/net`)).trim();
    if (found !== name) await machine.check(`ip link set ${found} name ${name}`);
  } else {
    await machine.check(`ip link set ${name} address ${own.mac}`);
  }
  await machine.check(`ip link set ${name} mtu ${mtu} && ip link set ${name} up`);
  await machine.check(`ip addr add ${own.ip4}/24 dev ${name}`);
  await machine.check(`ping -c 1 -W 10 ${peerAddresses(name).ip4}`, { timeoutMs: READY_MS });
}
