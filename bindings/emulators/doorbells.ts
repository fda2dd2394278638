import type { EmulatorMachine } from "./machine.js";
import { SlicePace } from "./slice-pace.js";

/** A doorbell that comes so many instructions after the last is served at once … */
const PAUSE_INSTRUCTIONS = 16_000;
/** … unless the guest has had no pause for so many: it has more to say, and is not waiting for an answer. */
const BUSY_INSTRUCTIONS = 500_000;
/** A guest may ring any number, whether it means something or not. */
const POSTPONED_MAX = 4096;

/**
 * When the doorbells of a function are served. One that comes after a pause, from a guest that has time, is served inside the
 * access that rang, which is what makes a round trip short. A guest that is busy has more to say: it is served at the end
 * of its slice (some 100,000 instructions, or as soon as it idles). Until then it need not ring again. Where no interrupt may be
 * raised in the access, it can only be served then, for its device may want one: the slice ends early if it came after a pause.
 *
 * A guest whose slices take long (firmware, a boot loader: code that is interpreted) polls for its answer, and has nothing to
 * gain from bursts. All its doorbells are served at once, and its slice ends: what the device waits for (a file, a network)
 * comes by the event loop, which has its turn only between slices.
 */
export class Doorbells {
  /** When the last one rang, in instructions. */
  #last: number;
  readonly #postponed = new Set<number>();
  readonly #pace = new SlicePace();
  #skipped = 0;
  #count = 0;

  /**
   * @param machine - the machine
   * @param answer - serves a doorbell
   * @param silence - a doorbell will be served later: the guest need not ring it until then
   */
  constructor(
    private readonly machine: EmulatorMachine,
    private readonly answer: (doorbell: number) => void,
    private readonly silence: (doorbell: number) => void,
  ) {
    this.#last = machine.host.instructions - PAUSE_INSTRUCTIONS;
  }

  /** How many were postponed, several of one doorbell as one at last. */
  get postponed(): number {
    return this.#count;
  }

  /** The guest rang. */
  ring(doorbell: number): void {
    const { machine } = this;
    const now = machine.host.instructions;
    const pause = (now - this.#last) >>> 0;
    this.#last = now;
    const { slow } = this.#pace;
    if (!slow && (pause < PAUSE_INSTRUCTIONS || (now - machine.lastIdle) >>> 0 > BUSY_INSTRUCTIONS)) {
      this.#postpone(doorbell);
    } else if (!machine.mayInterrupt) {
      this.#postpone(doorbell);
      this.#endSlice();
    } else {
      this.answer(doorbell);
      machine.runTasks();
      if (slow) this.#endSlice();
    }
  }

  /** Ending a slice counts instructions that the guest never executed. */
  #endSlice(): void {
    const { host } = this.machine;
    const before = host.instructions;
    host.endSlice?.();
    this.#skipped += (host.instructions - before) >>> 0;
  }

  #postpone(doorbell: number): void {
    if (this.#postponed.size >= POSTPONED_MAX) this.serve();
    this.#postponed.add(doorbell);
    this.#count++;
    this.silence(doorbell);
  }

  /** Serves what was postponed. */
  serve(): void {
    this.#pace.note(performance.now(), (this.machine.host.instructions - this.#skipped) >>> 0);
    if (this.#postponed.size === 0) return;
    const doorbells = [...this.#postponed];
    this.#postponed.clear();
    for (const doorbell of doorbells) this.answer(doorbell);
  }

  /** Forgets what was postponed. */
  clear(): void {
    this.#postponed.clear();
  }
}
