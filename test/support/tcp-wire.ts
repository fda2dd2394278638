import type { Packet } from "./packet.js";

export const TCP_HEADER = 20;
export const TCP_OFF_SEQUENCE = 4;
export const TCP_OFF_ACK = 8;
export const TCP_OFF_DATA_OFFSET = 12;
export const TCP_OFF_FLAGS = 13;
export const TCP_OFF_WINDOW = 14;
export const TCP_OFF_CHECKSUM = 16;

export const FIN = 1;
export const SYN = 2;
export const RST = 4;
export const PSH = 8;
export const ACK = 16;
export const ECE = 64;
export const CWR = 128;

/** ECN field of the IP header: able, and marked by a router. */
export const ECN_CAPABLE = 2;
export const ECN_MARKED = 3;
export const ECN_MASK = 3;

const OPTION_END = 0;
const OPTION_NOP = 1;
const OPTION_MSS = 2;
const OPTION_WINDOW_SCALE = 3;
const OPTION_SACK_PERMITTED = 4;
const OPTION_SACK = 5;
const WINDOW_SCALE_MAX = 14;
/** Selective acknowledgements that fit into one segment. */
export const SACKS_MAX = 4;

/** A TCP segment, taken apart. One object serves for all segments, one after the other. */
export class Segment {
  sourcePort = 0;
  destinationPort = 0;
  sequence = 0;
  ack = 0;
  flags = 0;
  /** As it is in the header: not scaled. */
  window = 0;
  /** Offset of the payload in the frame. */
  payload = 0;
  /** Bytes of it. */
  length = 0;
  /** Options of a SYN; -1: absent. */
  mss = -1;
  windowScale = -1;
  sackPermitted = false;
  /** Selective acknowledgements: begin and end by turns. */
  readonly sacks: number[] = [];

  /** False: the header contradicts itself. */
  parse(packet: Packet): boolean {
    const { data, transport: at, end, headLength } = packet;
    if (at + TCP_HEADER > Math.min(headLength, end)) return false;
    const headerLength = (data.getUint8(at + TCP_OFF_DATA_OFFSET) >> 4) * 4;
    if (headerLength < TCP_HEADER || at + headerLength > Math.min(headLength, end)) return false;
    this.sourcePort = data.getUint16(at);
    this.destinationPort = data.getUint16(at + 2);
    this.sequence = data.getUint32(at + TCP_OFF_SEQUENCE);
    this.ack = data.getUint32(at + TCP_OFF_ACK);
    this.flags = data.getUint8(at + TCP_OFF_FLAGS);
    this.window = data.getUint16(at + TCP_OFF_WINDOW);
    this.payload = at + headerLength;
    this.length = end - this.payload;
    this.mss = -1;
    this.windowScale = -1;
    this.sackPermitted = false;
    if (this.sacks.length > 0) this.sacks.length = 0;
    return headerLength === TCP_HEADER || this.#options(data, at + TCP_HEADER, this.payload);
  }

  #options(data: DataView, at: number, end: number): boolean {
    while (at < end) {
      const kind = data.getUint8(at);
      if (kind === OPTION_END) return true;
      if (kind === OPTION_NOP) {
        at++;
        continue;
      }
      const length = at + 1 < end ? data.getUint8(at + 1) : 0;
      if (length < 2 || at + length > end) return false;
      if (kind === OPTION_MSS && length === 4) this.mss = data.getUint16(at + 2);
      else if (kind === OPTION_WINDOW_SCALE && length === 3) {
        this.windowScale = Math.min(WINDOW_SCALE_MAX, data.getUint8(at + 2));
      } else if (kind === OPTION_SACK_PERMITTED && length === 2) this.sackPermitted = true;
      else if (kind === OPTION_SACK && length % 8 === 2) {
        for (let i = at + 2; i < at + length; i += 4) this.sacks.push(data.getUint32(i));
      }
      at += length;
    }
    return true;
  }
}

/** Writes the options of a SYN. `windowScale` -1 and `sack` false: without. Returns their length. */
export function putSynOptions(
  data: DataView,
  at: number,
  mss: number,
  windowScale: number,
  sack: boolean,
): number {
  const begin = at;
  data.setUint32(at, (OPTION_MSS << 24) | (4 << 16) | mss);
  at += 4;
  if (windowScale !== -1) {
    data.setUint32(at, (OPTION_NOP << 24) | (OPTION_WINDOW_SCALE << 16) | (3 << 8) | windowScale);
    at += 4;
  }
  if (sack) {
    data.setUint32(at, (OPTION_NOP << 24) | (OPTION_NOP << 16) | (OPTION_SACK_PERMITTED << 8) | 2);
    at += 4;
  }
  return at - begin;
}

/** Writes selective acknowledgements, begin and end by turns. Returns the length of the option. */
export function putSacks(data: DataView, at: number, sacks: readonly number[]): number {
  if (sacks.length === 0) return 0;
  data.setUint32(at, (OPTION_NOP << 24) | (OPTION_NOP << 16) | (OPTION_SACK << 8) | (2 + 4 * sacks.length));
  for (const [i, edge] of sacks.entries()) data.setUint32(at + 4 + 4 * i, edge);
  return 4 + 4 * sacks.length;
}
