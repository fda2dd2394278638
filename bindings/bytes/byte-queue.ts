/** Smallest storage that is allocated. */
const SMALLEST = 1024;

/** A first-in first-out queue of bytes. It grows as needed and knows no limit: its owner decides what may enter. */
export class ByteQueue {
  #storage = new Uint8Array(0);
  #head = 0;
  #length = 0;

  /** Bytes held. */
  get length(): number {
    return this.#length;
  }

  /** Appends a copy of the bytes. */
  push(bytes: Uint8Array): void {
    this.#require(this.#length + bytes.length);
    const capacity = this.#storage.length;
    if (capacity === 0) return; // nothing to append, and nothing was ever
    const tail = (this.#head + this.#length) % capacity;
    const straight = Math.min(bytes.length, capacity - tail);
    this.#storage.set(bytes.subarray(0, straight), tail);
    this.#storage.set(bytes.subarray(straight), 0);
    this.#length += bytes.length;
  }

  #require(length: number): void {
    if (length <= this.#storage.length) return;
    const storage = new Uint8Array(Math.max(SMALLEST, 2 * this.#storage.length, length));
    this.#copyTo(storage, this.#length);
    this.#storage = storage;
    this.#head = 0;
  }

  /** Copies the first n bytes (at most {@link ByteQueue.length}) to the start of `target`. */
  #copyTo(target: Uint8Array, n: number): void {
    const straight = Math.min(n, this.#storage.length - this.#head);
    target.set(this.#storage.subarray(this.#head, this.#head + straight), 0);
    target.set(this.#storage.subarray(0, n - straight), straight);
  }

  /** Moves the oldest bytes to `target`, as many as it takes and there are. Returns how many. */
  takeInto(target: Uint8Array): number {
    const n = Math.min(target.length, this.#length);
    this.#copyTo(target, n);
    this.#drop(n);
    return n;
  }

  /** Takes the oldest n bytes (fewer when there are fewer). They are the caller's. */
  take(n: number): Uint8Array<ArrayBuffer> {
    const bytes = new Uint8Array(Math.min(n, this.#length));
    this.takeInto(bytes);
    return bytes;
  }

  /** A copy of everything held, which stays. */
  copy(): Uint8Array<ArrayBuffer> {
    const bytes = new Uint8Array(this.#length);
    this.#copyTo(bytes, bytes.length);
    return bytes;
  }

  #drop(n: number): void {
    this.#length -= n;
    this.#head = this.#length === 0 ? 0 : (this.#head + n) % this.#storage.length;
  }

  /** Forgets everything and gives the storage back. Returns how many bytes were forgotten. */
  clear(): number {
    const n = this.#length;
    this.#storage = new Uint8Array(0);
    this.#head = 0;
    this.#length = 0;
    return n;
  }
}
