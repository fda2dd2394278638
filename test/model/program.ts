/**
 * Programs for the machine of `tso.ts`: a handful of instructions over shared cells and private registers,
 * and a builder that writes them down with structured control flow.
 */

/** `plain` is an ordinary access, `atomic` a sequentially consistent one. */
export type Order = "plain" | "atomic";

/** A shared cell, by its number in the layout. */
export type Cell = number;

/** A private register of one thread, by its number in the program. */
export type Register = number;

/** Reads a private register. */
export type Read = (register: Register) => number;

/** A number, or how to compute one from the thread's private registers. */
export type Expression = number | ((read: Read) => number);

/** A condition over the thread's own registers and, for checks only, those of its peer. */
export type Condition = (own: Read, peer: Read) => boolean;

/** What a thread can do; the machine of `tso.ts` gives each its meaning. */
export type Instruction =
  | { op: "load"; cell: Expression; into: Register; order: Order }
  | { op: "store"; cell: Expression; value: Expression; order: Order }
  | { op: "fence" }
  | { op: "writeFence" }
  | { op: "ring"; cell: Cell; drains: boolean }
  | { op: "sleep"; cell: Cell }
  | { op: "take"; cell: Cell; into: Register }
  | { op: "set"; register: Register; value: Expression }
  | { op: "jump"; when: Condition | undefined; to: number }
  | { op: "check"; kind: string; message: string; holds: Condition }
  | { op: "end" };

/** A finished program: what one thread executes. Made by {@link ProgramBuilder}. */
export interface Program {
  readonly name: string;
  readonly instructions: readonly Instruction[];
  readonly registers: readonly string[];
  /** Cells that the program loads plainly: candidates for early satisfaction in `relaxed`. */
  readonly plainLoads: ReadonlySet<Cell>;
}

/** Leaves the loop it was handed to. */
export type Exit = { readonly at: number[] };

/** Assembles a {@link Program}; control flow is structured, sub-routines are plain functions. */
export class ProgramBuilder {
  readonly #instructions: Instruction[] = [];
  readonly #registers: string[] = [];
  readonly #plainLoads = new Set<Cell>();

  constructor(readonly name: string) {}

  /** Allocates a private register, zero at the start. */
  register(name: string): Register {
    return this.#registers.push(name) - 1;
  }

  /** Loads a shared cell. `cells` lists what a computed address can be (needed for plain loads). */
  load(into: Register, cell: Expression, order: Order, cells: readonly Cell[] = []): void {
    if (order === "plain") {
      for (const each of typeof cell === "number" ? [cell] : cells) this.#plainLoads.add(each);
    }
    this.#instructions.push({ op: "load", cell, into, order });
  }

  /** Stores to a shared cell. */
  store(cell: Expression, value: Expression, order: Order): void {
    this.#instructions.push({ op: "store", cell, value, order });
  }

  /** Full fence: everything before it is visible before anything after it is loaded. */
  fence(): void {
    this.#instructions.push({ op: "fence" });
  }

  /** Store fence of 2009 (`smp_wmb`): orders stores among themselves and nothing else. */
  writeFence(): void {
    this.#instructions.push({ op: "writeFence" });
  }

  /** Rings a doorbell. A doorbell that does not drain overtakes the stores still buffered. */
  ring(cell: Cell, drains = true): void {
    this.#instructions.push({ op: "ring", cell, drains });
  }

  /** Sleeps until the doorbell was rung, and takes it. */
  sleep(cell: Cell): void {
    this.#instructions.push({ op: "sleep", cell });
  }

  /** Takes a doorbell without waiting for it: 1 when it was rung. */
  take(into: Register, cell: Cell): void {
    this.#instructions.push({ op: "take", cell, into });
  }

  /** Private arithmetic. */
  set(register: Register, value: Expression): void {
    this.#instructions.push({ op: "set", register, value });
  }

  /** Zeroes registers that are dead from here on, so that they do not tell equal states apart. */
  forget(...registers: Register[]): void {
    for (const register of registers) this.set(register, 0);
  }

  /** States what must hold at this point, in the same instant as the step before it. */
  check(kind: string, message: string, holds: Condition): void {
    this.#instructions.push({ op: "check", kind, message, holds });
  }

  /** Repeats `body` until it exits. */
  loop(body: (exit: Exit) => void): void {
    const start = this.#instructions.length;
    const exit: Exit = { at: [] };
    body(exit);
    this.#instructions.push({ op: "jump", when: undefined, to: start });
    this.#land(exit.at);
  }

  /** Leaves a loop when the condition holds. */
  exitWhen(exit: Exit, when: Condition): void {
    exit.at.push(this.#instructions.push({ op: "jump", when, to: -1 }) - 1);
  }

  /** Executes `body` only when the condition holds. */
  when(condition: Condition, body: () => void, otherwise?: () => void): void {
    const skip =
      this.#instructions.push({ op: "jump", when: (own, peer) => !condition(own, peer), to: -1 }) - 1;
    body();
    if (otherwise === undefined) {
      this.#land([skip]);
      return;
    }
    const end = this.#instructions.push({ op: "jump", when: undefined, to: -1 }) - 1;
    this.#land([skip]);
    otherwise();
    this.#land([end]);
  }

  /** Ends the program and returns it. */
  build(): Program {
    this.#instructions.push({ op: "end" });
    if (this.#instructions.length > 255) {
      throw new RangeError(`${this.name} has ${this.#instructions.length} instructions, limit 255`);
    }
    return {
      name: this.name,
      instructions: this.#instructions,
      registers: this.#registers,
      plainLoads: this.#plainLoads,
    };
  }

  #land(jumps: readonly number[]): void {
    for (const at of jumps) {
      const jump = this.#instructions[at];
      if (jump?.op !== "jump") throw new Error(`instruction ${at} of ${this.name} is no jump`);
      this.#instructions[at] = { ...jump, to: this.#instructions.length };
    }
  }
}
