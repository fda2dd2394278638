import { ChainTable } from "vbus/engine";
import type { VirtioFace, VirtioQueue, VirtioSession, VirtioSessionContext } from "vbus/virtio";

/** Type of the devices of these tests: none that is assigned. */
export const RECORDER_TYPE = 63;
/** A bit that the device offers. */
export const FEATURE_A = 1n << 0n;
/** A bit that needs the first one. */
export const FEATURE_B = 1n << 5n;

/** A device that notes what its transport does, and answers every chain in order with the byte 0xa5. */
export class Recorder implements VirtioFace {
  readonly name = "recorder";
  readonly deviceType = RECORDER_TYPE;
  features = FEATURE_A | FEATURE_B;
  readonly inOrder = true;
  readonly configSize: number = 24;
  /** What happened, in order. */
  log: string[] = [];
  /** The configuration. */
  readonly settings = Uint8Array.from({ length: 24 }, (_, i) => 0x40 + i);
  /** Bytes that the driver wrote, by offset. */
  written: [number, number[]][] = [];
  context: VirtioSessionContext | null = null;
  readonly queues = new Map<number, VirtioQueue>();
  /** Chains answered. */
  answered = 0;
  /** Called in the midst of a burst, after it was peeked. */
  interlude: (() => void) | null = null;
  /** What `start` throws. */
  refuses: Error | null = null;
  #chains: ChainTable | null = null;

  constructor(readonly queueSizes: readonly number[] = [64, 16]) {}

  acceptable(features: bigint): boolean {
    return (features & FEATURE_B) === 0n || (features & FEATURE_A) !== 0n;
  }

  readConfig(into: Uint8Array, features: bigint): void {
    into.set(this.settings);
    into[23] = Number(features & 0xffn); // a field that depends on features
  }

  writeConfig(offset: number, bytes: Uint8Array): void {
    this.written.push([offset, [...bytes]]);
  }

  start(context: VirtioSessionContext): VirtioSession {
    if (this.refuses !== null) throw this.refuses;
    this.log.push(`start ${this.queueSizes.map((_, i) => (context.queue(i) === null ? "-" : "+")).join("")}`);
    this.context = context;
    this.#chains = ChainTable.allocate(context.memory, 16, 64);
    for (const i of this.queueSizes.keys()) {
      const queue = context.queue(i);
      if (queue !== null) this.#take(queue);
    }
    return {
      queueStarted: (queue) => {
        this.log.push(`queue ${queue.index} started`);
        this.#take(queue);
      },
      queueStopped: (index) => {
        this.log.push(`queue ${index} stopped`);
        this.queues.delete(index);
      },
      stop: () => {
        this.log.push("stop");
        this.queues.clear();
        this.context = null;
        this.#chains?.close();
        this.#chains = null;
      },
    };
  }

  #take(queue: VirtioQueue): void {
    this.queues.set(queue.index, queue);
    queue.onKick = () => {
      this.log.push(`kick ${queue.index}`);
      this.serve(queue);
    };
    queue.ring.enable();
  }

  /** Answers what is there. */
  serve(queue: VirtioQueue): void {
    const { memory } = this.context!;
    do {
      queue.ring.disable();
      for (let n; this.#chains !== null && (n = queue.ring.peek(this.#chains, 16)) > 0;) {
        for (let i = 0; i < n; i++) {
          let used = 0;
          for (
            let k = this.#chains.readablePieces(i), left = this.#chains.writablePieces(i);
            left > 0;
            left--
          ) {
            const { address, length } = this.#chains.piece(i, k++);
            memory.bytes.fill(0xa5, address, address + length);
            used += length;
          }
          this.#chains.setUsed(i, used);
        }
        this.interlude?.();
        if (this.queues.get(queue.index) !== queue) return; // the interlude took it away
        this.answered += n;
        if (queue.ring.release(this.#chains, n)) queue.interrupt();
      }
    } while (queue.ring.enable());
  }
}
