/** Packed virtqueues, what only a driver does: making chains available, and reaping them. The essay is above `virtq-packed.ts`. */
import {
  ENTRY_OFF_COOKIE,
  ENTRY_OFF_FLAGS,
  ENTRY_OFF_FRAGMENT_LIST,
  ENTRY_OFF_GPA,
  ENTRY_OFF_LENGTH,
  ENTRY_SIZE,
  PIECE_OFF_GPA,
  PIECE_OFF_LENGTH,
  PIECE_SIZE,
} from "./abi/arena";
import {
  CHAIN_WRITABLE,
  VQ_IN_ORDER,
  VQ_NO_BATCH,
  VQ_OFF_AVAIL,
  VQ_OFF_AVAIL_WRAP,
  VQ_OFF_BATCH_ID,
  VQ_OFF_BATCH_LENGTH,
  VQ_OFF_BYTES,
  VQ_OFF_CHAINS,
  VQ_OFF_DESC,
  VQ_OFF_DEVICE,
  VQ_OFF_FREE_HEAD,
  VQ_OFF_IN_FLIGHT,
  VQ_OFF_POOL,
  VQ_OFF_SIZE,
  VQ_OFF_SLOTS,
  VQ_OFF_USED,
  VQ_OFF_USED_WRAP,
  VQ_RECORD_OFF_CAPACITY,
  VQ_RECORD_OFF_NEXT,
  VQ_RECORD_OFF_SLOTS,
  VQ_RECORD_SIZE,
  VQ_VIOLATION_HEAD,
  VQ_VIOLATION_LENGTH,
} from "./abi/arena-virtq";
import { EINVAL, ENOSPC } from "./abi/errno";
import {
  PACKED_DESC_OFF_FLAGS,
  VIRTQ_DESC_F_INDIRECT,
  VIRTQ_DESC_F_NEXT,
  VIRTQ_DESC_F_WRITE,
  VIRTQ_DESC_OFF_LEN,
  VIRTQ_DESC_SIZE,
} from "./abi/virtio";
import { addCounter, loadHalf, loadWord, storeHalf } from "./memory-order";
import {
  chainCapacity,
  chainPieces,
  countNotification,
  fillIndirect,
  has,
  isLogging,
  putReaped,
  recordOf,
  usesIndirect,
  virtqViolate,
  writablePieces,
} from "./virtq";
import {
  FLAGS_SHIFT,
  ID_SHIFT,
  STATE,
  availableBits,
  descriptorAt,
  descriptorWord,
  hiddenFromDevice,
  logSlots,
  move,
  usedBits,
  wanted,
} from "./virtq-packed";

/** Driver: all ids free. In order an id is the position of its chain; otherwise they are a stack. */
export function packedReset(vq: usize): void {
  const size = load<u32>(vq, VQ_OFF_SIZE);
  for (let i: u32 = 0; i < size; i++) {
    store<u64>(recordOf(vq, i), 0);
    store<u64>(recordOf(vq, i), (<u64>(i + 1 == size ? 0 : i + 1)) << FLAGS_SHIFT, VQ_RECORD_OFF_CAPACITY);
  }
  store<u32>(vq, VQ_NO_BATCH, VQ_OFF_BATCH_ID);
}

/** Driver: makes n chains available with one publication. 1: kick the device; 0; -EINVAL: a chain without bytes or larger than the queue; -ENOSPC. */
export function packedAdd(vq: usize, table: usize, n: u32): i32 {
  const size = load<u32>(vq, VQ_OFF_SIZE);
  const pool = <usize>load<u32>(vq, VQ_OFF_POOL);
  const ring = <usize>load<u32>(vq, VQ_OFF_DESC);
  const inOrder = has(vq, VQ_IN_ORDER);
  const from = load<u32>(vq, VQ_OFF_AVAIL);
  const free = size - load<u32>(vq, VQ_OFF_SLOTS);
  const end = table + <usize>n * ENTRY_SIZE;
  let wrap = load<u32>(vq, VQ_OFF_AVAIL_WRAP);
  let state = hiddenFromDevice(wrap);
  let position = from;
  let next = load<u32>(vq, VQ_OFF_FREE_HEAD);
  let left = free;
  let bad: i32 = 0;
  let entry = table;
  while (entry != end) {
    const id = inOrder ? position : next;
    const record = pool + <usize>id * VQ_RECORD_SIZE;
    const link = load<u64>(record, VQ_RECORD_OFF_CAPACITY) >> FLAGS_SHIFT;
    const pieces = chainPieces(entry);
    let slots: u32 = 1;
    let capacity: u32 = 0;
    if (pieces == 1) {
      const length = load<u32>(entry, ENTRY_OFF_LENGTH);
      if (length == 0) bad = -EINVAL;
      else if (left == 0) bad = -ENOSPC;
      if (bad != 0) break;
      let flags = state;
      if ((load<u32>(entry, ENTRY_OFF_FLAGS) & CHAIN_WRITABLE) != 0) {
        flags |= VIRTQ_DESC_F_WRITE;
        capacity = length;
      }
      const descriptor = ring + <usize>position * VIRTQ_DESC_SIZE;
      store<u64>(descriptor, load<u64>(entry, ENTRY_OFF_GPA));
      store<u64>(descriptor, descriptorWord(id, length, flags), VIRTQ_DESC_OFF_LEN);
    } else {
      slots = usesIndirect(vq, pieces) ? 1 : pieces;
      const room = chainCapacity(entry, pieces);
      if (room < 0 || slots > size) bad = -EINVAL;
      else if (slots > left) bad = -ENOSPC;
      if (bad != 0) break;
      capacity = <u32>room;
      putList(vq, entry, pieces, slots, id, position, wrap, state);
    }
    store<u64>(record, load<u64>(entry, ENTRY_OFF_COOKIE));
    store<u64>(
      record,
      (<u64>capacity) | ((<u64>slots) << ID_SHIFT) | (link << FLAGS_SHIFT),
      VQ_RECORD_OFF_CAPACITY,
    );
    next = <u32>link;
    left -= slots;
    position += slots;
    if (position >= size) {
      position -= size;
      wrap ^= 1;
    }
    state = availableBits(wrap);
    entry += ENTRY_SIZE;
  }
  const taken = free - left;
  if (bad != 0) {
    undo(vq, taken, <u32>((entry - table) / ENTRY_SIZE));
    return bad;
  }
  const first = ring + <usize>from * VIRTQ_DESC_SIZE + PACKED_DESC_OFF_FLAGS;
  const flags = (<u32>load<u16>(first)) & ~STATE; // private still: what was stored above
  storeHalf(first, flags | availableBits(load<u32>(vq, VQ_OFF_AVAIL_WRAP))); // [A1]
  store<u32>(vq, position, VQ_OFF_AVAIL);
  store<u32>(vq, wrap, VQ_OFF_AVAIL_WRAP);
  store<u32>(vq, next, VQ_OFF_FREE_HEAD);
  store<u32>(vq, load<u32>(vq, VQ_OFF_SLOTS) + taken, VQ_OFF_SLOTS);
  store<u32>(vq, load<u32>(vq, VQ_OFF_IN_FLIGHT) + n, VQ_OFF_IN_FLIGHT);
  if (isLogging(vq)) logSlots(vq, from, taken);
  const event = loadWord(load<u32>(vq, VQ_OFF_DEVICE)); // [A2]
  return countNotification(vq, wanted(vq, event, position, wrap, taken));
}

/** Driver: writes the descriptors of a chain in several pieces, or the one of its indirect table. `state`: of the first. */
function putList(
  vq: usize,
  entry: usize,
  pieces: u32,
  slots: u32,
  id: u32,
  position: u32,
  wrap: u32,
  state: u32,
): void {
  if (slots != pieces) {
    const descriptor = descriptorAt(vq, position);
    store<u64>(descriptor, fillIndirect(vq, entry, pieces, id, false));
    store<u64>(
      descriptor,
      descriptorWord(id, pieces * VIRTQ_DESC_SIZE, state | VIRTQ_DESC_F_INDIRECT),
      VIRTQ_DESC_OFF_LEN,
    );
    return;
  }
  const size = load<u32>(vq, VQ_OFF_SIZE);
  const readable = pieces - writablePieces(entry, pieces);
  let piece = <usize>load<u32>(entry, ENTRY_OFF_FRAGMENT_LIST);
  for (let i: u32 = 0; i < pieces; i++) {
    const descriptor = descriptorAt(vq, position);
    let flags = state;
    if (i >= readable) flags |= VIRTQ_DESC_F_WRITE;
    if (i + 1 < pieces) flags |= VIRTQ_DESC_F_NEXT;
    store<u64>(descriptor, load<u64>(piece, PIECE_OFF_GPA));
    store<u64>(descriptor, descriptorWord(id, load<u32>(piece, PIECE_OFF_LENGTH), flags), VIRTQ_DESC_OFF_LEN);
    piece += PIECE_SIZE;
    if (++position == size) {
      position = 0;
      wrap ^= 1;
    }
    state = availableBits(wrap);
  }
}

/**
 * Driver: takes back a burst that does not fit. Its descriptors behind the first one say that they are available, and
 * would be taken for that behind a shorter burst: they get the state of the lap before.
 */
function undo(vq: usize, slots: u32, chains: u32): void {
  const size = load<u32>(vq, VQ_OFF_SIZE);
  const inOrder = has(vq, VQ_IN_ORDER);
  let position = load<u32>(vq, VQ_OFF_AVAIL);
  let wrap = load<u32>(vq, VQ_OFF_AVAIL_WRAP);
  let next = load<u32>(vq, VQ_OFF_FREE_HEAD);
  for (let i: u32 = 0; i < slots; i++) {
    const descriptor = descriptorAt(vq, position);
    store<u16>(descriptor, <u16>hiddenFromDevice(wrap), PACKED_DESC_OFF_FLAGS);
    if (inOrder) store<u16>(recordOf(vq, position), 0, VQ_RECORD_OFF_SLOTS);
    if (++position == size) {
      position = 0;
      wrap ^= 1;
    }
  }
  if (inOrder) return;
  for (let i: u32 = 0; i < chains; i++) {
    store<u16>(recordOf(vq, next), 0, VQ_RECORD_OFF_SLOTS);
    next = load<u16>(recordOf(vq, next), VQ_RECORD_OFF_NEXT);
  }
}

/** Driver: fills the table with up to `max` chains that the device has used, and frees their descriptors. Number, or -EPROTO. */
export function packedReap(vq: usize, table: usize, max: u32): i32 {
  const flying = load<u32>(vq, VQ_OFF_IN_FLIGHT);
  const limit = max < flying ? max : flying;
  const slots = load<u32>(vq, VQ_OFF_SLOTS);
  const n = has(vq, VQ_IN_ORDER) ? reapInOrder(vq, table, limit) : reapAny(vq, table, limit);
  if (n < 0) return n;
  move(vq, VQ_OFF_USED, VQ_OFF_USED_WRAP, slots - load<u32>(vq, VQ_OFF_SLOTS));
  store<u32>(vq, flying - n, VQ_OFF_IN_FLIGHT);
  addCounter(vq + VQ_OFF_CHAINS, n);
  return n;
}

/** Reaps used descriptors, whose ids may come in any order. Number, or -EPROTO. */
function reapAny(vq: usize, table: usize, limit: u32): i32 {
  const size = load<u32>(vq, VQ_OFF_SIZE);
  const pool = <usize>load<u32>(vq, VQ_OFF_POOL);
  const ring = <usize>load<u32>(vq, VQ_OFF_DESC);
  const end = table + <usize>limit * ENTRY_SIZE;
  let position = load<u32>(vq, VQ_OFF_USED);
  let state = usedBits(load<u32>(vq, VQ_OFF_USED_WRAP));
  let free = load<u32>(vq, VQ_OFF_FREE_HEAD);
  let freed: u32 = 0;
  let bytes: u64 = 0;
  let entry = table;
  while (entry != end) {
    const descriptor = ring + <usize>position * VIRTQ_DESC_SIZE;
    const flags = loadHalf(descriptor + PACKED_DESC_OFF_FLAGS); // pairs with [U1]
    if ((flags & STATE) != state) break;
    const rest = load<u64>(descriptor, VIRTQ_DESC_OFF_LEN); // double fetch: once, `flags` above are those that count
    const id = (<u32>(rest >> ID_SHIFT)) & 0xffff;
    if (id >= size) return virtqViolate(vq, VQ_VIOLATION_HEAD);
    const record = pool + <usize>id * VQ_RECORD_SIZE;
    const meta = load<u64>(record, VQ_RECORD_OFF_CAPACITY);
    const slots = (<u32>(meta >> ID_SHIFT)) & 0xffff;
    const length = (flags & VIRTQ_DESC_F_WRITE) != 0 ? <u32>rest : 0; // without WRITE it means nothing (2.8.4)
    if (slots == 0) return virtqViolate(vq, VQ_VIOLATION_HEAD);
    if (length > <u32>meta) return virtqViolate(vq, VQ_VIOLATION_LENGTH);
    putReaped(entry, record, length);
    store<u64>(record, (<u64>free) << FLAGS_SHIFT, VQ_RECORD_OFF_CAPACITY);
    free = id;
    freed += slots;
    bytes += length;
    position += slots;
    if (position >= size) {
      position -= size;
      state ^= STATE;
    }
    entry += ENTRY_SIZE;
  }
  store<u32>(vq, free, VQ_OFF_FREE_HEAD);
  store<u32>(vq, load<u32>(vq, VQ_OFF_SLOTS) - freed, VQ_OFF_SLOTS);
  addCounter(vq + VQ_OFF_BYTES, bytes);
  return <i32>((entry - table) / ENTRY_SIZE);
}

/** Reaps chains in order (2.8.8): a used descriptor stands for all chains up to the one that it names. Number, or -EPROTO. */
function reapInOrder(vq: usize, table: usize, limit: u32): i32 {
  const size = load<u32>(vq, VQ_OFF_SIZE);
  const pool = <usize>load<u32>(vq, VQ_OFF_POOL);
  const ring = <usize>load<u32>(vq, VQ_OFF_DESC);
  let position = load<u32>(vq, VQ_OFF_USED);
  let state = usedBits(load<u32>(vq, VQ_OFF_USED_WRAP));
  let batch = load<u32>(vq, VQ_OFF_BATCH_ID);
  let batchLength = load<u32>(vq, VQ_OFF_BATCH_LENGTH);
  let held = load<u32>(vq, VQ_OFF_SLOTS);
  let bytes: u64 = 0;
  let n: u32 = 0;
  while (n < limit) {
    if (batch == VQ_NO_BATCH) {
      const descriptor = ring + <usize>position * VIRTQ_DESC_SIZE;
      const flags = loadHalf(descriptor + PACKED_DESC_OFF_FLAGS); // pairs with [U1]
      if ((flags & STATE) != state) break;
      const rest = load<u64>(descriptor, VIRTQ_DESC_OFF_LEN); // double fetch: once, as in reapAny
      batch = (<u32>(rest >> ID_SHIFT)) & 0xffff;
      batchLength = (flags & VIRTQ_DESC_F_WRITE) != 0 ? <u32>rest : 0;
      if (batch >= size || load<u16>(recordOf(vq, batch), VQ_RECORD_OFF_SLOTS) == 0)
        return virtqViolate(vq, VQ_VIOLATION_HEAD);
    }
    const record = pool + <usize>position * VQ_RECORD_SIZE;
    const meta = load<u64>(record, VQ_RECORD_OFF_CAPACITY);
    const slots = (<u32>(meta >> ID_SHIFT)) & 0xffff;
    let length = <u32>meta;
    if (position == batch) {
      if (batchLength > length) return virtqViolate(vq, VQ_VIOLATION_LENGTH);
      length = batchLength;
      batch = VQ_NO_BATCH;
    }
    putReaped(table + <usize>n * ENTRY_SIZE, record, length);
    store<u16>(record, 0, VQ_RECORD_OFF_SLOTS);
    held -= slots;
    bytes += length;
    position += slots;
    if (position >= size) {
      position -= size;
      state ^= STATE;
    }
    n++;
  }
  if (batch != VQ_NO_BATCH && held == 0) return virtqViolate(vq, VQ_VIOLATION_HEAD); // it ends with none in flight
  store<u32>(vq, batch, VQ_OFF_BATCH_ID);
  store<u32>(vq, batchLength, VQ_OFF_BATCH_LENGTH);
  store<u32>(vq, held, VQ_OFF_SLOTS);
  addCounter(vq + VQ_OFF_BYTES, bytes);
  return <i32>n;
}
