import { ENTRY_OFF_FLAGS, ENTRY_SIZE, FRAME_ECN, FRAME_GSO, FRAME_NEEDS_CSUM } from "vbus/engine";
import type { MemorySpace } from "vbus/memory";
import { isGroupMac, OFFLOAD_ALL, parseMac, type Batch, type Port, type PortPeer } from "vbus/net";
import type { Scheduler } from "vbus/scheduler";
import type { Route } from "./header-template.js";
import { Icmp } from "./icmp.js";
import { IpAddress } from "./ip-address.js";
import { Neighbours } from "./neighbours.js";
import {
  ETHERTYPE_ARP,
  ETHERTYPE_IPV4,
  ETHERTYPE_IPV6,
  Packet,
  PROTOCOL_ICMP,
  PROTOCOL_ICMP6,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
} from "./packet.js";
import { PatternMemory } from "./pattern.js";
import { countBurst, emptyCounters, type FrameFate, type PeerCounters } from "./peer-counters.js";
import { PeerError } from "./peer-error.js";
import type { PeerHost } from "./peer-host.js";
import { Tcp } from "./tcp.js";
import type { TcpOptions } from "./tcp-connection.js";
import { Ticker } from "./ticker.js";
import { TransmitQueue } from "./transmit-queue.js";
import { Udp } from "./udp.js";

const GROUP_IPV4 = 0xe;

/** What a {@link NetPeer} is made of. */
export interface NetPeerOptions {
  /** The port that it plugs itself into. */
  port: Port;
  /** Where deferred work of this thread runs. */
  scheduler: Scheduler;
  /** The host's memory: where frames are made. */
  space: MemorySpace;
  /** Its MAC address, `02:00:00:00:00:0b`. */
  mac: string;
  /** Its IPv4 address. */
  ip4?: string;
  /** Its IPv6 address, besides the link-local one. */
  ip6?: string;
  /** Longest IP packet; default 1500. */
  mtu?: number;
  /** What it takes unfinished (`OFFLOAD_…` bits); default everything. */
  takes?: number;
  /** What it sends unfinished when its port takes it (`OFFLOAD_…` bits); default everything. */
  sends?: number;
  /** Of all TCP connections. */
  tcp?: TcpOptions;
  /** Seed of initial sequence numbers; default 1. */
  seed?: number;
}

/**
 * A host on the network, as small as a guest's opposite may be: ARP and neighbour discovery, ping, UDP and TCP, over IPv4,
 * IPv6 and 802.1Q, with superframes and partial checksums wherever the other side takes part. It verifies whatever can be
 * verified, and counts everything.
 *
 * It is the peer of a port: frames come to it in the sender's own memory and are parsed and compared there, frames of
 * the pattern leave as a header and a slice of the pattern, so that the peer itself copies no payload at all (echoes
 * apart). With a NIC of ours it shares a switch, which hands the guest's batches to it, and its own to the guest; with
 * an emulator's NIC it is plugged into that NIC's port.
 *
 * One thread. It keeps nothing of a batch beyond `receive`, and takes every frame: back-pressure is TCP's business.
 */
export class NetPeer implements PortPeer, PeerHost {
  readonly offloads: number;
  readonly scheduler: Scheduler;
  readonly space: MemorySpace;
  readonly mac: number;
  readonly mtu: number;
  /** Everything counted so far. Live: copy what is to stay. */
  readonly counters: PeerCounters = emptyCounters();
  readonly queue: TransmitQueue;
  readonly ticker: Ticker;
  readonly pattern: PatternMemory;
  /** Ping. */
  readonly icmp: Icmp;
  /** Datagrams. */
  readonly udp: Udp;
  /** Connections. */
  readonly tcp: Tcp;
  readonly #port: Port;
  readonly #neighbours: Neighbours;
  readonly #addresses: IpAddress[] = [];
  readonly #groups: IpAddress[] = [IpAddress.parse("ff02::1")];
  readonly #packet = new Packet();
  #closed = false;

  /** @throws PeerError EADDRNOTAVAIL for a MAC address that is none; TypeError for IP addresses; VbusError EBUSY, ENOMEM */
  constructor(options: NetPeerOptions) {
    const { port, scheduler, space, mac, ip4, ip6, mtu = 1500, seed = 1 } = options;
    const { takes = OFFLOAD_ALL, sends = OFFLOAD_ALL } = options;
    const address = parseMac(mac);
    if (address === null || isGroupMac(address)) {
      throw new PeerError("EADDRNOTAVAIL", `${mac} is no station's MAC address; give 02:00:00:00:00:0b`);
    }
    this.#port = port;
    this.scheduler = scheduler;
    this.space = space;
    this.mac = address;
    this.mtu = mtu;
    this.offloads = takes;
    if (ip4 !== undefined) this.#addresses.push(IpAddress.parse(ip4));
    if (ip6 !== undefined) this.#addresses.push(IpAddress.parse(ip6));
    this.#addresses.push(IpAddress.linkLocal(address));
    for (const own of this.#addresses) if (own.version === 6) this.#groups.push(own.solicitedNode());
    this.ticker = new Ticker(scheduler);
    this.pattern = new PatternMemory(space);
    this.queue = new TransmitQueue(port, space, scheduler, this.counters, sends, () => {
      this.tcp.pull();
      this.udp.pull();
    });
    this.#neighbours = new Neighbours(this);
    this.icmp = new Icmp(this, this.#neighbours);
    this.udp = new Udp(this);
    this.tcp = new Tcp(this, options.tcp ?? {}, seed);
    port.attach(this);
  }

  /** {@inheritDoc PortPeer.receive} */
  receive(batch: Batch, from: number, to: number): number {
    const { received, fates } = this.counters;
    const n = to - from;
    if (n === 0) return 0;
    countBurst(received, n);
    received.frames += n;
    received.bytes += batch.byteCount(from, to);
    const { words } = batch.space.engine;
    let at = (batch.table.entry(from) + ENTRY_OFF_FLAGS) >>> 2;
    for (let i = 0; i < n; i++, at += ENTRY_SIZE >>> 2) {
      const flags = words[at]!;
      if ((flags & FRAME_NEEDS_CSUM) !== 0) received.partialChecksums++;
      if ((flags & FRAME_GSO) === 0) continue;
      received.superframes++;
      if ((flags & FRAME_ECN) !== 0) received.ecnSuperframes++;
    }
    for (let i = from; i < to; i++) fates[this.#receive(batch, i)]++;
    this.queue.kick();
    return n;
  }

  #receive(batch: Batch, i: number): FrameFate {
    const packet = this.#packet;
    if (this.#closed) return "foreign";
    if (!packet.load(batch, i)) return "malformed";
    if (packet.destinationMac !== this.mac && !isGroupMac(packet.destinationMac)) return "foreign";
    if (packet.etherType === ETHERTYPE_ARP) return this.#neighbours.receiveArp(packet);
    if (packet.etherType !== ETHERTYPE_IPV4 && packet.etherType !== ETHERTYPE_IPV6) return "unknown";
    const verdict = packet.parseIp();
    if (verdict === "checksum") this.counters.checksumErrors.ip++;
    if (verdict === "malformed" || verdict === "checksum") return verdict;
    const own = this.ownAddress(packet.version, packet.destination) !== null;
    if (!own && !this.#isGroup(packet)) return "foreign";
    if (verdict === "fragment") return "fragment";
    switch (packet.protocol) {
      case PROTOCOL_TCP:
        return own ? this.tcp.receive(packet) : "foreign";
      case PROTOCOL_UDP:
        return this.udp.receive(packet);
      case PROTOCOL_ICMP:
      case PROTOCOL_ICMP6:
        if ((packet.protocol === PROTOCOL_ICMP) !== (packet.version === 4)) return "malformed";
        return this.icmp.receive(packet);
      default:
        return "unknown";
    }
  }

  #isGroup(packet: Packet): boolean {
    if (packet.version === 6) return this.#groups.some((group) => group.is(6, packet.destination));
    const [first = 0] = packet.destination;
    return first === 0xffffffff || first >>> 28 === GROUP_IPV4;
  }

  /** {@inheritDoc PortPeer.writable} */
  writable(): void {
    this.queue.writable();
  }

  localAddress(version: 4 | 6): IpAddress {
    const own = this.#addresses.find((address) => address.version === version);
    if (own === undefined)
      throw new PeerError("EADDRNOTAVAIL", `this peer has no IPv${version} address; give it one`);
    return own;
  }

  ownAddress(version: number, words: Uint32Array): IpAddress | null {
    for (const own of this.#addresses) if (own.is(version, words)) return own;
    return null;
  }

  async route(destination: IpAddress, tag: number): Promise<Route> {
    const source = this.localAddress(destination.version);
    const destinationMac = await this.#neighbours.resolve(destination, tag);
    return { sourceMac: this.mac, destinationMac, tag, source, destination };
  }

  reply(packet: Packet): Route {
    const { version, tag } = packet;
    return {
      sourceMac: this.mac,
      destinationMac: packet.sourceMac,
      tag,
      source: this.ownAddress(version, packet.destination) ?? this.localAddress(version),
      destination: IpAddress.of(version, packet.source),
    };
  }

  /** Ends all connections and services, and unplugs itself. Closing twice is harmless. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.tcp.close();
    this.udp.close();
    this.icmp.close();
    this.#neighbours.close();
    this.ticker.close();
    this.#port.detach();
    this.queue.close();
    this.pattern.close();
  }
}
