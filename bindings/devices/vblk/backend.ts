import { VBLK_SECTOR_SIZE } from "../../../assembly/abi/vblk.js";
import { VbusError } from "../../errors.js";
import { checkGiven } from "../../given.js";

/**
 * Where the data of a block device lies. Opened by the embedder before the device is created; from then on it belongs to
 * the device, which closes it when it is removed and everything under way has ended.
 *
 * What the device promises: offsets and lengths are multiples of 512, above 0 and inside {@link BlockBackend.size};
 * operations that overlap are not under way at the same time unless all of them read; those that do not overlap are, in
 * any number up to the queue depth, and may end in any order. Buffers are host memory, never the guest's, and stay
 * untouched by the device until the promise settles. A back end must not touch them afterwards.
 *
 * Failure: reject with a `VbusError` (its code goes to the guest) or with an error whose `code` is an errno name that the
 * ABI knows, as those of `node:fs` are; anything else becomes EIO. A write that fails may have been carried out in part.
 */
export interface BlockBackend {
  /** What it is, for the device's attribute `backend`; one line, no secrets: guests do not see it, administrators do. */
  readonly description: string;
  /** Size in bytes, a multiple of 512; changed only by {@link BlockBackend.resize}. */
  readonly size: number;
  /** True: write, writeZeroes, discard and resize are never called. */
  readonly readOnly: boolean;
  /** Fills all of `target` from `offset` on. */
  read(offset: number, target: Uint8Array<ArrayBuffer>): Promise<void>;
  /** Writes all of `data` from `offset` on. */
  write(offset: number, data: Uint8Array<ArrayBuffer>): Promise<void>;
  /** Makes everything durable whose promise resolved before the call. */
  flush(): Promise<void>;
  /** The range reads as zeroes once it resolved. */
  writeZeroes(offset: number, length: number): Promise<void>;
  /** The range's content may be forgotten: it reads as zeroes or as before. Absent: the device does not offer discard. */
  discard?(offset: number, length: number): Promise<void>;
  /** Changes the size; what is added reads as zeroes. Nothing beyond the new size is under way. Absent: fixed size. */
  resize?(size: number): Promise<void>;
  /** Ends it; nothing is under way and nothing is called afterwards. Twice is harmless. */
  close(): Promise<void>;
}

/**
 * Passes through what a callback or an option of the embedder gave as a back end.
 * @param what - beginning of the message, such as "`backend` is"
 * @throws VbusError EINVAL for anything that is none, a promise above all
 */
export function checkBackend(backend: BlockBackend, what: string): BlockBackend {
  return checkGiven(
    backend,
    what,
    "give a back end that is open already, such as `const backend = await openFileBackend(path)` or `new MemoryBackend(size)`",
    "size",
    "read",
    "write",
    "close",
  );
}

/** Passes a size through that a block device can have. @throws VbusError EINVAL */
export function checkSize(size: number, what: string): number {
  if (!Number.isSafeInteger(size) || size < 0 || size % VBLK_SECTOR_SIZE !== 0)
    throw new VbusError(
      "EINVAL",
      `${what} has ${size} bytes; a block device needs a multiple of ${VBLK_SECTOR_SIZE}: pad it`,
    );
  return size;
}

/** Zeroes that nobody writes to; the largest step of {@link zeroByWriting}. */
const ZEROES = new Uint8Array(1 << 18);

/** Write-zeroes for back ends that can only write: in steps of at most 256 KiB. */
export async function zeroByWriting(backend: BlockBackend, offset: number, length: number): Promise<void> {
  for (let done = 0; done < length;) {
    const step = Math.min(ZEROES.length, length - done);
    await backend.write(offset + done, ZEROES.subarray(0, step));
    done += step;
  }
}
