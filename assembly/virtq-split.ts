/**
 * Split virtqueues (virtio 1.2, 2.7): one side of one queue.
 *
 * Bursts
 * ------
 * Whatever the number of chains, a burst is published by one fully ordered store of the side's own index, behind plain
 * stores of descriptors and ring entries, and costs one load of what the peer wants to be told:
 *   driver   descriptors, avail ring entries    plain          device   used ring elements     plain
 *            [A1] avail.idx                     ordered                 [U1] used.idx          ordered
 *            [A2] avail_event or used.flags     load                    [U2] used_event or avail.flags   load
 * Everything else (free list, positions, what the peer's index was) is private. The peer's index is read again only
 * when what is known of it does not cover what the caller asks for.
 *
 * Why no wake-up is lost
 * ----------------------
 * A receiver that goes to sleep arms, then looks once more:
 *   device   [N1] avail_event = position, or used.flags = 0      ordered       (driver: used_event, or avail.flags)
 *            [N2] avail.idx                                      load          (driver: used.idx)
 * [A1] then [A2] on one side, [N1] then [N2] on the other is Dekker's pattern: at least one sees the other's store. If
 * A2 misses N1, then A1 came before N2, and enable returns that there is work. If N2 misses A1, then A2 sees N1: with
 * flags the driver finds them clear and kicks; with an event index it finds `position`, the very first entry that N2
 * did not see, so the index passes it in this burst. The comparison is made for the whole burst, from the index that
 * the previous one published, so no entry is ever left out of it. The stores must be fully ordered (2.7.13.3.1 and
 * 2.7.14 ask for memory barriers there): with release alone the load may pass the store.
 *
 * An event index left behind by a receiver that is awake is passed once in 2^16 entries: a kick too many, never one
 * too few. `test/model/` explores every interleaving, with one mutant for each rule.
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
  CHAIN_OFF_USED,
  CHAIN_OFF_WRITABLE_BYTES,
  VQ_DRIVER,
  VQ_EVENT_INDEX,
  VQ_IN_ORDER,
  VQ_OFF_AVAIL,
  VQ_OFF_BYTES,
  VQ_OFF_CHAINS,
  VQ_OFF_DEFERRED,
  VQ_OFF_DESC,
  VQ_OFF_DEVICE,
  VQ_OFF_DEVICE_GPA,
  VQ_OFF_DRIVER,
  VQ_OFF_DRIVER_GPA,
  VQ_OFF_GRANTED,
  VQ_OFF_IN_FLIGHT,
  VQ_OFF_PEER,
  VQ_OFF_POOL,
  VQ_OFF_REGIONS,
  VQ_OFF_SIZE,
  VQ_OFF_USED,
  VQ_ORDER_SIZE,
  VQ_VIOLATION_ADDRESS,
  VQ_VIOLATION_EMPTY,
  VQ_VIOLATION_HEAD,
  VQ_VIOLATION_INDEX,
  VQ_VIOLATION_LENGTH,
  VQ_VIOLATION_LOOP,
  VQ_VIOLATION_ORDER,
  VQ_VIOLATION_PIECES,
} from "./abi/arena-virtq";
import { EINVAL, EPROTO } from "./abi/errno";
import {
  SPLIT_AVAIL_ENTRY_SIZE,
  SPLIT_EVENT_SIZE,
  SPLIT_RING_OFF_ENTRIES,
  SPLIT_RING_OFF_FLAGS,
  SPLIT_RING_OFF_IDX,
  SPLIT_USED_ENTRY_SIZE,
  VIRTQ_AVAIL_F_NO_INTERRUPT,
  VIRTQ_DESC_F_INDIRECT,
  VIRTQ_DESC_F_NEXT,
  VIRTQ_DESC_F_WRITE,
  VIRTQ_DESC_OFF_LEN,
  VIRTQ_DESC_SIZE,
  VIRTQ_USED_F_NO_NOTIFY,
} from "./abi/virtio";
import { addCounter, loadHalf, storeHalf } from "./memory-order";
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

/** The second word of a descriptor: what the flags are where length, flags and next are read at once. */
export const FLAGS_SHIFT: u64 = 32;
export const NEXT_SHIFT: u64 = 48;
/** A descriptor whose chain is not just itself. */
const NOT_SINGLE: u64 = (<u64>(VIRTQ_DESC_F_NEXT | VIRTQ_DESC_F_INDIRECT)) << FLAGS_SHIFT;

/** Where this side reads and writes: its own event index, and the peer's. */
export function usedEvent(vq: usize): usize {
  return (
    <usize>load<u32>(vq, VQ_OFF_DRIVER) +
    SPLIT_RING_OFF_ENTRIES +
    <usize>load<u32>(vq, VQ_OFF_SIZE) * SPLIT_AVAIL_ENTRY_SIZE
  );
}

export function availEvent(vq: usize): usize {
  return (
    <usize>load<u32>(vq, VQ_OFF_DEVICE) +
    SPLIT_RING_OFF_ENTRIES +
    <usize>load<u32>(vq, VQ_OFF_SIZE) * SPLIT_USED_ENTRY_SIZE
  );
}

/** True when an index that moved from `from` to `to` passed `event` (2.7.10.1), modulo 2^16. */
export function passed(event: u32, from: u32, to: u32): bool {
  return ((to - event - 1) & 0xffff) < ((to - from) & 0xffff);
}

/** Entries between a position and the peer's index, which is read again when fewer are known of than wanted. -EPROTO: impossible. */
export function known(vq: usize, index: usize, position: u32, wanted: u32, most: u32): i32 {
  let ready = (load<u32>(vq, VQ_OFF_PEER) - position) & 0xffff;
  if (ready < wanted) {
    const peer = loadHalf(index); // pairs with [A1] or [U1]: what was stored before it is visible from here on
    ready = (peer - position) & 0xffff;
    if (ready > most) return virtqViolate(vq, VQ_VIOLATION_INDEX);
    store<u32>(vq, peer, VQ_OFF_PEER);
  }
  return <i32>ready;
}

/* ---- device ------------------------------------------------------------------------------------ */

/** Walks one chain (2.7.5) and fills its entry and piece list. 0 or -EPROTO. */
function walkChain(vq: usize, head: u32, entry: usize, list: usize, limit: u32): i32 {
  const regions = <usize>load<u32>(vq, VQ_OFF_REGIONS);
  let table = <usize>load<u32>(vq, VQ_OFF_DESC);
  let count = load<u32>(vq, VQ_OFF_SIZE);
  let steps = count; // a chain that visits more descriptors than there are visits one twice
  let indirect = false;
  let at = head;
  let slots: u32 = 0;
  let readable: u32 = 0;
  let writable: u32 = 0;
  let readableBytes: u64 = 0;
  let writableBytes: u64 = 0;
  let piece = list;
  for (;;) {
    if (at >= count) return virtqViolate(vq, VQ_VIOLATION_HEAD);
    if (steps-- == 0) return virtqViolate(vq, VQ_VIOLATION_LOOP);
    // double fetch: each descriptor is read here and nowhere else
    const gpa = load<u64>(table + <usize>at * VIRTQ_DESC_SIZE);
    const rest = load<u64>(table + <usize>at * VIRTQ_DESC_SIZE, VIRTQ_DESC_OFF_LEN);
    const length = <u32>rest;
    const flags = <u32>(rest >> FLAGS_SHIFT);
    if (!indirect) slots++;
    if ((flags & VIRTQ_DESC_F_INDIRECT) != 0) {
      table = indirectTable(vq, gpa, length, !indirect && (flags & VIRTQ_DESC_F_NEXT) == 0);
      if (table == 0) return -EPROTO;
      indirect = true;
      count = length / VIRTQ_DESC_SIZE;
      steps = count;
      at = 0;
      continue;
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
    if ((flags & VIRTQ_DESC_F_NEXT) == 0) break;
    at = <u32>(rest >> NEXT_SHIFT);
  }
  if (readableBytes + writableBytes > <u64>u32.MAX_VALUE) return virtqViolate(vq, VQ_VIOLATION_LENGTH);
  putChain(entry, list, head, slots, readable, readableBytes, writable, writableBytes);
  return 0;
}

/**
 * Device: copies up to `max` available chains to the table. `lists`: room for `room` pieces for each of them. Chains of
 * one descriptor in the first region (most guests have just one) are taken by the loop itself. Number, or -EPROTO.
 */
export function splitPeek(vq: usize, table: usize, max: u32, lists: usize, room: u32): i32 {
  const size = load<u32>(vq, VQ_OFF_SIZE);
  const first = load<u32>(vq, VQ_OFF_AVAIL);
  const driver = <usize>load<u32>(vq, VQ_OFF_DRIVER);
  const most = size - load<u32>(vq, VQ_OFF_IN_FLIGHT);
  const ready = known(vq, driver + SPLIT_RING_OFF_IDX, first, max, most);
  store<u32>(vq, 0, VQ_OFF_GRANTED);
  if (ready < 0) return ready;
  const n = <u32>ready < max ? <u32>ready : max;
  const regions = <usize>load<u32>(vq, VQ_OFF_REGIONS);
  const known1 = load<u32>(regions, REGIONS_OFF_COUNT) != 0;
  const start = load<u64>(regions, REGIONS_OFF_ENTRIES + REGION_OFF_GPA);
  const bytes = known1 ? <u64>load<u32>(regions, REGIONS_OFF_ENTRIES + REGION_OFF_LENGTH) : 0;
  const base = load<u32>(regions, REGIONS_OFF_ENTRIES + REGION_OFF_ADDRESS);
  const desc = <usize>load<u32>(vq, VQ_OFF_DESC);
  const ring = driver + SPLIT_RING_OFF_ENTRIES;
  const mask = size - 1;
  let position = first;
  let entry = table;
  for (let i: u32 = 0; i < n; i++) {
    const head = <u32>load<u16>(ring + <usize>(position & mask) * SPLIT_AVAIL_ENTRY_SIZE); // double fetch: once
    if (head >= size) return virtqViolate(vq, VQ_VIOLATION_HEAD);
    const gpa = load<u64>(desc + <usize>head * VIRTQ_DESC_SIZE);
    const rest = load<u64>(desc + <usize>head * VIRTQ_DESC_SIZE, VIRTQ_DESC_OFF_LEN);
    const length = rest & 0xffffffff;
    const offset = gpa - start; // wraps below the region, and is then above every size
    if ((rest & NOT_SINGLE) == 0 && length != 0 && offset <= bytes && length <= bytes - offset) {
      putSingle(entry, head, base + <u32>offset, length, gpa, (rest >> 33) & 1);
    } else {
      const bad = walkChain(vq, head, entry, lists + <usize>i * room * PIECE_SIZE, pieceLimit(vq, room));
      if (bad != 0) return bad;
    }
    position++;
    entry += ENTRY_SIZE;
  }
  if (has(vq, VQ_IN_ORDER)) noteOrder(vq, first, table, n);
  store<u32>(vq, n, VQ_OFF_GRANTED);
  return <i32>n;
}

/** In order: remembers which chain has which place, and how much may be written into it. */
function noteOrder(vq: usize, first: u32, table: usize, n: u32): void {
  const mask = load<u32>(vq, VQ_OFF_SIZE) - 1;
  const order = <usize>load<u32>(vq, VQ_OFF_POOL);
  for (let i: u32 = 0; i < n; i++) {
    const entry = table + <usize>i * ENTRY_SIZE;
    const place = order + <usize>((first + i) & mask) * VQ_ORDER_SIZE;
    store<u32>(place, load<u32>(entry, CHAIN_OFF_ID));
    store<u32>(place, load<u32>(entry, CHAIN_OFF_WRITABLE_BYTES), 4);
  }
}

/** Device: consumes n chains of the last peek. The caller checked that there are as many. */
export function splitAdvance(vq: usize, n: u32): void {
  store<u32>(vq, (load<u32>(vq, VQ_OFF_AVAIL) + n) & 0xffff, VQ_OFF_AVAIL);
  store<u32>(vq, load<u32>(vq, VQ_OFF_IN_FLIGHT) + n, VQ_OFF_IN_FLIGHT);
  store<u32>(vq, load<u32>(vq, VQ_OFF_GRANTED) - n, VQ_OFF_GRANTED);
}

/** Device: writes the used elements of n chains. Returns the bytes written by the device. */
function putUsed(vq: usize, used: u32, entry: usize, n: u32): u64 {
  const mask = load<u32>(vq, VQ_OFF_SIZE) - 1;
  const ring = <usize>load<u32>(vq, VQ_OFF_DEVICE) + SPLIT_RING_OFF_ENTRIES;
  let bytes: u64 = 0;
  const end = entry + <usize>n * ENTRY_SIZE;
  for (let at = entry; at != end; at += ENTRY_SIZE) {
    const written = <u64>load<u32>(at, CHAIN_OFF_USED);
    store<u64>(
      ring + <usize>(used & mask) * SPLIT_USED_ENTRY_SIZE,
      (<u64>load<u32>(at, CHAIN_OFF_ID)) | (written << 32),
    );
    bytes += written;
    used++;
  }
  return bytes;
}

/**
 * {@link putUsed} in order (2.7.9): one element stands for a batch, by its last chain, at the place of its first one.
 * Drivers take what they are not told of as written completely, so a batch goes on only behind such a chain.
 * Nothing is written, and the result is {@link NOT_IN_ORDER}, when the chains are not the next ones.
 */
function putUsedInOrder(vq: usize, used: u32, table: usize, n: u32): u64 {
  const mask = load<u32>(vq, VQ_OFF_SIZE) - 1;
  const ring = <usize>load<u32>(vq, VQ_OFF_DEVICE) + SPLIT_RING_OFF_ENTRIES;
  const order = <usize>load<u32>(vq, VQ_OFF_POOL);
  for (let i: u32 = 0; i < n; i++) {
    const place = order + <usize>((used + i) & mask) * VQ_ORDER_SIZE;
    if (load<u32>(place) != load<u32>(table + <usize>i * ENTRY_SIZE, CHAIN_OFF_ID)) return NOT_IN_ORDER;
  }
  let bytes: u64 = 0;
  let batch = used;
  for (let i: u32 = 0; i < n; i++) {
    const entry = table + <usize>i * ENTRY_SIZE;
    const written = load<u32>(entry, CHAIN_OFF_USED);
    const capacity = load<u32>(order + <usize>((used + i) & mask) * VQ_ORDER_SIZE, 4);
    bytes += written;
    if (i + 1 == n || written != capacity) {
      store<u64>(
        ring + <usize>(batch & mask) * SPLIT_USED_ENTRY_SIZE,
        (<u64>load<u32>(entry, CHAIN_OFF_ID)) | ((<u64>written) << 32),
      );
      batch = used + i + 1;
    }
  }
  return bytes;
}

/** More bytes than any burst writes. */
const NOT_IN_ORDER: u64 = u64.MAX_VALUE;

/**
 * Device: completes n chains, from `table` on, with one publication. 1: interrupt the driver; 0; -EINVAL: not in order.
 * The caller checked that as many are in flight.
 */
export function splitComplete(vq: usize, table: usize, n: u32): i32 {
  const from = load<u32>(vq, VQ_OFF_USED);
  const bytes = has(vq, VQ_IN_ORDER) ? putUsedInOrder(vq, from, table, n) : putUsed(vq, from, table, n);
  return bytes == NOT_IN_ORDER ? -EINVAL : publishUsed(vq, from, n, bytes);
}

/** Publishes n used elements, and decides whether the driver is to be interrupted. */
function publishUsed(vq: usize, from: u32, n: u32, bytes: u64): i32 {
  const to = (from + n) & 0xffff;
  storeHalf(<usize>load<u32>(vq, VQ_OFF_DEVICE) + SPLIT_RING_OFF_IDX, to); // [U1]
  store<u32>(vq, to, VQ_OFF_USED);
  store<u32>(vq, load<u32>(vq, VQ_OFF_IN_FLIGHT) - n, VQ_OFF_IN_FLIGHT);
  addCounter(vq + VQ_OFF_CHAINS, n);
  addCounter(vq + VQ_OFF_BYTES, bytes);
  if (isLogging(vq)) logUsed(vq, from, n);
  const needed = has(vq, VQ_EVENT_INDEX)
    ? passed(loadHalf(usedEvent(vq)), from, to) // [U2]
    : (loadHalf(<usize>load<u32>(vq, VQ_OFF_DRIVER) + SPLIT_RING_OFF_FLAGS) & VIRTQ_AVAIL_F_NO_INTERRUPT) ==
      0;
  return countNotification(vq, needed);
}

/** Device: {@link splitComplete} of one chain, by its number. */
export function splitCompleteOne(vq: usize, id: u32, used: u32): i32 {
  const from = load<u32>(vq, VQ_OFF_USED);
  const at = <usize>(from & (load<u32>(vq, VQ_OFF_SIZE) - 1));
  if (has(vq, VQ_IN_ORDER) && load<u32>(<usize>load<u32>(vq, VQ_OFF_POOL) + at * VQ_ORDER_SIZE) != id)
    return -EINVAL;
  const ring = <usize>load<u32>(vq, VQ_OFF_DEVICE) + SPLIT_RING_OFF_ENTRIES;
  store<u64>(ring + at * SPLIT_USED_ENTRY_SIZE, (<u64>id) | ((<u64>used) << 32));
  return publishUsed(vq, from, 1, used);
}

function logUsed(vq: usize, from: u32, n: u32): void {
  const size = load<u32>(vq, VQ_OFF_SIZE);
  const start = from & (size - 1);
  const straight = n < size - start ? n : size - start;
  logRing(vq, VQ_OFF_DEVICE_GPA, SPLIT_USED_ENTRY_SIZE, start, straight);
  if (straight < n) logRing(vq, VQ_OFF_DEVICE_GPA, SPLIT_USED_ENTRY_SIZE, 0, n - straight);
  logArea(vq, VQ_OFF_DEVICE_GPA, SPLIT_RING_OFF_IDX, 2);
}

function logRing(vq: usize, area: usize, entrySize: u32, start: u32, n: u32): void {
  logArea(vq, area, SPLIT_RING_OFF_ENTRIES + start * entrySize, n * entrySize);
}

/* ---- both sides: what this side wants to be told ------------------------------------------------ */

/** Arms, then looks once more. `peeked`: what the last peek found counts as seen. 1: something is there already. */
export function splitEnable(vq: usize, peeked: u32): u32 {
  const driverSide = has(vq, VQ_DRIVER);
  let position = load<u32>(vq + (driverSide ? VQ_OFF_USED : VQ_OFF_AVAIL));
  if (peeked != 0 && !driverSide) position = (position + load<u32>(vq, VQ_OFF_GRANTED)) & 0xffff;
  return arm(vq, driverSide, position);
}

function arm(vq: usize, driverSide: bool, position: u32): u32 {
  if (has(vq, VQ_EVENT_INDEX)) {
    storeHalf(driverSide ? usedEvent(vq) : availEvent(vq), position); // [N1]
    if (isLogging(vq)) logEvent(vq, driverSide);
  } else {
    storeHalf(flagsAt(vq, driverSide), 0); // [N1]
    logFlags(vq, driverSide);
  }
  if (((loadHalf(peerIndex(vq, driverSide)) - position) & 0xffff) == 0) return 0; // [N2]
  addCounter(vq + VQ_OFF_DEFERRED, 1);
  return 1;
}

/** Driver: {@link splitEnable} that wants to be told only when three quarters of what is in flight have been used. */
export function splitEnableDelayed(vq: usize): u32 {
  const flight = load<u32>(vq, VQ_OFF_IN_FLIGHT);
  const behind = has(vq, VQ_EVENT_INDEX) ? flight - (flight >> 2) : 0;
  const position = load<u32>(vq, VQ_OFF_USED);
  if (behind == 0) return arm(vq, true, position);
  storeHalf(usedEvent(vq), (position + behind - 1) & 0xffff); // [N1]: passed by the last of them
  if (isLogging(vq)) logEvent(vq, true);
  if (((loadHalf(peerIndex(vq, true)) - position) & 0xffff) < behind) return 0; // [N2]
  addCounter(vq + VQ_OFF_DEFERRED, 1);
  return 1;
}

/** Asks for as few notifications as possible: an event index is left behind, where the peer's index seldom passes. */
export function splitDisable(vq: usize): void {
  if (has(vq, VQ_EVENT_INDEX)) return;
  const driverSide = has(vq, VQ_DRIVER);
  // nothing has to be ordered with it: a peer that sees it late notifies once too often
  store<u16>(flagsAt(vq, driverSide), driverSide ? VIRTQ_AVAIL_F_NO_INTERRUPT : VIRTQ_USED_F_NO_NOTIFY);
  logFlags(vq, driverSide);
}

/** This side's flags. */
function flagsAt(vq: usize, driverSide: bool): usize {
  return <usize>load<u32>(vq + (driverSide ? VQ_OFF_DRIVER : VQ_OFF_DEVICE)) + SPLIT_RING_OFF_FLAGS;
}

function logFlags(vq: usize, driverSide: bool): void {
  if (isLogging(vq)) logArea(vq, driverSide ? VQ_OFF_DRIVER_GPA : VQ_OFF_DEVICE_GPA, SPLIT_RING_OFF_FLAGS, 2);
}

function logEvent(vq: usize, driverSide: bool): void {
  const size = load<u32>(vq, VQ_OFF_SIZE);
  if (driverSide) {
    logArea(vq, VQ_OFF_DRIVER_GPA, SPLIT_RING_OFF_ENTRIES + size * SPLIT_AVAIL_ENTRY_SIZE, SPLIT_EVENT_SIZE);
  } else {
    logArea(vq, VQ_OFF_DEVICE_GPA, SPLIT_RING_OFF_ENTRIES + size * SPLIT_USED_ENTRY_SIZE, SPLIT_EVENT_SIZE);
  }
}

function peerIndex(vq: usize, driverSide: bool): usize {
  return <usize>load<u32>(vq + (driverSide ? VQ_OFF_DEVICE : VQ_OFF_DRIVER)) + SPLIT_RING_OFF_IDX;
}

/** True when the peer's index differs from this side's position. */
export function splitHasWork(vq: usize): bool {
  const driverSide = has(vq, VQ_DRIVER);
  return loadHalf(peerIndex(vq, driverSide)) != load<u32>(vq + (driverSide ? VQ_OFF_USED : VQ_OFF_AVAIL));
}
