import { FLOW_SCRATCH_SIZE } from "../../assembly/abi/arena-virtio-net.js";
import type { MemorySpace } from "../memory/space.js";
import type { BurstTable } from "./table.js";

/**
 * Tells which flow each frame of one memory belongs to, as a 32-bit number: addresses, protocol and ports of IPv4 and
 * IPv6, the same in both directions; one number for all frames of any other protocol. One thread.
 */
export class FlowHasher {
  readonly #area: number;
  #closed = false;

  /**
   * @param space - the memory that the frames lie in
   * @param capacity - most frames per {@link FlowHasher.run}
   * @throws VbusError ENOMEM
   */
  constructor(
    readonly space: MemorySpace,
    readonly capacity: number,
  ) {
    this.#area = space.allocate(FLOW_SCRATCH_SIZE + capacity * 4, 16);
  }

  /** Looks at frames [from, to) of a table of the same memory, at most {@link FlowHasher.capacity}. Returns how many. */
  run(table: BurstTable, from: number, to: number): number {
    const n = Math.min(to - from, this.capacity);
    const { exports } = this.space.engine;
    exports.flowHashes(table.entry(from), n, this.#area + FLOW_SCRATCH_SIZE, this.#area);
    return n;
  }

  /** Flow of frame k of the last run, unsigned. */
  hash(k: number): number {
    return this.space.engine.words[((this.#area + FLOW_SCRATCH_SIZE) >>> 2) + k] as number;
  }

  /** Gives the memory back. Closing twice is harmless. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.space.free(this.#area);
  }
}
