/**
 * The two sides of a ring as a driver and a device use them, written once for every loop of the benchmarks.
 * What runs here is the engine's own code: these functions only call it.
 *
 * North transmits with reclaim (`docs/abi/ioq.md` 6a): it writes address, length and cookie of each descriptor, signals,
 * and reaps what south has used. South translates and bounds-checks every address, and signals what it completed.
 */
import {
  BURST_CLEAR_VALID,
  BURST_COOKIE,
  BURST_LENGTH,
  BURST_NOFLIP,
  BURST_POINTER,
  BURST_SET_VALID,
  BURST_SIGNAL,
  BURST_TRANSLATE,
  ENTRY_OFF_ADDRESS,
  ENTRY_OFF_COOKIE,
  ENTRY_OFF_GPA,
  ENTRY_OFF_LENGTH,
  ENTRY_SIZE,
  EP_OFF_OWNER,
  SIG_OFF_LOCALE,
} from "../../assembly/abi/arena";
import { IDX_BOTH, IDX_INUSE, IDX_VALID } from "../../assembly/abi/ioq";
import { popPeek, popRelease, pushCommit, pushReserve } from "../../assembly/burst";
import { copyBytes } from "../../assembly/copy";
import { loadByte } from "../../assembly/memory-order";
import { descriptorAt, privateIndex } from "../../assembly/ring";

/** Distance between two buffers of the figures without payload. */
const BUFFER_SIZE: u64 = 2048;
/** Length that every descriptor of those figures announces. */
const FRAME_LENGTH: u32 = 1514;

/**
 * Polls the owner of the descriptor at an index's head, at most `polls` times, and nothing else: a loop of a few
 * instructions sees a change sooner than one that prepares to use what it has not got yet. 1 when it is owned here.
 */
export function poll(endpoint: usize, index: u32, polls: u32): u32 {
  const owner =
    descriptorAt(endpoint, load<u32>(privateIndex(endpoint, index, 0))) +
    <usize>load<u32>(endpoint, EP_OFF_OWNER);
  const locale = load<u32>(endpoint, SIG_OFF_LOCALE);
  for (let left = polls; left != 0; left--) {
    if (loadByte(owner) == locale) return 1;
  }
  return 0;
}

/** Describes a buffer in an entry. */
export function describe(entry: usize, gpa: u64, cookie: u64): void {
  store<u64>(entry, gpa, ENTRY_OFF_GPA);
  store<u32>(entry, FRAME_LENGTH, ENTRY_OFF_LENGTH);
  store<u64>(entry, cookie, ENTRY_OFF_COOKIE);
}

/** North: reserves exactly n descriptors and describes n buffers in the table. n, 0 for no room, or a negative errno. */
export function prepare(endpoint: usize, table: usize, n: u32, buffers: u64): i32 {
  const granted = pushReserve(endpoint, IDX_BOTH, 0, n, 0);
  if (granted != <i32>n) return granted < 0 ? granted : 0;
  let entry = table;
  for (let i: u32 = 0; i < n; i++) {
    describe(entry, buffers + <u64>i * BUFFER_SIZE, i);
    entry += ENTRY_SIZE;
  }
  return granted;
}

/** What a driver writes that describes a new buffer each time. */
export const WHOLE_DESCRIPTOR: u32 = BURST_POINTER | BURST_COOKIE | BURST_LENGTH | BURST_SET_VALID;
/** … and signals. */
export const NEW_BUFFERS: u32 = WHOLE_DESCRIPTOR | BURST_SIGNAL;
/** A driver whose descriptors keep their buffers: nothing to write, only to publish and signal. */
export const SAME_BUFFERS: u32 = BURST_SIGNAL;

/** North: posts exactly n descriptors, or none when there is no room for all. Number posted, or a negative errno. */
export function post(endpoint: usize, table: usize, n: u32, buffers: u64): i32 {
  const granted = prepare(endpoint, table, n, buffers);
  if (granted <= 0) return granted;
  const result = pushCommit(endpoint, IDX_BOTH, table, n, NEW_BUFFERS);
  return result < 0 ? result : <i32>n;
}

/** South: uses and completes up to n descriptors. Number completed, or a negative errno. */
export function complete(endpoint: usize, table: usize, n: u32): i32 {
  const granted = popPeek(endpoint, IDX_INUSE, table, n, BURST_TRANSLATE);
  if (granted <= 0) return granted;
  const result = popRelease(endpoint, IDX_INUSE, table, <u32>granted, BURST_SIGNAL);
  return result < 0 ? result : granted;
}

/** North: takes back up to n completed descriptors. Number taken, or a negative errno. */
export function reap(endpoint: usize, table: usize, n: u32): i32 {
  const granted = popPeek(endpoint, IDX_VALID, table, n, 0);
  if (granted <= 0) return granted;
  const result = popRelease(endpoint, IDX_VALID, table, <u32>granted, BURST_NOFLIP | BURST_CLEAR_VALID);
  return result < 0 ? result : granted;
}

/** Copies what n entries of a table point at to `sink`, one frame behind the other. */
export function copyOut(table: usize, n: i32, sink: usize): void {
  let entry = table;
  let at = sink;
  for (let i: i32 = 0; i < n; i++) {
    const length = load<u32>(entry, ENTRY_OFF_LENGTH);
    copyBytes(at, load<u32>(entry, ENTRY_OFF_ADDRESS), length);
    at += length;
    entry += ENTRY_SIZE;
  }
}
