/**
 * One half each of the two-thread figures. A loop returns when it is done or after `polls` polls in a row without
 * progress, so that V8 gets to replace it by its optimised form and no wait is unbounded; the caller calls again.
 * Where a loop stands is kept in a progress record of the caller's: two 32-bit words, posted and finished.
 */
import {
  BURST_CLEAR_VALID,
  BURST_LENGTH,
  BURST_NOFLIP,
  BURST_SIGNAL,
  BURST_TRANSLATE,
  ENTRY_OFF_ADDRESS,
  ENTRY_OFF_LENGTH,
  ENTRY_SIZE,
  RECHECK_INUSE_HEAD,
  WAKEUP_RUN,
} from "../../assembly/abi/arena";
import { IDX_BOTH, IDX_INUSE, IDX_VALID } from "../../assembly/abi/ioq";
import { popPeek, popRelease, pushCommit, pushReserve } from "../../assembly/burst";
import { copyBytes } from "../../assembly/copy";
import { ringWakeupBegin, ringWakeupNext } from "../../assembly/ring";
import { complete, NEW_BUFFERS, poll, post, prepare, reap, SAME_BUFFERS } from "./sides";

const POSTED = 0;
const FINISHED = 4;

/** Outcome of a loop: it is done. */
export const LOOP_DONE: i32 = 0;
/** … call again. */
export const LOOP_AGAIN: i32 = 1;
/** Failure of a loop, told apart from every errno of the engine. */
const LOOP_STUCK: i32 = -1000;
/** … ring the doorbell, then call again. */
export const LOOP_DOORBELL: i32 = 2;

/**
 * North: posts `target` descriptors in bursts of n, never more than `window` outstanding, and reaps them. It reaps only
 * when it cannot post: asking for completions earlier would pull lines from under south's hands.
 */
export function northRounds(
  endpoint: usize,
  table: usize,
  n: u32,
  window: u32,
  target: u32,
  buffers: u32,
  progress: usize,
  polls: u32,
): i32 {
  let posted = load<u32>(progress, POSTED);
  let reaped = load<u32>(progress, FINISHED);
  let left = polls;
  let outcome = LOOP_AGAIN;
  while (left != 0) {
    let moved: i32 = 0;
    if (posted < target && posted - reaped + n <= window) {
      moved = post(endpoint, table, n, buffers);
      if (moved > 0) posted += moved;
    }
    if (moved == 0) {
      moved = reap(endpoint, table, n);
      if (moved > 0) {
        reaped += moved;
        if (reaped == target) {
          outcome = LOOP_DONE;
          break;
        }
      }
    }
    if (moved < 0) return moved;
    left = moved == 0 ? left - 1 : polls;
  }
  store<u32>(progress, posted, POSTED);
  store<u32>(progress, reaped, FINISHED);
  return outcome;
}

/**
 * North with one descriptor outstanding: the next one is published when the answer to the one before has been seen. What
 * can be done while the answer travels is done then: preparing the next descriptor. `same`: each descriptor keeps its
 * buffer and is not written again, so that publishing it is one store to its line.
 */
export function roundTrips(
  endpoint: usize,
  table: usize,
  reapTable: usize,
  target: u32,
  buffers: u32,
  same: u32,
  progress: usize,
  polls: u32,
): i32 {
  const flags = same != 0 ? SAME_BUFFERS : NEW_BUFFERS;
  const release = same != 0 ? BURST_NOFLIP : BURST_NOFLIP | BURST_CLEAR_VALID;
  let posted = load<u32>(progress, POSTED);
  let answered = load<u32>(progress, FINISHED);
  let outcome = LOOP_AGAIN;
  if (posted == 0) {
    const prepared = prepare(endpoint, table, 1, buffers);
    if (prepared != 1) return prepared < 0 ? prepared : LOOP_STUCK;
    const result = pushCommit(endpoint, IDX_BOTH, table, 1, flags);
    if (result < 0) return result;
    posted = 1;
    if (prepare(endpoint, table, 1, buffers) != 1) return LOOP_STUCK;
  }
  for (;;) {
    if (poll(endpoint, IDX_VALID, polls) == 0) break;
    const seen = popPeek(endpoint, IDX_VALID, reapTable, 1, 0);
    if (seen != 1) return seen < 0 ? seen : LOOP_STUCK;
    answered++;
    const released = popRelease(endpoint, IDX_VALID, reapTable, 1, release);
    if (released < 0) return released;
    if (posted < target) {
      const result = pushCommit(endpoint, IDX_BOTH, table, 1, flags);
      if (result < 0) return result;
      posted++;
    }
    if (answered == target) {
      outcome = LOOP_DONE;
      break;
    }
    if (prepare(endpoint, table, 1, buffers) != 1) return LOOP_STUCK;
  }
  store<u32>(progress, posted, POSTED);
  store<u32>(progress, answered, FINISHED);
  return outcome;
}

/** South: uses and completes `target` descriptors, up to n at a time. */
export function southRounds(
  endpoint: usize,
  table: usize,
  n: u32,
  target: u32,
  progress: usize,
  polls: u32,
): i32 {
  let finished = load<u32>(progress, FINISHED);
  let left = polls;
  let outcome = LOOP_AGAIN;
  while (left != 0) {
    const moved = complete(endpoint, table, n);
    if (moved < 0) return moved;
    if (moved == 0) {
      left--;
      continue;
    }
    left = polls;
    finished += moved;
    if (finished == target) {
      outcome = LOOP_DONE;
      break;
    }
  }
  store<u32>(progress, finished, FINISHED);
  return outcome;
}

/** South of {@link roundTrips}: completes one descriptor at a time. */
export function answerTrips(endpoint: usize, table: usize, target: u32, progress: usize, polls: u32): i32 {
  let finished = load<u32>(progress, FINISHED);
  let outcome = LOOP_AGAIN;
  while (poll(endpoint, IDX_INUSE, polls) != 0) {
    const moved = complete(endpoint, table, 1);
    if (moved != 1) return moved < 0 ? moved : LOOP_STUCK;
    if (++finished == target) {
      outcome = LOOP_DONE;
      break;
    }
  }
  store<u32>(progress, finished, FINISHED);
  return outcome;
}

/**
 * North feeds frames one way (`docs/abi/ioq.md` 6d): copies `length` bytes from `source` into each buffer and pushes n at
 * a time on inuse. Returns LOOP_DOORBELL when south wants to be woken.
 */
export function feedRounds(
  endpoint: usize,
  table: usize,
  n: u32,
  target: u32,
  source: usize,
  length: u32,
  progress: usize,
  polls: u32,
): i32 {
  let posted = load<u32>(progress, POSTED);
  let left = polls;
  let outcome = LOOP_AGAIN;
  if (posted == target) return LOOP_DONE; // the last burst asked for a doorbell
  while (left != 0) {
    const granted = pushReserve(endpoint, IDX_INUSE, table, n, BURST_TRANSLATE);
    if (granted < 0) return granted;
    if (granted != <i32>n) {
      left--;
      continue;
    }
    let entry = table;
    for (let i: u32 = 0; i < n; i++) {
      copyBytes(load<u32>(entry, ENTRY_OFF_ADDRESS), source, length);
      store<u32>(entry, length, ENTRY_OFF_LENGTH);
      entry += ENTRY_SIZE;
    }
    const result = pushCommit(endpoint, IDX_INUSE, table, n, BURST_LENGTH | BURST_SIGNAL);
    if (result < 0) return result;
    posted += n;
    left = polls;
    if (result == 1) {
      outcome = LOOP_DOORBELL;
      break;
    }
    if (posted == target) {
      outcome = LOOP_DONE;
      break;
    }
  }
  store<u32>(progress, posted, POSTED);
  return outcome;
}

/** Copies what up to n descriptors carry to `sink`, one frame behind the other, and gives them back. Number, or errno. */
function take(endpoint: usize, table: usize, n: u32, sink: usize): i32 {
  const granted = popPeek(endpoint, IDX_INUSE, table, n, BURST_TRANSLATE);
  if (granted <= 0) return granted;
  let entry = table;
  let at = sink;
  for (let i: i32 = 0; i < granted; i++) {
    const length = load<u32>(entry, ENTRY_OFF_LENGTH);
    copyBytes(at, load<u32>(entry, ENTRY_OFF_ADDRESS), length);
    at += length;
    entry += ENTRY_SIZE;
  }
  const result = popRelease(endpoint, IDX_INUSE, table, <u32>granted, BURST_SIGNAL);
  return result < 0 ? result : granted;
}

/** South of {@link feedRounds}: polls. */
export function takeRounds(
  endpoint: usize,
  table: usize,
  n: u32,
  target: u32,
  sink: usize,
  progress: usize,
  polls: u32,
): i32 {
  let finished = load<u32>(progress, FINISHED);
  let left = polls;
  let outcome = LOOP_AGAIN;
  while (left != 0) {
    const moved = take(endpoint, table, n, sink);
    if (moved < 0) return moved;
    if (moved == 0) {
      left--;
      continue;
    }
    left = polls;
    finished += moved;
    if (finished == target) {
      outcome = LOOP_DONE;
      break;
    }
  }
  store<u32>(progress, finished, FINISHED);
  return outcome;
}

/**
 * South of {@link feedRounds}, woken: one complete wakeup whose notifier drains the ring and polls `polls` times before
 * it gives up (`docs/abi/shm-signal.md` 2.4). Call it once per doorbell; LOOP_AGAIN when it should go to sleep,
 * LOOP_DOORBELL when its budget is spent and it wants to be called again at once.
 */
export function wakeupRounds(
  endpoint: usize,
  table: usize,
  n: u32,
  target: u32,
  sink: usize,
  progress: usize,
  polls: u32,
  budget: u32,
): i32 {
  let finished = load<u32>(progress, FINISHED);
  let turn = ringWakeupBegin(endpoint, budget, RECHECK_INUSE_HEAD);
  while (turn == WAKEUP_RUN) {
    let left = polls;
    while (left != 0) {
      const moved = take(endpoint, table, n, sink);
      if (moved < 0) return moved;
      left = moved == 0 ? left - 1 : polls;
      finished += moved;
      if (finished == target) left = 0;
    }
    turn = ringWakeupNext(endpoint, RECHECK_INUSE_HEAD);
  }
  store<u32>(progress, finished, FINISHED);
  if (finished == target) return LOOP_DONE;
  return turn == 0 ? LOOP_AGAIN : LOOP_DOORBELL;
}

/**
 * One cache line to and fro: each side waits for the other's number and stores the next. Side 0 begins. Both sides pass
 * the same `rounds`; numbers start from `base`. LOOP_DONE, or LOOP_AGAIN when the peer did not answer within `polls`.
 */
export function pingPong(line: usize, side: u32, base: u32, rounds: u32, polls: u32): i32 {
  for (let round: u32 = 0; round < rounds; round++) {
    const mine = base + 2 * round + side;
    let left = polls;
    while (atomic.load<u32>(line) != mine) {
      if (--left == 0) return LOOP_AGAIN;
    }
    atomic.store<u32>(line, mine + 1);
  }
  return LOOP_DONE;
}
