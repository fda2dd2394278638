/** Split virtqueues, what only a driver does: making chains available, and reaping them. The essay is above `virtq-split.ts`. */
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
  VQ_EVENT_INDEX,
  VQ_IN_ORDER,
  VQ_NO_BATCH,
  VQ_OFF_AVAIL,
  VQ_OFF_BATCH_ID,
  VQ_OFF_BATCH_LENGTH,
  VQ_OFF_BYTES,
  VQ_OFF_CHAINS,
  VQ_OFF_DESC,
  VQ_OFF_DESC_GPA,
  VQ_OFF_DEVICE,
  VQ_OFF_DRIVER,
  VQ_OFF_DRIVER_GPA,
  VQ_OFF_FREE_HEAD,
  VQ_OFF_IN_FLIGHT,
  VQ_OFF_PEER,
  VQ_OFF_POOL,
  VQ_OFF_SIZE,
  VQ_OFF_SLOTS,
  VQ_OFF_USED,
  VQ_RECORD_OFF_CAPACITY,
  VQ_RECORD_OFF_NEXT,
  VQ_RECORD_OFF_SLOTS,
  VQ_RECORD_SIZE,
  VQ_VIOLATION_HEAD,
  VQ_VIOLATION_LENGTH,
} from "./abi/arena-virtq";
import { EINVAL, ENOSPC } from "./abi/errno";
import {
  SPLIT_AVAIL_ENTRY_SIZE,
  SPLIT_RING_OFF_ENTRIES,
  SPLIT_RING_OFF_FLAGS,
  SPLIT_RING_OFF_IDX,
  SPLIT_USED_ENTRY_SIZE,
  VIRTQ_DESC_F_INDIRECT,
  VIRTQ_DESC_F_NEXT,
  VIRTQ_DESC_F_WRITE,
  VIRTQ_DESC_OFF_LEN,
  VIRTQ_DESC_SIZE,
  VIRTQ_USED_F_NO_NOTIFY,
} from "./abi/virtio";
import { addCounter, loadHalf, storeHalf } from "./memory-order";
import {
  chainCapacity,
  chainPieces,
  countNotification,
  fillIndirect,
  has,
  isLogging,
  logArea,
  putReaped,
  recordOf,
  usesIndirect,
  virtqViolate,
  writablePieces,
} from "./virtq";
import { FLAGS_SHIFT, NEXT_SHIFT, availEvent, known, passed } from "./virtq-split";

/** Driver: all descriptors free, in ring order. In order they stay a circle; otherwise they become a stack. */
export function splitReset(vq: usize): void {
  const size = load<u32>(vq, VQ_OFF_SIZE);
  for (let i: u32 = 0; i < size; i++) {
    const record = recordOf(vq, i);
    store<u64>(record, 0);
    store<u64>(record, (<u64>((i + 1) & (size - 1))) << NEXT_SHIFT, VQ_RECORD_OFF_CAPACITY);
  }
  store<u32>(vq, VQ_NO_BATCH, VQ_OFF_BATCH_ID);
}

/**
 * Driver: writes the descriptors of a chain in several pieces, from the free record `head` on. Returns the next free
 * record; the chain's record gets the number of descriptors that it took. The caller checked that they fit.
 */
function putDescriptors(vq: usize, entry: usize, head: u32, pieces: u32): u32 {
  const desc = <usize>load<u32>(vq, VQ_OFF_DESC);
  const readable = pieces - writablePieces(entry, pieces);
  let piece = <usize>load<u32>(entry, ENTRY_OFF_FRAGMENT_LIST);
  let at = head;
  for (let i: u32 = 0; i < pieces; i++) {
    const next = <u32>load<u16>(recordOf(vq, at), VQ_RECORD_OFF_NEXT);
    let rest = <u64>load<u32>(piece, PIECE_OFF_LENGTH);
    if (i >= readable) rest |= (<u64>VIRTQ_DESC_F_WRITE) << FLAGS_SHIFT;
    if (i + 1 < pieces) rest |= ((<u64>VIRTQ_DESC_F_NEXT) << FLAGS_SHIFT) | ((<u64>next) << NEXT_SHIFT);
    store<u64>(desc + <usize>at * VIRTQ_DESC_SIZE, load<u64>(piece, PIECE_OFF_GPA));
    store<u64>(desc + <usize>at * VIRTQ_DESC_SIZE, rest, VIRTQ_DESC_OFF_LEN);
    piece += PIECE_SIZE;
    at = next;
  }
  return at;
}

/** Driver: takes back what a burst that does not fit has put into the private records. */
function undo(vq: usize, head: u32): void {
  let at = load<u32>(vq, VQ_OFF_FREE_HEAD);
  while (at != head) {
    const record = recordOf(vq, at);
    store<u16>(record, 0, VQ_RECORD_OFF_SLOTS);
    at = <u32>load<u16>(record, VQ_RECORD_OFF_NEXT);
  }
}

/** Driver: makes n chains available with one publication. 1: kick the device; 0; -EINVAL: a chain without bytes or in a wrong order; -ENOSPC. */
export function splitAdd(vq: usize, table: usize, n: u32): i32 {
  const size = load<u32>(vq, VQ_OFF_SIZE);
  const pool = <usize>load<u32>(vq, VQ_OFF_POOL);
  const desc = <usize>load<u32>(vq, VQ_OFF_DESC);
  const driver = <usize>load<u32>(vq, VQ_OFF_DRIVER);
  const ring = driver + SPLIT_RING_OFF_ENTRIES;
  const mask = size - 1;
  const from = load<u32>(vq, VQ_OFF_AVAIL);
  const free = size - load<u32>(vq, VQ_OFF_SLOTS);
  let head = load<u32>(vq, VQ_OFF_FREE_HEAD);
  let taken: u32 = 0;
  let position = from;
  let entry = table;
  const end = table + <usize>n * ENTRY_SIZE;
  while (entry != end) {
    const pieces = chainPieces(entry);
    const record = pool + <usize>head * VQ_RECORD_SIZE;
    const meta = load<u64>(record, VQ_RECORD_OFF_CAPACITY);
    let slots: u32 = 1;
    let next = <u32>(meta >> NEXT_SHIFT);
    let capacity: u32 = 0;
    if (pieces == 1 && taken < free) {
      const length = load<u32>(entry, ENTRY_OFF_LENGTH);
      const flags: u64 = (load<u32>(entry, ENTRY_OFF_FLAGS) & CHAIN_WRITABLE) != 0 ? VIRTQ_DESC_F_WRITE : 0;
      if (length == 0) {
        undo(vq, head);
        return -EINVAL;
      }
      if (flags != 0) capacity = length;
      store<u64>(desc + <usize>head * VIRTQ_DESC_SIZE, load<u64>(entry, ENTRY_OFF_GPA));
      store<u64>(
        desc + <usize>head * VIRTQ_DESC_SIZE,
        (<u64>length) | (flags << FLAGS_SHIFT),
        VIRTQ_DESC_OFF_LEN,
      );
    } else {
      const indirect = usesIndirect(vq, pieces);
      slots = indirect ? 1 : pieces;
      const room = pieces == 1 ? 0 : chainCapacity(entry, pieces);
      const bad = room < 0 || slots > size ? -EINVAL : slots > free - taken ? -ENOSPC : 0;
      if (bad != 0) {
        undo(vq, head);
        return bad;
      }
      capacity = <u32>room;
      if (indirect) {
        store<u64>(desc + <usize>head * VIRTQ_DESC_SIZE, fillIndirect(vq, entry, pieces, head, true));
        store<u64>(
          desc + <usize>head * VIRTQ_DESC_SIZE,
          (<u64>(pieces * VIRTQ_DESC_SIZE)) | ((<u64>VIRTQ_DESC_F_INDIRECT) << FLAGS_SHIFT),
          VIRTQ_DESC_OFF_LEN,
        );
      } else {
        next = putDescriptors(vq, entry, head, pieces);
      }
    }
    store<u16>(ring + <usize>(position & mask) * SPLIT_AVAIL_ENTRY_SIZE, <u16>head);
    store<u64>(record, load<u64>(entry, ENTRY_OFF_COOKIE));
    store<u64>(
      record,
      (<u64>capacity) | ((<u64>slots) << 32) | (meta & 0xffff000000000000),
      VQ_RECORD_OFF_CAPACITY,
    );
    head = next;
    taken += slots;
    position++;
    entry += ENTRY_SIZE;
  }
  const to = position & 0xffff;
  storeHalf(driver + SPLIT_RING_OFF_IDX, to); // [A1]
  store<u32>(vq, to, VQ_OFF_AVAIL);
  store<u32>(vq, head, VQ_OFF_FREE_HEAD);
  store<u32>(vq, load<u32>(vq, VQ_OFF_SLOTS) + taken, VQ_OFF_SLOTS);
  store<u32>(vq, load<u32>(vq, VQ_OFF_IN_FLIGHT) + n, VQ_OFF_IN_FLIGHT);
  if (isLogging(vq)) {
    logArea(vq, VQ_OFF_DESC_GPA, 0, size * VIRTQ_DESC_SIZE);
    logArea(vq, VQ_OFF_DRIVER_GPA, 0, SPLIT_RING_OFF_ENTRIES + size * SPLIT_AVAIL_ENTRY_SIZE);
  }
  const needed = has(vq, VQ_EVENT_INDEX)
    ? passed(loadHalf(availEvent(vq)), from, to) // [A2]
    : (loadHalf(<usize>load<u32>(vq, VQ_OFF_DEVICE) + SPLIT_RING_OFF_FLAGS) & VIRTQ_USED_F_NO_NOTIFY) == 0;
  return countNotification(vq, needed);
}

/** The last record of a chain of several descriptors. */
function lastRecord(vq: usize, record: usize, slots: u32): usize {
  let last = record;
  for (let i: u32 = 1; i < slots; i++) last = recordOf(vq, load<u16>(last, VQ_RECORD_OFF_NEXT));
  return last;
}

/** Driver: fills the table with up to `max` chains that the device has used, and frees their descriptors. Number, or -EPROTO. */
export function splitReap(vq: usize, table: usize, max: u32): i32 {
  const size = load<u32>(vq, VQ_OFF_SIZE);
  const device = <usize>load<u32>(vq, VQ_OFF_DEVICE);
  const from = load<u32>(vq, VQ_OFF_USED);
  const ready = known(vq, device + SPLIT_RING_OFF_IDX, from, max, load<u32>(vq, VQ_OFF_IN_FLIGHT));
  if (ready < 0) return ready;
  const n = <u32>ready < max ? <u32>ready : max;
  const bytes = has(vq, VQ_IN_ORDER) ? reapInOrder(vq, from, table, n) : reapAny(vq, from, table, n);
  if (bytes < 0) return <i32>bytes;
  store<u32>(vq, (from + n) & 0xffff, VQ_OFF_USED);
  store<u32>(vq, load<u32>(vq, VQ_OFF_IN_FLIGHT) - n, VQ_OFF_IN_FLIGHT);
  addCounter(vq + VQ_OFF_CHAINS, n);
  addCounter(vq + VQ_OFF_BYTES, <u64>bytes);
  return <i32>n;
}

/** Reaps n used elements, which may come in any order. Bytes written, or -EPROTO. */
function reapAny(vq: usize, from: u32, table: usize, n: u32): i64 {
  const size = load<u32>(vq, VQ_OFF_SIZE);
  const pool = <usize>load<u32>(vq, VQ_OFF_POOL);
  const ring = <usize>load<u32>(vq, VQ_OFF_DEVICE) + SPLIT_RING_OFF_ENTRIES;
  const mask = size - 1;
  let entry = table;
  let bytes: i64 = 0;
  let freed: u32 = 0;
  let free = load<u32>(vq, VQ_OFF_FREE_HEAD);
  for (let i: u32 = 0; i < n; i++) {
    const element = load<u64>(ring + <usize>((from + i) & mask) * SPLIT_USED_ENTRY_SIZE); // double fetch: once
    const id = <u32>element;
    const length = <u32>(element >> 32);
    if (id >= size) return virtqViolate(vq, VQ_VIOLATION_HEAD);
    const record = pool + <usize>id * VQ_RECORD_SIZE;
    const meta = load<u64>(record, VQ_RECORD_OFF_CAPACITY);
    const slots = (<u32>(meta >> 32)) & 0xffff;
    if (slots == 0) return virtqViolate(vq, VQ_VIOLATION_HEAD);
    if (length > <u32>meta) return virtqViolate(vq, VQ_VIOLATION_LENGTH);
    putReaped(entry, record, length);
    if (slots == 1) {
      store<u64>(record, (<u64>free) << NEXT_SHIFT, VQ_RECORD_OFF_CAPACITY);
    } else {
      store<u16>(lastRecord(vq, record, slots), <u16>free, VQ_RECORD_OFF_NEXT);
      store<u16>(record, 0, VQ_RECORD_OFF_SLOTS);
    }
    free = id;
    freed += slots;
    bytes += length;
    entry += ENTRY_SIZE;
  }
  store<u32>(vq, free, VQ_OFF_FREE_HEAD);
  store<u32>(vq, load<u32>(vq, VQ_OFF_SLOTS) - freed, VQ_OFF_SLOTS);
  return bytes;
}

/** Reaps n chains in order (2.7.9): an element stands for all chains up to the one that it names. Bytes written, or -EPROTO. */
function reapInOrder(vq: usize, from: u32, table: usize, n: u32): i64 {
  const mask = load<u32>(vq, VQ_OFF_SIZE) - 1;
  const pool = <usize>load<u32>(vq, VQ_OFF_POOL);
  const ring = <usize>load<u32>(vq, VQ_OFF_DEVICE) + SPLIT_RING_OFF_ENTRIES;
  let batch = load<u32>(vq, VQ_OFF_BATCH_ID);
  let batchLength = load<u32>(vq, VQ_OFF_BATCH_LENGTH);
  let held = load<u32>(vq, VQ_OFF_SLOTS);
  const oldest = load<u32>(vq, VQ_OFF_FREE_HEAD) - held;
  let at = oldest & mask;
  let entry = table;
  let bytes: i64 = 0;
  for (let i: u32 = 0; i < n; i++) {
    if (batch == VQ_NO_BATCH) {
      const element = load<u64>(ring + <usize>((from + i) & mask) * SPLIT_USED_ENTRY_SIZE); // double fetch: once
      batch = <u32>element;
      batchLength = <u32>(element >> 32);
      if (batch > mask || load<u16>(pool + <usize>batch * VQ_RECORD_SIZE, VQ_RECORD_OFF_SLOTS) == 0)
        return virtqViolate(vq, VQ_VIOLATION_HEAD);
    }
    const record = pool + <usize>at * VQ_RECORD_SIZE;
    const slots = <u32>load<u16>(record, VQ_RECORD_OFF_SLOTS);
    let length = load<u32>(record, VQ_RECORD_OFF_CAPACITY);
    if (at == batch) {
      if (batchLength > length) return virtqViolate(vq, VQ_VIOLATION_LENGTH);
      length = batchLength;
      batch = VQ_NO_BATCH;
    }
    putReaped(entry, record, length);
    store<u16>(record, 0, VQ_RECORD_OFF_SLOTS);
    held -= slots;
    at = (at + slots) & mask;
    bytes += length;
    entry += ENTRY_SIZE;
  }
  // the index that the device published ends with a batch
  if (batch != VQ_NO_BATCH && ((from + n - load<u32>(vq, VQ_OFF_PEER)) & 0xffff) == 0)
    return virtqViolate(vq, VQ_VIOLATION_HEAD);
  store<u32>(vq, held, VQ_OFF_SLOTS);
  store<u32>(vq, batch, VQ_OFF_BATCH_ID);
  store<u32>(vq, batchLength, VQ_OFF_BATCH_LENGTH);
  return bytes;
}
