import { VbusError } from "../../../errors.js";
import { checkSize, zeroByWriting, type BlockBackend } from "../backend.js";

/** The part of `FileSystemSyncAccessHandle` that is used here. */
export interface SyncAccessHandle {
  /** Reads at `at`; returns the number of bytes, fewer at the end of the file. */
  read(target: Uint8Array<ArrayBuffer>, options: { at: number }): number;
  /** Writes at `at`; returns the number of bytes. */
  write(data: Uint8Array<ArrayBuffer>, options: { at: number }): number;
  /** Changes the file's size. */
  truncate(size: number): void;
  /** The file's size. */
  getSize(): number;
  /** Makes it durable. */
  flush(): void;
  /** Releases the file's lock. */
  close(): void;
}

/**
 * A disk in a file of a browser's origin private file system, for hosts in a dedicated worker:
 *
 * ```ts
 * const root = await navigator.storage.getDirectory();
 * const file = await root.getFileHandle("disk.img", { create: true });
 * const backend = new OpfsBackend(await file.createSyncAccessHandle());
 * ```
 *
 * The handle locks the file until {@link OpfsBackend.close}. Its operations are synchronous: they hold up the worker.
 * In a page, where there are no such handles, use a `CowOverlay` over `new BlobBackend(await file.getFile())`.
 */
export class OpfsBackend implements BlockBackend {
  readonly description = "opfs";
  #size: number;
  #closed = false;

  /**
   * @param handle - belongs to the back end from now on
   * @param readOnly - true: the content never changes
   * @throws VbusError EINVAL when the size is no multiple of 512
   */
  constructor(
    private readonly handle: SyncAccessHandle,
    readonly readOnly = false,
  ) {
    this.#size = checkSize(handle.getSize(), "the file");
  }

  /** Size in bytes. */
  get size(): number {
    return this.#size;
  }

  /** {@inheritDoc BlockBackend.read} */
  async read(offset: number, target: Uint8Array<ArrayBuffer>): Promise<void> {
    const n = perform(() => this.handle.read(target, { at: offset }));
    if (n !== target.length)
      throw new VbusError("EIO", `the file ends at ${offset + n}, before the disk does`);
  }

  /** {@inheritDoc BlockBackend.write} */
  async write(offset: number, data: Uint8Array<ArrayBuffer>): Promise<void> {
    const n = perform(() => this.handle.write(data, { at: offset }));
    if (n !== data.length)
      throw new VbusError("ENOSPC", `only ${n} of ${data.length} bytes could be stored; free some storage`);
  }

  /** {@inheritDoc BlockBackend.flush} */
  async flush(): Promise<void> {
    perform(() => {
      this.handle.flush();
    });
  }

  /** {@inheritDoc BlockBackend.writeZeroes} */
  writeZeroes(offset: number, length: number): Promise<void> {
    return zeroByWriting(this, offset, length);
  }

  /** {@inheritDoc BlockBackend.resize} */
  async resize(size: number): Promise<void> {
    checkSize(size, "the file");
    perform(() => {
      this.handle.truncate(size);
    });
    this.#size = size;
  }

  /** {@inheritDoc BlockBackend.close} */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.handle.close();
  }
}

/** Tells a full quota from other failures. */
function perform<T>(operation: () => T): T {
  try {
    return operation();
  } catch (cause) {
    const full = cause instanceof Error && cause.name === "QuotaExceededError";
    throw new VbusError(
      full ? "ENOSPC" : "EIO",
      full ? "the origin's storage quota is used up" : "the file of the origin private file system failed",
      { cause },
    );
  }
}
