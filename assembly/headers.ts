/**
 * Packet headers, as segmentation and coalescing read and write them. All of it works on private copies of headers whose
 * length is known; every offset is checked against that length before it is used.
 *
 * ```
 *   Ethernet | 802.1Q × 0…2 | IPv4 + options      | TCP + options | payload
 *                           | IPv6 + extensions   | UDP           |
 *   0                        network               transport       header length
 * ```
 */
import { ETH_HEADER_SIZE, ETHERTYPE_QINQ, ETHERTYPE_VLAN, VLAN_TAG_SIZE } from "./abi/venet";
import { checksumAdd } from "./checksum";

export const ETHERTYPE_IPV4: u32 = 0x0800;
export const ETHERTYPE_IPV6: u32 = 0x86dd;
export const PROTOCOL_TCP: u32 = 6;
export const PROTOCOL_UDP: u32 = 17;

export const IP4_HEADER: u32 = 20;
export const IP4_OFF_LENGTH: usize = 2;
export const IP4_OFF_ID: usize = 4;
export const IP4_OFF_FRAGMENT: usize = 6;
export const IP4_OFF_PROTOCOL: usize = 9;
export const IP4_OFF_CHECKSUM: usize = 10;
export const IP4_OFF_ADDRESSES: u32 = 12;
export const IP6_HEADER: u32 = 40;
export const IP6_OFF_LENGTH: usize = 4;
export const IP6_OFF_NEXT: usize = 6;
export const IP6_OFF_ADDRESSES: u32 = 8;

export const TCP_HEADER: u32 = 20;
export const TCP_OFF_SEQUENCE: usize = 4;
export const TCP_OFF_DATA_OFFSET: usize = 12;
export const TCP_OFF_FLAGS: usize = 13;
export const TCP_OFF_CHECKSUM: u32 = 16;
export const TCP_FIN: u32 = 1;
export const TCP_SYN: u32 = 2;
export const TCP_RST: u32 = 4;
export const TCP_PSH: u32 = 8;
export const TCP_URG: u32 = 0x20;
export const TCP_CWR: u32 = 0x80;
export const UDP_HEADER: u32 = 8;
export const UDP_OFF_LENGTH: usize = 4;
export const UDP_OFF_CHECKSUM: u32 = 6;

/** Extension headers walked before a frame is called malformed. */
const EXTENSIONS_MAX: u32 = 8;
const HOP_BY_HOP: u32 = 0;
const ROUTING: u32 = 43;
const DESTINATION_OPTIONS: u32 = 60;

/** Reads a 16-bit number in network order. */
export function loadBig16(address: usize): u32 {
  return <u32>bswap<u16>(load<u16>(address));
}

/** Writes a 16-bit number in network order. */
export function storeBig16(address: usize, value: u32): void {
  store<u16>(address, bswap<u16>(<u16>value));
}

/** A 16-bit number in network order as a little-endian sum sees it. */
export function networkWord(value: u32): u32 {
  return <u32>bswap<u16>(<u16>value);
}

/** A 32-bit number in network order as a little-endian sum sees it. */
export function networkSum(value: u32): u32 {
  return checksumAdd(networkWord(value & 0xffff), networkWord(value >> 16));
}

/** Finds the network header behind up to two tags. Its offset, or 0. */
export function networkOffset(headers: usize, available: u32): u32 {
  let offset: u32 = ETH_HEADER_SIZE;
  if (available < offset) return 0;
  for (let tags = 0; tags < 2; tags++) {
    const type = loadBig16(headers + <usize>offset - 2);
    if (type != ETHERTYPE_VLAN && type != ETHERTYPE_QINQ) break;
    offset += VLAN_TAG_SIZE;
    if (available < offset) return 0;
  }
  return offset;
}

/** Finds the transport header of an IPv4 packet that is no fragment. Its offset, or 0. */
export function transport4(headers: usize, network: u32, available: u32, protocol: u32): u32 {
  if (available < network + IP4_HEADER) return 0;
  const ip = headers + <usize>network;
  const first = <u32>load<u8>(ip);
  const length = (first & 15) << 2;
  if (first >> 4 != 4 || length < IP4_HEADER) return 0;
  if ((loadBig16(ip + IP4_OFF_FRAGMENT) & 0x3fff) != 0) return 0; // more fragments, or an offset
  if (<u32>load<u8>(ip, IP4_OFF_PROTOCOL) != protocol) return 0;
  return network + length;
}

/**
 * Finds the transport header of an IPv6 packet behind its extension headers. Its offset, or 0: also behind a fragment
 * header, and behind an authentication header, which covers the whole packet and would be wrong on every part of it.
 */
export function transport6(headers: usize, network: u32, available: u32, protocol: u32): u32 {
  if (available < network + IP6_HEADER) return 0;
  const ip = headers + <usize>network;
  if ((<u32>load<u8>(ip)) >> 4 != 6) return 0;
  let next = <u32>load<u8>(ip, IP6_OFF_NEXT);
  let offset = network + IP6_HEADER;
  for (let n: u32 = 0; n <= EXTENSIONS_MAX; n++) {
    if (next == protocol) return offset;
    if (next != HOP_BY_HOP && next != ROUTING && next != DESTINATION_OPTIONS) return 0;
    if (available < offset + 8) return 0;
    const at = headers + <usize>offset;
    next = <u32>load<u8>(at);
    offset += (<u32>load<u8>(at, 1) + 1) << 3; // counted in 8 bytes beyond the first
  }
  return 0;
}
