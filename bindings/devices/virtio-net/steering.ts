import { FlowHasher } from "../../engine/flow.js";
import type { MemorySpace } from "../../memory/space.js";
import type { Batch } from "../../net/batch.js";

/** Frames looked at at once. */
const BURST = 64;
/** Flows told apart: those that share a place share a queue. */
const PLACES = 1024;

const hashers = new WeakMap<MemorySpace, FlowHasher>();

/** The hasher of a memory; its area lives in the memory's arena, as long as it does. */
function hasherOf(space: MemorySpace): FlowHasher {
  let hasher = hashers.get(space);
  if (hasher === undefined) {
    hasher = new FlowHasher(space, BURST);
    hashers.set(space, hasher);
  }
  return hasher;
}

/**
 * Which receive queue a frame goes to (virtio 1.2: 5.1.6.5.6, automatic receive steering): the one that belongs to the queue
 * that the driver last sent on for the same flow; for a flow that it never sent on, one that the flow's number gives.
 */
export class FlowSteering {
  readonly #last = new Uint16Array(PLACES);

  /** The driver sent frames [0, n) on the queue of a pair. */
  sent(batch: Batch, n: number, pair: number): void {
    const hasher = hasherOf(batch.space);
    for (let from = 0; from < n; from += BURST) {
      const count = hasher.run(batch.table, from, Math.min(n, from + BURST));
      for (let k = 0; k < count; k++) this.#last[hasher.hash(k) % PLACES] = pair + 1;
    }
  }

  /**
   * Pair for frame `from` and how far the frames behind it go to the same one, of `pairs` in use.
   */
  run(batch: Batch, from: number, to: number, pairs: number): { pair: number; end: number } {
    const hasher = hasherOf(batch.space);
    const count = hasher.run(batch.table, from, to);
    const pair = this.#pair(hasher.hash(0), pairs);
    let k = 1;
    while (k < count && this.#pair(hasher.hash(k), pairs) === pair) k++;
    return { pair, end: from + k };
  }

  #pair(hash: number, pairs: number): number {
    const last = this.#last[hash % PLACES] as number;
    return last !== 0 && last <= pairs ? last - 1 : (hash >>> 16) % pairs;
  }
}
