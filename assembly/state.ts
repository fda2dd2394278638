/**
 * Relocatable endpoint state. An endpoint holds guest-physical addresses and positions; absolute addresses are a cache
 * that `ringRebase` rebuilds after the regions moved. An exported state is a versioned image; importing one trusts
 * nothing in it: geometry is validated like an attach, positions like indexes.
 */
import {
  EP_OFF_COUNT,
  EP_OFF_DESC,
  EP_OFF_BROKEN,
  EP_OFF_COOKIES,
  EP_OFF_EXTENSIONS,
  EP_OFF_GPA,
  EP_OFF_GRANTED_POP,
  EP_OFF_GRANTED_PUSH,
  EP_OFF_INDEXES,
  EP_OFF_LENGTH,
  EP_OFF_OFFERED,
  EP_OFF_OWNED,
  EP_OFF_RING,
  EP_OFF_STRIDE,
  EP_OFF_VALID_COUNT,
  EP_STATE_SIZE,
  SIG_KIND_IOQ,
  SIG_OFF_GPA,
  SIG_OFF_IN_WAKEUP,
  SIG_OFF_KIND,
  SIG_OFF_LOCALE,
  SIG_OFF_RECORD,
  SIG_OFF_LOCAL,
  SIG_OFF_REMOTE,
  SIG_OFF_REGIONS,
  STATE_MAGIC,
  STATE_OFF_IMAGE,
  STATE_VERSION,
  VIOLATION_DESCRIPTOR,
} from "./abi/arena";
import { EFAULT, EINVAL, ENOENT } from "./abi/errno";
import {
  COMPACT_DESC_SIZE,
  EXT_COMPACT,
  EXT_KNOWN,
  IOQ_DESC_SIZE,
  IOQ_DESC_SIZE_ILP32,
  IOQ_MAGIC,
  IOQ_OFF_COUNT,
  IOQ_OFF_MAGIC,
  IOQ_OFF_SIGNAL,
  IOQ_OFF_VERSION,
  IOQ_VERSION,
} from "./abi/ioq";
import { translateRange } from "./regions";
import { isLazy, ownsAll, placeDescriptors, ringSync, segmentLength } from "./ring";
import { signalCheck, signalPlace } from "./shm-signal";

/** Rebuilds the absolute addresses of an endpoint from its region table. 0, or -EFAULT when the segment is no longer there. */
export function ringRebase(endpoint: usize): i32 {
  const ring = translateRange(
    load<u32>(endpoint, SIG_OFF_REGIONS),
    load<u64>(endpoint, EP_OFF_GPA),
    load<u32>(endpoint, EP_OFF_LENGTH),
  );
  if (ring == 0) return -EFAULT;
  if ((ring & 3) != 0) return -EINVAL;
  const ilp32 = load<u32>(endpoint, EP_OFF_STRIDE) == IOQ_DESC_SIZE_ILP32;
  store<u32>(endpoint, <u32>ring, EP_OFF_RING);
  placeDescriptors(endpoint, ilp32);
  signalPlace(endpoint, ring + IOQ_OFF_SIGNAL);
  return 0;
}

/** Rebuilds the absolute addresses of a bare signal. 0, or -EFAULT. */
export function signalRebase(signal: usize, size: u32): i32 {
  const record = translateRange(load<u32>(signal, SIG_OFF_REGIONS), load<u64>(signal, SIG_OFF_GPA), size);
  if (record == 0) return -EFAULT;
  if ((record & 3) != 0) return -EINVAL;
  signalPlace(signal, record);
  return 0;
}

/** Writes an endpoint's state to `out` (STATE_SIZE bytes). Reserved and peeked descriptors count as not taken. */
export function ringExport(endpoint: usize, out: usize): void {
  if (isLazy(endpoint) && load<u32>(endpoint, EP_OFF_BROKEN) == 0) ringSync(endpoint);
  store<u32>(out, STATE_MAGIC);
  store<u32>(out, STATE_VERSION, 4);
  store<u32>(out, EP_STATE_SIZE, 8);
  store<u32>(out, 0, 12);
  const image = out + STATE_OFF_IMAGE;
  memory.copy(image, endpoint, EP_STATE_SIZE);
  // caches of this process, and what lasts for one call only, are not state
  store<u32>(image, 0, SIG_OFF_RECORD);
  store<u32>(image, 0, SIG_OFF_LOCAL);
  store<u32>(image, 0, SIG_OFF_REMOTE);
  store<u32>(image, 0, SIG_OFF_REGIONS);
  store<u32>(image, 0, SIG_OFF_IN_WAKEUP);
  store<u32>(image, 0, EP_OFF_RING);
  store<u32>(image, 0, EP_OFF_DESC);
  store<u32>(image, 0, EP_OFF_COOKIES);
  store<u32>(image, 0, EP_OFF_GRANTED_PUSH);
  store<u32>(image, 0, EP_OFF_GRANTED_POP);
}

/**
 * Rebuilds an endpoint from an exported state, which may be anything. 0; -ENOENT: another format or version;
 * -EINVAL: contradicts itself or the ring in memory; -EFAULT: its segment lies outside the guest's memory.
 */
export function ringImport(endpoint: usize, regions: usize, state: usize): i32 {
  if (load<u32>(state) != STATE_MAGIC || load<u32>(state, 4) != STATE_VERSION) return -ENOENT;
  if (load<u32>(state, 8) != EP_STATE_SIZE) return -ENOENT;
  const image = state + STATE_OFF_IMAGE;
  const count = load<u32>(image, EP_OFF_COUNT);
  const stride = load<u32>(image, EP_OFF_STRIDE);
  const ilp32 = stride == IOQ_DESC_SIZE_ILP32;
  const compact = (load<u32>(image, EP_OFF_EXTENSIONS) & EXT_COMPACT) != 0;
  if (!ilp32 && stride != (compact ? COMPACT_DESC_SIZE : IOQ_DESC_SIZE)) return -EINVAL;
  const length = load<u32>(image, EP_OFF_LENGTH);
  if (count == 0 || <u64>length != segmentLength(count, ilp32)) return -EINVAL;
  if (load<u32>(image, SIG_OFF_LOCALE) > 1 || load<u32>(image, SIG_OFF_KIND) != SIG_KIND_IOQ) return -EINVAL;
  if (load<u32>(image, EP_OFF_OWNED) > ownsAll() || load<u32>(image, EP_OFF_VALID_COUNT) > count)
    return -EINVAL;
  if (load<u32>(image, EP_OFF_BROKEN) > <u32>VIOLATION_DESCRIPTOR) return -EINVAL;
  const extensions = load<u32>(image, EP_OFF_EXTENSIONS) | load<u32>(image, EP_OFF_OFFERED);
  if ((extensions & ~EXT_KNOWN) != 0 || (extensions != 0 && ilp32)) return -EINVAL;
  for (let i: usize = 0; i < 4; i++) {
    if (load<u32>(image + EP_OFF_INDEXES + (i << 2)) >= count) return -EINVAL;
  }
  const gpa = load<u64>(image, EP_OFF_GPA);
  if (load<u64>(image, SIG_OFF_GPA) != gpa + IOQ_OFF_SIGNAL) return -EINVAL;
  const ring = translateRange(regions, gpa, length);
  if (ring == 0) return -EFAULT;
  if ((ring & 3) != 0 || !signalCheck(ring + IOQ_OFF_SIGNAL)) return -EINVAL;
  if (load<u32>(ring, IOQ_OFF_MAGIC) != IOQ_MAGIC || load<u32>(ring, IOQ_OFF_VERSION) != IOQ_VERSION)
    return -EINVAL;
  if (load<u32>(ring, IOQ_OFF_COUNT) != count) return -EINVAL;
  memory.copy(endpoint, image, EP_STATE_SIZE);
  store<u32>(endpoint, 0, SIG_OFF_IN_WAKEUP);
  store<u32>(endpoint, 0, EP_OFF_GRANTED_PUSH);
  store<u32>(endpoint, 0, EP_OFF_GRANTED_POP);
  store<u32>(endpoint, <u32>regions, SIG_OFF_REGIONS);
  return ringRebase(endpoint);
}
