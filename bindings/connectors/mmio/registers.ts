import { EINVAL } from "../../../assembly/abi/errno.js";
import {
  VBUS_MMIO_FEATURES,
  VBUS_MMIO_MAGIC,
  VBUS_MMIO_OFF_CALL,
  VBUS_MMIO_OFF_DATAP_HIGH,
  VBUS_MMIO_OFF_DATAP_LOW,
  VBUS_MMIO_OFF_EVENTQ,
  VBUS_MMIO_OFF_FASTCALL,
  VBUS_MMIO_OFF_FEATURES,
  VBUS_MMIO_OFF_HC_VERSION,
  VBUS_MMIO_OFF_INTERRUPT_ACK,
  VBUS_MMIO_OFF_INTERRUPT_STATUS,
  VBUS_MMIO_OFF_LEN,
  VBUS_MMIO_OFF_MAGIC,
  VBUS_MMIO_OFF_RESET,
  VBUS_MMIO_OFF_RESULT,
  VBUS_MMIO_OFF_SHMSIGNAL,
  VBUS_MMIO_OFF_STATE,
  VBUS_MMIO_OFF_VERSION,
  VBUS_MMIO_VERSION,
} from "../../../assembly/abi/vbus-mmio.js";
import { BRIDGE_VERSION } from "../../../assembly/abi/vbus.js";
import type { StateReader, StateValue } from "../../state/reader.js";
import type { RestoreOptions, Saveable } from "../../state/saveable.js";
import { LineBridge, type LineBridgeCounters, type LineBridgeOptions } from "../bridge/line-bridge.js";

/** Width of an access in bytes. */
export type MmioWidth = 1 | 2 | 4;

/** What the register page counted. */
export interface VbusMmioCounters extends LineBridgeCounters {
  /** Fastcall doorbells. */
  fastcallDoorbells: number;
  /**
   * Accesses that nothing answers: of another width, at another offset, in the wrong direction; doorbells of a queue or a
   * fastcall channel that does not exist.
   */
  ignored: number;
}

/** RESULT before the first call: a guest that reads it without having called must not take it for success. */
const NO_RESULT = -EINVAL;

/**
 * The register page (`docs/abi/vbus-mmio.md`): 4 KiB of memory-mapped registers and one interrupt line put one bus in front
 * of a guest without PCI. It knows no emulator: accesses come in through {@link VbusMmio.read} and {@link VbusMmio.write}, the
 * line goes out through the options. Used by the emulator's thread.
 *
 * Accesses come from a guest and never throw, whatever their width and offset. All bus work happens inside the access that
 * asks for it; events are tasks of the scheduler, and so is what a doorbell leaves over.
 */
export class VbusMmio implements Saveable {
  /** As `Saveable.stateName` says. */
  readonly stateName = "mmio";
  /** Calls, events, signals and interrupt of the guest. */
  readonly line: LineBridge;
  #datapLow = 0;
  #datapHigh = 0;
  #length = 0;
  #result = NO_RESULT;
  readonly #counters = { fastcallDoorbells: 0, ignored: 0 };

  /** @throws VbusError EPERM when the member was not admitted; ENOMEM */
  constructor(options: LineBridgeOptions) {
    this.line = new LineBridge(options);
  }

  /** A read; unsigned. Registers are read with 32 bits at their own offset; anything else is 0, and changes nothing. */
  read(offset: number, width: MmioWidth): number {
    if (width === 4) {
      switch (offset) {
        case VBUS_MMIO_OFF_MAGIC:
          return VBUS_MMIO_MAGIC;
        case VBUS_MMIO_OFF_VERSION:
          return VBUS_MMIO_VERSION;
        case VBUS_MMIO_OFF_HC_VERSION:
          return BRIDGE_VERSION;
        case VBUS_MMIO_OFF_FEATURES:
          return VBUS_MMIO_FEATURES;
        case VBUS_MMIO_OFF_DATAP_LOW:
          return this.#datapLow;
        case VBUS_MMIO_OFF_DATAP_HIGH:
          return this.#datapHigh;
        case VBUS_MMIO_OFF_LEN:
          return this.#length;
        case VBUS_MMIO_OFF_RESULT:
          return this.#result >>> 0;
        case VBUS_MMIO_OFF_INTERRUPT_STATUS:
          return this.line.status;
        case VBUS_MMIO_OFF_STATE:
          return this.line.state;
      }
    }
    this.#counters.ignored++;
    return 0;
  }

  /** A write. Registers are written with 32 bits at their own offset; anything else is ignored. */
  write(offset: number, width: MmioWidth, value: number): void {
    const word = value >>> 0;
    if (width === 4) {
      switch (offset) {
        case VBUS_MMIO_OFF_DATAP_LOW:
          this.#datapLow = word;
          return;
        case VBUS_MMIO_OFF_DATAP_HIGH:
          this.#datapHigh = word;
          return;
        case VBUS_MMIO_OFF_LEN:
          this.#length = word;
          return;
        case VBUS_MMIO_OFF_CALL:
          this.#result = this.line.call(word, this.#length, this.#datapLow, this.#datapHigh);
          return;
        case VBUS_MMIO_OFF_EVENTQ:
          if (this.line.eventq(word)) return;
          break;
        case VBUS_MMIO_OFF_FASTCALL:
          this.#counters.fastcallDoorbells++;
          if (this.line.fastcall(word)) return;
          break;
        case VBUS_MMIO_OFF_SHMSIGNAL:
          this.line.onSignal(word);
          return;
        case VBUS_MMIO_OFF_INTERRUPT_ACK:
          this.line.acknowledge(word);
          return;
        case VBUS_MMIO_OFF_RESET:
          if (word !== 1) break;
          this.machineReset();
          return;
      }
    }
    this.#counters.ignored++;
  }

  /** The machine was reset: registers and bridge are what they were at the start. */
  machineReset(): void {
    this.line.reset();
    this.#datapLow = this.#datapHigh = this.#length = 0;
    this.#result = NO_RESULT;
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
    const registers = [this.#datapLow, this.#datapHigh, this.#length, this.#result >>> 0];
    return { registers, line: this.line.save() };
  }

  /** As `Saveable.check` says. @throws StateError */
  check(state: StateReader): void {
    this.line.bridge.check(state.get("line").get("bridge"));
  }

  /** As `Saveable.restore` says. @throws StateError; VbusError ENOMEM */
  restore(state: StateReader, options: RestoreOptions = {}): void {
    const words = state
      .get("registers")
      .tuple(4)
      .map((at) => at.number(0, 0xffffffff)) as [number, number, number, number];
    this.line.restore(state.get("line"), options);
    [this.#datapLow, this.#datapHigh, this.#length] = words;
    this.#result = words[3] | 0;
  }

  /** What was counted so far. */
  counters(): VbusMmioCounters {
    return { ...this.line.counters(), ...this.#counters };
  }

  /**
   * Ends everything, lowers the line, gives the arena back what the bridge took. The guest sees that it is gone; its calls
   * fail with -ENOTCONN. Twice is harmless.
   */
  close(): void {
    this.line.close();
  }
}
