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
}

/** An answer, right or wrong. */
export interface Answer {
  tag: number;
  status: number;
  value: bigint;
}

/** What the disk makes of a request; "let go" gives the completion ring up, and answers nothing. */
export type Liar = (request: { tag: number; op: number; length: number }) => Answer[] | "let go";

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
  #requests: Queue | null = null;
  #completions: Queue | null = null;
  #signal: HostSignal | null = null;
  #timer: ReturnType<typeof setInterval> | null = null;
  #table: BurstTable | null = null;
  #waiting: Answer[] = [];

  constructor(
    private readonly memory: MemorySpace,
    private readonly scheduler: Scheduler,
    private readonly info: LyingInfo,
    private readonly lie: Liar,
  ) {}

  call(_func: number, gpa: number): number {
    const bytes = new Uint8Array(INFO_SIZE);
    const view = new DataView(bytes.buffer);
    const { blockSize, sectors, maxPieces, maxLength, maxBulk, depth } = this.info;
    view.setUint32(4, blockSize, true);
    view.setBigUint64(8, sectors, true);
    for (const [n, value] of [maxPieces, maxLength, maxBulk, depth].entries())
      view.setUint32(16 + 4 * n, value, true);
    this.memory.copyTo(gpa, bytes);
    return 0;
  }

  shm(id: number, { gpa, length, memory }: SharedSegment, signal: HostSignal | null): number {
    this.#table ??= BurstTable.allocate(memory, BURST);
    const role = id === 0 ? "southFeed" : "southReceive";
    const queue = Queue.attach(memory, { gpa, length, role });
    if (id === 0) this.#requests = queue;
    else {
      this.#completions = queue;
      this.#signal = signal;
      this.#timer = setInterval(() => {
        this.scheduler.post(() => {
          this.#look();
        });
      }, LOOK_MS);
    }
    return 0;
  }

  #look(): void {
    const requests = this.#requests;
    const completions = this.#completions;
    const table = this.#table;
    if (requests === null || completions === null || table === null) return;
    const n = requests.peek("inuse", table, BURST);
    for (let i = 0; i < n; i++) {
      const view = this.memory.view(table.gpa(i), RECORD_SIZE);
      const record = new DataView(view.buffer, view.byteOffset, RECORD_SIZE);
      const tag = record.getUint32(0, true);
      const op = record.getUint32(4, true);
      const length = Number(record.getBigUint64(24, true));
      const answers = this.lie({ tag, op, length });
      if (answers === "let go") this.#signal?.release();
      else this.#waiting.push(...answers);
    }
    if (n > 0) requests.release("inuse", null, n, BURST_SIGNAL);
    const posted = completions.reserve(
      "inuse",
      table,
      Math.min(BURST, this.#waiting.length),
      RESERVE_BUFFERS,
    );
    for (let i = 0; i < posted; i++) {
      const { tag, status, value } = this.#waiting.shift()!;
      const bytes = new Uint8Array(16);
      const view = new DataView(bytes.buffer);
      view.setUint32(0, tag, true);
      view.setInt32(4, status, true);
      view.setBigUint64(8, value, true);
      this.memory.copyTo(table.gpa(i), bytes);
    }
    if (posted > 0) {
      completions.commit("inuse", null, posted, BURST_SIGNAL);
      this.#signal?.notify();
    }
  }

  close(): void {
    if (this.#timer !== null) clearInterval(this.#timer);
    this.#requests?.close();
    this.#completions?.close();
    this.#table?.close();
    this.#requests = null;
    this.#completions = null;
    this.#table = null;
    this.#signal?.release();
  }
}
