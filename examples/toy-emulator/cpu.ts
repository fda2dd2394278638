import { atomicResult, multiplyDivide } from "./arithmetic.js";
import type { AddressSpace, Width } from "./address-space.js";
import { ControlRegisters } from "./csr.js";
import { RAM_BASE } from "./map.js";
import type { StateReader, StateValue } from "vbus/state";

/** Causes of exceptions (privileged architecture table 3.6). */
const FETCH_MISALIGNED = 0;
const FETCH_FAULT = 1;
const ILLEGAL = 2;
const BREAKPOINT = 3;
const LOAD_MISALIGNED = 4;
const LOAD_FAULT = 5;
const STORE_MISALIGNED = 6;
const STORE_FAULT = 7;
const CALL = 11;

/** Where the guest's RAM lies. */
export interface RamPlace {
  /** The memory; the CPU must be told when it grew. */
  readonly memory: WebAssembly.Memory;
  /** Address of the first byte of RAM in it: a multiple of 4. */
  readonly address: number;
  /** Bytes: a multiple of 4. */
  readonly size: number;
}

/**
 * One hart: RV32IMA with machine mode, an interpreter. Instructions are read from RAM each time, so code that somebody else
 * writes takes effect at once; interrupts are looked at before the next instruction, whoever raises them: all registers are
 * here, in JavaScript, during every access.
 */
export class Cpu {
  /** The integer registers. */
  readonly x = new Int32Array(32);
  /** Control and status registers. */
  readonly csr: ControlRegisters;
  #pc = RAM_BASE | 0;
  #waiting = false;
  /** Number of executed instructions. In an array, since it changes with every one: a number of its own would be a new object. */
  readonly #clock = new Float64Array(1);
  /** Where the inner loop ends: set to 0 by whoever wants that interrupts are looked at. */
  #limit = 0;
  #ending = false;
  /** Cause of the fault that the last slow access ran into, or -1. */
  #fault = -1;
  /** Address of the word that is reserved by LR, or -1. */
  #reserved = -1;
  #bytes = new Uint8Array(0);
  #halves = new Uint16Array(0);
  #words = new Int32Array(0);

  /**
   * @param ram - the guest's memory
   * @param space - everything else
   * @param ticks - the machine's timer
   */
  constructor(
    private readonly ram: RamPlace,
    private readonly space: AddressSpace,
    ticks: () => number,
  ) {
    const clock = this.#clock;
    this.csr = new ControlRegisters({
      get instructions() {
        return clock[0] as number;
      },
      get ticks() {
        return ticks();
      },
    });
    this.memoryGrew();
  }

  /** The views of a memory die when it grows. */
  memoryGrew(): void {
    const { memory, address, size } = this.ram;
    this.#bytes = new Uint8Array(memory.buffer, address, size);
    this.#halves = new Uint16Array(memory.buffer, address, size >>> 1);
    this.#words = new Int32Array(memory.buffer, address, size >>> 2);
  }

  /** Address of the next instruction; unsigned. */
  get pc(): number {
    return this.#pc >>> 0;
  }

  /** Instructions executed since power-on. */
  get instructions(): number {
    return this.#clock[0] as number;
  }

  /** True while it waits for an interrupt that is not there yet. */
  get idle(): boolean {
    return this.#waiting && !this.csr.awake;
  }

  /** Registers are zero, execution begins at the first byte of RAM. */
  reset(): void {
    this.x.fill(0);
    this.csr.reset();
    this.#pc = RAM_BASE | 0;
    this.#waiting = false;
    this.#reserved = -1;
    this.endSlice();
  }

  /** What it is, as plain data. A reservation is not kept: SC may fail at any time. */
  save(): StateValue {
    return {
      x: [...this.x],
      pc: this.#pc,
      waiting: this.#waiting,
      instructions: this.instructions,
      csr: this.csr.save(),
    };
  }

  /** It is what was saved. @throws StateError; then it is neither: reset it */
  restore(state: StateReader): void {
    const word = (at: StateReader): number => at.number(-(2 ** 31), 2 ** 31 - 1);
    this.x.set(state.get("x").tuple(32).map(word));
    this.x[0] = 0;
    this.#pc = word(state.get("pc"));
    this.#waiting = state.get("waiting").boolean();
    this.#clock[0] = state.get("instructions").number(0, Number.MAX_SAFE_INTEGER);
    this.csr.restore(state.get("csr"));
    this.#reserved = -1;
    this.endSlice();
  }

  /** A device sets the level of an interrupt. It is taken before the next instruction. */
  setPending(bit: number, asserted: boolean): void {
    this.csr.setPending(bit, asserted);
    this.#limit = 0;
  }

  /** Makes {@link Cpu.run} return after the current instruction. */
  endSlice(): void {
    this.#ending = true;
    this.#limit = 0;
  }

  /** Somebody else wrote to RAM: a reservation there is gone, or SC could miss that (unprivileged ISA 8.2). */
  written(address: number, length: number): void {
    if (this.#reserved >= address - 3 && this.#reserved < address + length) this.#reserved = -1;
  }

  /** Executes up to so many instructions; fewer when it waits for an interrupt, or was told to end. */
  run(instructions: number): void {
    const clock = this.#clock;
    const end = (clock[0] as number) + instructions;
    const over = (): boolean => this.#ending || (clock[0] as number) >= end;
    this.#ending = false;
    do {
      this.#limit = end;
      if (this.#waiting) {
        if (!this.csr.awake) return;
        this.#waiting = false;
      }
      const cause = this.csr.interrupt();
      if (cause !== 0) this.#pc = this.csr.trap(cause, 0, this.#pc);
      this.#execute();
    } while (!over());
  }

  /** The inner loop, until the limit, which slow paths bring forward. */
  #execute(): void {
    const { x } = this;
    const clock = this.#clock;
    const { size } = this.ram;
    let pc = this.#pc;
    while ((clock[0] as number) < this.#limit) {
      (clock[0] as number)++;
      const at = (pc - RAM_BASE) >>> 0;
      if ((pc & 3) !== 0 || at >= size) {
        pc = this.csr.trap((pc & 3) !== 0 ? FETCH_MISALIGNED : FETCH_FAULT, pc, pc);
        // a handler that is not there faults for ever: let others have their turn
        this.#limit = 0;
        continue;
      }
      const word = this.#words[at >>> 2] as number;
      const rd = (word >>> 7) & 31;
      const funct3 = (word >>> 12) & 7;
      const a = x[(word >>> 15) & 31] as number;
      let next = (pc + 4) | 0;
      switch (word & 0x7f) {
        case 0x37: // LUI
          if (rd !== 0) x[rd] = word & ~0xfff;
          break;
        case 0x17: // AUIPC
          if (rd !== 0) x[rd] = pc + (word & ~0xfff);
          break;
        case 0x6f: {
          // JAL
          const offset =
            ((word >> 31) << 20) | (word & 0xff000) | ((word >>> 9) & 0x800) | ((word >>> 20) & 0x7fe);
          const target = (pc + offset) | 0;
          if ((target & 3) !== 0) next = this.#trap(FETCH_MISALIGNED, target, pc);
          else {
            if (rd !== 0) x[rd] = next;
            next = target;
          }
          break;
        }
        case 0x67: {
          // JALR
          const target = (a + (word >> 20)) & ~1;
          if (funct3 !== 0) next = this.#trap(ILLEGAL, word, pc);
          else if ((target & 3) !== 0) next = this.#trap(FETCH_MISALIGNED, target, pc);
          else {
            if (rd !== 0) x[rd] = next;
            next = target;
          }
          break;
        }
        case 0x63: {
          // branches
          const b = x[(word >>> 20) & 31] as number;
          let taken = false;
          switch (funct3) {
            case 0:
              taken = a === b;
              break;
            case 1:
              taken = a !== b;
              break;
            case 4:
              taken = a < b;
              break;
            case 5:
              taken = a >= b;
              break;
            case 6:
              taken = a >>> 0 < b >>> 0;
              break;
            case 7:
              taken = a >>> 0 >= b >>> 0;
              break;
            default:
              next = this.#trap(ILLEGAL, word, pc);
          }
          if (taken) {
            const offset =
              ((word >> 31) << 12) | ((word << 4) & 0x800) | ((word >>> 20) & 0x7e0) | ((word >>> 7) & 0x1e);
            const target = (pc + offset) | 0;
            next = (target & 3) !== 0 ? this.#trap(FETCH_MISALIGNED, target, pc) : target;
          }
          break;
        }
        case 0x03: {
          // loads
          const address = (a + (word >> 20)) | 0;
          const inside = (address - RAM_BASE) >>> 0;
          let value: number;
          switch (funct3) {
            case 2:
              if (inside < size && (address & 3) === 0) value = this.#words[inside >>> 2] as number;
              else value = this.#load(address, 4);
              break;
            case 0:
              value = inside < size ? (this.#bytes[inside] as number) : this.#load(address, 1);
              value = (value << 24) >> 24;
              break;
            case 4:
              value = inside < size ? (this.#bytes[inside] as number) : this.#load(address, 1);
              break;
            case 1:
            case 5:
              if (inside < size && (address & 1) === 0) value = this.#halves[inside >>> 1] as number;
              else value = this.#load(address, 2);
              if (funct3 === 1) value = (value << 16) >> 16;
              break;
            default:
              value = 0;
              this.#fault = ILLEGAL;
          }
          if (this.#fault >= 0) next = this.#raise(this.#fault === ILLEGAL ? word : address, pc);
          else if (rd !== 0) x[rd] = value;
          break;
        }
        case 0x23: {
          // stores
          const address = (a + (((word >> 25) << 5) | rd)) | 0;
          const inside = (address - RAM_BASE) >>> 0;
          const value = x[(word >>> 20) & 31] as number;
          switch (funct3) {
            case 2:
              if (inside < size && (address & 3) === 0) this.#words[inside >>> 2] = value;
              else this.#store(address, 4, value);
              break;
            case 0:
              if (inside < size) this.#bytes[inside] = value;
              else this.#store(address, 1, value);
              break;
            case 1:
              if (inside < size && (address & 1) === 0) this.#halves[inside >>> 1] = value;
              else this.#store(address, 2, value);
              break;
            default:
              this.#fault = ILLEGAL;
          }
          if (this.#fault >= 0) next = this.#raise(this.#fault === ILLEGAL ? word : address, pc);
          break;
        }
        case 0x13: {
          // register and immediate
          const b = word >> 20;
          let value: number;
          let legal = true;
          switch (funct3) {
            case 0:
              value = a + b;
              break;
            case 2:
              value = a < b ? 1 : 0;
              break;
            case 3:
              value = a >>> 0 < b >>> 0 ? 1 : 0;
              break;
            case 4:
              value = a ^ b;
              break;
            case 6:
              value = a | b;
              break;
            case 7:
              value = a & b;
              break;
            case 1:
              legal = word >>> 25 === 0;
              value = a << (b & 31);
              break;
            default:
              legal = ((word >>> 25) & ~0x20) === 0;
              value = (word & 0x4000_0000) !== 0 ? a >> (b & 31) : a >>> (b & 31);
          }
          if (!legal) next = this.#trap(ILLEGAL, word, pc);
          else if (rd !== 0) x[rd] = value;
          break;
        }
        case 0x33: {
          // register and register
          const b = x[(word >>> 20) & 31] as number;
          const value = this.#registerResult(word >>> 25, funct3, a, b);
          if (value === undefined) next = this.#trap(ILLEGAL, word, pc);
          else if (rd !== 0) x[rd] = value;
          break;
        }
        case 0x0f: // FENCE, FENCE.I: there is one hart, no cache and no translation
          if (funct3 > 1) next = this.#trap(ILLEGAL, word, pc);
          break;
        case 0x2f:
          next = this.#atomic(word, a, pc);
          break;
        case 0x73:
          next = this.#system(word, a, pc);
          break;
        default:
          next = this.#trap(ILLEGAL, word, pc);
      }
      pc = next;
    }
    this.#pc = pc;
  }

  #registerResult(funct7: number, funct3: number, a: number, b: number): number | undefined {
    if (funct7 === 1) return multiplyDivide(funct3, a, b);
    if (funct7 === 0x20) {
      if (funct3 === 0) return a - b;
      return funct3 === 5 ? a >> (b & 31) : undefined;
    }
    if (funct7 !== 0) return undefined;
    switch (funct3) {
      case 0:
        return a + b;
      case 1:
        return a << (b & 31);
      case 2:
        return a < b ? 1 : 0;
      case 3:
        return a >>> 0 < b >>> 0 ? 1 : 0;
      case 4:
        return a ^ b;
      case 5:
        return a >>> (b & 31);
      case 6:
        return a | b;
      default:
        return a & b;
    }
  }

  #trap(cause: number, value: number, pc: number): number {
    this.#limit = 0; // a guest that does nothing but trap gets no longer slices than others
    return this.csr.trap(cause, value, pc);
  }

  #raise(value: number, pc: number): number {
    const cause = this.#fault;
    this.#fault = -1;
    return this.#trap(cause, value, pc);
  }

  /** A load that is not from aligned RAM. */
  #load(address: number, width: Width): number {
    if ((address & (width - 1)) !== 0) {
      this.#fault = LOAD_MISALIGNED;
      return 0;
    }
    const value = this.space.read(address >>> 0, width);
    if (value === undefined) this.#fault = LOAD_FAULT;
    return value ?? 0;
  }

  /** A store that is not to aligned RAM. */
  #store(address: number, width: Width, value: number): void {
    if ((address & (width - 1)) !== 0) this.#fault = STORE_MISALIGNED;
    else if (
      !this.space.write(address >>> 0, width, width === 4 ? value >>> 0 : value & ((1 << (8 * width)) - 1))
    )
      this.#fault = STORE_FAULT;
  }

  /** The A extension. In RAM only: devices have no atomics. */
  #atomic(word: number, address: number, pc: number): number {
    const funct5 = word >>> 27;
    const rd = (word >>> 7) & 31;
    const operand = this.x[(word >>> 20) & 31] as number;
    const load = funct5 === 2;
    if (((word >>> 12) & 7) !== 2 || (load && (word & 0x01f0_0000) !== 0))
      return this.#trap(ILLEGAL, word, pc);
    const known = load || funct5 === 3 || atomicResult(funct5, 0, 0) !== undefined;
    if (!known) return this.#trap(ILLEGAL, word, pc);
    if ((address & 3) !== 0) return this.#trap(load ? LOAD_MISALIGNED : STORE_MISALIGNED, address, pc);
    const at = (address - RAM_BASE) >>> 0;
    if (at >= this.ram.size) return this.#trap(load ? LOAD_FAULT : STORE_FAULT, address, pc);
    const words = this.#words;
    const index = at >>> 2;
    const old = words[index] as number;
    let result = old;
    if (load) {
      this.#reserved = address >>> 0;
    } else if (funct5 === 3) {
      const holds = this.#reserved === address >>> 0;
      this.#reserved = -1;
      if (holds) words[index] = operand;
      result = holds ? 0 : 1;
    } else {
      words[index] = atomicResult(funct5, old, operand) as number; // known is true
    }
    if (rd !== 0) this.x[rd] = result;
    return (pc + 4) | 0;
  }

  /** ECALL, EBREAK, MRET, WFI, and instructions on control and status registers. */
  #system(word: number, a: number, pc: number): number {
    const next = (pc + 4) | 0;
    const funct3 = (word >>> 12) & 7;
    if (funct3 === 0) {
      switch (word) {
        case 0x0000_0073:
          return this.#trap(CALL, 0, pc);
        case 0x0010_0073:
          return this.#trap(BREAKPOINT, pc, pc);
        case 0x3020_0073:
          this.#limit = 0;
          return this.csr.leave();
        case 0x1050_0073:
          this.#waiting = true;
          this.#limit = 0;
          return next;
        default:
          return this.#trap(ILLEGAL, word, pc);
      }
    }
    if (funct3 === 4) return this.#trap(ILLEGAL, word, pc);
    const { csr } = this;
    const rd = (word >>> 7) & 31;
    const source = (word >>> 15) & 31;
    const operand = (funct3 & 4) !== 0 ? source : a;
    const number = word >>> 20;
    const old = csr.read(number);
    const kind = funct3 & 3;
    if (old === undefined) return this.#trap(ILLEGAL, word, pc);
    if (kind === 1 || source !== 0) {
      const value = kind === 1 ? operand : kind === 2 ? old | operand : old & ~operand;
      if (!csr.write(number, value)) return this.#trap(ILLEGAL, word, pc);
      this.#limit = 0; // an interrupt may be due now
    }
    if (rd !== 0) this.x[rd] = old;
    return next;
  }
}
