/** A descriptor as it is read, once and with every check: what bursts and single descriptors have in common. */
import {
  BURST_COOKIE,
  BURST_HEAD,
  BURST_STRICT,
  BURST_TRANSLATE,
  ENTRY_HEAD_SIZE,
  ENTRY_OFF_ADDRESS,
  ENTRY_OFF_COOKIE,
  ENTRY_OFF_FLAGS,
  ENTRY_OFF_FRAGMENT_LIST,
  ENTRY_OFF_GPA,
  ENTRY_OFF_HEAD,
  EP_OFF_COOKIES,
  REGIONS_OFF_COUNT,
  REGIONS_OFF_ENTRIES,
  REGION_OFF_ADDRESS,
  REGION_OFF_GPA,
  REGION_OFF_LENGTH,
  SIG_OFF_LOCALE,
  SIG_OFF_REGIONS,
  VIOLATION_ADDRESS,
} from "./abi/arena";
import {
  COMPACT_COOKIE_SIZE,
  COMPACT_OFF_LEN,
  COMPACT_OFF_PTR,
  DESC_OFF_COOKIE,
  DESC_OFF_LEN,
  DESC_OFF_PTR,
} from "./abi/ioq";
import { NORTH } from "./abi/shm-signal";
import { translateRange } from "./regions";
import { violate } from "./ring";

/** A descriptor's length as a table entry holds it. */
export function clampLength(length: u64): u64 {
  return length > <u64>u32.MAX_VALUE ? <u64>u32.MAX_VALUE : length;
}

/** Takes the private copy of a frame's first bytes; bytes beyond a shorter frame read as zero. */
function readHead(entry: usize, address: usize, length: u64): void {
  const head = entry + ENTRY_OFF_HEAD;
  if (length >= <u32>ENTRY_HEAD_SIZE) {
    v128.store(head, v128.load(address));
  } else {
    store<u64>(head, 0);
    store<u64>(head, 0, 8);
    memory.copy(head, address, <usize>length);
  }
}

/** Fills the members of an entry that do not depend on where its buffer lies; neighbours are stored together. */
export function fillEntry(cookie: u64, entry: usize, gpa: u64, position: u32): void {
  store<u64>(entry, gpa, ENTRY_OFF_GPA);
  store<u64>(entry, cookie, ENTRY_OFF_COOKIE);
  v128.store(entry, i64x2.splat(0), ENTRY_OFF_FLAGS); // flags, checksum places, segmentation, fragments
  store<u64>(entry, (<u64>position) << 32, ENTRY_OFF_FRAGMENT_LIST);
}

/** Copies a descriptor that is owned here to a table entry, with every check. 0, or -EPROTO. */
export function readDescriptor(
  endpoint: usize,
  descriptor: usize,
  position: u32,
  entry: usize,
  flags: u32,
): i32 {
  const cookies = <usize>load<u32>(endpoint, EP_OFF_COOKIES);
  // double fetch: address, length and cookie are read once, checked below
  let gpa: u64;
  let length: u64;
  let cookie: u64 = 0;
  if (cookies == 0) {
    gpa = load<u64>(descriptor, DESC_OFF_PTR);
    length = load<u64>(descriptor, DESC_OFF_LEN);
    cookie = load<u64>(descriptor, DESC_OFF_COOKIE);
  } else {
    gpa = load<u64>(descriptor, COMPACT_OFF_PTR);
    length = <u64>load<u32>(descriptor, COMPACT_OFF_LEN);
    if (load<u32>(endpoint, SIG_OFF_LOCALE) == NORTH || (flags & BURST_COOKIE) != 0)
      cookie = load<u64>(cookies + <usize>position * COMPACT_COOKIE_SIZE);
  }
  fillEntry(cookie, entry, gpa, position);
  let address: usize = 0;
  if ((flags & BURST_TRANSLATE) != 0) {
    const regions = <usize>load<u32>(endpoint, SIG_OFF_REGIONS);
    const offset = gpa - load<u64>(regions, REGIONS_OFF_ENTRIES + REGION_OFF_GPA); // wraps below the region
    const size = <u64>load<u32>(regions, REGIONS_OFF_ENTRIES + REGION_OFF_LENGTH);
    // most guests have just one region
    if (load<u32>(regions, REGIONS_OFF_COUNT) != 0 && offset <= size && length <= size - offset) {
      address = <usize>load<u32>(regions, REGIONS_OFF_ENTRIES + REGION_OFF_ADDRESS) + <usize>offset;
    } else {
      address = translateRange(regions, gpa, length);
      if (address == 0 && (flags & BURST_STRICT) != 0) return violate(endpoint, VIOLATION_ADDRESS);
    }
    if ((flags & BURST_HEAD) != 0 && address != 0) readHead(entry, address, length);
  }
  store<u64>(entry, (<u64>address) | (clampLength(length) << 32), ENTRY_OFF_ADDRESS);
  return 0;
}
