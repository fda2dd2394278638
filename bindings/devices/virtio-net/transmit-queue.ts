import { ChainTable } from "../../engine/chain-table.js";
import { decodeNetHeaders } from "../../engine/virtio-net.js";
import { VirtQueueWakeups } from "../../engine/virtqueue-wakeup.js";
import type { MemorySpace } from "../../memory/space.js";
import { Batch } from "../../net/batch.js";
import type { Scheduler } from "../../scheduler.js";
import type { VirtioQueue } from "../../virtio/types.js";
import type { FrameSource } from "../ethernet/source.js";
import type { InterruptModerator } from "./moderation.js";

/** Frames per burst. */
const BURST = 64;
/** Pieces that a frame may be in: far more than drivers use, and few enough for a table of them. */
const PIECES = 64;

/** How a transmit queue is wired. */
export interface TransmitQueueOptions {
  /** Where deferred work runs. */
  readonly scheduler: Scheduler;
  /** When the driver hears of completed frames. */
  readonly moderator: InterruptModerator;
  /** What the driver may send unfinished: see `transmitGrants`. */
  readonly grants: number;
  /** Told of the frames [0, n) that were just found. */
  readonly found: ((batch: Batch, n: number) => void) | null;
}

/** A transmit queue of virtio-net as a source of frames (virtio 1.2: 5.1.6.2): a header and a frame in each chain. */
export class TransmitQueue implements FrameSource {
  /** {@inheritDoc FrameSource.batch} */
  readonly batch: Batch;
  readonly #chains: ChainTable;
  readonly #wakeups: VirtQueueWakeups;
  #closed = false;
  #drain: () => void = () => undefined;
  #fail: (error: unknown) => void = () => undefined;

  /** @throws VbusError ENOMEM */
  constructor(
    private readonly queue: VirtioQueue,
    private readonly options: TransmitQueueOptions,
  ) {
    const { ring } = queue;
    this.#chains = ChainTable.allocate(ring.space, BURST, PIECES);
    this.batch = new Batch(this.#chains.table);
    this.#wakeups = new VirtQueueWakeups(ring, {
      scheduler: options.scheduler,
      notifier: () => {
        this.#wakeups.disable(); // the drain asks for kicks again when it has taken everything
        this.#drain();
      },
      onBroken: (error) => {
        this.#fail(error);
      },
    });
    queue.onKick = this.#wakeups.wakeup;
  }

  /** {@inheritDoc FrameSource.listen} */
  listen(drain: () => void, failed: (error: unknown) => void): void {
    this.#drain = drain;
    this.#fail = failed;
  }

  /** {@inheritDoc FrameSource.space} */
  get space(): MemorySpace {
    return this.#chains.space;
  }

  /** {@inheritDoc FrameSource.closed} */
  get closed(): boolean {
    return this.#closed || this.queue.ring.closed;
  }

  /** {@inheritDoc FrameSource.broken} */
  get broken(): boolean {
    return !this.queue.ring.closed && this.queue.ring.broken !== null;
  }

  /** Never: completions lie in the ring itself. */
  get blocked(): boolean {
    return false;
  }

  /** {@inheritDoc FrameSource.hasFrames} */
  get hasFrames(): boolean {
    return this.queue.ring.hasWork;
  }

  /** {@inheritDoc FrameSource.peek} */
  peek(): number {
    const n = this.queue.ring.peek(this.#chains, BURST);
    if (n > 0) {
      decodeNetHeaders(this.#chains, n, this.options.grants);
      this.options.found?.(this.batch, n);
    }
    return n;
  }

  /** {@inheritDoc FrameSource.release} */
  release(n: number): void {
    if (n > 0) this.options.moderator.done(n, this.queue.ring.release(this.#chains, n));
  }

  /** {@inheritDoc FrameSource.enable} */
  enable(): void {
    this.#wakeups.enable();
  }

  /** {@inheritDoc FrameSource.disable} */
  disable(): void {
    if (!this.#closed) this.#wakeups.disable();
  }

  /** Counts what is available, which takes it: only for a queue that comes to its end. */
  left(): number {
    const { ring } = this.queue;
    if (ring.closed) return 0;
    let frames = 0;
    for (let n; (n = ring.peek(this.#chains, BURST)) > 0;) {
      ring.advance(n);
      frames += n;
    }
    return frames;
  }

  /** {@inheritDoc FrameSource.close} */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#wakeups.close();
    this.queue.onKick = null;
    this.options.moderator.close();
    this.#chains.close();
  }
}
