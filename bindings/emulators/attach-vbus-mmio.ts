import { VBUS_MMIO_OFF_EVENTQ, VBUS_MMIO_SIZE } from "../../assembly/abi/vbus-mmio.js";
import type { Bus } from "../bus/bus.js";
import type { Vbus } from "../bus/vbus.js";
import { VbusMmio, type VbusMmioCounters } from "../connectors/mmio/registers.js";
import type { MemorySpace } from "../memory/space.js";
import type { EventLoopScheduler } from "../scheduler.js";
import { Part, type AttachmentCounters } from "./attachment.js";
import { busFor, checkBus, type HostedBusOptions } from "./bus-options.js";
import type { EmulatorHost, Mapping } from "./host.js";
import { EmulatorMachine } from "./machine.js";
import { mappedMemory } from "./mapped-memory.js";
import { checkHost, checkRegisters } from "./validation.js";

/** How to put a bus in front of a guest without PCI. */
export interface VbusMmioOptions extends HostedBusOptions {
  /** Guest-physical address of its register page: a multiple of 4 KiB, outside of RAM. */
  readonly memoryAddress: number;
  /** Number of its interrupt. */
  readonly irq: number;
}

/** What was counted of a register page. */
export interface VbusMmioAttachmentCounters extends VbusMmioCounters, AttachmentCounters {}

/**
 * A bus in front of a guest, as a page of memory-mapped registers. Made by {@link attachVbusMmio}; everything of it runs in
 * the emulator's thread.
 */
export class VbusMmioAttachment {
  /** The bus that the guest sees. */
  readonly bus: Bus;
  /** The bus system that was made for `devices`; null when the bus is yours. */
  readonly vbus: Vbus | null;
  /** The scheduler that everything of this bridge runs on. */
  readonly scheduler: EventLoopScheduler;
  /** The guest's memory, for who writes devices and tools. */
  readonly memory: MemorySpace;
  /** The register page. */
  readonly registers: VbusMmio;
  readonly #part: Part;
  readonly #mapping: Mapping;

  /** @internal Use {@link attachVbusMmio}. */
  constructor(machine: EmulatorMachine, options: VbusMmioOptions) {
    const { memoryAddress, irq, label, onError, scheduler = machine.scheduler } = options;
    const { name } = machine.host;
    this.scheduler = scheduler;
    this.memory = machine.memory;
    this.#part = new Part(machine, scheduler, {
      onError,
      line: machine.openLine(irq),
      // ringing marks a signal as being served: a guest that is served later need not be silenced
      answer: (handle) => {
        this.registers.line.serveSignal(handle);
      },
      reset: () => {
        this.registers.machineReset();
      },
      saved: () => ({
        name: `mmio-${memoryAddress.toString(16)}`,
        connector: this.registers,
        line: () => this.registers.line.asserted,
        tree: this.vbus,
      }),
    });
    let vbus: Vbus | null = null;
    let registers: VbusMmio | null = null;
    try {
      ({ vbus, bus: this.bus } = busFor(options, scheduler, name));
      this.vbus = vbus;
      const page = new VbusMmio({
        bus: this.bus,
        member: options.member ?? name,
        label,
        memory: this.memory,
        scheduler,
        interrupt: (asserted) => {
          this.#part.interrupts.setLine(asserted);
        },
        onError,
      });
      this.registers = registers = page;
      page.line.onSignal = (handle) => {
        this.#part.doorbells.ring(handle);
      };
      this.#mapping = mappedMemory(machine, memoryAddress, VBUS_MMIO_SIZE, {
        read: (offset, width) => page.read(offset, width),
        write: (offset, width, value) => {
          page.write(offset, width, value);
          if (offset === VBUS_MMIO_OFF_EVENTQ && machine.mayInterrupt) machine.runTasks();
        },
      });
    } catch (error) {
      registers?.close();
      vbus?.close();
      this.#part.discard();
      throw error;
    }
    this.#part.join();
  }

  /** What was counted so far. */
  counters(): VbusMmioAttachmentCounters {
    return { ...this.registers.counters(), ...this.#part.counters() };
  }

  /**
   * Takes the bus away from the guest: every session ends, its calls fail with -ENOTCONN from then on, or, where the emulator
   * can take registers away, there is no page any more. The bus lives on when it is yours. Twice is harmless.
   */
  close(): void {
    this.#part.close(() => {
      this.registers.close();
      this.vbus?.close();
      this.#mapping.unmap();
    });
  }
}

/**
 * Puts a bus in front of an emulator's guest, as the register page of `docs/abi/vbus-mmio.md`, which the guest must be told of:
 * by its command line, a device tree, or because it is where the machine's manual says. Call it in the emulator's thread. Every
 * device of the bus then appears to the guest by itself.
 *
 * @throws VbusError EBUSY when the memory or the interrupt is taken; EOPNOTSUPP when the machine cannot map any; EPERM when the bus has not
 *   admitted the member; EINVAL; ENOMEM
 */
export function attachVbusMmio(host: EmulatorHost, options: VbusMmioOptions): VbusMmioAttachment {
  checkBus(options);
  checkHost(host);
  checkRegisters(host, options, VBUS_MMIO_SIZE);
  return EmulatorMachine.attach(host, options, (machine) => new VbusMmioAttachment(machine, options));
}
