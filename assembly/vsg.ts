/**
 * venet's scatter-gather descriptors, VSG (`docs/abi/venet.md` sections 5 and 7), decoded to and encoded from burst
 * tables. South only.
 *
 * ```
 *   0 cookie | 8 flags | 12 len | 16 csum start, offset | 20 gso type | 22 hdrlen | 24 size | 28 count | 32 iov[count]
 *   iov: 0 len | 8 ptr     (16 bytes; i386 layout of 2009: 0 len | 4 ptr, 12 bytes)
 * ```
 *
 * A VSG is copied once into a private area and checked there: the guest may rewrite it while we look. A VSG has the
 * layout of the ring that carries it.
 */
import { popPeek, pushReserve } from "./burst";
import {
  ENTRY_HEAD_SIZE,
  ENTRY_OFF_ADDRESS,
  ENTRY_OFF_COOKIE,
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
  EP_OFF_GRANTED_PUSH,
  EP_OFF_STRIDE,
  FRAME_BAD_ADDRESS,
  FRAME_BAD_DESCRIPTOR,
  FRAME_BAD_OFFLOAD,
  FRAME_COOKIE_READ,
  GSO_TCP4,
  GSO_TCP6,
  GSO_UDP_L4,
  PIECE_OFF_LENGTH,
  PIECE_SIZE,
  REGION_OFF_ADDRESS,
  REGION_OFF_GPA,
  REGION_OFF_LENGTH,
  REGION_SIZE,
  REGIONS_OFF_COUNT,
  REGIONS_OFF_ENTRIES,
  SIG_OFF_REGIONS,
  VIOLATION_ADDRESS,
  VIOLATION_DESCRIPTOR,
} from "./abi/arena";
import { EINVAL } from "./abi/errno";
import { IDX_INUSE, IOQ_DESC_SIZE_ILP32 } from "./abi/ioq";
import {
  VENET_GSO_MAX,
  VSG_ECN,
  VSG_GSO,
  VSG_GSO_TCPV4,
  VSG_GSO_TCPV6,
  VSG_GSO_UDP_L4,
  VSG_IOV_OFF_PTR,
  VSG_IOV_OFF_PTR_ILP32,
  VSG_IOV_SIZE,
  VSG_IOV_SIZE_ILP32,
  VSG_IOVS_MAX,
  VSG_NEEDS_CSUM,
  VSG_OFF_COOKIE,
  VSG_OFF_COUNT,
  VSG_OFF_CSUM_OFFSET,
  VSG_OFF_CSUM_START,
  VSG_OFF_FLAGS,
  VSG_OFF_GSO_HDRLEN,
  VSG_OFF_GSO_SIZE,
  VSG_OFF_GSO_TYPE,
  VSG_OFF_LEN,
  VSG_SIZE_FIXED,
} from "./abi/venet";
import { gatherBytes, putPiece } from "./pieces";
import { logWrite, translateRange } from "./regions";
import { violate } from "./ring";

function isIlp32(endpoint: usize): bool {
  return load<u32>(endpoint, EP_OFF_STRIDE) == <u32>IOQ_DESC_SIZE_ILP32;
}

/** Segmentation kind of a VSG's type, 0 for one that does not exist or is never granted. */
function kindOf(type: u32): u32 {
  if (type == VSG_GSO_TCPV4) return GSO_TCP4;
  if (type == VSG_GSO_TCPV6) return GSO_TCP6;
  if (type == VSG_GSO_UDP_L4) return GSO_UDP_L4;
  return 0;
}

function typeOf(kind: u32): u32 {
  if (kind == GSO_TCP6) return VSG_GSO_TCPV6;
  if (kind == GSO_UDP_L4) return VSG_GSO_UDP_L4;
  return VSG_GSO_TCPV4;
}

/**
 * South of the TX ring: peeks up to `max` descriptors, decodes the VSG of each into its table entry, its pieces into
 * `lists` (VSG_IOVS_MAX pieces per entry). `pool` is the guest address of the PMTD pool, `poolLength` its length; 0: the
 * descriptor's `ptr` is a guest address. `scratch` holds VSG_SIZE_MAX private bytes. `granted` has a bit for each kind
 * that was negotiated (1 << GSO_…) and bit 0 for ECN. Entries that must be dropped have FRAME_BAD_… flags and no address.
 * Number granted, or a negated errno as `popPeek`.
 */
export function vsgPeek(
  endpoint: usize,
  table: usize,
  max: u32,
  lists: usize,
  poolLow: u32,
  poolHigh: u32,
  poolLength: u32,
  scratch: usize,
  granted: u32,
): i32 {
  const n = popPeek(endpoint, IDX_INUSE, table, max, 0);
  const pool = ((<u64>poolHigh) << 32) | poolLow;
  const ilp32 = isIlp32(endpoint);
  const regions = <usize>load<u32>(endpoint, SIG_OFF_REGIONS);
  for (let i: i32 = 0; i < n; i++) {
    const entry = table + <usize>i * ENTRY_SIZE;
    const list = lists + <usize>i * (VSG_IOVS_MAX * PIECE_SIZE);
    const bad = decode(entry, list, regions, pool, poolLength, scratch, granted, ilp32);
    if (bad != 0) {
      store<u32>(entry, 0, ENTRY_OFF_ADDRESS);
      store<u16>(entry, 0, ENTRY_OFF_FRAGMENTS);
      store<u32>(entry, (load<u32>(entry, ENTRY_OFF_FLAGS) & FRAME_COOKIE_READ) | bad, ENTRY_OFF_FLAGS);
    }
  }
  return n;
}

/** Decodes one VSG. 0, or the FRAME_BAD_… flag. */
function decode(
  entry: usize,
  list: usize,
  regions: usize,
  pool: u64,
  poolLength: u32,
  vsg: usize,
  granted: u32,
  ilp32: bool,
): u32 {
  const pointer = load<u64>(entry, ENTRY_OFF_GPA);
  const size = load<u32>(entry, ENTRY_OFF_LENGTH);
  const iovSize: u32 = ilp32 ? VSG_IOV_SIZE_ILP32 : VSG_IOV_SIZE;
  // first drivers always say the size of the whole slot, later ones that of the pieces in use (5.3)
  if (size < <u32>VSG_SIZE_FIXED + iovSize || size > <u32>VSG_SIZE_FIXED + VSG_IOVS_MAX * iovSize)
    return FRAME_BAD_DESCRIPTOR;
  let source: usize;
  if (poolLength != 0) {
    if (pointer > <u64>poolLength || <u64>size > <u64>poolLength - pointer) return FRAME_BAD_ADDRESS;
    source = translateRange(regions, pool + pointer, size);
  } else {
    source = translateRange(regions, pointer, size);
  }
  if (source == 0) return FRAME_BAD_ADDRESS;
  memory.copy(vsg, source, size); // double fetch: from here on only this copy is looked at
  store<u64>(entry, load<u64>(vsg, VSG_OFF_COOKIE), ENTRY_OFF_COOKIE);
  store<u32>(entry, FRAME_COOKIE_READ, ENTRY_OFF_FLAGS);

  const count = load<u32>(vsg, VSG_OFF_COUNT);
  if (count == 0 || count > <u32>VSG_IOVS_MAX || size < <u32>VSG_SIZE_FIXED + count * iovSize)
    return FRAME_BAD_DESCRIPTOR;
  const total = load<u32>(vsg, VSG_OFF_LEN);
  let sum: u64 = 0;
  let pieces: u32 = 0;
  for (let i: u32 = 0; i < count; i++) {
    const iov = vsg + VSG_SIZE_FIXED + <usize>(i * iovSize);
    const length = load<u32>(iov);
    if (length == 0) continue;
    sum += length;
    const gpa = ilp32 ? load<u64>(iov, VSG_IOV_OFF_PTR_ILP32) : load<u64>(iov, VSG_IOV_OFF_PTR);
    const address = translateRange(regions, gpa, length);
    if (address == 0) return FRAME_BAD_ADDRESS;
    putPiece(list + <usize>pieces * PIECE_SIZE, address, length, gpa);
    pieces++;
  }
  if (sum != <u64>total || pieces == 0 || total > <u32>VENET_GSO_MAX) return FRAME_BAD_DESCRIPTOR;

  const flags = load<u32>(vsg, VSG_OFF_FLAGS) & (VSG_NEEDS_CSUM | VSG_GSO | VSG_ECN);
  const start = load<u16>(vsg, VSG_OFF_CSUM_START);
  const offset = load<u16>(vsg, VSG_OFF_CSUM_OFFSET);
  if ((flags & VSG_NEEDS_CSUM) != 0 && <u32>start + <u32>offset + 2 > total) return FRAME_BAD_OFFLOAD;
  let kind: u32 = 0;
  let segment: u16 = 0;
  if ((flags & VSG_GSO) != 0) {
    kind = kindOf(load<u8>(vsg, VSG_OFF_GSO_TYPE));
    segment = load<u16>(vsg, VSG_OFF_GSO_SIZE);
    if (kind == 0 || segment == 0 || (granted & (1 << kind)) == 0) return FRAME_BAD_OFFLOAD;
    if ((flags & VSG_ECN) != 0 && (granted & 1) == 0) return FRAME_BAD_OFFLOAD;
  }
  store<u32>(entry, load<u32>(list), ENTRY_OFF_ADDRESS);
  store<u32>(entry, total, ENTRY_OFF_LENGTH);
  store<u32>(entry, flags | FRAME_COOKIE_READ, ENTRY_OFF_FLAGS);
  store<u16>(entry, start, ENTRY_OFF_CSUM_START);
  store<u16>(entry, offset, ENTRY_OFF_CSUM_OFFSET);
  store<u8>(entry, <u8>kind, ENTRY_OFF_GSO_KIND);
  store<u16>(entry, segment, ENTRY_OFF_GSO_SIZE);
  store<u16>(entry, load<u16>(vsg, VSG_OFF_GSO_HDRLEN), ENTRY_OFF_HEADER_LENGTH);
  store<u16>(entry, <u16>pieces, ENTRY_OFF_FRAGMENTS);
  store<u32>(entry, <u32>list, ENTRY_OFF_FRAGMENT_LIST);
  const head = entry + ENTRY_OFF_HEAD;
  v128.store(head, i64x2.splat(0));
  gatherBytes(entry, 0, head, ENTRY_HEAD_SIZE);
  return 0;
}

/**
 * South of the RX ring with L4RO: reserves up to `max` descriptors and reads the slot of each: the entry is the posted
 * buffer, its cookie word the slot's address. `slotSize` is what the guest's descriptors said at setup. A slot outside
 * the pool, or a buffer outside the guest's memory, breaks the queue. Number granted, or a negated errno.
 */
export function vsgReserve(
  endpoint: usize,
  table: usize,
  max: u32,
  poolLow: u32,
  poolHigh: u32,
  poolLength: u32,
  slotSize: u32,
): i32 {
  const pool = ((<u64>poolHigh) << 32) | poolLow;
  const ilp32 = isIlp32(endpoint);
  if (slotSize < <u32>VSG_SIZE_FIXED + (ilp32 ? VSG_IOV_SIZE_ILP32 : VSG_IOV_SIZE)) return -EINVAL;
  const n = pushReserve(endpoint, IDX_INUSE, table, max, 0);
  const regions = <usize>load<u32>(endpoint, SIG_OFF_REGIONS);
  for (let i: i32 = 0; i < n; i++) {
    const entry = table + <usize>i * ENTRY_SIZE;
    const offset = load<u64>(entry, ENTRY_OFF_GPA);
    let slot: usize = 0;
    if (offset <= <u64>poolLength && <u64>slotSize <= <u64>poolLength - offset) {
      slot = translateRange(regions, pool + offset, slotSize);
    }
    if (slot == 0) {
      store<u32>(endpoint, 0, EP_OFF_GRANTED_PUSH);
      return violate(endpoint, VIOLATION_DESCRIPTOR);
    }
    const iov = slot + VSG_SIZE_FIXED;
    const length = load<u32>(iov); // double fetch: length and address are read once
    const gpa = ilp32 ? load<u64>(iov, VSG_IOV_OFF_PTR_ILP32) : load<u64>(iov, VSG_IOV_OFF_PTR);
    const address = translateRange(regions, gpa, length);
    if (address == 0) {
      store<u32>(endpoint, 0, EP_OFF_GRANTED_PUSH);
      return violate(endpoint, VIOLATION_ADDRESS);
    }
    store<u32>(entry, <u32>address, ENTRY_OFF_ADDRESS);
    store<u32>(entry, length, ENTRY_OFF_LENGTH);
    store<u64>(entry, gpa, ENTRY_OFF_GPA);
    store<u64>(entry, <u64>slot, ENTRY_OFF_COOKIE);
  }
  return n;
}

/** Adds the buffers of `count` table entries (pages) to a posted buffer: its capacity and pieces grow. `list` has room for them. */
export function vsgExtend(entry: usize, list: usize, pages: usize, count: u32): void {
  let capacity = load<u32>(entry, ENTRY_OFF_LENGTH);
  putPiece(list, load<u32>(entry, ENTRY_OFF_ADDRESS), capacity, load<u64>(entry, ENTRY_OFF_GPA));
  for (let i: u32 = 0; i < count; i++) {
    const page = pages + <usize>i * ENTRY_SIZE;
    const length = load<u32>(page, ENTRY_OFF_LENGTH);
    putPiece(
      list + <usize>(i + 1) * PIECE_SIZE,
      load<u32>(page, ENTRY_OFF_ADDRESS),
      length,
      load<u64>(page, ENTRY_OFF_GPA),
    );
    capacity += length;
  }
  store<u32>(entry, capacity, ENTRY_OFF_LENGTH);
  store<u16>(entry, <u16>(count + 1), ENTRY_OFF_FRAGMENTS);
  store<u32>(entry, <u32>list, ENTRY_OFF_FRAGMENT_LIST);
}

/**
 * Writes the slots of n filled entries, to be published by a commit. Entries with pieces quote the cookies of `pages`
 * (the table given to `vsgExtend`) for all but the first piece: the guest gets its own reference back, not an address.
 */
export function vsgFinish(endpoint: usize, table: usize, n: u32, pages: usize): void {
  const ilp32 = isIlp32(endpoint);
  const regions = <usize>load<u32>(endpoint, SIG_OFF_REGIONS);
  for (let i: u32 = 0; i < n; i++) {
    const entry = table + <usize>i * ENTRY_SIZE;
    const slot = <usize>load<u32>(entry, ENTRY_OFF_COOKIE);
    const flags = load<u32>(entry, ENTRY_OFF_FLAGS) & (VSG_NEEDS_CSUM | VSG_GSO | VSG_ECN);
    const length = load<u32>(entry, ENTRY_OFF_LENGTH);
    store<u32>(slot, flags, VSG_OFF_FLAGS);
    store<u32>(slot, length, VSG_OFF_LEN);
    store<u16>(slot, load<u16>(entry, ENTRY_OFF_CSUM_START), VSG_OFF_CSUM_START);
    store<u16>(slot, load<u16>(entry, ENTRY_OFF_CSUM_OFFSET), VSG_OFF_CSUM_OFFSET);
    store<u8>(slot, <u8>typeOf(load<u8>(entry, ENTRY_OFF_GSO_KIND)), VSG_OFF_GSO_TYPE);
    store<u16>(slot, load<u16>(entry, ENTRY_OFF_HEADER_LENGTH), VSG_OFF_GSO_HDRLEN);
    store<u16>(slot, load<u16>(entry, ENTRY_OFF_GSO_SIZE), VSG_OFF_GSO_SIZE);
    const count = finishPieces(entry, slot, length, pages, ilp32);
    store<u32>(slot, count, VSG_OFF_COUNT);
    const written = <u32>VSG_SIZE_FIXED + count * <u32>(ilp32 ? VSG_IOV_SIZE_ILP32 : VSG_IOV_SIZE);
    logWrite(regions, slotGpa(regions, slot), written);
  }
}

/** Guest-physical address of an address of this memory that lies in a region; 0 when it does not. */
function slotGpa(regions: usize, address: usize): u64 {
  const count = load<u32>(regions, REGIONS_OFF_COUNT);
  for (let i: u32 = 0; i < count; i++) {
    const region = regions + REGIONS_OFF_ENTRIES + <usize>i * REGION_SIZE;
    const start = <usize>load<u32>(region, REGION_OFF_ADDRESS);
    const offset = address - start;
    if (address >= start && offset < <usize>load<u32>(region, REGION_OFF_LENGTH)) {
      return load<u64>(region, REGION_OFF_GPA) + <u64>offset;
    }
  }
  return 0;
}

/** Writes the pieces in use. Returns their number. */
function finishPieces(entry: usize, slot: usize, length: u32, pages: usize, ilp32: bool): u32 {
  const first = slot + VSG_SIZE_FIXED;
  const list = <usize>load<u32>(entry, ENTRY_OFF_FRAGMENT_LIST);
  const extended = load<u16>(entry, ENTRY_OFF_FRAGMENTS) > 1;
  let left = length;
  const own = extended ? load<u32>(list, PIECE_OFF_LENGTH) : length;
  let used = left < own ? left : own;
  store<u32>(first, used);
  left -= used;
  let count: u32 = 1;
  while (left != 0) {
    const page = pages + <usize>(count - 1) * ENTRY_SIZE;
    const capacity = load<u32>(page, ENTRY_OFF_LENGTH);
    used = left < capacity ? left : capacity;
    const cookie = load<u64>(page, ENTRY_OFF_COOKIE);
    const iov = first + <usize>count * (ilp32 ? VSG_IOV_SIZE_ILP32 : VSG_IOV_SIZE);
    store<u32>(iov, used);
    if (ilp32) store<u64>(iov, cookie, VSG_IOV_OFF_PTR_ILP32);
    else store<u64>(iov, cookie, VSG_IOV_OFF_PTR);
    left -= used;
    count++;
  }
  return count;
}
