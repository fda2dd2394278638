import type { MemorySpace } from "../memory/space.js";
import type { EventLoopScheduler } from "../scheduler.js";
import { Doorbells } from "./doorbells.js";
import type { InterruptLine } from "./host.js";
import { EmulatorInterrupts, type InterruptCounters } from "./interrupts.js";
import type { EmulatorMachine, MachinePart } from "./machine.js";
import { savedPart, type SavedAttachment } from "./saved-part.js";

/** What was counted of an attached function or device, besides its own counters. */
export interface AttachmentCounters extends InterruptCounters {
  /** Doorbells that were served when the current slice of the guest was over, several of one doorbell as one. */
  postponed: number;
  /** Ranges of guest memory that the emulator was told to look at for stale translated code: of the machine. */
  invalidated: number;
}

/** What a {@link Part} is wired to. */
export interface PartWiring {
  /** The interrupt line; belongs to the part from now on. */
  readonly line: InterruptLine;
  /** Told of the line's level before the guest can see it. */
  readonly shown?: (asserted: boolean) => void;
  /** Serves a doorbell. */
  readonly answer: (doorbell: number) => void;
  /** A doorbell will be served later: the guest need not ring it until then. */
  readonly silence?: (doorbell: number) => void;
  /** The machine was reset. */
  readonly reset: () => void;
  /** What of it is saved, made when it is needed: the connector's half, and the level of its line. */
  readonly saved: () => SavedAttachment;
  /** Told of errors that hurt nothing but what they name. */
  readonly onError?: ((error: unknown) => void) | undefined;
}

const nothing = (): void => undefined;

/**
 * What is the same of everything that is attached to a machine: when its interrupts go out, when its doorbells are served,
 * what happens at a reset and at the end. @internal
 */
export class Part {
  /** Its interrupts. */
  readonly interrupts: EmulatorInterrupts;
  /** Its doorbells. */
  readonly doorbells: Doorbells;
  readonly #part: MachinePart;
  readonly #line: InterruptLine;
  #closed = false;

  constructor(
    /** The machine. */
    readonly machine: EmulatorMachine,
    /** The scheduler that it runs on. */
    readonly scheduler: EventLoopScheduler,
    { line, shown = nothing, answer, silence = nothing, reset, saved, onError }: PartWiring,
  ) {
    this.#line = line;
    this.interrupts = new EmulatorInterrupts(
      machine,
      (asserted) => {
        line.set(asserted);
      },
      shown,
      onError,
    );
    this.doorbells = new Doorbells(machine, answer, silence);
    const { interrupts } = this;
    this.#part = {
      catchUp: () => {
        this.interrupts.catchUp();
      },
      serve: () => {
        this.doorbells.serve();
      },
      reset: () => {
        this.doorbells.clear();
        reset();
      },
      get saved() {
        return savedPart(saved(), interrupts);
      },
    };
  }

  /** The guest's memory. */
  get memory(): MemorySpace {
    return this.machine.memory;
  }

  /** True from {@link Part.close} on. */
  get closed(): boolean {
    return this.#closed;
  }

  /** Takes part in the machine's life, once everything is in place. */
  join(): void {
    this.machine.join(this.#part, this.scheduler);
  }

  /** What was counted so far. */
  counters(): AttachmentCounters {
    return {
      ...this.interrupts.counters(),
      postponed: this.doorbells.postponed,
      invalidated: this.machine.invalidated,
    };
  }

  /** Leaves the machine. @param end - ends the function or device, first; called once */
  close(end: () => void): void {
    if (this.#closed) return;
    this.#closed = true;
    end();
    this.#line.close();
    this.doorbells.clear();
    this.machine.leave(this.#part, this.scheduler);
    this.machine.release();
  }

  /** Gives back what it has when attaching failed halfway. The machine is let go by who attaches. */
  discard(): void {
    this.#closed = true;
    this.#line.close();
  }
}
