import { VbusError } from "../errors.js";
import { MemorySpace, type MemoryRegion } from "../memory/space.js";
import { EventLoopScheduler } from "../scheduler.js";
import type { Saveable } from "../state/saveable.js";
import type { EmulatorContext, EmulatorHost, InterruptLine } from "./host.js";
import { checkShape, refuse, type Shape } from "./validation.js";

/** Longest that host work runs between two slices of the guest, in ms: about as long as the slices themselves. */
const HOOK_BUDGET_MS = 1;
const DEFAULT_ARENA = 8 << 20;
const LINE: Shape = { set: "function", close: "function" };

/** Something that is attached to a machine: a PCI function, or registers elsewhere. */
export interface MachinePart {
  /** Interrupts that were kept for later can be raised now. */
  catchUp(): void;
  /** Doorbells that were postponed are to be served now. */
  serve(): void;
  /** The machine was reset. */
  reset(): void;
  /** What of it is saved with the machine; absent: nothing can be. */
  readonly saved?: Saveable | undefined;
}

/** What the parts of a machine are attached with; the first one decides about the arena. */
export interface MachineOptions {
  /**
   * The scheduler that the device and what is behind it were made with; by default that of the machine's first part. Tasks
   * run between the guest's slices, so nothing waits for the event loop while the guest is busy.
   */
  readonly scheduler?: EventLoopScheduler;
  /** Bytes of the emulator's private memory for the engine's state, shared by all that is attached; default 8 MiB. */
  readonly arenaSize?: number;
  /** Told of errors that hurt nothing but what they name. */
  readonly onError?: (error: unknown) => void;
}

const machines = new WeakMap<EmulatorHost, EmulatorMachine>();

const covers = (region: MemoryRegion, { gpa, length, address }: MemoryRegion): boolean =>
  region.gpa <= gpa &&
  region.gpa + region.length >= gpa + length &&
  address - region.address === gpa - region.gpa;

/**
 * One machine of an emulator's with things from outside attached to it: bridges, virtio functions. They share its hooks, one
 * memory space with one arena, schedulers, and what is known of the moment. It exists from the first to the last of them.
 */
export class EmulatorMachine {
  /** The guest's memory. */
  readonly memory: MemorySpace;
  /** The scheduler of parts that bring none. */
  readonly scheduler: EventLoopScheduler;
  /** When the guest was last seen to have nothing to do, in instructions. */
  lastIdle = 0;
  /** Ranges of guest memory that the emulator was told to look at for stale translated code. */
  invalidated = 0;
  readonly #parts = new Set<MachinePart>();
  readonly #schedulers = new Map<EventLoopScheduler, number>();
  readonly #arena: { address: number; size: number };
  readonly #unhook: () => void;
  #context: EmulatorContext = "task";
  #users = 0;

  private constructor(
    /** The emulator. */
    readonly host: EmulatorHost,
    { scheduler, arenaSize = DEFAULT_ARENA, onError }: MachineOptions,
  ) {
    this.scheduler = scheduler ?? new EventLoopScheduler(onError);
    this.#arena = { address: host.allocPrivate(arenaSize), size: arenaSize };
    try {
      this.memory = MemorySpace.attachSync(host.memory, this.#arena, host.regions);
      if (host.onHostWrite !== undefined) this.memory.logWrites(true);
      const unhook: unknown = host.hook({
        enter: () => {
          this.#work("task");
        },
        between: () => {
          if (host.idle) this.lastIdle = host.instructions;
          this.#work("hook");
        },
        reset: () => {
          this.in("task", () => {
            for (const part of this.#parts) part.reset();
          });
        },
        regionsChanged: () => {
          this.#regionsChanged();
        },
      });
      if (typeof unhook !== "function")
        refuse("what the host's hook returned", unhook, "return a function that takes the hooks out again");
      this.#unhook = unhook as () => void;
    } catch (error) {
      host.freePrivate(this.#arena.address, arenaSize);
      throw error;
    }
  }

  /**
   * Attaches something.
   * @param make - makes it; the machine is its until it calls {@link EmulatorMachine.release}, or throws
   * @throws VbusError ENOMEM; EINVAL for regions that cannot be; what `make` throws
   */
  static attach<T>(host: EmulatorHost, options: MachineOptions, make: (machine: EmulatorMachine) => T): T {
    const machine = machines.get(host) ?? new EmulatorMachine(host, options);
    machines.set(host, machine);
    machine.#users++;
    try {
      return make(machine);
    } catch (error) {
      machine.release();
      throw error;
    }
  }

  /** The machine of a host, when anything is attached to it. */
  static of(host: EmulatorHost): EmulatorMachine | undefined {
    return machines.get(host);
  }

  /**
   * What of the machine can be saved (`vbus/state`), one part for each thing that is attached. Call it when the guest has
   * stopped: what was kept for later is served before.
   */
  settle(): Saveable[] {
    this.in("task", () => {
      for (const part of this.#parts) part.catchUp();
      for (const part of this.#parts) part.serve();
    });
    return [...this.#parts].flatMap(({ saved }) => saved ?? []);
  }

  /** Where the thread is. */
  get context(): EmulatorContext {
    return this.#context;
  }

  /** Whether an interrupt may be raised at this moment. */
  get mayInterrupt(): boolean {
    const context = this.#context;
    return context === "memory" || context === "port" ? this.host.interruptsIn[context] : true;
  }

  /** A line of the machine's. @throws VbusError as `EmulatorHost.openLine` */
  openLine(irq: number): InterruptLine {
    const line = this.host.openLine(irq);
    checkShape("what the host's openLine returned", line, LINE, "return { set, close }");
    return line;
  }

  /** Takes a part in, and runs the tasks of its scheduler. */
  join(part: MachinePart, scheduler: EventLoopScheduler): void {
    this.#parts.add(part);
    this.#schedulers.set(scheduler, (this.#schedulers.get(scheduler) ?? 0) + 1);
  }

  /** Lets a part go; what it wrote is told to the emulator. */
  leave(part: MachinePart, scheduler: EventLoopScheduler): void {
    if (!this.#parts.delete(part)) return;
    const users = (this.#schedulers.get(scheduler) ?? 1) - 1;
    if (users === 0) this.#schedulers.delete(scheduler);
    else this.#schedulers.set(scheduler, users);
    this.written();
  }

  /** One user less; the last one takes the hooks out of the emulator, and gives its memory back. */
  release(): void {
    if (--this.#users > 0) return;
    machines.delete(this.host);
    this.#unhook();
    this.host.freePrivate(this.#arena.address, this.#arena.size);
  }

  /** Runs an access of the guest's, with the context noted, and the emulator told of what it wrote. */
  in<T>(context: EmulatorContext, access: () => T): T {
    const before = this.#context;
    this.#context = context;
    try {
      return access();
    } finally {
      this.#context = before;
      this.written();
    }
  }

  /** Host work, where the guest is not running. */
  #work(context: "task" | "hook"): void {
    if (this.#users === 0) return; // the hook may be below somebody else's
    this.in(context, () => {
      for (const part of this.#parts) part.catchUp();
      for (const part of this.#parts) part.serve();
      this.runTasks();
    });
  }

  /** Runs tasks that wait, for about as long as a slice of the guest takes. */
  runTasks(): void {
    for (const scheduler of this.#schedulers.keys()) scheduler.runPending(HOOK_BUDGET_MS);
  }

  readonly #invalidate = (gpa: number, length: number): void => {
    this.host.onHostWrite?.(gpa, length);
  };

  /** Tells the emulator what the host wrote, before the guest runs again. */
  written(): void {
    if (this.#users === 0 || this.host.onHostWrite === undefined) return;
    this.invalidated += this.memory.visitWrites(this.#invalidate);
  }

  #regionsChanged(): void {
    const now = this.host.regions;
    const lost = this.memory.regions.find((old) => !now.some((region) => covers(region, old)));
    if (lost !== undefined)
      throw new VbusError(
        "EOPNOTSUPP",
        `RAM at 0x${lost.gpa.toString(16)} moved or went away while rings may lie in it; memory can only be added: ` +
          "close what is attached, then attach it again",
      );
    this.memory.moveRegions(now);
  }
}
