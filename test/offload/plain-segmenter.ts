/**
 * Segmentation as plain as it gets, sharing no code with the engine: arrays of bytes, one word summed after the other,
 * each segment built from nothing. Written from RFC 791, 8200, 9293, 768 and 3168, and from what Linux does.
 */
import { FRAME_NEEDS_CSUM, GSO_TCP4, GSO_TCP6, GSO_UDP_L4 } from "vbus/engine";
import type { TestFrame } from "./rig.js";

/** Why a superframe is malformed. */
export type Refusal = "headers" | "size" | "checksum";

/** One's complement sum of big-endian words, not inverted. */
export function plainSum(...parts: readonly (readonly number[])[]): number {
  let sum = 0;
  for (const part of parts) {
    for (let i = 0; i < part.length; i += 2) {
      sum += (part[i] as number) * 256 + (part[i + 1] ?? 0);
      if (sum > 0xffff) sum -= 0xffff;
    }
  }
  return sum;
}

/** Big-endian bytes of a number. */
export function big(value: number, count: number): number[] {
  return Array.from({ length: count }, (_, i) => Math.floor(value / 2 ** (8 * (count - 1 - i))) % 256);
}

function number(bytes: readonly number[], at: number, count: number): number {
  let value = 0;
  for (let i = 0; i < count; i++) value = value * 256 + (bytes[at + i] as number);
  return value;
}

interface Layout {
  version: 4 | 6;
  network: number;
  transport: number;
  payload: number;
}

/** Where the headers are, or null when they are not what the kind says. */
function layout(frame: readonly number[], kind: number): Layout | null {
  const protocol = kind === GSO_UDP_L4 ? 17 : 6;
  let network = 14;
  const typeAt = (at: number): number => (frame.length >= at ? number(frame, at - 2, 2) : -1);
  for (let tags = 0; tags < 2 && (typeAt(network) === 0x8100 || typeAt(network) === 0x88a8); tags++)
    network += 4;
  const type = typeAt(network);
  let version: 4 | 6;
  let transport: number;
  if (type === 0x0800 && kind !== GSO_TCP6) {
    version = 4;
    if (frame.length < network + 20) return null;
    const first = frame[network] as number;
    if (Math.floor(first / 16) !== 4 || first % 16 < 5) return null;
    if (number(frame, network + 6, 2) % 0x4000 !== 0) return null;
    if (frame[network + 9] !== protocol) return null;
    transport = network + (first % 16) * 4;
  } else if (type === 0x86dd && kind !== GSO_TCP4) {
    version = 6;
    if (frame.length < network + 40 || Math.floor((frame[network] as number) / 16) !== 6) return null;
    let next = frame[network + 6] as number;
    transport = network + 40;
    for (let headers = 0; next !== protocol; headers++) {
      if (![0, 43, 60].includes(next) || headers === 8 || frame.length < transport + 8) return null;
      next = frame[transport] as number;
      transport += ((frame[transport + 1] as number) + 1) * 8;
    }
  } else {
    return null;
  }
  if (frame.length < transport + (protocol === 17 ? 8 : 20)) return null;
  const length = protocol === 17 ? 8 : Math.floor((frame[transport + 12] as number) / 16) * 4;
  if (protocol === 6 && length < 20) return null;
  const payload = transport + length;
  return payload > frame.length || payload > 512 ? null : { version, network, transport, payload };
}

/** Cuts a superframe as the kernel does, or says why not. */
export function plainSegments(superframe: TestFrame): Uint8Array[] | Refusal {
  const frame = [...superframe.bytes];
  const { kind, size } = superframe;
  if (![GSO_TCP4, GSO_TCP6, GSO_UDP_L4].includes(kind)) return "headers";
  const found = layout(frame, kind);
  if (found === null) return "headers";
  const { version, network, transport, payload } = found;
  const data = frame.slice(payload);
  if (size === 0 || data.length === 0 || Math.ceil(data.length / size) > 2048) return "size";
  const longest = payload - network - (version === 6 ? 40 : 0) + Math.min(size, data.length);
  if (longest > 65535) return "size";
  const udp = kind === GSO_UDP_L4;
  const field = transport + (udp ? 6 : 16);
  const partial = (superframe.flags & FRAME_NEEDS_CSUM) !== 0;
  if (partial && (superframe.start !== transport || superframe.start + superframe.offset !== field)) {
    return "checksum";
  }
  // the addresses of the pseudo-header as the sender summed them, or those of the network header
  const addresses =
    version === 4 ? frame.slice(network + 12, network + 20) : frame.slice(network + 8, network + 40);
  const whole = big(frame.length - transport, 4);
  const minus = (words: readonly number[]): number[] => big(0xffff - plainSum(words), 2);
  const pseudo = partial
    ? [...frame.slice(field, field + 2), ...minus(whole)]
    : [...addresses, 0, udp ? 17 : 6];

  const segments: Uint8Array[] = [];
  for (let at = 0; at < data.length; at += size) {
    const part = data.slice(at, at + size);
    const first = at === 0;
    const last = at + size >= data.length;
    const head = frame.slice(0, payload);
    const set = (offset: number, value: number, count: number): void => {
      head.splice(offset, count, ...big(value, count));
    };
    if (version === 4) {
      set(network + 2, payload - network + part.length, 2);
      set(network + 4, (number(frame, network + 4, 2) + segments.length) % 65536, 2);
      set(network + 10, 0, 2);
      set(network + 10, 0xffff - plainSum(head.slice(network, transport)), 2);
    } else {
      set(network + 4, payload - network - 40 + part.length, 2);
    }
    if (udp) {
      set(transport + 4, 8 + part.length, 2);
    } else {
      set(transport + 4, (number(frame, transport + 4, 4) + at) % 2 ** 32, 4);
      let flags = frame[transport + 13] as number;
      if (!last) flags &= 0xff - 0x01 - 0x08;
      if (!first) flags &= 0xff - 0x80;
      set(transport + 13, flags, 1);
    }
    set(field, 0, 2);
    const own = big(payload - transport + part.length, 4);
    let checksum = 0xffff - plainSum(pseudo, own, [...head.slice(transport), ...part]);
    if (udp && checksum === 0) checksum = 0xffff;
    set(field, checksum, 2);
    segments.push(new Uint8Array([...head, ...part]));
  }
  return segments;
}
