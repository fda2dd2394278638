import { PORT_EVENTQ, PORT_SHMSIGNAL } from "../../../assembly/abi/vbus.js";
import { BAR0_SIZE, BAR1_SIZE } from "../../../assembly/abi/pci.js";
import type { Bus } from "../../bus/bus.js";
import type { DeviceClass } from "../../bus/types.js";
import { Vbus } from "../../bus/vbus.js";
import { PciBridge, type PciBridgeCounters } from "../../connectors/pci/function.js";
import { VbusError } from "../../errors.js";
import type { MemorySpace } from "../../memory/space.js";
import type { EventLoopScheduler } from "../../scheduler.js";
import { V86Doorbells } from "./doorbells.js";
import { type V86Emulator } from "./internals.js";
import { V86Interrupts, type V86InterruptCounters } from "./interrupts.js";
import { V86Machine, type V86Part } from "./machine.js";
import { MMIO_GRANULE } from "./pci-internals.js";
import { savedPart } from "./saved-part.js";
import { V86ConfigSpace } from "./config-space.js";

/** Slot 0x10 is free in every configuration of v86, and so are those above it but 0x12 and 0x1e. */
const DEFAULT_SLOT = 0x10;
/** In the host bridge's window with and without ACPI, and nothing of v86's lies there. */
const DEFAULT_MEMORY = 0xfea00000;
const MEMORY_END = 0xfeb00000;
/** Free of v86's own devices; firmware moves it. */
const DEFAULT_PORT = 0xd000;

/** A device that {@link attachVbus} creates. */
export interface V86Device {
  /** Unique name. */
  readonly name: string;
  /** Its class; the same object may serve several devices. */
  readonly class: DeviceClass;
  /** Attributes to write before it is connected. */
  readonly attributes?: Readonly<Record<string, string>>;
}

/** How to put a bus in front of a guest of v86's. Give either a bus, or devices to make one of. */
export interface V86Options {
  /** A bus of yours. */
  readonly bus?: Bus;
  /** Member of it that the guest acts as; the bus must have admitted it. Default `v86`. */
  readonly member?: string;
  /** Devices for a bus of the guest's own. */
  readonly devices?: readonly V86Device[];
  /**
   * The scheduler that `bus`, its devices and their ports were made with; required with `bus`, else it is that of the
   * machine's first part. The adapter runs its tasks between the guest's slices, so nothing waits for the event loop while the
   * guest is busy.
   */
  readonly scheduler?: EventLoopScheduler;
  /** PCI slot, 0 … 31; default 0x10. Several bridges in one machine need different slots, addresses and ports. */
  readonly slot?: number;
  /** First guest-physical address of BAR 0: a multiple of 128 KiB from 0xfea00000 to 0xfeae0000. v86 cannot move it. */
  readonly memoryAddress?: number;
  /** First port of BAR 1, a multiple of 32 from 0x1000 on; firmware moves it. Default 0xd000. */
  readonly port?: number;
  /** Bytes of v86's own memory for the engine's private state; the machine's first part decides. Default 8 MiB. */
  readonly arenaSize?: number;
  /** Name of the client in the bus tree. */
  readonly label?: string;
  /** Told of errors that hurt nothing but what they name, such as a broken event queue. */
  readonly onError?: (error: unknown) => void;
}

/** What the adapter counted. */
export interface V86Counters extends PciBridgeCounters, V86InterruptCounters {
  /** Doorbells of signals that were served when the current slice of the guest was over, several of one signal as one. */
  postponed: number;
  /** Ranges of guest memory that v86 was told to look at for stale translated code. */
  invalidated: number;
}

/**
 * A bus in front of a guest of v86's. Made by {@link attachVbus}; everything of it runs in v86's thread. When doorbells are
 * served: see `docs/v86.md`.
 */
export class V86Host {
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
  readonly #machine: V86Machine;
  readonly #interrupts: V86Interrupts;
  readonly #doorbells: V86Doorbells;
  readonly #part: V86Part;
  #closed = false;

  /** @internal Use {@link attachVbus}. */
  constructor(machine: V86Machine, options: V86Options) {
    const {
      slot = DEFAULT_SLOT,
      memoryAddress = DEFAULT_MEMORY,
      port = DEFAULT_PORT,
      label,
      onError,
    } = options;
    const { scheduler = machine.scheduler } = options;
    this.scheduler = scheduler;
    this.memory = machine.memory;
    this.#machine = machine;
    let vbus: Vbus | null = null;
    let fn: PciBridge | null = null;
    const space = new V86ConfigSpace();
    try {
      ({ vbus, bus: this.bus } = busFor(options, scheduler));
      this.vbus = vbus;
      this.#interrupts = new V86Interrupts(
        machine,
        (asserted) => {
          machine.internals.pci.setLine(slot << 3, asserted);
        },
        space.showInterrupt,
      );
      this.function = fn = new PciBridge({
        bus: this.bus,
        member: options.member ?? "v86",
        memory: this.memory,
        scheduler,
        interrupts: this.#interrupts,
        config: { bar0: memoryAddress, bar1: port },
        stateName: `pci-${slot.toString(16)}`,
        ...(label === undefined ? {} : { label }),
        ...(onError === undefined ? {} : { onError }),
      });
      this.#doorbells = new V86Doorbells(
        machine,
        (handle) => {
          this.function.bar1Write(PORT_SHMSIGNAL, 4, handle);
        },
        () => undefined, // ringing marks a signal as being served: the guest rings it no more
      );
      this.#register(space, slot << 3, memoryAddress, port);
    } catch (error) {
      fn?.close();
      vbus?.close();
      throw error;
    }
    this.#part = {
      catchUp: () => {
        this.#interrupts.catchUp();
      },
      serve: () => {
        this.#doorbells.serve();
      },
      reset: () => {
        this.#doorbells.clear();
        this.function.machineReset();
        space.putBackAll(this.function.config);
      },
      saved: savedPart(this.function, this.vbus, this.#interrupts, () => {
        space.putBackAll(this.function.config);
      }),
    };
    machine.join(this.#part, scheduler);
  }

  /** What was counted so far. */
  counters(): V86Counters {
    return {
      ...this.function.counters(),
      ...this.#interrupts.counters(),
      postponed: this.#doorbells.postponed,
      invalidated: this.#machine.invalidated,
    };
  }

  /**
   * Takes the bus away from the guest: every session ends, its calls fail with -ENOTCONN from then on. The bus lives on
   * when it is yours. Twice is harmless.
   */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.function.close();
    this.vbus?.close();
    this.#doorbells.clear();
    this.#machine.leave(this.#part, this.scheduler);
    this.#machine.release();
  }

  #register(space: V86ConfigSpace, devfn: number, memory: number, port: number): void {
    const machine = this.#machine;
    space.attach(
      machine.internals.pci.register({
        name: "vbus",
        devfn,
        config: this.function.config.image(),
        bars: [
          {
            kind: "memory",
            size: BAR0_SIZE,
            address: memory,
            read: (offset, width) => machine.in("memory", () => this.function.bar0Read(offset, width)),
            write: (offset, width, value) => {
              this.function.bar0Write(offset, width, value); // only stores
            },
          },
          {
            kind: "io",
            size: BAR1_SIZE,
            address: port,
            read: (offset, width) => machine.in("port", () => this.function.bar1Read(offset, width)),
            write: (offset, width, value) => {
              this.#doorbell(offset, width, value);
            },
          },
        ],
        configWritten: (live, offset, width) => {
          machine.in("port", () => {
            this.function.configWritten(offset, live.slice(offset, offset + width));
          });
          space.putBack(this.function.config, offset, width);
        },
      }),
    );
  }

  #doorbell(offset: number, width: 1 | 2 | 4, value: number): void {
    if (this.#closed) return;
    const machine = this.#machine;
    machine.in("port", () => {
      if (offset === PORT_SHMSIGNAL && width === 4) {
        this.#doorbells.ring(value >>> 0);
        return;
      }
      this.function.bar1Write(offset, width, value);
      if (offset === PORT_EVENTQ) machine.runTasks();
    });
  }
}

function busFor(options: V86Options, scheduler: EventLoopScheduler): { vbus: Vbus | null; bus: Bus } {
  const { bus, devices = [], member = "v86" } = options;
  if (bus !== undefined) return { vbus: null, bus };
  const vbus = new Vbus({ scheduler });
  try {
    const own = vbus.createBus("v86");
    const classes = new Set<DeviceClass>();
    for (const device of devices) {
      if (!classes.has(device.class)) vbus.registerClass(device.class);
      classes.add(device.class);
      own.connect(vbus.createDevice(device.name, device.class.name, device.attributes));
    }
    own.admit(member);
    return { vbus, bus: own };
  } catch (error) {
    vbus.close();
    throw error;
  }
}

function check(options: V86Options): void {
  const { bus, devices, scheduler, slot, memoryAddress, port } = options;
  if ((bus === undefined) === (devices === undefined))
    throw new VbusError("EINVAL", "give attachVbus either a bus or devices to make one of");
  if (bus !== undefined && scheduler === undefined)
    throw new VbusError("EINVAL", "give attachVbus the scheduler that the bus was made with, too");
  if (slot !== undefined && !(Number.isInteger(slot) && slot >= 0 && slot < 32))
    throw new VbusError("EINVAL", `PCI slot ${slot}; there are 0 to 31`);
  if (
    memoryAddress !== undefined &&
    !(memoryAddress >= DEFAULT_MEMORY && memoryAddress < MEMORY_END && memoryAddress % MMIO_GRANULE === 0)
  ) {
    throw new VbusError(
      "EINVAL",
      `BAR 0 at 0x${memoryAddress.toString(16)}; give a multiple of 128 KiB from 0xfea00000 to 0xfeae0000`,
    );
  }
  if (port !== undefined && !(port >= 0x1000 && port <= 0xffe0 && port % BAR1_SIZE === 0))
    throw new VbusError(
      "EINVAL",
      `BAR 1 at port 0x${port.toString(16)}; give a multiple of 32 from 0x1000 to 0xffe0`,
    );
}

/**
 * Puts a bus in front of a guest of an unmodified v86. Call it right after `new V86(…)`, in the thread that runs it: the
 * bridge must be on the PCI bus before firmware looks, and before a saved state is applied. Resolves when it is.
 *
 * The machine should have `acpi: true`: without ACPI v86 has no local APIC, so the guest cannot use MSI (the driver of 2009
 * insists on it; ours then uses INTx).
 *
 * @throws VbusError EOPNOTSUPP for a v86 of another layout; EBUSY when the slot is taken; EPERM when the bus has not
 *   admitted the member; EINVAL; ENOMEM
 */
export async function attachVbus(emulator: V86Emulator, options: V86Options): Promise<V86Host> {
  check(options);
  return V86Machine.attach(emulator, options, (machine) => new V86Host(machine, options));
}
