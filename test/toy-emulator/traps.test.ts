/** Exceptions, interrupts, control registers: the machine mode of the toy hart. */
import { describe, expect, it } from "vitest";
import { MEIP, MSIP, MTIP } from "../../examples/toy-emulator/csr.js";
import { RAM_BASE } from "../../examples/toy-emulator/map.js";
import {
  amo,
  branch,
  csr,
  EBREAK,
  ECALL,
  jal,
  jalr,
  load,
  MRET,
  opImm,
  shift,
  store,
  WFI,
} from "./encode.js";
import { Hart } from "./hart.js";

const MSTATUS = 0x300;
const MIE = 0x304;
const MTVEC = 0x305;
const MSCRATCH = 0x340;
const MEPC = 0x341;
const MCAUSE = 0x342;
const MTVAL = 0x343;
const MIP = 0x344;
const HANDLER = RAM_BASE + 0x1000;
const END_OF_RAM = RAM_BASE + 65536;
const ENABLED = 8;
const NOP = opImm("addi", 0, 0, 0);

/** A hart whose traps go to {@link HANDLER}. */
function trapping(words: readonly number[]): Hart {
  const hart = new Hart(words);
  hart.cpu.csr.write(MTVEC, HANDLER | 0);
  return hart;
}

const read = (hart: Hart, number: number): number => hart.cpu.csr.read(number) as number;

/** What it trapped with: cause, mtval, mepc, and where it is. */
const trapped = ({ cpu }: Hart): { cause: number; value: number; epc: number; pc: number } => ({
  cause: cpu.csr.read(MCAUSE) as number,
  value: (cpu.csr.read(MTVAL) as number) >>> 0,
  epc: (cpu.csr.read(MEPC) as number) >>> 0,
  pc: cpu.pc,
});

describe("exceptions", () => {
  const cases: [string, number, number, { base?: number; value?: number }][] = [
    ["a word of zeros", 0, 2, {}],
    ["a word of ones", 0xffffffff, 2, {}],
    ["a compressed instruction", 0x00010001, 2, {}],
    ["a 64-bit load", (load("lw", 3, 1, 0) | 0x1000) >>> 0, 2, {}],
    ["a 64-bit store", (store("sw", 3, 1, 0) | 0x1000) >>> 0, 2, {}],
    ["a shift by 32", (shift("slli", 3, 1, 0) | (1 << 25)) >>> 0, 2, {}],
    ["an arithmetic shift with a wrong function code", (shift("srai", 3, 1, 1) | (1 << 25)) >>> 0, 2, {}],
    ["a branch that does not exist", (branch("beq", 1, 2, 8) | (2 << 12)) >>> 0, 2, {}],
    ["LR with a source", amo("lr.w", 3, 1, 2), 2, {}],
    ["an atomic that does not exist", (amo("amoswap.w", 3, 1, 2) | (1 << 29)) >>> 0, 2, {}],
    ["an atomic of another width", (amo("amoadd.w", 3, 1, 2) | (1 << 12)) >>> 0, 2, {}],
    ["a register that does not exist", csr("csrrs", 3, 0x7c0, 0), 2, {}],
    ["a write to a read-only register", csr("csrrw", 3, 0xf14, 1), 2, {}],
    ["SRET", 0x10200073, 2, {}],
    ["EBREAK", EBREAK, 3, { value: RAM_BASE }],
    ["ECALL", ECALL, 11, { value: 0 }],
    ["a load from an odd address", load("lw", 3, 1, 1), 4, { base: RAM_BASE, value: RAM_BASE + 1 }],
    ["a half from an odd address", load("lhu", 3, 1, 1), 4, { base: RAM_BASE, value: RAM_BASE + 1 }],
    ["a load behind RAM", load("lw", 3, 1, 0), 5, { base: END_OF_RAM, value: END_OF_RAM }],
    ["a load from nowhere", load("lbu", 3, 1, 0), 5, { base: 0, value: 0 }],
    ["a store to an odd address", store("sh", 3, 1, 3), 6, { base: RAM_BASE, value: RAM_BASE + 3 }],
    ["a store before RAM", store("sb", 3, 1, -1), 7, { base: RAM_BASE, value: RAM_BASE - 1 }],
    ["an atomic at an odd address", amo("amoadd.w", 3, 1, 2), 6, { base: RAM_BASE + 2, value: RAM_BASE + 2 }],
    ["LR at an odd address", amo("lr.w", 3, 1), 4, { base: RAM_BASE + 2, value: RAM_BASE + 2 }],
    ["an atomic behind RAM", amo("amoadd.w", 3, 1, 2), 7, { base: END_OF_RAM, value: END_OF_RAM }],
    ["a jump to half a word", jalr(3, 1, 2), 0, { base: RAM_BASE, value: RAM_BASE + 2 }],
    ["a jump and link to half a word", jal(3, 6), 0, { value: RAM_BASE + 6 }],
    ["a branch to half a word", branch("beq", 0, 0, 6), 0, { value: RAM_BASE + 6 }],
  ];
  it.each(cases)("%s traps, and changes no register", (_name, word, cause, { base = 0, value = word }) => {
    const hart = trapping([word]);
    hart.cpu.x.fill(0x5a5a5a5a);
    hart.cpu.x[0] = 0;
    hart.cpu.x[1] = base;
    const before = [...hart.cpu.x];
    hart.step();
    expect(trapped(hart)).toEqual({ cause, value, epc: RAM_BASE, pc: HANDLER });
    expect([...hart.cpu.x]).toEqual(before);
  });

  it("a jump out of RAM traps at its target", () => {
    const hart = trapping([jalr(3, 1, 0)]);
    hart.cpu.x[1] = 0x1000;
    hart.step(2);
    expect(trapped(hart)).toEqual({ cause: 1, value: 0x1000, epc: 0x1000, pc: HANDLER });
    expect(hart.x(3)).toBe((RAM_BASE + 4) | 0);
  });

  it("a handler that is not there faults for ever, and the slice ends all the same", () => {
    const hart = new Hart([0]);
    hart.cpu.run(1000);
    expect(hart.cpu.instructions).toBe(1000);
    expect(trapped(hart)).toMatchObject({ cause: 1, pc: 0 });
  });

  it("MRET goes back to where it was, with interrupts as they were", () => {
    const hart = trapping([csr("csrrsi", 0, MSTATUS, ENABLED), ECALL, NOP]);
    hart.put(HANDLER, [csr("csrrs", 5, MEPC, 0), opImm("addi", 5, 5, 4), csr("csrrw", 0, MEPC, 5), MRET]);
    hart.step(2);
    expect(read(hart, MSTATUS) & ENABLED).toBe(0);
    hart.step(4);
    expect(hart.cpu.pc).toBe(RAM_BASE + 8);
    expect(read(hart, MSTATUS) & ENABLED).toBe(ENABLED);
  });
});

describe("control registers", () => {
  it("are swapped, set and cleared, and the old value comes back", () => {
    const hart = new Hart([
      csr("csrrw", 3, MSCRATCH, 1),
      csr("csrrs", 4, MSCRATCH, 2),
      csr("csrrc", 5, MSCRATCH, 1),
      csr("csrrwi", 6, MSCRATCH, 21),
      csr("csrrsi", 7, MSCRATCH, 10),
      csr("csrrci", 8, MSCRATCH, 1),
    ]);
    hart.cpu.x[1] = 0x0f0f;
    hart.cpu.x[2] = 0xf000;
    hart.step(6);
    expect([3, 4, 5, 6, 7, 8].map((index) => hart.x(index))).toEqual([0, 0x0f0f, 0xff0f, 0xf000, 21, 31]);
    expect(read(hart, MSCRATCH)).toBe(30);
  });

  it("that are read-only may be read by instructions that would write nothing", () => {
    const hart = trapping([csr("csrrs", 3, 0xf14, 0), csr("csrrci", 4, 0xf11, 0)]);
    hart.cpu.x[3] = hart.cpu.x[4] = 5;
    hart.step(2);
    expect([hart.x(3), hart.x(4), hart.cpu.pc]).toEqual([0, 0, RAM_BASE + 8]);
  });

  it("count instructions and ticks in 64 bits", () => {
    const hart = new Hart([NOP, NOP, csr("csrrs", 3, 0xb02, 0)]);
    hart.ticks = 5 * 2 ** 32 + 17;
    hart.step(3);
    expect(hart.x(3)).toBe(3);
    expect([read(hart, 0xc01), read(hart, 0xc81)]).toEqual([17, 5]);
    hart.cpu.csr.write(0xb82, 9);
    hart.cpu.csr.write(0xb02, -1);
    hart.put(RAM_BASE + 12, [NOP]);
    hart.step();
    expect([read(hart, 0xb02), read(hart, 0xb82)]).toEqual([0, 10]);
  });

  it("say RV32 with A, I and M", () => {
    expect(read(new Hart([]), 0x301) >>> 0).toBe(0x40001101);
  });
});

describe("interrupts", () => {
  const waiting = (): Hart => {
    const hart = trapping(new Array<number>(8).fill(NOP));
    hart.put(HANDLER, [MRET]);
    hart.cpu.csr.write(MIE, MSIP | MTIP | MEIP);
    return hart;
  };

  it("are taken before the next instruction, in the order external, software, timer", () => {
    const hart = waiting();
    hart.cpu.csr.write(MSTATUS, ENABLED);
    for (const bit of [MTIP, MEIP, MSIP]) hart.cpu.setPending(bit, true);
    for (const [bit, number] of [
      [MEIP, 11],
      [MSIP, 3],
      [MTIP, 7],
    ] as const) {
      hart.step(); // MRET
      expect(trapped(hart)).toMatchObject({ cause: 0x80000000 | number | 0, epc: RAM_BASE, pc: RAM_BASE });
      hart.cpu.setPending(bit, false);
    }
    expect(hart.step().cpu.pc).toBe(RAM_BASE + 4);
  });

  it("go to their own entry with a vectored handler, and exceptions to the first", () => {
    const hart = waiting();
    hart.cpu.csr.write(MTVEC, HANDLER | 1 | 0);
    hart.put(HANDLER + 4 * 11, [NOP]);
    hart.cpu.csr.write(MSTATUS, ENABLED);
    hart.cpu.setPending(MEIP, true);
    expect(hart.step().cpu.pc).toBe(HANDLER + 4 * 12);
    const other = waiting();
    other.cpu.csr.write(MTVEC, HANDLER | 1 | 0);
    other.put(RAM_BASE, [ECALL]);
    expect(other.step().cpu.pc).toBe(HANDLER);
  });

  it("that are masked, all or one by one, wait", () => {
    const hart = waiting();
    hart.cpu.setPending(MEIP, true);
    expect(hart.step().cpu.pc).toBe(RAM_BASE + 4);
    hart.cpu.csr.write(MIE, MTIP);
    hart.cpu.csr.write(MSTATUS, ENABLED);
    expect(hart.step().cpu.pc).toBe(RAM_BASE + 8);
    expect(read(hart, MIP)).toBe(MEIP);
  });

  it("that an instruction unmasks are taken right after it", () => {
    const hart = waiting();
    hart.put(RAM_BASE, [csr("csrrsi", 0, MSTATUS, ENABLED)]);
    hart.cpu.setPending(MEIP, true);
    hart.step(2);
    expect(trapped(hart)).toMatchObject({ epc: RAM_BASE + 4, pc: RAM_BASE + 4 });
  });

  it("end a WFI, also one with interrupts off", () => {
    const hart = waiting();
    hart.put(RAM_BASE, [WFI, NOP]);
    hart.step(100);
    expect([hart.cpu.idle, hart.cpu.instructions, hart.cpu.pc]).toEqual([true, 1, RAM_BASE + 4]);
    hart.cpu.setPending(MTIP, true);
    expect(hart.cpu.idle).toBe(false);
    expect(hart.step().cpu.pc).toBe(RAM_BASE + 8);
  });

  it("raised in the middle of a store are taken before the instruction that follows it", () => {
    const hart = waiting();
    hart.space.map({
      kind: "memory",
      address: 0x10010000,
      size: 4,
      read: () => 0,
      write: () => {
        hart.cpu.setPending(MEIP, true);
      },
    });
    hart.put(RAM_BASE, [store("sw", 0, 1, 0)]);
    hart.cpu.x[1] = 0x10010000;
    hart.cpu.csr.write(MSTATUS, ENABLED);
    hart.step(2);
    expect(trapped(hart)).toMatchObject({ epc: RAM_BASE + 4 });
  });
});
