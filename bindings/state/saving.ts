import { VbusError } from "../errors.js";
import { decodeState, encodeState } from "./container.js";
import { StateError } from "./error.js";
import type { StateReader, StateValue } from "./reader.js";
import type { RestoreOptions, Saveable } from "./saveable.js";

const PARTS_MAX = 256;

function named(parts: Iterable<Saveable>): Map<string, Saveable> {
  const byName = new Map<string, Saveable>();
  for (const part of parts) {
    if (byName.has(part.stateName))
      throw new VbusError(
        "EEXIST",
        `two parts are named "${part.stateName}"; each needs its own name in a state`,
      );
    byName.set(part.stateName, part);
  }
  return byName;
}

/** Settles and holds parts; releases all when one of them cannot. */
async function holdAll(parts: Iterable<Saveable>): Promise<void> {
  const all = [...parts];
  try {
    // what is settled stays settled while the others get there; holding is one step for all
    await Promise.all(all.map((part) => part.settle()));
    for (const part of all) part.hold();
  } catch (error) {
    for (const part of all) part.release();
    throw error;
  }
}

/** Parts of a machine that stand still. Made by {@link quiesce}. */
export class Quiesced {
  #live = true;

  /** @internal Use {@link quiesce}. */
  constructor(private readonly parts: ReadonlyMap<string, Saveable>) {}

  /**
   * What they are, in one piece of bytes. May be called several times.
   * @param extra - of the embedder's, such as the state of the emulator; {@link restoreState} hands it back
   * @throws VbusError ENOTCONN after {@link Quiesced.resume}
   */
  save(extra: StateValue = null): Uint8Array<ArrayBuffer> {
    if (!this.#live) throw new VbusError("ENOTCONN", "these parts go on already; quiesce them again");
    const parts: Record<string, StateValue> = {};
    for (const [name, part] of this.parts) parts[name] = part.save();
    return encodeState({ parts, extra });
  }

  /** They go on; what came from outside meanwhile is taken. Twice is harmless. */
  resume(): void {
    if (!this.#live) return;
    this.#live = false;
    for (const part of this.parts.values()) part.release();
  }
}

/**
 * Has all parts of a machine stand still: nothing of them touches the guest's memory or interrupts it, and what the outside
 * sends waits there, where it is not lost. The guest must not run: stop its emulator before, and start it after
 * {@link Quiesced.resume}. Save the guest's memory while the parts are quiesced.
 *
 * ```ts
 * await emulator.stop();
 * const quiesced = await quiesce([host.function]);
 * const state = quiesced.save(new Uint8Array(emulator.memoryImage()));
 * quiesced.resume();
 * emulator.run();
 * ```
 *
 * @throws VbusError EOPNOTSUPP when a part holds something that cannot be saved; EEXIST for two parts of one name
 */
export async function quiesce(parts: Iterable<Saveable>): Promise<Quiesced> {
  const byName = named(parts);
  await holdAll(byName.values());
  return new Quiesced(byName);
}

/** How a state is restored. */
export interface RestoreStateOptions extends RestoreOptions {
  /**
   * Awaited when the state was looked at and everything stands still, before anything changes: no operation of a disk is under
   * way, so this is when files behind disks can be put back to what they were. What it throws ends the restoring.
   */
  readonly atStandstill?: () => void | Promise<void>;
  /**
   * Puts the guest's memory, its processor and whatever else is the emulator's own back to what was saved; called when the
   * state has been looked at and the parts have let go of the memory. What it throws ends the restoring.
   * @param extra - what was given to {@link Quiesced.save}
   */
  readonly memory?: (extra: StateReader) => void;
  /** Looks at `extra` before anything is touched; throws to refuse it. */
  readonly check?: (extra: StateReader) => void;
}

/**
 * Makes parts of a machine what they were when a state was saved: new ones, or the same ones (rewinding them). The guest must
 * not run. Each saved part is found by its name, and there must be no others.
 *
 * A state that is foreign, of another version, damaged, or of a machine with other parts changes nothing. When one that passed
 * all that turns out to contradict itself or to need devices that are not there, or `memory` throws, all parts are left as after
 * a reset of the machine: nothing is half restored.
 *
 * @throws StateError; VbusError ENOMEM; what `memory`, `check` and `atStandstill` throw
 */
export async function restoreState(
  parts: Iterable<Saveable>,
  bytes: Uint8Array,
  options: RestoreStateOptions = {},
): Promise<void> {
  const byName = named(parts);
  const state = decodeState(bytes);
  const saved = state.get("parts");
  const names = saved.names(PARTS_MAX);
  for (const name of names) {
    if (!byName.has(name))
      throw new StateError(
        "mismatch",
        `the state holds a part "${name}", which this machine lacks; attach it, in the same place, before restoring`,
      );
  }
  for (const name of byName.keys()) {
    if (!names.includes(name))
      throw new StateError(
        "mismatch",
        `this machine has a part "${name}", of which the state knows nothing; leave it out`,
      );
  }
  const extra = state.get("extra");
  options.check?.(extra);
  for (const [name, part] of byName) part.check(saved.get(name));
  await holdAll(byName.values());
  try {
    await options.atStandstill?.();
  } catch (error) {
    for (const part of byName.values()) part.release();
    throw error;
  }
  try {
    for (const part of byName.values()) part.clear();
    options.memory?.(extra);
    for (const [name, part] of byName) part.restore(saved.get(name), options);
  } catch (error) {
    for (const part of byName.values()) part.clear();
    throw error;
  } finally {
    for (const part of byName.values()) part.release();
  }
  for (const part of byName.values()) part.restored?.(options);
}
