/*
 * Control and status registers of a hart that has machine mode only (RISC-V privileged architecture 1.12, chapters 2 and 3).
 */

import type { StateReader, StateValue } from "vbus/state";

/** mip, mie: software interrupt. */
export const MSIP = 1 << 3;
/** mip, mie: timer interrupt. */
export const MTIP = 1 << 7;
/** mip, mie: external interrupt. */
export const MEIP = 1 << 11;

const MSTATUS_MIE = 1 << 3;
const MSTATUS_MPIE = 1 << 7;
/** There is no other mode to have come from. */
const MSTATUS_MPP = 3 << 11;
/** RV32 with A, I and M. */
const MISA = (1 << 30) | 1 | (1 << 8) | (1 << 12);
const INTERRUPT = 1 << 31;

const READ_ONLY = 3;
const high = (value: number): number => Math.floor(value / 2 ** 32) | 0;
const low = (value: number): number => (value % 2 ** 32) | 0;

/** Clocks that a hart can read, in instructions and ticks. */
export interface HartClocks {
  /** Instructions executed. */
  readonly instructions: number;
  /** Ticks of the machine's timer. */
  readonly ticks: number;
}

type Words = [number, number, number, number, number, number, number];

/** The registers, traps, and what interrupts when. */
export class ControlRegisters {
  #status = MSTATUS_MPP;
  #enabled = 0;
  #pending = 0;
  #vector = 0;
  #scratch = 0;
  #epc = 0;
  #cause = 0;
  #value = 0;
  /** What was written to mcycle and minstret, less what the clock said then. */
  #cycleOffset = 0;
  #instretOffset = 0;

  constructor(private readonly clocks: HartClocks) {}

  /** Back to what they are at power-on. What devices hold up stays up. */
  reset(): void {
    this.#status = MSTATUS_MPP;
    this.#enabled = this.#vector = this.#scratch = this.#epc = this.#cause = this.#value = 0;
    this.#cycleOffset = this.#instretOffset = 0;
  }

  /** The registers, as plain data. What devices hold up is theirs. */
  save(): StateValue {
    return {
      words: [this.#status, this.#enabled, this.#vector, this.#scratch, this.#epc, this.#cause, this.#value],
      offsets: [this.#cycleOffset, this.#instretOffset],
    };
  }

  /** They are what was saved. @throws StateError */
  restore(state: StateReader): void {
    const words = state
      .get("words")
      .tuple(7)
      .map((at) => at.number(-(2 ** 31), 2 ** 31 - 1)) as Words;
    const most = Number.MAX_SAFE_INTEGER;
    const offsets = state
      .get("offsets")
      .tuple(2)
      .map((at) => at.number(-most, most)) as [number, number];
    const [status, enabled, vector, scratch, epc, cause, value] = words;
    this.#status = MSTATUS_MPP | (status & (MSTATUS_MIE | MSTATUS_MPIE));
    this.#enabled = enabled & (MSIP | MTIP | MEIP);
    this.#vector = vector & ~2;
    [this.#scratch, this.#cause, this.#value] = [scratch, cause, value];
    this.#epc = epc & ~3;
    [this.#cycleOffset, this.#instretOffset] = offsets;
  }

  /** A device sets the level of an interrupt. */
  setPending(bit: number, asserted: boolean): void {
    this.#pending = asserted ? this.#pending | bit : this.#pending & ~bit;
  }

  /** True when something is there that ends a WFI, whether interrupts are enabled at all or not. */
  get awake(): boolean {
    return (this.#pending & this.#enabled) !== 0;
  }

  /** The interrupt to take now: its cause; 0 for none. External before software before timer (3.1.9). */
  interrupt(): number {
    const due = this.#pending & this.#enabled;
    if (due === 0 || (this.#status & MSTATUS_MIE) === 0) return 0;
    const number = (due & MEIP) !== 0 ? 11 : (due & MSIP) !== 0 ? 3 : 7;
    return INTERRUPT | number;
  }

  /** Enters the trap handler. Returns where it is. */
  trap(cause: number, value: number, pc: number): number {
    this.#epc = pc & ~3;
    this.#cause = cause;
    this.#value = value;
    const enabled = (this.#status & MSTATUS_MIE) !== 0;
    this.#status = MSTATUS_MPP | (enabled ? MSTATUS_MPIE : 0);
    const base = this.#vector & ~3;
    return (this.#vector & 1) === 1 && cause < 0 ? (base + 4 * (cause & 0x7fffffff)) | 0 : base;
  }

  /** MRET. Returns where it goes on. */
  leave(): number {
    const enabled = (this.#status & MSTATUS_MPIE) !== 0;
    this.#status = MSTATUS_MPP | MSTATUS_MPIE | (enabled ? MSTATUS_MIE : 0);
    return this.#epc;
  }

  /** Reads a register; undefined when there is none of that number. */
  read(number: number): number | undefined {
    const { instructions, ticks } = this.clocks;
    switch (number) {
      case 0x300:
        return this.#status;
      case 0x301:
        return MISA;
      case 0x304:
        return this.#enabled;
      case 0x305:
        return this.#vector;
      case 0x340:
        return this.#scratch;
      case 0x341:
        return this.#epc;
      case 0x342:
        return this.#cause;
      case 0x343:
        return this.#value;
      case 0x344:
        return this.#pending;
      case 0xb00:
      case 0xc00:
        return low(instructions + this.#cycleOffset);
      case 0xb80:
      case 0xc80:
        return high(instructions + this.#cycleOffset);
      case 0xb02:
      case 0xc02:
        return low(instructions + this.#instretOffset);
      case 0xb82:
      case 0xc82:
        return high(instructions + this.#instretOffset);
      case 0xc01:
        return low(ticks);
      case 0xc81:
        return high(ticks);
      case 0x310: // mstatush: little endian
      case 0xf11: // vendor, architecture, implementation: none; hart 0
      case 0xf12:
      case 0xf13:
      case 0xf14:
      case 0xf15:
        return 0;
      default:
        return undefined;
    }
  }

  /** Writes a register. False when there is none of that number, or it is read-only. */
  write(number: number, value: number): boolean {
    if (number >>> 10 === READ_ONLY) return false;
    const { instructions } = this.clocks;
    switch (number) {
      case 0x300:
        this.#status = MSTATUS_MPP | (value & (MSTATUS_MIE | MSTATUS_MPIE));
        return true;
      case 0x301:
      case 0x310:
        return true; // fixed, and writes are ignored
      case 0x304:
        this.#enabled = value & (MSIP | MTIP | MEIP);
        return true;
      case 0x305:
        this.#vector = value & ~2;
        return true;
      case 0x340:
        this.#scratch = value;
        return true;
      case 0x341:
        this.#epc = value & ~3;
        return true;
      case 0x342:
        this.#cause = value;
        return true;
      case 0x343:
        this.#value = value;
        return true;
      case 0x344:
        return true; // all bits belong to devices
      case 0xb00:
        this.#cycleOffset = this.#replaceLow(instructions + this.#cycleOffset, value) - instructions;
        return true;
      case 0xb80:
        this.#cycleOffset = this.#replaceHigh(instructions + this.#cycleOffset, value) - instructions;
        return true;
      case 0xb02:
        this.#instretOffset = this.#replaceLow(instructions + this.#instretOffset, value) - instructions;
        return true;
      case 0xb82:
        this.#instretOffset = this.#replaceHigh(instructions + this.#instretOffset, value) - instructions;
        return true;
      default:
        return false;
    }
  }

  #replaceLow(whole: number, value: number): number {
    return Math.floor(whole / 2 ** 32) * 2 ** 32 + (value >>> 0);
  }

  /** A JavaScript number counts to 2^53, which is two thousand years of instructions: the upper bits are dropped. */
  #replaceHigh(whole: number, value: number): number {
    return ((value >>> 0) % 2 ** 21) * 2 ** 32 + (whole % 2 ** 32);
  }
}
