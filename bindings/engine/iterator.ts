import {
  ENTRY_SIZE,
  ITER_OFF_POSITION,
  ITER_STATE_SIZE,
  ITER_UNPOSITIONED,
} from "../../assembly/abi/arena.js";
import {
  IDX_BOTH,
  IDX_INUSE,
  IDX_VALID,
  SEEK_HEAD,
  SEEK_NEXT,
  SEEK_SET,
  SEEK_TAIL,
} from "../../assembly/abi/ioq.js";
import { checkResult } from "../errors.js";
import type { Queue, QueueIndex } from "./queue.js";
import { BurstTable } from "./table.js";

const INDEXES: Record<QueueIndex, number> = { valid: IDX_VALID, inuse: IDX_INUSE, both: IDX_BOTH };
const SEEKS = { tail: SEEK_TAIL, next: SEEK_NEXT, head: SEEK_HEAD, set: SEEK_SET } as const;

/** Descriptor under an iterator, as read at that moment. */
export interface DescriptorImage {
  /** Low 32 bits of the cookie. */
  cookie: number;
  /** Guest-physical address (exact below 2^53). */
  gpa: number;
  /** Length, clamped to 32 bits. */
  length: number;
  /** North's private mark. */
  valid: number;
  /** Owner as stored: 0 north, 1 south. */
  owner: number;
}

/**
 * The iterator of `docs/abi/ioq.md` section 5: one descriptor at a time. Bursts are faster; this can do everything.
 * Results are the ABI's: 0 or a negated errno; push and pop return 1 when the doorbell must be rung.
 */
export class RingIterator {
  readonly #state: number;
  readonly #entry: BurstTable;

  /**
   * @param queue - the endpoint
   * @param index - "both" is bound to valid and moves inuse as well
   * @param flags - ITER_AUTOUPDATE, ITER_NOFLIPOWNER
   */
  constructor(
    readonly queue: Queue,
    index: QueueIndex,
    flags = 0,
  ) {
    const { space } = queue;
    this.#state = space.allocate(ITER_STATE_SIZE, 16);
    this.#entry = BurstTable.allocate(space, 1);
    const result = space.engine.exports.iterInit(this.#state, queue.address, INDEXES[index], flags);
    if (result < 0) this.close();
    checkResult(result, `an iterator with flags ${flags}; use ITER_AUTOUPDATE and ITER_NOFLIPOWNER`);
  }

  /** Moves: to the tail, the head, the next position, or position `offset` ("set"). 0; -1 beyond count; -EINVAL; -EPROTO. */
  seek(to: keyof typeof SEEKS, offset = 0): number {
    return this.queue.space.engine.exports.iterSeek(this.#state, SEEKS[to], offset);
  }

  /** Current position, or null before the first seek. */
  get position(): number | null {
    const position = this.queue.space.engine.words[(this.#state + ITER_OFF_POSITION) >>> 2] as number;
    return position === ITER_UNPOSITIONED ? null : position;
  }

  /** Puts the descriptor into service and steps on. 0, 1 (ring the doorbell), -EINVAL, -EPROTO. */
  push(): number {
    return this.queue.space.engine.exports.iterPush(this.#state);
  }

  /** Takes the descriptor out of service and steps on. Results as {@link RingIterator.push}. */
  pop(): number {
    return this.queue.space.engine.exports.iterPop(this.#state);
  }

  /** Reads the descriptor; null before the first seek. */
  read(): DescriptorImage | null {
    const table = this.#entry;
    if (this.queue.space.engine.exports.iterRead(this.#state, table.address) < 0) return null;
    const flags = table.flags(0);
    return {
      cookie: table.cookie(0),
      gpa: table.gpa(0),
      length: table.length(0),
      valid: flags & 0xff,
      owner: (flags >>> 8) & 0xff,
    };
  }

  /** Writes the members named by `what` (`BURST_…` flags). 0, -EINVAL (not owned here), -EPROTO. */
  write(image: Partial<Pick<DescriptorImage, "cookie" | "gpa" | "length">>, what: number): number {
    const table = this.#entry;
    table.space.bytes.fill(0, table.address, table.address + ENTRY_SIZE);
    table.setCookie(0, image.cookie ?? 0);
    table.setGpa(0, image.gpa ?? 0);
    table.setLength(0, image.length ?? 0);
    return this.queue.space.engine.exports.iterWrite(this.#state, table.address, what);
  }

  /** Gives the iterator's memory back. */
  close(): void {
    this.queue.space.free(this.#state);
    this.#entry.close();
  }
}
