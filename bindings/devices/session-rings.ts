import { STATE_SIZE } from "../../assembly/abi/arena.js";
import { IOQ_OFF_SIGNAL } from "../../assembly/abi/ioq.js";
import type { HostSignal, RestoredSignals, SavedSignals, SharedSegment } from "../bus/types.js";
import { Queue, type QueueRole } from "../engine/queue.js";
import { VbusError } from "../errors.js";
import type { MemorySpace } from "../memory/space.js";
import type { StateReader } from "../state/reader.js";

/** Builds what works on a ring, from the ring and the signal in its header. */
export type RingBuilder<Side extends object> = (queue: Queue, signal: HostSignal) => Side;

/** What works on a ring of a saved session, and what was saved of it. */
export interface RestoredRing<Side> {
  readonly side: Side;
  readonly saved: StateReader;
}

/** How the rings of a session come to be: a guest shares them, or a saved state has them. Remembers the signal of each. */
export class SessionRings {
  readonly #signals = new Map<object, HostSignal>();

  constructor(private readonly memory: MemorySpace) {}

  /**
   * A segment that the guest has shared as a ring; `accept` are extension bits that it may offer.
   * @throws VbusError EINVAL (no signal in the header, or no acceptable ring), EFAULT, ENOMEM; what `build` throws
   */
  attach<Side extends object>(
    { gpa, length }: SharedSegment,
    signal: HostSignal | null,
    role: QueueRole,
    build: RingBuilder<Side>,
    accept = 0,
  ): Side {
    if (signal === null || signal.offset !== IOQ_OFF_SIGNAL)
      throw new VbusError("EINVAL", "a ring needs the signal that is embedded in its header (offset 8)");
    let queue: Queue;
    try {
      queue = Queue.attach(this.memory, { gpa, length, role, accept });
    } catch (error) {
      // a ring whose indexes are out of range is a bad ring, for the guest: -EINVAL like any other
      if (error instanceof VbusError && error.code === "EPROTO")
        throw new VbusError("EINVAL", error.message, { cause: error });
      throw error;
    }
    return this.#build(queue, signal, build);
  }

  /** The number of a ring's signal in a state. */
  signalOf(side: object, signals: SavedSignals): number {
    return signals.number(this.#signals.get(side) as HostSignal);
  }

  /**
   * The ring of that name in a session's state, as it was saved (`{ signal, ring: { queue, … } }`), or null when there was none.
   * @param isGone - tells from what was saved whether its signal had been let go of, for the ring broke
   * @throws StateError; VbusError ENOMEM
   */
  restore<Side extends object>(
    state: StateReader,
    name: string,
    signals: RestoredSignals,
    role: QueueRole,
    build: RingBuilder<Side>,
    isGone: (ring: StateReader) => boolean = () => false,
  ): RestoredRing<Side> | null {
    return state.get(name).nullable((saved) => {
      const ring = saved.get("ring");
      const signal = isGone(ring) ? goneSignal() : signals.take(saved.get("signal"));
      if (signal.offset !== IOQ_OFF_SIGNAL) saved.fail("a ring has its signal in its header");
      const side = ring.rebuild(`the ring ${name}`, () =>
        this.#build(Queue.importState(this.memory, ring.get("queue").bytes(STATE_SIZE), role), signal, build),
      );
      return { side, saved };
    });
  }

  #build<Side extends object>(queue: Queue, signal: HostSignal, build: RingBuilder<Side>): Side {
    try {
      const side = build(queue, signal);
      this.#signals.set(side, signal);
      return side;
    } catch (error) {
      queue.close();
      throw error;
    }
  }
}

/** The signal of a ring that has none any more. */
function goneSignal(): HostSignal {
  return { offset: IOQ_OFF_SIGNAL, notify: () => undefined, onDoorbell: null, release: () => undefined };
}
