/**
 * Software segmentation: cuts a superframe into frames with complete checksums, as the Linux kernel does.
 *
 * Nothing is copied but headers: an output entry is the segment's own header (built in a private area from a private
 * copy of the superframe's) followed by slices of the superframe's payload, which stays where the guest put it. Moving
 * the segments then copies the payload once, wherever it goes.
 *
 * The headers are hostile. They are gathered once into the private copy, parsed there, and every length is recomputed
 * from the frame's own length; what the guest says about them (hdrlen, IP lengths) is never used.
 *
 * ```
 *   Ethernet | 802.1Q × 0…2 | IPv4 + options      | TCP + options | payload
 *                           | IPv6 + extensions   | UDP           |
 *   0                        network               transport       header length
 * ```
 */
import {
  ENTRY_OFF_ADDRESS,
  ENTRY_OFF_CSUM_OFFSET,
  ENTRY_OFF_CSUM_START,
  ENTRY_OFF_FLAGS,
  ENTRY_OFF_FRAGMENT_LIST,
  ENTRY_OFF_FRAGMENTS,
  ENTRY_OFF_GPA,
  ENTRY_OFF_GSO_KIND,
  ENTRY_OFF_GSO_SIZE,
  ENTRY_OFF_HEAD,
  ENTRY_OFF_LENGTH,
  ENTRY_OFF_POSITION,
  ENTRY_SIZE,
  FRAME_CSUM_VALID,
  FRAME_NEEDS_CSUM,
  GSO_TCP4,
  GSO_TCP6,
  GSO_UDP_L4,
  HEADERS_MAX,
  PIECE_SIZE,
  SEG_BAD_CHECKSUM,
  SEG_BAD_HEADERS,
  SEG_BAD_SIZE,
  SEG_OFF_COUNT,
  SEG_OFF_ENTRY,
  SEG_OFF_HEADER_LENGTH,
  SEG_OFF_HEADERS,
  SEG_OFF_KIND,
  SEG_OFF_NETWORK,
  SEG_OFF_NEXT,
  SEG_OFF_PAYLOAD,
  SEG_OFF_PSEUDO,
  SEG_OFF_SIZE,
  SEG_OFF_TRANSPORT,
  SEG_OFF_VERSION,
  SEGMENTS_MAX,
} from "./abi/arena";
import { ETH_HEADER_SIZE, ETHERTYPE_QINQ, ETHERTYPE_VLAN, VLAN_TAG_SIZE } from "./abi/venet";
import { checksumAdd, checksumPseudo4, checksumPseudo6, checksumRange } from "./checksum";
import { copyBytes } from "./copy";
import { gatherBytes, putPiece, slicePieces, sumBytes } from "./pieces";

const ETHERTYPE_IPV4: u32 = 0x0800;
const ETHERTYPE_IPV6: u32 = 0x86dd;
const PROTOCOL_TCP: u32 = 6;
const PROTOCOL_UDP: u32 = 17;
const TCP_HEADER: u32 = 20;
const UDP_HEADER: u32 = 8;
const TCP_OFF_SEQUENCE: usize = 4;
const TCP_OFF_DATA_OFFSET: usize = 12;
const TCP_OFF_FLAGS: usize = 13;
const TCP_OFF_CHECKSUM: u32 = 16;
const UDP_OFF_LENGTH: usize = 4;
const UDP_OFF_CHECKSUM: u32 = 6;
const TCP_FIN: u32 = 1;
const TCP_PSH: u32 = 8;
const TCP_CWR: u32 = 0x80;
/** Extension headers walked before a frame is called malformed. */
const EXTENSIONS_MAX: u32 = 8;

function loadBig16(address: usize): u32 {
  return <u32>bswap<u16>(load<u16>(address));
}

function storeBig16(address: usize, value: u32): void {
  store<u16>(address, bswap<u16>(<u16>value));
}

/** A 16-bit number as a little-endian sum sees it in network order. */
function word(value: u32): u32 {
  return <u32>bswap<u16>(<u16>value);
}

/** One's complement subtraction: adds the inverse. */
function subtract(a: u32, b: u32): u32 {
  return checksumAdd(a, ~b & 0xffff);
}

/** Finds the network header behind up to two tags. Its offset, or 0. */
function networkOffset(headers: usize, available: u32): u32 {
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
function transport4(headers: usize, network: u32, available: u32, protocol: u32): u32 {
  if (available < network + 20) return 0;
  const ip = headers + <usize>network;
  const first = <u32>load<u8>(ip);
  const length = (first & 15) << 2;
  if (first >> 4 != 4 || length < 20) return 0;
  if ((loadBig16(ip + 6) & 0x3fff) != 0) return 0; // more fragments, or an offset
  if (<u32>load<u8>(ip, 9) != protocol) return 0;
  return network + length;
}

/** Finds the transport header of an IPv6 packet behind its extension headers. Its offset, or 0. */
function transport6(headers: usize, network: u32, available: u32, protocol: u32): u32 {
  if (available < network + 40) return 0;
  const ip = headers + <usize>network;
  if ((<u32>load<u8>(ip)) >> 4 != 6) return 0;
  let next = <u32>load<u8>(ip, 6);
  let offset = network + 40;
  for (let n: u32 = 0; n < EXTENSIONS_MAX; n++) {
    if (next == protocol) return offset;
    // hop-by-hop, routing, destination options count in 8 bytes beyond the first, authentication in 4 beyond two words
    const counted = next == 0 || next == 43 || next == 60;
    if (!counted && next != 51) return 0;
    if (available < offset + 8) return 0;
    const at = headers + <usize>offset;
    next = <u32>load<u8>(at);
    offset += counted ? (<u32>load<u8>(at, 1) + 1) << 3 : (<u32>load<u8>(at, 1) + 2) << 2;
  }
  return 0;
}

/**
 * Parses a superframe and prepares its segmentation in `state` (SEG_STATE_SIZE bytes, private). Returns the number of
 * segments, or the negated reason (`SEG_BAD_…`) why it must be dropped.
 */
export function segmentBegin(entry: usize, state: usize): i32 {
  const length = load<u32>(entry, ENTRY_OFF_LENGTH);
  const kind = <u32>load<u8>(entry, ENTRY_OFF_GSO_KIND);
  const size = <u32>load<u16>(entry, ENTRY_OFF_GSO_SIZE);
  const headers = state + SEG_OFF_HEADERS;
  const available = gatherBytes(entry, 0, headers, length < <u32>HEADERS_MAX ? length : HEADERS_MAX);
  const network = networkOffset(headers, available);
  if (network == 0) return -SEG_BAD_HEADERS;
  const type = loadBig16(headers + <usize>network - 2);
  const tcp = kind != GSO_UDP_L4;
  const protocol = tcp ? PROTOCOL_TCP : PROTOCOL_UDP;
  let transport: u32 = 0;
  let version: u32 = 4;
  if (type == ETHERTYPE_IPV4 && kind != GSO_TCP6) {
    transport = transport4(headers, network, available, protocol);
  } else if (type == ETHERTYPE_IPV6 && kind != GSO_TCP4) {
    version = 6;
    transport = transport6(headers, network, available, protocol);
  }
  if (transport == 0 || kind == 0 || kind > <u32>GSO_UDP_L4) return -SEG_BAD_HEADERS;
  if (available < transport + (tcp ? TCP_HEADER : UDP_HEADER)) return -SEG_BAD_HEADERS;
  const th = headers + <usize>transport;
  const transportLength = tcp ? ((<u32>load<u8>(th + TCP_OFF_DATA_OFFSET)) >> 4) << 2 : UDP_HEADER;
  if (tcp && transportLength < TCP_HEADER) return -SEG_BAD_HEADERS;
  const headerLength = transport + transportLength;
  if (headerLength > available) return -SEG_BAD_HEADERS;
  const payload = length - headerLength;
  if (size == 0 || payload == 0) return -SEG_BAD_SIZE;
  const count = (payload + size - 1) / size;
  if (count > <u32>SEGMENTS_MAX) return -SEG_BAD_SIZE;
  if (version == 4 && transport - network + transportLength + size > 65535) return -SEG_BAD_SIZE;

  const checksum = tcp ? TCP_OFF_CHECKSUM : UDP_OFF_CHECKSUM;
  const whole = transportLength + payload;
  let pseudo: u32;
  if ((load<u32>(entry, ENTRY_OFF_FLAGS) & FRAME_NEEDS_CSUM) != 0) {
    if (<u32>load<u16>(entry, ENTRY_OFF_CSUM_START) != transport) return -SEG_BAD_CHECKSUM;
    if (<u32>load<u16>(entry, ENTRY_OFF_CSUM_OFFSET) != checksum) return -SEG_BAD_CHECKSUM;
    // the field holds the pseudo-header sum for the whole: what the sender put there also covers routing headers
    pseudo = subtract(<u32>load<u16>(th + <usize>checksum), foldLength(whole));
  } else {
    const addresses = headers + <usize>(network + (version == 4 ? 12 : 8));
    pseudo = version == 4 ? checksumPseudo4(addresses, protocol, 0) : checksumPseudo6(addresses, protocol, 0);
  }
  store<u16>(th + <usize>checksum, 0);
  store<u32>(state, <u32>entry, SEG_OFF_ENTRY);
  store<u32>(state, count, SEG_OFF_COUNT);
  store<u32>(state, 0, SEG_OFF_NEXT);
  store<u32>(state, headerLength, SEG_OFF_HEADER_LENGTH);
  store<u32>(state, size, SEG_OFF_SIZE);
  store<u32>(state, network, SEG_OFF_NETWORK);
  store<u32>(state, transport, SEG_OFF_TRANSPORT);
  store<u32>(state, kind, SEG_OFF_KIND);
  store<u32>(state, version, SEG_OFF_VERSION);
  store<u32>(state, pseudo, SEG_OFF_PSEUDO);
  store<u32>(state, payload, SEG_OFF_PAYLOAD);
  return <i32>count;
}

/** A length as a pseudo-header sum has it (32 bits in IPv6, and harmless in IPv4, whose lengths have no upper half). */
function foldLength(length: u32): u32 {
  return checksumAdd(word(length & 0xffff), word(length >> 16));
}

/**
 * Writes the next up to `max` segments to a table: header in `headers` (the segments' headers one after the other, each
 * at the next multiple of 16), pieces in `list` (`pieces` of them at most). Returns the number written; 0 when there is
 * no more, or no room for one. `source` is the position that the entries get.
 */
export function segmentNext(
  state: usize,
  table: usize,
  max: u32,
  headers: usize,
  headerBytes: u32,
  list: usize,
  pieces: u32,
): u32 {
  const entry = <usize>load<u32>(state, SEG_OFF_ENTRY);
  const count = load<u32>(state, SEG_OFF_COUNT);
  const headerLength = load<u32>(state, SEG_OFF_HEADER_LENGTH);
  const size = load<u32>(state, SEG_OFF_SIZE);
  const payload = load<u32>(state, SEG_OFF_PAYLOAD);
  const position = load<u32>(entry, ENTRY_OFF_POSITION);
  const stride = (headerLength + 15) & ~15;
  let next = load<u32>(state, SEG_OFF_NEXT);
  let out: u32 = 0;
  let used: u32 = 0;
  let listed: u32 = 0;
  while (out < max && next < count && used + stride <= headerBytes && listed + 1 < pieces) {
    const offset = next * size;
    const length = payload - offset < size ? payload - offset : size;
    const first = list + <usize>listed * PIECE_SIZE;
    const slices = slicePieces(entry, headerLength + offset, length, first + PIECE_SIZE, pieces - listed - 1);
    if (slices == 0) break;
    const header = headers + <usize>used;
    copyBytes(header, state + SEG_OFF_HEADERS, headerLength);
    putPiece(first, header, headerLength, 0);
    finishHeader(state, header, entry, next, offset, length);
    const target = table + <usize>out * ENTRY_SIZE;
    store<u32>(target, <u32>header, ENTRY_OFF_ADDRESS);
    store<u32>(target, headerLength + length, ENTRY_OFF_LENGTH);
    store<u32>(target, FRAME_CSUM_VALID, ENTRY_OFF_FLAGS);
    store<u64>(target, 0, ENTRY_OFF_CSUM_START); // csum positions, gso kind and size
    store<u16>(target, 0, ENTRY_OFF_GSO_SIZE);
    store<u16>(target, <u16>(slices + 1), ENTRY_OFF_FRAGMENTS);
    store<u32>(target, <u32>first, ENTRY_OFF_FRAGMENT_LIST);
    store<u32>(target, position, ENTRY_OFF_POSITION);
    store<u64>(target, 0, ENTRY_OFF_GPA);
    v128.store(target + ENTRY_OFF_HEAD, v128.load(header)); // all headers of a superframe are longer than 16 bytes
    used += stride;
    listed += slices + 1;
    next++;
    out++;
  }
  store<u32>(state, next, SEG_OFF_NEXT);
  return out;
}

/** Makes the copied header that of segment `index`: lengths, identification, sequence, flags, checksums. */
function finishHeader(state: usize, header: usize, entry: usize, index: u32, offset: u32, length: u32): void {
  const network = load<u32>(state, SEG_OFF_NETWORK);
  const transport = load<u32>(state, SEG_OFF_TRANSPORT);
  const headerLength = load<u32>(state, SEG_OFF_HEADER_LENGTH);
  const ip = header + <usize>network;
  const th = header + <usize>transport;
  if (load<u32>(state, SEG_OFF_VERSION) == 4) {
    storeBig16(ip + 2, headerLength - network + length);
    storeBig16(ip + 4, loadBig16(ip + 4) + index);
    store<u16>(ip, 0, 10);
    store<u16>(ip, <u16>(~checksumRange(ip, transport - network) & 0xffff), 10);
  } else {
    storeBig16(ip + 4, headerLength - network - 40 + length);
  }
  const transportLength = headerLength - transport;
  let checksum: u32;
  if (load<u32>(state, SEG_OFF_KIND) != <u32>GSO_UDP_L4) {
    checksum = TCP_OFF_CHECKSUM;
    store<u32>(th + TCP_OFF_SEQUENCE, bswap<u32>(bswap<u32>(load<u32>(th + TCP_OFF_SEQUENCE)) + offset));
    let flags = <u32>load<u8>(th + TCP_OFF_FLAGS);
    if (index + 1 != load<u32>(state, SEG_OFF_COUNT)) flags &= ~(TCP_FIN | TCP_PSH);
    if (index != 0) flags &= ~TCP_CWR;
    store<u8>(th + TCP_OFF_FLAGS, <u8>flags);
  } else {
    checksum = UDP_OFF_CHECKSUM;
    storeBig16(th + UDP_OFF_LENGTH, UDP_HEADER + length);
  }
  let sum = checksumAdd(load<u32>(state, SEG_OFF_PSEUDO), foldLength(transportLength + length));
  sum = checksumAdd(sum, checksumRange(th, transportLength));
  sum = checksumAdd(sum, sumBytes(entry, headerLength + offset, length));
  let result = ~sum & 0xffff;
  if (result == 0 && checksum == UDP_OFF_CHECKSUM) result = 0xffff;
  store<u16>(th + <usize>checksum, <u16>result);
}

/**
 * Completes the partial checksum of a frame without touching the frame: the bytes up to the checksum are copied to
 * `headers` and completed there; the entry in `target` is that copy followed by the rest of the frame (pieces in `list`).
 * Returns the pieces used, or the negated reason. `headerBytes` must hold the bytes up to the checksum.
 */
export function checksumFinish(
  entry: usize,
  target: usize,
  headers: usize,
  headerBytes: u32,
  list: usize,
  pieces: u32,
): i32 {
  const length = load<u32>(entry, ENTRY_OFF_LENGTH);
  const start = <u32>load<u16>(entry, ENTRY_OFF_CSUM_START);
  const field = start + <u32>load<u16>(entry, ENTRY_OFF_CSUM_OFFSET);
  const end = field + 2;
  if (end > length || end > headerBytes || pieces < 2) return -SEG_BAD_CHECKSUM;
  if (gatherBytes(entry, 0, headers, end) != end) return -SEG_BAD_CHECKSUM;
  // the first part from the private copy, the rest from where it lies
  let sum = checksumRange(headers + <usize>start, end - start);
  let rest = sumBytes(entry, end, length - end);
  if (((end - start) & 1) != 0) rest = ((rest & 0xff) << 8) | (rest >> 8);
  sum = checksumAdd(sum, rest);
  let result = ~sum & 0xffff;
  if (result == 0) result = 0xffff; // the same number; UDP forbids the other spelling, and the kernel uses this one for all
  store<u16>(headers + <usize>field, <u16>result);
  putPiece(list, headers, end, 0);
  let n: u32 = 1;
  if (length != end) {
    const slices = slicePieces(entry, end, length - end, list + PIECE_SIZE, pieces - 1);
    if (slices == 0) return -SEG_BAD_CHECKSUM;
    n += slices;
  }
  memory.copy(target, entry, ENTRY_SIZE);
  store<u32>(target, <u32>headers, ENTRY_OFF_ADDRESS);
  store<u32>(target, FRAME_CSUM_VALID, ENTRY_OFF_FLAGS);
  store<u16>(target, <u16>n, ENTRY_OFF_FRAGMENTS);
  store<u32>(target, <u32>list, ENTRY_OFF_FRAGMENT_LIST);
  return <i32>n;
}
