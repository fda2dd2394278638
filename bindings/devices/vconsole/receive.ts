import { BURST_LENGTH, BURST_SIGNAL, RECHECK_INUSE_TAIL } from "../../../assembly/abi/arena.js";
import type { HostSignal } from "../../bus/types.js";
import { RESERVE_BUFFERS, type Queue, type QueueCounters } from "../../engine/queue.js";
import { VbusError } from "../../errors.js";
import type { StateReader, StateValue } from "../../state/reader.js";
import { ServedRing } from "../served-ring.js";
import type { RingEnvironment } from "./transmit.js";

/** Descriptors per burst. */
const BURST = 16;

/** South of the RX ring: puts bytes for the guest into the buffers that it posted (`docs/abi/vconsole.md` section 4). */
export class ReceiveSide {
  readonly #ring: ServedRing;
  #position = 0;

  constructor(
    /** Its ring, for those who look at it. */
    readonly queue: Queue,
    signal: HostSignal,
    environment: RingEnvironment,
  ) {
    this.#ring = new ServedRing(queue, signal, {
      scheduler: environment.scheduler,
      burst: BURST,
      recheck: RECHECK_INUSE_TAIL,
      run: () => {
        environment.run();
      },
      failed: environment.failed,
    });
  }

  /** Bytes put into the ring in this session. */
  get position(): number {
    return this.#position;
  }

  /**
   * Sends `total` bytes, as `take` moves them into the buffers that it is given. Returns how many went; fewer: the guest
   * has no buffer left, and `run` is called when it posts some. @throws VbusError EPROTO when the guest broke the ring
   */
  send(total: number, take: (target: Uint8Array) => number): number {
    const { queue } = this;
    const table = this.#ring.table;
    let sent = 0;
    while (sent < total) {
      const room = queue.reserve("inuse", table, BURST, RESERVE_BUFFERS);
      if (room === 0) {
        this.#ring.wakeups.enable();
        break;
      }
      let filled = 0;
      for (; filled < room && sent < total; filled++) {
        const capacity = table.length(filled);
        if (capacity === 0) throw this.#refuse();
        const address = table.bufferAddress(filled);
        const target = queue.space.bytes.subarray(address, address + Math.min(capacity, total - sent));
        const n = take(target);
        queue.space.noteWrite(table.gpa(filled), n);
        table.setLength(filled, n);
        sent += n;
        this.#position += n;
      }
      this.#ring.wakeups.ringIf(queue.commit("inuse", table, filled, BURST_LENGTH | BURST_SIGNAL));
    }
    return sent;
  }

  #refuse(): VbusError {
    this.queue.violate("descriptor");
    return new VbusError("EPROTO", "the guest posted a buffer without room; post at least 1 byte");
  }

  /** The ring's own state. */
  save(): StateValue {
    return { queue: this.queue.exportState(), position: this.#position };
  }

  /** Takes over where the stream was. @throws StateError */
  restore(state: StateReader): void {
    this.#position = state.get("position").number(0, Number.MAX_SAFE_INTEGER);
  }

  /** What was counted on the ring, by south. */
  counters(): QueueCounters {
    return this.queue.counters();
  }

  /** Nothing waits any more. */
  stop(): void {
    this.#ring.wakeups.disable();
  }

  /** Ends it. */
  close(): void {
    this.#ring.wakeups.disable();
    this.#ring.close();
  }
}
