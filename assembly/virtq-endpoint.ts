/**
 * The verbs of a virtqueue endpoint, for both formats: what the typed door calls. They check what does not depend on
 * the format (broken, granted, in flight) and leave the rest to `virtq-split*.ts` and `virtq-packed*.ts`.
 */
import {
  VQ_DRIVER,
  VQ_FLAGS_KNOWN,
  VQ_OFF_AVAIL_WRAP,
  VQ_OFF_BROKEN,
  VQ_OFF_DESC,
  VQ_OFF_DESC_GPA,
  VQ_OFF_DEVICE_GPA,
  VQ_OFF_DRIVER_GPA,
  VQ_OFF_FLAGS,
  VQ_OFF_GRANTED,
  VQ_OFF_IN_FLIGHT,
  VQ_OFF_INDIRECT,
  VQ_OFF_INDIRECT_GPA,
  VQ_OFF_INDIRECT_SIZE,
  VQ_OFF_MAX_PIECES,
  VQ_OFF_POOL,
  VQ_OFF_REGIONS,
  VQ_OFF_SIZE,
  VQ_OFF_USED_WRAP,
  VQ_PACKED,
  VQ_STATE_SIZE,
} from "./abi/arena-virtq";
import { EFAULT, EINVAL, EPROTO } from "./abi/errno";
import {
  PACKED_EVENT_ALIGN,
  PACKED_EVENT_AREA_SIZE,
  SPLIT_AVAIL_ALIGN,
  SPLIT_AVAIL_ENTRY_SIZE,
  SPLIT_EVENT_SIZE,
  SPLIT_RING_OFF_ENTRIES,
  SPLIT_USED_ALIGN,
  SPLIT_USED_ENTRY_SIZE,
  VIRTQ_DESC_ALIGN,
  VIRTQ_DESC_SIZE,
  VIRTQ_MAX_SIZE,
} from "./abi/virtio";
import { logWrite, translateRange } from "./regions";
import { has } from "./virtq";
import {
  packedAdvance,
  packedComplete,
  packedCompleteOne,
  packedDisable,
  packedEnable,
  packedEnableDelayed,
  packedHasWork,
  packedPeek,
} from "./virtq-packed";
import { packedAdd, packedReap, packedReset } from "./virtq-packed-driver";
import {
  splitAdvance,
  splitComplete,
  splitCompleteOne,
  splitDisable,
  splitEnable,
  splitEnableDelayed,
  splitHasWork,
  splitPeek,
} from "./virtq-split";
import { splitAdd, splitReap, splitReset } from "./virtq-split-driver";

/** Length of an area: 0 descriptors, 1 driver's, 2 device's (2.7, 2.8.10). */
export function areaLength(flags: u32, size: u32, area: u32): u32 {
  if (area == 0) return size * VIRTQ_DESC_SIZE;
  if ((flags & VQ_PACKED) != 0) return PACKED_EVENT_AREA_SIZE;
  const entry = area == 1 ? SPLIT_AVAIL_ENTRY_SIZE : SPLIT_USED_ENTRY_SIZE;
  return SPLIT_RING_OFF_ENTRIES + size * entry + SPLIT_EVENT_SIZE;
}

/** Alignment of an area. */
export function areaAlign(flags: u32, area: u32): u32 {
  if (area == 0) return VIRTQ_DESC_ALIGN;
  if ((flags & VQ_PACKED) != 0) return PACKED_EVENT_ALIGN;
  return area == 1 ? SPLIT_AVAIL_ALIGN : SPLIT_USED_ALIGN;
}

/** True for a size that the format can have: a power of two (split, 2.7), 1 to 32768. */
export function sizeFits(flags: u32, size: u32): bool {
  if (size == 0 || size > <u32>VIRTQ_MAX_SIZE) return false;
  return (flags & VQ_PACKED) != 0 || (size & (size - 1)) == 0;
}

/** Rebuilds the absolute addresses of an endpoint from its region table. 0; -EFAULT: outside; -EINVAL: alignment. */
export function virtqRebase(vq: usize): i32 {
  const regions = <usize>load<u32>(vq, VQ_OFF_REGIONS);
  const flags = load<u32>(vq, VQ_OFF_FLAGS);
  const size = load<u32>(vq, VQ_OFF_SIZE);
  for (let area: u32 = 0; area < 3; area++) {
    const gpa = load<u64>(vq + ((<usize>area) << 3), VQ_OFF_DESC_GPA);
    const address = translateRange(regions, gpa, areaLength(flags, size, area));
    if (address == 0) return -EFAULT;
    // atomics trap on what is not aligned
    if ((((<u32>gpa) | (<u32>address)) & (areaAlign(flags, area) - 1)) != 0) return -EINVAL;
    store<u32>(vq + ((<usize>area) << 2), <u32>address, VQ_OFF_DESC);
  }
  store<u32>(vq, 0, VQ_OFF_INDIRECT);
  const tables = <u64>load<u32>(vq, VQ_OFF_INDIRECT_SIZE) * VIRTQ_DESC_SIZE * size;
  if (tables != 0) {
    const address = translateRange(regions, load<u64>(vq, VQ_OFF_INDIRECT_GPA), tables);
    if (address == 0) return -EFAULT;
    store<u32>(vq, <u32>address, VQ_OFF_INDIRECT);
  }
  return 0;
}

/**
 * Binds an endpoint to three areas; the driver's side formats them. `flags` are `VQ_…`, `pool` is room for the records
 * (driver) or the order list (device, in order). 0; -EINVAL: flags, size, alignment; -EFAULT: range.
 */
export function virtqBind(
  vq: usize,
  regions: usize,
  flags: u32,
  size: u32,
  maxPieces: u32,
  pool: usize,
  descLow: u32,
  descHigh: u32,
  driverLow: u32,
  driverHigh: u32,
  deviceLow: u32,
  deviceHigh: u32,
): i32 {
  if ((flags & ~(<u32>VQ_FLAGS_KNOWN)) != 0 || !sizeFits(flags, size)) return -EINVAL;
  if (maxPieces == 0 || maxPieces > <u32>VIRTQ_MAX_SIZE) return -EINVAL;
  memory.fill(vq, 0, VQ_STATE_SIZE);
  store<u32>(vq, <u32>regions, VQ_OFF_REGIONS);
  store<u32>(vq, flags, VQ_OFF_FLAGS);
  store<u32>(vq, size, VQ_OFF_SIZE);
  store<u32>(vq, maxPieces, VQ_OFF_MAX_PIECES);
  store<u32>(vq, <u32>pool, VQ_OFF_POOL);
  store<u64>(vq, ((<u64>descHigh) << 32) | descLow, VQ_OFF_DESC_GPA);
  store<u64>(vq, ((<u64>driverHigh) << 32) | driverLow, VQ_OFF_DRIVER_GPA);
  store<u64>(vq, ((<u64>deviceHigh) << 32) | deviceLow, VQ_OFF_DEVICE_GPA);
  store<u32>(vq, 1, VQ_OFF_AVAIL_WRAP); // both counters start at 1 (2.8.1)
  store<u32>(vq, 1, VQ_OFF_USED_WRAP);
  const bad = virtqRebase(vq);
  if (bad != 0 || (flags & VQ_DRIVER) == 0) return bad;
  for (let area: u32 = 0; area < 3; area++) {
    const length = areaLength(flags, size, area);
    memory.fill(load<u32>(vq + ((<usize>area) << 2), VQ_OFF_DESC), 0, length);
    logWrite(regions, load<u64>(vq + ((<usize>area) << 3), VQ_OFF_DESC_GPA), length);
  }
  if ((flags & VQ_PACKED) != 0) packedReset(vq);
  else splitReset(vq);
  return 0;
}

/** Driver: gives the queue memory for indirect tables, `size` descriptors for each of its own. 0; -EINVAL; -EFAULT. */
export function virtqTables(vq: usize, low: u32, high: u32, size: u32): i32 {
  if (size > <u32>VIRTQ_MAX_SIZE) return -EINVAL;
  store<u64>(vq, ((<u64>high) << 32) | low, VQ_OFF_INDIRECT_GPA);
  store<u32>(vq, size, VQ_OFF_INDIRECT_SIZE);
  return virtqRebase(vq);
}

/** Device: fills the table with up to `max` available chains (`lists`: `room` pieces for each). Number, or -EPROTO. */
export function virtqPeek(vq: usize, table: usize, max: u32, lists: usize, room: u32): i32 {
  if (load<u32>(vq, VQ_OFF_BROKEN) != 0) return -EPROTO;
  return has(vq, VQ_PACKED)
    ? packedPeek(vq, table, max, lists, room)
    : splitPeek(vq, table, max, lists, room);
}

/** Device: takes the first n chains of the last peek. 0; -EINVAL: it found fewer; -EPROTO. */
export function virtqAdvance(vq: usize, n: u32): i32 {
  if (load<u32>(vq, VQ_OFF_BROKEN) != 0) return -EPROTO;
  if (n > load<u32>(vq, VQ_OFF_GRANTED)) return -EINVAL;
  if (has(vq, VQ_PACKED)) return packedAdvance(vq, n);
  splitAdvance(vq, n);
  return 0;
}

/** Device: completes n chains in flight, from `table` on. 1: interrupt; 0; -EINVAL: fewer in flight, or not in order; -EPROTO. */
export function virtqComplete(vq: usize, table: usize, n: u32): i32 {
  if (load<u32>(vq, VQ_OFF_BROKEN) != 0) return -EPROTO;
  if (n > load<u32>(vq, VQ_OFF_IN_FLIGHT)) return -EINVAL;
  if (n == 0) return 0;
  return has(vq, VQ_PACKED) ? packedComplete(vq, table, n) : splitComplete(vq, table, n);
}

/** Device: {@link virtqAdvance}, then {@link virtqComplete} of the same chains, which are the table's first. */
export function virtqRelease(vq: usize, table: usize, n: u32): i32 {
  const taken = virtqAdvance(vq, n);
  return taken != 0 ? taken : virtqComplete(vq, table, n);
}

/** Device: completes one chain in flight that no table holds. Results as for {@link virtqComplete}. */
export function virtqCompleteOne(vq: usize, id: u32, slots: u32, used: u32): i32 {
  if (load<u32>(vq, VQ_OFF_BROKEN) != 0) return -EPROTO;
  if (load<u32>(vq, VQ_OFF_IN_FLIGHT) == 0) return -EINVAL;
  return has(vq, VQ_PACKED) ? packedCompleteOne(vq, id, slots, used) : splitCompleteOne(vq, id, used);
}

/** Asks for notifications, then looks once more. `peeked`: what the last peek found counts as seen. 1: something is there, or the queue is broken. */
export function virtqEnable(vq: usize, peeked: u32): u32 {
  if (load<u32>(vq, VQ_OFF_BROKEN) != 0) return 0;
  return has(vq, VQ_PACKED) ? packedEnable(vq, peeked) : splitEnable(vq, peeked);
}

/** Driver: {@link virtqEnable} for when most of what is in flight has been used. */
export function virtqEnableDelayed(vq: usize): u32 {
  if (load<u32>(vq, VQ_OFF_BROKEN) != 0) return 0;
  return has(vq, VQ_PACKED) ? packedEnableDelayed(vq) : splitEnableDelayed(vq);
}

/** Asks for as few notifications as possible. */
export function virtqDisable(vq: usize): void {
  if (has(vq, VQ_PACKED)) packedDisable(vq);
  else splitDisable(vq);
}

/** 1 when the peer has put something there. */
export function virtqHasWork(vq: usize): u32 {
  if (load<u32>(vq, VQ_OFF_BROKEN) != 0) return 0;
  return (has(vq, VQ_PACKED) ? packedHasWork(vq) : splitHasWork(vq)) ? 1 : 0;
}

/** Driver: makes n chains available at once. 1: kick; 0; -EINVAL: a chain that no queue takes; -ENOSPC; -EPROTO. */
export function virtqAdd(vq: usize, table: usize, n: u32): i32 {
  if (load<u32>(vq, VQ_OFF_BROKEN) != 0) return -EPROTO;
  if (n == 0) return 0;
  return has(vq, VQ_PACKED) ? packedAdd(vq, table, n) : splitAdd(vq, table, n);
}

/** Driver: fills the table with up to `max` used chains. Number, or -EPROTO. */
export function virtqReap(vq: usize, table: usize, max: u32): i32 {
  if (load<u32>(vq, VQ_OFF_BROKEN) != 0) return -EPROTO;
  return has(vq, VQ_PACKED) ? packedReap(vq, table, max) : splitReap(vq, table, max);
}
