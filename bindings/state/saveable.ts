import type { StateReader, StateValue } from "./reader.js";

/** What becomes of the addresses of network cards when a state is restored. */
export type MacPolicy = "keep" | "renew";

/** How parts are restored. */
export interface RestoreOptions {
  /**
   * `keep` (the default): a card has the address that it had, and announces itself where it is plugged in now. `renew`: it gets
   * a new one, for a second guest made of the same state; see `docs/state.md` for what its guest notices.
   */
  readonly macs?: MacPolicy;
}

/**
 * A part of a machine that can be saved: a bridge with the sessions of its guest, a virtio function, a tree of devices.
 *
 *     settle ─► hold ─► save ─► release                      the guest goes on
 *     check ─► settle ─► hold ─► clear ─► (memory) ─► restore ─► release     the guest is the saved one
 *
 * The guest does not run from before `settle` until after `release`. All but `settle` is synchronous.
 */
export interface Saveable {
  /** What it is found by in a state: the same for the part that was saved and for the one that takes over. */
  readonly stateName: string;
  /**
   * What stands still while this part is held, when that is another object: it can be held only once at a time. Null when
   * nothing has to: then several may hold the part at once, such as guests that share a tree. Default: the part itself.
   */
  readonly holds?: object | null;
  /**
   * Ends what takes time and touches the guest's memory: operations of back ends. Nothing of the kind begins until
   * {@link Saveable.release}.
   * @throws VbusError EOPNOTSUPP when something of it cannot be saved; then nothing is settled
   */
  settle(): Promise<void>;
  /** From now on nothing of it touches the guest's memory or interrupts. What comes from outside waits outside. */
  hold(): void;
  /** Goes on where it was when it was settled or held; harmless when it was neither. */
  release(): void;
  /** Everything that makes it what it is, as plain data; while held. */
  save(): StateValue;
  /** Looks at a saved state as far as it can be without guest memory; changes nothing. @throws StateError */
  check(state: StateReader): void;
  /** Becomes what it is after a reset of the machine: before the guest's memory is replaced, while held. */
  clear(): void;
  /**
   * Becomes what was saved: after {@link Saveable.clear}, with the guest's memory as it was then, while held. When it throws,
   * it is as after `clear`.
   * @throws StateError; VbusError ENOMEM
   */
  restore(state: StateReader, options: RestoreOptions): void;
  /** All parts were restored and released: what has to be told to the outside, such as where a card is now. */
  restored?(options: RestoreOptions): void;
}
