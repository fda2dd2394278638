import { VIRTIO_ID_ENTROPY } from "../../../assembly/abi/virtio-status.js";
import { ChainTable } from "../../engine/chain-table.js";
import { VirtQueueWakeups } from "../../engine/virtqueue-wakeup.js";
import { VbusError } from "../../errors.js";
import type { VirtioFace, VirtioQueue, VirtioSession, VirtioSessionContext } from "../../virtio/types.js";

const QUEUE_SIZE = 64;
/** Requests that are looked at at once; what is left is for the next turn. */
const BURST = 8;
/** Longest chain, in pieces. Drivers ask with one. */
const PIECES = 64;
/** Most that `crypto.getRandomValues` gives at once. */
const REQUEST_MAX = 65536;

/** How an entropy device is made. */
export interface VirtioEntropyOptions {
  /** Name for messages; default `entropy`. */
  readonly name?: string;
  /**
   * Fills bytes with random ones. Default `crypto.getRandomValues`; give a generator with a seed for machines whose runs are
   * to be repeated.
   */
  readonly source?: (into: Uint8Array<ArrayBuffer>) => void;
  /** Most bytes that one request gets, 1 to 65536 (the default): the driver asks again for more. */
  readonly requestMax?: number;
}

/** What an entropy device counted. */
export interface VirtioEntropyCounters {
  /** Requests answered. */
  requests: number;
  /** Random bytes given. */
  bytes: number;
  /** Requests that got less than they had room for. */
  cut: number;
}

/** An entropy source (virtio 1.2: 5.4). Made by {@link virtioEntropy}. */
export interface VirtioEntropy extends VirtioFace {
  /** What was counted so far, over all drivers. */
  counters(): VirtioEntropyCounters;
}

class Entropy implements VirtioEntropy {
  readonly deviceType = VIRTIO_ID_ENTROPY;
  readonly features = 0n;
  readonly queueSizes = [QUEUE_SIZE];
  readonly inOrder = true;
  readonly configSize = 0;
  readonly count: VirtioEntropyCounters = { requests: 0, bytes: 0, cut: 0 };
  #session: EntropySession | null = null;

  constructor(
    readonly name: string,
    readonly source: (into: Uint8Array<ArrayBuffer>) => void,
    readonly requestMax: number,
  ) {}

  acceptable(): boolean {
    return true;
  }

  readConfig(): void {
    // there is none (5.4.4)
  }

  writeConfig(): void {
    // likewise
  }

  start(context: VirtioSessionContext): VirtioSession {
    if (this.#session !== null)
      throw new VbusError("EBUSY", `${this.name} serves another guest; give each guest a device of its own`);
    this.#session = new EntropySession(this, context, () => {
      this.#session = null;
    });
    return this.#session;
  }

  get statistics(): VirtioEntropyCounters {
    return this.counters();
  }

  counters(): VirtioEntropyCounters {
    return { ...this.count };
  }
}

class EntropySession implements VirtioSession {
  #queue: VirtioQueue | null = null;
  #wakeups: VirtQueueWakeups | null = null;
  readonly #chains: ChainTable;

  constructor(
    private readonly device: Entropy,
    private readonly context: VirtioSessionContext,
    private readonly ended: () => void,
  ) {
    this.#chains = ChainTable.allocate(context.memory, BURST, PIECES);
    const queue = context.queue(0);
    if (queue !== null) this.queueStarted(queue);
  }

  queueStarted(queue: VirtioQueue): void {
    const wakeups = new VirtQueueWakeups(queue.ring, {
      scheduler: this.context.scheduler,
      notifier: () => {
        this.#serve(queue);
      },
      onBroken: (error) => {
        this.context.needsReset(error);
      },
    });
    this.#queue = queue;
    this.#wakeups = wakeups;
    queue.onKick = wakeups.wakeup;
    wakeups.enable(); // requests may be there already
  }

  queueStopped(): void {
    this.#wakeups?.close();
    this.#wakeups = null;
    this.#queue = null;
  }

  stop(): void {
    this.queueStopped();
    this.#chains.close();
    this.ended();
  }

  /** One burst; the wake-up loop comes again when there is more. */
  #serve(queue: VirtioQueue): void {
    const chains = this.#chains;
    const n = queue.ring.peek(chains, BURST);
    for (let i = 0; i < n; i++) {
      const bytes = new Uint8Array(Math.min(chains.writableBytes(i), this.device.requestMax));
      if (bytes.length > 0) this.device.source(bytes);
      if (this.#queue !== queue) return; // the source had the device reset
      this.#write(i, bytes);
    }
    if (n > 0 && queue.ring.release(chains, n)) queue.interrupt();
  }

  #write(i: number, bytes: Uint8Array): void {
    const chains = this.#chains;
    const { count } = this.device;
    const { memory } = this.context;
    let at = 0;
    for (let k = chains.readablePieces(i); at < bytes.length; k++) {
      const { address, gpa, length } = chains.piece(i, k);
      const part = bytes.subarray(at, at + length);
      memory.bytes.set(part, address);
      memory.noteWrite(gpa, part.length);
      at += part.length;
    }
    chains.setUsed(i, bytes.length);
    count.requests++;
    count.bytes += bytes.length;
    if (bytes.length < chains.writableBytes(i)) count.cut++;
  }
}

/**
 * An entropy source for guests: a virtio device for `attachVirtio`, `VirtioPci` or `VirtioMmio`. It serves one guest at a time.
 * A guest that has one starts with random numbers that nobody can foresee, which an emulator, where all else is the same each
 * time, owes it.
 * @throws VbusError EINVAL
 */
export function virtioEntropy(options: VirtioEntropyOptions = {}): VirtioEntropy {
  const {
    name = "entropy",
    source = (into) => {
      crypto.getRandomValues(into);
    },
    requestMax = REQUEST_MAX,
  } = options;
  if (!Number.isInteger(requestMax) || requestMax < 1 || requestMax > REQUEST_MAX)
    throw new VbusError("EINVAL", `requests of ${requestMax} bytes; give 1 to ${REQUEST_MAX}`);
  return new Entropy(name, source, requestMax);
}
