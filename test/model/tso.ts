/**
 * A machine with store buffers and an explorer that visits every state it can reach.
 *
 * # The machine
 *
 * Threads run small programs over a few shared cells (one cell = one byte or word of the real
 * layout; a cell is never torn). Two memory models are offered:
 *
 * - `tso` is x86-TSO. A plain store enters the thread's own FIFO buffer and reaches memory at some
 *   later, freely chosen moment. A load looks into the thread's own buffer first (forwarding), then
 *   into memory. A sequentially consistent store, a fence, ringing a doorbell and taking one need an
 *   empty buffer, which is how `xchg`, `mfence` and `lock or` behave. Loads are never reordered.
 *
 * - `relaxed` is what is left of those guarantees for a program compiled to WebAssembly, where
 *   only atomics are ordered. Plain stores of one thread to *different* cells reach memory in any
 *   order (a write fence keeps its place in the buffer). A *plain* load may also be satisfied early:
 *   when the peer overwrites a cell that this thread loads plainly somewhere, the thread may keep
 *   the old value and use it in a later plain load of that cell, unless an atomic load, or a fence,
 *   or a store of its own to the cell comes first. A sequentially consistent *store* does
 *   not prevent that; this is the caution at O4 in `docs/abi/shm-signal.md` section 4. At most one
 *   value per thread is held back at a time, so the search is exhaustive for one load out of place.
 *
 * An atomic load costs and orders the same in both models: it does not drain the buffer.
 *
 * # The explorer
 *
 * Breadth first over explicit states, so that the first trace found for a violation is a shortest
 * one. Steps that no other thread can notice (arithmetic, jumps, putting a store into the buffer)
 * are folded into the visible step before them; all other interleavings are visited. It is sound
 * because such a step commutes with every step of the peer and with the thread's own flushes.
 *
 * A state in which nothing can happen any more, other than spinning in place, is *quiescent* and is
 * given to the caller's `judge`. With `progress` the explorer also asks whether some good
 * quiescent state can still be reached from every state: if not, the threads chase each other
 * for ever.
 */

import { Buffer } from "node:buffer";

import type { Cell, Expression, Order, Program, Read, Register } from "./program.js";

/** Which guarantees the machine gives; see the essay at the top of this file. */
export type MemoryModel = "tso" | "relaxed";

/** What a quiescent state looks like to the judge. */
export interface Quiescent {
  /** Value of a shared cell in memory. */
  cell(cell: Cell): number;
  /** Value of a private register of thread 0 or 1. */
  register(thread: number, register: Register): number;
}

/** A property that does not hold, with a shortest way to get there. */
export interface Violation {
  readonly kind: string;
  readonly message: string;
  /** One line per step, readable; computed on demand. */
  trace(): string[];
}

/** What to explore. */
export interface Experiment {
  readonly model: MemoryModel;
  /** Names of the shared cells, in order; also their number. All start at zero. */
  readonly cells: readonly string[];
  readonly programs: readonly [Program, Program];
  /** Says what is wrong with a quiescent state, or nothing. */
  judge(state: Quiescent): { kind: string; message: string } | undefined;
  /** Also require that a good quiescent state stays reachable from everywhere. */
  readonly progress?: boolean;
  /** Give up (throw) beyond this many states: the model is wrong or too large. */
  readonly limit?: number;
}

/** What was found. */
export interface Outcome {
  readonly states: number;
  readonly steps: number;
  /** Quiescent states without fault. */
  readonly goodEnds: number;
  /** First (shortest) violation of each kind. */
  readonly violations: ReadonlyMap<string, Violation>;
}

/** Kind of the violation reported when the threads can chase each other for ever. */
export const NO_PROGRESS = "no progress";

const BUFFER_LIMIT = 14;
const FENCE_MARK = 255;
/** A folded run longer than this is an endless private loop. */
const FOLD_LIMIT = 1000;

/**
 * Visits every reachable state.
 *
 * @throws RangeError when a store buffer or the state limit overflows (a fault of the experiment).
 */
export function explore(experiment: Experiment): Outcome {
  return new Explorer(experiment).run();
}

type Visit = () => void;

class Explorer {
  readonly #e: Experiment;
  readonly #bases: number[] = [];
  readonly #registerCounts: number[] = [];
  readonly #size: number;
  readonly #now: Buffer;
  readonly #next: Buffer;
  readonly #reads: Read[] = [];
  /** Thread-local offsets, relative to the thread's base. */
  static readonly #PC = 0;
  static readonly #STALE_CELL = 1;
  static readonly #STALE_VALUE = 2;
  static readonly #DEPTH = 3;
  static readonly #REGISTERS = 4;
  readonly #dead: number;

  readonly #index = new Map<string, number>();
  readonly #keys: string[] = [];
  readonly #parents: number[] = [];
  readonly #ordinals: number[] = [];
  readonly #edges: number[] = [];
  readonly #violations = new Map<string, Violation>();
  #fault: { kind: string; message: string } | undefined;
  /** Lines said by the step being taken; kept only while a trace is told. */
  #log: string[] | undefined;

  constructor(experiment: Experiment) {
    this.#e = experiment;
    let at = experiment.cells.length;
    for (const program of experiment.programs) {
      this.#bases.push(at);
      this.#registerCounts.push(program.registers.length);
      at += Explorer.#REGISTERS + program.registers.length + 2 * BUFFER_LIMIT;
    }
    this.#dead = at;
    this.#size = at + 1;
    this.#now = Buffer.alloc(this.#size);
    this.#next = Buffer.alloc(this.#size);
    for (const base of this.#bases) {
      this.#reads.push((register) => this.#next[base + Explorer.#REGISTERS + register] ?? 0);
    }
  }

  run(): Outcome {
    const limit = this.#e.limit ?? 2_000_000;
    this.#fold(0);
    this.#fold(1);
    this.#record(-1, 0);
    const good: number[] = [];
    let steps = 0;
    for (let current = 0; current < this.#keys.length; current++) {
      let moves = 0;
      let ordinal = 0;
      const key = this.#keys[current] ?? "";
      this.#successors(key, () => {
        steps++;
        const target = this.#record(current, ordinal++);
        if (target !== current) {
          moves++;
          if (this.#e.progress === true) this.#edges.push(current, target);
        }
      });
      if (this.#keys.length > limit) throw new RangeError(`more than ${limit} states`);
      if (moves > 0 || this.#isDead(key)) continue; // not quiescent, or a violation already filed
      const verdict = this.#judge(key);
      if (verdict === undefined) good.push(current);
      else this.#violate(verdict.kind, verdict.message, current);
    }
    if (this.#e.progress === true && this.#violations.size === 0) this.#requireProgress(good);
    return {
      states: this.#keys.length,
      steps,
      goodEnds: good.length,
      violations: this.#violations,
    };
  }

  #isDead(key: string): boolean {
    return key.charCodeAt(this.#dead) !== 0;
  }

  #judge(key: string): { kind: string; message: string } | undefined {
    return this.#e.judge({
      cell: (cell) => key.charCodeAt(cell),
      register: (thread, register) =>
        key.charCodeAt((this.#bases[thread] ?? 0) + Explorer.#REGISTERS + register),
    });
  }

  /** Files the state in `#next`; returns its number. */
  #record(parent: number, ordinal: number): number {
    const key = this.#next.toString("latin1");
    const known = this.#index.get(key);
    if (known !== undefined) return known;
    const number = this.#keys.push(key) - 1;
    this.#index.set(key, number);
    this.#parents.push(parent);
    this.#ordinals.push(ordinal);
    if (this.#fault !== undefined) this.#violate(this.#fault.kind, this.#fault.message, number);
    return number;
  }

  #violate(kind: string, message: string, state: number): void {
    if (!this.#violations.has(kind)) {
      this.#violations.set(kind, { kind, message, trace: () => this.#trace(state) });
    }
  }

  #requireProgress(good: readonly number[]): void {
    const count = this.#keys.length;
    const first = new Int32Array(count + 1);
    for (let e = 1; e < this.#edges.length; e += 2) first[(this.#edges[e] ?? 0) + 1]! += 1;
    for (let s = 0; s < count; s++) first[s + 1]! += first[s] ?? 0;
    const fill = first.slice();
    const sources = new Int32Array(this.#edges.length / 2);
    for (let e = 0; e < this.#edges.length; e += 2) {
      const target = this.#edges[e + 1] ?? 0;
      const slot = fill[target] ?? 0;
      sources[slot] = this.#edges[e] ?? 0;
      fill[target] = slot + 1;
    }
    const reaches = new Uint8Array(count);
    const work = [...good];
    for (const state of work) reaches[state] = 1;
    for (let state = work.pop(); state !== undefined; state = work.pop()) {
      for (let e = first[state] ?? 0; e < (first[state + 1] ?? 0); e++) {
        const source = sources[e] ?? 0;
        if (reaches[source] === 0) {
          reaches[source] = 1;
          work.push(source);
        }
      }
    }
    const trapped = reaches.indexOf(0);
    if (trapped >= 0) this.#violate(NO_PROGRESS, "no good end can be reached from here", trapped);
  }

  /** Calls `visit` once per successor of the state `key`, with the successor in `#next`. */
  #successors(key: string, visit: Visit): void {
    if (this.#isDead(key)) return;
    this.#now.write(key, "latin1");
    for (let thread = 0; thread < this.#bases.length; thread++) {
      this.#flushes(thread, visit);
      this.#execute(thread, visit);
    }
  }

  #begin(): void {
    this.#now.copy(this.#next);
    this.#fault = undefined;
    if (this.#log !== undefined) this.#log.length = 0;
  }

  #bufferBase(thread: number): number {
    return (this.#bases[thread] ?? 0) + Explorer.#REGISTERS + (this.#registerCounts[thread] ?? 0);
  }

  /** Every buffered store that may reach memory next. */
  #flushes(thread: number, visit: Visit): void {
    const base = this.#bases[thread] ?? 0;
    const buffer = this.#bufferBase(thread);
    const depth = this.#now[base + Explorer.#DEPTH] ?? 0;
    const seen = new Set<number>();
    for (let i = 0; i < depth; i++) {
      const cell = this.#now[buffer + 2 * i] ?? 0;
      const value = this.#now[buffer + 2 * i + 1] ?? 0;
      if (i > 0 && (this.#e.model === "tso" || cell === FENCE_MARK)) break;
      if (seen.has(cell)) continue;
      seen.add(cell);
      const remove = (): void => {
        this.#next.copyWithin(buffer + 2 * i, buffer + 2 * i + 2, buffer + 2 * depth);
        this.#next.fill(0, buffer + 2 * depth - 2, buffer + 2 * depth);
        this.#next[base + Explorer.#DEPTH] = depth - 1;
        if (i === 0 && this.#next[buffer] === FENCE_MARK) {
          this.#next.copyWithin(buffer, buffer + 2, buffer + 2 * depth);
          this.#next[base + Explorer.#DEPTH] = depth - 2;
        }
      };
      this.#commit(thread, cell, value, "flushes", () => {
        remove();
        visit();
      });
    }
  }

  /** Writes memory; in `relaxed` the peer may hold on to the value that is overwritten. */
  #commit(thread: number, cell: Cell, value: number, verb: string, then: Visit): void {
    const before = this.#now[cell] ?? 0;
    this.#begin();
    this.#next[cell] = value;
    this.#say(thread, `${verb} ${this.#name(cell)} = ${value}`);
    then();
    const peer = 1 - thread;
    const peerBase = this.#bases[peer] ?? 0;
    if (
      this.#e.model === "relaxed" &&
      before !== value &&
      this.#e.programs[peer]?.plainLoads.has(cell) === true &&
      this.#now[peerBase + Explorer.#STALE_CELL] === 0
    ) {
      this.#begin();
      this.#next[cell] = value;
      this.#next[peerBase + Explorer.#STALE_CELL] = cell + 1;
      this.#next[peerBase + Explorer.#STALE_VALUE] = before;
      this.#say(thread, `${verb} ${this.#name(cell)} = ${value} (peer has already loaded ${before})`);
      then();
    }
  }

  #execute(thread: number, visit: Visit): void {
    const base = this.#bases[thread] ?? 0;
    const program = this.#e.programs[thread];
    const pc = this.#now[base + Explorer.#PC] ?? 0;
    const step = program?.instructions[pc];
    if (program === undefined || step === undefined) throw new RangeError(`no instruction ${pc}`);
    const drained = this.#now[base + Explorer.#DEPTH] === 0;
    const finish = (): void => {
      this.#next[base + Explorer.#PC] = pc + 1;
      this.#fold(thread);
      visit();
    };
    switch (step.op) {
      case "load": {
        this.#begin();
        const cell = this.#value(thread, step.cell);
        this.#load(thread, cell, step, finish);
        return;
      }
      case "store":
        if (!drained) return;
        this.#begin();
        this.#commit(
          thread,
          this.#value(thread, step.cell),
          this.#value(thread, step.value),
          "stores",
          finish,
        );
        return;
      case "fence":
        if (!drained) return;
        this.#begin();
        this.#next[base + Explorer.#STALE_CELL] = 0;
        this.#next[base + Explorer.#STALE_VALUE] = 0;
        this.#say(thread, "fences");
        finish();
        return;
      case "ring":
        if (step.drains && !drained) return;
        this.#begin();
        this.#next[step.cell] = 1;
        this.#say(thread, `rings ${this.#name(step.cell)}`);
        finish();
        return;
      case "sleep":
        if (!drained || this.#now[step.cell] === 0) return;
        this.#begin();
        this.#next[step.cell] = 0;
        this.#say(thread, `wakes up by ${this.#name(step.cell)}`);
        finish();
        return;
      case "take":
        if (!drained) return;
        this.#begin();
        this.#next[base + Explorer.#REGISTERS + step.into] = this.#now[step.cell] ?? 0;
        this.#next[step.cell] = 0;
        this.#say(thread, `takes ${this.#name(step.cell)} -> ${this.#now[step.cell] ?? 0}`);
        finish();
        return;
      case "end":
        return;
      default:
        throw new Error(`${step.op} was not folded`);
    }
  }

  #load(thread: number, cell: Cell, step: { into: Register; order: Order }, finish: Visit): void {
    const base = this.#bases[thread] ?? 0;
    const buffer = this.#bufferBase(thread);
    const into = base + Explorer.#REGISTERS + step.into;
    let value = this.#now[cell] ?? 0;
    let from = "";
    for (let i = 0; i < (this.#now[base + Explorer.#DEPTH] ?? 0); i++) {
      if (this.#now[buffer + 2 * i] === cell) {
        value = this.#now[buffer + 2 * i + 1] ?? 0;
        from = " (own buffer)";
      }
    }
    const stale = this.#now[base + Explorer.#STALE_CELL] === cell + 1;
    this.#begin();
    this.#next[into] = value;
    if (stale || step.order === "atomic") {
      this.#next[base + Explorer.#STALE_CELL] = 0;
      this.#next[base + Explorer.#STALE_VALUE] = 0;
    }
    this.#say(thread, `loads ${this.#name(cell)} -> ${value}${from}`);
    finish();
    if (stale && step.order === "plain") {
      this.#begin();
      const old = this.#now[base + Explorer.#STALE_VALUE] ?? 0;
      this.#next[into] = old;
      this.#say(thread, `loads ${this.#name(cell)} -> ${old} (satisfied early)`);
      finish();
    }
  }

  /** Runs the steps that nobody else can notice, up to the next one that somebody can. */
  #fold(thread: number): void {
    const base = this.#bases[thread] ?? 0;
    const program = this.#e.programs[thread];
    const own = this.#reads[thread];
    const peer = this.#reads[1 - thread];
    if (program === undefined || own === undefined || peer === undefined) return;
    for (let run = 0; run < FOLD_LIMIT; run++) {
      const pc = this.#next[base + Explorer.#PC] ?? 0;
      const step = program.instructions[pc];
      if (step === undefined) throw new RangeError(`${program.name} ran off its end`);
      let to = pc + 1;
      switch (step.op) {
        case "set":
          this.#next[base + Explorer.#REGISTERS + step.register] = this.#value(thread, step.value);
          break;
        case "jump":
          if (step.when === undefined || step.when(own, peer)) to = step.to;
          break;
        case "check":
          if (!step.holds(own, peer)) {
            this.#fault = { kind: step.kind, message: step.message };
            this.#next[this.#dead] = 1;
            this.#say(thread, `finds: ${step.message}`);
            return;
          }
          break;
        case "writeFence":
          if (this.#e.model === "relaxed" && this.#next[base + Explorer.#DEPTH] !== 0) {
            this.#enqueue(thread, FENCE_MARK, 0);
          }
          break;
        case "store": {
          if (step.order === "atomic") return;
          const cell = this.#value(thread, step.cell);
          const value = this.#value(thread, step.value);
          this.#enqueue(thread, cell, value);
          if (this.#next[base + Explorer.#STALE_CELL] === cell + 1) {
            this.#next[base + Explorer.#STALE_CELL] = 0;
            this.#next[base + Explorer.#STALE_VALUE] = 0;
          }
          this.#say(thread, `buffers ${this.#name(cell)} = ${value}`);
          break;
        }
        default:
          return;
      }
      this.#next[base + Explorer.#PC] = to;
    }
    throw new RangeError(`${program.name} loops without touching shared memory`);
  }

  #enqueue(thread: number, cell: number, value: number): void {
    const base = this.#bases[thread] ?? 0;
    const depth = this.#next[base + Explorer.#DEPTH] ?? 0;
    if (depth >= BUFFER_LIMIT) throw new RangeError(`store buffer of thread ${thread} is full`);
    const at = this.#bufferBase(thread) + 2 * depth;
    this.#next[at] = cell;
    this.#next[at + 1] = value;
    this.#next[base + Explorer.#DEPTH] = depth + 1;
  }

  #value(thread: number, expression: Expression): number {
    if (typeof expression === "number") return expression;
    const read = this.#reads[thread];
    if (read === undefined) throw new RangeError(`no thread ${thread}`);
    return expression(read);
  }

  #name(cell: Cell): string {
    return this.#e.cells[cell] ?? `cell ${cell}`;
  }

  #say(thread: number, what: string): void {
    this.#log?.push(`${(this.#e.programs[thread]?.name ?? "").padEnd(9)} ${what}`);
  }

  #trace(state: number): string[] {
    const path: number[] = [];
    for (let at = state; at > 0; at = this.#parents[at] ?? 0) path.unshift(at);
    const lines: string[] = [];
    for (const at of path) {
      let ordinal = 0;
      this.#log = [];
      this.#successors(this.#keys[this.#parents[at] ?? 0] ?? "", () => {
        if (ordinal++ === this.#ordinals[at]) lines.push(...(this.#log ?? []));
      });
    }
    this.#log = undefined;
    return lines.map((line, i) => `${String(i + 1).padStart(3)} ${line}`);
  }
}
