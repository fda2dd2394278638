import { VbusError } from "../../../errors.js";
import { checkSize, type BlockBackend } from "../backend.js";

/**
 * A read-only disk from a `Blob`: a file that a user picked, a download, or a file of the origin private file system
 * (`await handle.getFile()`). Nothing is read before it is needed. Put a `CowOverlay` on top for a disk that can be written.
 */
export class BlobBackend implements BlockBackend {
  readonly description: string;
  readonly readOnly = true;
  readonly size: number;

  /** @throws VbusError EINVAL when the size is no multiple of 512 */
  constructor(private readonly blob: Blob) {
    const { name } = blob as { name?: string };
    this.description = name === undefined ? "blob" : `blob ${name}`;
    this.size = checkSize(blob.size, "the blob");
  }

  /** {@inheritDoc BlockBackend.read} */
  async read(offset: number, target: Uint8Array<ArrayBuffer>): Promise<void> {
    const end = offset + target.length;
    const bytes = await this.blob.slice(offset, end).arrayBuffer();
    // a file that changed after it was picked
    if (bytes.byteLength !== target.length)
      throw new VbusError("EIO", `the blob has no bytes ${offset} to ${end} any more; open it again`);
    target.set(new Uint8Array(bytes));
  }

  /** @throws VbusError EROFS */
  async write(): Promise<void> {
    throw readOnly();
  }

  /** {@inheritDoc BlockBackend.flush} */
  async flush(): Promise<void> {
    // there is never anything to flush
  }

  /** @throws VbusError EROFS */
  async writeZeroes(): Promise<void> {
    throw readOnly();
  }

  /** {@inheritDoc BlockBackend.close} */
  async close(): Promise<void> {
    // a blob needs no closing
  }
}

function readOnly(): VbusError {
  return new VbusError("EROFS", "a blob cannot be written; put a CowOverlay on top of it");
}
