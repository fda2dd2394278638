/**
 * The halves of the two-thread figures of the goals: the loops of the shoot-out (`contest/loops.ts`) on the stage's ring,
 * named as `contestants.ts` names them, and the cache line that a sample is compared with.
 */
import {
  answerLoop,
  feedLoop,
  LOOP_AGAIN,
  LOOP_DONE,
  requestLoop,
  respondLoop,
  takeLoop,
  tripLoop,
  wokenLoop,
} from "./contest/loops";
import { StageSide } from "./stage-side";

/** Lays out one side, about to begin. `same` 1: descriptors keep their buffers. */
export function stageSide(
  at: usize,
  endpoint: usize,
  table: usize,
  reapTable: usize,
  buffers: u32,
  same: u32,
): void {
  const side = changetype<StageSide>(at);
  side.posted = 0;
  side.finished = 0;
  side.doorbells = 0;
  side.endpoint = endpoint;
  side.table = table;
  side.reapTable = reapTable;
  side.buffers = buffers;
  side.same = same;
}

export function stageRequest(side: StageSide, n: u32, window: u32, target: u32, polls: u32): i32 {
  return requestLoop(side, n, window, target, polls);
}

export function stageRespond(side: StageSide, n: u32, target: u32, polls: u32): i32 {
  return respondLoop(side, n, target, polls);
}

export function stageTrip(side: StageSide, target: u32, polls: u32): i32 {
  return tripLoop(side, target, polls);
}

export function stageAnswer(side: StageSide, target: u32, polls: u32): i32 {
  return answerLoop(side, target, polls);
}

export function stageFeed(side: StageSide, n: u32, target: u32, source: usize, length: u32, polls: u32): i32 {
  return feedLoop(side, n, target, source, length, polls);
}

export function stageTake(side: StageSide, n: u32, target: u32, sink: usize, polls: u32): i32 {
  return takeLoop(side, n, target, sink, polls);
}

export function stageWoken(side: StageSide, n: u32, target: u32, sink: usize, polls: u32, budget: u32): i32 {
  return wokenLoop(side, n, target, sink, polls, budget);
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
