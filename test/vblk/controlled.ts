/** A disk in memory whose operations wait until the test lets them happen, in the order of the test. */
import { MemoryBackend, type BlockBackend } from "vbus/devices/vblk";

/** An operation that was begun. */
export interface Held {
  kind: "read" | "write" | "flush" | "writeZeroes" | "discard" | "resize" | "close";
  offset: number;
  length: number;
  /** Does it and resolves. */
  proceed: () => void;
  /** Does nothing and rejects. */
  fail: (error: Error) => void;
}

export class ControlledBackend implements BlockBackend {
  readonly description = "controlled";
  readonly readOnly = false;
  readonly content: MemoryBackend;
  /** What was begun and has not ended, oldest first. */
  readonly held: Held[] = [];
  /** Most that were under way at a time. */
  peak = 0;
  /** False: operations happen at once. */
  hold = true;
  /** Told of every operation that begins. */
  onBegin: (held: Held) => void = () => {};
  closed = 0;

  constructor(content: number | Uint8Array) {
    this.content = new MemoryBackend(content);
  }

  get size(): number {
    return this.content.size;
  }

  #hold(
    kind: Held["kind"],
    offset: number,
    length: number,
    act: () => Promise<void> = async () => {},
  ): Promise<void> {
    if (!this.hold) return act();
    return new Promise((resolve, reject) => {
      const gone = (): void => {
        this.held.splice(this.held.indexOf(held), 1);
      };
      const held: Held = {
        kind,
        offset,
        length,
        proceed: () => {
          gone();
          act().then(resolve, reject);
        },
        fail: (error) => {
          gone();
          reject(error);
        },
      };
      this.held.push(held);
      this.peak = Math.max(this.peak, this.held.length);
      this.onBegin(held);
    });
  }

  /** Lets everything go, and whatever comes later. */
  release(): void {
    this.hold = false;
    for (const held of [...this.held]) held.proceed();
  }

  read(offset: number, target: Uint8Array<ArrayBuffer>): Promise<void> {
    return this.#hold("read", offset, target.length, () => this.content.read(offset, target));
  }

  write(offset: number, data: Uint8Array<ArrayBuffer>): Promise<void> {
    return this.#hold("write", offset, data.length, () => this.content.write(offset, data));
  }

  flush(): Promise<void> {
    return this.#hold("flush", 0, 0);
  }

  writeZeroes(offset: number, length: number): Promise<void> {
    return this.#hold("writeZeroes", offset, length, () => this.content.writeZeroes(offset, length));
  }

  discard(offset: number, length: number): Promise<void> {
    return this.#hold("discard", offset, length, () => this.content.discard(offset, length));
  }

  resize(size: number): Promise<void> {
    return this.#hold("resize", 0, size, () => this.content.resize(size));
  }

  async close(): Promise<void> {
    this.closed++;
  }
}
