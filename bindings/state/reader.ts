import { StateError } from "./error.js";

/** What states consist of: plain data, and bytes. */
export type StateValue =
  | null
  | boolean
  | number
  | string
  | Uint8Array
  | readonly StateValue[]
  | { readonly [name: string]: StateValue };

/** Looks a reference to bytes up; null for what is no such reference. */
export type BlobSource = (value: object) => Uint8Array | null;

/**
 * Reads a state that may be anything: every step says what is wanted, and throws when something else is there. A reader stands
 * for one value; `path` is for messages.
 */
export class StateReader {
  /**
   * @param value - what is there; `undefined`: nothing
   * @param path - where
   * @param blobs - where bytes are
   */
  constructor(
    private readonly value: unknown,
    readonly path: string,
    private readonly blobs: BlobSource = () => null,
  ) {}

  /** Refuses the state. @throws StateError contradiction */
  fail(wanted: string, cause?: unknown): never {
    throw new StateError(
      "contradiction",
      `the saved state says something at ${this.path} that cannot be: ${wanted}`,
      cause === undefined ? undefined : { cause },
    );
  }

  /** The value must be a record: its member of that name, which may be missing. @throws StateError contradiction */
  get(name: string): StateReader {
    const { value } = this;
    if (typeof value !== "object" || value === null || Array.isArray(value)) this.fail("a record is wanted");
    const member: unknown = Object.hasOwn(value, name) ? (value as Record<string, unknown>)[name] : undefined;
    return new StateReader(member, `${this.path}.${name}`, this.blobs);
  }

  /** The value must be a record of at most `max` members: their names. @throws StateError contradiction */
  names(max: number): string[] {
    const { value } = this;
    if (typeof value !== "object" || value === null || Array.isArray(value)) this.fail("a record is wanted");
    const names = Object.keys(value);
    if (names.length > max) this.fail(`a record of up to ${max} members is wanted`);
    return names;
  }

  /** True when nothing is there, or null. */
  get absent(): boolean {
    return this.value === undefined || this.value === null;
  }

  /** What `read` makes of the value, or null when it is null. @throws StateError contradiction, also for nothing at all */
  nullable<T>(read: (reader: this) => T): T | null {
    if (this.value === undefined) this.fail("it is missing");
    return this.value === null ? null : read(this);
  }

  /** The value must be a list of at most `max`. @throws StateError contradiction */
  items(max: number): StateReader[] {
    const { value } = this;
    if (!Array.isArray(value) || value.length > max) this.fail(`a list of up to ${max} is wanted`);
    // not map(): it passes over holes
    return Array.from(value, (item: unknown, i) => new StateReader(item, `${this.path}[${i}]`, this.blobs));
  }

  /** The value must be a list of just so many. @throws StateError contradiction */
  tuple(length: number): StateReader[] {
    const items = this.items(length);
    if (items.length !== length) this.fail(`a list of ${length} is wanted`);
    return items;
  }

  /** The value must be a whole number in a range. @throws StateError contradiction */
  number(min: number, max: number): number {
    const { value } = this;
    if (typeof value !== "number" || !Number.isSafeInteger(value) || value < min || value > max)
      this.fail(`a whole number from ${min} to ${max} is wanted`);
    return value;
  }

  /** The value must be true or false. @throws StateError contradiction */
  boolean(): boolean {
    const { value } = this;
    if (typeof value !== "boolean") this.fail("true or false is wanted");
    return value;
  }

  /** The value must be text of at most `max` characters. @throws StateError contradiction */
  text(max: number): string {
    const { value } = this;
    if (typeof value !== "string" || value.length > max)
      this.fail(`text of up to ${max} characters is wanted`);
    return value;
  }

  /** The value must be one of these. @throws StateError contradiction */
  oneOf<T extends string>(...values: readonly T[]): T {
    const found = values.find((candidate) => candidate === this.value);
    if (found === undefined) this.fail(`one of ${values.join(", ")} is wanted`);
    return found;
  }

  /** The value must be bits: a number of up to 128 of them, as {@link bitsValue} wrote it. @throws StateError contradiction */
  bits(): bigint {
    const { value } = this;
    if (typeof value !== "string" || !/^0x[0-9a-f]{1,32}$/.test(value))
      this.fail("bits are wanted, such as 0x1f");
    return BigInt(value);
  }

  /** The value must be bytes, as many as said. A copy, yours. @throws StateError contradiction */
  bytes(min: number, max = min): Uint8Array<ArrayBuffer> {
    const found = this.#blob();
    if (found === null || found.length < min || found.length > max)
      this.fail(`${min === max ? min : `${min} to ${max}`} bytes are wanted`);
    return new Uint8Array(found);
  }

  /** {@link StateReader.bytes} without a copy: borrowed from the state. @throws StateError contradiction */
  borrow(max: number): Uint8Array {
    const found = this.#blob();
    if (found === null || found.length > max) this.fail(`up to ${max} bytes are wanted`);
    return found;
  }

  #blob(): Uint8Array | null {
    const { value } = this;
    if (value instanceof Uint8Array) return value;
    return typeof value === "object" && value !== null ? this.blobs(value) : null;
  }

  /**
   * Runs what rebuilds something from the value; what it throws of its own accord refuses the state.
   * @throws StateError, mismatch when something else has the place that is needed; VbusError ENOMEM as it is
   */
  rebuild<T>(what: string, build: () => T): T {
    try {
      return build();
    } catch (error) {
      const { code } = error as { code?: unknown };
      if (error instanceof StateError || code === "ENOMEM") throw error;
      const failure = `${what} cannot be rebuilt: ${error instanceof Error ? error.message : String(error)}`;
      if (code === "EBUSY")
        throw new StateError(
          "mismatch",
          `the state's ${this.path} is taken here: ${failure}; give devices the names that they had, or end what has this one's place`,
          { cause: error },
        );
      return this.fail(failure, error);
    }
  }
}

/** Bits as a state holds them. */
export function bitsValue(bits: bigint): string {
  return `0x${bits.toString(16)}`;
}
