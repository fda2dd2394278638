/** RV32IMA, instruction by instruction, against definitions in exact integers. */
import { describe, expect, it } from "vitest";
import { RAM_BASE } from "../../examples/toy-emulator/map.js";
import { generator, seedOr } from "../engine/seed.js";
import {
  amo,
  auipc,
  branch,
  FENCE,
  FENCE_I,
  jal,
  jalr,
  li,
  load,
  lui,
  op,
  opImm,
  shift,
  store,
  type Atomic,
  type Branch,
  type Immediate,
  type Load,
  type Operation,
  type Shift,
} from "./encode.js";
import { Hart } from "./hart.js";

const EDGES = [
  0, 1, -1, 2, -2, 0x7fffffff, -0x80000000, 0x7ffffffe, -0x7fffffff, 0xffff, 0x10000, -0x10000, 31, 32,
];
const RANDOM = 200;

const s32 = (value: bigint): number => Number(BigInt.asIntN(32, value));
const u = (value: number): bigint => BigInt(value >>> 0);
const s = (value: number): bigint => BigInt(value | 0);

/** The unprivileged ISA's definitions (chapters 2.4 and 7), in integers that do not overflow. */
const OPERATIONS: Record<Operation, (a: number, b: number) => number> = {
  add: (a, b) => s32(s(a) + s(b)),
  sub: (a, b) => s32(s(a) - s(b)),
  sll: (a, b) => s32(s(a) << (u(b) & 31n)),
  slt: (a, b) => (s(a) < s(b) ? 1 : 0),
  sltu: (a, b) => (u(a) < u(b) ? 1 : 0),
  xor: (a, b) => s32(u(a) ^ u(b)),
  srl: (a, b) => s32(u(a) >> (u(b) & 31n)),
  sra: (a, b) => s32(s(a) >> (u(b) & 31n)),
  or: (a, b) => s32(u(a) | u(b)),
  and: (a, b) => s32(u(a) & u(b)),
  mul: (a, b) => s32(s(a) * s(b)),
  mulh: (a, b) => s32((s(a) * s(b)) >> 32n),
  mulhsu: (a, b) => s32((s(a) * u(b)) >> 32n),
  mulhu: (a, b) => s32((u(a) * u(b)) >> 32n),
  div: (a, b) => (b === 0 ? -1 : s32(s(a) / s(b))),
  divu: (a, b) => (b === 0 ? -1 : s32(u(a) / u(b))),
  rem: (a, b) => (b === 0 ? a : s32(s(a) % s(b))),
  remu: (a, b) => (b === 0 ? a : s32(u(a) % u(b))),
};

const seed = seedOr(0x7059);
const random = generator(seed);

/** All pairs of edges, then random ones. */
function* pairs(): Generator<[number, number]> {
  for (const a of EDGES) for (const b of EDGES) yield [a, b];
  for (let n = 0; n < RANDOM; n++) yield [random() | 0, random() | 0];
}

describe(`register operations (seed ${seed})`, () => {
  it.each(Object.keys(OPERATIONS) as Operation[])("%s", (name) => {
    const hart = new Hart([op(name, 3, 1, 2)]);
    for (const [a, b] of pairs()) {
      hart.cpu.reset();
      hart.cpu.x[1] = a;
      hart.cpu.x[2] = b;
      hart.step();
      expect([a, b, hart.x(3)]).toEqual([a, b, OPERATIONS[name](a, b)]);
    }
  });

  it.each(["add", "mul", "divu"] as const)("%s may have one register for everything", (name) => {
    for (const value of EDGES) {
      const hart = new Hart([op(name, 5, 5, 5)]);
      hart.cpu.x[5] = value;
      expect(hart.step().x(5)).toBe(OPERATIONS[name](value, value));
    }
  });

  it("a write to x0 is lost", () => {
    const hart = new Hart([
      opImm("addi", 0, 0, 5),
      op("add", 1, 0, 0),
      lui(0, 0x12345000),
      jal(0, 4),
      load("lw", 0, 0, 0),
    ]);
    expect(hart.step(4).x(0)).toBe(0);
    expect(hart.x(1)).toBe(0);
  });
});

describe("immediate operations", () => {
  const IMMEDIATES: Record<Immediate, Operation> = {
    addi: "add",
    slti: "slt",
    sltiu: "sltu",
    xori: "xor",
    ori: "or",
    andi: "and",
  };
  it.each(Object.entries(IMMEDIATES) as [Immediate, Operation][])(
    "%s is %s with a sign-extended immediate",
    (name, as) => {
      for (const a of EDGES) {
        for (const immediate of [0, 1, -1, 2047, -2048, 0x555, -0x556]) {
          const hart = new Hart([opImm(name, 3, 1, immediate)]);
          hart.cpu.x[1] = a;
          expect([a, immediate, hart.step().x(3)]).toEqual([a, immediate, OPERATIONS[as](a, immediate)]);
        }
      }
    },
  );

  const SHIFTS: Record<Shift, Operation> = { slli: "sll", srli: "srl", srai: "sra" };
  it.each(Object.entries(SHIFTS) as [Shift, Operation][])("%s is %s by 0 to 31", (name, as) => {
    for (const a of EDGES) {
      for (let amount = 0; amount < 32; amount++) {
        const hart = new Hart([shift(name, 3, 1, amount)]);
        hart.cpu.x[1] = a;
        expect([a, amount, hart.step().x(3)]).toEqual([a, amount, OPERATIONS[as](a, amount)]);
      }
    }
  });

  it("LUI and AUIPC make any constant, and any address", () => {
    for (const value of [...EDGES, 0x12345678, -0x12345679, 0x800, 0x7ffff800]) {
      const hart = new Hart(li(7, value));
      expect(hart.step(2).x(7)).toBe(value);
    }
    const hart = new Hart([opImm("addi", 0, 0, 0), auipc(4, 0x7ffff000), auipc(5, -0x1000)]);
    hart.step(3);
    expect(hart.x(4)).toBe((RAM_BASE + 4 + 0x7ffff000) | 0);
    expect(hart.x(5)).toBe((RAM_BASE + 8 - 0x1000) | 0);
  });
});

describe("jumps and branches", () => {
  const BRANCHES: Record<Branch, (a: number, b: number) => boolean> = {
    beq: (a, b) => s(a) === s(b),
    bne: (a, b) => s(a) !== s(b),
    blt: (a, b) => s(a) < s(b),
    bge: (a, b) => s(a) >= s(b),
    bltu: (a, b) => u(a) < u(b),
    bgeu: (a, b) => u(a) >= u(b),
  };
  it.each(Object.keys(BRANCHES) as Branch[])("%s goes where it should, both ways", (name) => {
    const at = RAM_BASE + 0x4000;
    for (const [a, b] of pairs()) {
      for (const offset of [8, -8, 4094 & ~3, -4096]) {
        const hart = new Hart(li(9, at));
        hart.put(RAM_BASE + 8, [jalr(0, 9, 0)]);
        hart.put(at, [branch(name, 1, 2, offset)]);
        hart.cpu.x[1] = a;
        hart.cpu.x[2] = b;
        hart.step(4);
        expect([a, b, offset, hart.cpu.pc]).toEqual([a, b, offset, at + (BRANCHES[name](a, b) ? offset : 4)]);
        if (a !== EDGES[0]) break; // all distances with the first value is enough
      }
    }
  });

  it("JAL links, forwards and backwards, as far as it reaches", () => {
    for (const offset of [4, 8, 2044, 2048, 4096, 0x7ffc, 0x10000 - 4]) {
      const hart = new Hart([jal(1, offset)]);
      hart.step();
      expect([hart.cpu.pc, hart.x(1)]).toEqual([RAM_BASE + offset, (RAM_BASE + 4) | 0]);
      hart.put(RAM_BASE + offset, [jal(2, -offset)]);
      hart.step();
      expect([hart.cpu.pc, hart.x(2)]).toEqual([RAM_BASE, (RAM_BASE + offset + 4) | 0]);
    }
  });

  it("JALR adds its offset, clears the lowest bit, and may use one register as base and link", () => {
    const hart = new Hart([jalr(5, 5, 0x101)]);
    hart.cpu.x[5] = RAM_BASE;
    hart.step();
    expect([hart.cpu.pc, hart.x(5)]).toEqual([RAM_BASE + 0x100, (RAM_BASE + 4) | 0]);
  });

  it("fences do nothing here", () => {
    const hart = new Hart([FENCE, FENCE_I]);
    expect(hart.step(2).cpu.pc).toBe(RAM_BASE + 8);
  });
});

describe("loads and stores", () => {
  const AT = RAM_BASE + 0x800;
  const LOADS: Record<Load, (offset: number) => number> = {
    lb: (offset) => [-0x80, 0x7f, -1, 1][offset] as number,
    lbu: (offset) => [0x80, 0x7f, 0xff, 1][offset] as number,
    lh: (offset) => [0x7f80, 0, 0x01ff][offset] as number,
    lhu: (offset) => [0x7f80, 0, 0x01ff][offset] as number,
    lw: () => 0x01ff7f80,
  };
  const WIDTHS: Record<Load, number> = { lb: 1, lbu: 1, lh: 2, lhu: 2, lw: 4 };
  it.each(Object.keys(LOADS) as Load[])("%s reads little endian and extends as its name says", (name) => {
    for (let offset = 0; offset < 4; offset += WIDTHS[name]) {
      for (const base of [AT + 2000, AT, AT - 2000]) {
        const hart = new Hart([load(name, 3, 1, AT + offset - base)]);
        hart.put(AT, [0x01ff7f80]);
        hart.cpu.x[1] = base;
        expect([offset, hart.step().x(3)]).toEqual([offset, LOADS[name](offset)]);
      }
    }
  });

  it("LH extends the sign of a half", () => {
    const hart = new Hart([load("lh", 3, 1, 2), load("lhu", 4, 1, 2)]);
    hart.put(AT, [0x80010000]);
    hart.cpu.x[1] = AT;
    hart.step(2);
    expect([hart.x(3), hart.x(4)]).toEqual([-0x7fff, 0x8001]);
  });

  it("stores write their width and nothing beside it", () => {
    const hart = new Hart([
      store("sb", 2, 1, 1),
      store("sh", 2, 1, 6),
      store("sw", 2, 1, -4),
      store("sb", 2, 1, -5),
    ]);
    hart.put(AT - 8, [0, 0, 0, 0]);
    hart.cpu.x[1] = AT;
    hart.cpu.x[2] = 0xa1b2c3d4 | 0;
    hart.step(4);
    expect([-8, -4, 0, 4].map((offset) => hart.word(AT + offset) >>> 0)).toEqual([
      0xd4000000, 0xa1b2c3d4, 0x0000d400, 0xc3d40000,
    ]);
  });
});

describe("the A extension", () => {
  const AT = RAM_BASE + 0x100;
  const ATOMICS: Partial<Record<Atomic, (old: number, operand: number) => number>> = {
    "amoswap.w": (_old, operand) => operand,
    "amoadd.w": (old, operand) => s32(s(old) + s(operand)),
    "amoxor.w": (old, operand) => old ^ operand,
    "amoand.w": (old, operand) => old & operand,
    "amoor.w": (old, operand) => old | operand,
    "amomin.w": (old, operand) => (s(old) < s(operand) ? old : operand),
    "amomax.w": (old, operand) => (s(old) > s(operand) ? old : operand),
    "amominu.w": (old, operand) => (u(old) < u(operand) ? old : operand),
    "amomaxu.w": (old, operand) => (u(old) > u(operand) ? old : operand),
  };
  it.each(Object.entries(ATOMICS))("%s returns the old value and stores the new one", (name, result) => {
    for (const [old, operand] of pairs()) {
      const hart = new Hart([amo(name as Atomic, 3, 1, 2)]);
      hart.put(AT, [old]);
      hart.cpu.x[1] = AT;
      hart.cpu.x[2] = operand;
      expect([old, operand, hart.step().x(3), hart.word(AT)]).toEqual([
        old,
        operand,
        old,
        result(old, operand),
      ]);
    }
  });

  function reserved(between: (hart: Hart) => void, storeAt = AT): Hart {
    const hart = new Hart([amo("lr.w", 3, 1), amo("sc.w", 4, 5, 2)]);
    hart.put(AT, [7, 8]);
    hart.cpu.x[1] = AT;
    hart.cpu.x[5] = storeAt;
    hart.cpu.x[2] = 42;
    hart.step();
    between(hart);
    return hart.step();
  }

  it("SC stores where LR has reserved", () => {
    const hart = reserved(() => undefined);
    expect([hart.x(3), hart.x(4), hart.word(AT)]).toEqual([7, 0, 42]);
  });

  it("SC fails without a reservation, elsewhere, and a second time", () => {
    const elsewhere = reserved(() => undefined, AT + 4);
    expect([elsewhere.x(4), elsewhere.word(AT + 4)]).toEqual([1, 8]);
    const hart = reserved(() => undefined);
    hart.put(RAM_BASE + 8, [amo("sc.w", 6, 5, 3)]);
    expect([hart.step().x(6), hart.word(AT)]).toEqual([1, 42]);
    const never = new Hart([amo("sc.w", 4, 1, 2)]);
    never.cpu.x[1] = AT;
    expect(never.step().x(4)).toBe(1);
  });

  it("SC fails when somebody else has written there, to any byte of it, and not when beside it", () => {
    for (const [address, length, fails] of [
      [AT, 4, 1],
      [AT + 3, 1, 1],
      [AT - 10, 11, 1],
      [AT - 10, 10, 0],
      [AT + 4, 100, 0],
    ] as const) {
      const hart = reserved(({ cpu }) => {
        cpu.written(address, length);
      });
      expect([address - AT, length, hart.x(4)]).toEqual([address - AT, length, fails]);
    }
  });
});
