/**
 * Packed virtqueues (virtio 1.2, 2.8): one side of one queue.
 *
 * Bursts
 * ------
 * A descriptor is its own ring entry: its flags say whether it is available or used in this lap of the ring. Both sides
 * take them in ring order, so nobody sees descriptor i of a burst before its first one. All are written with plain
 * stores, the flags of the first come last and publish the burst:
 *   driver   descriptors, flags of all but the first    plain     device   used descriptors, the same   plain
 *            [A1] flags of the first, once more         ordered            [U1] the same                ordered
 *            [A2] device's event area                   load               [U2] driver's event area     load
 *
 * Why no wake-up is lost
 * ----------------------
 *   receiver [N1] own event area                        ordered
 *            [N2] flags of the next descriptor          load
 * Dekker's pattern as in `virtq-split.ts`: if A2 misses N1, then A1 came before N2, and enable returns that there is
 * work; if N2 misses A1, then A2 sees N1, which is either "notify" or the position of the very descriptor that N2 found
 * unchanged, and this burst passes it. An event area is stored and loaded as one aligned word; a driver that stores
 * position and flags apart (2.8.14) is served as well, if the later store is the ordered one.
 */
import {
  ENTRY_SIZE,
  PIECE_SIZE,
  REGIONS_OFF_COUNT,
  REGIONS_OFF_ENTRIES,
  REGION_OFF_ADDRESS,
  REGION_OFF_GPA,
  REGION_OFF_LENGTH,
} from "./abi/arena";
import {
  CHAIN_OFF_ID,
  CHAIN_OFF_SLOTS,
  CHAIN_OFF_USED,
  CHAIN_OFF_WRITABLE_BYTES,
  VQ_DRIVER,
  VQ_EVENT_INDEX,
  VQ_IN_ORDER,
  VQ_NO_BATCH,
  VQ_OFF_AVAIL,
  VQ_OFF_AVAIL_WRAP,
  VQ_OFF_BATCH_ID,
  VQ_OFF_BYTES,
  VQ_OFF_CHAINS,
  VQ_OFF_DEFERRED,
  VQ_OFF_DESC,
  VQ_OFF_DESC_GPA,
  VQ_OFF_DEVICE,
  VQ_OFF_DEVICE_GPA,
  VQ_OFF_DRIVER,
  VQ_OFF_DRIVER_GPA,
  VQ_OFF_GRANTED,
  VQ_OFF_GRANTED_SLOTS,
  VQ_OFF_GRANTED_TABLE,
  VQ_OFF_IN_FLIGHT,
  VQ_OFF_POOL,
  VQ_OFF_REGIONS,
  VQ_OFF_SIZE,
  VQ_OFF_SLOTS,
  VQ_OFF_USED,
  VQ_OFF_USED_WRAP,
  VQ_ORDER_SIZE,
  VQ_VIOLATION_ADDRESS,
  VQ_VIOLATION_EMPTY,
  VQ_VIOLATION_INDIRECT,
  VQ_VIOLATION_LENGTH,
  VQ_VIOLATION_LOOP,
  VQ_VIOLATION_ORDER,
  VQ_VIOLATION_OVERFLOW,
  VQ_VIOLATION_PIECES,
} from "./abi/arena-virtq";
import { EINVAL, EPROTO } from "./abi/errno";
import {
  PACKED_DESC_F_AVAIL,
  PACKED_DESC_F_USED,
  PACKED_DESC_OFF_FLAGS,
  PACKED_EVENT_AREA_SIZE,
  PACKED_EVENT_DESC,
  PACKED_EVENT_DISABLE,
  PACKED_EVENT_ENABLE,
  VIRTQ_DESC_F_INDIRECT,
  VIRTQ_DESC_F_NEXT,
  VIRTQ_DESC_F_WRITE,
  VIRTQ_DESC_OFF_LEN,
  VIRTQ_DESC_SIZE,
} from "./abi/virtio";
import { addCounter, loadHalf, loadWord, storeHalf, storeWord } from "./memory-order";
import { putPiece } from "./pieces";
import { translateRange } from "./regions";
import {
  countNotification,
  has,
  indirectTable,
  isLogging,
  logArea,
  pieceLimit,
  putChain,
  putSingle,
  virtqViolate,
} from "./virtq";

/** Both bits that tell the state of a descriptor. */
export const STATE: u32 = PACKED_DESC_F_AVAIL | PACKED_DESC_F_USED;
/** A descriptor whose chain is not just itself. */
const NOT_SINGLE: u32 = VIRTQ_DESC_F_NEXT | VIRTQ_DESC_F_INDIRECT;
/** Where id and flags are when length, id and flags are one word. */
export const ID_SHIFT: u64 = 32;
export const FLAGS_SHIFT: u64 = 48;

/** State bits of a descriptor that is available in a lap with this wrap counter (2.8.1). */
export function availableBits(wrap: u32): u32 {
  return wrap != 0 ? PACKED_DESC_F_AVAIL : PACKED_DESC_F_USED;
}

/** State bits of one that is used. */
export function usedBits(wrap: u32): u32 {
  return wrap != 0 ? STATE : 0;
}

export function descriptorAt(vq: usize, position: u32): usize {
  return <usize>load<u32>(vq, VQ_OFF_DESC) + <usize>position * VIRTQ_DESC_SIZE;
}

/** Moves a private position on by `slots` (at most the ring's size), and its wrap counter with it. */
export function move(vq: usize, place: usize, wrapPlace: usize, slots: u32): void {
  const size = load<u32>(vq, VQ_OFF_SIZE);
  const next = load<u32>(vq + place) + slots;
  if (next < size) {
    store<u32>(vq + place, next);
  } else {
    store<u32>(vq + place, next - size);
    store<u32>(vq + wrapPlace, load<u32>(vq + wrapPlace) ^ 1);
  }
}

/**
 * True when a peer with this event area wants to know of a burst of `slots` descriptors that ended before position
 * `to` in the lap of `wrap` (2.8.10). What is not negotiated or not defined counts as "notify".
 */
export function wanted(vq: usize, event: u32, to: u32, wrap: u32, slots: u32): bool {
  const kind = (event >> 16) & 3;
  if (kind == PACKED_EVENT_DISABLE) return false;
  if (kind != PACKED_EVENT_DESC || !has(vq, VQ_EVENT_INDEX)) return true;
  let position = event & 0x7fff;
  if (((event >> 15) & 1) != wrap) position -= load<u32>(vq, VQ_OFF_SIZE); // in the lap before; modulo 2^32
  return to - position - 1 < slots;
}

/* ---- device ------------------------------------------------------------------------------------ */

/**
 * Walks the chain that begins at `position`, with at most `left` descriptors of the ring, and fills its entry and piece
 * list. Descriptors of a chain follow each other, in the ring (2.8.6) as in an indirect table (2.8.7), where flags other
 * than WRITE mean nothing. Number of ring descriptors, or -EPROTO.
 */
function walkChain(vq: usize, position: u32, left: u32, entry: usize, list: usize, limit: u32): i32 {
  const regions = <usize>load<u32>(vq, VQ_OFF_REGIONS);
  const ring = <usize>load<u32>(vq, VQ_OFF_DESC);
  const end = ring + <usize>load<u32>(vq, VQ_OFF_SIZE) * VIRTQ_DESC_SIZE;
  let descriptor = ring + <usize>position * VIRTQ_DESC_SIZE;
  let indirect: u32 = 0; // descriptors left in the indirect table
  let inTable = false;
  let id: u32 = 0;
  let slots: u32 = 0;
  let readable: u32 = 0;
  let writable: u32 = 0;
  let readableBytes: u64 = 0;
  let writableBytes: u64 = 0;
  let piece = list;
  for (;;) {
    // double fetch: each descriptor is read here and nowhere else; its first one was seen to be available
    const gpa = load<u64>(descriptor);
    const rest = load<u64>(descriptor, VIRTQ_DESC_OFF_LEN);
    const length = <u32>rest;
    const flags = <u32>(rest >> FLAGS_SHIFT);
    if (!inTable) {
      if (slots == left) return virtqViolate(vq, VQ_VIOLATION_LOOP);
      slots++;
      id = (<u32>(rest >> ID_SHIFT)) & 0xffff; // the last one's counts (2.8.6)
      if ((flags & VIRTQ_DESC_F_INDIRECT) != 0) {
        // a list is either in the ring or in a table (2.8.7)
        descriptor = indirectTable(vq, gpa, length, slots == 1 && (flags & VIRTQ_DESC_F_NEXT) == 0);
        if (descriptor == 0) return -EPROTO;
        indirect = length / VIRTQ_DESC_SIZE;
        inTable = true;
        continue;
      }
    } else if ((flags & VIRTQ_DESC_F_INDIRECT) != 0) {
      return virtqViolate(vq, VQ_VIOLATION_INDIRECT);
    }
    if (length == 0) return virtqViolate(vq, VQ_VIOLATION_EMPTY);
    const address = translateRange(regions, gpa, length);
    if (address == 0) return virtqViolate(vq, VQ_VIOLATION_ADDRESS);
    if (readable + writable == limit) return virtqViolate(vq, VQ_VIOLATION_PIECES);
    if ((flags & VIRTQ_DESC_F_WRITE) != 0) {
      writable++;
      writableBytes += length;
    } else {
      if (writable != 0) return virtqViolate(vq, VQ_VIOLATION_ORDER);
      readable++;
      readableBytes += length;
    }
    putPiece(piece, address, length, gpa);
    piece += PIECE_SIZE;
    descriptor += VIRTQ_DESC_SIZE;
    if (inTable) {
      if (--indirect == 0) break;
    } else {
      if ((flags & VIRTQ_DESC_F_NEXT) == 0) break;
      if (descriptor == end) descriptor = ring;
    }
  }
  if (readableBytes + writableBytes > <u64>u32.MAX_VALUE) return virtqViolate(vq, VQ_VIOLATION_LENGTH);
  putChain(entry, list, id, slots, readable, readableBytes, writable, writableBytes);
  return <i32>slots;
}

/**
 * Device: copies up to `max` available chains to the table. `lists`: room for `room` pieces for each of them. Chains of
 * one descriptor in the first region are taken by the loop itself. Number, or -EPROTO.
 */
export function packedPeek(vq: usize, table: usize, max: u32, lists: usize, room: u32): i32 {
  const size = load<u32>(vq, VQ_OFF_SIZE);
  const regions = <usize>load<u32>(vq, VQ_OFF_REGIONS);
  const start = load<u64>(regions, REGIONS_OFF_ENTRIES + REGION_OFF_GPA);
  const bytes =
    load<u32>(regions, REGIONS_OFF_COUNT) != 0
      ? <u64>load<u32>(regions, REGIONS_OFF_ENTRIES + REGION_OFF_LENGTH)
      : 0;
  const base = load<u32>(regions, REGIONS_OFF_ENTRIES + REGION_OFF_ADDRESS);
  const ring = <usize>load<u32>(vq, VQ_OFF_DESC);
  const free = size - load<u32>(vq, VQ_OFF_SLOTS);
  let position = load<u32>(vq, VQ_OFF_AVAIL);
  let state = availableBits(load<u32>(vq, VQ_OFF_AVAIL_WRAP));
  let left = free;
  let n: u32 = 0;
  let entry = table;
  store<u32>(vq, 0, VQ_OFF_GRANTED);
  store<u32>(vq, 0, VQ_OFF_GRANTED_SLOTS);
  while (n < max) {
    const descriptor = ring + <usize>position * VIRTQ_DESC_SIZE;
    const flags = loadHalf(descriptor + PACKED_DESC_OFF_FLAGS); // pairs with [A1]
    if ((flags & STATE) != state) break;
    if (left == 0) return virtqViolate(vq, VQ_VIOLATION_OVERFLOW);
    const gpa = load<u64>(descriptor); // double fetch: once, and `flags` above are those that count
    const rest = load<u64>(descriptor, VIRTQ_DESC_OFF_LEN);
    const length = rest & 0xffffffff;
    const offset = gpa - start; // wraps below the region, and is then above every size
    if ((flags & NOT_SINGLE) == 0 && length != 0 && offset <= bytes && length <= bytes - offset) {
      const id = (<u32>(rest >> ID_SHIFT)) & 0xffff;
      putSingle(entry, id, base + <u32>offset, length, gpa, (flags >> 1) & 1);
      left--;
      position++;
    } else {
      const list = lists + <usize>n * room * PIECE_SIZE;
      const slots = walkChain(vq, position, left, entry, list, pieceLimit(vq, room));
      if (slots < 0) return slots;
      left -= slots;
      position += slots;
    }
    if (position >= size) {
      position -= size;
      state ^= STATE;
    }
    n++;
    entry += ENTRY_SIZE;
  }
  if (has(vq, VQ_IN_ORDER)) noteOrder(vq, table, n);
  store<u32>(vq, n, VQ_OFF_GRANTED);
  store<u32>(vq, free - left, VQ_OFF_GRANTED_SLOTS);
  store<u32>(vq, <u32>table, VQ_OFF_GRANTED_TABLE);
  return <i32>n;
}

/** In order: remembers which chain begins at which position, and how much may be written into it. */
function noteOrder(vq: usize, table: usize, n: u32): void {
  const size = load<u32>(vq, VQ_OFF_SIZE);
  const order = <usize>load<u32>(vq, VQ_OFF_POOL);
  let position = load<u32>(vq, VQ_OFF_AVAIL);
  for (let i: u32 = 0; i < n; i++) {
    const entry = table + <usize>i * ENTRY_SIZE;
    store<u32>(order + <usize>position * VQ_ORDER_SIZE, load<u32>(entry, CHAIN_OFF_ID));
    store<u32>(order + <usize>position * VQ_ORDER_SIZE, load<u32>(entry, CHAIN_OFF_WRITABLE_BYTES), 4);
    position += load<u32>(entry, CHAIN_OFF_SLOTS);
    if (position >= size) position -= size;
  }
}

/** Device: consumes n chains of the last peek, which found at least as many. 0; -EINVAL: its table was changed. */
export function packedAdvance(vq: usize, n: u32): i32 {
  const granted = load<u32>(vq, VQ_OFF_GRANTED);
  const grantedSlots = load<u32>(vq, VQ_OFF_GRANTED_SLOTS);
  const table = <usize>load<u32>(vq, VQ_OFF_GRANTED_TABLE);
  let slots = n == granted ? grantedSlots : n;
  if (n != granted && grantedSlots != granted) {
    let sum: u64 = 0;
    for (let i: u32 = 0; i < n; i++) sum += load<u32>(table + <usize>i * ENTRY_SIZE, CHAIN_OFF_SLOTS);
    if (sum < n || sum > grantedSlots - (granted - n)) return -EINVAL;
    slots = <u32>sum;
  }
  move(vq, VQ_OFF_AVAIL, VQ_OFF_AVAIL_WRAP, slots);
  store<u32>(vq, load<u32>(vq, VQ_OFF_IN_FLIGHT) + n, VQ_OFF_IN_FLIGHT);
  store<u32>(vq, load<u32>(vq, VQ_OFF_SLOTS) + slots, VQ_OFF_SLOTS);
  store<u32>(vq, granted - n, VQ_OFF_GRANTED);
  store<u32>(vq, grantedSlots - slots, VQ_OFF_GRANTED_SLOTS);
  store<u32>(vq, <u32>(table + <usize>n * ENTRY_SIZE), VQ_OFF_GRANTED_TABLE);
  return 0;
}

/** What the flags of a used descriptor say (2.8.4: WRITE where the length counts). */
function usedFlags(wrap: u32, written: u32): u32 {
  return usedBits(wrap) | (written != 0 ? VIRTQ_DESC_F_WRITE : 0);
}

/** Length, id and flags of a descriptor as one word. */
export function descriptorWord(id: u32, length: u32, flags: u32): u64 {
  return (<u64>length) | ((<u64>id) << ID_SHIFT) | ((<u64>flags) << FLAGS_SHIFT);
}

/**
 * State bits of the first descriptor of a burst while the others are written: those that it has anyway, so that nobody
 * takes it for what it is before its flags are stored once more, by the ordered store that publishes the burst.
 */
function hiddenFromDriver(wrap: u32): u32 {
  return availableBits(wrap);
}

export function hiddenFromDevice(wrap: u32): u32 {
  return usedBits(wrap ^ 1);
}

/** Device: completes n chains, from `table` on, with one publication. 1: interrupt; 0; -EINVAL: entries that are not in flight, or not in order. */
export function packedComplete(vq: usize, table: usize, n: u32): i32 {
  if (has(vq, VQ_IN_ORDER)) return completeInOrder(vq, table, n);
  const size = load<u32>(vq, VQ_OFF_SIZE);
  const flying = load<u32>(vq, VQ_OFF_SLOTS);
  const ring = <usize>load<u32>(vq, VQ_OFF_DESC);
  const end = table + <usize>n * ENTRY_SIZE;
  let wrap = load<u32>(vq, VQ_OFF_USED_WRAP);
  let position = load<u32>(vq, VQ_OFF_USED);
  let state = hiddenFromDriver(wrap);
  let left = flying;
  let bytes: u64 = 0;
  const first = ring + <usize>position * VIRTQ_DESC_SIZE;
  const flags = usedFlags(wrap, load<u32>(table, CHAIN_OFF_USED));
  for (let entry = table; entry != end; entry += ENTRY_SIZE) {
    const result = load<u64>(entry, CHAIN_OFF_SLOTS); // slots, bytes written
    const slots = <u32>result;
    const written = <u32>(result >> 32);
    if (slots - 1 >= left) return -EINVAL; // none, or more than there are: nothing has been published
    const more = state | (written != 0 ? VIRTQ_DESC_F_WRITE : 0);
    store<u64>(
      ring + <usize>position * VIRTQ_DESC_SIZE,
      descriptorWord(load<u32>(entry, CHAIN_OFF_ID), written, more),
      VIRTQ_DESC_OFF_LEN,
    );
    left -= slots;
    bytes += written;
    position += slots;
    if (position >= size) {
      position -= size;
      wrap ^= 1;
    }
    state = usedBits(wrap);
  }
  return publishUsed(vq, first, flags, n, flying - left, bytes);
}

/**
 * {@link packedComplete} in order (2.8.8): one used descriptor stands for a batch, by its last chain, at the place of
 * its first one. Drivers take what they are not told of as written completely, so a batch goes on only behind such a chain.
 */
function completeInOrder(vq: usize, table: usize, n: u32): i32 {
  const size = load<u32>(vq, VQ_OFF_SIZE);
  const order = <usize>load<u32>(vq, VQ_OFF_POOL);
  const flying = load<u32>(vq, VQ_OFF_SLOTS);
  const from = load<u32>(vq, VQ_OFF_USED);
  let position = from;
  let total: u32 = 0;
  for (let i: u32 = 0; i < n; i++) {
    const entry = table + <usize>i * ENTRY_SIZE;
    const slots = load<u32>(entry, CHAIN_OFF_SLOTS);
    if (load<u32>(order + <usize>position * VQ_ORDER_SIZE) != load<u32>(entry, CHAIN_OFF_ID)) return -EINVAL;
    if (slots == 0 || slots > flying - total) return -EINVAL;
    total += slots;
    position += slots;
    if (position >= size) position -= size;
  }
  let wrap = load<u32>(vq, VQ_OFF_USED_WRAP);
  let batch = descriptorAt(vq, from);
  let batchWrap = wrap;
  let flags: u32 = 0;
  let bytes: u64 = 0;
  const first = batch;
  position = from;
  for (let i: u32 = 0; i < n; i++) {
    const entry = table + <usize>i * ENTRY_SIZE;
    const id = load<u32>(entry, CHAIN_OFF_ID);
    const written = load<u32>(entry, CHAIN_OFF_USED);
    const capacity = load<u32>(order + <usize>position * VQ_ORDER_SIZE, 4);
    bytes += written;
    position += load<u32>(entry, CHAIN_OFF_SLOTS);
    if (position >= size) {
      position -= size;
      wrap ^= 1;
    }
    if (i + 1 == n || written != capacity) {
      const now = usedFlags(batchWrap, written);
      if (batch == first) flags = now;
      const hidden = batch == first ? hiddenFromDriver(batchWrap) : now;
      store<u64>(batch, descriptorWord(id, written, hidden), VIRTQ_DESC_OFF_LEN);
      batch = descriptorAt(vq, position);
      batchWrap = wrap;
    }
  }
  return publishUsed(vq, first, flags, n, total, bytes);
}

/** Device: {@link packedComplete} of one chain, by its id and the descriptors that it takes. */
export function packedCompleteOne(vq: usize, id: u32, slots: u32, written: u32): i32 {
  const position = load<u32>(vq, VQ_OFF_USED);
  if (slots == 0 || slots > load<u32>(vq, VQ_OFF_SLOTS)) return -EINVAL;
  if (
    has(vq, VQ_IN_ORDER) &&
    load<u32>(<usize>load<u32>(vq, VQ_OFF_POOL) + <usize>position * VQ_ORDER_SIZE) != id
  )
    return -EINVAL;
  const first = descriptorAt(vq, position);
  const wrap = load<u32>(vq, VQ_OFF_USED_WRAP);
  store<u64>(first, descriptorWord(id, written, hiddenFromDriver(wrap)), VIRTQ_DESC_OFF_LEN);
  return publishUsed(vq, first, usedFlags(wrap, written), 1, slots, written);
}

/** Publishes a burst by the flags of its first used descriptor, and decides whether the driver is to be interrupted. */
function publishUsed(vq: usize, first: usize, flags: u32, n: u32, slots: u32, bytes: u64): i32 {
  const from = load<u32>(vq, VQ_OFF_USED);
  storeHalf(first + PACKED_DESC_OFF_FLAGS, flags); // [U1]
  move(vq, VQ_OFF_USED, VQ_OFF_USED_WRAP, slots);
  store<u32>(vq, load<u32>(vq, VQ_OFF_IN_FLIGHT) - n, VQ_OFF_IN_FLIGHT);
  store<u32>(vq, load<u32>(vq, VQ_OFF_SLOTS) - slots, VQ_OFF_SLOTS);
  addCounter(vq + VQ_OFF_CHAINS, n);
  addCounter(vq + VQ_OFF_BYTES, bytes);
  if (isLogging(vq)) logSlots(vq, from, slots);
  const event = loadWord(load<u32>(vq, VQ_OFF_DRIVER)); // [U2]
  return countNotification(
    vq,
    wanted(vq, event, load<u32>(vq, VQ_OFF_USED), load<u32>(vq, VQ_OFF_USED_WRAP), slots),
  );
}

export function logSlots(vq: usize, from: u32, n: u32): void {
  const size = load<u32>(vq, VQ_OFF_SIZE);
  const straight = n < size - from ? n : size - from;
  logArea(vq, VQ_OFF_DESC_GPA, from * VIRTQ_DESC_SIZE, straight * VIRTQ_DESC_SIZE);
  if (straight < n) logArea(vq, VQ_OFF_DESC_GPA, 0, (n - straight) * VIRTQ_DESC_SIZE);
}

/* ---- both sides: what this side wants to be told ------------------------------------------------ */

/** Arms, then looks once more. `peeked`: what the last peek found counts as seen. 1: something is there already. */
export function packedEnable(vq: usize, peeked: u32): u32 {
  const driverSide = has(vq, VQ_DRIVER);
  let position = load<u32>(vq + (driverSide ? VQ_OFF_USED : VQ_OFF_AVAIL));
  let wrap = load<u32>(vq + (driverSide ? VQ_OFF_USED_WRAP : VQ_OFF_AVAIL_WRAP));
  if (peeked != 0 && !driverSide) {
    position += load<u32>(vq, VQ_OFF_GRANTED_SLOTS);
    if (position >= load<u32>(vq, VQ_OFF_SIZE)) {
      position -= load<u32>(vq, VQ_OFF_SIZE);
      wrap ^= 1;
    }
  }
  arm(vq, driverSide, position, wrap);
  return found(vq, driverSide, position, wrap); // [N2]
}

/** Driver: {@link packedEnable} that wants to be told only when three quarters of what is in flight have been used. */
export function packedEnableDelayed(vq: usize): u32 {
  const size = load<u32>(vq, VQ_OFF_SIZE);
  const flying = load<u32>(vq, VQ_OFF_SLOTS);
  const position = load<u32>(vq, VQ_OFF_USED);
  const wrap = load<u32>(vq, VQ_OFF_USED_WRAP);
  const behind = flying - (flying >> 2);
  let event = behind == 0 ? position : position + behind - 1; // passed by the last of them
  let eventWrap = wrap;
  if (event >= size) {
    event -= size;
    eventWrap ^= 1;
  }
  arm(vq, true, event, eventWrap);
  // whether the event was passed before it was there cannot be told from descriptors: any that is used counts
  return found(vq, true, position, wrap);
}

function arm(vq: usize, driverSide: bool, position: u32, wrap: u32): void {
  const event = has(vq, VQ_EVENT_INDEX)
    ? position | (wrap << 15) | ((<u32>PACKED_EVENT_DESC) << 16)
    : (<u32>PACKED_EVENT_ENABLE) << 16;
  storeWord(eventAt(vq, driverSide), event); // [N1]
  logEvent(vq, driverSide);
}

/** This side's event area. */
function eventAt(vq: usize, driverSide: bool): usize {
  return <usize>load<u32>(vq + (driverSide ? VQ_OFF_DRIVER : VQ_OFF_DEVICE));
}

function logEvent(vq: usize, driverSide: bool): void {
  if (isLogging(vq))
    logArea(vq, driverSide ? VQ_OFF_DRIVER_GPA : VQ_OFF_DEVICE_GPA, 0, PACKED_EVENT_AREA_SIZE);
}

/** True when the descriptor at a position is what this side waits for, or (in order) a batch was not reaped to its end. */
function ready(vq: usize, driverSide: bool, position: u32, wrap: u32): bool {
  if (driverSide && load<u32>(vq, VQ_OFF_BATCH_ID) != VQ_NO_BATCH) return true;
  const flags = loadHalf(descriptorAt(vq, position) + PACKED_DESC_OFF_FLAGS);
  return (flags & STATE) == (driverSide ? usedBits(wrap) : availableBits(wrap));
}

function found(vq: usize, driverSide: bool, position: u32, wrap: u32): u32 {
  if (!ready(vq, driverSide, position, wrap)) return 0;
  addCounter(vq + VQ_OFF_DEFERRED, 1);
  return 1;
}

/** Asks for no notifications. */
export function packedDisable(vq: usize): void {
  const driverSide = has(vq, VQ_DRIVER);
  // nothing has to be ordered with it: a peer that sees it late notifies once too often
  store<u32>(eventAt(vq, driverSide), (<u32>PACKED_EVENT_DISABLE) << 16);
  logEvent(vq, driverSide);
}

/** True when the peer has put something at this side's position. */
export function packedHasWork(vq: usize): bool {
  const driverSide = has(vq, VQ_DRIVER);
  return ready(
    vq,
    driverSide,
    load<u32>(vq + (driverSide ? VQ_OFF_USED : VQ_OFF_AVAIL)),
    load<u32>(vq + (driverSide ? VQ_OFF_USED_WRAP : VQ_OFF_AVAIL_WRAP)),
  );
}
