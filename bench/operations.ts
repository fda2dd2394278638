/** Benchmark.js suites of the single operations, one thread: through the typed door, and the raw exports beside it. */
import Benchmark from "benchmark";
import {
  BURST_CLEAR_VALID,
  BURST_COOKIE,
  BURST_LENGTH,
  BURST_POINTER,
  BURST_SET_VALID,
  BURST_SIGNAL,
  BURST_TRANSLATE,
  BurstTable,
  Checksum,
  moveFrames,
  Queue,
  queueSegmentLength,
  RECHECK_INUSE_HEAD,
  RECLAIM,
  RingIterator,
  Signal,
} from "vbus/engine";
import { allocateGuestMemory, MemorySpace } from "vbus/memory";
import type { OperationResult } from "./harness/report.js";

const WRITE = BURST_POINTER | BURST_LENGTH | BURST_COOKIE | BURST_SET_VALID | BURST_SIGNAL;
const RING_GPA = 0x10008;
const SIGNAL_GPA = 0x18000;
const BUFFERS_GPA = 0x100000;
const IDX_VALID = 0;
const IDX_INUSE = 1;
const IDX_BOTH = 2;

/** An operation: what it does, and by how many units its time is divided. */
interface Operation {
  name: string;
  per: number;
  run: () => void;
}

function openSpace(shared: boolean): MemorySpace {
  const init = allocateGuestMemory({ size: 8 << 20, shared });
  return MemorySpace.attachSync(init.memory, init.layout.hostArena, init.layout.regions);
}

function openRing(space: MemorySpace): { north: Queue; south: Queue } {
  const north = Queue.create(space, { gpa: RING_GPA, count: 256, role: "northTransmit" });
  const south = Queue.attach(space, {
    gpa: RING_GPA,
    length: queueSegmentLength(256),
    role: "southTransmit",
  });
  return { north, south };
}

function burstOperations(shared: boolean): Operation[] {
  const flavour = shared ? "shared" : "unshared";
  return [1, 8, 32].flatMap((n) => {
    const space = openSpace(shared);
    const { north, south } = openRing(space);
    const table = BurstTable.allocate(space, n);
    const taken = BurstTable.allocate(space, n);
    for (let i = 0; i < n; i++) {
      table.setGpa(i, BUFFERS_GPA + i * 2048);
      table.setLength(i, 1514);
      table.setCookie(i, i);
    }
    const typed: Operation = {
      name: `post, consume, complete, reap ${n}, typed door, ${flavour}: per descriptor`,
      per: n,
      run: () => {
        north.reserve("both", null, n);
        north.commit("both", table, n, WRITE);
        south.peek("inuse", taken, n, BURST_TRANSLATE);
        south.release("inuse", null, n, BURST_SIGNAL);
        north.peek("valid", null, n);
        north.release("valid", null, n, RECLAIM | BURST_CLEAR_VALID);
      },
    };
    const { exports } = space.engine;
    const raw: Operation = {
      name: `post, consume, complete, reap ${n}, raw exports, ${flavour}: per descriptor`,
      per: n,
      run: () => {
        exports.pushReserve(north.address, IDX_BOTH, 0, n, 0);
        exports.pushCommit(north.address, IDX_BOTH, table.address, n, WRITE);
        exports.popPeek(south.address, IDX_INUSE, taken.address, n, BURST_TRANSLATE);
        exports.popRelease(south.address, IDX_INUSE, 0, n, BURST_SIGNAL);
        exports.popPeek(north.address, IDX_VALID, 0, n, 0);
        exports.popRelease(north.address, IDX_VALID, 0, n, RECLAIM | BURST_CLEAR_VALID);
      },
    };
    return [typed, raw];
  });
}

function iteratorOperations(): Operation[] {
  const space = openSpace(false);
  const north = Queue.create(space, { gpa: RING_GPA, count: 256, role: "northFeed" });
  const south = Queue.attach(space, { gpa: RING_GPA, length: queueSegmentLength(256), role: "southFeed" });
  const feed = new RingIterator(north, "inuse");
  const drain = new RingIterator(south, "inuse");
  feed.seek("tail");
  drain.seek("head");
  return [
    {
      name: "iterator: push and pop one descriptor",
      per: 1,
      run: () => {
        feed.push();
        drain.pop();
      },
    },
  ];
}

function signalOperations(): Operation[] {
  const space = openSpace(true);
  const north = Signal.create(space, SIGNAL_GPA);
  const south = Signal.attach(space, SIGNAL_GPA);
  const { north: ring } = openRing(space);
  return [
    { name: "inject, peer masked", per: 1, run: () => void north.inject() },
    {
      name: "inject and a whole wakeup (enable, doorbell, run, done)",
      per: 1,
      run: () => {
        south.enable();
        north.inject();
        south.wakeupBegin(4);
        south.wakeupNext();
        south.disable();
      },
    },
    {
      name: "disable and enable with a look at the ring",
      per: 1,
      run: () => {
        ring.disable();
        ring.enable(RECHECK_INUSE_HEAD);
      },
    },
    { name: "translate one guest address", per: 1, run: () => void space.translate(BUFFERS_GPA, 1514) },
  ];
}

function checksumOperations(): Operation[] {
  const space = openSpace(false);
  const checksum = new Checksum(space);
  const address = space.translate(BUFFERS_GPA, 65536);
  return [64, 256, 1500, 9000, 65536].map((length) => ({
    name: `checksum of ${length} bytes`,
    per: 1,
    run: () => void checksum.range(address, length),
  }));
}

function moveOperations(): Operation[] {
  const source = openSpace(false);
  const other = openSpace(false);
  const n = 4;
  return [64, 512, 1514, 9014, 65536].flatMap((length) => {
    const between = (name: string, target: MemorySpace): Operation => {
      const from = BurstTable.allocate(source, n);
      const to = BurstTable.allocate(target, n);
      for (let i = 0; i < n; i++) {
        from.setBuffer(i, source.translate(BUFFERS_GPA + i * 65536, length), length);
        to.setBuffer(i, target.translate(BUFFERS_GPA + (n + i) * 65536, length), length);
      }
      return {
        name,
        per: n,
        run: () => {
          for (let i = 0; i < n; i++) to.setLength(i, length);
          moveFrames(from, 0, n, to, 0, n);
        },
      };
    };
    return [
      between(`move frames of ${length} bytes within one memory: per frame`, source),
      between(`move frames of ${length} bytes to another memory: per frame`, other),
    ];
  });
}

const SUITES: readonly { name: string; operations: () => Operation[] }[] = [
  { name: "bursts", operations: () => [...burstOperations(false), ...burstOperations(true)] },
  { name: "iterators", operations: iteratorOperations },
  { name: "signals and translation", operations: signalOperations },
  { name: "checksum", operations: checksumOperations },
  { name: "moving frames", operations: moveOperations },
];

/** Runs every suite. `maxTime` bounds one operation, in seconds. */
export function measureOperations(maxTime: number, progress: (what: string) => void): OperationResult[] {
  const results: OperationResult[] = [];
  for (const { name: suite, operations } of SUITES) {
    progress(`operations: ${suite}`);
    for (const { name, per, run } of operations()) {
      const benchmark = new Benchmark(name, run, { maxTime, minSamples: 5, minTime: 0.02, initCount: 1000 });
      benchmark.run();
      // Benchmark.js notes what an operation throws, and its types do not know that there may be nothing
      const { error: failure } = benchmark as unknown as { error?: Error };
      if (failure !== undefined) throw new Error(`${name}: ${failure.message}`, { cause: failure });
      results.push({
        suite,
        name,
        ns: (benchmark.stats.mean * 1e9) / per,
        margin: benchmark.stats.rme,
        samples: benchmark.stats.sample.length,
      });
    }
  }
  return results;
}
