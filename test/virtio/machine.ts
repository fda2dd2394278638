import { VirtioMmio } from "vbus/connectors/virtio-mmio";
import { VirtioPci, type VirtioPciOptions } from "vbus/connectors/virtio-pci";
import { allocateGuestMemory, GuestMemory, openHostView, type MemorySpace } from "vbus/memory";
import { VirtualScheduler } from "vbus/scheduler";
import type { VirtioDevice, VirtioFace, VirtioRingOptions } from "vbus/virtio";
import { MmioDoor, PciDoor, type Door } from "./doors.js";
import { RegisterDriver } from "./driver.js";

export * from "./driver.js";

/** The transports. */
export const TRANSPORTS = ["pci", "mmio"] as const;
/** One of them. */
export type TransportName = (typeof TRANSPORTS)[number];

/** How a machine is made. */
export interface MachineOptions {
  rings?: VirtioRingOptions;
  pci?: Pick<VirtioPciOptions, "vectors" | "msi" | "place">;
  arenaSize?: number;
  /** Another device of the same machine: one memory, one arena, one thread. */
  beside?: VirtioMachine;
}

/** A machine without an emulator: one device, registers, a driver written by hand, virtual time. */
export class VirtioMachine extends RegisterDriver {
  /** Level of the line, and how often it rose. */
  line = false;
  raised = 0;

  private constructor(
    door: Door,
    guest: GuestMemory,
    readonly memory: MemorySpace,
    /** Bytes of the host's arena that were free before the device was there. */
    readonly free: number,
    readonly scheduler: VirtualScheduler,
    readonly device: VirtioDevice,
    readonly fn: VirtioPci | null,
    readonly registers: VirtioMmio | null,
    readonly errors: unknown[],
    readonly messages: { address: number; data: number }[],
  ) {
    super(door, guest, device.queues.length, () => scheduler.run());
  }

  static async create(
    transport: TransportName,
    face: VirtioFace,
    options: MachineOptions = {},
  ): Promise<VirtioMachine> {
    const { beside } = options;
    const init = allocateGuestMemory({ size: 4 << 20, arenaSize: options.arenaSize ?? 1 << 20 });
    const memory = beside?.memory ?? (await openHostView(init));
    const guest = beside?.guest ?? (await GuestMemory.open(init));
    const free = memory.arena.available;
    const scheduler = beside?.scheduler ?? new VirtualScheduler();
    const errors: unknown[] = [];
    const messages: { address: number; data: number }[] = [];
    const common = {
      face,
      memory,
      scheduler,
      onError: (error: unknown) => errors.push(error),
      ...(options.rings === undefined ? {} : { rings: options.rings }),
    };
    let machine: VirtioMachine | null = null;
    const setLine = (asserted: boolean): void => {
      if (machine !== null) machine.#setLine(asserted);
    };
    if (transport === "pci") {
      const msi = (address: number, data: number): number => messages.push({ address, data });
      const fn = new VirtioPci({ ...common, ...options.pci, interrupts: { msi, setLine } });
      const door = new PciDoor(fn);
      machine = new VirtioMachine(
        door,
        guest,
        memory,
        free,
        scheduler,
        fn.device,
        fn,
        null,
        errors,
        messages,
      );
    } else {
      const registers = new VirtioMmio({ ...common, interrupt: setLine });
      const { device } = registers;
      const door = new MmioDoor(registers);
      machine = new VirtioMachine(
        door,
        guest,
        memory,
        free,
        scheduler,
        device,
        null,
        registers,
        errors,
        messages,
      );
    }
    return machine;
  }

  #setLine(asserted: boolean): void {
    if (asserted === this.line) throw new Error("told a level that the line has already");
    this.line = asserted;
    if (asserted) this.raised++;
  }

  counters(): Record<string, number> {
    return { ...(this.fn ?? this.registers)!.counters() };
  }

  close(): void {
    (this.fn ?? this.registers)!.close();
  }
}
