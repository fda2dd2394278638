/**
 * virtio-net's header in front of every frame (virtio 1.2: 5.1.6), decoded from and encoded to chains in burst tables.
 * Device side.
 *
 * ```
 * transmit   chain [ header 12 | frame … ]          →  its entry becomes the frame's, in the same table
 * receive    chains [ header 12 | … ] [ … ] …       →  an entry of `targets` is the place for one frame; the header
 *                                                      is written to the chains when the frame lies there
 * ```
 *
 * A header is copied once into the entry's private head and judged there. It may have a descriptor of its own, share
 * one with the frame, or be split over several (2.7.4: the framing of messages is free).
 */
import {
  ENTRY_HEAD_SIZE,
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
  FRAME_BAD_DESCRIPTOR,
  FRAME_BAD_OFFLOAD,
  FRAME_CSUM_VALID,
  FRAME_ECN,
  FRAME_GSO,
  FRAME_NEEDS_CSUM,
  GSO_TCP4,
  GSO_TCP6,
  GSO_UDP_L4,
  PIECE_OFF_ADDRESS,
  PIECE_OFF_GPA,
  PIECE_OFF_LENGTH,
  PIECE_SIZE,
} from "./abi/arena";
import {
  NET_DATA_VALID,
  NET_GRANT_CSUM,
  NET_MERGEABLE,
  PLACE_ALL,
  PLACE_BAD,
  PLACE_CHAINS,
  PLACE_OFF_CHAINS,
  PLACE_OFF_REASON,
  PLACE_PIECES,
  TARGET_OFF_CHAINS,
} from "./abi/arena-virtio-net";
import { CHAIN_OFF_READABLE_PIECES, CHAIN_OFF_USED } from "./abi/arena-virtq";
import { VENET_GSO_MAX } from "./abi/venet";
import {
  VIRTIO_NET_HDR_F_DATA_VALID,
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_GSO_ECN,
  VIRTIO_NET_HDR_GSO_NONE,
  VIRTIO_NET_HDR_GSO_TCPV4,
  VIRTIO_NET_HDR_GSO_TCPV6,
  VIRTIO_NET_HDR_GSO_UDP_L4,
  VIRTIO_NET_HDR_OFF_CSUM_OFFSET,
  VIRTIO_NET_HDR_OFF_CSUM_START,
  VIRTIO_NET_HDR_OFF_FLAGS,
  VIRTIO_NET_HDR_OFF_GSO_SIZE,
  VIRTIO_NET_HDR_OFF_GSO_TYPE,
  VIRTIO_NET_HDR_OFF_HDR_LEN,
  VIRTIO_NET_HDR_OFF_NUM_BUFFERS,
  VIRTIO_NET_HDR_SIZE,
} from "./abi/virtio-net";
import {
  gatherBytes,
  pieceAddress,
  pieceCount,
  pieceGpa,
  pieceLength,
  putPiece,
  scatterBytes,
} from "./pieces";
import { logWrite } from "./regions";

/** Segmentation kind of a header's type without ECN; 0 for one that does not exist or is never negotiated. */
function kindOf(type: u32): u32 {
  if (type == VIRTIO_NET_HDR_GSO_TCPV4) return GSO_TCP4;
  if (type == VIRTIO_NET_HDR_GSO_TCPV6) return GSO_TCP6;
  if (type == VIRTIO_NET_HDR_GSO_UDP_L4) return GSO_UDP_L4;
  return 0;
}

function typeOf(kind: u32): u32 {
  if (kind == GSO_TCP6) return VIRTIO_NET_HDR_GSO_TCPV6;
  if (kind == GSO_UDP_L4) return VIRTIO_NET_HDR_GSO_UDP_L4;
  return VIRTIO_NET_HDR_GSO_TCPV4;
}

/* ---- transmit ---------------------------------------------------------------------------------- */

/**
 * Turns n chains that a peek found on a transmit queue into frames, in place: header decoded, its bytes gone from the
 * pieces, the first bytes of the frame copied to the head. `granted`: 1 << GSO_… for each kind of superframe, bit 0 for
 * ECN, {@link NET_GRANT_CSUM}. Chains that must be dropped have FRAME_BAD_… flags and no address; they are completed like
 * any other.
 */
export function virtioNetDecode(table: usize, n: u32, granted: u32): void {
  for (let i: u32 = 0; i < n; i++) {
    const entry = table + <usize>i * ENTRY_SIZE;
    const bad = decode(entry, granted);
    if (bad != 0) {
      store<u32>(entry, 0, ENTRY_OFF_ADDRESS);
      store<u16>(entry, 0, ENTRY_OFF_FRAGMENTS);
      store<u32>(entry, bad, ENTRY_OFF_FLAGS);
    }
  }
}

/** Decodes one header. 0, or the FRAME_BAD_… flag. */
function decode(entry: usize, granted: u32): u32 {
  const total = load<u32>(entry, ENTRY_OFF_LENGTH);
  // a chain without a readable part shows what may be written, which is no frame
  if (load<u32>(entry, CHAIN_OFF_READABLE_PIECES) == 0 || total < <u32>VIRTIO_NET_HDR_SIZE)
    return FRAME_BAD_DESCRIPTOR;
  const length = total - VIRTIO_NET_HDR_SIZE;
  if (length > <u32>VENET_GSO_MAX) return FRAME_BAD_DESCRIPTOR;
  const header = entry + ENTRY_OFF_HEAD;
  gatherBytes(entry, 0, header, VIRTIO_NET_HDR_SIZE); // double fetch: from here on only this copy is looked at
  skipBytes(entry, VIRTIO_NET_HDR_SIZE);

  // flags and kinds that are not known are ignored or refused as 5.1.6.2.2 says
  let flags: u32 = 0;
  const start = load<u16>(header, VIRTIO_NET_HDR_OFF_CSUM_START);
  const offset = load<u16>(header, VIRTIO_NET_HDR_OFF_CSUM_OFFSET);
  if ((load<u8>(header, VIRTIO_NET_HDR_OFF_FLAGS) & VIRTIO_NET_HDR_F_NEEDS_CSUM) != 0) {
    if ((granted & NET_GRANT_CSUM) == 0 || <u32>start + <u32>offset + 2 > length) return FRAME_BAD_OFFLOAD;
    flags = FRAME_NEEDS_CSUM;
  }
  const type = <u32>load<u8>(header, VIRTIO_NET_HDR_OFF_GSO_TYPE);
  let kind: u32 = 0;
  let size: u16 = 0;
  if (type != VIRTIO_NET_HDR_GSO_NONE) {
    kind = kindOf(type & ~(<u32>VIRTIO_NET_HDR_GSO_ECN));
    size = load<u16>(header, VIRTIO_NET_HDR_OFF_GSO_SIZE);
    // a superframe's checksum is always partial (5.1.6.2.1)
    if (kind == 0 || size == 0 || flags == 0 || (granted & (1 << kind)) == 0) return FRAME_BAD_OFFLOAD;
    flags |= FRAME_GSO;
    if ((type & VIRTIO_NET_HDR_GSO_ECN) != 0) {
      if ((granted & 1) == 0) return FRAME_BAD_OFFLOAD;
      flags |= FRAME_ECN;
    }
  }
  store<u32>(entry, flags, ENTRY_OFF_FLAGS);
  store<u16>(entry, start, ENTRY_OFF_CSUM_START);
  store<u16>(entry, offset, ENTRY_OFF_CSUM_OFFSET);
  store<u8>(entry, <u8>kind, ENTRY_OFF_GSO_KIND);
  store<u16>(entry, size, ENTRY_OFF_GSO_SIZE);
  store<u16>(entry, load<u16>(header, VIRTIO_NET_HDR_OFF_HDR_LEN), ENTRY_OFF_HEADER_LENGTH);
  v128.store(header, i64x2.splat(0));
  gatherBytes(entry, 0, header, ENTRY_HEAD_SIZE);
  return 0;
}

/** Takes the first `skip` bytes, which are there, away from an entry and its piece list. */
function skipBytes(entry: usize, skip: u32): void {
  const left = load<u32>(entry, ENTRY_OFF_LENGTH) - skip;
  store<u32>(entry, left, ENTRY_OFF_LENGTH);
  let count = <u32>load<u16>(entry, ENTRY_OFF_FRAGMENTS);
  if (count <= 1) {
    store<u32>(entry, load<u32>(entry, ENTRY_OFF_ADDRESS) + skip, ENTRY_OFF_ADDRESS);
    store<u64>(entry, load<u64>(entry, ENTRY_OFF_GPA) + skip, ENTRY_OFF_GPA);
    return;
  }
  if (left == 0) {
    store<u16>(entry, 1, ENTRY_OFF_FRAGMENTS); // an empty frame at the place of the header
    return;
  }
  let piece = <usize>load<u32>(entry, ENTRY_OFF_FRAGMENT_LIST);
  let length = load<u32>(piece, PIECE_OFF_LENGTH);
  while (skip >= length) {
    skip -= length;
    piece += PIECE_SIZE;
    count--;
    length = load<u32>(piece, PIECE_OFF_LENGTH);
  }
  putPiece(
    piece,
    <usize>(load<u32>(piece, PIECE_OFF_ADDRESS) + skip),
    length - skip,
    load<u64>(piece, PIECE_OFF_GPA) + skip,
  );
  store<u32>(entry, load<u32>(piece, PIECE_OFF_ADDRESS), ENTRY_OFF_ADDRESS);
  store<u64>(entry, load<u64>(piece, PIECE_OFF_GPA), ENTRY_OFF_GPA);
  store<u32>(entry, <u32>piece, ENTRY_OFF_FRAGMENT_LIST);
  store<u16>(entry, <u16>count, ENTRY_OFF_FRAGMENTS);
}

/* ---- receive ----------------------------------------------------------------------------------- */

/** True when a chain is a receive buffer with room for a header, and for nothing to be read. */
function isBuffer(chain: usize): bool {
  return (
    load<u32>(chain, CHAIN_OFF_READABLE_PIECES) == 0 &&
    load<u32>(chain, ENTRY_OFF_LENGTH) >= <u32>VIRTIO_NET_HDR_SIZE
  );
}

/** Writes the pieces of a chain from `skip` bytes on to `list`, of which `room` are free. Returns how many; -1: too many. */
function copyList(chain: usize, skip: u32, list: usize, room: u32): i32 {
  const count = pieceCount(chain);
  let n: u32 = 0;
  for (let i: u32 = 0; i < count; i++) {
    const length = pieceLength(chain, i);
    if (skip >= length) {
      skip -= length;
      continue;
    }
    if (n == room) return -1;
    putPiece(
      list + <usize>n * PIECE_SIZE,
      pieceAddress(chain, i) + <usize>skip,
      length - skip,
      pieceGpa(chain, i) + skip,
    );
    skip = 0;
    n++;
  }
  return <i32>n;
}

/** Makes a target of `count` pieces at `list`. */
function putTarget(target: usize, capacity: u32, list: usize, count: u32, chains: u32): void {
  store<u32>(target, count == 0 ? 0 : load<u32>(list, PIECE_OFF_ADDRESS), ENTRY_OFF_ADDRESS);
  store<u32>(target, capacity, ENTRY_OFF_LENGTH);
  v128.store(target, i64x2.splat(0), ENTRY_OFF_FLAGS);
  store<u16>(target, <u16>count, ENTRY_OFF_FRAGMENTS);
  store<u32>(target, <u32>list, ENTRY_OFF_FRAGMENT_LIST);
  store<u64>(target, count == 0 ? 0 : load<u64>(list, PIECE_OFF_GPA), ENTRY_OFF_GPA);
  store<u32>(target, chains, TARGET_OFF_CHAINS);
}

/** Makes a target of what follows the header in a chain in one piece. */
function putPlain(target: usize, chain: usize): void {
  store<u32>(target, load<u32>(chain, ENTRY_OFF_ADDRESS) + VIRTIO_NET_HDR_SIZE, ENTRY_OFF_ADDRESS);
  store<u32>(target, load<u32>(chain, ENTRY_OFF_LENGTH) - VIRTIO_NET_HDR_SIZE, ENTRY_OFF_LENGTH);
  v128.store(target, i64x2.splat(0), ENTRY_OFF_FLAGS);
  store<u64>(target, load<u64>(chain, ENTRY_OFF_GPA) + VIRTIO_NET_HDR_SIZE, ENTRY_OFF_GPA);
  store<u32>(target, 1, TARGET_OFF_CHAINS);
}

/** Tells what placing came to. */
function placed(result: usize, chains: u32, reason: u32, frames: u32): u32 {
  store<u32>(result, chains, PLACE_OFF_CHAINS);
  store<u32>(result, reason, PLACE_OFF_REASON);
  return frames;
}

/**
 * Finds places for frames in the chains that a peek found on a receive queue. `lengths`: that of each of `frames` frames,
 * u32, when one may take several chains (mergeable buffers); 0: each chain is one place, whatever its length. `targets`:
 * an entry per frame, `lists`: room for `room` pieces for all of them. Returns the number of places; `result` says how
 * many chains they take and why there are not more.
 */
export function virtioNetPlace(
  chains: usize,
  chainCount: u32,
  lengths: usize,
  frames: u32,
  targets: usize,
  lists: usize,
  room: u32,
  result: usize,
): u32 {
  let used: u32 = 0;
  let list = lists;
  for (let i: u32 = 0; i < frames; i++) {
    if (used == chainCount) return placed(result, used, PLACE_CHAINS, i);
    let chain = chains + <usize>used * ENTRY_SIZE;
    if (!isBuffer(chain)) return placed(result, used, PLACE_BAD, i);
    const target = targets + <usize>i * ENTRY_SIZE;
    const length: u32 = lengths == 0 ? 0 : load<u32>(lengths + ((<usize>i) << 2));
    let capacity = load<u32>(chain, ENTRY_OFF_LENGTH) - VIRTIO_NET_HDR_SIZE;
    if (length <= capacity && pieceCount(chain) == 1) {
      putPlain(target, chain);
      used++;
      continue;
    }
    let skip: u32 = VIRTIO_NET_HDR_SIZE;
    let pieces: u32 = 0;
    let taken: u32 = 0;
    for (;;) {
      const n = copyList(chain, skip, list + <usize>pieces * PIECE_SIZE, room - pieces);
      if (n < 0) return placed(result, used, PLACE_PIECES, i);
      pieces += n;
      taken++;
      if (length <= capacity) break;
      if (used + taken == chainCount) return placed(result, used, PLACE_CHAINS, i);
      chain += ENTRY_SIZE;
      if (!isBuffer(chain)) return placed(result, used, PLACE_BAD, i);
      skip = 0; // only the first chain has a header (5.1.6.4)
      const more = load<u32>(chain, ENTRY_OFF_LENGTH);
      capacity = capacity > u32.MAX_VALUE - more ? u32.MAX_VALUE : capacity + more;
    }
    putTarget(target, capacity, list, pieces, taken);
    list += <usize>pieces * PIECE_SIZE;
    room -= pieces;
    used += taken;
  }
  return placed(result, used, PLACE_ALL, frames);
}

/**
 * Writes the headers of n frames that were moved to the first n targets, and notes in each chain how much of it was
 * written. `flags`: {@link NET_MERGEABLE}, {@link NET_DATA_VALID}. `scratch`: room for a header. Returns the number of
 * chains that the frames take.
 */
export function virtioNetFinish(
  targets: usize,
  n: u32,
  chains: usize,
  flags: u32,
  regions: usize,
  scratch: usize,
): u32 {
  let used: u32 = 0;
  for (let i: u32 = 0; i < n; i++) {
    const target = targets + <usize>i * ENTRY_SIZE;
    let chain = chains + <usize>used * ENTRY_SIZE;
    const count = load<u32>(target, TARGET_OFF_CHAINS);
    const single = load<u16>(chain, ENTRY_OFF_FRAGMENTS) <= 1;
    const header = single ? <usize>load<u32>(chain, ENTRY_OFF_ADDRESS) : scratch;
    encode(header, target, count, flags);
    if (single) logWrite(regions, load<u64>(chain, ENTRY_OFF_GPA), VIRTIO_NET_HDR_SIZE);
    else scatterBytes(chain, scratch, VIRTIO_NET_HDR_SIZE, regions);
    let left = load<u32>(target, ENTRY_OFF_LENGTH) + VIRTIO_NET_HDR_SIZE;
    for (let k: u32 = 0; k < count; k++) {
      const capacity = load<u32>(chain, ENTRY_OFF_LENGTH);
      const written = left < capacity ? left : capacity;
      store<u32>(chain, written, CHAIN_OFF_USED);
      left -= written;
      chain += ENTRY_SIZE;
    }
    used += count;
  }
  return used;
}

/** Writes one header from what the frame's entry says it needs. */
function encode(header: usize, target: usize, buffers: u32, how: u32): void {
  const needs = load<u32>(target, ENTRY_OFF_FLAGS);
  let flags: u32 = 0;
  let start: u16 = 0;
  let offset: u16 = 0;
  if ((needs & FRAME_NEEDS_CSUM) != 0) {
    flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
    start = load<u16>(target, ENTRY_OFF_CSUM_START);
    offset = load<u16>(target, ENTRY_OFF_CSUM_OFFSET);
  } else if ((needs & FRAME_CSUM_VALID) != 0 && (how & NET_DATA_VALID) != 0) {
    flags = VIRTIO_NET_HDR_F_DATA_VALID;
  }
  let type: u32 = VIRTIO_NET_HDR_GSO_NONE;
  let length: u16 = 0;
  let size: u16 = 0;
  if ((needs & FRAME_GSO) != 0) {
    type = typeOf(load<u8>(target, ENTRY_OFF_GSO_KIND));
    if ((needs & FRAME_ECN) != 0) type |= VIRTIO_NET_HDR_GSO_ECN;
    length = load<u16>(target, ENTRY_OFF_HEADER_LENGTH);
    size = load<u16>(target, ENTRY_OFF_GSO_SIZE);
  }
  store<u8>(header, <u8>flags, VIRTIO_NET_HDR_OFF_FLAGS);
  store<u8>(header, <u8>type, VIRTIO_NET_HDR_OFF_GSO_TYPE);
  store<u16>(header, length, VIRTIO_NET_HDR_OFF_HDR_LEN);
  store<u16>(header, size, VIRTIO_NET_HDR_OFF_GSO_SIZE);
  store<u16>(header, start, VIRTIO_NET_HDR_OFF_CSUM_START);
  store<u16>(header, offset, VIRTIO_NET_HDR_OFF_CSUM_OFFSET);
  // without mergeable buffers it is 1 for drivers of version 1 (5.1.6.4.1)
  store<u16>(header, (how & NET_MERGEABLE) != 0 ? <u16>buffers : 1, VIRTIO_NET_HDR_OFF_NUM_BUFFERS);
}
