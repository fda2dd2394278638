import type { StateReader, StateValue } from "../../state/reader.js";
import type { RestoreOptions, Saveable } from "../../state/saveable.js";
import type { V86Interrupts } from "./interrupts.js";

/** A function as v86 has it: it knows the level of its interrupt line, which v86's controller has, too. */
export interface SavedFunction extends Saveable {
  /** True while the line is up. */
  readonly line: boolean;
}

/**
 * What is saved of something attached to v86: its function, the tree of devices that was made for it, and how both fit into a
 * machine that was just restored.
 */
export function savedPart(
  fn: SavedFunction,
  tree: Saveable | null,
  interrupts: V86Interrupts,
  restored: () => void,
): Saveable {
  return {
    stateName: fn.stateName,
    async settle() {
      interrupts.catchUp();
      await fn.settle();
    },
    hold() {
      interrupts.catchUp();
      fn.hold();
    },
    release() {
      fn.release();
    },
    save(): StateValue {
      return { function: fn.save(), tree: tree?.save() ?? null };
    },
    check(state: StateReader) {
      const saved = state.get("tree").nullable((at) => at);
      if ((saved === null) !== (tree === null))
        state.fail(
          "a bus of the machine's own and one of the embedder's are saved in different ways: use what was used then",
        );
      if (saved !== null) tree?.check(saved);
      fn.check(state.get("function"));
    },
    clear() {
      fn.clear();
    },
    restore(state: StateReader, options: RestoreOptions) {
      const saved = state.get("tree").nullable((at) => at);
      if (saved !== null) tree?.restore(saved, options); // first: sessions are those with devices of the tree
      fn.restore(state.get("function"), options);
      interrupts.restore(fn.line);
      restored();
    },
    restored(options: RestoreOptions) {
      tree?.restored?.(options);
      fn.restored?.(options);
    },
  };
}
