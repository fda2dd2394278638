import { VbusError } from "../../errors.js";
import { StateError } from "../../state/error.js";
import type { StateReader, StateValue } from "../../state/reader.js";
import { checkSize, type BlockBackend } from "./backend.js";
import { Operations } from "./operations.js";

/**
 * The back end as a device has it: its operations kept apart, and the size that guests may use, which during a resize is
 * the smaller one.
 */
export class Medium {
  /** What runs and what waits. */
  readonly operations: Operations;
  #size: number;
  #resizing = false;
  #closed = false;

  /** @throws VbusError EINVAL when the back end's size is no multiple of 512 */
  constructor(
    readonly backend: BlockBackend,
    depth: number,
  ) {
    this.#size = checkSize(backend.size, backend.description);
    this.operations = new Operations(depth);
  }

  /** Bytes that guests may use. */
  get size(): number {
    return this.#size;
  }

  /**
   * A guest's machine is about to be saved: waits until everything under way has ended, and has what was written made durable,
   * for the saved guest takes it for written. What the back end rejects with passes unchanged.
   */
  async settle(): Promise<void> {
    await this.operations.idle();
    if (!this.backend.readOnly) await this.backend.flush();
  }

  /** What a saved state has to find again. */
  save(): StateValue {
    return { size: this.#size, description: this.backend.description };
  }

  /** @throws StateError mismatch when this is another medium than the one that was saved */
  check(state: StateReader): void {
    const size = state.get("size").number(0, Number.MAX_SAFE_INTEGER);
    if (size === this.#size) return;
    const was = state.get("description").text(4096);
    throw new StateError(
      "mismatch",
      `the guest had a disk of ${size} bytes (${was}), and this one has ${this.#size} (${this.backend.description}); open the disk as it was when the state was saved`,
    );
  }

  /**
   * Changes the size. Requests beyond a smaller size are refused from now on; the back end changes once those under way
   * there have ended; `done` is told then, with an error when the size stays as it was.
   * @throws VbusError EINVAL (size), EROFS, EOPNOTSUPP (fixed size), EBUSY (another one is under way)
   */
  resize(size: number, done: (error: unknown) => void): void {
    const { backend } = this;
    checkSize(size, "the new size");
    if (backend.readOnly)
      throw new VbusError("EROFS", `${backend.description} is read-only and keeps its size`);
    if (backend.resize === undefined)
      throw new VbusError("EOPNOTSUPP", `${backend.description} has a fixed size`);
    if (this.#resizing)
      throw new VbusError("EBUSY", "a resize is under way; write the size again when it is done");
    this.#resizing = true;
    const smaller = Math.min(this.#size, size);
    this.#size = smaller;
    this.operations.submit({
      owner: this,
      start: smaller,
      end: Infinity,
      kind: "change",
      run: async () => backend.resize?.(size),
      done: (error) => {
        this.#resizing = false;
        this.#size = backend.size;
        done(error);
      },
    });
  }

  /** Closes the back end once everything under way has ended; `done` is told. Twice is harmless. */
  close(done: (error: unknown) => void): void {
    if (this.#closed) return;
    this.#closed = true;
    this.operations.submit({
      owner: this,
      start: 0,
      end: Infinity,
      kind: "alone",
      run: () => this.backend.close(),
      done,
    });
  }
}
