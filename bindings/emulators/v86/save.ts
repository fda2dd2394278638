import type { Vbus } from "../../bus/vbus.js";
import { VbusError } from "../../errors.js";
import { StateError } from "../../state/error.js";
import type { StateReader } from "../../state/reader.js";
import type { MacPolicy, Saveable } from "../../state/saveable.js";
import { quiesce, restoreState } from "../../state/saving.js";
import { EmulatorMachine } from "../machine.js";
import { stateOf, type V86Emulator, type V86Internals } from "./internals.js";
import { V86EmulatorHost } from "./host.js";

/** What of a machine is saved besides what is attached to it. */
export interface SaveMachineOptions {
  /**
   * The tree of devices behind a bus of yours; saved and restored with the machine. Without it only the guest's sessions are,
   * and their devices must be there, as they were, when they are restored. A bus that was made for `devices` is always saved.
   */
  readonly vbus?: Vbus;
  /**
   * Awaited while everything stands still, with what was written to disks flushed: when files behind disks are copied, or, when
   * a machine is restored, put back. Networks wait meanwhile, and give up after a while: be quick. What it throws ends the
   * saving or restoring, and the machine goes on.
   */
  readonly atStandstill?: () => void | Promise<void>;
}

/** How a machine is restored. */
export interface RestoreMachineOptions extends SaveMachineOptions {
  /** What becomes of the addresses of network cards; default `keep`. */
  readonly macs?: MacPolicy;
}

/** Most that a state of v86's can have. */
const EMULATOR_STATE_MAX = 2 ** 32;
/** Functions on v86's PCI bus. */
const FUNCTIONS = 256;

/** Emulators that are saved or restored at this moment. */
const busy = new WeakSet<V86Emulator>();

function machineOf(emulator: V86Emulator): { host: V86EmulatorHost; machine: EmulatorMachine } {
  const host = V86EmulatorHost.of(emulator);
  const machine = host === undefined ? undefined : EmulatorMachine.of(host);
  if (host !== undefined && machine !== undefined) return { host, machine };
  throw new VbusError(
    "ENOTCONN",
    "nothing is attached to this emulator; call attachVbus or attachVirtio first, or use v86's own save_state",
  );
}

/** Runs what stops and starts an emulator, which two cannot do at once. @throws VbusError EBUSY */
async function alone<T>(emulator: V86Emulator, act: () => Promise<T>): Promise<T> {
  if (busy.has(emulator))
    throw new VbusError("EBUSY", "this emulator is being saved or restored already; wait for that first");
  busy.add(emulator);
  try {
    return await act();
  } finally {
    busy.delete(emulator);
  }
}

function partsOf(machine: EmulatorMachine, { vbus }: SaveMachineOptions): Saveable[] {
  const parts = machine.settle();
  return vbus === undefined ? parts : [vbus, ...parts];
}

/**
 * Saves a machine of v86's with all that is attached to it: the guest stops, everything stands still for a moment, and goes on
 * when the state was taken (if the guest ran before). Nothing that the guest or the outside sent is lost.
 *
 * @returns everything in one piece of bytes, for {@link restoreMachine}
 * @throws VbusError EOPNOTSUPP when something that the guest uses cannot be saved; ENOTCONN when nothing is attached; EBUSY
 * while the same emulator is saved or restored
 */
export function saveMachine(
  emulator: V86Emulator,
  options: SaveMachineOptions = {},
): Promise<Uint8Array<ArrayBuffer>> {
  return alone(emulator, () => save(emulator, options));
}

async function save(emulator: V86Emulator, options: SaveMachineOptions): Promise<Uint8Array<ArrayBuffer>> {
  const { host, machine } = machineOf(emulator);
  const v86 = stateOf(emulator);
  const ran = v86.running;
  await v86.stop();
  try {
    const quiesced = await quiesce(partsOf(machine, options));
    try {
      await options.atStandstill?.();
      machine.written();
      const { pci, ramSize, hasApic } = host.internals;
      return quiesced.save({
        memory: ramSize,
        acpi: hasApic,
        emulator: new Uint8Array(v86.save()),
        raised: pci.raised,
      });
    } finally {
      quiesced.resume();
    }
  } finally {
    if (ran) await v86.run();
  }
}

/**
 * Makes a machine of v86's what it was when {@link saveMachine} saved it. It is either a new one, made with the same options
 * (memory, ACPI, cards) and the same things attached in the same slots; or the one that was saved, which is rewound. It runs
 * afterwards if it ran before.
 *
 * A state that cannot be used, or is of a machine with other memory or ACPI, is refused before anything is touched; one that
 * turns out to be forged leaves all that is attached as after a reset of the machine, and the emulator stopped.
 *
 * @throws StateError; VbusError ENOTCONN when nothing is attached, EBUSY while the same emulator is saved or restored, ENOMEM;
 * what v86 throws
 */
export function restoreMachine(
  emulator: V86Emulator,
  bytes: Uint8Array,
  options: RestoreMachineOptions = {},
): Promise<void> {
  return alone(emulator, () => restore(emulator, bytes, options));
}

async function restore(
  emulator: V86Emulator,
  bytes: Uint8Array,
  options: RestoreMachineOptions,
): Promise<void> {
  const { host, machine } = machineOf(emulator);
  const v86 = stateOf(emulator);
  const ran = v86.running;
  await v86.stop();
  const progress = { touched: false };
  try {
    await restoreState(partsOf(machine, options), bytes, {
      ...(options.macs === undefined ? {} : { macs: options.macs }),
      ...(options.atStandstill === undefined ? {} : { atStandstill: options.atStandstill }),
      check: (extra) => {
        checkMachine(extra, host.internals);
        readExtra(extra);
      },
      memory: (extra) => {
        progress.touched = true;
        const { image, raised } = readExtra(extra);
        try {
          v86.restore(image.slice().buffer);
        } catch (cause) {
          throw new StateError(
            "mismatch",
            "v86 cannot restore its part of the state; use the same release and options",
            {
              cause,
            },
          );
        }
        host.internals.pci.restoreRaised(raised);
      },
    });
  } catch (error) {
    if (ran && !progress.touched) await v86.run();
    throw error;
  }
  machine.written();
  if (ran) await v86.run();
}

/** Compares what v86 itself does not, or too late. @throws StateError mismatch */
function checkMachine(extra: StateReader, { ramSize, hasApic }: V86Internals): void {
  const memory = extra.get("memory").number(0, EMULATOR_STATE_MAX);
  if (memory !== ramSize)
    throw new StateError(
      "mismatch",
      `the state is of a machine with memory_size ${memory}, and this one has ${ramSize}; make the emulator with the same`,
    );
  const acpi = extra.get("acpi").boolean();
  if (acpi !== hasApic)
    throw new StateError(
      "mismatch",
      `the state is of a machine with acpi ${acpi}, and this one has ${hasApic}; make the emulator with the same`,
    );
}

function readExtra(extra: StateReader): { image: Uint8Array; raised: number[] } {
  return {
    image: extra.get("emulator").borrow(EMULATOR_STATE_MAX),
    raised: extra
      .get("raised")
      .items(FUNCTIONS)
      .map((item) => item.number(0, FUNCTIONS - 1)),
  };
}
