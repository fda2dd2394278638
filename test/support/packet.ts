import {
  ENTRY_OFF_CSUM_START,
  ENTRY_OFF_GSO_KIND,
  FRAME_ECN,
  FRAME_GSO,
  FRAME_NEEDS_CSUM,
  GSO_UDP_L4,
} from "vbus/engine";
import type { Batch } from "vbus/net";
import { FrameReader } from "./frame-reader.js";
import { fold, wordSum } from "./ip-address.js";

export const ETHERTYPE_IPV4 = 0x0800;
export const ETHERTYPE_ARP = 0x0806;
export const ETHERTYPE_VLAN = 0x8100;
export const ETHERTYPE_IPV6 = 0x86dd;
export const PROTOCOL_ICMP = 1;
export const PROTOCOL_TCP = 6;
export const PROTOCOL_UDP = 17;
export const PROTOCOL_ICMP6 = 58;

/** Bytes of a frame that are copied to be parsed: tag, IPv6 with extension headers, TCP with options. */
const HEAD_MAX = 256;
const EXTENSIONS_MAX = 8;
const HOP_BY_HOP = 0;
const ROUTING = 43;
const FRAGMENT = 44;
const DESTINATION_OPTIONS = 60;

/** What parsing an IP packet came to. */
export type IpVerdict = "good" | "malformed" | "fragment" | "checksum";

/**
 * A received frame, taken apart. Its headers are parsed from a private copy; the payload stays where it lies. One object
 * serves for all frames, one after the other.
 */
export class Packet {
  /** The frame's bytes. */
  readonly reader = new FrameReader();
  /** Private copy of the frame's beginning. */
  readonly head = new Uint8Array(HEAD_MAX);
  readonly data = new DataView(this.head.buffer);
  /** Bytes of the frame in {@link Packet.head}. */
  headLength = 0;
  /** MAC addresses as 48-bit numbers. */
  destinationMac = 0;
  sourceMac = 0;
  /** Tag control information of an 802.1Q tag, -1 without one. */
  tag = -1;
  /** EtherType behind the tag. */
  etherType = 0;
  /** Offset of what follows the EtherType. */
  network = 0;
  version: 4 | 6 = 4;
  /** Type of service or traffic class; the lower two bits are ECN's. */
  tos = 0;
  hopLimit = 0;
  protocol = 0;
  readonly source = new Uint32Array(4);
  readonly destination = new Uint32Array(4);
  /** Offset of the transport header. */
  transport = 0;
  /** Offset of the IP packet's end: short frames are padded. */
  end = 0;
  /** The checksum is partial. */
  partial = false;
  /** A superframe. */
  superframe = false;
  /** … that says it carries ECN's CWR. */
  superframeEcn = false;
  /** Payload bytes of each segment of a superframe, 0 otherwise. */
  segmentSize = 0;
  /** Segments of a UDP superframe. */
  datagrams = false;
  /** Where the sender wants the sum: first byte summed, and from there to the field. */
  #place = 0;

  /** Copies the head of frame i and parses its Ethernet header. False: too short for one. */
  load(batch: Batch, i: number): boolean {
    const { reader, head, data } = this;
    reader.load(batch, i);
    this.headLength = Math.min(reader.length, HEAD_MAX);
    if (this.headLength < 14) return false;
    reader.copy(0, this.headLength, head);
    const { words } = batch.space.engine;
    const entry = batch.table.entry(i);
    const flags = batch.table.flags(i);
    this.partial = (flags & FRAME_NEEDS_CSUM) !== 0;
    this.superframe = (flags & FRAME_GSO) !== 0;
    this.superframeEcn = this.superframe && (flags & FRAME_ECN) !== 0;
    this.#place = words[(entry + ENTRY_OFF_CSUM_START) >>> 2]!;
    const gso = words[(entry + ENTRY_OFF_GSO_KIND) >>> 2]!;
    this.segmentSize = this.superframe ? gso >>> 16 : 0;
    this.datagrams = this.superframe && (gso & 0xff) === GSO_UDP_L4;
    this.destinationMac = data.getUint16(0) * 2 ** 32 + data.getUint32(2);
    this.sourceMac = data.getUint16(6) * 2 ** 32 + data.getUint32(8);
    this.etherType = data.getUint16(12);
    this.network = 14;
    this.tag = -1;
    if (this.etherType !== ETHERTYPE_VLAN) return true;
    if (this.headLength < 18) return false;
    this.tag = data.getUint16(14);
    this.etherType = data.getUint16(16);
    this.network = 18;
    return true;
  }

  /** Parses the IP header, and extension headers of IPv6. */
  parseIp(): IpVerdict {
    return this.etherType === ETHERTYPE_IPV4 ? this.#parse4() : this.#parse6();
  }

  #parse4(): IpVerdict {
    const { data, network } = this;
    if (this.headLength < network + 20) return "malformed";
    const first = data.getUint8(network);
    const headerLength = (first & 15) * 4;
    const total = data.getUint16(network + 2);
    if (first >> 4 !== 4 || headerLength < 20 || network + headerLength > this.headLength) return "malformed";
    if (total < headerLength || network + total > this.reader.length) return "malformed";
    let sum = 0;
    for (let at = network; at < network + headerLength; at += 2) sum += data.getUint16(at);
    if (fold(sum) !== 0xffff) return "checksum";
    this.version = 4;
    this.tos = data.getUint8(network + 1);
    this.hopLimit = data.getUint8(network + 8);
    this.protocol = data.getUint8(network + 9);
    this.source.fill(0);
    this.destination.fill(0);
    this.source[0] = data.getUint32(network + 12);
    this.destination[0] = data.getUint32(network + 16);
    this.transport = network + headerLength;
    this.end = network + total;
    return (data.getUint16(network + 6) & 0x3fff) === 0 ? "good" : "fragment";
  }

  #parse6(): IpVerdict {
    const { data, network } = this;
    if (this.headLength < network + 40 || data.getUint8(network) >> 4 !== 6) return "malformed";
    this.version = 6;
    this.tos = (data.getUint16(network) >> 4) & 0xff;
    this.hopLimit = data.getUint8(network + 7);
    this.end = network + 40 + data.getUint16(network + 4);
    if (this.end > this.reader.length) return "malformed";
    for (let i = 0; i < 4; i++) {
      this.source[i] = data.getUint32(network + 8 + 4 * i);
      this.destination[i] = data.getUint32(network + 24 + 4 * i);
    }
    let next = data.getUint8(network + 6);
    let at = network + 40;
    for (let n = 0; n < EXTENSIONS_MAX; n++) {
      if (next === FRAGMENT) return "fragment";
      if (next !== HOP_BY_HOP && next !== ROUTING && next !== DESTINATION_OPTIONS) break;
      if (at + 8 > Math.min(this.headLength, this.end)) return "malformed";
      next = data.getUint8(at);
      at += (data.getUint8(at + 1) + 1) * 8;
    }
    if (at > Math.min(this.headLength, this.end)) return "malformed";
    this.protocol = next;
    this.transport = at;
    return "good";
  }

  /** Bytes behind the transport header's beginning. */
  get transportLength(): number {
    return this.end - this.transport;
  }

  /** Sum of the pseudo-header, not folded. */
  get pseudoSum(): number {
    return wordSum(this.source) + wordSum(this.destination) + this.protocol + this.transportLength;
  }

  /**
   * Judges the checksum of a TCP segment, UDP datagram or ICMPv6 message whose field lies `field` bytes into its header.
   * A partial one must name that field, and hold the sum of the pseudo-header.
   */
  checksumGood(field: number): boolean {
    if (!this.partial) {
      return fold(this.pseudoSum + this.reader.sum(this.transport, this.transportLength)) === 0xffff;
    }
    if ((this.#place & 0xffff) !== this.transport || this.#place >>> 16 !== field) return false;
    return this.data.getUint16(this.transport + field) % 0xffff === fold(this.pseudoSum) % 0xffff;
  }
}
