/** One thread of a pair: waits for jobs, meets its peer, probes the cache line, runs its half, probes again. */
import { parentPort, workerData } from "node:worker_threads";
import { RingBuffer } from "ringbuf.js";
import type { PairAnswer, PairJob, PairWorkerData } from "./jobs.js";
import { linkSharedLoops, LOOP_AGAIN, LOOP_DONE, LOOP_DOORBELL } from "./loops.js";
import { BUFFERS_GPA, STAGE } from "./stage.js";

const { memory, side } = workerData as PairWorkerData;
const loops = linkSharedLoops(memory);
const words = new Int32Array(memory.buffer);
const GATE = STAGE.gate / 4;
/** Word of the doorbell, on a line of its own. */
const DOORBELL = GATE + 16;
/** Word that says the producer has posted its last frame. */
const FINISHED = GATE + 32;
const PROBE_ROUNDS = 300;
const PROBE_WARM = 20;
/** Polls without progress before a loop returns to JavaScript, which looks at the clock. */
const POLLS = 1 << 14;
const PATIENCE_MS = 20_000;
const BUDGET = 64;

let met = 0;
let lineBase = 0;

class Deadline {
  readonly #end = performance.now() + PATIENCE_MS;
  check(what: string): void {
    if (performance.now() > this.#end) throw new Error(`${what}: no progress within ${PATIENCE_MS} ms`);
  }
}

/** Both threads leave together. They spin: the pair runs only while two threads are runnable. */
function meet(): void {
  const deadline = new Deadline();
  met += 2;
  Atomics.add(words, GATE, 1);
  for (let spins = 0; Atomics.load(words, GATE) - met < 0; spins++) {
    if ((spins & 0xffff) === 0xffff) deadline.check("waiting for the other thread");
  }
}

function pingPong(rounds: number): number {
  const deadline = new Deadline();
  meet();
  const begin = performance.now();
  if (loops.pingPong(STAGE.line, side, lineBase, rounds, 0x7fffffff) !== LOOP_DONE)
    deadline.check("cache line probe");
  const ns = (performance.now() - begin) * 1e6;
  lineBase += 2 * rounds;
  meet();
  return ns / (2 * rounds);
}

function probe(): number {
  pingPong(PROBE_WARM);
  return pingPong(PROBE_ROUNDS);
}

/** Calls a loop until it is done; `onDoorbell` runs when it wants a doorbell rung. */
function drive(what: string, loop: () => number, onDoorbell?: () => void): void {
  const deadline = new Deadline();
  for (;;) {
    const outcome = loop();
    if (outcome === LOOP_DONE) return;
    if (outcome < 0) throw new Error(`${what}: the engine answers ${outcome}`);
    if (outcome === LOOP_DOORBELL) onDoorbell?.();
    else deadline.check(what);
  }
}

function ringHalf(job: PairJob & { kind: "ring" }): void {
  if (side === 0) {
    const { northEndpoint, northTable, northProgress } = STAGE;
    drive("posting", () =>
      loops.northRounds(
        northEndpoint,
        northTable,
        job.burst,
        job.window,
        job.target,
        BUFFERS_GPA,
        northProgress,
        POLLS,
      ),
    );
  } else {
    const { southEndpoint, southTable, southProgress } = STAGE;
    drive("consuming", () =>
      loops.southRounds(southEndpoint, southTable, job.burst, job.target, southProgress, POLLS),
    );
  }
}

function tripHalf(job: PairJob & { kind: "trip" }): void {
  const { northEndpoint, northTable, reapTable, northProgress } = STAGE;
  const { southEndpoint, southTable, southProgress } = STAGE;
  if (side === 0) {
    drive("sending", () =>
      loops.roundTrips(
        northEndpoint,
        northTable,
        reapTable,
        job.target,
        BUFFERS_GPA,
        job.same ? 1 : 0,
        northProgress,
        POLLS,
      ),
    );
  } else {
    drive("answering", () => loops.answerTrips(southEndpoint, southTable, job.target, southProgress, POLLS));
  }
}

function feedHalf(job: PairJob & { kind: "feed" }): void {
  if (side === 0) {
    const { northEndpoint, northTable, northProgress, source } = STAGE;
    drive("feeding", () =>
      loops.feedRounds(
        northEndpoint,
        northTable,
        job.burst,
        job.target,
        source,
        job.length,
        northProgress,
        POLLS,
      ),
    );
  } else {
    const { southEndpoint, southTable, southProgress, sink } = STAGE;
    drive("taking", () =>
      loops.takeRounds(southEndpoint, southTable, job.burst, job.target, sink, southProgress, POLLS),
    );
  }
}

function doorbellHalf(job: PairJob & { kind: "doorbell" }, answer: PairAnswer): void {
  const { northEndpoint, northTable, northProgress, source, southEndpoint, southTable, southProgress, sink } =
    STAGE;
  if (side === 0) {
    drive(
      "feeding",
      () =>
        loops.feedRounds(
          northEndpoint,
          northTable,
          job.burst,
          job.target,
          source,
          job.length,
          northProgress,
          POLLS,
        ),
      () => {
        answer.doorbells++;
        Atomics.add(words, DOORBELL, 1);
        Atomics.notify(words, DOORBELL);
      },
    );
    Atomics.store(words, FINISHED, 1);
    return;
  }
  const deadline = new Deadline();
  for (;;) {
    const seen = Atomics.load(words, DOORBELL);
    const outcome = loops.wakeupRounds(
      southEndpoint,
      southTable,
      job.burst,
      job.target,
      sink,
      southProgress,
      job.polls,
      BUDGET,
    );
    if (outcome === LOOP_DONE) return;
    if (outcome < 0) throw new Error(`taking: the engine answers ${outcome}`);
    deadline.check("taking");
    if (outcome === LOOP_AGAIN) {
      answer.sleeps++;
      // a sleeper that is never rung although the producer has finished would be a lost wake-up: it shows as a failure
      const woken = Atomics.wait(words, DOORBELL, seen, PATIENCE_MS / 4);
      if (woken === "timed-out" && Atomics.load(words, FINISHED) !== 0)
        throw new Error("taking: a wake-up was lost");
    }
  }
}

function ringbufHalf(job: PairJob & { kind: "ringbuf" }): void {
  const ring = new RingBuffer(job.storage, Uint32Array);
  const chunk = new Uint32Array((job.burst * job.length) / 4);
  const deadline = new Deadline();
  const elements = (job.target * job.length) / 4;
  let moved = 0;
  let spins = 0;
  while (moved < elements) {
    // whole chunks only: a record is never torn, and each call moves exactly one burst
    if (side === 0) {
      if (ring.availableWrite() >= chunk.length) moved += ring.push(chunk, chunk.length, 0);
      else spins++;
    } else if (ring.availableRead() >= chunk.length) {
      moved += ring.pop(chunk, chunk.length, 0);
    } else {
      spins++;
    }
    if ((spins & 0xffff) === 0xffff) deadline.check("ringbuf.js");
  }
}

function run(job: PairJob): PairAnswer {
  const answer: PairAnswer = { error: null, ns: 0, before: 0, after: 0, doorbells: 0, sleeps: 0 };
  answer.before = probe();
  meet();
  const begin = performance.now();
  switch (job.kind) {
    case "ring":
      ringHalf(job);
      break;
    case "trip":
      tripHalf(job);
      break;
    case "feed":
      feedHalf(job);
      break;
    case "doorbell":
      doorbellHalf(job, answer);
      break;
    case "ringbuf":
      ringbufHalf(job);
      break;
    case "line":
      loops.pingPong(STAGE.line, side, lineBase, job.rounds, 0x7fffffff);
      lineBase += 2 * job.rounds;
      break;
  }
  answer.ns = (performance.now() - begin) * 1e6;
  meet();
  answer.after = probe();
  return answer;
}

parentPort?.on("message", (job: PairJob) => {
  let answer: PairAnswer;
  try {
    answer = run(job);
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    answer = { error: message, ns: 0, before: 0, after: 0, doorbells: 0, sleeps: 0 };
  }
  parentPort?.postMessage(answer);
});
