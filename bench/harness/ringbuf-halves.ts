/** What each thread of a pair does with ringbuf.js. */
import { RingBuffer } from "ringbuf.js";
import type { PairAnswer, PairJob } from "./jobs.js";
import { timeTrips } from "./latency.js";
import { Deadline } from "./meeting.js";

type RingbufJob = PairJob & { kind: "ringbuf" | "ringbuf-requests" | "ringbuf-trips" };

const LOOK_AT_CLOCK = 0xffff;

/** Moves whole chunks one way: a record is never torn, and each call moves exactly one burst. */
function oneWay(side: 0 | 1, job: PairJob & { kind: "ringbuf" }): void {
  const ring = new RingBuffer(job.storage, Uint32Array);
  const chunk = new Uint32Array((job.burst * job.length) / 4);
  const deadline = new Deadline();
  const elements = (job.target * job.length) / 4;
  let moved = 0;
  let spins = 0;
  while (moved < elements) {
    if (side === 0) {
      if (ring.availableWrite() >= chunk.length) moved += ring.push(chunk, chunk.length, 0);
      else spins++;
    } else if (ring.availableRead() >= chunk.length) {
      moved += ring.pop(chunk, chunk.length, 0);
    } else {
      spins++;
    }
    if ((spins & LOOK_AT_CLOCK) === LOOK_AT_CLOCK) deadline.check("ringbuf.js");
  }
}

/** Pushes one chunk, or pops one, when there is room or something. */
const push = (ring: RingBuffer, chunk: Uint32Array): boolean =>
  ring.availableWrite() >= chunk.length && ring.push(chunk, chunk.length, 0) > 0;
const pop = (ring: RingBuffer, chunk: Uint32Array): boolean =>
  ring.availableRead() >= chunk.length && ring.pop(chunk, chunk.length, 0) > 0;

function until(deadline: Deadline, step: () => boolean): void {
  for (let spins = 1; !step(); spins++) {
    if ((spins & LOOK_AT_CLOCK) === 0) deadline.check("ringbuf.js");
  }
}

function requests(side: 0 | 1, job: PairJob & { kind: "ringbuf-requests" }): void {
  const there = new RingBuffer(job.requests, Uint32Array);
  const back = new RingBuffer(job.completions, Uint32Array);
  const chunk = new Uint32Array(job.burst * job.words);
  const deadline = new Deadline();
  const chunks = job.target / job.burst;
  if (side === 1) {
    for (let served = 0; served < chunks; served++) {
      until(deadline, () => pop(there, chunk));
      until(deadline, () => push(back, chunk));
    }
    return;
  }
  let posted = 0;
  let reaped = 0;
  until(deadline, () => {
    if (posted < chunks && push(there, chunk)) posted++;
    else if (pop(back, chunk)) reaped++;
    return reaped === chunks;
  });
}

function trips(side: 0 | 1, job: PairJob & { kind: "ringbuf-trips" }, answer: PairAnswer): void {
  const there = new RingBuffer(job.requests, Uint32Array);
  const back = new RingBuffer(job.completions, Uint32Array);
  const record = new Uint32Array(job.words);
  const deadline = new Deadline();
  if (side === 1) {
    const begin = performance.now();
    for (let n = 0; n < 2 * job.trips; n++) {
      until(deadline, () => pop(there, record));
      push(back, record);
      if (n + 1 === job.trips) answer.ns = (performance.now() - begin) * 1e6;
    }
    return;
  }
  const trip = (): void => {
    push(there, record);
    until(deadline, () => pop(back, record));
  };
  const begin = performance.now();
  for (let n = 0; n < job.trips; n++) trip();
  answer.ns = (performance.now() - begin) * 1e6;
  answer.latency = timeTrips(job.trips, trip);
}

/** Runs this thread's half. */
export function runRingbufHalf(side: 0 | 1, job: RingbufJob, answer: PairAnswer): void {
  if (job.kind === "ringbuf") oneWay(side, job);
  else if (job.kind === "ringbuf-requests") requests(side, job);
  else trips(side, job, answer);
}
