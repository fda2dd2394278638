/** Builds packets as plain arrays of bytes, with checksums that are right unless asked otherwise. */
import { FRAME_ECN, FRAME_GSO, FRAME_NEEDS_CSUM, GSO_TCP4, GSO_TCP6, GSO_UDP_L4 } from "vbus/engine";
import { big, plainSum } from "./plain-segmenter.js";
import type { TestFrame } from "./rig.js";

export const FIN = 1;
export const SYN = 2;
export const RST = 4;
export const PSH = 8;
export const ACK = 16;
export const URG = 32;
export const ECE = 64;
export const CWR = 128;

/** What a packet is made of; everything has a usual value. */
export interface PacketOptions {
  version?: 4 | 6;
  protocol?: "tcp" | "udp";
  /** Tags, outermost first: EtherType and tag. */
  tags?: [number, number][];
  destinationMac?: number[];
  sourceMac?: number[];
  source?: number[];
  destination?: number[];
  sourcePort?: number;
  destinationPort?: number;
  tos?: number;
  ttl?: number;
  id?: number;
  /** Flags and offset of IPv4's fragment word; DF by default. */
  fragment?: number;
  flowLabel?: number;
  /** IPv4 options, a multiple of 4 bytes. */
  ipOptions?: number[];
  /** IPv6 extension headers: type, and what follows next header and length (8n - 2 bytes). */
  extensions?: [number, number[]][];
  /** Destination that the checksum covers, when a routing header names another one. */
  finalDestination?: number[];
  sequence?: number;
  ack?: number;
  flags?: number;
  window?: number;
  urgent?: number;
  reserved?: number;
  /** TCP options, a multiple of 4 bytes. */
  tcpOptions?: number[];
  payload?: ArrayLike<number>;
  /** Added to the checksum that is right. */
  spoilChecksum?: number;
  /** Added to the IPv4 header checksum that is right. */
  spoilIpChecksum?: number;
  /** Added to the length in the IP header. */
  spoilLength?: number;
  /** Bytes behind the packet. */
  trailer?: number[];
}

const TIMESTAMPS = [1, 1, 8, 10, 0, 0, 0, 7, 0, 0, 0, 9];

/** n bytes that depend on `seed`. */
export function data(n: number, seed = 1): number[] {
  let x = seed >>> 0;
  return Array.from({ length: n }, () => {
    x = (Math.imul(x, 1664525) + 1013904223) >>> 0;
    return x >>> 24;
  });
}

interface Parts {
  ethernet: number[];
  ip: number[];
  transport: number[];
  payload: number[];
  /** Distance of the checksum from the transport header. */
  field: number;
  /** Sum of the pseudo-header with the length. */
  pseudo: number;
}

function build(options: PacketOptions): Parts {
  const {
    version = 4,
    protocol = "tcp",
    tags = [],
    destinationMac = [2, 0, 0, 0, 0, 2],
    sourceMac = [2, 0, 0, 0, 0, 1],
    source = version === 4 ? [10, 0, 0, 1] : [0xfd, ...big(0, 14), 1],
    destination = version === 4 ? [10, 0, 0, 2] : [0xfd, ...big(0, 14), 2],
    tos = 0,
    ttl = 64,
    ipOptions = [],
    extensions = [],
    tcpOptions = TIMESTAMPS,
    spoilLength = 0,
  } = options;
  const payload = Array.from(options.payload ?? []);
  const next = protocol === "tcp" ? 6 : 17;
  const ports = [...big(options.sourcePort ?? 40000, 2), ...big(options.destinationPort ?? 80, 2)];
  const transport =
    protocol === "tcp"
      ? [
          ...ports,
          ...big(options.sequence ?? 1000, 4),
          ...big(options.ack ?? 2000, 4),
          (5 + tcpOptions.length / 4) * 16 + (options.reserved ?? 0),
          options.flags ?? ACK,
          ...big(options.window ?? 500, 2),
          ...[0, 0],
          ...big(options.urgent ?? 0, 2),
          ...tcpOptions,
        ]
      : [...ports, ...big((8 + payload.length) % 65536, 2), 0, 0];
  const length = transport.length + payload.length;
  const type = version === 4 ? 0x0800 : 0x86dd;
  const types = [...tags.map(([ethertype]) => ethertype), type];
  const ethernet = [...destinationMac, ...sourceMac, ...big(types[0] as number, 2)];
  for (const [i, [, tag]] of tags.entries()) ethernet.push(...big(tag, 2), ...big(types[i + 1] as number, 2));
  let ip: number[];
  if (version === 4) {
    const words = 5 + ipOptions.length / 4;
    ip = [
      ...[0x40 + words, tos],
      ...big((words * 4 + length + spoilLength) % 65536, 2),
      ...big(options.id ?? 100, 2),
      ...big(options.fragment ?? 0x4000, 2),
      ...[ttl, next, 0, 0],
      ...source,
      ...destination,
      ...ipOptions,
    ];
    const checksum = (0xffff - plainSum(ip) + (options.spoilIpChecksum ?? 0)) & 0xffff;
    ip.splice(10, 2, ...big(checksum, 2));
  } else {
    const chain = [...extensions.map(([kind]) => kind), next];
    const headers = extensions.flatMap(([, body], i) => [
      chain[i + 1] as number,
      (body.length + 2) / 8 - 1,
      ...body,
    ]);
    const first = 6 * 2 ** 28 + tos * 2 ** 20 + (options.flowLabel ?? 5);
    const long = headers.length + length + spoilLength;
    ip = [
      ...big(first, 4),
      ...big(long % 65536, 2),
      chain[0] as number,
      ttl,
      ...source,
      ...destination,
      ...headers,
    ];
  }
  const target = options.finalDestination ?? destination;
  const pseudo = plainSum(source, target, [0, next], big(length, 4));
  return { ethernet, ip, transport, payload, field: protocol === "tcp" ? 16 : 6, pseudo };
}

/** A frame as it appears on a wire. */
export function packet(options: PacketOptions): Uint8Array {
  const { ethernet, ip, transport, payload, field, pseudo } = build(options);
  let checksum = 0xffff - plainSum(big(pseudo, 2), [...transport, ...payload]);
  if (checksum === 0 && field === 6) checksum = 0xffff;
  transport.splice(field, 2, ...big((checksum + (options.spoilChecksum ?? 0)) & 0xffff, 2));
  return new Uint8Array([...ethernet, ...ip, ...transport, ...payload, ...(options.trailer ?? [])]);
}

/** A superframe with a partial checksum, to be cut into `size` bytes each. */
export function superframe(options: PacketOptions, size: number): TestFrame {
  const { ethernet, ip, transport, payload, field, pseudo } = build(options);
  transport.splice(field, 2, ...big(pseudo, 2));
  const tcpKind = (options.version ?? 4) === 4 ? GSO_TCP4 : GSO_TCP6;
  const ecn = ((options.flags ?? 0) & CWR) === 0 ? 0 : FRAME_ECN;
  return {
    bytes: new Uint8Array([...ethernet, ...ip, ...transport, ...payload]),
    flags: FRAME_NEEDS_CSUM | FRAME_GSO | ecn,
    kind: options.protocol === "udp" ? GSO_UDP_L4 : tcpKind,
    size,
    start: ethernet.length + ip.length,
    offset: field,
  };
}

/** n consecutive segments of one send, `size` bytes each; `change` says what is unusual about segment i. */
export function send(
  n: number,
  size: number,
  options: PacketOptions = {},
  change: (i: number) => PacketOptions = () => ({}),
): Uint8Array[] {
  const { sequence = 1000, id = 100 } = options;
  return Array.from({ length: n }, (_, i) =>
    packet({
      ...options,
      sequence: (sequence + i * size) % 2 ** 32,
      id: (id + i) % 65536,
      payload: data(size, i + 1),
      ...change(i),
    }),
  );
}
