/**
 * One side of the handover stress (`test/stress/engine-handover.test.ts`): north feeds numbers through a ring, south
 * takes them, and both really sleep whenever the engine says that they may. A doorbell word per side is bumped when,
 * and only when, an inject asked for it: a wake-up that gets lost leaves a side asleep.
 */
import { parentPort, workerData } from "node:worker_threads";
import { EXT_LAZY_INDEXES, ITER_AUTOUPDATE } from "vbus/abi";
import {
  BURST_COOKIE,
  BURST_SIGNAL,
  BurstTable,
  Queue,
  queueSegmentLength,
  RECHECK_INUSE_HEAD,
  RECHECK_INUSE_TAIL,
  RECHECK_NONE,
  RingIterator,
  WAKEUP_BUDGET,
  WAKEUP_RUN,
  type QueueCounters,
} from "vbus/engine";
import { MemorySpace, type GuestMemoryInit } from "vbus/memory";
import { generator } from "../engine/seed.js";

/** What both threads are given. */
export interface HandoverWork {
  side: "north" | "south";
  init: GuestMemoryInit;
  /** Int32 words: doorbell of north, doorbell of south, both attached. */
  bells: SharedArrayBuffer;
  seed: number;
  count: number;
  /** One descriptor per operation, or bursts. */
  mode: "single" | "burst";
  lazy: boolean;
  /** True: also look at the ring (Q7); false: rely on the signal's bytes alone. */
  recheck: boolean;
  milliseconds: number;
  /** What it comes to at least; a busy machine takes longer for it, at most `patienceMs`. */
  handovers: number;
  patienceMs: number;
}

/** What a side did. */
export interface HandoverReport {
  side: "north" | "south";
  /** Why it stopped early, or null. */
  failure: string | null;
  handovers: number;
  sleeps: number;
  counters: QueueCounters;
}

const WAIT_MS = 4_000;
const SECOND_WAIT_MS = 2_000;
/** Number that says: this was the last. */
const END = 0xffffffff;

const work = workerData as HandoverWork;
const north = work.side === "north";
const words = new Int32Array(work.bells);
const me = north ? 0 : 1;
const random = generator(work.seed + me);
const { layout, memory } = work.init;
const space = MemorySpace.attachSync(memory, north ? layout.guestArena : layout.hostArena, layout.regions);
const gpa = (layout.regions[0] as { gpa: number }).gpa + 8;
const extension = work.lazy ? EXT_LAZY_INDEXES : 0;
const waitsFor = north ? RECHECK_INUSE_TAIL : RECHECK_INUSE_HEAD;
const recheck = work.recheck ? waitsFor : RECHECK_NONE;

function open(): Queue {
  if (!north) {
    const length = queueSegmentLength(work.count);
    const queue = Queue.attach(space, { gpa, length, role: "southFeed", accept: extension });
    Atomics.store(words, 2, 1);
    Atomics.notify(words, 2);
    return queue;
  }
  const queue = Queue.create(space, { gpa, count: work.count, role: "northFeed", offer: extension });
  parentPort?.postMessage("created");
  Atomics.wait(words, 2, 0);
  if (queue.negotiated() !== extension) throw new Error("the extension was not negotiated");
  return queue;
}

const queue = open();
const table = BurstTable.allocate(space, work.count);
const cursor = new RingIterator(queue, "inuse", ITER_AUTOUPDATE);
let handovers = 0;
let sleeps = 0;
let failure: string | null = null;

function ring(wanted: boolean): void {
  if (!wanted) return;
  Atomics.add(words, 1 - me, 1);
  Atomics.notify(words, 1 - me);
}

/** Lets the other side run ahead, or fall behind. */
function dawdle(): void {
  for (let n = random() % 8 === 0 ? random() % 4000 : random() % 40; n > 0; n--) Atomics.load(words, 2);
}

/** North: pushes what fits, at most `max`. Returns how many. */
function feed(max: number, last: boolean): number {
  if (work.mode === "single") {
    let n = 0;
    while (n < max) {
      cursor.seek("tail");
      if (cursor.write({ cookie: last ? END : handovers }, BURST_COOKIE) !== 0) break;
      const pushed = cursor.push();
      if (pushed < 0) throw new Error(`push: ${pushed}`);
      ring(pushed === 1);
      handovers++;
      n++;
    }
    return n;
  }
  const n = queue.reserve("inuse", table, max);
  for (let i = 0; i < n; i++) table.setCookie(i, last ? END : handovers + i);
  if (n > 0) ring(queue.commit("inuse", table, n, BURST_COOKIE | BURST_SIGNAL));
  handovers += n;
  return n;
}

/** South: takes what is there, at most `max`, and checks that nothing is missing. Returns how many; -1 after the last. */
function take(max: number): number {
  const check = (value: number): boolean => {
    if (value === END) return true;
    if (value !== handovers) failure ??= `item ${value} where ${handovers} was due`;
    handovers++;
    return false;
  };
  if (work.mode === "single") {
    for (let n = 0; n < max; n++) {
      cursor.seek("head");
      const seen = cursor.read();
      if (seen?.owner !== 1) return n;
      const last = check(seen.cookie);
      const popped = cursor.pop();
      if (popped < 0) throw new Error(`pop: ${popped}`);
      ring(popped === 1);
      if (last) return -1;
    }
    return max;
  }
  const n = queue.peek("inuse", table, max);
  let last = false;
  for (let i = 0; i < n; i++) last = check(table.cookie(i)) || last;
  if (n > 0) ring(queue.release("inuse", table, n, BURST_SIGNAL));
  return last ? -1 : n;
}

/** True while there is something to do without being told: room for north, payload for south. */
function canGoOn(): boolean {
  return north ? queue.reserve("inuse", null, 1) > 0 : queue.peek("inuse", null, 1) > 0;
}

/** Sleeps until the doorbell word differs from `seen`. Work that waits when time is up means a lost wake-up. */
function sleep(seen: number): void {
  sleeps++;
  if (Atomics.wait(words, me, seen, WAIT_MS) !== "timed-out" || !canGoOn()) return;
  // a peer that was off the processor all the time may be just about to ring
  if (Atomics.wait(words, me, seen, SECOND_WAIT_MS) === "timed-out")
    failure ??= `lost wake-up after ${handovers} handovers`;
}

/**
 * Answers a doorbell or a deferred wakeup. The notifier says whether it left its work for later.
 * `due`: the budget is spent, another wakeup must follow.
 */
function wake(notifier: () => boolean): { due: boolean; later: boolean } {
  let later = false;
  let turn = queue.wakeupBegin(1 + (random() % 4), recheck);
  while (turn === WAKEUP_RUN) {
    later = notifier() || later;
    turn = queue.wakeupNext(recheck);
  }
  return { due: turn === WAKEUP_BUDGET, later };
}

/** North's notifier has nothing to do but to mask, or not. */
function maskSometimes(): boolean {
  if (random() % 2 === 0) queue.disable();
  return false;
}

/** True when this side handed over enough and met every state of the other often enough. */
function exercised(): boolean {
  const { sent, suppressed, masked, wakeups } = queue.counters();
  return handovers > work.handovers && Math.min(sleeps, sent, suppressed, masked, wakeups) > 200;
}

function runNorth(): void {
  const until = Date.now() + work.milliseconds;
  let ended = false;
  while (failure === null && !ended) {
    const over = Date.now() - until;
    const last = over >= 0 && (exercised() || over > work.patienceMs);
    const wanted = last ? 1 : 1 + (random() % work.count);
    const done = feed(wanted, last);
    ended = last && done === 1;
    dawdle();
    if (done === wanted) {
      if (random() % 64 === 0) queue.disable(); // masking for no reason must be harmless
      continue;
    }
    // no room: unmask, and look again before sleeping (the engine says when)
    const seen = Atomics.load(words, me);
    if (queue.enable(recheck)) {
      wake(maskSometimes);
      continue;
    }
    sleep(seen);
    wake(maskSometimes);
  }
}

function runSouth(): void {
  const state = { ended: false };
  const drain = (): void => {
    for (let n = 1; n > 0;) {
      n = take(1 + (random() % work.count));
      state.ended = n < 0;
    }
  };
  let seen = 0;
  let due = queue.enable(recheck);
  while (failure === null && !state.ended) {
    if (!due) sleep(seen);
    seen = Atomics.load(words, me);
    const woken = wake(() => {
      if (state.ended) return false;
      dawdle();
      switch (random() % 3) {
        case 0: // all of it in the notifier
          drain();
          return false;
        case 1: // masked while it works, unmasked inside the wakeup (2.6)
          queue.disable();
          drain();
          queue.enable(recheck);
          return false;
        default: // as NAPI does: mask, poll later, unmask when there is nothing left
          queue.disable();
          return true;
      }
    });
    due = woken.due;
    if (!woken.later) continue;
    dawdle();
    drain();
    dawdle();
    due = queue.enable(recheck);
  }
}

if (north) runNorth();
else runSouth();
if (queue.broken !== null) failure ??= `the queue broke: ${queue.broken}`;
const report: HandoverReport = { side: work.side, failure, handovers, sleeps, counters: queue.counters() };
parentPort?.postMessage(report);
