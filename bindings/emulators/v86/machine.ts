import { VbusError } from "../../errors.js";
import { MemorySpace } from "../../memory/space.js";
import { EventLoopScheduler } from "../../scheduler.js";
import type { Saveable } from "../../state/saveable.js";
import { V86Internals, whenReady, type V86Emulator } from "./internals.js";

/** Where the thread is, as far as interrupts are concerned; see internals.ts. */
export type V86Context = "task" | "port" | "memory" | "hook";

/** Longest that host work runs between two slices of the guest, in ms: about as long as the slices themselves. */
const HOOK_BUDGET_MS = 1;
const DEFAULT_ARENA = 8 << 20;

/** Something that is attached to a machine: a PCI function, or registers elsewhere. */
export interface V86Part {
  /** Interrupts that were kept for later can be raised now. */
  catchUp(): void;
  /** Doorbells that were postponed are to be served now. */
  serve(): void;
  /** The machine was reset. */
  reset(): void;
  /** What of it is saved with the machine. */
  readonly saved?: Saveable;
}

/** What the parts of a machine are attached with; the first one decides about the arena. */
export interface V86MachineOptions {
  /**
   * The scheduler that the device and what is behind it were made with; by default that of the machine's first part. Tasks
   * run between the guest's slices, so nothing waits for the event loop while the guest is busy.
   */
  readonly scheduler?: EventLoopScheduler;
  /** Bytes of v86's own memory for the engine's private state, shared by all that is attached; default 8 MiB. */
  readonly arenaSize?: number;
  /** Told of errors that hurt nothing but what they name. */
  readonly onError?: (error: unknown) => void;
}

const machines = new WeakMap<V86Emulator, V86Machine>();

/**
 * One machine of v86's with things from outside attached to it: bridges, virtio functions. They share its hooks, one memory
 * space with one arena, schedulers, and what is known of the moment. It exists from the first to the last of them.
 */
export class V86Machine {
  /** v86. */
  readonly internals: V86Internals;
  /** The guest's memory. */
  readonly memory: MemorySpace;
  /** The scheduler of parts that bring none. */
  readonly scheduler: EventLoopScheduler;
  /** When the guest was last seen to have nothing to do, in instructions. */
  lastIdle = 0;
  /** Ranges of guest memory that v86 was told to look at for stale translated code. */
  invalidated = 0;
  readonly #parts = new Set<V86Part>();
  readonly #schedulers = new Map<EventLoopScheduler, number>();
  readonly #arena: { address: number; size: number };
  #context: V86Context = "task";
  #users = 0;

  private constructor(
    private readonly emulator: V86Emulator,
    { scheduler, arenaSize = DEFAULT_ARENA, onError }: V86MachineOptions,
  ) {
    const internals = new V86Internals(emulator);
    this.internals = internals;
    this.scheduler = scheduler ?? new EventLoopScheduler(onError);
    this.#arena = { address: internals.allocatePrivate(arenaSize), size: arenaSize };
    try {
      this.memory = MemorySpace.attachSync(internals.memory, this.#arena, internals.regions);
      this.memory.logWrites(true);
    } catch (error) {
      internals.freePrivate(this.#arena.address, arenaSize);
      throw error;
    }
    internals.hook({
      enter: () => {
        this.#work("task");
      },
      between: () => {
        if (internals.halted) this.lastIdle = internals.instructions;
        this.#work("hook");
      },
      reset: () => {
        for (const part of this.#parts) part.reset();
      },
    });
    internals.cureAcpiHotplug();
  }

  /**
   * Attaches something as soon as the machine exists, and before a saved state is applied.
   * @param make - makes it; the machine is its until it calls {@link V86Machine.release}, or throws
   * @throws VbusError EOPNOTSUPP for a v86 of another layout; ENOMEM; what `make` throws
   */
  static attach<T>(
    emulator: V86Emulator,
    options: V86MachineOptions,
    make: (machine: V86Machine) => T,
  ): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      whenReady(emulator, () => {
        let machine: V86Machine | undefined;
        try {
          machine = machines.get(emulator) ?? new V86Machine(emulator, options);
          machines.set(emulator, machine);
          machine.#users++;
          resolve(make(machine));
        } catch (error) {
          machine?.release();
          reject(error instanceof Error ? error : new VbusError("EIO", "attaching failed", { cause: error }));
        }
      });
    });
  }

  /** The machine of an emulator, when anything is attached to it. */
  static of(emulator: V86Emulator): V86Machine | undefined {
    return machines.get(emulator);
  }

  /** What is attached. */
  get parts(): Iterable<V86Part> {
    return this.#parts;
  }

  /** Where the thread is. */
  get context(): V86Context {
    return this.#context;
  }

  /** Takes a part in, and runs the tasks of its scheduler. */
  join(part: V86Part, scheduler: EventLoopScheduler): void {
    this.#parts.add(part);
    this.#schedulers.set(scheduler, (this.#schedulers.get(scheduler) ?? 0) + 1);
  }

  /** Lets a part go; what it wrote is told to v86. */
  leave(part: V86Part, scheduler: EventLoopScheduler): void {
    if (!this.#parts.delete(part)) return;
    const users = (this.#schedulers.get(scheduler) ?? 1) - 1;
    if (users === 0) this.#schedulers.delete(scheduler);
    else this.#schedulers.set(scheduler, users);
    this.written();
  }

  /** One user less; the last one takes the hooks out of v86, and gives its memory back. */
  release(): void {
    if (--this.#users > 0) return;
    machines.delete(this.emulator);
    this.internals.unhook();
    this.internals.freePrivate(this.#arena.address, this.#arena.size);
  }

  /** Runs an access of the guest's, with the context noted, and v86 told of what it wrote. */
  in<T>(context: V86Context, access: () => T): T {
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

  /** Serves what was kept for later: the guest was stopped, and is about to be saved. */
  settle(): void {
    this.in("task", () => {
      for (const part of this.#parts) part.catchUp();
      for (const part of this.#parts) part.serve();
    });
  }

  /** Runs tasks that wait, for about as long as a slice of the guest takes. */
  runTasks(): void {
    for (const scheduler of this.#schedulers.keys()) scheduler.runPending(HOOK_BUDGET_MS);
  }

  readonly #invalidate = (gpa: number, length: number): void => {
    this.internals.written(gpa, length);
  };

  /** Tells v86 what the host wrote, before the guest runs again. */
  written(): void {
    if (this.#users === 0) return;
    this.invalidated += this.memory.visitWrites(this.#invalidate);
  }
}
