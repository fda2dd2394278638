import { FRAME_GSO, RECHECK_INUSE_HEAD } from "../../../assembly/abi/arena.js";
import {
  VSG_IOV_SIZE,
  VSG_IOV_SIZE_ILP32,
  VSG_IOVS_MAX,
  VSG_SIZE_FIXED,
  VSG_SIZE_MAX,
} from "../../../assembly/abi/venet.js";
import type { HostSignal } from "../../bus/types.js";
import { RESERVE_BUFFERS, type Queue } from "../../engine/queue.js";
import { BurstTable } from "../../engine/table.js";
import { moveFrames, type Moved } from "../../engine/transfer.js";
import { VsgWriter, type DescriptorPool } from "../../engine/vsg.js";
import { QueueWakeups } from "../../engine/wakeup.js";
import { VbusError } from "../../errors.js";
import type { Batch } from "../../net/batch.js";
import type { Scheduler } from "../../scheduler.js";

/** Most pages that one frame takes: the rest of a VSG's pieces. */
const PAGES_MAX = VSG_IOVS_MAX - 1;
/** Pages that a superframe of 64 KiB takes, 4096 bytes each, and one more. */
const PAGES_FOR_LARGEST = 17;

/** The page queue (`docs/abi/venet.md` section 7): pages that the guest gives away for what does not fit a posted buffer. */
export class PageQueue {
  readonly #table: BurstTable;
  readonly #wakeups: QueueWakeups;

  constructor(
    private readonly queue: Queue,
    private readonly signal: HostSignal,
    scheduler: Scheduler,
    onPages: () => void,
    onBroken: (error: unknown) => void,
  ) {
    this.#table = BurstTable.allocate(queue.space, PAGES_MAX);
    this.#wakeups = new QueueWakeups(queue, {
      scheduler,
      recheck: RECHECK_INUSE_HEAD,
      notifier: () => {
        this.#wakeups.disable();
        onPages();
      },
      ring: () => {
        signal.notify();
      },
      onBroken,
    });
    signal.onDoorbell = this.#wakeups.wakeup;
  }

  /** The pages of the last {@link PageQueue.peek}. */
  get table(): BurstTable {
    return this.#table;
  }

  /** Pages given and not taken, counted up to `max`. @throws VbusError EPROTO */
  available(max: number): number {
    return this.queue.peek("inuse", null, max);
  }

  /** Looks at up to `max` pages. Returns how many. @throws VbusError EPROTO, also for a page outside the guest's memory */
  peek(max: number): number {
    return this.queue.peek("inuse", this.#table, max, RESERVE_BUFFERS);
  }

  /** Takes the first n of them. */
  take(n: number): void {
    this.queue.release("inuse", null, n, 0);
  }

  /** Asks to be told when the guest gives pages. */
  wait(): void {
    this.#wakeups.enable();
  }

  /** Ends it. */
  close(): void {
    this.#wakeups.close();
    this.signal.onDoorbell = null;
    this.queue.close();
    this.#table.close();
    this.signal.release();
  }
}

/**
 * Receive buffers of a guest with L4RO: a slot per descriptor, with a buffer posted in it, and pages for the rest of
 * superframes. The slot size is learned from the guest's descriptors (it is 304, 320 or 336, `docs/abi/venet.md` 5.2).
 */
export class L4roBuffers {
  readonly #writer: VsgWriter;
  #slotSize = 0;

  constructor(
    private readonly queue: Queue,
    pool: DescriptorPool,
    private readonly pages: PageQueue | null,
    capacity: number,
  ) {
    this.#writer = new VsgWriter(queue, pool, capacity);
  }

  /** The posted buffers of the last reserve. */
  get table(): BurstTable {
    return this.#writer.table;
  }

  /** True when a superframe of any size finds its pages. @throws VbusError EPROTO */
  get takesLargest(): boolean {
    return this.pages !== null && this.pages.available(PAGES_FOR_LARGEST) === PAGES_FOR_LARGEST;
  }

  /** True when `bytes` in `frames` superframes find their pages. @throws VbusError EPROTO */
  takes(bytes: number, frames: number): boolean {
    const needed = Math.ceil(bytes / 4096) + frames;
    return this.pages !== null && this.pages.available(needed) === needed;
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
    if (size < VSG_SIZE_FIXED + this.#iovSize || size > VSG_SIZE_MAX) {
      this.queue.violate("descriptor");
      throw new VbusError("EPROTO", `receive descriptors for slots of ${size} bytes`);
    }
    this.#slotSize = size;
    return true;
  }

  get #iovSize(): number {
    return this.queue.stride === 28 ? VSG_IOV_SIZE_ILP32 : VSG_IOV_SIZE;
  }

  /** Pages that a slot has room for beside its own buffer. */
  get #pagesPerSlot(): number {
    return Math.min(PAGES_MAX, Math.floor((this.#slotSize - VSG_SIZE_FIXED) / this.#iovSize) - 1);
  }

  /**
   * Moves frames [from, to) into the reserved buffers [0, room), and writes their slots, ready for a commit. Stops at a
   * superframe that finds too few pages (`short`): they must come from the guest first.
   */
  fill(batch: Batch, from: number, to: number, room: number): Moved & { short: boolean } {
    const { table } = this;
    let taken = from;
    let filled = 0;
    while (taken < to && filled < room) {
      let end = taken;
      while (end < to && !this.#needsPages(batch, end, Math.min(filled + end - taken, room - 1))) end++;
      if (end > taken) {
        const moved = moveFrames(batch.table, taken, end, table, filled, room);
        this.#writer.finish(filled, filled + moved.filled, table);
        taken += moved.taken;
        filled += moved.filled;
        if (taken < end) break;
        continue; // a buffer that was kept for the next frame may be larger than the one that was looked at
      }
      const outcome = this.#fillLarge(batch, taken, filled);
      if (outcome === "short") return { taken: taken - from, filled, short: true };
      taken++;
      if (outcome === "filled") filled++;
    }
    return { taken: taken - from, filled, short: false };
  }

  /** Only superframes may go on in pages; an ordinary frame that is too long for its buffer is dropped. */
  #needsPages(batch: Batch, i: number, slot: number): boolean {
    return (batch.table.flags(i) & FRAME_GSO) !== 0 && batch.length(i) > this.table.length(slot);
  }

  #fillLarge(batch: Batch, i: number, slot: number): "filled" | "short" | "dropped" {
    const { pages, table } = this;
    if (pages === null) return "dropped";
    const most = this.#pagesPerSlot;
    const given = pages.peek(most);
    let left = batch.length(i) - table.length(slot);
    let needed = 0;
    while (left > 0 && needed < given) left -= pages.table.length(needed++);
    if (left > 0) {
      if (given === most) return "dropped"; // pages too small for a frame that would fit ordinary ones
      pages.wait();
      return "short";
    }
    this.#writer.extend(slot, pages.table, needed);
    moveFrames(batch.table, i, i + 1, table, slot, slot + 1);
    this.#writer.finish(slot, slot + 1, pages.table);
    pages.take(needed); // popped when taken, before the frame that uses them is published
    return "filled";
  }

  /** Gives the memory back. */
  close(): void {
    this.#writer.close();
  }
}
