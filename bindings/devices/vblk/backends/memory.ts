import { VbusError } from "../../../errors.js";
import { checkSize, type BlockBackend } from "../backend.js";

/**
 * A disk in the host's memory: as fast as it gets, gone with the process. Takes its size in memory from the beginning
 * (which most platforms provide page by page, as it is written).
 */
export class MemoryBackend implements BlockBackend {
  readonly description = "memory";
  #bytes: Uint8Array<ArrayBuffer>;

  /**
   * @param content - size in bytes, or the initial content, which is copied
   * @param readOnly - true: the content never changes
   * @throws VbusError EINVAL (size no multiple of 512), ENOMEM
   */
  constructor(
    content: number | Uint8Array,
    readonly readOnly = false,
  ) {
    const size = checkSize(typeof content === "number" ? content : content.length, "the content");
    this.#bytes = allocate(size);
    if (typeof content !== "number") this.#bytes.set(content);
  }

  /** Size in bytes. */
  get size(): number {
    return this.#bytes.length;
  }

  /** The content. Borrowed: another array after a resize; changing it behind a guest's back is like swapping its disk. */
  get bytes(): Uint8Array<ArrayBuffer> {
    return this.#bytes;
  }

  /** {@inheritDoc BlockBackend.read} */
  async read(offset: number, target: Uint8Array<ArrayBuffer>): Promise<void> {
    target.set(this.#bytes.subarray(offset, offset + target.length));
  }

  /** {@inheritDoc BlockBackend.write} */
  async write(offset: number, data: Uint8Array<ArrayBuffer>): Promise<void> {
    this.#bytes.set(data, offset);
  }

  /** {@inheritDoc BlockBackend.flush} */
  async flush(): Promise<void> {
    // durable as it can be
  }

  /** {@inheritDoc BlockBackend.writeZeroes} */
  async writeZeroes(offset: number, length: number): Promise<void> {
    this.#bytes.fill(0, offset, offset + length);
  }

  /** Discarded ranges read as zeroes. */
  async discard(offset: number, length: number): Promise<void> {
    this.#bytes.fill(0, offset, offset + length);
  }

  /** {@inheritDoc BlockBackend.resize} */
  async resize(size: number): Promise<void> {
    const bytes = allocate(checkSize(size, "the new content"));
    bytes.set(this.#bytes.subarray(0, size));
    this.#bytes = bytes;
  }

  /** The content stays readable through {@link MemoryBackend.bytes}. */
  async close(): Promise<void> {
    // nothing to give back but memory
  }
}

function allocate(size: number): Uint8Array<ArrayBuffer> {
  try {
    return new Uint8Array(size);
  } catch (cause) {
    throw new VbusError("ENOMEM", `no memory for a disk of ${size} bytes; use a file or an overlay`, {
      cause,
    });
  }
}
