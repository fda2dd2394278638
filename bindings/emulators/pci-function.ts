import type { AccessWidth, PciBar, PciConfigSpace } from "../connectors/pci/config-space.js";
import { VbusError } from "../errors.js";
import type { InterruptLine, PciSeat, RegisterBlock } from "./host.js";
import type { EmulatorMachine } from "./machine.js";

/** A PCI function of this package's, as it looks from an emulator. */
export interface PciFunctionLike {
  /** Configuration space. */
  readonly config: PciConfigSpace;
  configRead(offset: number, width: AccessWidth): number;
  configWrite(offset: number, width: AccessWidth, value: number): void;
  configWritten(offset: number, bytes: Uint8Array): void;
}

/** Who answers for the BARs of a function, and what a configuration read may do. */
export interface PciFunctionWiring {
  /** For people. */
  readonly name: string;
  /** Device number. */
  readonly slot: number;
  /** Base address registers by number. */
  readonly bars: readonly (PciBar | null)[];
  /** A read of a BAR. */
  readonly read: (bar: number, offset: number, width: AccessWidth) => number;
  /** A write to a BAR. */
  readonly write: (bar: number, offset: number, width: AccessWidth, value: number) => void;
  /** True when a configuration read of these bytes does something. Default: none does. */
  readonly readsThrough?: (offset: number, width: AccessWidth) => boolean;
}

/** @throws VbusError EINVAL */
export function checkSlot(slot: number): void {
  if (!(Number.isInteger(slot) && slot >= 0 && slot < 32))
    throw new VbusError("EINVAL", `PCI slot ${slot}; there are 0 to 31`);
}

/**
 * A function's place on an emulator's PCI bus, and the emulator's accesses to the function. It exists before the function
 * does, which needs somewhere to send its interrupts.
 */
export class HostedFunction {
  #seat: PciSeat | null = null;

  /** @throws VbusError EOPNOTSUPP when the machine has no PCI */
  constructor(private readonly machine: EmulatorMachine) {
    if (machine.host.addPciFunction === undefined)
      throw new VbusError(
        "EOPNOTSUPP",
        `${machine.host.name} has no PCI bus; attach memory-mapped registers instead (attachVbusMmio, attachVirtioMmio)`,
      );
  }

  /** Its INTA line, which goes with the function. */
  readonly line: InterruptLine = {
    set: (asserted) => {
      this.#seat?.setLine(asserted);
    },
    close: () => undefined,
  };

  /** Shows the level of the line in the status register. */
  readonly shown = (asserted: boolean): void => {
    this.#seat?.showLine?.(asserted);
  };

  /** Puts the function on the bus. @throws VbusError EBUSY, and what else the emulator says */
  plug(fn: PciFunctionLike, wiring: PciFunctionWiring): void {
    const { machine } = this;
    const { host } = machine;
    const configuring = host.configAccesses ?? "port";
    const { readsThrough = () => false } = wiring;
    this.#seat = host.addPciFunction?.({
      name: wiring.name,
      slot: wiring.slot,
      config: fn.config,
      bars: wiring.bars.map((bar, index) => (bar === null ? null : this.#block(bar, index, wiring))),
      configRead: (offset, width) => machine.in(configuring, () => fn.configRead(offset, width)),
      configWrite: (offset, width, value) => {
        machine.in(configuring, () => {
          fn.configWrite(offset, width, value);
        });
      },
      configWritten: (offset, bytes) => {
        machine.in(configuring, () => {
          fn.configWritten(offset, bytes);
        });
      },
      readsThrough,
    }) as PciSeat; // the constructor saw that it can
  }

  #block({ kind, size, address = 0 }: PciBar, index: number, wiring: PciFunctionWiring): RegisterBlock {
    const { machine } = this;
    const context = kind === "io" ? "port" : "memory";
    return {
      kind,
      size,
      address,
      read: (offset, width) => machine.in(context, () => wiring.read(index, offset, width)),
      write: (offset, width, value) => {
        machine.in(context, () => {
          wiring.write(index, offset, width, value);
        });
      },
    };
  }

  /** The machine was reset, and the function's configuration space with it. */
  refresh(): void {
    this.#seat?.refresh?.();
  }

  /** Takes the function off the bus, when the emulator can do that. */
  unplug(): void {
    this.#seat?.unplug?.();
  }
}
