import { FRAME_GSO, RECHECK_NONE } from "../../../assembly/abi/arena.js";
import {
  VENET_GSO_MAX,
  VSG_IOV_SIZE,
  VSG_IOV_SIZE_ILP32,
  VSG_IOVS_MAX,
  VSG_SIZE_FIXED,
  VSG_SIZE_MAX,
} from "../../../assembly/abi/venet.js";
import type { HostSignal } from "../../bus/types.js";
import { RESERVE_BUFFERS, type Queue } from "../../engine/queue.js";
import type { BurstTable } from "../../engine/table.js";
import { moveFrames, type Moved } from "../../engine/transfer.js";
import { VsgWriter, type DescriptorPool } from "../../engine/vsg.js";
import { VbusError } from "../../errors.js";
import type { Batch } from "../../net/batch.js";
import type { Scheduler } from "../../scheduler.js";
import type { StateValue } from "../../state/reader.js";
import { ServedRing } from "../served-ring.js";

/** Most pages that one frame takes: the rest of a VSG's pieces. */
const PAGES_MAX = VSG_IOVS_MAX - 1;
/** Length of a page that guests usually give. */
const PAGE_SIZE = 4096;
/** Pages looked at at once: those of a burst of merged frames. */
const PAGES_SEEN = 256;

/** The page queue (`docs/abi/venet.md` section 7): pages that the guest gives away for what does not fit a posted buffer. */
export class PageQueue {
  readonly #ring: ServedRing;
  readonly #tellBroken: (error: unknown) => void;
  #broken = false;

  constructor(
    /** Its ring, for those who look at it. */
    readonly queue: Queue,
    signal: HostSignal,
    scheduler: Scheduler,
    onPages: () => void,
    onBroken: (error: unknown) => void,
  ) {
    this.#tellBroken = (error) => {
      if (this.#broken) return;
      this.#broken = true;
      onBroken(error);
    };
    this.#ring = new ServedRing(queue, signal, {
      scheduler,
      burst: PAGES_SEEN,
      // pages that lie there already were too few; only new ones are worth a wake-up
      recheck: RECHECK_NONE,
      run: onPages,
      failed: this.#tellBroken,
    });
  }

  /** The pages of the last {@link PageQueue.peek}. */
  get table(): BurstTable {
    return this.#ring.table;
  }

  /**
   * Looks at up to `max` pages. Returns how many. A guest that broke this queue gave none: its superframes are cut, and
   * everything else goes on.
   */
  peek(max: number): number {
    if (this.queue.broken !== null) return 0;
    try {
      return this.queue.peek("inuse", this.#ring.table, max, RESERVE_BUFFERS);
    } catch (error) {
      this.#tellBroken(error);
      return 0;
    }
  }

  /** Takes the first n of them. */
  take(n: number): void {
    this.queue.release("inuse", null, n, 0);
  }

  /** The ring's own state. */
  save(): StateValue {
    return { queue: this.queue.exportState() };
  }

  /** It was restored: looks for a doorbell that was on its way. */
  resume(): void {
    this.#ring.wakeups.schedule();
  }

  /** Asks to be told when the guest gives pages. */
  wait(): void {
    if (this.queue.broken === null) this.#ring.wakeups.enable();
  }

  /** Ends it. */
  close(): void {
    this.#ring.close();
  }
}

function iovSize(queue: Queue): number {
  return queue.stride === 28 ? VSG_IOV_SIZE_ILP32 : VSG_IOV_SIZE;
}

/** True for a size that slots of a ring can have. */
export function isSlotSize(queue: Queue, size: number): boolean {
  return size >= VSG_SIZE_FIXED + iovSize(queue) && size <= VSG_SIZE_MAX;
}

/**
 * Receive buffers of a guest with L4RO: a slot per descriptor, with a buffer posted in it, and pages for the rest of
 * superframes. The slot size is learned from the guest's descriptors (it is 304, 320 or 336, `docs/abi/venet.md` 5.2).
 */
export class L4roBuffers {
  readonly #writer: VsgWriter;
  #slotSize: number;

  /** @param slotSize - when it is known already */
  constructor(
    private readonly queue: Queue,
    pool: DescriptorPool,
    private readonly pages: () => PageQueue | null,
    capacity: number,
    slotSize = 0,
  ) {
    this.#slotSize = slotSize;
    this.#writer = new VsgWriter(queue, pool, capacity);
  }

  /** The posted buffers of the last reserve. */
  get table(): BurstTable {
    return this.#writer.table;
  }

  /**
   * True when a superframe of any size finds its pages, and its place in a slot. Pages may have any length.
   * @throws VbusError EPROTO
   */
  get takesLargest(): boolean {
    const pages = this.pages();
    if (pages === null || (this.#slotSize === 0 && !this.#learn())) return false;
    const n = pages.peek(this.#pagesPerSlot);
    let bytes = 0;
    for (let i = 0; i < n; i++) bytes += pages.table.length(i);
    return bytes >= VENET_GSO_MAX;
  }

  /** True when `bytes` in at most `frames` superframes find their pages whatever way they are divided. */
  takes(bytes: number, frames: number): boolean {
    const pages = this.pages();
    if (pages === null) return false;
    const n = pages.peek(Math.min(PAGES_SEEN, Math.ceil(bytes / PAGE_SIZE) + frames));
    let shortest = Infinity;
    for (let i = 0; i < n; i++) shortest = Math.min(shortest, pages.table.length(i));
    return (
      shortest > 0 &&
      Math.ceil(bytes / shortest) + frames <= n &&
      Math.ceil(Math.min(bytes, VENET_GSO_MAX) / shortest) <= this.#pagesPerSlot
    );
  }

  /** Reserves up to `max` posted buffers. @throws VbusError EPROTO */
  reserve(max: number): number {
    if (this.#slotSize === 0 && !this.#learn()) return 0;
    return this.#writer.reserve(max, this.#slotSize);
  }

  /** Takes the slot size from the first descriptor that the guest posted. */
  #learn(): boolean {
    if (this.queue.reserve("inuse", this.table, 1) === 0) return false;
    const size = this.table.length(0);
    if (!isSlotSize(this.queue, size)) {
      this.queue.violate("descriptor");
      throw new VbusError("EPROTO", `receive descriptors for slots of ${size} bytes`);
    }
    this.#slotSize = size;
    return true;
  }

  /** Size of a slot; 0: not learned yet. */
  get slotSize(): number {
    return this.#slotSize;
  }

  get #iovSize(): number {
    return iovSize(this.queue);
  }

  /** Pages that a slot has room for beside its own buffer. */
  get #pagesPerSlot(): number {
    return Math.min(PAGES_MAX, Math.floor((this.#slotSize - VSG_SIZE_FIXED) / this.#iovSize) - 1);
  }

  /**
   * Moves frames [from, to) into the reserved buffers [0, room), and writes their slots, ready for a commit. Stops at a
   * superframe that finds too few pages (`short`): they must come from the guest first, or it must be cut.
   */
  fill(batch: Batch, from: number, to: number, room: number): Moved & { short: boolean } {
    const { table } = this;
    let taken = from;
    let filled = 0;
    let staged = 0;
    while (taken < to && filled < room) {
      let end = taken;
      while (
        end < to &&
        end - taken < room - filled &&
        batch.length(end) <= table.length(filled + end - taken)
      )
        end++;
      if (end > taken) {
        staged += moveFrames(batch.table, taken, end, table, filled, room).staged;
        this.#writer.finish(filled, filled + end - taken, table);
        filled += end - taken;
        taken = end;
      } else if ((batch.table.flags(taken) & FRAME_GSO) === 0) {
        taken++; // dropped; only superframes go on in pages, and the buffer stays for the next frame
      } else {
        const moved = this.#fillLarge(batch, taken, filled);
        if (moved === null) return { taken: taken - from, filled, staged, short: true };
        staged += moved.staged;
        taken++;
        filled++;
      }
    }
    return { taken: taken - from, filled, staged, short: false };
  }

  /** A superframe that is longer than its buffer. Null: too few pages, or too short ones. */
  #fillLarge(batch: Batch, i: number, slot: number): Moved | null {
    const pages = this.pages();
    if (pages === null) return null;
    const { table } = this;
    const most = this.#pagesPerSlot;
    const given = pages.peek(most);
    let left = batch.length(i) - table.length(slot);
    let needed = 0;
    while (left > 0 && needed < given) left -= pages.table.length(needed++);
    if (left > 0) {
      if (given < most) pages.wait();
      return null;
    }
    this.#writer.extend(slot, pages.table, needed);
    const moved = moveFrames(batch.table, i, i + 1, table, slot, slot + 1);
    this.#writer.finish(slot, slot + 1, pages.table);
    pages.take(needed); // popped when taken, before the frame that uses them is published
    return moved;
  }

  /** Gives the memory back. */
  close(): void {
    this.#writer.close();
  }
}
