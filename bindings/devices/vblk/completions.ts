import { BURST_SIGNAL, RECHECK_INUSE_TAIL } from "../../../assembly/abi/arena.js";
import {
  VBLK_COMPLETION_OFF_STATUS,
  VBLK_COMPLETION_OFF_TAG,
  VBLK_COMPLETION_OFF_VALUE,
  VBLK_COMPLETION_SIZE,
  VBLK_MAX_DEPTH,
  VBLK_TAG_EVENT,
} from "../../../assembly/abi/vblk.js";
import type { HostSignal } from "../../bus/types.js";
import { RESERVE_BUFFERS, type Queue, type QueueCounters } from "../../engine/queue.js";
import type { StateReader, StateValue } from "../../state/reader.js";
import { VbusError } from "../../errors.js";
import type { Scheduler } from "../../scheduler.js";
import { ServedRing } from "../served-ring.js";

/** Completions per burst. */
const BURST = 64;

/** What a request ended with. */
export interface Completion {
  /** Number of the request, or VBLK_TAG_EVENT. */
  tag: number;
  /** 0 or a negated errno; number of an event. */
  status: number;
  /** Bytes transferred; value of an event. */
  value: number;
}

/** Whom the completion side reports to. */
export interface CompletionOwner {
  /** Where deferred work runs. */
  readonly scheduler: Scheduler;
  /** The guest can see it. */
  delivered(completion: Completion): void;
  /** The ring had no room. */
  congested(): void;
  /** The guest broke the ring; told once. */
  failed(ring: "completion", error: unknown): void;
}

/**
 * South of the completion ring: writes completion records into the buffers that the guest posted. What finds no room waits
 * in the host; there is at most one for each request outstanding, and one resize event.
 */
export class CompletionSide {
  readonly #ring: ServedRing;
  readonly #backlog: Completion[] = [];
  #scheduled = false;
  /** The ring had no room; the guest rings when it has. */
  #full = false;
  #failed = false;
  #closed = false;

  constructor(
    /** Its ring, for those who look at it. */
    readonly queue: Queue,
    signal: HostSignal,
    private readonly owner: CompletionOwner,
  ) {
    this.#ring = new ServedRing(queue, signal, {
      scheduler: owner.scheduler,
      burst: BURST,
      recheck: RECHECK_INUSE_TAIL,
      run: () => {
        this.#full = false;
        this.#flush();
      },
      failed: (error) => {
        this.#fail(error);
      },
    });
  }

  /** Delivers a completion soon, together with others of the same moment. */
  post(completion: Completion): void {
    if (this.#failed) return;
    this.#backlog.push(completion);
    this.#schedule();
  }

  /** Delivers an event soon; one of the same kind that still waits gets the new value instead. */
  postEvent(event: number, value: number): void {
    const waiting = this.#backlog.find(({ tag, status }) => tag === VBLK_TAG_EVENT && status === event);
    if (waiting === undefined) this.post({ tag: VBLK_TAG_EVENT, status: event, value });
    else waiting.value = value;
  }

  #schedule(): void {
    if (this.#scheduled || this.#full) return;
    this.#scheduled = true;
    this.owner.scheduler.post(() => {
      this.#scheduled = false;
      this.#flush();
    });
  }

  #flush(): void {
    if (this.#closed || this.#failed) return;
    try {
      this.#deliver();
    } catch (error) {
      this.#fail(error);
    }
  }

  #deliver(): void {
    const { queue } = this;
    const table = this.#ring.table;
    const backlog = this.#backlog;
    while (backlog.length > 0) {
      const n = queue.reserve("inuse", table, Math.min(BURST, backlog.length), RESERVE_BUFFERS);
      if (n === 0) {
        this.#full = true;
        this.owner.congested();
        this.#ring.wakeups.enable(); // looks at the ring again
        return;
      }
      for (let i = 0; i < n; i++) this.#write(i, backlog[i] as Completion);
      const doorbell = queue.commit("inuse", null, n, BURST_SIGNAL);
      for (const completion of backlog.splice(0, n)) this.owner.delivered(completion);
      this.#ring.wakeups.ringIf(doorbell);
    }
  }

  #write(i: number, { tag, status, value }: Completion): void {
    const table = this.#ring.table;
    const { space } = this.queue;
    if (table.length(i) < VBLK_COMPLETION_SIZE) {
      this.queue.violate("descriptor");
      throw new VbusError(
        "EPROTO",
        `a completion buffer of ${table.length(i)} bytes; post ${VBLK_COMPLETION_SIZE} or more`,
      );
    }
    const at = table.bufferAddress(i); // RESERVE_BUFFERS: inside guest memory with all its bytes
    const { data } = space.engine;
    data.setUint32(at + VBLK_COMPLETION_OFF_TAG, tag, true);
    data.setInt32(at + VBLK_COMPLETION_OFF_STATUS, status, true);
    data.setUint32(at + VBLK_COMPLETION_OFF_VALUE, value >>> 0, true);
    data.setUint32(at + VBLK_COMPLETION_OFF_VALUE + 4, Math.floor(value / 2 ** 32), true);
    space.noteWrite(table.gpa(i), VBLK_COMPLETION_SIZE);
  }

  /** The ring is of no use any more: lets its signal go, so that the guest learns of it. */
  #fail(error: unknown): void {
    if (this.#failed) return;
    this.#failed = true;
    this.#backlog.length = 0;
    this.#ring.abandon();
    this.owner.failed("completion", error);
  }

  /** The ring's own state, and what waits for room on it. */
  save(): StateValue {
    return {
      queue: this.queue.exportState(),
      failed: this.#failed,
      backlog: this.#backlog.map(({ tag, status, value }) => [tag, status, value]),
    };
  }

  /**
   * Takes over what waited when it was saved: it goes out after the session is resumed. Returns the tags of requests among it.
   * @throws StateError
   */
  restore(state: StateReader): number[] {
    const tags: number[] = [];
    const items = state.get("backlog").items(VBLK_MAX_DEPTH + 1);
    this.#failed = state.get("failed").boolean();
    if (this.#failed) {
      this.#ring.abandon();
      if (items.length > 0) state.fail("completions for a ring that is broken");
    }
    for (const item of items) {
      const [tag, status, value] = item.tuple(3) as [StateReader, StateReader, StateReader];
      const completion = {
        tag: tag.number(0, 0xffffffff),
        status: status.number(-4095, 0x7fffffff),
        value: value.number(0, Number.MAX_SAFE_INTEGER),
      };
      if (completion.tag !== VBLK_TAG_EVENT) tags.push(completion.tag);
      this.#backlog.push(completion);
    }
    return tags;
  }

  /** Goes on: delivers what waits, and looks at the ring. */
  resume(): void {
    this.#full = false;
    this.#scheduled = false;
    if (!this.#failed) this.#schedule();
  }

  /** What was counted on the ring, by south. */
  counters(): QueueCounters {
    return this.queue.counters();
  }

  /** Ends it; what was not delivered is forgotten. */
  close(): void {
    this.#closed = true;
    this.#ring.close();
  }
}
