/**
 * Block devices in files, for Node. Not part of `vbus/devices/vblk`, which also runs in pages.
 * @module
 */
import { open, type FileHandle } from "node:fs/promises";
import { VbusError, type ErrorCode } from "../../errors.js";
import { checkSize, zeroByWriting, type BlockBackend } from "./backend.js";

/** How a file is opened. */
export interface FileBackendOptions {
  /** True: opened for reading only. Default false. */
  readOnly?: boolean;
  /** Creates the file with this size in bytes, a multiple of 512 (sparse where the file system can); fails when it exists. */
  create?: number;
}

/**
 * Opens a file as the back end of a block device: `pread`, `pwrite`, flush = `fdatasync`. Nothing else should write the file
 * meanwhile. There is no discard, for Node cannot punch holes.
 * @throws VbusError EINVAL when it is a folder, or its size is no multiple of 512 (it is closed again); ENOENT, EEXIST (`create`),
 *   EPERM (not allowed), EROFS; EIO for any other failure of the file system
 */
export async function openFileBackend(path: string, options: FileBackendOptions = {}): Promise<BlockBackend> {
  const { readOnly = false, create } = options;
  if (create !== undefined) {
    checkSize(create, "the new file");
    if (readOnly) throw new VbusError("EINVAL", "a file that is created needs readOnly: false");
  }
  let file: FileHandle;
  try {
    file = await open(path, create !== undefined ? "wx+" : readOnly ? "r" : "r+");
  } catch (error) {
    throw openError(path, error as NodeJS.ErrnoException);
  }
  try {
    if (create !== undefined) await file.truncate(create);
    const found = await file.stat();
    if (found.isDirectory()) throw folderError(path);
    return new FileBackend(path, file, checkSize(found.size, path), readOnly);
  } catch (error) {
    await file.close();
    throw error;
  }
}

/** Errors of opening a file that say what to do. */
const OPEN_ERRORS: Readonly<Record<string, readonly [code: ErrorCode, message: string]>> = {
  ENOENT: ["ENOENT", "there is no such file; create: size makes one in a folder that exists"],
  EEXIST: ["EEXIST", "it is there already; open it without create"],
  EACCES: ["EPERM", "this user may not; readOnly: true needs to read only"],
  EPERM: ["EPERM", "this user may not; readOnly: true needs to read only"],
  EROFS: ["EROFS", "its file system is read-only; open it with readOnly: true"],
};

function openError(path: string, cause: NodeJS.ErrnoException): VbusError {
  if (cause.code === "EISDIR") return folderError(path);
  const [code, message] = OPEN_ERRORS[cause.code ?? ""] ?? ["EIO", cause.message];
  return new VbusError(code, `"${path}": ${message}`, { cause });
}

function folderError(path: string): VbusError {
  return new VbusError("EINVAL", `"${path}" is a folder; give the file of a disk`);
}

class FileBackend implements BlockBackend {
  readonly description: string;
  #size: number;
  #closed = false;

  constructor(
    path: string,
    private readonly file: FileHandle,
    size: number,
    readonly readOnly: boolean,
  ) {
    this.description = `file ${path}`;
    this.#size = size;
  }

  get size(): number {
    return this.#size;
  }

  async read(offset: number, target: Uint8Array<ArrayBuffer>): Promise<void> {
    for (let done = 0; done < target.length;) {
      const { bytesRead } = await this.file.read(target, done, target.length - done, offset + done);
      if (bytesRead === 0)
        throw new VbusError("EIO", `${this.description} ends at ${offset + done}; somebody made it shorter`);
      done += bytesRead;
    }
  }

  async write(offset: number, data: Uint8Array<ArrayBuffer>): Promise<void> {
    for (let done = 0; done < data.length;) {
      const { bytesWritten } = await this.file.write(data, done, data.length - done, offset + done);
      done += bytesWritten;
    }
  }

  async flush(): Promise<void> {
    await this.file.datasync();
  }

  writeZeroes(offset: number, length: number): Promise<void> {
    return zeroByWriting(this, offset, length);
  }

  async resize(size: number): Promise<void> {
    await this.file.truncate(checkSize(size, this.description));
    this.#size = size;
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.file.close();
  }
}
