import { BURST_SIGNAL, BURST_TRANSLATE, RECHECK_INUSE_HEAD } from "../../../assembly/abi/arena.js";
import { VCONSOLE_CHUNK_MAX } from "../../../assembly/abi/vconsole.js";
import type { HostSignal } from "../../bus/types.js";
import type { Queue, QueueCounters } from "../../engine/queue.js";
import { VbusError } from "../../errors.js";
import type { StateReader, StateValue } from "../../state/reader.js";
import type { Scheduler } from "../../scheduler.js";
import { ServedRing } from "../served-ring.js";

/** Descriptors per burst. */
const BURST = 16;
/** Bursts per run before other work of the thread gets its turn. */
const BURSTS_PER_RUN = 16;

/** What the rings of a session need of it. */
export interface RingEnvironment {
  /** Where deferred work runs. */
  readonly scheduler: Scheduler;
  /** There may be something to do. */
  run(): void;
  /** The guest broke a ring, or the host failed. */
  readonly failed: (error: unknown) => void;
}

/** What becomes of a descriptor: its bytes go to the terminal, nowhere, or it stays in the ring. */
export type Verdict = "deliver" | "discard" | "stop";

/** South of the TX ring: takes what the guest sends (`docs/abi/vconsole.md` section 4). */
export class TransmitSide {
  readonly #ring: ServedRing;
  #consumed = 0;

  constructor(
    /** Its ring, for those who look at it. */
    readonly queue: Queue,
    signal: HostSignal,
    environment: RingEnvironment,
  ) {
    this.#ring = new ServedRing(queue, signal, {
      scheduler: environment.scheduler,
      burst: BURST,
      recheck: RECHECK_INUSE_HEAD,
      run: () => {
        environment.run();
      },
      failed: environment.failed,
    });
  }

  /** Number of the descriptor behind the last that lies in the ring now, counted from 0. @throws VbusError EPROTO */
  end(): number {
    return this.#consumed + this.queue.peek("inuse", null, this.queue.count);
  }

  /** Number of the next descriptor to be taken. */
  get consumed(): number {
    return this.#consumed;
  }

  /**
   * Takes descriptors from the ring as long as `judge` (told their numbers) does not stop; `take` gets their bytes,
   * borrowed. Returns true when there is more to do soon. @throws VbusError EPROTO when the guest broke the ring
   */
  drain(judge: (number: number) => Verdict, take: (bytes: Uint8Array, verdict: Verdict) => void): boolean {
    const { queue } = this;
    const table = this.#ring.table;
    for (let burst = 0; burst < BURSTS_PER_RUN; burst++) {
      const n = queue.peek("inuse", table, BURST, BURST_TRANSLATE);
      if (n === 0) {
        judge(this.#consumed); // for what is due behind the last descriptor
        this.#ring.wakeups.enable(); // looks at the ring again and schedules when something came in between
        return false;
      }
      let taken = 0;
      for (; taken < n; taken++) {
        const verdict = judge(this.#consumed + taken);
        if (verdict === "stop") break;
        take(this.#bytes(taken), verdict);
      }
      this.#consumed += taken;
      if (taken > 0) this.#ring.wakeups.ringIf(queue.release("inuse", null, taken, BURST_SIGNAL));
      if (taken < n) return false;
    }
    return true;
  }

  #bytes(i: number): Uint8Array {
    const table = this.#ring.table;
    const length = table.length(i);
    if (length > VCONSOLE_CHUNK_MAX) {
      this.queue.violate("descriptor");
      throw new VbusError(
        "EPROTO",
        `the guest sent ${length} bytes in one descriptor; at most ${VCONSOLE_CHUNK_MAX}`,
      );
    }
    if (table.bufferAddress(i) === 0) {
      this.queue.violate("address");
      throw new VbusError("EPROTO", "the guest sent bytes that lie outside its memory");
    }
    return table.bytes(i);
  }

  /** The ring's own state. */
  save(): StateValue {
    return { queue: this.queue.exportState(), consumed: this.#consumed };
  }

  /** Takes over how many descriptors were taken. @throws StateError */
  restore(state: StateReader): void {
    this.#consumed = state.get("consumed").number(0, Number.MAX_SAFE_INTEGER);
  }

  /** What was counted on the ring, by south. */
  counters(): QueueCounters {
    return this.queue.counters();
  }

  /** Nothing is taken any more, whoever rings. */
  stop(): void {
    this.#ring.wakeups.disable();
  }

  /** Ends it. */
  close(): void {
    this.#ring.wakeups.disable();
    this.#ring.close();
  }
}
