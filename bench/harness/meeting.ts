/** How the two threads of a pair meet, probe the cache line between them, and drive loops without waiting for ever. */
import { LOOP_AGAIN, LOOP_DONE, LOOP_DOORBELL, type TwoThreadLoops } from "./loops.js";
import { STAGE } from "./stage.js";

const GATE = STAGE.gate / 4;
const PROBE_ROUNDS = 300;
const PROBE_WARM = 20;
/** Polls without progress before a loop returns to JavaScript, which looks at the clock. */
export const POLLS = 1 << 14;
/** How long a side waits for the other to get on. */
export const PATIENCE_MS = 20_000;

/** The end of somebody's patience. */
export class Deadline {
  readonly #end = performance.now() + PATIENCE_MS;
  /** @throws Error when it is over */
  check(what: string): void {
    if (performance.now() > this.#end) throw new Error(`${what}: no progress within ${PATIENCE_MS} ms`);
  }
}

/** One side's view of where the two threads meet. */
export class Meeting {
  readonly #words: Int32Array;
  #met = 0;
  #lineBase = 0;

  /** `side` is 0 or 1; both threads have the same memory. */
  constructor(
    memory: WebAssembly.Memory,
    private readonly loops: TwoThreadLoops,
    private readonly side: 0 | 1,
  ) {
    this.#words = new Int32Array(memory.buffer);
  }

  /** Both threads leave together. They spin: the pair runs only while two threads are runnable. */
  meet(): void {
    const deadline = new Deadline();
    this.#met += 2;
    Atomics.add(this.#words, GATE, 1);
    for (let spins = 0; Atomics.load(this.#words, GATE) - this.#met < 0; spins++) {
      if ((spins & 0xffff) === 0xffff) deadline.check("waiting for the other thread");
    }
  }

  /** One cache line to and fro; no meeting around it. */
  bounce(rounds: number): void {
    const { loops, side } = this;
    if (loops.pingPong(STAGE.line, side, this.#lineBase, rounds, 0x7fffffff) !== LOOP_DONE)
      throw new Error("the other thread let the cache line go");
    this.#lineBase += 2 * rounds;
  }

  #timed(rounds: number): number {
    this.meet();
    const begin = performance.now();
    this.bounce(rounds);
    const ns = (performance.now() - begin) * 1e6;
    this.meet();
    return ns / (2 * rounds);
  }

  /** Nanoseconds that a cache line takes from one core to the other. */
  probe(): number {
    this.#timed(PROBE_WARM);
    return this.#timed(PROBE_ROUNDS);
  }
}

/** Calls a loop until it is done; `onDoorbell` runs when it wants a doorbell rung. @throws Error when it fails, or stands still */
export function drive(what: string, loop: () => number, onDoorbell?: () => void): void {
  const deadline = new Deadline();
  for (;;) {
    const outcome = loop();
    if (outcome === LOOP_DONE) return;
    if (outcome < 0) throw new Error(`${what}: the engine answers ${outcome}`);
    if (outcome === LOOP_DOORBELL) onDoorbell?.();
    else if (outcome === LOOP_AGAIN) deadline.check(what);
  }
}
