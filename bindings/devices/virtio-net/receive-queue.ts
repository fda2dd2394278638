import { FRAME_GSO } from "../../../assembly/abi/arena.js";
import { ChainTable } from "../../engine/chain-table.js";
import { moveFrames } from "../../engine/transfer.js";
import { NetPlaces } from "../../engine/virtio-net.js";
import { VirtQueueWakeups } from "../../engine/virtqueue-wakeup.js";
import { VbusError } from "../../errors.js";
import type { Batch } from "../../net/batch.js";
import type { Scheduler } from "../../scheduler.js";
import type { VirtioQueue } from "../../virtio/types.js";
import { emptyFilled, type Filled, type FrameSink } from "../ethernet/sink.js";
import type { InterruptModerator } from "./moderation.js";
import type { VirtioNetStatistics } from "./statistics.js";

/** Frames per burst. */
const BURST = 64;
/** Most chains that are looked at, and so most buffers of one frame. */
const CHAINS = 256;
/** Pieces that a buffer may be in, when it must take a whole superframe. */
const PIECES = 64;
/** … and when a frame may take several buffers. */
const MERGEABLE_PIECES = 20;
/** Pieces of all frames of a burst. */
const PLACED_PIECES = 4096;
/** Buffer that drivers usually post, until it is known better. */
const BUFFER_SIZE = 1536;
/** Longest superframe, with header. */
const LARGEST = 65536 + 12;

/** How a receive queue is wired. */
export interface ReceiveQueueOptions {
  /** Where deferred work runs. */
  readonly scheduler: Scheduler;
  /** When the driver hears of frames. */
  readonly moderator: InterruptModerator;
  /** A frame may take several chains. */
  readonly mergeable: boolean;
  /** What the driver takes unfinished (`OFFLOAD_…` bits) at this moment. */
  readonly offloads: () => number;
  /** Checksums that are known to be right may be said to be, at this moment. */
  readonly dataValid: () => boolean;
  /** Counters of the card. */
  readonly statistics: VirtioNetStatistics;
}

/** A receive queue of virtio-net as a sink of frames (virtio 1.2: 5.1.6.3, 5.1.6.4). */
export class ReceiveQueue implements FrameSink {
  readonly #chains: ChainTable;
  readonly #places: NetPlaces;
  readonly #wakeups: VirtQueueWakeups;
  readonly #filled = emptyFilled();
  /** What a chain takes, as far as was seen. */
  #bufferSize = BUFFER_SIZE;
  /** Places found by the last reserve are good until something else peeks. */
  #placed = 0;
  /** Chains that the last reserve looked at. */
  #peeked = 0;
  /** The first frame does not fit in all that there is. */
  #short = false;
  /** … nor will it ever. */
  #hopeless = false;
  /** Buffers are there, but too few: only new ones are worth a wake-up. */
  #pastPeeked = false;
  #closed = false;
  #ready: () => void = () => undefined;
  #fail: (error: unknown) => void = () => undefined;

  /** @throws VbusError ENOMEM */
  constructor(
    private readonly queue: VirtioQueue,
    private readonly options: ReceiveQueueOptions,
  ) {
    const { ring } = queue;
    const { mergeable } = options;
    this.#chains = ChainTable.allocate(
      ring.space,
      mergeable ? CHAINS : BURST,
      mergeable ? MERGEABLE_PIECES : PIECES,
    );
    try {
      this.#places = new NetPlaces(this.#chains, BURST, PLACED_PIECES, mergeable);
    } catch (error) {
      this.#chains.close();
      throw error;
    }
    this.#wakeups = new VirtQueueWakeups(ring, {
      scheduler: options.scheduler,
      notifier: () => {
        this.#wakeups.disable();
        this.#ready();
      },
      onBroken: (error) => {
        this.#fail(error);
      },
    });
    queue.onKick = this.#wakeups.wakeup;
    ring.disable(); // buffers are looked for when there is a frame
  }

  /** {@inheritDoc FrameSink.listen} */
  listen(ready: () => void, failed: (error: unknown) => void): void {
    this.#ready = ready;
    this.#fail = failed;
  }

  /** {@inheritDoc FrameSink.broken} */
  get broken(): boolean {
    return this.queue.ring.closed || this.queue.ring.broken !== null;
  }

  /** {@inheritDoc FrameSink.offloads} */
  get offloads(): number {
    return this.options.offloads();
  }

  /** {@inheritDoc FrameSink.takesLargest} */
  get takesLargest(): boolean {
    if (!this.options.mergeable) return true; // a buffer that is too short is the driver's mistake, not a shortage
    const n = this.queue.ring.peek(this.#chains, CHAINS);
    const { table } = this.#chains;
    let bytes = 0;
    for (let i = 0; i < n && bytes < LARGEST; i++) bytes += table.length(i);
    return bytes >= LARGEST;
  }

  /** Room for each frame is room for them merged, unless a frame has just one buffer: then it must be a large one. */
  takesMerged(bytes: number): boolean {
    if (this.options.mergeable) return !this.#short;
    const { targets } = this.#places;
    const most = Math.min(bytes, LARGEST);
    for (let i = 0; i < this.#placed; i++) if (targets.length(i) < most) return false;
    return true;
  }

  /** {@inheritDoc FrameSink.reserve} */
  reserve(batch: Batch, from: number, to: number): number {
    const max = Math.min(BURST, to - from);
    this.#short = false;
    this.#hopeless = false;
    this.#pastPeeked = false;
    this.#placed = this.options.mergeable
      ? this.#reserveMergeable(batch, from, from + max)
      : this.#place(max, max);
    return this.#placed > 0 ? this.#placed : this.#judged(batch, from);
  }

  /** No frame has a place. 1: fill is to judge the first one nonetheless, for waiting will not help it. */
  #judged(batch: Batch, i: number): number {
    if (!this.#short) return 0;
    return this.#hopeless || (batch.table.flags(i) & FRAME_GSO) !== 0 ? 1 : 0;
  }

  #reserveMergeable(batch: Batch, from: number, to: number): number {
    const wanted = this.#places.note(batch.table, from, to, this.#bufferSize);
    const placed = this.#place(Math.min(CHAINS, wanted), to - from);
    if (placed > 0 || this.#places.why !== "chains" || wanted >= CHAINS) return placed;
    return this.#place(CHAINS, to - from); // buffers are shorter than the last ones were
  }

  /** Looks at chains and finds places in them. @throws VbusError EPROTO */
  #place(chains: number, frames: number): number {
    const { ring } = this.queue;
    const n = ring.peek(this.#chains, chains);
    this.#peeked = n;
    if (n === 0) return 0;
    this.#bufferSize = Math.max(1, this.#chains.table.length(0));
    const placed = this.#places.place(n, Math.min(frames, this.options.mergeable ? frames : n));
    if (placed > 0) return placed;
    const { why } = this.#places;
    if (why === "bad") {
      ring.violate("request");
      throw new VbusError(
        "EPROTO",
        "the guest posted a receive buffer that cannot be written, or is shorter than a header; it must reset the device",
      );
    }
    this.#short = true;
    this.#pastPeeked = true;
    // more chains than these can never be there, or never be looked at
    this.#hopeless = why === "pieces" || n === CHAINS || n === ring.size;
    return 0;
  }

  /** {@inheritDoc FrameSink.fill} */
  fill(batch: Batch, from: number, to: number, room: number): Readonly<Filled> {
    const result = this.#filled;
    result.taken = 0;
    result.filled = 0;
    result.bytes = 0;
    result.staged = 0;
    result.superframes = 0;
    result.short = false;
    if (this.#placed === 0) {
      // superframes can be cut; anything else that is hopeless is lost, and counted
      if ((batch.table.flags(from) & FRAME_GSO) !== 0) {
        result.short = true;
        result.hopeless = this.#hopeless;
        this.options.statistics.rxBuffersShort++;
        this.enable();
      } else {
        result.taken = 1;
      }
      return result;
    }
    let places = Math.min(room, this.#placed);
    if (this.options.mergeable && to - from !== this.#placed) {
      // the frames were merged since: fewer and longer ones, for which the same chains are divided anew
      this.#places.note(batch.table, from, to, this.#bufferSize);
      places = this.#places.place(this.#peeked, to - from);
    }
    const { targets } = this.#places;
    const end = this.options.mergeable ? from + places : to;
    const { taken, filled, staged } = moveFrames(batch.table, from, end, targets, 0, places);
    result.taken = taken;
    result.filled = filled;
    result.staged = staged;
    this.#placed = 0;
    if (filled === 0) return result;
    const { words } = targets.space.engine;
    for (let i = 0; i < filled; i++) {
      const at = targets.entry(i) >>> 2;
      result.bytes += words[at + 1] as number;
      if (((words[at + 2] as number) & FRAME_GSO) !== 0) result.superframes++;
    }
    const chains = this.#places.finish(filled, this.options.dataValid());
    this.options.moderator.done(filled, this.queue.ring.release(this.#chains, chains));
    return result;
  }

  /** {@inheritDoc FrameSink.enable} */
  enable(): void {
    this.#wakeups.enable(this.#pastPeeked);
  }

  /** {@inheritDoc FrameSink.disable} */
  disable(): void {
    if (!this.#closed) this.#wakeups.disable();
  }

  /** {@inheritDoc FrameSink.close} */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#wakeups.close();
    this.queue.onKick = null;
    this.options.moderator.close();
    this.#places.close();
    this.#chains.close();
  }
}
