/**
 * One side of the virtqueue stress (`test/stress/virtqueue-handover.test.ts`): the driver makes numbers available, the
 * device checks them and writes answers, and both really sleep whenever the engine says that they may. A doorbell word
 * per side is bumped when, and only when, the engine asked for it: a wake-up that gets lost leaves a side asleep.
 */
import { parentPort, workerData } from "node:worker_threads";
import {
  BurstTable,
  ChainTable,
  DeviceVirtQueue,
  DriverVirtQueue,
  type VirtQueueCounters,
  type VirtQueueOptions,
} from "vbus/engine";
import { MemorySpace, type GuestMemoryInit } from "vbus/memory";
import { generator } from "../engine/seed.js";

/** What both threads are given. */
export interface VirtQueueWork {
  side: "driver" | "device";
  init: GuestMemoryInit;
  options: VirtQueueOptions;
  /** Guest-physical address of 16 bytes for each cookie. */
  buffers: number;
  /** Int32 words: interrupt of the driver, kick of the device, attached. */
  bells: SharedArrayBuffer;
  seed: number;
  milliseconds: number;
  /** What it comes to at least; a busy machine takes longer for it, at most `patienceMs`. */
  chains: number;
  patienceMs: number;
}

/** What a side did. */
export interface VirtQueueReport {
  side: "driver" | "device";
  /** Why it stopped early, or null. */
  failure: string | null;
  chains: number;
  sleeps: number;
  counters: VirtQueueCounters;
}

const WAIT_MS = 4_000;
const SECOND_WAIT_MS = 2_000;
/** Number that says: this was the last. */
const END = 0xffffffff;
/** Bytes of a buffer: 8 that the device reads, 8 that it writes. */
const BUFFER = 16;

const work = workerData as VirtQueueWork;
const driving = work.side === "driver";
const words = new Int32Array(work.bells);
const me = driving ? 0 : 1;
const random = generator(work.seed + me);
const { layout, memory } = work.init;
const space = MemorySpace.attachSync(memory, driving ? layout.guestArena : layout.hostArena, layout.regions);
const { size } = work.options;
let chains = 0;
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

/**
 * Sleeps until the doorbell word differs from `seen`. Work that waits when time is up means a lost wake-up; so do chains
 * in flight of a driver, for its device would have used them.
 */
function sleep(seen: number, queue: DriverVirtQueue | DeviceVirtQueue): void {
  sleeps++;
  const waits = (): boolean => queue.hasWork || (driving && queue.inFlight > 0);
  if (Atomics.wait(words, me, seen, WAIT_MS) !== "timed-out" || !waits()) return;
  // a peer that was off the processor all the time may be just about to ring
  if (Atomics.wait(words, me, seen, SECOND_WAIT_MS) === "timed-out")
    failure ??= `lost wake-up after ${chains} chains`;
}

function drive(): VirtQueueCounters {
  const queue = DriverVirtQueue.create(space, work.options);
  parentPort?.postMessage("created");
  Atomics.wait(words, 2, 0);
  const out = ChainTable.allocate(space, size, 2);
  const back = BurstTable.allocate(space, size);
  const free = Array.from({ length: size }, (_, i) => i);
  const numbers = new Array<number>(size).fill(0);
  const until = Date.now() + work.milliseconds;
  let sent = 0;
  let ended = false;
  const data = space.engine.data;
  const place = (buffer: number): number => space.translate(work.buffers + buffer * BUFFER, BUFFER);

  const fill = (n: number, last: boolean): void => {
    for (let i = 0; i < n; i++) {
      const buffer = free.pop() as number;
      const gpa = work.buffers + buffer * BUFFER;
      const number = last && i === n - 1 ? END : sent;
      data.setUint32(place(buffer), number, true);
      data.setUint32(place(buffer) + 8, 0, true);
      numbers[buffer] = number;
      out.setChain(i, [{ gpa, length: 8 }], [{ gpa: gpa + 8, length: 8 }]);
      out.table.setCookie(i, buffer);
      sent++;
    }
  };
  const reap = (): number => {
    const n = queue.reap(back, 1 + (random() % size));
    for (let i = 0; i < n; i++) {
      const buffer = back.cookie(i);
      if (back.length(i) !== 8) failure ??= `chain ${chains}: ${back.length(i)} bytes written`;
      const answer = data.getUint32(place(buffer) + 8, true);
      const due = ~(numbers[buffer] as number) >>> 0;
      if (answer !== due) failure ??= `chain ${chains}: answer ${answer} where ${due} was due`;
      free.push(buffer);
      chains++;
    }
    return n;
  };
  const exercised = (): boolean => {
    const { notified, suppressed } = queue.counters();
    return chains > work.chains && Math.min(sleeps, notified, suppressed) > 200;
  };
  while (failure === null) {
    const over = Date.now() - until;
    const last = over >= 0 && (exercised() || over > work.patienceMs);
    // two descriptors a chain, unless it goes into a table
    const most = Math.min(free.length, work.options.tables === undefined ? queue.free >> 1 : queue.free);
    const n = ended ? 0 : Math.min(most, 1 + (random() % size));
    if (n > 0) {
      fill(n, last);
      ended = last;
      ring(queue.add(out, n));
    }
    dawdle();
    while (reap() > 0) if (random() % 4 === 0) break;
    if (ended && chains === sent) break;
    if (n > 0 && random() % 3 !== 0) continue;
    const seen = Atomics.load(words, me);
    // nothing was used by the time of the second look: sleep until the device says so
    if (random() % 2 === 0 ? queue.enable() : queue.enableDelayed()) continue;
    if (queue.inFlight > 0) sleep(seen, queue);
    queue.disable();
  }
  if (queue.broken !== null) failure ??= `the queue broke: ${queue.broken}`;
  return queue.counters();
}

function serve(): VirtQueueCounters {
  const queue = DeviceVirtQueue.attach(space, work.options);
  Atomics.store(words, 2, 1);
  Atomics.notify(words, 2);
  const table = ChainTable.allocate(space, size, 2);
  const data = space.engine.data;
  let ended = false;
  while (failure === null && !ended) {
    const n = queue.peek(table, 1 + (random() % size));
    for (let i = 0; i < n; i++) {
      const number = data.getUint32(table.piece(i, 0).address, true);
      if (number === END) ended = true;
      else if (number !== chains) failure ??= `chain ${chains} brings ${number}`;
      data.setUint32(table.piece(i, 1).address, ~number >>> 0, true);
      table.setUsed(i, 8);
      chains++;
    }
    if (n > 0) {
      if (random() % 2 === 0) {
        ring(queue.release(table, n));
      } else {
        queue.advance(n);
        const middle = random() % (n + 1);
        dawdle();
        if (middle > 0) ring(queue.complete(table, 0, middle));
        if (middle < n) ring(queue.complete(table, middle, n));
      }
      dawdle();
      continue;
    }
    const seen = Atomics.load(words, me);
    if (queue.enable()) continue;
    sleep(seen, queue);
    if (random() % 4 !== 0) queue.disable();
  }
  if (queue.broken !== null) failure ??= `the queue broke: ${queue.broken}`;
  return queue.counters();
}

const counters = driving ? drive() : serve();
const report: VirtQueueReport = { side: work.side, failure, chains, sleeps, counters };
parentPort?.postMessage(report);
