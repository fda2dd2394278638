import {
  ENTRY_HEAD_SIZE,
  ENTRY_OFF_CSUM_OFFSET,
  ENTRY_OFF_CSUM_START,
  ENTRY_OFF_GSO_KIND,
  ENTRY_OFF_GSO_SIZE,
  ENTRY_OFF_HEAD,
  ENTRY_OFF_HEADER_LENGTH,
  ENTRY_SIZE,
  GSO_NONE,
} from "../../assembly/abi/arena.js";
import { BurstTable } from "../engine/table.js";
import { VbusError } from "../errors.js";
import type { MemorySpace } from "../memory/space.js";
import { Batch } from "./batch.js";

/** What is unfinished about a frame; all members default to "nothing". */
export interface FrameOffload {
  /** `FRAME_…` flags. */
  flags?: number;
  /** First byte to sum (with FRAME_NEEDS_CSUM). */
  checksumStart?: number;
  /** Where the sum goes, from there. */
  checksumOffset?: number;
  /** `GSO_…` kind (with FRAME_GSO). */
  gsoKind?: number;
  /** Payload bytes per segment. */
  gsoSize?: number;
  /** Length of all headers in bytes. */
  headerLength?: number;
}

const FRAME_ALIGN = 16;

/**
 * A batch that TypeScript fills: for captures that are replayed, for generators, for tests. Frames are copied into a
 * buffer in the space, `add` until it says no, hand the {@link HostFrames.batch} on, `clear`, start over.
 */
export class HostFrames {
  /** The batch. Valid until {@link HostFrames.close}; its frames until {@link HostFrames.clear}. */
  readonly batch: Batch;
  readonly #table: BurstTable;
  readonly #buffer: number;
  #used = 0;
  #closed = false;

  /**
   * @param space - memory to put the frames in, usually the host's
   * @param maxFrames - most frames
   * @param maxBytes - room for their bytes; each frame takes a multiple of 16
   * @throws VbusError ENOMEM
   */
  constructor(
    readonly space: MemorySpace,
    readonly maxFrames = 64,
    readonly maxBytes = 128 * 1024,
  ) {
    this.#table = BurstTable.allocate(space, maxFrames);
    this.#buffer = space.allocate(maxBytes, 64);
    this.batch = new Batch(this.#table);
  }

  /** A batch of just these frames. @throws VbusError ENOMEM */
  static of(space: MemorySpace, frames: readonly Uint8Array[]): HostFrames {
    const bytes = frames.reduce((sum, frame) => sum + frame.length + FRAME_ALIGN, FRAME_ALIGN);
    const host = new HostFrames(space, Math.max(1, frames.length), bytes);
    for (const frame of frames) host.add(frame);
    return host;
  }

  /** True when a frame of `length` bytes can be added. */
  fits(length: number): boolean {
    return this.batch.count < this.maxFrames && this.#used + length <= this.maxBytes;
  }

  /**
   * Copies a frame to the end of the batch. False when it is full.
   * @throws VbusError ENOTCONN after close
   */
  add(frame: Uint8Array, offload: FrameOffload = {}): boolean {
    if (this.#closed) throw new VbusError("ENOTCONN", "these frames were closed; make new ones");
    const i = this.batch.count;
    if (!this.fits(frame.length)) return false;
    const address = this.#buffer + this.#used;
    const { bytes, data } = this.space.engine;
    const entry = this.#table.entry(i);
    bytes.fill(0, entry, entry + ENTRY_SIZE);
    this.#table.setBuffer(i, address, frame.length);
    this.#table.setFlags(i, offload.flags ?? 0);
    data.setUint16(entry + ENTRY_OFF_CSUM_START, offload.checksumStart ?? 0, true);
    data.setUint16(entry + ENTRY_OFF_CSUM_OFFSET, offload.checksumOffset ?? 0, true);
    bytes[entry + ENTRY_OFF_GSO_KIND] = offload.gsoKind ?? GSO_NONE;
    data.setUint16(entry + ENTRY_OFF_GSO_SIZE, offload.gsoSize ?? 0, true);
    data.setUint16(entry + ENTRY_OFF_HEADER_LENGTH, offload.headerLength ?? 0, true);
    bytes.set(frame, address);
    bytes.set(frame.subarray(0, ENTRY_HEAD_SIZE), entry + ENTRY_OFF_HEAD);
    this.#used = (this.#used + frame.length + FRAME_ALIGN - 1) & -FRAME_ALIGN;
    this.batch.count = i + 1;
    return true;
  }

  /** Empties the batch. */
  clear(): void {
    this.batch.count = 0;
    this.#used = 0;
  }

  /** Gives the memory back. Closing twice is harmless. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.clear();
    this.#table.close();
    this.space.free(this.#buffer);
  }
}
