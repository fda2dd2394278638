/** TCP/IPv4 frames as a network stack makes them: in order, with the right checksums, or with what a NIC is to do. */
import type { TransmitFrame } from "vbus/drivers/venet";
import { fillPattern } from "../goals/checksum.js";
import { bytePairSum } from "../rivals/byte-pairs.js";

const ETHERNET = 14;
const IP = 20;
const TCP = 20;
const TRANSPORT = ETHERNET + IP;
const CHECKSUM_OFFSET = 16;
const FIRST_SEQUENCE = 0x10000;
const ACK = 0x10;
const PROTOCOL_TCP = 6;

/** Bytes of all headers of a frame. */
export const HEADERS = TRANSPORT + TCP;

/** Frames to make. Plain data. */
export interface SegmentPlan {
  /** Bytes of each frame, headers included. */
  length: number;
  /** Frames of the flow, in order of their sequence numbers. */
  count: number;
  /** Who completes the TCP checksum: the sender, or whoever needs it. */
  checksum: "complete" | "partial";
  /** Payload bytes of the segments that each frame stands for; null: no superframes. */
  segment: number | null;
}

/** One flow from station `from` to station `to` (last bytes of their addresses). */
export function buildSegments(plan: SegmentPlan, from: number, to: number): TransmitFrame[] {
  const { length, count, checksum, segment } = plan;
  const payload = length - HEADERS;
  return Array.from({ length: count }, (_, i) => {
    const data = new Uint8Array(length);
    fillPattern(data.subarray(HEADERS));
    writeHeaders(data, from, to, i, FIRST_SEQUENCE + i * payload);
    const view = new DataView(data.buffer);
    const sum = pseudoHeaderSum(data);
    view.setUint16(TRANSPORT + CHECKSUM_OFFSET, sum);
    if (checksum === "complete") {
      // the field holds the pseudo-header's sum, so that this one contains it
      view.setUint16(TRANSPORT + CHECKSUM_OFFSET, ~bytePairSum(data.subarray(TRANSPORT)) & 0xffff);
      return { data };
    }
    const partial: TransmitFrame = { data, checksum: { start: TRANSPORT, offset: CHECKSUM_OFFSET } };
    if (segment !== null) partial.gso = { kind: "tcp4", size: segment, headerLength: HEADERS };
    return partial;
  });
}

function writeHeaders(data: Uint8Array, from: number, to: number, id: number, sequence: number): void {
  const view = new DataView(data.buffer);
  data.set([2, 0, 0, 0, 0, to, 2, 0, 0, 0, 0, from, 8, 0, 0x45, 0]);
  view.setUint16(ETHERNET + 2, data.length - ETHERNET);
  view.setUint16(ETHERNET + 4, id);
  data.set([0x40, 0, 64, PROTOCOL_TCP], ETHERNET + 6);
  data.set([10, 0, 0, from, 10, 0, 0, to], ETHERNET + 12);
  view.setUint16(ETHERNET + 10, ~bytePairSum(data.subarray(ETHERNET, TRANSPORT)) & 0xffff);
  view.setUint16(TRANSPORT, 5001);
  view.setUint16(TRANSPORT + 2, 5201);
  view.setUint32(TRANSPORT + 4, sequence);
  view.setUint32(TRANSPORT + 8, 1);
  data.set([(TCP / 4) << 4, ACK, 0xff, 0xff], TRANSPORT + 12);
}

/** Folded sum of the pseudo-header, for the TCP checksum. */
export function pseudoHeaderSum(frame: Uint8Array): number {
  const pseudo = new Uint8Array(12);
  pseudo.set(frame.subarray(ETHERNET + 12, TRANSPORT));
  pseudo[9] = PROTOCOL_TCP;
  new DataView(pseudo.buffer).setUint16(10, frame.length - TRANSPORT);
  return bytePairSum(pseudo);
}
