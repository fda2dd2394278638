/** TCP and UDP frames as a network stack makes them: in order, with the right checksums, or with what a NIC is to do. */
import type { SuperframeKind, TransmitFrame } from "vbus/drivers/venet";
import { fillPattern } from "../goals/checksum.js";
import { bytePairSum } from "../rivals/byte-pairs.js";

const ETHERNET = 14;
const IP4 = 20;
const IP6 = 40;
const FIRST_SEQUENCE = 0x10000;
const ACK = 0x10;
const ETHERTYPE_IP4 = 0x0800;
const ETHERTYPE_IP6 = 0x86dd;
/** Where the length of an IP packet is written: all of it, or what follows the header. */
const LENGTH = { ip4: ETHERNET + 2, ip6: ETHERNET + 4 };

/** Where things are in the frames of a kind of flow. */
export interface FlowLayout {
  etherType: number;
  protocol: number;
  /** Where the transport header begins. */
  transport: number;
  /** Where in that header the checksum is. */
  checksum: number;
  /** Bytes of all headers. */
  headers: number;
  /** Source and destination addresses: first byte, and bytes of both. */
  addresses: { at: number; length: number };
}

const tcp = { protocol: 6, checksum: 16 };
const ip4 = {
  etherType: ETHERTYPE_IP4,
  transport: ETHERNET + IP4,
  addresses: { at: ETHERNET + 12, length: 8 },
};

/** All kinds of flows. */
export const FLOWS: Readonly<Record<SuperframeKind, FlowLayout>> = {
  tcp4: { ...ip4, ...tcp, headers: ETHERNET + IP4 + 20 },
  tcp6: {
    ...tcp,
    etherType: ETHERTYPE_IP6,
    transport: ETHERNET + IP6,
    headers: ETHERNET + IP6 + 20,
    addresses: { at: ETHERNET + 8, length: 32 },
  },
  udp: { ...ip4, protocol: 17, checksum: 6, headers: ETHERNET + IP4 + 8 },
};

/** Bytes of all headers of a TCP/IPv4 frame. */
export const HEADERS = FLOWS.tcp4.headers;

/** Frames to make. Plain data. */
export interface SegmentPlan {
  /** Default TCP over IPv4. */
  kind?: SuperframeKind;
  /** Bytes of each frame, headers included. */
  length: number;
  /** Frames of the flow, in order of their sequence numbers. */
  count: number;
  /**
   * Who completes the transport checksum: somebody beforehand, so that nobody has to; the sending guest, each time it sends a
   * frame; or whoever needs it.
   */
  checksum: "complete" | "summed" | "partial";
  /** Payload bytes of the segments that each frame stands for; null: no superframes. */
  segment: number | null;
}

/** One flow from station `from` to station `to` (last bytes of their addresses). Frames to be summed have partial checksums. */
export function buildSegments(plan: SegmentPlan, from: number, to: number): TransmitFrame[] {
  const { kind = "tcp4", length, count, checksum, segment } = plan;
  const layout = FLOWS[kind];
  const { transport, headers } = layout;
  const payload = length - headers;
  return Array.from({ length: count }, (_, i) => {
    const data = new Uint8Array(length);
    fillPattern(data.subarray(headers));
    data.set([2, 0, 0, 0, 0, to, 2, 0, 0, 0, 0, from]);
    const view = new DataView(data.buffer);
    view.setUint16(12, layout.etherType);
    if (layout.etherType === ETHERTYPE_IP4) writeIp4(data, view, layout.protocol, i, from, to);
    else writeIp6(data, view, layout.protocol, from, to);
    view.setUint16(transport, 5001);
    view.setUint16(transport + 2, 5201);
    if (kind === "udp") view.setUint16(transport + 4, length - transport);
    else {
      view.setUint32(transport + 4, FIRST_SEQUENCE + i * payload);
      view.setUint32(transport + 8, 1);
      data.set([5 << 4, ACK, 0xff, 0xff], transport + 12);
    }
    view.setUint16(transport + layout.checksum, pseudoHeaderSum(data, kind));
    if (checksum === "complete") {
      // the field holds the pseudo-header's sum, so that this one contains it
      view.setUint16(transport + layout.checksum, ~bytePairSum(data.subarray(transport)) & 0xffff);
      return { data };
    }
    const partial: TransmitFrame = { data, checksum: { start: transport, offset: layout.checksum } };
    if (segment !== null) partial.gso = { kind, size: segment, headerLength: headers };
    return partial;
  });
}

function writeIp4(
  data: Uint8Array,
  view: DataView,
  protocol: number,
  id: number,
  from: number,
  to: number,
): void {
  data.set([0x45, 0], ETHERNET);
  view.setUint16(LENGTH.ip4, data.length - ETHERNET);
  view.setUint16(ETHERNET + 4, id);
  data.set([0x40, 0, 64, protocol], ETHERNET + 6);
  data.set([10, 0, 0, from, 10, 0, 0, to], ETHERNET + 12);
  view.setUint16(ETHERNET + 10, ~bytePairSum(data.subarray(ETHERNET, ETHERNET + IP4)) & 0xffff);
}

function writeIp6(data: Uint8Array, view: DataView, protocol: number, from: number, to: number): void {
  data.set([0x60, 0, 0, 0], ETHERNET);
  view.setUint16(LENGTH.ip6, data.length - ETHERNET - IP6);
  data.set([protocol, 64], ETHERNET + 6);
  for (const [at, host] of [
    [ETHERNET + 8, from],
    [ETHERNET + 24, to],
  ] as const) {
    data.set([0xfd, 0], at);
    data[at + 15] = host;
  }
}

/** Folded sum of the pseudo-header, for the transport checksum. */
export function pseudoHeaderSum(frame: Uint8Array, kind: SuperframeKind = "tcp4"): number {
  const { addresses, protocol, transport } = FLOWS[kind];
  const pseudo = new Uint8Array(addresses.length + 4);
  pseudo.set(frame.subarray(addresses.at, addresses.at + addresses.length));
  pseudo[addresses.length + 1] = protocol;
  new DataView(pseudo.buffer).setUint16(addresses.length + 2, frame.length - transport);
  return bytePairSum(pseudo);
}
