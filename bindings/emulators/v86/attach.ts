import { PORT_SHMSIGNAL, PORT_EVENTQ } from "../../../assembly/abi/vbus.js";
import {
  BAR0_SIZE,
  BAR1_SIZE,
  PCI_OFF_BAR0,
  PCI_OFF_STATUS,
  PCI_STATUS_INTERRUPT,
} from "../../../assembly/abi/pci.js";
import type { Bus } from "../../bus/bus.js";
import type { DeviceClass } from "../../bus/types.js";
import { Vbus } from "../../bus/vbus.js";
import { PciBridge, type PciBridgeCounters } from "../../connectors/pci/function.js";
import { VbusError } from "../../errors.js";
import { MemorySpace } from "../../memory/space.js";
import { EventLoopScheduler } from "../../scheduler.js";
import { MMIO_GRANULE, PCI_BARS_END, V86Internals, whenReady, type V86Emulator } from "./internals.js";
import { V86Interrupts, type V86Context, type V86InterruptCounters } from "./interrupts.js";

/** Slot 0x10 is free in every configuration of v86, and so are those above it but 0x12 and 0x1e. */
const DEFAULT_SLOT = 0x10;
/** In the host bridge's window with and without ACPI, and nothing of v86's lies there. */
const DEFAULT_MEMORY = 0xfea00000;
const MEMORY_END = 0xfeb00000;
/** Free of v86's own devices; firmware moves it. */
const DEFAULT_PORT = 0xd000;
const DEFAULT_ARENA = 4 << 20;
/** A doorbell that comes so many instructions after the last is served at once … */
const PAUSE_INSTRUCTIONS = 16_000;
/** … unless the guest has had no pause for so many: it has more to say, and is not waiting for an answer. */
const BUSY_INSTRUCTIONS = 500_000;
/** A guest may ring any number, whether it is a handle or not. */
const POSTPONED_MAX = 4096;
/** Longest that host work runs between two slices of the guest, in ms: about as long as the slices themselves. */
const HOOK_BUDGET_MS = 1;

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
   * The scheduler that `bus`, its devices and their ports were made with; required with `bus`, else one is made. The
   * adapter runs its tasks between the guest's slices, so nothing waits for the event loop while the guest is busy.
   */
  readonly scheduler?: EventLoopScheduler;
  /** PCI slot, 0 … 31; default 0x10. Several bridges in one machine need different slots, addresses and ports. */
  readonly slot?: number;
  /** First guest-physical address of BAR 0: a multiple of 128 KiB from 0xfea00000 to 0xfeae0000. v86 cannot move it. */
  readonly memoryAddress?: number;
  /** First port of BAR 1, a multiple of 32 from 0x1000 on; firmware moves it. Default 0xd000. */
  readonly port?: number;
  /** Bytes of v86's own memory for the engine's private state; default 4 MiB. */
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
 * A bus in front of a guest of v86's. Made by {@link attachVbus}; everything of it runs in v86's thread.
 *
 * Doorbells: one that comes after a pause, from a guest that has time, is served inside the port access that rang, which is
 * what makes a round trip short. A guest that is busy has more to say: it is served at the end of its slice (some 100,000
 * instructions, or as soon as it idles). Until then its rings are marked as being served, and it rings no more.
 */
export class V86Host {
  /** The bus that the guest sees. */
  readonly bus: Bus;
  /** The bus system that was made for `devices`; null when the bus is yours. */
  readonly vbus: Vbus | null;
  /** The scheduler that everything of this machine runs on. */
  readonly scheduler: EventLoopScheduler;
  /** The guest's memory, for who writes devices and tools. */
  readonly memory: MemorySpace;
  /** The PCI function. */
  readonly function: PciBridge;
  readonly #machine: V86Internals;
  readonly #interrupts: V86Interrupts;
  readonly #arena: { address: number; size: number };
  /** When a signal last rang, in instructions. */
  #lastDoorbell: number;
  /** When the guest was last seen to have nothing to do. */
  #lastIdle = 0;
  readonly #postponed = new Set<number>();
  #counters = { postponed: 0, invalidated: 0 };
  #closed = false;

  /** @internal Use {@link attachVbus}. */
  constructor(machine: V86Internals, options: V86Options) {
    const {
      scheduler = new EventLoopScheduler(options.onError),
      slot = DEFAULT_SLOT,
      memoryAddress = DEFAULT_MEMORY,
      port = DEFAULT_PORT,
      arenaSize = DEFAULT_ARENA,
      label,
      onError,
    } = options;
    this.scheduler = scheduler;
    this.#machine = machine;
    this.#lastDoorbell = machine.instructions - PAUSE_INSTRUCTIONS;
    this.#arena = { address: machine.allocatePrivate(arenaSize), size: arenaSize };
    let vbus: Vbus | null = null;
    let fn: PciBridge | null = null;
    try {
      this.memory = MemorySpace.attachSync(machine.memory, this.#arena, machine.regions);
      this.memory.logWrites(true);
      ({ vbus, bus: this.bus } = busFor(options, scheduler));
      this.vbus = vbus;
      const devfn = slot << 3;
      const space: { live: Uint8Array | null } = { live: null };
      this.#interrupts = new V86Interrupts(machine, devfn, (asserted) => {
        if (space.live === null) return;
        const status = (space.live[PCI_OFF_STATUS] as number) & ~PCI_STATUS_INTERRUPT;
        space.live[PCI_OFF_STATUS] = status | (asserted ? PCI_STATUS_INTERRUPT : 0);
      });
      this.function = fn = new PciBridge({
        bus: this.bus,
        member: options.member ?? "v86",
        memory: this.memory,
        scheduler,
        interrupts: this.#interrupts,
        config: { bar0: memoryAddress, bar1: port },
        ...(label === undefined ? {} : { label }),
        ...(onError === undefined ? {} : { onError }),
      });
      space.live = this.#register(devfn, memoryAddress, port);
    } catch (error) {
      fn?.close();
      vbus?.close();
      machine.freePrivate(this.#arena.address, this.#arena.size);
      throw error;
    }
    machine.cureAcpiHotplug();
    machine.hook({
      enter: () => {
        this.#work("task");
      },
      between: () => {
        if (machine.halted) this.#lastIdle = machine.instructions;
        this.#work("hook");
      },
      reset: () => {
        this.function.machineReset();
      },
    });
  }

  /** What was counted so far. */
  counters(): V86Counters {
    return { ...this.function.counters(), ...this.#interrupts.counters(), ...this.#counters };
  }

  /**
   * Takes the bus away from the guest: every session ends, its calls fail with -ENOTCONN from then on. The bus lives on
   * when it is yours. Twice is harmless.
   */
  close(): void {
    if (this.#closed) return;
    this.function.close();
    this.vbus?.close();
    this.#written();
    this.#closed = true;
    this.#machine.unhook();
    this.#postponed.clear();
    this.#machine.freePrivate(this.#arena.address, this.#arena.size);
  }

  #register(devfn: number, memory: number, port: number): Uint8Array {
    const { config } = this.function;
    return this.#machine.registerFunction({
      name: "vbus",
      devfn,
      config: config.image(),
      barSizes: [BAR0_SIZE, BAR1_SIZE],
      memory,
      port,
      memoryRead: (offset, width) => this.#in("memory", () => this.function.bar0Read(offset, width)),
      memoryWrite: (offset, width, value) => {
        this.function.bar0Write(offset, width, value); // only stores
      },
      portRead: (offset, width) => this.#in("port", () => this.function.bar1Read(offset, width)),
      portWrite: (offset, width, value) => {
        this.#doorbell(offset, width, value);
      },
      configWritten: (space, offset, width) => {
        this.#in("port", () => {
          this.function.configWritten(offset, space.slice(offset, offset + width));
          // v86 keeps whatever was written: put back what no guest may change
          for (let at = offset; at < offset + width; at++) {
            if (at < PCI_OFF_BAR0 || at >= PCI_BARS_END) space[at] = config.read(at, 1);
          }
          return 0;
        });
      },
    });
  }

  /** Runs an access of the guest's, with the context noted, and v86 told of what it wrote. */
  #in(context: V86Context, access: () => number): number {
    const before = this.#interrupts.context;
    this.#interrupts.context = context;
    try {
      return access();
    } finally {
      this.#interrupts.context = before;
      this.#written();
    }
  }

  #doorbell(offset: number, width: 1 | 2 | 4, value: number): void {
    if (this.#closed) return;
    if (offset === PORT_SHMSIGNAL && width === 4) {
      const handle = value >>> 0;
      const now = this.#machine.instructions;
      const pause = (now - this.#lastDoorbell) >>> 0;
      this.#lastDoorbell = now;
      if (pause < PAUSE_INSTRUCTIONS || (now - this.#lastIdle) >>> 0 > BUSY_INSTRUCTIONS) {
        if (this.#postponed.size >= POSTPONED_MAX) this.#servePostponed();
        this.#postponed.add(handle);
        this.#counters.postponed++;
        return;
      }
    }
    this.#interrupts.context = "port";
    try {
      this.function.bar1Write(offset, width, value);
      if (offset === PORT_SHMSIGNAL || offset === PORT_EVENTQ) this.scheduler.runPending(HOOK_BUDGET_MS);
    } finally {
      this.#interrupts.context = "task";
      this.#written();
    }
  }

  /** Host work, where the guest is not running. */
  #work(context: "task" | "hook"): void {
    if (this.#closed) return; // the hook may be below somebody else's
    this.#interrupts.context = context;
    try {
      this.#interrupts.catchUp();
      this.#servePostponed();
      this.scheduler.runPending(HOOK_BUDGET_MS);
    } finally {
      this.#interrupts.context = "task";
      this.#written();
    }
  }

  #servePostponed(): void {
    if (this.#postponed.size === 0) return;
    const handles = [...this.#postponed];
    this.#postponed.clear();
    for (const handle of handles) this.function.bar1Write(PORT_SHMSIGNAL, 4, handle);
  }

  readonly #invalidate = (gpa: number, length: number): void => {
    this.#machine.written(gpa, length);
  };

  #written(): void {
    if (this.#closed) return;
    this.#counters.invalidated += this.memory.visitWrites(this.#invalidate);
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
  const host = new Promise<V86Host>((resolve, reject) => {
    whenReady(emulator, () => {
      try {
        resolve(new V86Host(new V86Internals(emulator), options));
      } catch (error) {
        reject(error instanceof Error ? error : new VbusError("EIO", "attaching failed", { cause: error }));
      }
    });
  });
  return host;
}
