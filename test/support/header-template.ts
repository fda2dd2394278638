import { fold, wordSum, type IpAddress } from "./ip-address.js";
import { ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_VLAN } from "./packet.js";

/** Room for headers, options included. */
export const HEADERS_ROOM = 128;
const DEFAULT_HOPS = 64;
const DONT_FRAGMENT = 0x4000;

/** Writes a MAC address. */
export function putMac(data: DataView, at: number, mac: number): void {
  data.setUint16(at, Math.floor(mac / 2 ** 32));
  data.setUint32(at + 2, mac % 2 ** 32);
}

/** Who talks to whom. */
export interface Route {
  sourceMac: number;
  destinationMac: number;
  /** Tag control information of an 802.1Q tag; -1: none. */
  tag: number;
  source: IpAddress;
  destination: IpAddress;
}

/** Writes an Ethernet header. Returns its length. */
export function putEthernet(
  data: DataView,
  destination: number,
  source: number,
  tag: number,
  etherType: number,
): number {
  putMac(data, 0, destination);
  putMac(data, 6, source);
  if (tag === -1) {
    data.setUint16(12, etherType);
    return 14;
  }
  data.setUint16(12, ETHERTYPE_VLAN);
  data.setUint16(14, tag);
  data.setUint16(16, etherType);
  return 18;
}

/** Ethernet and IP headers of one flow, of which only a few members change from packet to packet. */
export class HeaderTemplate {
  /** The headers; the transport header is the caller's. */
  readonly bytes = new Uint8Array(HEADERS_ROOM);
  readonly data = new DataView(this.bytes.buffer);
  /** Offset of the IP header. */
  readonly network: number;
  /** Offset of the transport header. */
  readonly transport: number;
  readonly #version: 4 | 6;
  readonly #pseudo: number;
  readonly #fixed: number;

  constructor(route: Route, protocol: number, hops = DEFAULT_HOPS) {
    const { data } = this;
    const { source, destination } = route;
    const four = source.version === 4;
    const type = four ? ETHERTYPE_IPV4 : ETHERTYPE_IPV6;
    this.network = putEthernet(data, route.destinationMac, route.sourceMac, route.tag, type);
    this.#version = source.version;
    this.#pseudo = wordSum(source.words) + wordSum(destination.words) + protocol;
    const ip = this.network;
    if (four) {
      data.setUint8(ip, 0x45);
      data.setUint16(ip + 6, DONT_FRAGMENT);
      data.setUint8(ip + 8, hops);
      data.setUint8(ip + 9, protocol);
      source.write(data, ip + 12);
      destination.write(data, ip + 16);
      this.transport = ip + 20;
    } else {
      data.setUint8(ip + 6, protocol);
      data.setUint8(ip + 7, hops);
      source.write(data, ip + 8);
      destination.write(data, ip + 24);
      this.transport = ip + 40;
    }
    this.#fixed = DONT_FRAGMENT + hops * 256 + protocol + wordSum(source.words) + wordSum(destination.words);
  }

  /**
   * Completes the IP header for `length` bytes of transport header and payload. `id` is IPv4's identification.
   * Returns the folded sum of the pseudo-header: what a partial checksum is.
   */
  finish(length: number, id: number, tos = 0): number {
    const { data, network } = this;
    if (this.#version === 4) {
      data.setUint8(network + 1, tos);
      data.setUint16(network + 2, 20 + length);
      data.setUint16(network + 4, id);
      data.setUint16(network + 10, ~fold(0x4500 + tos + 20 + length + (id & 0xffff) + this.#fixed));
    } else {
      data.setUint16(network, 0x6000 | (tos << 4));
      data.setUint16(network + 4, length);
    }
    return fold(this.#pseudo + length);
  }
}
