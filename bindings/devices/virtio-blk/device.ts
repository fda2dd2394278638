import {
  VIRTIO_BLK_CONFIG_OFF_BLK_SIZE,
  VIRTIO_BLK_CONFIG_OFF_CAPACITY,
  VIRTIO_BLK_CONFIG_OFF_DISCARD_ALIGNMENT,
  VIRTIO_BLK_CONFIG_OFF_MAX_DISCARD_SECTORS,
  VIRTIO_BLK_CONFIG_OFF_MAX_DISCARD_SEG,
  VIRTIO_BLK_CONFIG_OFF_MAX_ZEROES_SECTORS,
  VIRTIO_BLK_CONFIG_OFF_MAX_ZEROES_SEG,
  VIRTIO_BLK_CONFIG_OFF_MIN_IO,
  VIRTIO_BLK_CONFIG_OFF_NUM_QUEUES,
  VIRTIO_BLK_CONFIG_OFF_OPT_IO,
  VIRTIO_BLK_CONFIG_OFF_PHYSICAL_EXP,
  VIRTIO_BLK_CONFIG_OFF_SEG_MAX,
  VIRTIO_BLK_CONFIG_OFF_SIZE_MAX,
  VIRTIO_BLK_CONFIG_OFF_WRITEBACK,
  VIRTIO_BLK_CONFIG_OFF_ZEROES_MAY_UNMAP,
  VIRTIO_BLK_CONFIG_SIZE,
  VIRTIO_BLK_F_BLK_SIZE,
  VIRTIO_BLK_F_CONFIG_WCE,
  VIRTIO_BLK_F_DISCARD,
  VIRTIO_BLK_F_FLUSH,
  VIRTIO_BLK_F_MQ,
  VIRTIO_BLK_F_RO,
  VIRTIO_BLK_F_SEG_MAX,
  VIRTIO_BLK_F_SIZE_MAX,
  VIRTIO_BLK_F_TOPOLOGY,
  VIRTIO_BLK_F_WRITE_ZEROES,
  VIRTIO_BLK_ID_SIZE,
  VIRTIO_BLK_SECTOR_SIZE,
} from "../../../assembly/abi/virtio-blk.js";
import { VIRTIO_ID_BLOCK } from "../../../assembly/abi/virtio-status.js";
import { VbusError } from "../../errors.js";
import type { StateReader, StateValue } from "../../state/reader.js";
import { restoreCounters, saveCounters } from "../saved.js";
import type { VirtioFace, VirtioQueue, VirtioSession, VirtioSessionContext } from "../../virtio/types.js";
import { checkBackend, type BlockBackend } from "../vblk/backend.js";
import { Medium } from "../vblk/medium.js";
import { BufferPool } from "./buffers.js";
import { RequestQueue, type QueueEnvironment } from "./queue.js";
import { BULK_SECTORS_MAX, BULK_SEGMENTS_MAX, SEGMENT_SIZE_MAX, SEGMENTS_MAX } from "./request.js";
import { emptyStatistics, type VirtioBlkStatistics } from "./statistics.js";

/** How a virtio-blk device is set up. */
export interface VirtioBlkOptions {
  /** Name for messages. */
  name: string;
  /** Where its data lies, opened before; the device closes it. No two devices may share one. */
  backend: BlockBackend;
  /** Nothing may be written; default: what the back end says. */
  readOnly?: boolean;
  /** Serial number, up to 20 characters of ASCII; default the name's first ones. */
  serial?: string;
  /** Number of queues; default 1. */
  queues?: number;
  /** Most descriptors of a queue, a power of two; default 256. */
  queueSize?: number;
  /** Block size that the driver is told, a power of two from 512 to 65536; default 512. */
  blockSize?: number;
  /** Physical block size that the driver is told, at least the block size; default 4096, or the block size. */
  physicalBlockSize?: number;
  /** Most operations of the back end under way; default 64. */
  depth?: number;
  /** Told when the back end fails, once until it works again, and when it cannot be closed. */
  onError?: (error: unknown) => void;
}

const QUEUE_SIZE = 256;
const DEPTH = 64;
const QUEUES_MAX = 256;

const mask = (bit: number): bigint => 1n << BigInt(bit);
const has = (features: bigint, bit: number): boolean => (features & mask(bit)) !== 0n;

/**
 * A virtio-blk device without a transport (virtio 1.2: 5.2), on the back ends of vblk: hand it to virtio-pci, virtio-mmio or
 * virtio over vbus.
 */
export class VirtioBlk implements VirtioFace {
  readonly deviceType = VIRTIO_ID_BLOCK;
  readonly configSize = VIRTIO_BLK_CONFIG_SIZE;
  readonly inOrder = false;
  readonly name: string;
  readonly queueSizes: readonly number[];
  readonly features: bigint;
  readonly readOnly: boolean;
  readonly serial: string;
  readonly statistics: VirtioBlkStatistics = emptyStatistics();
  readonly #backend: BlockBackend;
  readonly #medium: Medium;
  readonly #buffers = new BufferPool();
  readonly #blockSize: number;
  readonly #physicalBlockSize: number;
  readonly #onError: (error: unknown) => void;
  #session: BlockSession | null = null;
  /** The back end failed the last time; told already. */
  #failing = false;
  #closed = false;

  /** @throws VbusError EINVAL for options that make no sense, EROFS for a back end that cannot be written when it should be */
  constructor(options: VirtioBlkOptions) {
    const { name, backend, queues = 1, queueSize = QUEUE_SIZE, blockSize = VIRTIO_BLK_SECTOR_SIZE } = options;
    checkBackend(backend, `${name}: \`backend\` is`);
    const { readOnly = backend.readOnly, depth = DEPTH } = options;
    const { physicalBlockSize = Math.max(4096, blockSize) } = options;
    if (!Number.isInteger(queues) || queues < 1 || queues > QUEUES_MAX)
      throw new VbusError("EINVAL", `${queues} queues; give 1 to ${QUEUES_MAX}`);
    if (!Number.isInteger(depth) || depth < 1)
      throw new VbusError("EINVAL", `a depth of ${depth}; give 1 or more`);
    if (!isPowerOfTwo(blockSize) || blockSize < VIRTIO_BLK_SECTOR_SIZE || blockSize > 65536)
      throw new VbusError("EINVAL", `blocks of ${blockSize} bytes; give a power of two from 512 to 65536`);
    if (!isPowerOfTwo(physicalBlockSize) || physicalBlockSize < blockSize)
      throw new VbusError(
        "EINVAL",
        `physical blocks of ${physicalBlockSize} bytes; give a power of two, the block size or more`,
      );
    if (!readOnly && backend.readOnly)
      throw new VbusError(
        "EROFS",
        `${backend.description} cannot be written; use another back end, or readOnly`,
      );
    this.name = name;
    this.serial = serialNumber(options.serial ?? name.replace(/[^ -~]/g, "?").slice(0, VIRTIO_BLK_ID_SIZE));
    this.readOnly = readOnly;
    this.#backend = backend;
    this.#medium = new Medium(backend, depth);
    this.#blockSize = blockSize;
    this.#physicalBlockSize = physicalBlockSize;
    this.#onError = options.onError ?? ((): void => undefined);
    this.queueSizes = Array.from({ length: queues }, () => queueSize);
    this.features =
      mask(VIRTIO_BLK_F_SIZE_MAX) |
      mask(VIRTIO_BLK_F_SEG_MAX) |
      mask(VIRTIO_BLK_F_BLK_SIZE) |
      mask(VIRTIO_BLK_F_FLUSH) |
      mask(VIRTIO_BLK_F_TOPOLOGY) |
      mask(VIRTIO_BLK_F_CONFIG_WCE) |
      (queues > 1 ? mask(VIRTIO_BLK_F_MQ) : 0n) |
      (readOnly
        ? mask(VIRTIO_BLK_F_RO)
        : mask(VIRTIO_BLK_F_WRITE_ZEROES) |
          (backend.discard === undefined ? 0n : mask(VIRTIO_BLK_F_DISCARD)));
  }

  /** No bit needs another one (5.2.3). */
  acceptable(): boolean {
    return true;
  }

  /** Writes the configuration, as it is at this moment. */
  readConfig(into: Uint8Array, features: bigint): void {
    const view = new DataView(into.buffer, into.byteOffset, into.byteLength);
    const sectors = this.size / VIRTIO_BLK_SECTOR_SIZE;
    view.setUint32(VIRTIO_BLK_CONFIG_OFF_CAPACITY, sectors >>> 0, true);
    view.setUint32(VIRTIO_BLK_CONFIG_OFF_CAPACITY + 4, Math.floor(sectors / 2 ** 32), true);
    view.setUint32(VIRTIO_BLK_CONFIG_OFF_SIZE_MAX, SEGMENT_SIZE_MAX, true);
    view.setUint32(VIRTIO_BLK_CONFIG_OFF_SEG_MAX, SEGMENTS_MAX, true);
    view.setUint32(VIRTIO_BLK_CONFIG_OFF_BLK_SIZE, this.#blockSize, true);
    view.setUint8(VIRTIO_BLK_CONFIG_OFF_PHYSICAL_EXP, Math.log2(this.#physicalBlockSize / this.#blockSize));
    view.setUint16(VIRTIO_BLK_CONFIG_OFF_MIN_IO, this.#physicalBlockSize / this.#blockSize, true);
    view.setUint32(VIRTIO_BLK_CONFIG_OFF_OPT_IO, 0, true); // nothing is better than anything else
    // before anything is negotiated, what would be (5.2.5)
    const writeBack = this.#session?.writeBack ?? (features === 0n || has(features, VIRTIO_BLK_F_FLUSH));
    view.setUint8(VIRTIO_BLK_CONFIG_OFF_WRITEBACK, writeBack ? 1 : 0);
    view.setUint16(VIRTIO_BLK_CONFIG_OFF_NUM_QUEUES, this.queueSizes.length, true);
    view.setUint32(VIRTIO_BLK_CONFIG_OFF_MAX_DISCARD_SECTORS, BULK_SECTORS_MAX, true);
    view.setUint32(VIRTIO_BLK_CONFIG_OFF_MAX_DISCARD_SEG, BULK_SEGMENTS_MAX, true);
    view.setUint32(VIRTIO_BLK_CONFIG_OFF_DISCARD_ALIGNMENT, this.#blockSize / VIRTIO_BLK_SECTOR_SIZE, true);
    view.setUint32(VIRTIO_BLK_CONFIG_OFF_MAX_ZEROES_SECTORS, BULK_SECTORS_MAX, true);
    view.setUint32(VIRTIO_BLK_CONFIG_OFF_MAX_ZEROES_SEG, BULK_SEGMENTS_MAX, true);
    view.setUint8(VIRTIO_BLK_CONFIG_OFF_ZEROES_MAY_UNMAP, 1);
  }

  /** The write cache may be turned off and on (5.2.5, 5.2.6.2); anything else is ignored. */
  writeConfig(offset: number, bytes: Uint8Array, features: bigint): void {
    const value = bytes[VIRTIO_BLK_CONFIG_OFF_WRITEBACK - offset];
    if (value === undefined || this.#session === null || !has(features, VIRTIO_BLK_F_CONFIG_WCE)) return;
    this.#session.writeBack = value !== 0;
  }

  /** A driver is there. @throws VbusError EBUSY when another transport has the device, ENOTCONN after close */
  start(context: VirtioSessionContext): VirtioSession {
    if (this.#closed) throw new VbusError("ENOTCONN", `${this.name} was closed; make a new device`);
    if (this.#session !== null)
      throw new VbusError("EBUSY", `${this.name} has a driver on another transport`);
    const session = new BlockSession(this, context, this.#medium, this.#buffers, (error) => {
      this.#backendDid(error);
    });
    this.#session = session;
    session.start();
    return session;
  }

  /** The session ended. @internal */
  ended(session: VirtioSession): void {
    if (this.#session === session) this.#session = null;
  }

  #backendDid(error: unknown): void {
    if (error !== null && !this.#failing) this.#onError(error);
    this.#failing = error !== null;
  }

  /** True while a driver uses the device. */
  get open(): boolean {
    return this.#session !== null;
  }

  /** Size of the medium in bytes. */
  get size(): number {
    return this.#medium.size;
  }

  /**
   * Changes the size; the driver is told. Resolves when the back end has done it.
   * @throws VbusError EINVAL (size), EROFS, EOPNOTSUPP (fixed size), EBUSY (another one is under way); what the back end
   *   rejects with
   */
  resize(size: number): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.readOnly) throw new VbusError("EROFS", `${this.name} is read-only and keeps its size`);
      this.#medium.resize(size, (error) => {
        this.#session?.resized();
        if (error === null) resolve();
        else
          reject(
            error instanceof Error ? error : new VbusError("EIO", "the resize failed", { cause: error }),
          );
      });
      this.#session?.resized(); // a smaller size counts at once
    });
  }

  /** Ends the device, and its back end once everything under way has ended. Its transport should be gone by then. */
  close(): Promise<void> {
    if (this.#closed) return Promise.resolve();
    this.#closed = true;
    return new Promise((resolve) => {
      this.#medium.close((error) => {
        if (error !== null)
          this.#onError(
            new VbusError("EIO", `${this.name}: ${this.#backend.description} could not be closed`, {
              cause: error,
            }),
          );
        resolve();
      });
    });
  }
}

/** One driver's session, from DRIVER_OK to reset. */
class BlockSession implements VirtioSession, QueueEnvironment {
  readonly discards: boolean;
  readonly writesZeroes: boolean;
  /** Writes may be cached until the next flush. */
  writeBack: boolean;
  readonly #queues = new Map<number, RequestQueue>();
  readonly #count: number;
  #stopped = false;

  constructor(
    private readonly device: VirtioBlk,
    private readonly context: VirtioSessionContext,
    readonly medium: Medium,
    readonly buffers: BufferPool,
    readonly backendDid: (error: unknown) => void,
  ) {
    const { features } = context;
    this.discards = has(features, VIRTIO_BLK_F_DISCARD);
    this.writesZeroes = has(features, VIRTIO_BLK_F_WRITE_ZEROES);
    // a driver that does not know how to flush expects writes to be durable (5.2.6.2)
    this.writeBack = has(features, VIRTIO_BLK_F_FLUSH);
    this.#count = has(features, VIRTIO_BLK_F_MQ) ? device.queueSizes.length : 1;
  }

  get scheduler(): VirtioSessionContext["scheduler"] {
    return this.context.scheduler;
  }

  get memory(): VirtioSessionContext["memory"] {
    return this.context.memory;
  }

  get statistics(): VirtioBlkStatistics {
    return this.device.statistics;
  }

  get serial(): string {
    return this.device.serial;
  }

  get readOnly(): boolean {
    return this.device.readOnly;
  }

  get size(): number {
    return this.medium.size;
  }

  get writeThrough(): boolean {
    return !this.writeBack;
  }

  /** @throws VbusError ENOMEM */
  start(): void {
    try {
      for (let index = 0; index < this.#count; index++) {
        const queue = this.context.queue(index);
        if (queue !== null) this.#setUp(queue);
      }
    } catch (error) {
      this.stop();
      throw error;
    }
  }

  #setUp(queue: VirtioQueue): void {
    if (queue.index >= this.#count) return; // a queue of a feature that was not negotiated: nobody looks at it
    const requests = new RequestQueue(queue, this);
    this.#queues.set(queue.index, requests);
    requests.start();
  }

  /** The medium has another size. */
  resized(): void {
    this.context.configChanged();
  }

  failed(cause: unknown): void {
    const guilty = cause instanceof VbusError && cause.code === "EPROTO";
    this.context.needsReset(
      new VbusError(
        guilty ? "EPROTO" : "EIO",
        `${this.device.name}: ${guilty ? "the guest broke" : "the host failed at"} a request queue; it works again once the driver resets the device`,
        { cause },
      ),
    );
  }

  queueStarted(queue: VirtioQueue): void {
    if (this.#stopped) return;
    try {
      this.#setUp(queue);
    } catch (error) {
      this.context.needsReset(error);
    }
  }

  queueStopped(index: number): void {
    this.#queues.get(index)?.close();
    this.#queues.delete(index);
  }

  /** As `VirtioSession.settle` says: nothing is taken meanwhile, so that nothing is in flight at the end. */
  async settle(): Promise<void> {
    await this.medium.settle();
    for (const queue of this.#queues.values()) queue.settle();
  }

  save(): StateValue {
    return {
      writeBack: this.writeBack,
      medium: this.medium.save(),
      statistics: saveCounters(this.statistics),
    };
  }

  restore(state: StateReader): void {
    this.medium.check(state.get("medium"));
    this.writeBack = state.get("writeBack").boolean();
    restoreCounters(this.statistics, state.get("statistics"));
  }

  /** As `VirtioSession.resumed` says: what lies in the queues is looked at. */
  resumed(restored: boolean): void {
    if (restored) for (const queue of this.#queues.values()) queue.start();
  }

  stop(): void {
    if (this.#stopped) return;
    this.#stopped = true;
    for (const index of [...this.#queues.keys()]) this.queueStopped(index);
    this.device.ended(this);
  }
}

/** A virtio-blk device; hand it to a transport. @throws VbusError EINVAL for options that make no sense, EROFS */
export function virtioBlk(options: VirtioBlkOptions): VirtioBlk {
  return new VirtioBlk(options);
}

function isPowerOfTwo(n: number): boolean {
  return Number.isInteger(n) && n > 0 && Number.isInteger(Math.log2(n));
}

/** @throws VbusError EINVAL */
function serialNumber(serial: string): string {
  if (!/^[ -~]*$/.test(serial) || serial.length > VIRTIO_BLK_ID_SIZE)
    throw new VbusError(
      "EINVAL",
      `"${serial}": give a serial of up to ${VIRTIO_BLK_ID_SIZE} characters of ASCII`,
    );
  return serial;
}
