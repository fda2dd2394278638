/**
 * The loops of the shoot-out, written once for every contestant that runs in wasm. A contestant is a class (`ioq.ts`,
 * `ioq-2009.ts`, `spsc.ts`, `virtqueue.ts`) whose instances lie in memory that the caller laid out, one for each side of
 * each ring. The compiler makes a copy of each loop for each class, so every call is a direct one.
 *
 * What a class has:
 *   posted, finished, doorbells   where the loop stands; notifications that the peer has to be sent
 *   prepare(n), publish(n)        requester: describes n buffers; hands them over. n, 0 for no room, or a negative errno
 *   reap(n)                       requester: takes back up to n. Number, or a negative errno
 *   serve(n)                      responder: reads, checks and completes up to n. Number, or a negative errno
 *   waitReap(polls), waitServe    polls the one word that says whether there is something, at most so often. 1 or 0
 *   feed(n, source, length)       producer: copies a payload into n buffers and hands them over. n, 0, or an errno
 *   take(n, sink)                 consumer: copies up to n payloads out and gives the buffers back. Number, or an errno
 *   begin(budget), next()         consumer, woken: WAKEUP_RUN to look for work, WAKEUP_DONE to go to sleep
 *
 * A loop returns when it is done or after `polls` polls in a row without progress, so that V8 gets to replace it by its
 * optimised form and no wait is unbounded; the caller calls again.
 */
import { WAKEUP_DONE, WAKEUP_RUN } from "../../../assembly/abi/arena";

/** Outcome of a loop: it is done. */
export const LOOP_DONE: i32 = 0;
/** … call again. */
export const LOOP_AGAIN: i32 = 1;
/** … ring the doorbell, then call again. */
export const LOOP_DOORBELL: i32 = 2;
/** Failure of a loop, told apart from every errno of the engine. */
export const LOOP_STUCK: i32 = -1000;

/** Why a burst did not go through whole: its errno, or that there was no room for it. */
export function stuck(result: i32): i32 {
  return result < 0 ? result : LOOP_STUCK;
}

/**
 * One thread: bursts of n on each of many rings in turn, both sides here: post, serve, reap. `norths` and `souths` are
 * arrays of addresses. `first` is the ring to go on with. Next ring, or a negative errno.
 */
export function roundsLoop<T>(
  norths: usize,
  souths: usize,
  rings: u32,
  first: u32,
  n: u32,
  rounds: u32,
): i32 {
  let ring = first;
  for (let round: u32 = 0; round < rounds; round++) {
    const north = changetype<T>(<usize>load<u32>(norths + <usize>ring * 4));
    const south = changetype<T>(<usize>load<u32>(souths + <usize>ring * 4));
    const prepared = north.prepare(n);
    if (prepared != <i32>n) return stuck(prepared);
    const posted = north.publish(n);
    if (posted != <i32>n) return stuck(posted);
    const served = south.serve(n);
    if (served != <i32>n) return stuck(served);
    const reaped = north.reap(n);
    if (reaped != <i32>n) return stuck(reaped);
    if (++ring == rings) ring = 0;
  }
  return <i32>ring;
}

/** One thread: `rounds` bursts of n payloads from `source` to `sink`, both sides here. 0, or a negative errno. */
export function streamLoop<T>(
  north: T,
  south: T,
  n: u32,
  rounds: u32,
  source: usize,
  sink: usize,
  length: u32,
): i32 {
  for (let round: u32 = 0; round < rounds; round++) {
    const fed = north.feed(n, source, length);
    if (fed != <i32>n) return stuck(fed);
    const taken = south.take(n, sink);
    if (taken != <i32>n) return stuck(taken);
  }
  return LOOP_DONE;
}

/**
 * Requester: posts `target` in bursts of n, never more than `window` outstanding, and reaps them. It reaps only when it
 * cannot post: asking for completions earlier would pull lines from under the responder's hands.
 */
export function requestLoop<T>(side: T, n: u32, window: u32, target: u32, polls: u32): i32 {
  let posted = side.posted;
  let finished = side.finished;
  let left = polls;
  let outcome = LOOP_AGAIN;
  while (left != 0) {
    let moved: i32 = 0;
    const wanted = target - posted < n ? target - posted : n;
    if (wanted != 0 && posted - finished + wanted <= window) {
      moved = side.prepare(wanted);
      if (moved > 0) {
        moved = side.publish(moved);
        if (moved > 0) posted += moved;
      }
    }
    if (moved == 0) {
      moved = side.reap(n);
      if (moved > 0) {
        finished += moved;
        if (finished == target) {
          outcome = LOOP_DONE;
          break;
        }
      }
    }
    if (moved < 0) return moved;
    left = moved == 0 ? left - 1 : polls;
  }
  side.posted = posted;
  side.finished = finished;
  return outcome;
}

/** Responder of {@link requestLoop}: up to n at a time. */
export function respondLoop<T>(side: T, n: u32, target: u32, polls: u32): i32 {
  let finished = side.finished;
  let left = polls;
  let outcome = LOOP_AGAIN;
  while (left != 0) {
    const moved = side.serve(n);
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
  side.finished = finished;
  return outcome;
}

/**
 * Requester with one outstanding: the next one is published when the answer to the one before has been reaped. The next
 * one is prepared while the answer travels. Going on with a larger `target` is what times single trips.
 */
export function tripLoop<T>(side: T, target: u32, polls: u32): i32 {
  let posted = side.posted;
  let finished = side.finished;
  if (posted == 0) {
    const prepared = side.prepare(1);
    if (prepared != 1) return stuck(prepared);
  }
  let outcome = LOOP_DONE;
  while (finished != target) {
    if (posted == finished) {
      const published = side.publish(1);
      if (published != 1) return stuck(published);
      posted++;
      const prepared = side.prepare(1);
      if (prepared != 1) return stuck(prepared);
    }
    if (side.waitReap(polls) == 0) {
      outcome = LOOP_AGAIN;
      break;
    }
    const reaped = side.reap(1);
    if (reaped != 1) return stuck(reaped);
    finished++;
  }
  side.posted = posted;
  side.finished = finished;
  return outcome;
}

/** Responder of {@link tripLoop}. */
export function answerLoop<T>(side: T, target: u32, polls: u32): i32 {
  let finished = side.finished;
  let outcome = LOOP_DONE;
  while (finished != target) {
    if (side.waitServe(polls) == 0) {
      outcome = LOOP_AGAIN;
      break;
    }
    const served = side.serve(1);
    if (served != 1) return stuck(served);
    finished++;
  }
  side.finished = finished;
  return outcome;
}

/** Producer: `target` payloads of `length` bytes, n at a time. Returns LOOP_DOORBELL when the consumer wants to be woken. */
export function feedLoop<T>(side: T, n: u32, target: u32, source: usize, length: u32, polls: u32): i32 {
  let posted = side.posted;
  let left = polls;
  let outcome = LOOP_AGAIN;
  if (posted == target) return LOOP_DONE; // the last burst asked for a doorbell
  while (left != 0) {
    const rung = side.doorbells;
    const moved = side.feed(target - posted < n ? target - posted : n, source, length);
    if (moved < 0) return moved;
    if (moved == 0) {
      left--;
      continue;
    }
    left = polls;
    posted += moved;
    if (side.doorbells != rung) {
      outcome = LOOP_DOORBELL;
      break;
    }
    if (posted == target) {
      outcome = LOOP_DONE;
      break;
    }
  }
  side.posted = posted;
  return outcome;
}

/** Consumer of {@link feedLoop}: polls. */
export function takeLoop<T>(side: T, n: u32, target: u32, sink: usize, polls: u32): i32 {
  let finished = side.finished;
  let left = polls;
  let outcome = LOOP_AGAIN;
  while (left != 0) {
    const moved = side.take(n, sink);
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
  side.finished = finished;
  return outcome;
}

/**
 * Consumer of {@link feedLoop}, woken: drains, polls `polls` times before it gives up, and arms its notification. Call it
 * once per doorbell; LOOP_AGAIN when it should go to sleep, LOOP_DOORBELL when its budget is spent and it wants to be
 * called again at once.
 */
export function wokenLoop<T>(side: T, n: u32, target: u32, sink: usize, polls: u32, budget: u32): i32 {
  let finished = side.finished;
  let turn = side.begin(budget);
  while (turn == WAKEUP_RUN) {
    let left = polls;
    while (left != 0) {
      const moved = side.take(n, sink);
      if (moved < 0) return moved;
      left = moved == 0 ? left - 1 : polls;
      finished += moved;
      if (finished == target) left = 0;
    }
    turn = side.next();
  }
  side.finished = finished;
  if (finished == target) return LOOP_DONE;
  return turn == WAKEUP_DONE ? LOOP_AGAIN : LOOP_DOORBELL;
}
