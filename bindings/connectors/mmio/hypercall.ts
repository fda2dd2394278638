import { EINVAL, ENOENT } from "../../../assembly/abi/errno.js";
import {
  VBUS_CPUID_DEFAULT,
  VBUS_CPUID_END,
  VBUS_CPUID_FIRST,
  VBUS_CPUID_LEAVES,
  VBUS_CPUID_SIGNATURE,
  VBUS_CPUID_STEP,
  VBUS_HYPERCALL_CALL,
  VBUS_HYPERCALL_EVENTQ,
  VBUS_HYPERCALL_FASTCALL,
  VBUS_HYPERCALL_INTERRUPT,
  VBUS_HYPERCALL_RESET,
  VBUS_HYPERCALL_SHMSIGNAL,
  VBUS_HYPERCALL_STATE,
  VBUS_HYPERCALL_VERSION,
  VBUS_NO_INTERRUPT,
} from "../../../assembly/abi/vbus-mmio.js";
import { BRIDGE_VERSION } from "../../../assembly/abi/vbus.js";
import { VbusError } from "../../errors.js";
import type { StateReader, StateValue } from "../../state/reader.js";
import type { RestoreOptions, Saveable } from "../../state/saveable.js";
import { LineBridge, type LineBridgeCounters, type LineBridgeOptions } from "../bridge/line-bridge.js";

/** What a processor's CPUID instruction returns; unsigned. */
export interface CpuidRegisters {
  readonly eax: number;
  readonly ebx: number;
  readonly ecx: number;
  readonly edx: number;
}

/** Where a guest finds the hypercalls, and what interrupts it. */
export interface VbusCpuidOptions {
  /**
   * First of the two leaves: 0x40000000 to 0x4000ff00 in steps of 0x100; default 0x40007600. Guests look at all of these
   * places, so it may be any that no other hypervisor interface has.
   */
  readonly leaf?: number | undefined;
  /** Number of the interrupt that events raise, as the guest's platform counts them; absent: none, the guest polls. */
  readonly irq?: number | undefined;
}

/** How {@link VbusHypercall} is wired. */
export interface VbusHypercallOptions extends LineBridgeOptions, VbusCpuidOptions {}

/** What the hypercalls counted. */
export interface VbusHypercallCounters extends LineBridgeCounters {
  /** Hypercalls with a number of ours, failed ones included. */
  hypercalls: number;
}

/**
 * What CPUID is to return for a leaf (`docs/abi/vbus-mmio.md` section 8), or null when the leaf is not ours. For emulators
 * whose processor has the instruction.
 * @throws VbusError EINVAL for a place where guests do not look, or an interrupt that is no 32-bit number
 */
export function vbusCpuid(leaf: number, options: VbusCpuidOptions = {}): CpuidRegisters | null {
  const { leaf: first = VBUS_CPUID_DEFAULT, irq = VBUS_NO_INTERRUPT } = options;
  if (!(first >= VBUS_CPUID_FIRST && first < VBUS_CPUID_END && first % VBUS_CPUID_STEP === 0)) {
    throw new VbusError(
      "EINVAL",
      `CPUID leaf 0x${first.toString(16)}; give a multiple of 0x100 from 0x40000000 to 0x4000ff00`,
    );
  }
  if (!(Number.isInteger(irq) && irq >= 0 && irq <= VBUS_NO_INTERRUPT))
    throw new VbusError("EINVAL", `interrupt ${irq}; give its number, or leave it out`);
  switch ((leaf >>> 0) - first) {
    case 0:
      return {
        eax: first + VBUS_CPUID_LEAVES - 1,
        ebx: VBUS_CPUID_SIGNATURE,
        ecx: VBUS_CPUID_SIGNATURE,
        edx: VBUS_CPUID_SIGNATURE,
      };
    case 1:
      return { eax: VBUS_HYPERCALL_VERSION, ebx: BRIDGE_VERSION, ecx: VBUS_HYPERCALL_CALL, edx: irq };
    default:
      return null;
  }
}

/**
 * The bridge as hypercalls (`docs/abi/vbus-mmio.md` section 7), for emulators that have an instruction to call them and
 * neither PCI nor a page to spare: the same calls, doorbells and interrupt as the register page. It knows no emulator and no
 * processor: whoever decodes the instruction passes number and arguments on. Used by the emulator's thread.
 *
 * Hypercalls come from a guest and never throw.
 */
export class VbusHypercall implements Saveable {
  /** As `Saveable.stateName` says. */
  readonly stateName = "hypercalls";
  /** Calls, events, signals and interrupt of the guest. */
  readonly line: LineBridge;
  readonly #place: VbusCpuidOptions;
  #calls = 0;

  /** @throws VbusError EPERM when the member was not admitted; ENOMEM; EINVAL as {@link vbusCpuid} */
  constructor(options: VbusHypercallOptions) {
    this.#place = { leaf: options.leaf, irq: options.irq };
    vbusCpuid(0, this.#place); // a wrong place is the embedder's mistake, and must not wait for the guest
    this.line = new LineBridge(options);
  }

  /** What CPUID is to return for a leaf, or null when it is not ours. */
  cpuid(leaf: number): CpuidRegisters | null {
    return vbusCpuid(leaf, this.#place);
  }

  /**
   * Executes a hypercall, synchronously.
   * @param number - which; as unsigned as the guest meant it
   * @param a - first argument, 32 bits
   * @param b - second
   * @param c - third
   * @param d - fourth
   * @returns its result, signed: >= 0 or a negated errno; null when the number is not ours, so that somebody else may answer
   */
  call(number: number, a = 0, b = 0, c = 0, d = 0): number | null {
    const result = this.#execute(number >>> 0, a >>> 0, b >>> 0, c >>> 0, d >>> 0);
    if (result !== null) this.#calls++;
    return result;
  }

  #execute(number: number, a: number, b: number, c: number, d: number): number | null {
    const { line } = this;
    switch (number) {
      case VBUS_HYPERCALL_CALL:
        return line.call(a, b, c, d);
      case VBUS_HYPERCALL_EVENTQ:
        return line.eventq(a) ? 0 : -EINVAL;
      case VBUS_HYPERCALL_FASTCALL:
        return line.fastcall(a) ? 0 : -ENOENT;
      case VBUS_HYPERCALL_SHMSIGNAL:
        line.onSignal(a);
        return 0;
      case VBUS_HYPERCALL_INTERRUPT: {
        const { status } = line;
        line.acknowledge(status);
        return status;
      }
      case VBUS_HYPERCALL_RESET:
        line.reset();
        return 0;
      case VBUS_HYPERCALL_STATE:
        return line.state;
      default:
        return null;
    }
  }

  /** The machine was reset: the bridge is what it was at the start. */
  machineReset(): void {
    this.line.reset();
  }

  /** As `Saveable.settle` says. @throws VbusError EOPNOTSUPP */
  async settle(): Promise<void> {
    await this.line.bridge.settle();
  }

  /** As `Saveable.hold` says. */
  hold(): void {
    this.line.bridge.hold();
  }

  /** As `Saveable.release` says. */
  release(): void {
    this.line.bridge.release();
  }

  /** As `Saveable.clear` says. */
  clear(): void {
    this.machineReset();
  }

  /** As `Saveable.restored` says. */
  restored(): void {
    this.line.restored();
  }

  /** As `Saveable.save` says. */
  save(): StateValue {
    return this.line.save();
  }

  /** As `Saveable.check` says. @throws StateError */
  check(state: StateReader): void {
    this.line.bridge.check(state.get("bridge"));
  }

  /** As `Saveable.restore` says. @throws StateError; VbusError ENOMEM */
  restore(state: StateReader, options: RestoreOptions = {}): void {
    this.line.restore(state, options);
  }

  /** What was counted so far. */
  counters(): VbusHypercallCounters {
    return { ...this.line.counters(), hypercalls: this.#calls };
  }

  /** Ends everything, lowers the line, gives the arena back what the bridge took. Twice is harmless. */
  close(): void {
    this.line.close();
  }
}
