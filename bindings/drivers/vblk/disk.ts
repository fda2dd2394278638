import {
  VBLK_DEFAULT_DEPTH,
  VBLK_EVENT_RESIZE,
  VBLK_FLAG_FUA,
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
  VBLK_MAX_DEPTH,
  VBLK_MAX_PIECES,
  VBLK_OP_DISCARD,
  VBLK_OP_FLUSH,
  VBLK_OP_GET_ID,
  VBLK_OP_READ,
  VBLK_OP_WRITE,
  VBLK_OP_WRITE_ZEROES,
  VBLK_QUERY,
  VBLK_SECTOR_SIZE,
  VBLK_VERSION,
} from "../../../assembly/abi/vblk.js";
import type { QueueCounters } from "../../engine/queue.js";
import { errorCode, VbusError } from "../../errors.js";
import type { ProxyDevice } from "../proxy.js";
import { RequestQueue, type GuestPiece, type RequestJob, type RequestStatistics } from "./requests.js";

/** How a disk is driven. */
export interface VblkOptions {
  /** Most requests outstanding; default 64, never more than the device allows. */
  queueDepth?: number;
  /**
   * Bytes of the longest request, a multiple of 512; default 128 KiB, never more than the device allows. Longer transfers are
   * cut into several requests. Each one takes as much guest memory while it is outstanding.
   */
  maxRequest?: number;
}

/** How something is written. */
export interface WriteOptions {
  /** True: durable before the promise resolves ("force unit access"). Default false. */
  fua?: boolean;
}

/** Counters of a disk and its rings. */
export interface DiskStatistics extends RequestStatistics {
  /** The request ring's counters. */
  requestQueue: QueueCounters;
  /** The completion ring's counters. */
  completionQueue: QueueCounters;
}

const DEFAULT_MAX_REQUEST = 1 << 17;

/** What QUERY told. */
interface Info {
  readOnly: boolean;
  canDiscard: boolean;
  canWriteZeroes: boolean;
  capacity: number;
  maxPieces: number;
  maxLength: number;
  maxBulk: number;
  queueDepth: number;
}

/**
 * A block device in a guest. Created by {@link VblkDriver}; belongs to the guest's thread.
 *
 * ```ts
 * await disk.write(8, data);                 // sector 8; any number of requests may be outstanding
 * const back = await disk.read(8, 4096);
 * await disk.flush();                        // durable from here on
 * ```
 *
 * Promises reject with a `VbusError` that has the device's errno: ENOSPC (beyond the capacity), EROFS, EOPNOTSUPP,
 * EIO (the back end failed) …; EINVAL for lengths that are no multiple of 512, ENOMEM when guest memory is short, ENOTCONN
 * after {@link VblkDisk.close} or when the host is gone, EPROTO when a ring broke. What is outstanding has no order; wait for one
 * promise before you start what depends on it. A transfer of up to `maxRequest` bytes is atomic to others; a longer one is in parts.
 */
export class VblkDisk {
  /** Bytes per sector: the unit of positions, and of lengths. */
  readonly sectorSize = VBLK_SECTOR_SIZE;
  /** Called when the capacity changed. */
  onResize: ((capacity: number) => void) | null = null;
  /** Called once when the disk cannot go on: a ring broke, or the host is gone. What remains is to close it. */
  onError: ((error: unknown) => void) | null = null;

  readonly #info: Info;
  readonly #maxRequest: number;
  readonly #queueDepth: number;
  #queue: RequestQueue | null = null;
  /** Guest memory that the host may use until the device is closed. */
  readonly #held: number[] = [];
  #failure: Error | null = null;
  #closing: Promise<void> | null = null;
  #finalCounters: DiskStatistics | null = null;

  private constructor(
    readonly device: ProxyDevice,
    info: Info,
    options: VblkOptions,
  ) {
    this.#info = info;
    const { queueDepth = VBLK_DEFAULT_DEPTH, maxRequest = DEFAULT_MAX_REQUEST } = options;
    this.#queueDepth = Math.min(queueDepth, info.queueDepth);
    this.#maxRequest = Math.min(maxRequest, info.maxLength);
    device.onLost = (error) => {
      this.#fail(error);
    };
  }

  /** Brings a device up to the point where requests work. @internal */
  static async probe(device: ProxyDevice, options: VblkOptions): Promise<VblkDisk> {
    checkOptions(options);
    await device.open(VBLK_VERSION);
    const info = new Uint8Array(VBLK_INFO_SIZE);
    await device.call(VBLK_QUERY, info);
    const disk = new VblkDisk(device, readInfo(info), options);
    disk.#queue = await RequestQueue.create(device, disk.#queueDepth, {
      event: (number, value) => {
        disk.#event(number, value);
      },
      broken: (error) => {
        disk.#fail(error);
      },
    });
    return disk;
  }

  #event(number: number, value: number): void {
    if (number !== VBLK_EVENT_RESIZE) return; // events of later versions are none of ours
    this.#info.capacity = value;
    this.onResize?.(value);
  }

  /** Sectors, now. */
  get capacity(): number {
    return this.#info.capacity;
  }

  /** Bytes, now. */
  get size(): number {
    return this.#info.capacity * VBLK_SECTOR_SIZE;
  }

  /** True: nothing can be changed. */
  get readOnly(): boolean {
    return this.#info.readOnly;
  }

  /** True: {@link VblkDisk.discard} is supported. */
  get canDiscard(): boolean {
    return this.#info.canDiscard;
  }

  /** True: {@link VblkDisk.writeZeroes} is supported. */
  get canWriteZeroes(): boolean {
    return this.#info.canWriteZeroes;
  }

  /** Bytes of the longest request: a transfer of up to this length is atomic. */
  get maxRequest(): number {
    return this.#maxRequest;
  }

  /** Most requests outstanding at a time; others wait, in order. */
  get queueDepth(): number {
    return this.#queueDepth;
  }

  /** Requests outstanding and waiting. */
  get pending(): number {
    return (this.#queue?.outstanding ?? 0) + (this.#queue?.waiting ?? 0);
  }

  /** Reads `length` bytes from `sector` on. The result is yours. */
  async read(sector: number, length: number): Promise<Uint8Array<ArrayBuffer>> {
    checkRange(sector, length);
    const target = new Uint8Array(length);
    await this.#transfer(VBLK_OP_READ, 0, sector, target);
    return target;
  }

  /** Reads into `target`, filling it; its content is undefined until the promise resolves, and when it rejects. */
  async readInto(sector: number, target: Uint8Array): Promise<void> {
    checkRange(sector, target.length);
    await this.#transfer(VBLK_OP_READ, 0, sector, target);
  }

  /** Writes `data` from `sector` on. Leave it unchanged until the promise resolves. */
  async write(sector: number, data: Uint8Array, options: WriteOptions = {}): Promise<void> {
    checkRange(sector, data.length);
    await this.#transfer(VBLK_OP_WRITE, flagsOf(options), sector, data);
  }

  /**
   * Reads into guest memory of the caller's, without a copy in the guest: one request. The pieces belong to the host until
   * the promise resolves; after a rejection with ENOTCONN or EPROTO until {@link VblkDisk.close} resolved.
   * @throws VbusError EINVAL also for more pieces or bytes than the device takes
   */
  async readPieces(sector: number, pieces: readonly GuestPiece[]): Promise<void> {
    await this.#pieces(VBLK_OP_READ, 0, sector, pieces);
  }

  /** Writes from guest memory of the caller's, without a copy in the guest: one request; as {@link VblkDisk.readPieces}. */
  async writePieces(
    sector: number,
    pieces: readonly GuestPiece[],
    options: WriteOptions = {},
  ): Promise<void> {
    await this.#pieces(VBLK_OP_WRITE, flagsOf(options), sector, pieces);
  }

  /** Makes everything durable whose promise resolved before the call. */
  async flush(): Promise<void> {
    await this.#plain(VBLK_OP_FLUSH, 0, 0, 0);
  }

  /** The content of a range is not needed any more: it reads as before, or as zeroes. @throws VbusError EOPNOTSUPP */
  async discard(sector: number, length: number): Promise<void> {
    await this.#bulk(VBLK_OP_DISCARD, 0, sector, length);
  }

  /** A range reads as zeroes. */
  async writeZeroes(sector: number, length: number, options: WriteOptions = {}): Promise<void> {
    await this.#bulk(VBLK_OP_WRITE_ZEROES, flagsOf(options), sector, length);
  }

  /** The device's serial number: up to 20 characters. */
  async id(): Promise<string> {
    const target = new Uint8Array(VBLK_ID_SIZE);
    await this.#copied(VBLK_OP_GET_ID, 0, 0, target);
    const end = target.indexOf(0);
    return String.fromCharCode(...target.subarray(0, end < 0 ? target.length : end));
  }

  /** Cuts a transfer into requests. All have ended when it settles. */
  #transfer(op: number, flags: number, sector: number, data: Uint8Array): Promise<void> {
    const step = this.#maxRequest;
    if (data.length <= step && data.length > 0) return this.#copied(op, flags, sector, data);
    const parts: Promise<void>[] = [];
    for (let at = 0; at < data.length; at += step)
      parts.push(this.#copied(op, flags, sector + at / VBLK_SECTOR_SIZE, data.subarray(at, at + step)));
    return allEnded(parts);
  }

  #bulk(op: number, flags: number, sector: number, length: number): Promise<void> {
    checkRange(sector, length);
    const step = this.#info.maxBulk;
    const parts: Promise<void>[] = [];
    for (let at = 0; at < length; at += step)
      parts.push(this.#plain(op, flags, sector + at / VBLK_SECTOR_SIZE, Math.min(step, length - at)));
    return allEnded(parts);
  }

  #submit(build: (resolve: () => void, reject: (error: Error) => void) => RequestJob): Promise<void> {
    return new Promise((resolve, reject) => {
      const reason = this.#reasonUnusable();
      if (reason !== null) reject(reason);
      else this.#queue?.submit(build(resolve, reject));
    });
  }

  /** A request without data. */
  #plain(op: number, flags: number, sector: number, length: number): Promise<void> {
    return this.#submit((resolve, reject) => ({
      op,
      flags,
      sector,
      length,
      begin: () => [],
      end: (status) => {
        if (status === 0) resolve();
        else reject(statusError(op, status));
      },
      fail: reject,
    }));
  }

  /** A request whose data passes through a buffer of its own in guest memory. */
  #copied(op: number, flags: number, sector: number, data: Uint8Array): Promise<void> {
    const { ram, space } = this.device.bus.transport.memory;
    let gpa = 0;
    return this.#submit((resolve, reject) => ({
      op,
      flags,
      sector,
      length: data.length,
      begin: () => {
        gpa = ram.allocate(data.length, 64);
        if (op === VBLK_OP_WRITE) space.copyTo(gpa, data);
        return [{ gpa, length: data.length }];
      },
      end: (status) => {
        if (status === 0 && op !== VBLK_OP_WRITE) data.set(space.view(gpa, data.length));
        ram.free(gpa);
        if (status === 0) resolve();
        else reject(statusError(op, status));
      },
      fail: (reason, begun) => {
        if (begun) this.#held.push(gpa);
        reject(reason);
      },
    }));
  }

  /** A request on memory of the caller's. */
  async #pieces(op: number, flags: number, sector: number, pieces: readonly GuestPiece[]): Promise<void> {
    const length = pieces.reduce((sum, piece) => sum + piece.length, 0);
    checkRange(sector, length);
    const { maxPieces, maxLength } = this.#info;
    if (pieces.length < 1 || pieces.length > maxPieces || length > maxLength)
      throw new VbusError(
        "EINVAL",
        `${pieces.length} pieces with ${length} bytes; a request takes 1 to ${maxPieces} with up to ${maxLength}`,
      );
    const { space } = this.device.bus.transport.memory;
    for (const piece of pieces) space.translate(piece.gpa, piece.length); // EFAULT here, not there
    const given = pieces.map((piece) => ({ ...piece }));
    await this.#submit((resolve, reject) => ({
      op,
      flags,
      sector,
      length,
      begin: () => given,
      end: (status) => {
        if (status === 0) resolve();
        else reject(statusError(op, status));
      },
      fail: reject,
    }));
  }

  #reasonUnusable(): Error | null {
    if (this.#closing !== null)
      return new VbusError("ENOTCONN", "the disk is closed; probe the device again");
    return this.#failure;
  }

  #fail(error: unknown): void {
    if (this.#failure !== null || this.#closing !== null) return;
    const reason = error instanceof Error ? error : new VbusError("EIO", "the disk failed", { cause: error });
    this.#failure = reason;
    this.#queue?.end(reason);
    this.onError?.(error);
  }

  /** What was counted since the probe; after close: until then. */
  statistics(): DiskStatistics {
    if (this.#finalCounters !== null) return this.#finalCounters;
    const queue = this.#queue as RequestQueue; // there from the probe on
    return { ...queue.statistics, ...queue.counters() };
  }

  /** Device closed, memory given back. Whatever is outstanding rejects: it may or may not have been done. Twice is harmless. */
  close(): Promise<void> {
    return (this.#closing ??= this.#close());
  }

  async #close(): Promise<void> {
    this.#finalCounters = this.statistics();
    const queue = this.#queue as RequestQueue;
    queue.end(new VbusError("ENOTCONN", "the disk was closed; what was outstanding may or may not be done"));
    this.device.onLost = null;
    // afterwards the host touches no buffer, unless it did not answer: then they are never used again
    const released = await this.device.close();
    queue.close(released);
    if (released) for (const gpa of this.#held.splice(0)) this.device.bus.transport.memory.ram.free(gpa);
  }
}

async function allEnded(parts: readonly Promise<void>[]): Promise<void> {
  for (const result of await Promise.allSettled(parts)) if (result.status === "rejected") throw result.reason;
}

const NAMES = new Map([
  [VBLK_OP_READ, "read"],
  [VBLK_OP_WRITE, "write"],
  [VBLK_OP_FLUSH, "flush"],
  [VBLK_OP_DISCARD, "discard"],
  [VBLK_OP_WRITE_ZEROES, "write-zeroes"],
  [VBLK_OP_GET_ID, "get-id"],
]);

function statusError(op: number, status: number): VbusError {
  return new VbusError(errorCode(status), `the device failed a ${NAMES.get(op) ?? op} request`);
}

function flagsOf({ fua = false }: WriteOptions): number {
  return fua ? VBLK_FLAG_FUA : 0;
}

function checkRange(sector: number, length: number): void {
  if (!Number.isSafeInteger(sector) || sector < 0)
    throw new VbusError("EINVAL", `sector ${sector}; use a whole number from 0 on`);
  if (!Number.isSafeInteger(length) || length < 0 || length % VBLK_SECTOR_SIZE !== 0)
    throw new VbusError("EINVAL", `a length of ${length} bytes; use a multiple of ${VBLK_SECTOR_SIZE}`);
}

function checkOptions({ queueDepth, maxRequest }: VblkOptions): void {
  if (queueDepth !== undefined && !(Number.isInteger(queueDepth) && queueDepth >= 1))
    throw new VbusError("EINVAL", `a queueDepth of ${queueDepth}; use 1 to ${VBLK_MAX_DEPTH}`);
  if (maxRequest !== undefined && !(maxRequest > 0 && maxRequest % VBLK_SECTOR_SIZE === 0))
    throw new VbusError("EINVAL", `a maxRequest of ${maxRequest}; use a multiple of ${VBLK_SECTOR_SIZE}`);
}

/** @throws VbusError EPROTO when the device tells something that this driver cannot work with */
function readInfo(info: Uint8Array): Info {
  const view = new DataView(info.buffer, info.byteOffset, info.byteLength);
  const word = (offset: number): number => view.getUint32(offset, true);
  const flags = word(VBLK_INFO_OFF_FLAGS);
  const result: Info = {
    readOnly: (flags & VBLK_INFO_READ_ONLY) !== 0,
    canDiscard: (flags & VBLK_INFO_DISCARD) !== 0,
    canWriteZeroes: (flags & VBLK_INFO_WRITE_ZEROES) !== 0,
    capacity: word(VBLK_INFO_OFF_CAPACITY) + word(VBLK_INFO_OFF_CAPACITY + 4) * 2 ** 32,
    maxPieces: Math.min(word(VBLK_INFO_OFF_MAX_PIECES), VBLK_MAX_PIECES),
    maxLength: word(VBLK_INFO_OFF_MAX_LENGTH),
    maxBulk: word(VBLK_INFO_OFF_MAX_BULK),
    queueDepth: Math.min(word(VBLK_INFO_OFF_QUEUE_DEPTH), VBLK_MAX_DEPTH),
  };
  const { maxPieces, maxLength, maxBulk, queueDepth } = result;
  const blockSize = word(VBLK_INFO_OFF_BLOCK_SIZE);
  const whole = (bytes: number): boolean => bytes > 0 && bytes % VBLK_SECTOR_SIZE === 0;
  if (
    blockSize !== VBLK_SECTOR_SIZE ||
    !whole(maxLength) ||
    !whole(maxBulk) ||
    maxPieces < 1 ||
    queueDepth < 1
  )
    throw new VbusError(
      "EPROTO",
      `the device has blocks of ${blockSize} bytes, takes ${maxPieces} pieces with ${maxLength} bytes, ${maxBulk} at once, ${queueDepth} requests: not what this driver knows`,
    );
  return result;
}
