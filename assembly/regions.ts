import {
  REGION_OFF_ADDRESS,
  REGION_OFF_GPA,
  REGION_OFF_LENGTH,
  REGION_SIZE,
  REGIONS_MAX,
  REGIONS_OFF_COUNT,
  REGIONS_OFF_ENTRIES,
  REGIONS_OFF_WRITE_LOG,
  WRITE_LOG_ENTRY_OFF_GPA,
  WRITE_LOG_ENTRY_OFF_LENGTH,
  WRITE_LOG_ENTRY_SIZE,
  WRITE_LOG_OFF_CAPACITY,
  WRITE_LOG_OFF_COUNT,
  WRITE_LOG_OFF_ENTRIES,
  WRITE_LOG_OFF_OVERFLOW,
} from "./abi/arena";

/**
 * Translates a guest-physical range to an address in this memory, or 0 when any byte of it lies outside every
 * region. All arithmetic is in 64 bits and cannot wrap: `gpa - start` is taken only when `gpa >= start`, and
 * `length` is compared with what is left, never added.
 */
export function translateRange(regions: usize, gpa: u64, length: u64): usize {
  let count = load<u32>(regions, REGIONS_OFF_COUNT);
  if (count > <u32>REGIONS_MAX) count = REGIONS_MAX;
  let entry = regions + REGIONS_OFF_ENTRIES;
  for (let i: u32 = 0; i < count; i++) {
    const start = load<u64>(entry, REGION_OFF_GPA);
    if (gpa >= start) {
      const offset = gpa - start;
      const size = <u64>load<u32>(entry, REGION_OFF_LENGTH);
      if (offset <= size && length <= size - offset) {
        return <usize>load<u32>(entry, REGION_OFF_ADDRESS) + <usize>offset;
      }
    }
    entry += REGION_SIZE;
  }
  return 0;
}

/** {@link translateRange} for callers whose integers have 32 bits. */
export function translate(regions: usize, gpaLow: u32, gpaHigh: u32, length: u32): usize {
  return translateRange(regions, ((<u64>gpaHigh) << 32) | gpaLow, length);
}

/** Notes in the write log, when somebody listens, that the engine wrote a guest range. */
export function logWrite(regions: usize, gpa: u64, length: u32): void {
  const log = <usize>load<u32>(regions, REGIONS_OFF_WRITE_LOG);
  if (log == 0) return;
  const count = load<u32>(log, WRITE_LOG_OFF_COUNT);
  if (count != 0) {
    // the same range again: signal bytes and ring headers are written over and over
    const last = log + WRITE_LOG_OFF_ENTRIES + <usize>(count - 1) * WRITE_LOG_ENTRY_SIZE;
    if (
      load<u64>(last, WRITE_LOG_ENTRY_OFF_GPA) == gpa &&
      load<u32>(last, WRITE_LOG_ENTRY_OFF_LENGTH) == length
    )
      return;
  }
  if (count >= load<u32>(log, WRITE_LOG_OFF_CAPACITY)) {
    store<u32>(log, 1, WRITE_LOG_OFF_OVERFLOW);
    return;
  }
  const entry = log + WRITE_LOG_OFF_ENTRIES + <usize>count * WRITE_LOG_ENTRY_SIZE;
  store<u64>(entry, gpa, WRITE_LOG_ENTRY_OFF_GPA);
  store<u32>(entry, length, WRITE_LOG_ENTRY_OFF_LENGTH);
  store<u32>(log, count + 1, WRITE_LOG_OFF_COUNT);
}
