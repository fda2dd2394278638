/** Doorbells between the two threads of a pair: a word that the producer counts up, and the consumer sleeps on. */
import type { PairAnswer } from "./jobs.js";
import { LOOP_AGAIN, LOOP_DONE } from "./loops.js";
import { Deadline, drive, PATIENCE_MS } from "./meeting.js";
import { STAGE } from "./stage.js";

/** Word of the doorbell, on a line of its own. */
const RUNG = STAGE.gate / 4 + 16;
/** Word that says the producer has posted its last frame. */
const FINISHED = STAGE.gate / 4 + 32;

/** The doorbell of a pair, as one of its threads sees it. */
export class Doorbell {
  readonly #words: Int32Array;

  constructor(memory: WebAssembly.Memory) {
    this.#words = new Int32Array(memory.buffer);
  }

  /** Nobody has rung, nobody has finished. For a pair that is idle. */
  static reset(memory: WebAssembly.Memory): void {
    new Uint32Array(memory.buffer).fill(0, RUNG, FINISHED + 16);
  }

  /** Drives a producer's loop, ringing whenever it asks for that. */
  produce(what: string, answer: PairAnswer, loop: () => number): void {
    drive(what, loop, () => {
      answer.doorbells++;
      Atomics.add(this.#words, RUNG, 1);
      Atomics.notify(this.#words, RUNG);
    });
    Atomics.store(this.#words, FINISHED, 1);
  }

  /** Drives a consumer's loop, sleeping whenever it has nothing to do. @throws Error when a wake-up is lost */
  consume(what: string, answer: PairAnswer, loop: () => number): void {
    const deadline = new Deadline();
    for (;;) {
      const seen = Atomics.load(this.#words, RUNG);
      const outcome = loop();
      if (outcome === LOOP_DONE) return;
      if (outcome < 0) throw new Error(`${what}: the engine answers ${outcome}`);
      deadline.check(what);
      if (outcome === LOOP_AGAIN) {
        answer.sleeps++;
        // a sleeper that is never rung although the producer has finished would be a lost wake-up: it shows as a failure
        const woken = Atomics.wait(this.#words, RUNG, seen, PATIENCE_MS / 4);
        if (woken === "timed-out" && Atomics.load(this.#words, FINISHED) !== 0)
          throw new Error(`${what}: a wake-up was lost`);
      }
    }
  }
}
