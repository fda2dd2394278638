import { VbusError } from "../errors.js";
import { decodeState, encodeState } from "./container.js";
import { StateError } from "./error.js";
import type { StateReader, StateValue } from "./reader.js";
import type { RestoreOptions, Saveable } from "./saveable.js";

const PARTS_MAX = 256;

/** What stands still at this moment. */
const standing = new WeakSet();

function named(parts: Iterable<Saveable>): Map<string, Saveable> {
  const byName = new Map<string, Saveable>();
  const given = parts as Partial<Iterable<Partial<Saveable> | null | undefined>> | null | undefined;
  if (typeof given?.[Symbol.iterator] !== "function")
    throw new VbusError("EINVAL", "these are no parts; give a list of them, such as savedParts(host)");
  for (const part of parts) {
    if (typeof (part as Partial<Saveable> | null | undefined)?.stateName !== "string")
      throw new VbusError("EINVAL", "one of these is no part; give a list of them, such as savedParts(host)");
    if (byName.has(part.stateName))
      throw new VbusError(
        "EEXIST",
        `two parts are named "${part.stateName}"; each needs its own name in a state`,
      );
    byName.set(part.stateName, part);
  }
  return byName;
}

/** What of a part stands still; null: nothing. */
const heldOf = (part: Saveable): object | null => (part.holds === undefined ? part : part.holds);

function releaseAll(parts: Iterable<Saveable>): void {
  for (const part of parts) {
    const held = heldOf(part);
    if (held !== null) standing.delete(held);
    part.release();
  }
}

/** Settles and holds parts; releases all when one of them cannot. @throws VbusError EBUSY when one stands still already */
async function holdAll(parts: Iterable<Saveable>): Promise<void> {
  const all = [...parts];
  const taken = new Set<object>();
  for (const part of all) {
    const held = heldOf(part);
    if (held === null) continue;
    if (standing.has(held) || taken.has(held))
      throw new VbusError(
        "EBUSY",
        `"${part.stateName}" stands still already, to be saved or restored; wait for that, or call resume of what quiesce returned`,
      );
    taken.add(held);
  }
  for (const held of taken) standing.add(held);
  try {
    // what is settled stays settled while the others get there; holding is one step for all
    await Promise.all(all.map((part) => part.settle()));
    for (const part of all) part.hold();
  } catch (error) {
    releaseAll(all);
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
   * @throws VbusError ENOTCONN after {@link Quiesced.resume}; EINVAL for what cannot be saved as it is, such as an ArrayBuffer
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
    releaseAll(this.parts.values());
  }
}

/**
 * Has all parts of a machine stand still: nothing of them touches the guest's memory or interrupts it, and what the outside
 * sends waits there, where it is not lost. The guest must not run: stop its emulator before, and start it after
 * {@link Quiesced.resume}. Save the guest's memory while the parts are quiesced.
 *
 * ```ts
 * await emulator.stop();
 * const quiesced = await quiesce(savedParts(host));
 * const state = quiesced.save(new Uint8Array(emulator.memoryImage()));
 * quiesced.resume();
 * emulator.run();
 * ```
 *
 * @throws VbusError EOPNOTSUPP when a part holds something that cannot be saved; EBUSY when one stands still already; EEXIST for
 * two parts of one name; EINVAL for what is no list of parts
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
   * state has been looked at and the parts have let go of the memory. What it throws ends the restoring. A state with something
   * of the embedder's in it is not restored without this.
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
 * @throws StateError; VbusError ENOMEM, EBUSY when a part stands still already, EINVAL without a `memory` for what the embedder
 * saved; what `memory`, `check` and `atStandstill` throw
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
  if (!extra.absent && options.memory === undefined)
    throw new VbusError(
      "EINVAL",
      "the state holds the emulator's part as well; give `memory`, which puts it back, or the guest finds rings without its RAM",
    );
  options.check?.(extra);
  for (const [name, part] of byName) part.check(saved.get(name));
  await holdAll(byName.values());
  try {
    await options.atStandstill?.();
  } catch (error) {
    releaseAll(byName.values());
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
    releaseAll(byName.values());
  }
  for (const part of byName.values()) part.restored?.(options);
}
