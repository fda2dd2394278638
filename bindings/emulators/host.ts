import type { AccessWidth, PciConfigSpace } from "../connectors/pci/config-space.js";
import type { MemoryRegion } from "../memory/space.js";

/*
 * What an emulator has to offer so that things of this package can be put in front of its guest. `docs/embedding.md` takes
 * its author through it, member by member, with `examples/toy-emulator` as the example.
 *
 *     attachVbusMmio   attachVbusPci   attachVirtioMmio   attachVirtioPci
 *                 \          \             /             /
 *                  EmulatorMachine: one for each host; contexts, doorbells,
 *                  schedulers, memory space, what the host wrote
 *                                     |
 *                                EmulatorHost        <- an emulator's author writes this
 */

/**
 * Where the emulator's thread is while it calls into this package, as far as interrupts are concerned: in an access of the
 * guest's to ports or to memory-mapped registers, in a task of the event loop (the guest is not running), in the poll hook.
 */
export type EmulatorContext = "task" | "port" | "memory" | "hook";

/** Registers that a guest reaches by memory accesses or by port accesses. Neither method throws. */
export interface RegisterBlock {
  /** Guest-physical memory, or I/O ports. */
  readonly kind: "memory" | "io";
  /** Bytes or ports. */
  readonly size: number;
  /** First guest-physical address, or first port. Of a PCI function's BAR: where it is at first, 0 when firmware decides. */
  readonly address: number;
  /** A read, `offset` from the start of the block. Unsigned. */
  read(offset: number, width: AccessWidth): number;
  /** A write; bits of `value` above the width are ignored. */
  write(offset: number, width: AccessWidth, value: number): void;
}

/** A line of the machine's interrupt controller, that belongs to whoever opened it. */
export interface InterruptLine {
  /** Sets its level. Called only where interrupts may be raised; from a task it must also wake a guest that sleeps. */
  set(asserted: boolean): void;
  /** Gives it back, lowered. Twice is harmless. */
  close(): void;
}

/** Registers that were mapped. */
export interface Mapping {
  /** Takes them away again: accesses lead to what the emulator has where nothing is. Twice is harmless. */
  unmap(): void;
}

/** A PCI function that wants a place on the emulator's bus. No method throws. */
export interface HostedPciFunction {
  /** For people. */
  readonly name: string;
  /** Device number on bus 0; it is function 0 of it. */
  readonly slot: number;
  /**
   * Its configuration space: its contents to begin with ({@link PciConfigSpace.image}), and where its BARs were put
   * ({@link PciConfigSpace.barAddress}) when the emulator routes configuration cycles to the function.
   */
  readonly config: PciConfigSpace;
  /** Who answers for its BARs, by number. */
  readonly bars: readonly (RegisterBlock | null)[];
  /** A configuration read; unsigned. */
  configRead(offset: number, width: AccessWidth): number;
  /** A configuration write. */
  configWrite(offset: number, width: AccessWidth, value: number): void;
  /**
   * For emulators that keep configuration spaces themselves, instead of `configWrite`: the bytes that they stored. What the
   * guest was not allowed to change is to be put back from `config` afterwards.
   */
  configWritten(offset: number, bytes: Uint8Array): void;
  /** For those: true when a read of these bytes must be passed on to `configRead`, since it does something. */
  readsThrough(offset: number, width: AccessWidth): boolean;
}

/** A PCI function's place on the emulator's bus. */
export interface PciSeat {
  /** Sets the level of its INTA line. Called only where the host says that interrupts may be raised. */
  setLine(asserted: boolean): void;
  /**
   * For emulators that keep configuration spaces themselves: the interrupt status of the function changed, which a guest
   * reads from its status register. Called in any context, before `setLine`.
   */
  showLine?(asserted: boolean): void;
  /** For those: the whole space is to be taken over from the function's `config`, but for the BARs (after a reset). */
  refresh?(): void;
  /** Takes the function off the bus, when the emulator can do that; else its registers read as 0 from now on. */
  unplug?(): void;
}

/** Message-signalled interrupts. */
export interface MessageSink {
  /**
   * Notes a message: a 32-bit write of `data` to guest-physical `address`. Called in any context, so it must not run
   * guest code or change the flow of what runs. False when nobody takes it: no interrupt controller there, no such vector.
   */
  request(address: number, data: number): boolean;
  /** Lets the guest take what was noted. Called only where the host says that interrupts may be raised. */
  deliver(context: EmulatorContext): void;
}

/** What an emulator calls, and when; see {@link EmulatorHost.hook}. None of it throws, but for {@link EmulatorHooks.regionsChanged}. */
export interface EmulatorHooks {
  /** The guest is about to run again, after tasks of the event loop had their turn. */
  enter(): void;
  /**
   * Between two slices of a running guest, and in each turn while it idles: the poll hook. Postponed doorbells are served
   * here, and tasks run for about a millisecond at most: call it every 100,000 instructions or so.
   */
  between(): void;
  /** The machine was reset. */
  reset(): void;
  /**
   * {@link EmulatorHost.regions} is longer, or has longer regions, than before: memory was added.
   * @throws VbusError EOPNOTSUPP when RAM that was there before has moved or gone; nothing changed then
   */
  regionsChanged(): void;
}

/**
 * An emulator, as this package sees it: what an emulator's author implements once, and every connector works with. One
 * object stands for one machine; whatever is attached with the same object shares one memory space and one set of hooks.
 * Everything runs in the emulator's thread.
 */
export interface EmulatorHost {
  /** Default name of buses and members that are made for its guest. */
  readonly name: string;
  /**
   * The memory that the guest's RAM lies in; the same object for the life of the machine. It may grow at any time, by whoever
   * has it: that kills JavaScript views, of which nothing here is kept.
   */
  readonly memory: WebAssembly.Memory;
  /** What of the guest-physical address space is RAM, and where it lies in the memory. All that a guest can name. */
  readonly regions: readonly MemoryRegion[];
  /**
   * Memory outside every region, for the engine's private state, 16-byte aligned. Must not be at address 0.
   * @throws VbusError ENOMEM
   */
  allocPrivate(size: number): number;
  /** Gives it back. */
  freePrivate(address: number, size: number): void;

  /**
   * Where interrupts may be raised besides tasks and hooks: true for an emulator that looks at its interrupts before the
   * next instruction, whatever calls it. False where the guest's registers are elsewhere during such an access (in locals of
   * translated code): then what an access would raise is kept, the slice is ended, and it is raised in the next poll hook.
   */
  readonly interruptsIn: {
    /** Accesses to memory-mapped registers. */
    readonly memory: boolean;
    /** Accesses to I/O ports. */
    readonly port: boolean;
  };
  /**
   * Opens a line of the machine's interrupt controller.
   * @throws VbusError EINVAL for a number that does not exist; EBUSY for one that is taken
   */
  openLine(irq: number): InterruptLine;
  /** Message-signalled interrupts, when the machine has a controller for them; without, functions have lines only. */
  readonly messages?: MessageSink;

  /**
   * Maps registers. Accesses call the block from the emulator's thread, within the instruction that makes them.
   * @throws VbusError EBUSY when something is there; EOPNOTSUPP for a kind that the machine does not have; EINVAL
   */
  mapRegisters(block: RegisterBlock): Mapping;
  /**
   * Puts a function on the PCI bus, before firmware looks. Absent: the machine has no PCI.
   * @throws VbusError EBUSY when its slot, or what it would map, is taken
   */
  addPciFunction?(fn: HostedPciFunction): PciSeat;
  /** How a guest reaches configuration spaces, as far as interrupts are concerned. Default `port`; `memory` with ECAM. */
  readonly configAccesses?: "port" | "memory";

  /** Calls these hooks from now on, until the function that it returns is called. */
  hook(hooks: EmulatorHooks): () => void;
  /**
   * Guest RAM was written from outside, and the guest has not run since: code that was translated from there is stale.
   * Emulators that read instructions from memory each time leave it out, and no log of writes is kept for them.
   */
  onHostWrite?(gpa: number, length: number): void;

  /** How many instructions the guest has executed, modulo 2^32; any clock that runs only while the guest does will do. */
  readonly instructions: number;
  /** True while the guest waits for an interrupt. */
  readonly idle: boolean;
  /** Makes the slice that runs at this moment end soon, so that the poll hook runs. Absent: slices are short anyway. */
  endSlice?(): void;
}
