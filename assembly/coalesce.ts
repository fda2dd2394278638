/**
 * Receive coalescing: merges the TCP segments of one flow that follow each other within a batch into a superframe with a
 * partial checksum, as the Linux kernel's GRO does. Its inverse is segmentation: cutting a merged superframe gives the
 * frames it was made of, byte for byte (but for the padding of frames below Ethernet's minimum). Whatever cutting could
 * not give back is not merged.
 *
 * A table to table transform like segmentation: payloads stay where they are, a superframe is a header of ours and the
 * slices of its frames. Two passes, since several flows are open at a time and the pieces of one superframe must be
 * neighbours: the first decides who follows whom, the second writes. A superframe takes the place of its first frame,
 * and a frame that cannot be merged closes its flow, so the order within every flow is kept.
 *
 * Frames are hostile. Their headers are copied once and parsed there; what the record says is never read from the frame
 * again. The work is bounded: every frame is summed at most once and compared with COALESCE_FLOWS_MAX others.
 */
import {
  COALESCE_ECN,
  COALESCE_FLOWS_MAX,
  COALESCE_HEADERS_MAX,
  COALESCE_NONE,
  COALESCE_OFF_FRAMES,
  COALESCE_OFF_HASH,
  COALESCE_OFF_HEADER_LENGTH,
  COALESCE_OFF_HEADERS,
  COALESCE_OFF_ID,
  COALESCE_OFF_KIND,
  COALESCE_OFF_LAST,
  COALESCE_OFF_NETWORK,
  COALESCE_OFF_NEXT,
  COALESCE_OFF_PAYLOAD,
  COALESCE_OFF_SEQUENCE,
  COALESCE_OFF_SUPERFRAMES,
  COALESCE_OFF_TCP_FLAGS,
  COALESCE_OFF_TOTAL,
  COALESCE_OFF_TRANSPORT,
  COALESCE_OPEN_SIZE,
  COALESCE_RECORD_SIZE,
  COALESCE_TCP4,
  COALESCE_TCP6,
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
  ENTRY_SIZE,
  FRAME_CSUM_VALID,
  FRAME_ECN,
  FRAME_GSO,
  FRAME_NEEDS_CSUM,
  GSO_TCP4,
  GSO_TCP6,
  PIECE_SIZE,
} from "./abi/arena";
import { checksumAdd, checksumPseudo4, checksumPseudo6, checksumRange } from "./checksum";
import { copyBytes } from "./copy";
import {
  ETHERTYPE_IPV4,
  ETHERTYPE_IPV6,
  IP4_HEADER,
  IP4_OFF_ADDRESSES,
  IP4_OFF_CHECKSUM,
  IP4_OFF_ID,
  IP4_OFF_LENGTH,
  IP6_HEADER,
  IP6_OFF_ADDRESSES,
  IP6_OFF_LENGTH,
  loadBig16,
  networkOffset,
  PROTOCOL_TCP,
  storeBig16,
  TCP_CWR,
  TCP_FIN,
  TCP_HEADER,
  TCP_OFF_CHECKSUM,
  TCP_OFF_DATA_OFFSET,
  TCP_OFF_FLAGS,
  TCP_OFF_SEQUENCE,
  TCP_PSH,
  TCP_RST,
  TCP_SYN,
  TCP_URG,
  transport4,
  transport6,
} from "./headers";
import { gatherBytes, pieceCount, putPiece, slicePieces, sumBytes } from "./pieces";

/** Frames up to this length may end in padding: Ethernet's minimum, with a tag or without. */
const PADDED_MAX: u32 = 64;

/** Not TCP, or a flow that cannot be told: passes, and nothing has to wait for it. */
const FOREIGN: u32 = 0;
/** A frame of a flow that cannot be merged: passes, and closes the flow. */
const CLOSES: u32 = 1;
/** A segment that may follow another one or be followed. */
const SEGMENT: u32 = 2;

function pseudoSum(record: usize, length: u32): u32 {
  const headers = record + COALESCE_OFF_HEADERS + <usize>load<u32>(record, COALESCE_OFF_NETWORK);
  return load<u32>(record, COALESCE_OFF_KIND) == GSO_TCP4
    ? checksumPseudo4(headers + <usize>IP4_OFF_ADDRESSES, PROTOCOL_TCP, length)
    : checksumPseudo6(headers + <usize>IP6_OFF_ADDRESSES, PROTOCOL_TCP, length);
}

/**
 * Fills a frame's record from its headers. In the record's copy of the headers all that may differ between two segments
 * of one send is set to zero (lengths, identification, sequence number, flags, checksums), so that the rest compares as
 * bytes.
 */
function examine(entry: usize, record: usize, kinds: u32): u32 {
  store<u32>(record, COALESCE_NONE, COALESCE_OFF_NEXT);
  store<u32>(record, 1, COALESCE_OFF_FRAMES);
  store<u32>(record, 0, COALESCE_OFF_HEADER_LENGTH);
  const frameLength = load<u32>(entry, ENTRY_OFF_LENGTH);
  const headers = record + COALESCE_OFF_HEADERS;
  const wanted = frameLength < <u32>COALESCE_HEADERS_MAX ? frameLength : COALESCE_HEADERS_MAX;
  const available = gatherBytes(entry, 0, headers, wanted);
  const network = networkOffset(headers, available);
  if (network == 0) return FOREIGN;
  const four = loadBig16(headers + <usize>network - 2) == ETHERTYPE_IPV4;
  if (!four && loadBig16(headers + <usize>network - 2) != ETHERTYPE_IPV6) return FOREIGN;
  const transport = four
    ? transport4(headers, network, available, PROTOCOL_TCP)
    : transport6(headers, network, available, PROTOCOL_TCP);
  if (transport == 0 || available < transport + TCP_HEADER) return FOREIGN;

  // the flow is known from here on
  const ip = headers + <usize>network;
  const th = headers + <usize>transport;
  const tcpLength = ((<u32>load<u8>(th, TCP_OFF_DATA_OFFSET)) >> 4) << 2;
  const headerLength = transport + tcpLength;
  const addresses = ip + <usize>(four ? IP4_OFF_ADDRESSES : IP6_OFF_ADDRESSES);
  store<u32>(record, headerLength, COALESCE_OFF_HEADER_LENGTH);
  store<u32>(record, network, COALESCE_OFF_NETWORK);
  store<u32>(record, transport, COALESCE_OFF_TRANSPORT);
  store<u32>(record, four ? GSO_TCP4 : GSO_TCP6, COALESCE_OFF_KIND);
  store<u32>(record, checksumRange(addresses, four ? 8 : 32) ^ load<u32>(th), COALESCE_OFF_HASH);

  const frameFlags = load<u32>(entry, ENTRY_OFF_FLAGS);
  const flags = <u32>load<u8>(th, TCP_OFF_FLAGS);
  if ((frameFlags & FRAME_GSO) != 0) return CLOSES;
  if ((kinds & (four ? COALESCE_TCP4 : COALESCE_TCP6)) == 0) return CLOSES;
  if (four && transport != network + IP4_HEADER) return CLOSES; // options are each segment's own
  if (tcpLength < TCP_HEADER || headerLength > available) return CLOSES;
  if ((flags & (TCP_SYN | TCP_RST | TCP_URG)) != 0) return CLOSES;
  if ((flags & TCP_CWR) != 0 && (kinds & COALESCE_ECN) == 0) return CLOSES;
  const total = four
    ? network + loadBig16(ip + IP4_OFF_LENGTH)
    : network + IP6_HEADER + loadBig16(ip + IP6_OFF_LENGTH);
  if (total > frameLength || total <= headerLength) return CLOSES; // truncated, or no payload
  if (total != frameLength && frameLength > PADDED_MAX) return CLOSES; // a trailer that is no padding
  const payload = total - headerLength;
  store<u32>(record, payload, COALESCE_OFF_PAYLOAD);
  store<u32>(record, bswap<u32>(load<u32>(th, TCP_OFF_SEQUENCE)), COALESCE_OFF_SEQUENCE);
  store<u32>(record, flags, COALESCE_OFF_TCP_FLAGS);

  if (four) {
    store<u32>(record, loadBig16(ip + IP4_OFF_ID), COALESCE_OFF_ID);
    const checksum = <u32>load<u16>(ip, IP4_OFF_CHECKSUM);
    store<u16>(ip, 0, IP4_OFF_CHECKSUM);
    if ((~checksumRange(ip, IP4_HEADER) & 0xffff) != checksum) return CLOSES;
    store<u32>(ip, 0, IP4_OFF_LENGTH); // and identification
  } else {
    store<u16>(ip, 0, IP6_OFF_LENGTH);
  }
  const checksum = <u32>load<u16>(th, TCP_OFF_CHECKSUM);
  store<u16>(th, 0, TCP_OFF_CHECKSUM);
  const pseudo = pseudoSum(record, tcpLength + payload);
  if ((frameFlags & FRAME_NEEDS_CSUM) != 0) {
    if (<u32>load<u16>(entry, ENTRY_OFF_CSUM_START) != transport) return CLOSES;
    if (<u32>load<u16>(entry, ENTRY_OFF_CSUM_OFFSET) != TCP_OFF_CHECKSUM) return CLOSES;
    if (checksum != pseudo) return CLOSES;
  } else if ((frameFlags & FRAME_CSUM_VALID) == 0 || checksum == 0xffff) {
    // compared with the one spelling that segmentation uses: 0xffff is right, too, but would not come back
    const sum = checksumAdd(pseudo, checksumRange(th, tcpLength));
    if ((~checksumAdd(sum, sumBytes(entry, headerLength, payload)) & 0xffff) != checksum) return CLOSES;
  }
  store<u32>(th, 0, TCP_OFF_SEQUENCE);
  store<u8>(th, 0, TCP_OFF_FLAGS);
  return SEGMENT;
}

function sameBytes(a: usize, b: usize, length: u32): bool {
  let i: u32 = 0;
  for (; i + 8 <= length; i += 8) if (load<u64>(a + <usize>i) != load<u64>(b + <usize>i)) return false;
  for (; i < length; i++) if (load<u8>(a + <usize>i) != load<u8>(b + <usize>i)) return false;
  return true;
}

/** Same Ethernet header and tags, same addresses, same ports. */
function sameFlow(a: usize, b: usize): bool {
  if (load<u32>(a, COALESCE_OFF_HASH) != load<u32>(b, COALESCE_OFF_HASH)) return false;
  const kind = load<u32>(a, COALESCE_OFF_KIND);
  const network = load<u32>(a, COALESCE_OFF_NETWORK);
  if (kind != load<u32>(b, COALESCE_OFF_KIND) || network != load<u32>(b, COALESCE_OFF_NETWORK)) return false;
  const one = a + COALESCE_OFF_HEADERS;
  const two = b + COALESCE_OFF_HEADERS;
  if (!sameBytes(one, two, network)) return false;
  const addresses = <usize>(network + (kind == GSO_TCP4 ? IP4_OFF_ADDRESSES : IP6_OFF_ADDRESSES));
  if (!sameBytes(one + addresses, two + addresses, kind == GSO_TCP4 ? 8 : 32)) return false;
  const ports = load<u32>(one + <usize>load<u32>(a, COALESCE_OFF_TRANSPORT));
  return ports == load<u32>(two + <usize>load<u32>(b, COALESCE_OFF_TRANSPORT));
}

/** True when `record` continues the superframe that `first` begins, and cutting the two gives both of them again. */
function continues(first: usize, record: usize, maxBytes: u32, maxFrames: u32): bool {
  const frames = load<u32>(first, COALESCE_OFF_FRAMES);
  const total = load<u32>(first, COALESCE_OFF_TOTAL);
  const size = load<u32>(first, COALESCE_OFF_PAYLOAD);
  const payload = load<u32>(record, COALESCE_OFF_PAYLOAD);
  const headerLength = load<u32>(first, COALESCE_OFF_HEADER_LENGTH);
  if (payload > size || frames >= maxFrames || headerLength + total + payload > maxBytes) return false;
  if ((load<u32>(record, COALESCE_OFF_TCP_FLAGS) & TCP_CWR) != 0) return false;
  const ending = TCP_FIN | TCP_PSH | TCP_CWR;
  const differing = load<u32>(first, COALESCE_OFF_TCP_FLAGS) ^ load<u32>(record, COALESCE_OFF_TCP_FLAGS);
  if ((differing & ~ending) != 0) return false;
  if (load<u32>(first, COALESCE_OFF_SEQUENCE) + total != load<u32>(record, COALESCE_OFF_SEQUENCE))
    return false;
  const four = load<u32>(first, COALESCE_OFF_KIND) == GSO_TCP4;
  const id = (load<u32>(first, COALESCE_OFF_ID) + frames) & 0xffff;
  if (four && id != load<u32>(record, COALESCE_OFF_ID)) return false;
  if (headerLength != load<u32>(record, COALESCE_OFF_HEADER_LENGTH)) return false;
  return sameBytes(first + COALESCE_OFF_HEADERS, record + COALESCE_OFF_HEADERS, headerLength);
}

/** Takes open flow i off the list, whose order (oldest first) stays. Returns what is left. */
function closeFlow(open: usize, i: u32, count: u32): u32 {
  const at = open + ((<usize>i) << 2);
  memory.copy(at, at + 4, (<usize>(count - i - 1)) << 2);
  return count - 1;
}

/**
 * Merges what can be merged of n frames, and writes all of them to `out` (n entries). Returns the entries written.
 *
 * `scratch`: COALESCE_OPEN_SIZE + n * COALESCE_RECORD_SIZE bytes, private; superframes' headers are in it. `list`:
 * `pieces` pieces; when they are used up, frames stay as they are. `kinds`: COALESCE_TCP4, _TCP6, _ECN.
 * No superframe is longer than `maxBytes` (65535 at most) or has more than `maxFrames` frames.
 */
export function coalesceBurst(
  frames: usize,
  n: u32,
  out: usize,
  scratch: usize,
  list: usize,
  pieces: u32,
  kinds: u32,
  maxBytes: u32,
  maxFrames: u32,
): u32 {
  const records = scratch + COALESCE_OPEN_SIZE;
  if (maxBytes > 65535) maxBytes = 65535;
  let openCount: u32 = 0;
  let promised: u32 = 0;
  for (let i: u32 = 0; i < n; i++) {
    const entry = frames + <usize>i * ENTRY_SIZE;
    const record = records + <usize>i * COALESCE_RECORD_SIZE;
    const verdict = examine(entry, record, kinds);
    if (verdict == FOREIGN) continue;
    let at: u32 = 0;
    let first: usize = 0;
    while (at < openCount) {
      first = records + <usize>load<u32>(scratch + ((<usize>at) << 2)) * COALESCE_RECORD_SIZE;
      if (sameFlow(first, record)) break;
      at++;
    }
    const known = at < openCount;
    const flags = verdict == SEGMENT ? load<u32>(record, COALESCE_OFF_TCP_FLAGS) : 0;
    if (known && verdict == SEGMENT && continues(first, record, maxBytes, maxFrames)) {
      const alone = load<u32>(first, COALESCE_OFF_FRAMES) == 1;
      const opener = frames + <usize>((first - records) / COALESCE_RECORD_SIZE) * ENTRY_SIZE;
      const more = pieceCount(entry) + (alone ? 1 + pieceCount(opener) : 0);
      if (more <= pieces - promised) {
        promised += more;
        const last = records + <usize>load<u32>(first, COALESCE_OFF_LAST) * COALESCE_RECORD_SIZE;
        const payload = load<u32>(record, COALESCE_OFF_PAYLOAD);
        store<u32>(last, i, COALESCE_OFF_NEXT);
        store<u32>(record, 0, COALESCE_OFF_FRAMES);
        store<u32>(first, i, COALESCE_OFF_LAST);
        store<u32>(first, load<u32>(first, COALESCE_OFF_FRAMES) + 1, COALESCE_OFF_FRAMES);
        store<u32>(first, load<u32>(first, COALESCE_OFF_TOTAL) + payload, COALESCE_OFF_TOTAL);
        const ends = (flags & (TCP_PSH | TCP_FIN)) != 0 || payload < load<u32>(first, COALESCE_OFF_PAYLOAD);
        if (ends) openCount = closeFlow(scratch, at, openCount);
        continue;
      }
    }
    if (known) openCount = closeFlow(scratch, at, openCount);
    if (verdict != SEGMENT || (flags & (TCP_PSH | TCP_FIN)) != 0) continue;
    if (openCount == <u32>COALESCE_FLOWS_MAX) openCount = closeFlow(scratch, 0, openCount);
    store<u32>(record, i, COALESCE_OFF_LAST);
    store<u32>(record, load<u32>(record, COALESCE_OFF_PAYLOAD), COALESCE_OFF_TOTAL);
    store<u32>(scratch + ((<usize>openCount) << 2), i);
    openCount++;
  }
  return writeOut(frames, n, out, scratch, list);
}

function writeOut(frames: usize, n: u32, out: usize, scratch: usize, list: usize): u32 {
  const records = scratch + COALESCE_OPEN_SIZE;
  let superframes: u32 = 0;
  let target = out;
  for (let i: u32 = 0; i < n; i++) {
    const record = records + <usize>i * COALESCE_RECORD_SIZE;
    const count = load<u32>(record, COALESCE_OFF_FRAMES);
    if (count == 0) continue;
    memory.copy(target, frames + <usize>i * ENTRY_SIZE, ENTRY_SIZE);
    if (count > 1) {
      list += <usize>writeSuperframe(frames, i, target, records, list) * PIECE_SIZE;
      superframes++;
    }
    target += ENTRY_SIZE;
  }
  store<u32>(scratch, superframes, COALESCE_OFF_SUPERFRAMES);
  return <u32>((target - out) / ENTRY_SIZE);
}

/** Makes `target`, a copy of the first frame's entry, that of the superframe. Returns the pieces used. */
function writeSuperframe(frames: usize, first: u32, target: usize, records: usize, list: usize): u32 {
  const record = records + <usize>first * COALESCE_RECORD_SIZE;
  const header = record + COALESCE_OFF_HEADERS;
  const headerLength = load<u32>(record, COALESCE_OFF_HEADER_LENGTH);
  const network = load<u32>(record, COALESCE_OFF_NETWORK);
  const transport = load<u32>(record, COALESCE_OFF_TRANSPORT);
  const kind = load<u32>(record, COALESCE_OFF_KIND);
  const total = load<u32>(record, COALESCE_OFF_TOTAL);
  let flags = load<u32>(record, COALESCE_OFF_TCP_FLAGS);

  putPiece(list, header, headerLength, 0);
  let n: u32 = 1;
  for (let i = first; i != COALESCE_NONE;) {
    const one = records + <usize>i * COALESCE_RECORD_SIZE;
    const entry = frames + <usize>i * ENTRY_SIZE;
    flags |= load<u32>(one, COALESCE_OFF_TCP_FLAGS);
    // as many pieces as the frame has, at most: there is room for them
    n += slicePieces(
      entry,
      headerLength,
      load<u32>(one, COALESCE_OFF_PAYLOAD),
      list + <usize>n * PIECE_SIZE,
      pieceCount(entry),
    );
    i = load<u32>(one, COALESCE_OFF_NEXT);
  }

  const ip = header + <usize>network;
  const th = header + <usize>transport;
  if (kind == GSO_TCP4) {
    storeBig16(ip + IP4_OFF_LENGTH, headerLength - network + total);
    storeBig16(ip + IP4_OFF_ID, load<u32>(record, COALESCE_OFF_ID));
    store<u16>(ip, <u16>~checksumRange(ip, IP4_HEADER), IP4_OFF_CHECKSUM);
  } else {
    storeBig16(ip + IP6_OFF_LENGTH, headerLength - network - IP6_HEADER + total);
  }
  store<u32>(th, bswap<u32>(load<u32>(record, COALESCE_OFF_SEQUENCE)), TCP_OFF_SEQUENCE);
  store<u8>(th, <u8>flags, TCP_OFF_FLAGS);
  store<u16>(th, <u16>pseudoSum(record, headerLength - transport + total), TCP_OFF_CHECKSUM);

  const ecn = (flags & TCP_CWR) != 0 ? FRAME_ECN : 0;
  store<u32>(target, <u32>header, ENTRY_OFF_ADDRESS);
  store<u32>(target, headerLength + total, ENTRY_OFF_LENGTH);
  store<u32>(target, FRAME_NEEDS_CSUM | FRAME_GSO | ecn, ENTRY_OFF_FLAGS);
  store<u16>(target, <u16>transport, ENTRY_OFF_CSUM_START);
  store<u16>(target, <u16>TCP_OFF_CHECKSUM, ENTRY_OFF_CSUM_OFFSET);
  store<u8>(target, <u8>kind, ENTRY_OFF_GSO_KIND);
  store<u16>(target, <u16>load<u32>(record, COALESCE_OFF_PAYLOAD), ENTRY_OFF_GSO_SIZE);
  store<u16>(target, <u16>headerLength, ENTRY_OFF_HEADER_LENGTH);
  store<u16>(target, <u16>n, ENTRY_OFF_FRAGMENTS);
  store<u32>(target, <u32>list, ENTRY_OFF_FRAGMENT_LIST);
  store<u64>(target, 0, ENTRY_OFF_GPA);
  copyBytes(target + ENTRY_OFF_HEAD, header, 16);
  return n;
}
