import {
  BURST_SIGNAL,
  GSO_TCP4,
  GSO_TCP6,
  GSO_UDP_L4,
  RECHECK_INUSE_HEAD,
} from "../../../assembly/abi/arena.js";
import { EXT_LAZY_INDEXES } from "../../../assembly/abi/ioq.js";
import { Queue, type QueueCounters } from "../../engine/queue.js";
import { VsgReader } from "../../engine/vsg.js";
import { QueueWakeups } from "../../engine/wakeup.js";
import type { MemorySpace } from "../../memory/space.js";
import type { Scheduler } from "../../scheduler.js";
import { Batch } from "../batch.js";
import type { FrameLinkPlaces } from "./frame-link.js";

/** Frames per burst. */
const BURST = 64;
/** Every kind of superframe, and ECN: what the peer does not take is finished on this side. */
const ALL_KINDS = 1 | (1 << GSO_TCP4) | (1 << GSO_TCP6) | (1 << GSO_UDP_L4);

/** How an {@link IncomingRing} is wired. */
export interface IncomingRingOptions {
  space: MemorySpace;
  places: FrameLinkPlaces;
  /** Number of descriptors that the ring must have. */
  count: number;
  scheduler: Scheduler;
  /** Rings the other thread: room came. */
  ring: () => void;
  /** Frames came. */
  frames: () => void;
  /** The other thread broke the ring. */
  broken: (error: unknown) => void;
}

/**
 * South of the ring from the other thread to this one. Descriptors, slots and frames are the other thread's: the engine
 * copies a slot before it looks at it, and checks every address.
 */
export class IncomingRing {
  /** Frames of the last {@link IncomingRing.peek}; bad ones have FRAME_BAD_… flags and no address. */
  readonly batch: Batch;
  readonly #queue: Queue;
  readonly #reader: VsgReader;
  readonly #wakeups: QueueWakeups;

  /** Attaches to the ring that the other thread made. @throws VbusError EINVAL, EPROTO for a ring that is none; ENOMEM */
  constructor(options: IncomingRingOptions) {
    const { space, places, count, scheduler } = options;
    this.#queue = Queue.attach(space, {
      gpa: places.ring,
      length: places.ringLength,
      role: "southTransmit",
      limit: count,
      accept: EXT_LAZY_INDEXES,
    });
    try {
      this.#reader = new VsgReader(this.#queue, BURST);
    } catch (error) {
      this.#queue.close();
      throw error;
    }
    this.batch = new Batch(this.#reader.table);
    this.#wakeups = new QueueWakeups(this.#queue, {
      scheduler,
      recheck: RECHECK_INUSE_HEAD,
      notifier: () => {
        this.#wakeups.disable();
        options.frames();
      },
      ring: options.ring,
      onBroken: options.broken,
    });
    this.#wakeups.disable();
  }

  /** The other thread rang: frames may have come. */
  readonly doorbell = (): void => {
    this.#wakeups.wakeup();
  };

  /** Has `frames` called when some come, or when some are there already. */
  wait(): void {
    this.#wakeups.enable();
  }

  /** Looks at the next frames. Returns how many; they stay until {@link IncomingRing.release}. @throws VbusError EPROTO */
  peek(): number {
    const n = this.#reader.peek(BURST, null, ALL_KINDS);
    this.batch.count = n;
    return n;
  }

  /** Gives the first n frames of the last peek back. @throws VbusError EPROTO */
  release(n: number): void {
    if (n > 0) this.#wakeups.ringIf(this.#queue.release("inuse", null, n, BURST_SIGNAL));
  }

  /** Takes everything out that lies in the ring, unseen. Returns how many frames. @throws VbusError EPROTO */
  discard(): number {
    const n = this.#queue.peek("inuse", null, this.#queue.count);
    this.release(n);
    return n;
  }

  /** What was counted on the ring, by this side. */
  counters(): QueueCounters {
    return this.#queue.counters();
  }

  /** Gives the private state back. Frames in the ring stay there. */
  close(): void {
    this.#wakeups.close();
    this.#reader.close();
    this.#queue.close();
  }
}
