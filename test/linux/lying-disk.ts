/** A disk of the bus that answers, but not the truth: for guests that must survive their host. */
import type {
  Attribute,
  Connection,
  Device,
  DeviceClass,
  HostSignal,
  PublishedInterface,
  SharedSegment,
} from "vbus/bus";
import { BURST_SIGNAL, BurstTable, Queue, RESERVE_BUFFERS } from "vbus/engine";
import type { MemorySpace } from "vbus/memory";
import type { Scheduler } from "vbus/scheduler";

const INFO_SIZE = 64;
const RECORD_SIZE = 32;
const BURST = 16;
/** How often it looks at the ring; there are no doorbells here. */
const LOOK_MS = 2;

/** What QUERY says. */
export interface LyingInfo {
  blockSize: number;
  sectors: bigint;
  maxPieces: number;
  maxLength: number;
  maxBulk: number;
  depth: number;
  queues?: number;
}

/** An answer, right or wrong. */
export interface Answer {
  tag: number;
  status: number;
  value: bigint;
  /** By which queue; that of the request when it is left out. */
  queue?: number;
}

/** What the disk makes of a request; "let go" gives the completion ring up, and answers nothing. */
export type Liar = (request: LyingRequest) => Answer[] | "let go";

/** What a request says. */
export interface LyingRequest {
  queue: number;
  tag: number;
  op: number;
  length: number;
}

/** A queue of the disk. */
interface LyingQueue {
  requests: Queue | null;
  completions: Queue | null;
  signal: HostSignal | null;
  readonly waiting: Answer[];
}

/** A class whose one device says what it is told to. @param lie - gets each request, and says what is answered */
export function lyingDiskClass(name: string, info: LyingInfo, lie: Liar): DeviceClass {
  return {
    name,
    create: ({ scheduler }): Device => {
      const attributes: ReadonlyMap<string, Attribute> = new Map();
      let published: PublishedInterface | null = null;
      return {
        attributes,
        busConnect: (bus) => {
          published = bus.publish({
            name: "default",
            type: "virtual-block",
            connect: (memory) => new LyingConnection(memory, scheduler, info, lie),
          });
        },
        busDisconnect: () => {
          published?.withdraw();
        },
        release: () => {},
      };
    },
  };
}

class LyingConnection implements Connection {
  readonly #queues: LyingQueue[];
  #timer: ReturnType<typeof setInterval> | null = null;
  #table: BurstTable | null = null;

  constructor(
    private readonly memory: MemorySpace,
    private readonly scheduler: Scheduler,
    private readonly info: LyingInfo,
    private readonly lie: Liar,
  ) {
    this.#queues = Array.from({ length: info.queues ?? 1 }, () => ({
      requests: null,
      completions: null,
      signal: null,
      waiting: [],
    }));
  }

  call(_func: number, gpa: number): number {
    const bytes = new Uint8Array(INFO_SIZE);
    const view = new DataView(bytes.buffer);
    const { blockSize, sectors, maxPieces, maxLength, maxBulk, depth, queues = 0 } = this.info;
    view.setUint32(4, blockSize, true);
    view.setBigUint64(8, sectors, true);
    for (const [n, value] of [maxPieces, maxLength, maxBulk, depth, queues].entries())
      view.setUint32(16 + 4 * n, value, true);
    this.memory.copyTo(gpa, bytes);
    return 0;
  }

  shm(id: number, { gpa, length, memory }: SharedSegment, signal: HostSignal | null): number {
    this.#table ??= BurstTable.allocate(memory, BURST);
    const pair = this.#queues[id >> 1]!;
    if (id % 2 === 0) pair.requests = Queue.attach(memory, { gpa, length, role: "southFeed" });
    else {
      pair.completions = Queue.attach(memory, { gpa, length, role: "southReceive" });
      pair.signal = signal;
      this.#timer ??= setInterval(() => {
        this.scheduler.post(() => {
          this.#queues.forEach((queue, number) => this.#look(queue, number));
        });
      }, LOOK_MS);
    }
    return 0;
  }

  #look({ requests, completions, signal, waiting }: LyingQueue, queue: number): void {
    const table = this.#table;
    if (requests === null || completions === null || table === null) return;
    const n = requests.peek("inuse", table, BURST);
    for (let i = 0; i < n; i++) {
      const view = this.memory.view(table.gpa(i), RECORD_SIZE);
      const record = new DataView(view.buffer, view.byteOffset, RECORD_SIZE);
      const tag = record.getUint32(0, true);
      const op = record.getUint32(4, true);
      const length = Number(record.getBigUint64(24, true));
      const answers = this.lie({ queue, tag, op, length });
      if (answers === "let go") signal?.release();
      else for (const answer of answers) this.#queues[answer.queue ?? queue]!.waiting.push(answer);
    }
    if (n > 0) requests.release("inuse", null, n, BURST_SIGNAL);
    const posted = completions.reserve("inuse", table, Math.min(BURST, waiting.length), RESERVE_BUFFERS);
    for (let i = 0; i < posted; i++) {
      const { tag, status, value } = waiting.shift()!;
      const bytes = new Uint8Array(16);
      const view = new DataView(bytes.buffer);
      view.setUint32(0, tag, true);
      view.setInt32(4, status, true);
      view.setBigUint64(8, value, true);
      this.memory.copyTo(table.gpa(i), bytes);
    }
    if (posted > 0) {
      completions.commit("inuse", null, posted, BURST_SIGNAL);
      signal?.notify();
    }
  }

  close(): void {
    if (this.#timer !== null) clearInterval(this.#timer);
    for (const queue of this.#queues) {
      queue.requests?.close();
      queue.completions?.close();
      queue.signal?.release();
      queue.requests = queue.completions = null;
    }
    this.#table?.close();
    this.#table = null;
  }
}
