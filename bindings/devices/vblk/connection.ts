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
  VBLK_INFO_OFF_QUEUE_DEPTH,
  VBLK_INFO_READ_ONLY,
  VBLK_INFO_SIZE,
  VBLK_INFO_WRITE_ZEROES,
  VBLK_MAX_BULK,
  VBLK_MAX_DEPTH,
  VBLK_MAX_LENGTH,
  VBLK_MAX_PIECES,
  VBLK_QUERY,
  VBLK_QUEUE_COMPLETION,
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
import type { Queue, QueueCounters } from "../../engine/queue.js";
import { errorCode, negatedErrno, VbusError } from "../../errors.js";
import type { MemorySpace } from "../../memory/space.js";
import type { Scheduler } from "../../scheduler.js";
import { shownQueues } from "../queues.js";
import { SessionRings } from "../session-rings.js";
import { StateError } from "../../state/error.js";
import type { StateReader, StateValue } from "../../state/reader.js";
import { CompletionSide, type Completion, type CompletionOwner } from "./completions.js";
import type { Medium } from "./medium.js";
import type { Operation } from "./operations.js";
import { checkRequest, type BlockRequest, type Limits } from "./request.js";
import { RequestSide, type RequestOwner } from "./requests.js";
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
  /** The serial number: up to 20 characters of ASCII. */
  readonly serial: string;
  /** The guest broke a ring (EPROTO), or the host failed at it; told once for each ring. */
  ringFailed(ring: "request" | "completion", error: unknown): void;
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
export class VblkConnection implements Connection, RequestOwner, CompletionOwner, Limits {
  readonly scheduler: Scheduler;
  readonly discards: boolean;
  readonly readOnly: boolean;
  readonly #depth: number;
  /** 1: the tag is outstanding. */
  readonly #tags: Uint8Array;
  readonly #buffers: (Uint8Array<ArrayBuffer> | undefined)[] = [];
  #requests: RequestSide | null = null;
  #completions: CompletionSide | null = null;
  readonly #sessionRings: SessionRings;
  #outstanding = 0;
  #closed = false;

  constructor(
    private readonly memory: MemorySpace,
    private readonly environment: VblkEnvironment,
  ) {
    this.#sessionRings = new SessionRings(memory);
    this.scheduler = environment.scheduler;
    this.readOnly = environment.readOnly;
    this.discards = environment.medium.backend.discard !== undefined && !environment.readOnly;
    this.#depth = environment.queueDepth;
    this.#tags = new Uint8Array(this.#depth);
  }

  /** Size of the medium in bytes, now. */
  get size(): number {
    return this.environment.medium.size;
  }

  /** Counters of the rings that are there, by this side. */
  queueCounters(): { request: QueueCounters | null; completion: QueueCounters | null } {
    return {
      request: this.#requests?.counters() ?? null,
      completion: this.#completions?.counters() ?? null,
    };
  }

  /** {@inheritDoc Connection.queues} */
  queues(): readonly SessionQueue[] {
    return shownQueues({ request: this.#requests, completion: this.#completions });
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
    this.memory.copyTo(gpa, info);
    return 0;
  }

  /** {@inheritDoc Connection.shm} */
  shm(id: number, segment: SharedSegment, signal: HostSignal | null): number {
    switch (id) {
      case VBLK_QUEUE_REQUEST:
        if (this.#requests !== null) throw new VbusError("EEXIST", "there is a request ring already");
        this.#requests = this.#sessionRings.attach(segment, signal, "southFeed", this.#buildRequests);
        break;
      case VBLK_QUEUE_COMPLETION:
        if (this.#completions !== null) throw new VbusError("EEXIST", "there is a completion ring already");
        this.#completions = this.#sessionRings.attach(
          segment,
          signal,
          "southReceive",
          this.#buildCompletions,
        );
        break;
      default:
        throw new VbusError("EINVAL", `vblk has no segment ${id}`);
    }
    // a request needs a place for its completion, so nothing is taken before both are there
    if (this.#completions !== null) this.#requests?.start();
    return 0;
  }

  /** {@inheritDoc RequestOwner.isFree} */
  isFree(tag: number): boolean {
    return this.#tags[tag] === 0;
  }

  /** {@inheritDoc RequestOwner.take} */
  take(tag: number, view: DataView, size: number): void {
    const { statistics, medium } = this.environment;
    this.#tags[tag] = 1;
    this.#outstanding++;
    statistics.requests++;
    statistics.outstanding++;
    const request = checkRequest(view, size, this, this.memory);
    if (typeof request === "number") {
      this.#completions?.post({ tag, status: request, value: 0 });
      return;
    }
    statistics.operations[request.operation]++;
    if (request.operation === "getId") this.#answerId(request);
    else medium.operations.submit(this.#operation(request));
  }

  #answerId(request: BlockRequest): void {
    const id = new Uint8Array(VBLK_ID_SIZE);
    const { serial } = this.environment;
    for (let i = 0; i < serial.length; i++) id[i] = serial.charCodeAt(i);
    this.#complete(request, this.#scatter(request, id));
  }

  /** A request as work for the back end. It touches guest memory only when it starts and when it has ended. */
  #operation(request: BlockRequest): Operation {
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
        this.#done(request, error);
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

  #done(request: BlockRequest, error: unknown): void {
    const guestFault = error instanceof VbusError && error.code === "EFAULT";
    if (!guestFault) this.environment.backendDid(error);
    if (this.#closed) return; // the memory is somebody else's by now
    let status = error === null ? 0 : statusOf(error);
    if (status === 0 && request.operation === "read")
      status = this.#scatter(request, this.#buffer(request.tag, request.length));
    this.#complete(request, status);
  }

  #complete(request: BlockRequest, status: number): void {
    const { statistics } = this.environment;
    const { tag, operation, length } = request;
    if (status === 0 && operation === "read") statistics.bytesRead += length;
    if (status === 0 && operation === "write") statistics.bytesWritten += length;
    this.#completions?.post({ tag, status, value: status === 0 ? length : 0 });
  }

  /** {@inheritDoc CompletionOwner.delivered} */
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

  /** {@inheritDoc CompletionOwner.congested} */
  congested(): void {
    this.environment.statistics.congested++;
  }

  /** {@inheritDoc RequestOwner.failed} */
  failed(ring: "request" | "completion", error: unknown): void {
    if (ring === "request") this.environment.statistics.violations++;
    else this.#requests?.stop(); // nothing could be answered any more
    this.environment.ringFailed(ring, error);
  }

  readonly #buildRequests = (queue: Queue, signal: HostSignal): RequestSide =>
    new RequestSide(queue, signal, this);
  readonly #buildCompletions = (queue: Queue, signal: HostSignal): CompletionSide =>
    new CompletionSide(queue, signal, this);

  /** {@inheritDoc Connection.settle} */
  async settle(): Promise<void> {
    // nothing is taken from the ring meanwhile, so that everything outstanding ends up among the completions
    await this.environment.medium.settle();
  }

  /** {@inheritDoc Connection.resume} */
  resume(): void {
    this.#completions?.resume();
    if (this.#completions !== null) this.#requests?.start();
  }

  /** {@inheritDoc Connection.save} */
  save(signals: SavedSignals): StateValue {
    const number = (side: object): number => this.#sessionRings.signalOf(side, signals);
    return {
      depth: this.#depth,
      readOnly: this.readOnly,
      medium: this.environment.medium.save(),
      requests: this.#requests && { signal: number(this.#requests), ring: this.#requests.save() },
      completions: this.#completions && { signal: number(this.#completions), ring: this.#completions.save() },
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
    const failed = (ring: StateReader): boolean => ring.get("failed").boolean();
    const rings = this.#sessionRings;
    const completions = rings.restore(
      state,
      "completions",
      signals,
      "southReceive",
      this.#buildCompletions,
      failed,
    );
    this.#completions = completions?.side ?? null;
    const requests = rings.restore(state, "requests", signals, "southFeed", this.#buildRequests, failed);
    this.#requests = requests?.side ?? null;
    requests?.side.restore(failed(requests.saved.get("ring")));
    for (const tag of completions?.side.restore(completions.saved.get("ring")) ?? []) {
      if (this.#tags[tag] !== 0) state.fail(`a completion for request ${tag}, which is none`);
      this.#tags[tag] = 1;
      this.#outstanding++;
      statistics.outstanding++;
    }
    if (this.#outstanding > 0 && requests === null) state.fail("completions without a ring of requests");
  }

  /** The medium has another size. */
  resized(): void {
    this.#completions?.postEvent(VBLK_EVENT_RESIZE, this.size / VBLK_SECTOR_SIZE);
  }

  /** {@inheritDoc Connection.close} */
  close(): void {
    const { medium, statistics } = this.environment;
    this.#closed = true;
    this.#requests?.close();
    this.#completions?.close();
    this.#requests = null;
    this.#completions = null;
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
