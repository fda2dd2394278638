/**
 * Relocatable state of virtqueue endpoints: private positions, and the driver's records or the order list. An exported
 * state is a versioned image; importing one trusts nothing in it: whatever the engine's loops take for granted is
 * checked here, and what a side last published has to be what the shared areas say.
 */
import { STATE_OFF_IMAGE } from "./abi/arena";
import {
  VQ_DRIVER,
  VQ_FLAGS_KNOWN,
  VQ_IN_ORDER,
  VQ_NO_BATCH,
  VQ_OFF_AVAIL,
  VQ_OFF_AVAIL_WRAP,
  VQ_OFF_BATCH_ID,
  VQ_OFF_BROKEN,
  VQ_OFF_DESC,
  VQ_OFF_DEVICE,
  VQ_OFF_DRIVER,
  VQ_OFF_FLAGS,
  VQ_OFF_FREE_HEAD,
  VQ_OFF_GRANTED,
  VQ_OFF_GRANTED_SLOTS,
  VQ_OFF_GRANTED_TABLE,
  VQ_OFF_IN_FLIGHT,
  VQ_OFF_INDIRECT,
  VQ_OFF_INDIRECT_SIZE,
  VQ_OFF_MAX_PIECES,
  VQ_OFF_PEER,
  VQ_OFF_POOL,
  VQ_OFF_REGIONS,
  VQ_OFF_SIZE,
  VQ_OFF_SLOTS,
  VQ_OFF_USED,
  VQ_OFF_USED_WRAP,
  VQ_ORDER_SIZE,
  VQ_PACKED,
  VQ_RECORD_OFF_CAPACITY,
  VQ_RECORD_OFF_NEXT,
  VQ_RECORD_OFF_SLOTS,
  VQ_RECORD_SIZE,
  VQ_STATE_MAGIC,
  VQ_STATE_SIZE,
  VQ_STATE_VERSION,
  VQ_VIOLATION_REQUEST,
} from "./abi/arena-virtq";
import { EINVAL, ENOENT } from "./abi/errno";
import { SPLIT_RING_OFF_IDX, VIRTQ_MAX_SIZE } from "./abi/virtio";
import { loadHalf } from "./memory-order";
import { has } from "./virtq";
import { sizeFits, virtqRebase } from "./virtq-endpoint";

/** Length of the records or of the order list. */
function poolLength(flags: u32, size: u32): u32 {
  if ((flags & VQ_DRIVER) != 0) return size * VQ_RECORD_SIZE;
  return (flags & VQ_IN_ORDER) != 0 ? size * VQ_ORDER_SIZE : 0;
}

/** Writes an endpoint's state to `out`: header, state, records or order list. Peeked chains count as not taken. */
export function virtqExport(vq: usize, out: usize): void {
  const pool = poolLength(load<u32>(vq, VQ_OFF_FLAGS), load<u32>(vq, VQ_OFF_SIZE));
  store<u32>(out, VQ_STATE_MAGIC);
  store<u32>(out, VQ_STATE_VERSION, 4);
  store<u32>(out, VQ_STATE_SIZE + pool, 8);
  store<u32>(out, 0, 12);
  const image = out + STATE_OFF_IMAGE;
  memory.copy(image, vq, VQ_STATE_SIZE);
  memory.copy(image + VQ_STATE_SIZE, load<u32>(vq, VQ_OFF_POOL), pool);
  // caches of this process, and what lasts for one call only, are not state
  store<u32>(image, 0, VQ_OFF_REGIONS);
  store<u32>(image, 0, VQ_OFF_DESC);
  store<u32>(image, 0, VQ_OFF_DRIVER);
  store<u32>(image, 0, VQ_OFF_DEVICE);
  store<u32>(image, 0, VQ_OFF_POOL);
  store<u32>(image, 0, VQ_OFF_INDIRECT);
  store<u32>(image, 0, VQ_OFF_PEER);
  store<u32>(image, 0, VQ_OFF_GRANTED);
  store<u32>(image, 0, VQ_OFF_GRANTED_SLOTS);
  store<u32>(image, 0, VQ_OFF_GRANTED_TABLE);
}

/**
 * Rebuilds an endpoint from an exported state of `length` bytes, which may be anything; `pool` is room for what its
 * flags and size ask for. 0; -ENOENT: another format or version; -EINVAL: contradicts itself or the areas in memory;
 * -EFAULT: an area lies outside the guest's memory.
 */
export function virtqImport(vq: usize, regions: usize, state: usize, length: u32, pool: usize): i32 {
  if (length < <u32>(STATE_OFF_IMAGE + VQ_STATE_SIZE)) return -ENOENT;
  if (load<u32>(state) != VQ_STATE_MAGIC || load<u32>(state, 4) != VQ_STATE_VERSION) return -ENOENT;
  if (load<u32>(state, 8) != length - STATE_OFF_IMAGE) return -ENOENT;
  const image = state + STATE_OFF_IMAGE;
  const flags = load<u32>(image, VQ_OFF_FLAGS);
  const size = load<u32>(image, VQ_OFF_SIZE);
  if ((flags & ~(<u32>VQ_FLAGS_KNOWN)) != 0 || !sizeFits(flags, size)) return -EINVAL;
  if (length - STATE_OFF_IMAGE - VQ_STATE_SIZE != poolLength(flags, size)) return -EINVAL;
  const pieces = load<u32>(image, VQ_OFF_MAX_PIECES);
  if (pieces == 0 || pieces > <u32>VIRTQ_MAX_SIZE) return -EINVAL;
  if (load<u32>(image, VQ_OFF_INDIRECT_SIZE) > <u32>VIRTQ_MAX_SIZE) return -EINVAL;
  if (load<u32>(image, VQ_OFF_BROKEN) > <u32>VQ_VIOLATION_REQUEST) return -EINVAL;
  memory.copy(vq, image, VQ_STATE_SIZE);
  memory.copy(pool, image + VQ_STATE_SIZE, poolLength(flags, size));
  store<u32>(vq, <u32>regions, VQ_OFF_REGIONS);
  store<u32>(vq, <u32>pool, VQ_OFF_POOL);
  store<u32>(vq, 0, VQ_OFF_GRANTED);
  store<u32>(vq, 0, VQ_OFF_GRANTED_SLOTS);
  const driver = (flags & VQ_DRIVER) != 0;
  // nothing is known of the peer: its index is read again
  store<u32>(vq, load<u32>(vq + (driver ? VQ_OFF_USED : VQ_OFF_AVAIL)), VQ_OFF_PEER);
  if (!((flags & VQ_PACKED) != 0 ? packedPlaces(vq) : splitPlaces(vq))) return -EINVAL;
  if (driver && !((flags & VQ_IN_ORDER) != 0 ? orderedRecords(vq) : linkedRecords(vq))) return -EINVAL;
  const bad = virtqRebase(vq);
  if (bad != 0 || (flags & VQ_PACKED) != 0) return bad;
  const own = loadHalf(<usize>load<u32>(vq + (driver ? VQ_OFF_DRIVER : VQ_OFF_DEVICE)) + SPLIT_RING_OFF_IDX);
  return own == load<u32>(vq + (driver ? VQ_OFF_AVAIL : VQ_OFF_USED)) ? 0 : -EINVAL;
}

/** Split: as many chains in flight as lie between the two positions. */
function splitPlaces(vq: usize): bool {
  const avail = load<u32>(vq, VQ_OFF_AVAIL);
  const used = load<u32>(vq, VQ_OFF_USED);
  const flying = load<u32>(vq, VQ_OFF_IN_FLIGHT);
  if ((avail | used) > 0xffff || flying > load<u32>(vq, VQ_OFF_SIZE)) return false;
  return ((avail - used) & 0xffff) == flying;
}

/** Packed: as many descriptors in flight, and at least one for each chain. */
function packedPlaces(vq: usize): bool {
  const size = load<u32>(vq, VQ_OFF_SIZE);
  const avail = load<u32>(vq, VQ_OFF_AVAIL);
  const used = load<u32>(vq, VQ_OFF_USED);
  const availWrap = load<u32>(vq, VQ_OFF_AVAIL_WRAP);
  const usedWrap = load<u32>(vq, VQ_OFF_USED_WRAP);
  const slots = load<u32>(vq, VQ_OFF_SLOTS);
  const flying = load<u32>(vq, VQ_OFF_IN_FLIGHT);
  if (avail >= size || used >= size || (availWrap | usedWrap) > 1) return false;
  if (slots > size || flying > slots || (slots != 0 && flying == 0)) return false;
  return (availWrap == usedWrap ? avail - used : avail + size - used) == slots;
}

function recordAt(vq: usize, i: u32): usize {
  return <usize>load<u32>(vq, VQ_OFF_POOL) + <usize>i * VQ_RECORD_SIZE;
}

/**
 * Driver, any order: every record is on the free list, or is the head of a chain in flight, or (split, direct) follows
 * one; none is two of these. Those that head no chain have no capacity: there they are marked when they were visited.
 */
function linkedRecords(vq: usize): bool {
  const size = load<u32>(vq, VQ_OFF_SIZE);
  const split = !has(vq, VQ_PACKED);
  const flying = load<u32>(vq, VQ_OFF_IN_FLIGHT);
  const slots = load<u32>(vq, VQ_OFF_SLOTS);
  if (slots > size || flying > slots) return false;
  for (let i: u32 = 0; i < size; i++) {
    if (load<u16>(recordAt(vq, i), VQ_RECORD_OFF_SLOTS) == 0)
      store<u32>(recordAt(vq, i), 0, VQ_RECORD_OFF_CAPACITY);
  }
  let heads: u32 = 0;
  let sum: u64 = 0;
  for (let i: u32 = 0; i < size; i++) {
    const taken = <u32>load<u16>(recordAt(vq, i), VQ_RECORD_OFF_SLOTS);
    if (taken == 0) continue;
    heads++;
    sum += taken;
    if (taken > size) return false;
    let at = i;
    for (let k: u32 = 1; split && k < taken; k++) {
      at = load<u16>(recordAt(vq, at), VQ_RECORD_OFF_NEXT);
      if (at >= size || load<u16>(recordAt(vq, at), VQ_RECORD_OFF_SLOTS) != 0) return false;
      if (!visit(recordAt(vq, at))) return false;
    }
  }
  if (heads != flying || sum != slots) return false;
  let free = split ? size - slots : size - flying;
  let at = load<u32>(vq, VQ_OFF_FREE_HEAD);
  while (free-- != 0) {
    if (at >= size) return false;
    const record = recordAt(vq, at);
    if (load<u16>(record, VQ_RECORD_OFF_SLOTS) != 0 || !visit(record)) return false;
    at = load<u16>(record, VQ_RECORD_OFF_NEXT);
  }
  return at < size;
}

/** Marks a record that heads no chain. False: it is marked already. */
function visit(record: usize): bool {
  if (load<u32>(record, VQ_RECORD_OFF_CAPACITY) != 0) return false;
  store<u32>(record, 1, VQ_RECORD_OFF_CAPACITY);
  return true;
}

/** Driver, in order: the records in flight follow each other from the oldest on, in ring order, and are as many. */
function orderedRecords(vq: usize): bool {
  const size = load<u32>(vq, VQ_OFF_SIZE);
  const split = !has(vq, VQ_PACKED);
  const slots = load<u32>(vq, VQ_OFF_SLOTS);
  const head = load<u32>(vq, VQ_OFF_FREE_HEAD);
  const batch = load<u32>(vq, VQ_OFF_BATCH_ID);
  if (slots > size || head >= size) return false;
  let at = split ? (head + size - slots) % size : load<u32>(vq, VQ_OFF_USED);
  let left = slots;
  let chains: u32 = 0;
  let found = batch == VQ_NO_BATCH;
  for (let i: u32 = 0; i < size; i++) {
    const record = recordAt(vq, i);
    if (load<u16>(record, VQ_RECORD_OFF_NEXT) != (i + 1) % size) return false;
  }
  while (left != 0) {
    const taken = <u32>load<u16>(recordAt(vq, at), VQ_RECORD_OFF_SLOTS);
    if (taken == 0 || taken > left) return false;
    if (at == batch) found = true;
    for (let k: u32 = 1; k < taken; k++) {
      if (load<u16>(recordAt(vq, (at + k) % size), VQ_RECORD_OFF_SLOTS) != 0) return false;
    }
    left -= taken;
    chains++;
    at = (at + taken) % size;
  }
  for (let k: u32 = slots; k < size; k++) {
    if (load<u16>(recordAt(vq, at), VQ_RECORD_OFF_SLOTS) != 0) return false;
    at = (at + 1) % size;
  }
  return found && chains == load<u32>(vq, VQ_OFF_IN_FLIGHT);
}
