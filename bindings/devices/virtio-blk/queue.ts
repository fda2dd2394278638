import {
  VIRTIO_BLK_ID_SIZE,
  VIRTIO_BLK_S_IOERR,
  VIRTIO_BLK_S_OK,
  VIRTIO_BLK_S_UNSUPP,
} from "../../../assembly/abi/virtio-blk.js";
import { ChainTable } from "../../engine/chain-table.js";
import { VirtQueueWakeups } from "../../engine/virtqueue-wakeup.js";
import { VbusError } from "../../errors.js";
import type { MemorySpace } from "../../memory/space.js";
import type { Scheduler } from "../../scheduler.js";
import type { VirtioQueue } from "../../virtio/types.js";
import type { Medium } from "../vblk/medium.js";
import type { BufferPool } from "./buffers.js";
import {
  checkRequest,
  piecesOf,
  SEGMENTS_MAX,
  type BlockRequest,
  type Limits,
  type Piece,
} from "./request.js";
import type { VirtioBlkStatistics } from "./statistics.js";

/** Requests looked at at once. */
const BURST = 32;
/** Header and status have pieces of their own, and a driver may cut where it likes. */
const PIECES = SEGMENTS_MAX + 66;

/** What a queue needs of its device. */
export interface QueueEnvironment extends Limits {
  /** Where deferred work runs. */
  readonly scheduler: Scheduler;
  /** The guest's memory. */
  readonly memory: MemorySpace;
  /** The back end. */
  readonly medium: Medium;
  /** Host memory for data. */
  readonly buffers: BufferPool;
  /** Counters of the device. */
  readonly statistics: VirtioBlkStatistics;
  /** The serial number: up to 20 characters of ASCII. */
  readonly serial: string;
  /** True: a write is durable before it completes. */
  readonly writeThrough: boolean;
  /** The guest broke the queue (EPROTO), or the host failed at it; told once. */
  failed(error: unknown): void;
  /** An operation of the back end ended: null, or what it rejected with. */
  backendDid(error: unknown): void;
}

/** A request under way. */
interface Outstanding {
  readonly id: number;
  readonly slots: number;
  /** Bytes of the chain's writable part; the last is the status. */
  readonly room: number;
  /** Where the status goes. */
  readonly statusAt: Piece;
}

/**
 * A request queue of virtio-blk (virtio 1.2: 5.2.6): takes requests as they come, and completes them as the back end does, in
 * any order. Data passes through buffers of the host, so that a back end never sees guest memory and guest memory is never
 * touched after {@link RequestQueue.close}.
 */
export class RequestQueue {
  readonly #chains: ChainTable;
  readonly #wakeups: VirtQueueWakeups;
  #outstanding = 0;
  /** Completed in this moment; they are published together. */
  readonly #done: { readonly request: Outstanding; readonly used: number }[] = [];
  #flushPosted = false;
  #failed = false;
  #closed = false;

  /** @throws VbusError ENOMEM */
  constructor(
    private readonly queue: VirtioQueue,
    private readonly environment: QueueEnvironment,
  ) {
    this.#chains = ChainTable.allocate(queue.ring.space, BURST, PIECES);
    this.#wakeups = new VirtQueueWakeups(queue.ring, {
      scheduler: environment.scheduler,
      notifier: () => {
        this.#take();
      },
      onBroken: (error) => {
        this.#fail(error);
      },
    });
    queue.onKick = this.#wakeups.wakeup;
  }

  /** Takes requests from now on. */
  start(): void {
    this.#wakeups.enable();
  }

  /** Takes one burst of requests; what is left is for the next turn of the wake-up loop. @throws VbusError EPROTO */
  #take(): void {
    const { ring } = this.queue;
    const n = ring.peek(this.#chains, BURST);
    if (n === 0) return;
    ring.advance(n); // from now on they are outstanding, whatever order they end in
    for (let i = 0; i < n; i++) {
      this.#accept(i);
      if (this.#isClosed()) return; // the session ended inside a back end
    }
  }

  #isClosed(): boolean {
    return this.#closed || this.queue.ring.closed;
  }

  #accept(i: number): void {
    const chains = this.#chains;
    const { statistics, medium } = this.environment;
    const room = chains.writableBytes(i);
    const [statusAt] = room === 0 ? [] : piecesOf(chains, i, "writable", room - 1, 1);
    if (statusAt === undefined) {
      this.queue.ring.violate("request");
      throw new VbusError(
        "EPROTO",
        "the guest sent a block request without room for a status; it must reset the device",
      );
    }
    const outstanding = { id: chains.id(i), slots: chains.slots(i), room, statusAt };
    this.#outstanding++;
    statistics.requests++;
    statistics.outstanding++;
    const request = checkRequest(chains, i, this.environment);
    if (typeof request === "number") {
      this.#complete(outstanding, request);
      return;
    }
    statistics.operations[request.operation]++;
    if (request.operation === "getId") {
      this.#complete(outstanding, this.#answerId(request));
      return;
    }
    if (request.operation === "flush") {
      medium.operations.submit({
        owner: this,
        start: 0,
        end: 0,
        kind: "change",
        run: () => medium.backend.flush(),
        done: (error) => {
          this.#ended(outstanding, error);
        },
      });
      return;
    }
    if (request.operation === "read" || request.operation === "write") this.#transfer(outstanding, request);
    else this.#bulk(outstanding, request);
  }

  #answerId({ pieces }: BlockRequest): number {
    const id = new Uint8Array(VIRTIO_BLK_ID_SIZE);
    const { serial } = this.environment;
    for (let k = 0; k < serial.length; k++) id[k] = serial.charCodeAt(k);
    return this.#scatter(pieces, id) ? VIRTIO_BLK_S_OK : VIRTIO_BLK_S_IOERR;
  }

  /** A read or write. It touches guest memory only when it starts and when it has ended. */
  #transfer(outstanding: Outstanding, { operation, ranges, pieces }: BlockRequest): void {
    const { medium, buffers, statistics } = this.environment;
    const { offset, length } = ranges[0] as { offset: number; length: number };
    let buffer: Uint8Array<ArrayBuffer> | null = null;
    medium.operations.submit({
      owner: this,
      start: offset,
      end: offset + length,
      kind: operation === "read" ? "read" : "change",
      run: async () => {
        buffer = buffers.take(length);
        const data = buffer.subarray(0, length);
        if (operation === "read") {
          await medium.backend.read(offset, data);
          return;
        }
        this.#gather(pieces, data);
        await medium.backend.write(offset, data);
        if (this.environment.writeThrough) await medium.backend.flush();
      },
      done: (error) => {
        let status = error === null ? VIRTIO_BLK_S_OK : VIRTIO_BLK_S_IOERR;
        if (buffer !== null) {
          if (operation === "read" && error === null && !this.#isClosed()) {
            if (this.#scatter(pieces, buffer.subarray(0, length))) statistics.bytesRead += length;
            else status = VIRTIO_BLK_S_IOERR;
          }
          buffers.give(buffer);
        }
        if (operation === "write" && error === null && !this.#isClosed()) statistics.bytesWritten += length;
        this.#ended(outstanding, error, status);
      },
    });
  }

  /** A discard or write-zeroes: one operation of the back end for each segment; it fails when one of them does. */
  #bulk(outstanding: Outstanding, { operation, ranges }: BlockRequest): void {
    const { medium } = this.environment;
    let left = ranges.length;
    let failure: unknown = null;
    for (const { offset, length } of ranges) {
      medium.operations.submit({
        owner: this,
        start: offset,
        end: offset + length,
        kind: "change",
        run: async () => {
          if (operation === "discard") await medium.backend.discard?.(offset, length);
          else await medium.backend.writeZeroes(offset, length);
          if (operation !== "discard" && this.environment.writeThrough) await medium.backend.flush();
        },
        done: (error) => {
          failure ??= error;
          if (--left === 0) this.#ended(outstanding, failure);
        },
      });
    }
  }

  /** The back end is done with a request. */
  #ended(
    outstanding: Outstanding,
    error: unknown,
    status = error === null ? VIRTIO_BLK_S_OK : VIRTIO_BLK_S_IOERR,
  ): void {
    const guestFault = error instanceof VbusError && error.code === "EFAULT";
    if (!guestFault) this.environment.backendDid(error);
    if (!this.#isClosed()) this.#complete(outstanding, status); // else the memory is somebody else's by now
  }

  /** @throws VbusError EFAULT when the guest's memory moved away meanwhile */
  #gather(pieces: readonly Piece[], into: Uint8Array): void {
    let at = 0;
    for (const { gpa, length } of pieces) {
      into.set(this.environment.memory.view(gpa, length), at);
      at += length;
    }
  }

  /** Copies data into the guest's pieces. False when its memory moved away meanwhile. */
  #scatter(pieces: readonly Piece[], data: Uint8Array): boolean {
    let at = 0;
    try {
      for (const { gpa, length } of pieces) {
        this.environment.memory.copyTo(gpa, data.subarray(at, at + length));
        at += length;
      }
      return true;
    } catch (error) {
      if (error instanceof VbusError && error.code === "EFAULT") return false;
      throw error;
    }
  }

  #complete(request: Outstanding, status: number): void {
    const { statistics } = this.environment;
    if (this.#failed) return; // nothing can be answered any more; counted when the queue ends
    this.#scatter([request.statusAt], Uint8Array.of(status));
    this.#outstanding--;
    statistics.outstanding--;
    if (status === VIRTIO_BLK_S_OK) statistics.completed++;
    else if (status === VIRTIO_BLK_S_UNSUPP) statistics.unsupported++;
    else statistics.failed++;
    this.#done.push({ request, used: request.room });
    if (this.#flushPosted) return;
    this.#flushPosted = true;
    this.environment.scheduler.post(() => {
      this.#flushPosted = false;
      this.#publish();
    });
  }

  /** Gives back what the back end is done with at once; when it is done with everything, nothing is in flight. */
  settle(): void {
    this.#publish();
  }

  /** Gives the guest what was completed, with at most one interrupt. */
  #publish(): void {
    const done = this.#done.splice(0);
    if (this.#isClosed() || this.#failed) return;
    let interrupt = false;
    try {
      for (const { request, used } of done) {
        if (this.queue.ring.completeOne(request.id, request.slots, used)) interrupt = true;
      }
    } catch (error) {
      this.#fail(error);
      return;
    }
    if (interrupt) this.queue.interrupt();
  }

  #fail(error: unknown): void {
    if (this.#failed) return;
    this.#failed = true;
    this.environment.statistics.violations++;
    this.environment.failed(error);
  }

  /** Ends it: what is outstanding is never completed. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#wakeups.close();
    this.queue.onKick = null;
    const { medium, statistics } = this.environment;
    medium.operations.cancel(this);
    statistics.cancelled += this.#outstanding;
    statistics.outstanding -= this.#outstanding;
    this.#outstanding = 0;
    this.#done.length = 0;
    this.#chains.close();
  }
}
