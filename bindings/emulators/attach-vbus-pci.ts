import { PORT_EVENTQ, PORT_SHMSIGNAL } from "../../assembly/abi/vbus.js";
import type { Bus } from "../bus/bus.js";
import type { Vbus } from "../bus/vbus.js";
import { bridgeBars, type PciConfigOptions } from "../connectors/pci/bridge-config.js";
import type { AccessWidth } from "../connectors/pci/config-space.js";
import { PciBridge, type PciBridgeCounters } from "../connectors/pci/function.js";
import type { MemorySpace } from "../memory/space.js";
import type { EventLoopScheduler } from "../scheduler.js";
import { Part, type AttachmentCounters } from "./attachment.js";
import { busFor, checkBus, type HostedBusOptions } from "./bus-options.js";
import type { EmulatorHost } from "./host.js";
import { EmulatorMachine } from "./machine.js";
import { checkSlot, HostedFunction } from "./pci-function.js";
import { checkHost } from "./validation.js";

/** How to put a bus in front of a guest as a PCI function. */
export interface VbusPciOptions extends HostedBusOptions {
  /** PCI slot, 0 … 31. */
  readonly slot: number;
  /** Where its BARs are, on machines where they cannot move or no firmware assigns them. */
  readonly place?: PciConfigOptions;
}

/** What was counted of a bridge. */
export interface VbusPciCounters extends PciBridgeCounters, AttachmentCounters {}

/**
 * A bus in front of a guest, as a PCI function. Made by {@link attachVbusPci}; everything of it runs in the emulator's
 * thread.
 */
export class VbusPciAttachment {
  /** The bus that the guest sees. */
  readonly bus: Bus;
  /** The bus system that was made for `devices`; null when the bus is yours. */
  readonly vbus: Vbus | null;
  /** The scheduler that everything of this bridge runs on. */
  readonly scheduler: EventLoopScheduler;
  /** The guest's memory, for who writes devices and tools. */
  readonly memory: MemorySpace;
  /** The PCI function. */
  readonly function: PciBridge;
  readonly #machine: EmulatorMachine;
  readonly #part: Part;
  readonly #place: HostedFunction;

  /** @internal Use {@link attachVbusPci}. */
  constructor(machine: EmulatorMachine, options: VbusPciOptions) {
    const { slot, place, label, onError, scheduler = machine.scheduler } = options;
    const { name } = machine.host;
    this.#machine = machine;
    this.scheduler = scheduler;
    this.memory = machine.memory;
    const seat = new HostedFunction(machine);
    this.#place = seat;
    this.#part = new Part(machine, scheduler, {
      onError,
      line: seat.line,
      shown: seat.shown,
      // ringing marks a signal as being served: a guest that is served later need not be silenced
      answer: (handle) => {
        this.function.bar1Write(PORT_SHMSIGNAL, 4, handle);
      },
      reset: () => {
        this.function.machineReset();
        seat.refresh();
      },
      saved: () => ({
        name: `pci-${slot.toString(16)}`,
        connector: this.function,
        line: () => this.function.line,
        tree: this.vbus,
        refresh: () => {
          seat.refresh();
        },
      }),
    });
    let vbus: Vbus | null = null;
    let fn: PciBridge | null = null;
    try {
      ({ vbus, bus: this.bus } = busFor(options, scheduler, name));
      this.vbus = vbus;
      this.function = fn = new PciBridge({
        bus: this.bus,
        member: options.member ?? name,
        memory: this.memory,
        scheduler,
        interrupts: this.#part.interrupts,
        ...(place === undefined ? {} : { config: place }),
        ...(label === undefined ? {} : { label }),
        ...(onError === undefined ? {} : { onError }),
      });
      seat.plug(fn, {
        name: "vbus",
        slot,
        bars: bridgeBars(place),
        read: (bar, offset, width) =>
          bar === 0 ? this.function.bar0Read(offset, width) : this.function.bar1Read(offset, width),
        write: (bar, offset, width, value) => {
          if (bar === 0) this.function.bar0Write(offset, width, value);
          else this.#doorbell(offset, width, value);
        },
      });
    } catch (error) {
      fn?.close();
      vbus?.close();
      throw error;
    }
    this.#part.join();
  }

  #doorbell(offset: number, width: AccessWidth, value: number): void {
    if (this.#part.closed) return;
    if (offset === PORT_SHMSIGNAL && width === 4) {
      this.#part.doorbells.ring(value >>> 0);
      return;
    }
    this.function.bar1Write(offset, width, value);
    if (offset === PORT_EVENTQ && this.#machine.mayInterrupt) this.#machine.runTasks();
  }

  /** What was counted so far. */
  counters(): VbusPciCounters {
    return { ...this.function.counters(), ...this.#part.counters() };
  }

  /**
   * Takes the bus away from the guest: every session ends, its calls fail with -ENOTCONN from then on. The bus lives on
   * when it is yours. Twice is harmless.
   */
  close(): void {
    this.#part.close(() => {
      this.function.close();
      this.vbus?.close();
      this.#place.unplug();
    });
  }
}

/**
 * Puts a bus in front of an emulator's guest, as the PCI bridge of `docs/abi/vbus-pci.md`. Call it in the emulator's thread
 * before firmware looks at the PCI bus. Every device of the bus then appears to the guest by itself.
 *
 * @throws VbusError EOPNOTSUPP on a machine without PCI; EBUSY when the slot is taken; EPERM when the bus has not admitted the
 *   member; EINVAL; ENOMEM
 */
export function attachVbusPci(host: EmulatorHost, options: VbusPciOptions): VbusPciAttachment {
  checkBus(options);
  checkSlot(options.slot);
  checkHost(host);
  return EmulatorMachine.attach(host, options, (machine) => new VbusPciAttachment(machine, options));
}
