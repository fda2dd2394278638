import {
  VIRTIO_CONSOLE_CONTROL_OFF_EVENT,
  VIRTIO_CONSOLE_CONTROL_OFF_ID,
  VIRTIO_CONSOLE_CONTROL_OFF_VALUE,
  VIRTIO_CONSOLE_CONTROL_SIZE,
} from "../../../assembly/abi/virtio-console.js";
import { readChain, writeChain } from "../../engine/chain-bytes.js";
import { ChainTable } from "../../engine/chain-table.js";
import { VirtQueueWakeups } from "../../engine/virtqueue-wakeup.js";
import type { Scheduler } from "../../scheduler.js";
import type { StateReader, StateValue } from "../../state/reader.js";
import type { VirtioQueue } from "../../virtio/types.js";

/** Messages that may wait for buffers before nothing of the guest's is looked at any more. */
const WAITING_MAX = 256;
/** … and those that a saved state may hold: what the host has to say comes on top. */
const WAITING_SAVED_MAX = 65536;
/** Longest data of a message: a port's name. */
const DATA_MAX = 256;
/** Messages of the guest per turn. */
const MESSAGES_PER_TURN = 32;

/** A message about a port. */
export interface ControlMessage {
  /** The port. */
  readonly id: number;
  /** `VIRTIO_CONSOLE_…`. */
  readonly event: number;
  /** What goes with it. */
  readonly value: number;
  /** What follows. */
  readonly data?: Uint8Array;
}

/**
 * The control queues of virtio-console (virtio 1.2: 5.3.6.2). What the driver is told waits until it posts buffers; while too
 * much waits, what it says is left in its queue.
 */
export class ControlQueues {
  readonly #waiting: ControlMessage[] = [];
  #out: { queue: VirtioQueue; chains: ChainTable; wakeups: VirtQueueWakeups } | null = null;
  #in: { queue: VirtioQueue; chains: ChainTable; wakeups: VirtQueueWakeups } | null = null;

  constructor(
    private readonly scheduler: Scheduler,
    private readonly receive: (message: ControlMessage) => void,
    private readonly failed: (error: unknown) => void,
    /** Guest memory must not be touched at this moment. */
    private readonly held: () => boolean,
  ) {}

  /** The driver set a queue up: the one that it is told things on (`out`), or the one that it says things on. @throws VbusError ENOMEM */
  setUp(direction: "out" | "in", queue: VirtioQueue): void {
    const chains = ChainTable.allocate(queue.ring.space, 1, 64);
    const wakeups = new VirtQueueWakeups(queue.ring, {
      scheduler: this.scheduler,
      notifier: () => {
        wakeups.disable();
        if (direction === "out") this.#flush();
        else this.#drain();
      },
      onBroken: this.failed,
    });
    queue.onKick = wakeups.wakeup;
    const lane = { queue, chains, wakeups };
    if (direction === "out") {
      this.#out = lane;
      this.#flush();
    } else {
      this.#in = lane;
      wakeups.enable();
    }
  }

  /** It took one of them back. */
  tearDown(direction: "out" | "in"): void {
    const lane = direction === "out" ? this.#out : this.#in;
    if (direction === "out") this.#out = null;
    else this.#in = null;
    if (lane === null) return;
    lane.wakeups.close();
    lane.queue.onKick = null;
    lane.chains.close();
  }

  /** Messages that wait, as plain data. */
  save(): StateValue {
    return this.#waiting.map(({ id, event, value, data }): StateValue => [id, event, value, data ?? null]);
  }

  /** Takes them over. @throws StateError */
  restore(state: StateReader): void {
    for (const item of state.items(WAITING_SAVED_MAX)) {
      const [id, event, value, data] = item.tuple(4) as [StateReader, StateReader, StateReader, StateReader];
      const bytes = data.nullable((at) => at.bytes(0, DATA_MAX));
      this.#waiting.push({
        id: id.number(0, 0xffffffff),
        event: event.number(0, 0xffff),
        value: value.number(0, 0xffff),
        ...(bytes === null ? {} : { data: bytes }),
      });
    }
  }

  /** Goes on after that. */
  resume(): void {
    this.#out?.wakeups.enable();
    this.#in?.wakeups.enable();
    this.#flush();
  }

  /** Tells the driver something, as soon as it has a buffer for it. */
  tell(message: ControlMessage): void {
    this.#waiting.push(message);
    this.#flush();
  }

  #flush(): void {
    const lane = this.#out;
    if (this.held() || lane === null || lane.queue.ring.closed || lane.queue.ring.broken !== null) return;
    const full = this.#waiting.length > WAITING_MAX;
    const { queue, chains, wakeups } = lane;
    try {
      while (this.#waiting.length > 0) {
        if (queue.ring.peek(chains, 1) === 0) {
          wakeups.enable();
          break;
        }
        const bytes = encode(this.#waiting.shift() as ControlMessage);
        chains.setUsed(0, writeChain(chains, 0, 0, bytes)); // a buffer that is too short gets what it has room for
        if (queue.ring.release(chains, 1)) queue.interrupt();
      }
    } catch (error) {
      this.failed(error);
    }
    if (full && this.#waiting.length <= WAITING_MAX) this.#in?.wakeups.enable();
  }

  /** @throws VbusError EPROTO */
  #drain(): void {
    for (let n = 0; n < MESSAGES_PER_TURN; n++) {
      const lane = this.#in;
      if (lane === null || this.#waiting.length > WAITING_MAX) return;
      const { queue, chains, wakeups } = lane;
      if (queue.ring.closed) return;
      if (queue.ring.peek(chains, 1) === 0) break;
      const bytes = readChain(chains, 0, 0, VIRTIO_CONSOLE_CONTROL_SIZE);
      if (queue.ring.release(chains, 1)) queue.interrupt();
      if (bytes.length === VIRTIO_CONSOLE_CONTROL_SIZE) this.receive(decode(bytes));
      if (n === MESSAGES_PER_TURN - 1) wakeups.schedule();
    }
    this.#in?.wakeups.enable();
  }

  /** Ends it. */
  close(): void {
    this.#waiting.length = 0;
    this.tearDown("in");
    this.tearDown("out");
  }
}

function encode({ id, event, value, data = new Uint8Array(0) }: ControlMessage): Uint8Array {
  const bytes = new Uint8Array(VIRTIO_CONSOLE_CONTROL_SIZE + data.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(VIRTIO_CONSOLE_CONTROL_OFF_ID, id, true);
  view.setUint16(VIRTIO_CONSOLE_CONTROL_OFF_EVENT, event, true);
  view.setUint16(VIRTIO_CONSOLE_CONTROL_OFF_VALUE, value, true);
  bytes.set(data, VIRTIO_CONSOLE_CONTROL_SIZE);
  return bytes;
}

function decode(bytes: Uint8Array<ArrayBuffer>): ControlMessage {
  const view = new DataView(bytes.buffer);
  return {
    id: view.getUint32(VIRTIO_CONSOLE_CONTROL_OFF_ID, true),
    event: view.getUint16(VIRTIO_CONSOLE_CONTROL_OFF_EVENT, true),
    value: view.getUint16(VIRTIO_CONSOLE_CONTROL_OFF_VALUE, true),
  };
}
