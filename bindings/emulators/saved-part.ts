import { VbusError } from "../errors.js";
import type { StateReader, StateValue } from "../state/reader.js";
import type { RestoreOptions, Saveable } from "../state/saveable.js";
import type { EmulatorHost } from "./host.js";
import type { EmulatorInterrupts } from "./interrupts.js";
import { EmulatorMachine } from "./machine.js";

/**
 * What is attached to a machine, as parts for `quiesce` and `restoreState` of `vbus/state`: one for each attachment, with the
 * tree of devices that was made for it. Call it when the guest has stopped, and save the emulator's own part after it: doorbells
 * and interrupts that were kept for later are dealt with first. Machines of v86's have `saveMachine`.
 *
 * ```ts
 * const quiesced = await quiesce(savedParts(host));
 * const state = quiesced.save(emulator.saveState());     // RAM, processor, interrupt controller, devices of its own
 * quiesced.resume();
 * ```
 *
 * @throws VbusError ENOTCONN when nothing is attached; EINVAL for what is no host
 */
export function savedParts(host: EmulatorHost): Saveable[] {
  const machine = EmulatorMachine.of(host);
  if (machine !== undefined) return machine.settle();
  if (typeof (host as Partial<EmulatorHost> | null | undefined)?.hook !== "function")
    throw new VbusError(
      "EINVAL",
      "this is no EmulatorHost; give the one that things were attached to, not what attaching returned",
    );
  throw new VbusError(
    "ENOTCONN",
    "nothing is attached to this emulator; attach it first, with the same host, or save the emulator's own state alone",
  );
}

/** What is saved of something attached. */
export interface SavedAttachment {
  /** What a state finds it by: its place in the machine. */
  readonly name: string;
  /** Registers, configuration space, and what is behind them. */
  readonly connector: Saveable;
  /** The level of its interrupt line. */
  readonly line: () => boolean;
  /** The tree of devices that was made for it; null when there is none, or it is the embedder's. */
  readonly tree?: Saveable | null;
  /** The machine was restored: what the emulator shows of the connector is to be taken over from it. */
  readonly refresh?: () => void;
}

/** An attachment as a part of its machine: the emulator's interrupt controller, which is restored by itself, knows its line. */
export function savedPart(
  { name, connector, line, tree = null, refresh }: SavedAttachment,
  interrupts: EmulatorInterrupts,
): Saveable {
  return {
    stateName: name,
    holds: connector,
    async settle() {
      await connector.settle();
    },
    hold() {
      interrupts.catchUp();
      connector.hold();
    },
    release() {
      connector.release();
    },
    save(): StateValue {
      return { connector: connector.save(), tree: tree?.save() ?? null };
    },
    check(state: StateReader) {
      const saved = state.get("tree").nullable((at) => at);
      if ((saved === null) !== (tree === null))
        state.fail(
          "a bus of the machine's own and one of the embedder's are saved in different ways: use what was used then",
        );
      if (saved !== null) tree?.check(saved);
      connector.check(state.get("connector"));
    },
    clear() {
      connector.clear();
      refresh?.();
    },
    restore(state: StateReader, options: RestoreOptions) {
      const saved = state.get("tree").nullable((at) => at);
      if (saved !== null) tree?.restore(saved, options); // first: sessions are those with devices of the tree
      connector.restore(state.get("connector"), options);
      interrupts.restore(line());
      refresh?.();
    },
    restored(options: RestoreOptions) {
      tree?.restored?.(options);
      connector.restored?.(options);
    },
  };
}
