import { BURST_SIGNAL, BURST_TRANSLATE, RECHECK_INUSE_HEAD } from "../../../assembly/abi/arena.js";
import {
  VBLK_REQUEST_MAX_SIZE,
  VBLK_REQUEST_OFF_TAG,
  VBLK_REQUEST_SIZE,
} from "../../../assembly/abi/vblk.js";
import type { HostSignal } from "../../bus/types.js";
import type { Queue, QueueCounters } from "../../engine/queue.js";
import type { StateValue } from "../../state/reader.js";
import { VbusError } from "../../errors.js";
import type { Scheduler } from "../../scheduler.js";
import { ServedRing } from "../served-ring.js";

/** Requests per burst. */
const BURST = 32;
/** Bursts per run before other work of the thread gets its turn. */
const BURSTS_PER_RUN = 8;

/** Whom the request side hands requests to. */
export interface RequestOwner {
  /** Where deferred work runs. */
  readonly scheduler: Scheduler;
  /** True when a request may have this tag now. */
  isFree(tag: number): boolean;
  /** A request with a free tag: `view` shows a private copy of the record's first `size` bytes, valid during the call. */
  take(tag: number, view: DataView, size: number): void;
  /** The guest broke the ring (EPROTO), or the host failed at it; told once. */
  failed(ring: "request", error: unknown): void;
}

/**
 * South of the request ring: takes request records as they come. A descriptor goes back to the guest as soon as its record
 * was copied, long before the request completes; what bounds the number of requests are their tags.
 */
export class RequestSide {
  readonly #ring: ServedRing;
  readonly #record = new Uint8Array(VBLK_REQUEST_MAX_SIZE);
  readonly #view = new DataView(this.#record.buffer);
  #running = false;
  #scheduled = false;
  #draining = false;
  #failed = false;

  constructor(
    /** Its ring, for those who look at it. */
    readonly queue: Queue,
    signal: HostSignal,
    private readonly owner: RequestOwner,
  ) {
    this.#ring = new ServedRing(queue, signal, {
      scheduler: owner.scheduler,
      burst: BURST,
      recheck: RECHECK_INUSE_HEAD,
      run: () => {
        this.#drain();
      },
      failed: (error) => {
        this.#fail(error);
      },
    });
  }

  /** Looks at the ring, then waits for doorbells. */
  start(): void {
    if (this.#failed) return;
    this.#running = true;
    this.#schedule();
  }

  /** What is in the ring stays there. */
  stop(): void {
    if (!this.#running) return;
    this.#running = false;
    this.#ring.wakeups.disable();
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    this.owner.scheduler.post(() => {
      this.#scheduled = false;
      this.#drain();
    });
  }

  #drain(): void {
    if (!this.#running || this.#draining || this.queue.closed) return;
    this.#draining = true;
    try {
      this.#drainBursts();
    } catch (error) {
      this.#fail(error);
    } finally {
      this.#draining = false;
    }
  }

  #drainBursts(): void {
    const { queue } = this;
    for (let burst = 0; burst < BURSTS_PER_RUN; burst++) {
      const n = queue.peek("inuse", this.#ring.table, BURST, BURST_TRANSLATE);
      if (n === 0) {
        this.#ring.wakeups.enable(); // looks at the ring again and schedules when something came in between
        return;
      }
      for (let i = 0; i < n; i++) {
        this.#take(i);
        if (!this.#isRunning()) return; // the session ended inside a back end
      }
      this.#ring.wakeups.ringIf(queue.release("inuse", null, n, BURST_SIGNAL));
    }
    this.#schedule();
  }

  #isRunning(): boolean {
    return this.#running && !this.queue.closed;
  }

  #take(i: number): void {
    const table = this.#ring.table;
    const address = table.bufferAddress(i);
    const size = Math.min(table.length(i), VBLK_REQUEST_MAX_SIZE);
    if (address === 0)
      this.#refuse("address", `a request record at 0x${table.gpa(i).toString(16)}, outside memory`);
    if (size < VBLK_REQUEST_SIZE) this.#refuse("descriptor", `a request record of ${size} bytes`);
    // double fetch: the record is copied once, and looked at only in the copy
    this.#record.set(this.queue.space.bytes.subarray(address, address + size));
    const tag = this.#view.getUint32(VBLK_REQUEST_OFF_TAG, true);
    if (!this.owner.isFree(tag))
      this.#refuse("descriptor", `tag ${tag}, which is out of range or outstanding`);
    this.owner.take(tag, this.#view, size);
  }

  /** A request that no completion can answer. */
  #refuse(kind: "address" | "descriptor", what: string): never {
    this.queue.violate(kind);
    throw new VbusError("EPROTO", `the guest sent ${what}; close the device and open it again`);
  }

  /** The ring is of no use any more: lets its signal go, so that the guest learns of it. */
  #fail(error: unknown): void {
    if (this.#failed) return;
    this.#failed = true;
    this.#running = false;
    this.#ring.abandon();
    this.owner.failed("request", error);
  }

  /** The ring's own state. */
  save(): StateValue {
    return { queue: this.queue.exportState(), failed: this.#failed };
  }

  /** It was saved after the guest had broken it. */
  restore(failed: boolean): void {
    this.#failed = failed;
    if (!failed) return;
    this.#ring.abandon();
  }

  /** What was counted on the ring, by south. */
  counters(): QueueCounters {
    return this.queue.counters();
  }

  /** Ends it. */
  close(): void {
    this.#running = false;
    this.#ring.close();
  }
}
