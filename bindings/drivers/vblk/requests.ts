import {
  BURST_LENGTH,
  BURST_POINTER,
  BURST_SIGNAL,
  RECHECK_INUSE_HEAD,
  RECHECK_INUSE_TAIL,
} from "../../../assembly/abi/arena.js";
import {
  VBLK_COMPLETION_OFF_STATUS,
  VBLK_COMPLETION_OFF_TAG,
  VBLK_COMPLETION_OFF_VALUE,
  VBLK_COMPLETION_SIZE,
  VBLK_PIECE_OFF_LENGTH,
  VBLK_PIECE_OFF_POINTER,
  VBLK_PIECE_SIZE,
  VBLK_QUEUE_COMPLETION,
  VBLK_QUEUE_REQUEST,
  VBLK_REQUEST_MAX_SIZE,
  VBLK_REQUEST_OFF_COUNT,
  VBLK_REQUEST_OFF_FLAGS,
  VBLK_REQUEST_OFF_LENGTH,
  VBLK_REQUEST_OFF_OP,
  VBLK_REQUEST_OFF_PIECES,
  VBLK_REQUEST_OFF_SECTOR,
  VBLK_REQUEST_OFF_TAG,
  VBLK_TAG_EVENT,
} from "../../../assembly/abi/vblk.js";
import type { QueueCounters } from "../../engine/queue.js";
import { BurstTable } from "../../engine/table.js";
import { VbusError } from "../../errors.js";
import type { GuestMemory } from "../../memory/guest.js";
import type { Scheduler } from "../../scheduler.js";
import type { ProxyDevice, ProxyQueue } from "../proxy.js";

/** Descriptors per burst. */
const BURST = 64;

/** Guest memory that a request reads or fills. */
export interface GuestPiece {
  /** Guest-physical address. */
  gpa: number;
  /** Length in bytes, above 0. */
  length: number;
}

/** A request, from waiting for a tag to its completion. */
export interface RequestJob {
  /** VBLK_OP_… */
  op: number;
  /** VBLK_FLAG_… */
  flags: number;
  /** First sector; 0 where there is none. */
  sector: number;
  /** Bytes. */
  length: number;
  /**
   * It has a tag: gives the memory that the host is to use, until the job has ended. A VbusError ENOMEM makes it wait for
   * others to give theirs back, if there are any.
   */
  begin(): GuestPiece[];
  /** It ended: the host is done with its memory. `status` is 0 or a negated errno. */
  end(status: number): void;
  /** Nothing more will come of it. `begun`: the host may still use its memory, until the device is closed. */
  fail(reason: Error, begun: boolean): void;
}

/** Whom the queue tells. */
export interface QueueOwner {
  /** An event of the device. */
  event(number: number, value: number): void;
  /** A ring broke. */
  broken(error: unknown): void;
}

/** What a queue counted. */
export interface RequestStatistics {
  /** Requests put into the ring. */
  requests: number;
  /** Those that completed without an error. */
  completed: number;
  /** Those that completed with one. */
  failed: number;
  /** Times a request had to wait for a tag, or for memory. */
  waits: number;
}

/**
 * North of both rings of a block device (`docs/abi/vblk.md` sections 4 and 5): gives requests their tags, keeps those
 * that find none in order, and ends them as completions come.
 */
export class RequestQueue {
  readonly statistics: RequestStatistics = { requests: 0, completed: 0, failed: 0, waits: 0 };
  readonly #memory: GuestMemory;
  readonly #scheduler: Scheduler;
  readonly #table: BurstTable;
  /** Request records, one for each tag, then completion records, one for each descriptor. */
  readonly #records: number;
  readonly #completions: number;
  /** Where the records lie in the memory. */
  readonly #address: number;
  readonly #free: number[] = [];
  readonly #jobs: (RequestJob | undefined)[];
  readonly #waiting: RequestJob[] = [];
  #outstanding = 0;
  #scheduled = false;
  #ended: Error | null = null;

  private constructor(
    device: ProxyDevice,
    private readonly rings: { request: ProxyQueue; completion: ProxyQueue },
    private readonly owner: QueueOwner,
    depth: number,
  ) {
    this.#memory = device.bus.transport.memory;
    this.#scheduler = device.bus.transport.scheduler;
    const count = rings.completion.queue.count;
    const { ram, space } = this.#memory;
    this.#table = BurstTable.allocate(space, BURST);
    try {
      const bytes = depth * VBLK_REQUEST_MAX_SIZE + count * VBLK_COMPLETION_SIZE;
      this.#records = ram.allocate(bytes, 64);
      this.#address = space.translate(this.#records, bytes);
    } catch (error) {
      this.#table.close();
      throw error;
    }
    this.#completions = this.#records + depth * VBLK_REQUEST_MAX_SIZE;
    this.#jobs = new Array<RequestJob | undefined>(depth).fill(undefined);
    for (let tag = depth - 1; tag >= 0; tag--) this.#free.push(tag);
  }

  /**
   * Makes and shares the rings of an opened device. When it rejects, closing the device gives back what it made.
   * @throws VbusError ENOMEM, or as the device refuses
   */
  static async create(device: ProxyDevice, depth: number, owner: QueueOwner): Promise<RequestQueue> {
    const hooks = { wake: () => {} };
    const onBroken = (error: unknown): void => {
      owner.broken(error);
    };
    const request = await device.createQueue(VBLK_QUEUE_REQUEST, {
      count: depth,
      role: "northFeed",
      recheck: RECHECK_INUSE_TAIL,
      notifier: () => {}, // never enabled: there are as many descriptors as tags
      onBroken,
    });
    const completion = await device.createQueue(VBLK_QUEUE_COMPLETION, {
      count: depth + 1, // so that an event never takes the place of a completion
      role: "northReceive",
      recheck: RECHECK_INUSE_HEAD,
      notifier: () => {
        hooks.wake();
      },
      onBroken,
    });
    const queue = new RequestQueue(device, { request, completion }, owner, depth);
    hooks.wake = () => {
      queue.wake();
    };
    try {
      queue.#post();
    } catch (error) {
      queue.close(await device.close());
      throw error;
    }
    return queue;
  }

  /** Gives the host all completion buffers; they come back to the same places for ever. */
  #post(): void {
    const { queue, wakeups } = this.rings.completion;
    for (let n; (n = queue.reserve("valid", this.#table, BURST)) > 0;) {
      for (let i = 0; i < n; i++) {
        this.#table.setGpa(i, this.#completions + this.#table.position(i) * VBLK_COMPLETION_SIZE);
        this.#table.setLength(i, VBLK_COMPLETION_SIZE);
      }
      wakeups.ringIf(queue.commit("valid", this.#table, n, BURST_POINTER | BURST_LENGTH | BURST_SIGNAL));
    }
    wakeups.enable();
  }

  /** Requests that have a tag. */
  get outstanding(): number {
    return this.#outstanding;
  }

  /** Requests that wait for one. */
  get waiting(): number {
    return this.#waiting.length;
  }

  /** Takes a job; it is submitted soon, together with others of the same moment, in order. */
  submit(job: RequestJob): void {
    if (this.#ended !== null) {
      job.fail(this.#ended, false);
      return;
    }
    this.#waiting.push(job);
    this.#schedule();
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    this.#scheduler.post(() => {
      this.#scheduled = false;
      if (this.#ended !== null) return;
      try {
        this.#pump();
      } catch (error) {
        this.owner.broken(error);
      }
    });
  }

  /** Submits what has a tag, memory and a descriptor. What has not waits for the next completion. */
  #pump(): void {
    const { queue, wakeups } = this.rings.request;
    while (this.#waiting.length > 0 && this.#free.length > 0) {
      const wanted = Math.min(BURST, this.#waiting.length, this.#free.length);
      const room = queue.reserve("inuse", this.#table, wanted);
      let filled = 0;
      for (let job; filled < room && (job = this.#begin()) !== null; filled++) {
        this.#table.setGpa(filled, job.gpa);
        this.#table.setLength(filled, job.size);
      }
      if (filled > 0)
        wakeups.ringIf(
          queue.commit("inuse", this.#table, filled, BURST_POINTER | BURST_LENGTH | BURST_SIGNAL),
        );
      if (filled === 0 || filled < wanted) break;
    }
    if (this.#waiting.length === 0) return;
    this.statistics.waits++;
    // there are as many descriptors as tags, and each comes back before its request completes
    if (this.#outstanding === 0)
      throw new VbusError("EPROTO", "the host keeps descriptors of requests that it completed");
  }

  /** Gives the first job that can begin its tag and record. Null: there is none, or it waits for memory. */
  #begin(): { gpa: number; size: number } | null {
    for (let job; (job = this.#waiting[0]) !== undefined;) {
      let pieces: GuestPiece[];
      try {
        pieces = job.begin();
      } catch (error) {
        if (error instanceof VbusError && error.code === "ENOMEM" && this.#outstanding > 0) return null;
        this.#waiting.shift();
        job.fail(error as Error, false);
        continue;
      }
      this.#waiting.shift();
      const tag = this.#free.pop() as number; // the caller reserved no more descriptors than there are tags
      this.#jobs[tag] = job;
      this.#outstanding++;
      this.statistics.requests++;
      return this.#write(tag, job, pieces);
    }
    return null;
  }

  #write(tag: number, job: RequestJob, pieces: readonly GuestPiece[]): { gpa: number; size: number } {
    const gpa = this.#records + tag * VBLK_REQUEST_MAX_SIZE;
    const at = this.#address + tag * VBLK_REQUEST_MAX_SIZE;
    const { data } = this.#memory.space.engine;
    data.setUint32(at + VBLK_REQUEST_OFF_TAG, tag, true);
    data.setUint32(at + VBLK_REQUEST_OFF_OP, job.op, true);
    data.setUint32(at + VBLK_REQUEST_OFF_FLAGS, job.flags, true);
    data.setUint32(at + VBLK_REQUEST_OFF_COUNT, pieces.length, true);
    setLong(data, at + VBLK_REQUEST_OFF_SECTOR, job.sector);
    setLong(data, at + VBLK_REQUEST_OFF_LENGTH, job.length);
    let piece = at + VBLK_REQUEST_OFF_PIECES;
    for (const { gpa: where, length } of pieces) {
      setLong(data, piece + VBLK_PIECE_OFF_LENGTH, length); // with the padding
      setLong(data, piece + VBLK_PIECE_OFF_POINTER, where);
      piece += VBLK_PIECE_SIZE;
    }
    return { gpa, size: piece - at };
  }

  /** The host completed something, or has an event: the completion ring's notifier. */
  wake(): void {
    if (this.#ended !== null) return;
    const { queue, wakeups } = this.rings.completion;
    wakeups.disable();
    try {
      for (let n; (n = queue.peek("inuse", this.#table, BURST)) > 0;) {
        const records = Array.from({ length: n }, (_, i) => this.#read(this.#table.position(i)));
        wakeups.ringIf(queue.release("inuse", null, n, BURST_SIGNAL));
        for (const { tag, status, value } of records) {
          this.#complete(tag, status, value);
          if (this.#hasEnded()) return; // an observer closed the device
        }
      }
      wakeups.enable();
    } catch (error) {
      this.owner.broken(error);
      return;
    }
    if (this.#waiting.length > 0) this.#schedule();
  }

  #hasEnded(): boolean {
    return this.#ended !== null;
  }

  #read(position: number): { tag: number; status: number; value: number } {
    const at = this.#address + (this.#completions - this.#records) + position * VBLK_COMPLETION_SIZE;
    const { data } = this.#memory.space.engine;
    const value = at + VBLK_COMPLETION_OFF_VALUE;
    return {
      tag: data.getUint32(at + VBLK_COMPLETION_OFF_TAG, true),
      status: data.getInt32(at + VBLK_COMPLETION_OFF_STATUS, true),
      value: data.getUint32(value, true) + data.getUint32(value + 4, true) * 2 ** 32,
    };
  }

  #complete(tag: number, status: number, value: number): void {
    if (tag === VBLK_TAG_EVENT) {
      this.owner.event(status, value);
      return;
    }
    const job = this.#jobs[tag];
    if (job === undefined || status > 0)
      throw new VbusError("EPROTO", `the host completed request ${tag}, which is not there, with ${status}`);
    this.#jobs[tag] = undefined;
    this.#free.push(tag);
    this.#outstanding--;
    if (status === 0) this.statistics.completed++;
    else this.statistics.failed++;
    job.end(status);
  }

  /** Nothing is submitted or completed any more; everybody who waits is told why. Twice is harmless. */
  end(reason: Error): void {
    if (this.#ended !== null) return;
    this.#ended = reason;
    for (const job of this.#waiting.splice(0)) job.fail(reason, false);
    for (const [tag, job] of this.#jobs.entries()) {
      this.#jobs[tag] = undefined;
      job?.fail(reason, true);
    }
    this.#outstanding = 0;
  }

  /** What was counted on the rings, by north. */
  counters(): { requestQueue: QueueCounters; completionQueue: QueueCounters } {
    const { request, completion } = this.rings;
    return { requestQueue: request.queue.counters(), completionQueue: completion.queue.counters() };
  }

  /** Gives its memory back; ended, and the device closed, before. `released`: the host let go of guest memory. */
  close(released: boolean): void {
    if (released) this.#memory.ram.free(this.#records);
    this.#table.close();
  }
}

function setLong(data: DataView, at: number, value: number): void {
  data.setUint32(at, value >>> 0, true);
  data.setUint32(at + 4, Math.floor(value / 2 ** 32), true);
}
