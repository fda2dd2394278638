/**
 * The contestants of the shoot-out that run in wasm: their loops by name, `CONTESTANT` + `Rounds`, `Stream`, `Request`,
 * `Respond`, `Trip`, `Answer`, `Feed`, `Take`, `Woken`, and `CONTESTANT` + `Side`, which lays out one side.
 */
import { BURST_SIGNAL } from "../../assembly/abi/arena";
import { Ioq2009Side } from "./contest/ioq-2009";
import { IoqSide } from "./contest/ioq";
import { SpscSide } from "./contest/spsc";
import { VirtqueueSide } from "./contest/virtqueue";
import {
  answerLoop,
  feedLoop,
  requestLoop,
  respondLoop,
  roundsLoop,
  streamLoop,
  takeLoop,
  tripLoop,
  wokenLoop,
} from "./contest/loops";

export { virtqBind, virtqDisable, virtqEnable } from "../../assembly/virtq-endpoint";
export { ringAttach, ringCreate, ringNegotiated } from "../../assembly/ring";

/** Lays out one side of an IOQ in zeroed memory of {@link SIDE_SIZE} bytes. */
export function ioqSide(
  at: usize,
  endpoint: usize,
  table: usize,
  buffersGpa: u32,
  buffers: usize,
  slot: u32,
  signal: u32,
): void {
  const side = changetype<IoqSide>(at);
  side.endpoint = endpoint;
  side.table = table;
  side.buffersGpa = buffersGpa;
  side.buffers = buffers;
  side.slot = slot;
  side.signal = signal != 0 ? BURST_SIGNAL : 0;
}

/** … of an IOQ as in 2009; `locale` 0 north, 1 south. */
export function ioq2009Side(
  at: usize,
  ring: usize,
  regions: usize,
  locale: u32,
  count: u32,
  buffersGpa: u32,
  buffers: usize,
  slot: u32,
  signal: u32,
): void {
  const side = changetype<Ioq2009Side>(at);
  side.ring = ring;
  side.regions = regions;
  side.locale = locale;
  side.count = count;
  side.buffersGpa = buffersGpa;
  side.buffers = buffers;
  side.slot = slot;
  side.signal = signal;
}

/** … of a pair of rings. */
export function spscSide(
  at: usize,
  output: usize,
  input: usize,
  size: u32,
  buffers: usize,
  slot: u32,
  signal: u32,
): void {
  const side = changetype<SpscSide>(at);
  side.output = output;
  side.input = input;
  side.size = size;
  side.buffers = buffers;
  side.slot = slot;
  side.signal = signal;
}

/** … of a virtqueue that was bound. */
export function virtqueueSide(
  at: usize,
  vq: usize,
  table: usize,
  reaped: usize,
  lists: usize,
  buffersGpa: u32,
  buffers: usize,
  slot: u32,
): void {
  const side = changetype<VirtqueueSide>(at);
  side.vq = vq;
  side.table = table;
  side.reaped = reaped;
  side.lists = lists;
  side.buffersGpa = buffersGpa;
  side.buffers = buffers;
  side.slot = slot;
}

/** Notifications that a side had to send. The first members of all sides are the same. */
export function doorbellsOf(at: usize): u32 {
  return changetype<IoqSide>(at).doorbells;
}

/* ---- IoqSide ---- */

export function ioqRounds(norths: usize, souths: usize, rings: u32, first: u32, n: u32, rounds: u32): i32 {
  return roundsLoop<IoqSide>(norths, souths, rings, first, n, rounds);
}

export function ioqStream(
  north: IoqSide,
  south: IoqSide,
  n: u32,
  rounds: u32,
  source: usize,
  sink: usize,
  length: u32,
): i32 {
  return streamLoop(north, south, n, rounds, source, sink, length);
}

export function ioqRequest(side: IoqSide, n: u32, window: u32, target: u32, polls: u32): i32 {
  return requestLoop(side, n, window, target, polls);
}

export function ioqRespond(side: IoqSide, n: u32, target: u32, polls: u32): i32 {
  return respondLoop(side, n, target, polls);
}

export function ioqTrip(side: IoqSide, target: u32, polls: u32): i32 {
  return tripLoop(side, target, polls);
}

export function ioqAnswer(side: IoqSide, target: u32, polls: u32): i32 {
  return answerLoop(side, target, polls);
}

export function ioqFeed(side: IoqSide, n: u32, target: u32, source: usize, length: u32, polls: u32): i32 {
  return feedLoop(side, n, target, source, length, polls);
}

export function ioqTake(side: IoqSide, n: u32, target: u32, sink: usize, polls: u32): i32 {
  return takeLoop(side, n, target, sink, polls);
}

export function ioqWoken(side: IoqSide, n: u32, target: u32, sink: usize, polls: u32, budget: u32): i32 {
  return wokenLoop(side, n, target, sink, polls, budget);
}

/* ---- Ioq2009Side ---- */

export function ioq2009Rounds(
  norths: usize,
  souths: usize,
  rings: u32,
  first: u32,
  n: u32,
  rounds: u32,
): i32 {
  return roundsLoop<Ioq2009Side>(norths, souths, rings, first, n, rounds);
}

export function ioq2009Stream(
  north: Ioq2009Side,
  south: Ioq2009Side,
  n: u32,
  rounds: u32,
  source: usize,
  sink: usize,
  length: u32,
): i32 {
  return streamLoop(north, south, n, rounds, source, sink, length);
}

export function ioq2009Request(side: Ioq2009Side, n: u32, window: u32, target: u32, polls: u32): i32 {
  return requestLoop(side, n, window, target, polls);
}

export function ioq2009Respond(side: Ioq2009Side, n: u32, target: u32, polls: u32): i32 {
  return respondLoop(side, n, target, polls);
}

export function ioq2009Trip(side: Ioq2009Side, target: u32, polls: u32): i32 {
  return tripLoop(side, target, polls);
}

export function ioq2009Answer(side: Ioq2009Side, target: u32, polls: u32): i32 {
  return answerLoop(side, target, polls);
}

export function ioq2009Feed(
  side: Ioq2009Side,
  n: u32,
  target: u32,
  source: usize,
  length: u32,
  polls: u32,
): i32 {
  return feedLoop(side, n, target, source, length, polls);
}

export function ioq2009Take(side: Ioq2009Side, n: u32, target: u32, sink: usize, polls: u32): i32 {
  return takeLoop(side, n, target, sink, polls);
}

export function ioq2009Woken(
  side: Ioq2009Side,
  n: u32,
  target: u32,
  sink: usize,
  polls: u32,
  budget: u32,
): i32 {
  return wokenLoop(side, n, target, sink, polls, budget);
}

/* ---- SpscSide ---- */

export function spscRounds(norths: usize, souths: usize, rings: u32, first: u32, n: u32, rounds: u32): i32 {
  return roundsLoop<SpscSide>(norths, souths, rings, first, n, rounds);
}

export function spscStream(
  north: SpscSide,
  south: SpscSide,
  n: u32,
  rounds: u32,
  source: usize,
  sink: usize,
  length: u32,
): i32 {
  return streamLoop(north, south, n, rounds, source, sink, length);
}

export function spscRequest(side: SpscSide, n: u32, window: u32, target: u32, polls: u32): i32 {
  return requestLoop(side, n, window, target, polls);
}

export function spscRespond(side: SpscSide, n: u32, target: u32, polls: u32): i32 {
  return respondLoop(side, n, target, polls);
}

export function spscTrip(side: SpscSide, target: u32, polls: u32): i32 {
  return tripLoop(side, target, polls);
}

export function spscAnswer(side: SpscSide, target: u32, polls: u32): i32 {
  return answerLoop(side, target, polls);
}

export function spscFeed(side: SpscSide, n: u32, target: u32, source: usize, length: u32, polls: u32): i32 {
  return feedLoop(side, n, target, source, length, polls);
}

export function spscTake(side: SpscSide, n: u32, target: u32, sink: usize, polls: u32): i32 {
  return takeLoop(side, n, target, sink, polls);
}

export function spscWoken(side: SpscSide, n: u32, target: u32, sink: usize, polls: u32, budget: u32): i32 {
  return wokenLoop(side, n, target, sink, polls, budget);
}

/* ---- VirtqueueSide ---- */

export function virtqueueRounds(
  norths: usize,
  souths: usize,
  rings: u32,
  first: u32,
  n: u32,
  rounds: u32,
): i32 {
  return roundsLoop<VirtqueueSide>(norths, souths, rings, first, n, rounds);
}

export function virtqueueStream(
  north: VirtqueueSide,
  south: VirtqueueSide,
  n: u32,
  rounds: u32,
  source: usize,
  sink: usize,
  length: u32,
): i32 {
  return streamLoop(north, south, n, rounds, source, sink, length);
}

export function virtqueueRequest(side: VirtqueueSide, n: u32, window: u32, target: u32, polls: u32): i32 {
  return requestLoop(side, n, window, target, polls);
}

export function virtqueueRespond(side: VirtqueueSide, n: u32, target: u32, polls: u32): i32 {
  return respondLoop(side, n, target, polls);
}

export function virtqueueTrip(side: VirtqueueSide, target: u32, polls: u32): i32 {
  return tripLoop(side, target, polls);
}

export function virtqueueAnswer(side: VirtqueueSide, target: u32, polls: u32): i32 {
  return answerLoop(side, target, polls);
}

export function virtqueueFeed(
  side: VirtqueueSide,
  n: u32,
  target: u32,
  source: usize,
  length: u32,
  polls: u32,
): i32 {
  return feedLoop(side, n, target, source, length, polls);
}

export function virtqueueTake(side: VirtqueueSide, n: u32, target: u32, sink: usize, polls: u32): i32 {
  return takeLoop(side, n, target, sink, polls);
}

export function virtqueueWoken(
  side: VirtqueueSide,
  n: u32,
  target: u32,
  sink: usize,
  polls: u32,
  budget: u32,
): i32 {
  return wokenLoop(side, n, target, sink, polls, budget);
}
