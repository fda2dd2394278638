/**
 * Software segmentation: cuts a superframe into frames with complete checksums, as the Linux kernel does.
 *
 * Nothing is copied but headers: an output entry is the segment's own header (built in a private area from a private
 * copy of the superframe's) followed by slices of the superframe's payload, which stays where the guest put it. Moving
 * the segments then copies the payload once, wherever it goes.
 *
 * The headers are hostile. They are gathered once into the private copy, parsed there, and every length is recomputed
 * from the frame's own length; what the guest says about them (hdrlen, IP lengths) is never used.
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
  ENTRY_OFF_HEADER_LENGTH,
  ENTRY_OFF_LENGTH,
  ENTRY_OFF_POSITION,
  ENTRY_SIZE,
  FRAME_CSUM_VALID,
  FRAME_NEEDS_CSUM,
  GSO_TCP4,
  GSO_TCP6,
  GSO_UDP_L4,
  HEADERS_MAX,
  PIECE_OFF_ADDRESS,
  PIECE_OFF_LENGTH,
  PIECE_SIZE,
  SEG_BAD_CHECKSUM,
  SEG_BAD_HEADERS,
  SEG_BAD_SIZE,
  SEG_OFF_AT,
  SEG_OFF_COUNT,
  SEG_OFF_ENTRY,
  SEG_OFF_HEADER_LENGTH,
  SEG_OFF_HEADERS,
  SEG_OFF_KIND,
  SEG_OFF_NETWORK,
  SEG_OFF_NETWORK_SUM,
  SEG_OFF_NEXT,
  SEG_OFF_PAYLOAD,
  SEG_OFF_PIECE,
  SEG_OFF_REST,
  SEG_OFF_SIZE,
  SEG_OFF_TRANSPORT,
  SEG_OFF_TRANSPORT_SUM,
  SEG_OFF_VERSION,
  SEGMENTS_MAX,
} from "./abi/arena";
import { ETH_HEADER_SIZE } from "./abi/venet";
import { checksumAdd, checksumPseudo4, checksumPseudo6, checksumRange, checksumSwap } from "./checksum";
import { copyBytes } from "./copy";
import {
  ETHERTYPE_IPV4,
  ETHERTYPE_IPV6,
  IP4_OFF_ADDRESSES,
  IP4_OFF_CHECKSUM,
  IP4_OFF_ID,
  IP4_OFF_LENGTH,
  IP6_HEADER,
  IP6_OFF_ADDRESSES,
  IP6_OFF_LENGTH,
  loadBig16,
  networkOffset,
  networkSum,
  networkWord,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
  storeBig16,
  TCP_CWR,
  TCP_FIN,
  TCP_HEADER,
  TCP_OFF_CHECKSUM,
  TCP_OFF_DATA_OFFSET,
  TCP_OFF_FLAGS,
  TCP_OFF_SEQUENCE,
  TCP_PSH,
  transport4,
  transport6,
  UDP_HEADER,
  UDP_OFF_CHECKSUM,
  UDP_OFF_LENGTH,
} from "./headers";
import {
  gatherBytes,
  pieceAddress,
  pieceCount,
  pieceLength,
  putPiece,
  slicePieces,
  sumBytes,
} from "./pieces";

/** One's complement subtraction: adds the inverse. */
function subtract(a: u32, b: u32): u32 {
  return checksumAdd(a, ~b & 0xffff);
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
  const count = (payload - 1) / size + 1;
  if (count > <u32>SEGMENTS_MAX) return -SEG_BAD_SIZE;
  // the length that an IP header has 16 bits for
  const counted = headerLength - network - (version == 4 ? 0 : IP6_HEADER);
  if (counted + (payload < size ? payload : size) > 65535) return -SEG_BAD_SIZE;

  const checksum = tcp ? TCP_OFF_CHECKSUM : UDP_OFF_CHECKSUM;
  let pseudo: u32;
  if ((load<u32>(entry, ENTRY_OFF_FLAGS) & FRAME_NEEDS_CSUM) != 0) {
    if (<u32>load<u16>(entry, ENTRY_OFF_CSUM_START) != transport) return -SEG_BAD_CHECKSUM;
    if (<u32>load<u16>(entry, ENTRY_OFF_CSUM_OFFSET) != checksum) return -SEG_BAD_CHECKSUM;
    // the field holds the pseudo-header sum for the whole: what the sender put there also covers routing headers
    pseudo = subtract(<u32>load<u16>(th + <usize>checksum), networkSum(transportLength + payload));
  } else {
    const addresses = headers + <usize>(network + (version == 4 ? IP4_OFF_ADDRESSES : IP6_OFF_ADDRESSES));
    pseudo = version == 4 ? checksumPseudo4(addresses, protocol, 0) : checksumPseudo6(addresses, protocol, 0);
  }
  store<u32>(state, <u32>entry, SEG_OFF_ENTRY);
  store<u32>(state, count, SEG_OFF_COUNT);
  store<u32>(state, 0, SEG_OFF_NEXT);
  store<u32>(state, headerLength, SEG_OFF_HEADER_LENGTH);
  store<u32>(state, size, SEG_OFF_SIZE);
  store<u32>(state, network, SEG_OFF_NETWORK);
  store<u32>(state, transport, SEG_OFF_TRANSPORT);
  store<u32>(state, kind, SEG_OFF_KIND);
  store<u32>(state, version, SEG_OFF_VERSION);
  store<u32>(state, payload, SEG_OFF_PAYLOAD);
  findPayload(state, entry, headerLength);
  sumConstants(state, pseudo);
  return <i32>count;
}

/** Sets the state's place in the superframe behind the headers, which the frame was seen to have. */
function findPayload(state: usize, entry: usize, headerLength: u32): void {
  let i: u32 = 0;
  let skip = headerLength;
  while (skip > pieceLength(entry, i)) skip -= pieceLength(entry, i++);
  store<u32>(state, i + 1, SEG_OFF_PIECE);
  store<u32>(state, <u32>pieceAddress(entry, i) + skip, SEG_OFF_AT);
  store<u32>(state, pieceLength(entry, i) - skip, SEG_OFF_REST);
}

/** Sums what all segments have in common, so that each of them sums only its payload and adds a few words. */
function sumConstants(state: usize, pseudo: u32): void {
  const network = load<u32>(state, SEG_OFF_NETWORK);
  const transport = load<u32>(state, SEG_OFF_TRANSPORT);
  const transportLength = load<u32>(state, SEG_OFF_HEADER_LENGTH) - transport;
  const ip = state + SEG_OFF_HEADERS + <usize>network;
  const th = state + SEG_OFF_HEADERS + <usize>transport;
  if (load<u32>(state, SEG_OFF_VERSION) == 4) {
    const id = load<u16>(ip, IP4_OFF_ID);
    store<u16>(ip, 0, IP4_OFF_LENGTH);
    store<u16>(ip, 0, IP4_OFF_ID);
    store<u16>(ip, 0, IP4_OFF_CHECKSUM);
    store<u32>(state, checksumRange(ip, transport - network), SEG_OFF_NETWORK_SUM);
    store<u16>(ip, id, IP4_OFF_ID);
  }
  let sum: u32;
  if (load<u32>(state, SEG_OFF_KIND) != <u32>GSO_UDP_L4) {
    const sequence = load<u32>(th, TCP_OFF_SEQUENCE);
    const flags = load<u8>(th, TCP_OFF_FLAGS);
    store<u32>(th, 0, TCP_OFF_SEQUENCE);
    store<u8>(th, 0, TCP_OFF_FLAGS);
    store<u16>(th, 0, TCP_OFF_CHECKSUM);
    sum = checksumRange(th, transportLength);
    store<u32>(th, sequence, TCP_OFF_SEQUENCE);
    store<u8>(th, flags, TCP_OFF_FLAGS);
  } else {
    store<u16>(th, 0, UDP_OFF_LENGTH);
    store<u16>(th, 0, UDP_OFF_CHECKSUM);
    sum = checksumRange(th, UDP_HEADER);
  }
  store<u32>(state, checksumAdd(pseudo, sum), SEG_OFF_TRANSPORT_SUM);
}

/** Sum of the bytes of n listed pieces, the first of which starts at an even offset. */
function sumSlices(list: usize, n: u32): u32 {
  let sum: u32 = 0;
  let odd = false;
  for (let i: u32 = 0; i < n; i++) {
    const length = load<u32>(list, PIECE_OFF_LENGTH);
    const part = checksumRange(load<u32>(list, PIECE_OFF_ADDRESS), length);
    sum = checksumAdd(sum, odd ? checksumSwap(part) : part);
    if ((length & 1) != 0) odd = !odd;
    list += PIECE_SIZE;
  }
  return sum;
}

/** Folds the sum of a few 16-bit words. */
function fold(sum: u32): u32 {
  sum = (sum >> 16) + (sum & 0xffff);
  return (sum >> 16) + (sum & 0xffff);
}

/**
 * Writes the next up to `max` segments to a table: header in `headers` (the segments' headers one after the other, each
 * at the next multiple of 16), pieces in `list` (`pieces` of them at most). Returns the number written; 0 when there is
 * no more, or no room for one (HEADERS_MAX bytes and two pieces more than the superframe has are always enough).
 * The entries get the superframe's position.
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
  // everything in locals: what is stored below could alias the state for all the compiler knows
  const entry = <usize>load<u32>(state, SEG_OFF_ENTRY);
  const count = load<u32>(state, SEG_OFF_COUNT);
  const headerLength = load<u32>(state, SEG_OFF_HEADER_LENGTH);
  const size = load<u32>(state, SEG_OFF_SIZE);
  const payload = load<u32>(state, SEG_OFF_PAYLOAD);
  const network = load<u32>(state, SEG_OFF_NETWORK);
  const transport = load<u32>(state, SEG_OFF_TRANSPORT);
  const tcp = load<u32>(state, SEG_OFF_KIND) != <u32>GSO_UDP_L4;
  const four = load<u32>(state, SEG_OFF_VERSION) == 4;
  const constantSum = load<u32>(state, SEG_OFF_NETWORK_SUM);
  const transportSum = load<u32>(state, SEG_OFF_TRANSPORT_SUM);
  const template = state + SEG_OFF_HEADERS;
  const head = v128.load(template); // all headers of a superframe are longer than 16 bytes
  const id = loadBig16(template + <usize>network + IP4_OFF_ID);
  const sequence = bswap<u32>(load<u32>(template + <usize>transport, TCP_OFF_SEQUENCE));
  const flags = <u32>load<u8>(template + <usize>transport, TCP_OFF_FLAGS);
  const position = load<u32>(entry, ENTRY_OFF_POSITION);
  const fragments = pieceCount(entry);
  const stride = (headerLength + 15) & ~15;
  let piece = load<u32>(state, SEG_OFF_PIECE);
  let at = <usize>load<u32>(state, SEG_OFF_AT);
  let rest = load<u32>(state, SEG_OFF_REST);
  let next = load<u32>(state, SEG_OFF_NEXT);
  // what all segments but a shorter last one have in common
  const wholeSum = transportSum + networkSum(headerLength - transport + size);
  const wholeTotal = networkWord(headerLength - network + size);
  let most = headerBytes / stride;
  if (most > max) most = max;
  if (most > count - next) most = count - next;
  let target = table;
  let header = headers;
  let first = list;
  let out: u32 = 0;
  let listed: u32 = 0;
  while (out < most && listed + 1 < pieces) {
    const offset = next * size;
    const length = payload - offset < size ? payload - offset : size;

    // the pieces: our header, then the slices of the payload
    let n: u32 = 2;
    let sum = length == size ? wholeSum : transportSum + networkSum(headerLength - transport + length);
    if (rest >= length) {
      putPiece(first + PIECE_SIZE, at, length, 0);
      sum += checksumRange(at, length);
      at += <usize>length;
      rest -= length;
    } else {
      n = 1;
      const room = pieces - listed < 0xffff ? pieces - listed : 0xffff; // an entry cannot count more
      let from = at;
      let available = rest;
      let left = length;
      let i = piece;
      while (left != 0) {
        if (available == 0) {
          if (i == fragments) break;
          from = pieceAddress(entry, i);
          available = pieceLength(entry, i);
          i++;
        } else {
          if (n == room) break;
          const part = available < left ? available : left;
          putPiece(first + <usize>n * PIECE_SIZE, from, part, 0);
          n++;
          from += <usize>part;
          available -= part;
          left -= part;
        }
      }
      if (left != 0) break;
      at = from;
      rest = available;
      piece = i;
      sum += sumSlices(first + PIECE_SIZE, n - 1);
    }
    putPiece(first, header, headerLength, 0);

    // the header: a copy of the superframe's (in whole vectors, there is room), then what is this segment's own
    for (let i: usize = 0; i < <usize>stride; i += 16) v128.store(header + i, v128.load(template + i));
    const ip = header + <usize>network;
    const th = header + <usize>transport;
    if (four) {
      const total = length == size ? wholeTotal : networkWord(headerLength - network + length);
      const ownId = networkWord(id + next);
      store<u16>(ip, <u16>total, IP4_OFF_LENGTH);
      store<u16>(ip, <u16>ownId, IP4_OFF_ID);
      store<u16>(ip, <u16>~fold(constantSum + total + ownId), IP4_OFF_CHECKSUM);
    } else {
      storeBig16(ip + IP6_OFF_LENGTH, headerLength - network - IP6_HEADER + length);
    }
    if (tcp) {
      const ownSequence = bswap<u32>(sequence + offset);
      let ownFlags = flags;
      if (next + 1 != count) ownFlags &= ~(TCP_FIN | TCP_PSH);
      if (next != 0) ownFlags &= ~TCP_CWR;
      store<u32>(th, ownSequence, TCP_OFF_SEQUENCE);
      store<u8>(th, <u8>ownFlags, TCP_OFF_FLAGS);
      sum += (ownSequence & 0xffff) + (ownSequence >> 16) + (ownFlags << 8); // the flags: second byte of their word
      store<u16>(th, <u16>~fold(sum), TCP_OFF_CHECKSUM);
    } else {
      const datagram = networkWord(UDP_HEADER + length);
      const result = ~fold(sum + datagram) & 0xffff;
      store<u16>(th, <u16>datagram, UDP_OFF_LENGTH);
      store<u16>(th, result == 0 ? 0xffff : <u16>result, UDP_OFF_CHECKSUM); // 0 would mean "no checksum"
    }

    store<u32>(target, <u32>header, ENTRY_OFF_ADDRESS);
    store<u32>(target, headerLength + length, ENTRY_OFF_LENGTH);
    store<u64>(target, FRAME_CSUM_VALID, ENTRY_OFF_FLAGS); // and no checksum positions
    store<u32>(target, 0, ENTRY_OFF_GSO_KIND); // and size
    store<u16>(target, 0, ENTRY_OFF_HEADER_LENGTH);
    store<u16>(target, <u16>n, ENTRY_OFF_FRAGMENTS);
    store<u32>(target, <u32>first, ENTRY_OFF_FRAGMENT_LIST);
    store<u32>(target, position, ENTRY_OFF_POSITION);
    v128.store(target + ENTRY_OFF_HEAD, head);
    v128.store(target + ENTRY_OFF_GPA, i64x2.splat(0)); // and cookie
    target += ENTRY_SIZE;
    header += <usize>stride;
    first += <usize>n * PIECE_SIZE;
    listed += n;
    next++;
    out++;
  }
  store<u32>(state, next, SEG_OFF_NEXT);
  store<u32>(state, piece, SEG_OFF_PIECE);
  store<u32>(state, <u32>at, SEG_OFF_AT);
  store<u32>(state, rest, SEG_OFF_REST);
  return out;
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
  if (field < <u32>ETH_HEADER_SIZE) return -SEG_BAD_CHECKSUM; // addresses were looked at already, and stay as they were
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
