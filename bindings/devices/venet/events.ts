import { BURST_SIGNAL, RECHECK_INUSE_TAIL } from "../../../assembly/abi/arena.js";
import {
  VENET_EVENT_LINKSTATE,
  VENET_EVENT_OFF_ID,
  VENET_EVENT_OFF_SIZE,
  VENET_EVENT_SIZE,
  VENET_EVENT_TXC,
  VENET_LINKSTATE_OFF_STATE,
  VENET_LINKSTATE_SIZE,
  VENET_TXC_OFF_COOKIE,
  VENET_TXC_SIZE,
} from "../../../assembly/abi/venet.js";
import type { HostSignal } from "../../bus/types.js";
import type { Queue, QueueCounters } from "../../engine/queue.js";
import type { DescriptorPool } from "../../engine/vsg.js";
import { VbusError } from "../../errors.js";
import type { Scheduler } from "../../scheduler.js";
import type { StateReader, StateValue } from "../../state/reader.js";
import { ServedRing } from "../served-ring.js";

/** A completion event waits for each cookie that the ring had no room for; then the sender has to wait. */
const BACKLOG_MAX = 2048;

/** What the event queue needs of its NIC. */
export interface EventEnvironment {
  /** Where deferred work runs. */
  readonly scheduler: Scheduler;
  /** So many events were written. */
  told(n: number): void;
  /** The guest made room after {@link EventSide.full}. */
  eventsDrained(): void;
  /** The guest broke the queue (EPROTO), or something of the host failed. */
  failed(queue: "event", error: unknown): void;
}

/**
 * South of the event ring (`docs/abi/venet.md` section 9): link state and transmit completions, with an explicit back-log
 * (defect V7). Of several link states that wait only the last is told.
 */
export class EventSide {
  readonly #ring: ServedRing;
  #linkState: boolean | null = null;
  #completions: Uint8Array<ArrayBuffer>[] = [];
  #failed = false;
  #held = false;

  constructor(
    /** Its ring, for those who look at it. */
    readonly queue: Queue,
    signal: HostSignal,
    private readonly pool: DescriptorPool,
    private readonly environment: EventEnvironment,
  ) {
    this.#ring = new ServedRing(queue, signal, {
      scheduler: environment.scheduler,
      burst: 1,
      recheck: RECHECK_INUSE_TAIL,
      run: () => {
        this.flush();
      },
      failed: (error) => {
        this.#fail(error);
      },
    });
  }

  /** True while no more completions may be added: the guest does not drain its events. */
  get full(): boolean {
    return this.#completions.length >= BACKLOG_MAX;
  }

  /** Tells the link state, at once when there is room. */
  linkState(up: boolean): void {
    this.#linkState = up;
    this.flush();
  }

  /** Adds a completion: the 8 bytes of a cookie. It goes out with the next {@link EventSide.flush}. */
  complete(cookie: Uint8Array<ArrayBuffer>): void {
    this.#completions.push(cookie);
  }

  /** Writes nothing until {@link EventSide.resume}; what is to be told waits. */
  hold(): void {
    this.#held = true;
  }

  /** Tells what waits. */
  resume(): void {
    this.#held = false;
    this.#ring.wakeups.schedule(); // a doorbell may have been on its way
    this.flush();
  }

  /** The ring's own state, and what waits. */
  save(): StateValue {
    return {
      queue: this.queue.exportState(),
      linkState: this.#linkState,
      completions: this.#completions.slice(),
      failed: this.#failed,
    };
  }

  /** Takes over what waited when it was saved. @throws StateError */
  restore(state: StateReader): void {
    this.#linkState = state.get("linkState").nullable((at) => at.boolean());
    this.#completions = state
      .get("completions")
      .items(2 * BACKLOG_MAX)
      .map((item) => item.bytes(8));
    this.#failed = state.get("failed").boolean();
  }

  /** Writes what waits, as far as there is room, and signals once. */
  flush(): void {
    if (this.#held) return;
    if (this.#failed) {
      this.#forget();
      return;
    }
    const waited = this.full;
    try {
      let written = 0;
      if (this.#linkState !== null) {
        const state = this.#linkState ? 1 : 0;
        const done = this.#write(VENET_EVENT_LINKSTATE, VENET_LINKSTATE_SIZE, (event) => {
          event[VENET_LINKSTATE_OFF_STATE] = state;
        });
        if (!done) {
          this.#ring.wakeups.enable();
          return;
        }
        this.#linkState = null;
        written++;
      }
      let sent = 0;
      for (const cookie of this.#completions) {
        const done = this.#write(VENET_EVENT_TXC, VENET_TXC_SIZE, (event) => {
          event.set(cookie, VENET_TXC_OFF_COOKIE);
        });
        if (!done) break;
        sent++;
      }
      this.#completions.splice(0, sent);
      this.environment.told(written + sent);
      if (waited && this.#completions.length < BACKLOG_MAX) this.environment.eventsDrained();
      if (this.#completions.length > 0) this.#ring.wakeups.enable();
      if (written + sent > 0) this.#ring.wakeups.ringIf(this.queue.commit("inuse", null, 0, BURST_SIGNAL));
    } catch (error) {
      this.#fail(error);
    }
  }

  /** Writes one event. False: no descriptor. @throws VbusError EPROTO when the descriptor is none of this queue's */
  #write(id: number, size: number, fill: (event: Uint8Array) => void): boolean {
    const { queue, pool } = this;
    if (queue.reserve("inuse", this.#ring.table, 1) === 0) return false;
    const offset = this.#ring.table.gpa(0);
    if (offset > pool.length - VENET_EVENT_SIZE) {
      queue.violate("descriptor");
      throw new VbusError("EPROTO", "an event descriptor points outside the event pool");
    }
    const event = new Uint8Array(size);
    const view = new DataView(event.buffer);
    view.setUint32(VENET_EVENT_OFF_SIZE, size, true);
    view.setUint32(VENET_EVENT_OFF_ID, id, true);
    fill(event);
    queue.space.copyTo(pool.gpa + offset, event);
    queue.commit("inuse", null, 1, 0);
    return true;
  }

  #forget(): void {
    this.#completions = [];
    this.#linkState = null;
  }

  #fail(error: unknown): void {
    const first = !this.#failed;
    this.#failed = true;
    this.#forget();
    if (first) {
      this.environment.failed("event", error);
      this.environment.eventsDrained(); // nobody waits for events that cannot be sent
    }
  }

  /** What was counted on the ring, by south. */
  counters(): QueueCounters {
    return this.queue.counters();
  }

  /** Ends it; what waits is forgotten with the session. */
  close(): void {
    this.#forget();
    this.#ring.close();
  }
}
