/** RV32IMA instructions as words, by their formats (RISC-V unprivileged ISA chapter 2.3): what an assembler would write. */

const field = (value: number, low: number, width: number, at: number): number =>
  ((value >>> low) & (2 ** width - 1)) << at;

const r = (opcode: number, funct3: number, funct7: number, rd: number, rs1: number, rs2: number): number =>
  (opcode | (rd << 7) | (funct3 << 12) | (rs1 << 15) | (rs2 << 20) | (funct7 << 25)) >>> 0;
const i = (opcode: number, funct3: number, rd: number, rs1: number, immediate: number): number =>
  (opcode | (rd << 7) | (funct3 << 12) | (rs1 << 15) | field(immediate, 0, 12, 20)) >>> 0;

/** Register-register operations: funct3 and funct7. */
const OPERATIONS = {
  add: [0, 0],
  sub: [0, 0x20],
  sll: [1, 0],
  slt: [2, 0],
  sltu: [3, 0],
  xor: [4, 0],
  srl: [5, 0],
  sra: [5, 0x20],
  or: [6, 0],
  and: [7, 0],
  mul: [0, 1],
  mulh: [1, 1],
  mulhsu: [2, 1],
  mulhu: [3, 1],
  div: [4, 1],
  divu: [5, 1],
  rem: [6, 1],
  remu: [7, 1],
} as const;

/** Name of a register-register operation. */
export type Operation = keyof typeof OPERATIONS;

/** A register-register operation. */
export const op = (name: Operation, rd: number, rs1: number, rs2: number): number =>
  r(0x33, OPERATIONS[name][0], OPERATIONS[name][1], rd, rs1, rs2);

const IMMEDIATES = { addi: 0, slti: 2, sltiu: 3, xori: 4, ori: 6, andi: 7 } as const;
/** Name of an operation with a 12-bit immediate. */
export type Immediate = keyof typeof IMMEDIATES;
export const opImm = (name: Immediate, rd: number, rs1: number, immediate: number): number =>
  i(0x13, IMMEDIATES[name], rd, rs1, immediate);

const SHIFTS = { slli: [1, 0], srli: [5, 0], srai: [5, 0x20] } as const;
export type Shift = keyof typeof SHIFTS;
export const shift = (name: Shift, rd: number, rs1: number, amount: number): number =>
  r(0x13, SHIFTS[name][0], SHIFTS[name][1], rd, rs1, amount);

const LOADS = { lb: 0, lh: 1, lw: 2, lbu: 4, lhu: 5 } as const;
export type Load = keyof typeof LOADS;
export const load = (name: Load, rd: number, rs1: number, offset: number): number =>
  i(0x03, LOADS[name], rd, rs1, offset);

const STORES = { sb: 0, sh: 1, sw: 2 } as const;
export type Store = keyof typeof STORES;
export const store = (name: Store, rs2: number, rs1: number, offset: number): number =>
  (0x23 |
    field(offset, 0, 5, 7) |
    (STORES[name] << 12) |
    (rs1 << 15) |
    (rs2 << 20) |
    field(offset, 5, 7, 25)) >>>
  0;

const BRANCHES = { beq: 0, bne: 1, blt: 4, bge: 5, bltu: 6, bgeu: 7 } as const;
export type Branch = keyof typeof BRANCHES;
export const branch = (name: Branch, rs1: number, rs2: number, offset: number): number =>
  (0x63 |
    field(offset, 11, 1, 7) |
    field(offset, 1, 4, 8) |
    (BRANCHES[name] << 12) |
    (rs1 << 15) |
    (rs2 << 20) |
    field(offset, 5, 6, 25) |
    field(offset, 12, 1, 31)) >>>
  0;

export const lui = (rd: number, upper: number): number => (0x37 | (rd << 7) | (upper & 0xfffff000)) >>> 0;
export const auipc = (rd: number, upper: number): number => (0x17 | (rd << 7) | (upper & 0xfffff000)) >>> 0;
export const jal = (rd: number, offset: number): number =>
  (0x6f |
    (rd << 7) |
    field(offset, 12, 8, 12) |
    field(offset, 11, 1, 20) |
    field(offset, 1, 10, 21) |
    field(offset, 20, 1, 31)) >>>
  0;
export const jalr = (rd: number, rs1: number, offset: number): number => i(0x67, 0, rd, rs1, offset);

const ATOMICS = {
  "lr.w": 0x02,
  "sc.w": 0x03,
  "amoswap.w": 0x01,
  "amoadd.w": 0x00,
  "amoxor.w": 0x04,
  "amoand.w": 0x0c,
  "amoor.w": 0x08,
  "amomin.w": 0x10,
  "amomax.w": 0x14,
  "amominu.w": 0x18,
  "amomaxu.w": 0x1c,
} as const;
export type Atomic = keyof typeof ATOMICS;
export const amo = (name: Atomic, rd: number, rs1: number, rs2 = 0): number =>
  r(0x2f, 2, ATOMICS[name] << 2, rd, rs1, rs2);

const CSRS = { csrrw: 1, csrrs: 2, csrrc: 3, csrrwi: 5, csrrsi: 6, csrrci: 7 } as const;
/** `source`: a register, or the immediate of the last three. */
export const csr = (name: keyof typeof CSRS, rd: number, number: number, source: number): number =>
  i(0x73, CSRS[name], rd, source, number);

export const ECALL = 0x00000073;
export const EBREAK = 0x00100073;
export const MRET = 0x30200073;
export const WFI = 0x10500073;
export const FENCE = 0x0ff0000f;
export const FENCE_I = 0x0000100f;

/** A 32-bit constant in a register: two instructions. */
export function li(rd: number, value: number): [number, number] {
  const low = (value << 20) >> 20;
  return [lui(rd, value - low), opImm("addi", rd, rd, low)];
}
