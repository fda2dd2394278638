import { BURST_LENGTH, BURST_SIGNAL, RECHECK_INUSE_TAIL } from "../../../assembly/abi/arena.js";
import {
  VCONSOLE_EVENT_BREAK,
  VCONSOLE_EVENT_HANGUP,
  VCONSOLE_EVENT_OPENED,
  VCONSOLE_EVENT_OFF_COLS,
  VCONSOLE_EVENT_OFF_CONVERSATION,
  VCONSOLE_EVENT_OFF_ID,
  VCONSOLE_EVENT_OFF_POSITION,
  VCONSOLE_EVENT_OFF_ROWS,
  VCONSOLE_EVENT_OFF_SIZE,
  VCONSOLE_EVENT_SIZE,
  VCONSOLE_EVENT_WINSIZE,
} from "../../../assembly/abi/vconsole.js";
import type { HostSignal } from "../../bus/types.js";
import { RESERVE_BUFFERS, type Queue, type QueueCounters } from "../../engine/queue.js";
import { VbusError } from "../../errors.js";
import type { StateReader, StateValue } from "../../state/reader.js";
import { ServedRing } from "../served-ring.js";
import type { RingEnvironment } from "./transmit.js";

/** Marks of the RX stream. */
const MARKS = new Set([VCONSOLE_EVENT_OPENED, VCONSOLE_EVENT_BREAK, VCONSOLE_EVENT_HANGUP]);
/** No byte overtakes a mark that waits, so that there are few. */
const MARKS_MAX = 1024;

/** What events say of the present. */
export interface EventFacts {
  /** The conversation. */
  readonly conversation: number;
  /** Bytes put into the RX ring so far. */
  readonly position: number;
  /** Window size. */
  readonly cols: number;
  /** Window size. */
  readonly rows: number;
}

/**
 * South of the event ring (`docs/abi/vconsole.md` section 6). What does not fit waits here: marks in order, the window
 * size as one flag, so that nothing piles up behind a guest that takes no events.
 */
export class EventSide {
  readonly #ring: ServedRing;
  readonly #record = new Uint8Array(VCONSOLE_EVENT_SIZE);
  readonly #view = new DataView(this.#record.buffer);
  #marks: number[] = [];
  #resized = false;

  constructor(
    /** Its ring, for those who look at it. */
    readonly queue: Queue,
    signal: HostSignal,
    environment: RingEnvironment,
    private readonly facts: () => EventFacts,
  ) {
    this.#ring = new ServedRing(queue, signal, {
      scheduler: environment.scheduler,
      burst: 1,
      recheck: RECHECK_INUSE_TAIL,
      run: () => {
        environment.run();
      },
      failed: environment.failed,
    });
  }

  /** A mark of the RX stream, such as `VCONSOLE_EVENT_OPENED`: at the position where the stream is when it goes out. */
  mark(id: number): void {
    this.#marks.push(id);
  }

  /** The window has another size. */
  resized(): void {
    this.#resized = true;
  }

  /** Another conversation: what was to be said about the one before has no meaning any more. */
  forget(): void {
    this.#marks = [];
  }

  /** True while marks wait for room: no byte may overtake them. */
  get marksWait(): boolean {
    return this.#marks.length > 0;
  }

  /** Writes what there is room for. When the guest returns records, `run` is called. @throws VbusError EPROTO */
  flush(): void {
    for (let id; (id = this.#marks[0]) !== undefined;) {
      if (!this.#write(id)) return;
      this.#marks.shift();
    }
    if (this.#resized && this.#write(VCONSOLE_EVENT_WINSIZE)) this.#resized = false;
  }

  #write(id: number): boolean {
    const { queue } = this;
    const table = this.#ring.table;
    if (queue.reserve("inuse", table, 1, RESERVE_BUFFERS) === 0) {
      this.#ring.wakeups.enable();
      return false;
    }
    if (table.length(0) < VCONSOLE_EVENT_SIZE) {
      queue.violate("descriptor");
      throw new VbusError(
        "EPROTO",
        `the guest posted an event record of ${table.length(0)} bytes; use ${VCONSOLE_EVENT_SIZE}`,
      );
    }
    const { conversation, position, cols, rows } = this.facts();
    const view = this.#view;
    view.setUint32(VCONSOLE_EVENT_OFF_SIZE, VCONSOLE_EVENT_SIZE, true);
    view.setUint32(VCONSOLE_EVENT_OFF_ID, id, true);
    view.setUint32(VCONSOLE_EVENT_OFF_CONVERSATION, conversation, true);
    view.setUint32(VCONSOLE_EVENT_OFF_POSITION, position >>> 0, true);
    view.setUint32(VCONSOLE_EVENT_OFF_POSITION + 4, Math.floor(position / 2 ** 32), true);
    view.setUint16(VCONSOLE_EVENT_OFF_COLS, cols, true);
    view.setUint16(VCONSOLE_EVENT_OFF_ROWS, rows, true);
    queue.space.bytes.set(this.#record, table.bufferAddress(0));
    queue.space.noteWrite(table.gpa(0), VCONSOLE_EVENT_SIZE);
    table.setLength(0, VCONSOLE_EVENT_SIZE);
    this.#ring.wakeups.ringIf(queue.commit("inuse", table, 1, BURST_LENGTH | BURST_SIGNAL));
    return true;
  }

  /** The ring's own state, and what waits for room on it. */
  save(): StateValue {
    return { queue: this.queue.exportState(), marks: this.#marks.slice(), resized: this.#resized };
  }

  /** Takes over what waited. @throws StateError */
  restore(state: StateReader): void {
    this.#marks = state
      .get("marks")
      .items(MARKS_MAX)
      .map((item) => item.number(0, 0xffffffff));
    if (!this.#marks.every((id) => MARKS.has(id))) state.fail("no event is such a mark");
    this.#resized = state.get("resized").boolean();
  }

  /** What was counted on the ring, by south. */
  counters(): QueueCounters {
    return this.queue.counters();
  }

  /** Nothing waits any more. */
  stop(): void {
    this.#marks = [];
    this.#resized = false;
    this.#ring.wakeups.disable();
  }

  /** Ends it. */
  close(): void {
    this.#ring.wakeups.disable();
    this.#ring.close();
  }
}
