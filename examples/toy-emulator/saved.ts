import { savedParts } from "vbus/emulators";
import { quiesce, restoreState } from "vbus/state";
import type { ToyMachine } from "./machine.js";

/**
 * Saves a machine with all that is attached to it, in one piece of bytes. It must stand still ({@link ToyMachine.halt}), and may
 * run again afterwards.
 * @throws VbusError EOPNOTSUPP for a device that cannot be saved, ENOTCONN when nothing is attached
 */
export async function saveToy(machine: ToyMachine): Promise<Uint8Array> {
  const quiesced = await quiesce(savedParts(machine.host));
  try {
    return quiesced.save(machine.save());
  } finally {
    quiesced.resume();
  }
}

/**
 * Makes a machine that stands still what another one was, or itself, when it was saved; the same things must be attached to it.
 * @throws StateError; VbusError ENOTCONN when nothing is attached. When it throws, the machine is as it was, or as after a reset
 */
export async function restoreToy(machine: ToyMachine, bytes: Uint8Array): Promise<void> {
  const progress = { begun: false };
  try {
    await restoreState(savedParts(machine.host), bytes, {
      check: (own) => {
        machine.check(own);
      },
      memory: (own) => {
        progress.begun = true;
        machine.restore(own);
      },
    });
  } catch (error) {
    if (progress.begun) machine.reset();
    throw error;
  }
}
