import * as errno from "../../../assembly/abi/errno.js";
import {
  VBLK_EVENT_RESIZE,
  VBLK_ID_SIZE,
  VBLK_INFO_DISCARD,
  VBLK_INFO_OFF_BLOCK_SIZE,
  VBLK_INFO_OFF_CAPACITY,
  VBLK_INFO_OFF_FLAGS,
  VBLK_INFO_OFF_MAX_BULK,
  VBLK_INFO_OFF_MAX_LENGTH,
  VBLK_INFO_OFF_MAX_PIECES,
  VBLK_INFO_OFF_MAX_QUEUES,
  VBLK_INFO_OFF_QUEUE_DEPTH,
  VBLK_INFO_READ_ONLY,
  VBLK_INFO_SIZE,
  VBLK_INFO_WRITE_ZEROES,
  VBLK_MAX_BULK,
  VBLK_MAX_DEPTH,
  VBLK_MAX_LENGTH,
  VBLK_MAX_PIECES,
  VBLK_MAX_QUEUES,
  VBLK_QUERY,
  VBLK_QUEUE_SEGMENTS,
  VBLK_QUEUE_REQUEST,
  VBLK_SECTOR_SIZE,
  VBLK_TAG_EVENT,
} from "../../../assembly/abi/vblk.js";
import type {
  Connection,
  HostSignal,
  RestoredSignals,
  SavedSignals,
  SessionQueue,
  SharedSegment,
} from "../../bus/types.js";
import type { QueueCounters } from "../../engine/queue.js";
import { errorCode, negatedErrno, VbusError } from "../../errors.js";
import type { MemorySpace } from "../../memory/space.js";
import type { Scheduler } from "../../scheduler.js";
import { shownQueues } from "../queues.js";
import { SessionRings } from "../session-rings.js";
import { StateError } from "../../state/error.js";
import type { StateReader, StateValue } from "../../state/reader.js";
import type { Completion } from "./completions.js";
import type { Medium } from "./medium.js";
import type { Operation } from "./operations.js";
import { checkRequest, type BlockRequest, type Limits } from "./request.js";
import { RingPair, type BlockRing, type PairOwner } from "./ring-pair.js";
import type { VblkStatistics } from "./statistics.js";

/** What a connection needs of its device. */
export interface VblkEnvironment {
  /** Where deferred work runs. */
  readonly scheduler: Scheduler;
  /** The back end. */
  readonly medium: Medium;
  /** Counters of the device. */
  readonly statistics: VblkStatistics;
  /** True: requests that change something are refused. Fixed while a guest has the device open. */
  readonly readOnly: boolean;
  /** Requests that may be outstanding. Fixed while a guest has the device open. */
  readonly queueDepth: number;
  /** Queues that a session may have. Fixed while a guest has the device open. */
  readonly maxQueues: number;
  /** The serial number: up to 20 characters of ASCII. */
  readonly serial: string;
  /** The guest broke a ring (EPROTO), or the host failed at it; told once for each ring. */
  ringFailed(ring: BlockRing, queue: number, error: unknown): void;
  /** An operation of the back end ended: null, or what it rejected with. */
  backendDid(error: unknown): void;
  /** The session ended. */
  closed(): void;
}

/** Smallest buffer that is kept for a tag. */
const BUFFER_MIN = 4096;

/**
 * One session of a guest with a block device (`docs/abi/vblk.md`). Data passes through buffers of the host, one for each tag, so
 * that a back end never sees guest memory and guest memory is never touched after {@link VblkConnection.close}.
 */
export class VblkConnection implements Connection, PairOwner, Limits {
  readonly scheduler: Scheduler;
  readonly discards: boolean;
  readonly readOnly: boolean;
  readonly #depth: number;
  /** 1: the tag is outstanding. */
  readonly #tags: Uint8Array;
  readonly #buffers: (Uint8Array<ArrayBuffer> | undefined)[] = [];
  readonly #pairs: readonly RingPair[];
  #outstanding = 0;
  #closed = false;

  constructor(
    private readonly memory: MemorySpace,
    private readonly environment: VblkEnvironment,
  ) {
    this.scheduler = environment.scheduler;
    this.readOnly = environment.readOnly;
    this.discards = environment.medium.backend.discard !== undefined && !environment.readOnly;
    this.#depth = environment.queueDepth;
    this.#tags = new Uint8Array(this.#depth);
    const rings = new SessionRings(memory);
    this.#pairs = Array.from(
      { length: environment.maxQueues },
      (_, index) => new RingPair(index, rings, this),
    );
  }

  /** Size of the medium in bytes, now. */
  get size(): number {
    return this.environment.medium.size;
  }

  /** Queues that may be in use: the first always, of others those that have a ring. */
  get #usedPairs(): RingPair[] {
    return this.#pairs.filter(
      (pair) => pair.index === 0 || Object.values(pair.shown).some((side) => side !== null),
    );
  }

  /** Counters of the rings, by this side: `request`, `completion`, `request1`, `completion1` …; null for one that is not there. */
  queueCounters(): Record<string, QueueCounters | null> {
    return Object.assign({}, ...this.#usedPairs.map((pair) => pair.counters())) as ReturnType<
      VblkConnection["queueCounters"]
    >;
  }

  /** {@inheritDoc Connection.queues} */
  queues(): readonly SessionQueue[] {
    return this.#pairs.flatMap((pair) => shownQueues(pair.shown));
  }

  /** {@inheritDoc Connection.call} */
  call(func: number, gpa: number, length: number): number {
    if (func !== VBLK_QUERY) throw new VbusError("EINVAL", `vblk has no call ${func}`);
    if (length !== VBLK_INFO_SIZE)
      throw new VbusError("EINVAL", `QUERY takes ${VBLK_INFO_SIZE} bytes, not ${length}`);
    const info = new Uint8Array(VBLK_INFO_SIZE);
    const view = new DataView(info.buffer);
    const flags =
      (this.readOnly ? VBLK_INFO_READ_ONLY : VBLK_INFO_WRITE_ZEROES) |
      (this.discards ? VBLK_INFO_DISCARD : 0);
    const sectors = this.size / VBLK_SECTOR_SIZE;
    view.setUint32(VBLK_INFO_OFF_FLAGS, flags, true);
    view.setUint32(VBLK_INFO_OFF_BLOCK_SIZE, VBLK_SECTOR_SIZE, true);
    view.setUint32(VBLK_INFO_OFF_CAPACITY, sectors >>> 0, true);
    view.setUint32(VBLK_INFO_OFF_CAPACITY + 4, Math.floor(sectors / 2 ** 32), true);
    view.setUint32(VBLK_INFO_OFF_MAX_PIECES, VBLK_MAX_PIECES, true);
    view.setUint32(VBLK_INFO_OFF_MAX_LENGTH, VBLK_MAX_LENGTH, true);
    view.setUint32(VBLK_INFO_OFF_MAX_BULK, VBLK_MAX_BULK, true);
    view.setUint32(VBLK_INFO_OFF_QUEUE_DEPTH, this.#depth, true);
    view.setUint32(VBLK_INFO_OFF_MAX_QUEUES, this.#pairs.length, true);
    this.memory.copyTo(gpa, info);
    return 0;
  }

  /** {@inheritDoc Connection.shm} */
  shm(id: number, segment: SharedSegment, signal: HostSignal | null): number {
    const pair = this.#pairs[Math.floor(id / VBLK_QUEUE_SEGMENTS)];
    if (pair === undefined) throw new VbusError("EINVAL", `vblk has no segment ${id}`);
    pair.share(id % VBLK_QUEUE_SEGMENTS === VBLK_QUEUE_REQUEST ? "request" : "completion", segment, signal);
    return 0;
  }

  /** As `PairOwner.isFree` says. */
  isFree(tag: number): boolean {
    return this.#tags[tag] === 0;
  }

  /** As `PairOwner.take` says. */
  take(pair: RingPair, tag: number, view: DataView, size: number): void {
    const { statistics, medium } = this.environment;
    this.#tags[tag] = 1;
    this.#outstanding++;
    statistics.requests++;
    statistics.outstanding++;
    const request = checkRequest(view, size, this, this.memory);
    if (typeof request === "number") {
      pair.post({ tag, status: request, value: 0 });
      return;
    }
    statistics.operations[request.operation]++;
    if (request.operation === "getId") this.#answerId(pair, request);
    else medium.operations.submit(this.#operation(pair, request));
  }

  #answerId(pair: RingPair, request: BlockRequest): void {
    const id = new Uint8Array(VBLK_ID_SIZE);
    const { serial } = this.environment;
    for (let i = 0; i < serial.length; i++) id[i] = serial.charCodeAt(i);
    this.#complete(pair, request, this.#scatter(request, id));
  }

  /** A request as work for the back end. It touches guest memory only when it starts and when it has ended. */
  #operation(pair: RingPair, request: BlockRequest): Operation {
    const { backend } = this.environment.medium;
    const { tag, operation, offset, length, forced } = request;
    const buffer = (): Uint8Array<ArrayBuffer> => this.#buffer(tag, length);
    const force = async (): Promise<void> => {
      if (forced) await backend.flush();
    };
    const work: Record<BlockRequest["operation"], () => Promise<void>> = {
      read: () => backend.read(offset, buffer()),
      write: async () => {
        const data = buffer();
        this.#gather(request, data);
        await backend.write(offset, data);
        await force();
      },
      flush: () => backend.flush(),
      discard: async () => backend.discard?.(offset, length),
      writeZeroes: async () => {
        await backend.writeZeroes(offset, length);
        await force();
      },
      getId: async () => {},
    };
    return {
      owner: this,
      start: offset,
      end: offset + length,
      kind: operation === "read" ? "read" : "change",
      run: work[operation],
      done: (error) => {
        this.#done(pair, request, error);
      },
    };
  }

  /** Host memory for a request's data: there is one piece for each tag, so it is free when the tag is. */
  #buffer(tag: number, length: number): Uint8Array<ArrayBuffer> {
    let buffer = this.#buffers[tag];
    if (buffer === undefined || buffer.length < length) {
      buffer = new Uint8Array(Math.max(BUFFER_MIN, 2 ** Math.ceil(Math.log2(length))));
      this.#buffers[tag] = buffer;
    }
    return buffer.subarray(0, length);
  }

  #gather(request: BlockRequest, into: Uint8Array): void {
    let at = 0;
    for (const { gpa, length } of request.pieces) {
      into.set(this.memory.view(gpa, length), at);
      at += length;
    }
  }

  /** Copies data into the guest's pieces. 0, or -EFAULT when the guest's memory moved away meanwhile. */
  #scatter(request: BlockRequest, data: Uint8Array): number {
    let at = 0;
    try {
      for (const { gpa, length } of request.pieces) {
        this.memory.copyTo(gpa, data.subarray(at, at + length));
        at += length;
      }
    } catch (error) {
      return negatedErrno(error);
    }
    return 0;
  }

  #done(pair: RingPair, request: BlockRequest, error: unknown): void {
    const guestFault = error instanceof VbusError && error.code === "EFAULT";
    if (!guestFault) this.environment.backendDid(error);
    if (this.#closed) return; // the memory is somebody else's by now
    let status = error === null ? 0 : statusOf(error);
    if (status === 0 && request.operation === "read")
      status = this.#scatter(request, this.#buffer(request.tag, request.length));
    this.#complete(pair, request, status);
  }

  #complete(pair: RingPair, request: BlockRequest, status: number): void {
    const { statistics } = this.environment;
    const { tag, operation, length } = request;
    if (status === 0 && operation === "read") statistics.bytesRead += length;
    if (status === 0 && operation === "write") statistics.bytesWritten += length;
    pair.post({ tag, status, value: status === 0 ? length : 0 });
  }

  /** As `PairOwner.delivered` says. */
  delivered({ tag, status }: Completion): void {
    const { statistics } = this.environment;
    if (tag === VBLK_TAG_EVENT) {
      statistics.events++;
      return;
    }
    this.#tags[tag] = 0;
    this.#outstanding--;
    statistics.outstanding--;
    if (status === 0) {
      statistics.completed++;
      return;
    }
    const code = errorCode(status);
    statistics.failed++;
    statistics.errors[code] = (statistics.errors[code] ?? 0) + 1;
  }

  /** As `PairOwner.congested` says. */
  congested(): void {
    this.environment.statistics.congested++;
  }

  /** As `PairOwner.failed` says. */
  failed(pair: RingPair, ring: BlockRing, error: unknown): void {
    if (ring === "request") this.environment.statistics.violations++;
    this.environment.ringFailed(ring, pair.index, error);
  }

  /** {@inheritDoc Connection.settle} */
  async settle(): Promise<void> {
    // nothing is taken from the ring meanwhile, so that everything outstanding ends up among the completions
    await this.environment.medium.settle();
  }

  /** {@inheritDoc Connection.resume} */
  resume(): void {
    for (const pair of this.#pairs) pair.resume();
  }

  /** {@inheritDoc Connection.save} */
  save(signals: SavedSignals): StateValue {
    return {
      depth: this.#depth,
      readOnly: this.readOnly,
      medium: this.environment.medium.save(),
      queues: this.#pairs.map((pair) => pair.save(signals)),
    };
  }

  /** The session that was saved; held. @throws StateError; VbusError ENOMEM */
  static restore(
    memory: MemorySpace,
    environment: VblkEnvironment,
    state: StateReader,
    signals: RestoredSignals,
  ): VblkConnection {
    const connection = new VblkConnection(memory, environment);
    try {
      connection.#restore(state, signals);
    } catch (error) {
      connection.close();
      throw error;
    }
    return connection;
  }

  #restore(state: StateReader, signals: RestoredSignals): void {
    const { medium, statistics } = this.environment;
    if (
      state.get("depth").number(1, VBLK_MAX_DEPTH) !== this.#depth ||
      state.get("readOnly").boolean() !== this.readOnly
    )
      throw new StateError(
        "mismatch",
        "the guest knows this disk with another depth, or otherwise writable; give the device the attributes that it had",
      );
    medium.check(state.get("medium"));
    for (const [index, saved] of state.get("queues").items(VBLK_MAX_QUEUES).entries()) {
      const pair = this.#pairs[index];
      if (pair === undefined)
        throw new StateError(
          "mismatch",
          "the guest knows this disk with more queues; give the device its max_queues",
        );
      for (const tag of pair.restore(saved, signals)) {
        if (this.#tags[tag] !== 0) state.fail(`a completion for request ${tag}, which is none`);
        this.#tags[tag] = 1;
        this.#outstanding++;
        statistics.outstanding++;
      }
    }
  }

  /** The medium has another size. */
  resized(): void {
    this.#pairs[0]?.postEvent(VBLK_EVENT_RESIZE, this.size / VBLK_SECTOR_SIZE);
  }

  /** {@inheritDoc Connection.close} */
  close(): void {
    const { medium, statistics } = this.environment;
    this.#closed = true;
    for (const pair of this.#pairs) pair.close();
    this.#buffers.length = 0; // operations under way keep what they use, and no more
    medium.operations.cancel(this);
    statistics.cancelled += this.#outstanding;
    statistics.outstanding -= this.#outstanding;
    this.environment.closed();
  }
}

/** What a guest is told of a back end's failure: the errno it names, or EIO. */
function statusOf(error: unknown): number {
  if (error instanceof VbusError) return negatedErrno(error);
  const { code } = error as { code?: unknown };
  const known = typeof code === "string" ? errno[code as keyof typeof errno] : undefined;
  return -(known ?? errno.EIO);
}
