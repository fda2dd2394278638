/** Programs of garbage: whatever a guest executes, the host stays whole. */
import { describe, expect, it } from "vitest";
import { Lab } from "../../examples/toy-emulator/lab.js";
import { ATTACH_BASE, RAM_BASE } from "../../examples/toy-emulator/map.js";
import { generator, seedOr } from "../engine/seed.js";
import { auipc, branch, csr, jal, li, load, MRET, op, opImm, store, WFI } from "./encode.js";

const seed = seedOr(0x6a2b);
const PROGRAMS = 40;
const INSTRUCTIONS = 30_000;
const REGISTERS = [
  0x00, 0x04, 0x08, 0x0c, 0x10, 0x14, 0x18, 0x1c, 0x20, 0x30, 0x34, 0x38, 0x40, 0x44, 0x50, 0x54,
];

function noise(random: () => number): Uint8Array {
  const bytes = new Uint8Array(16384);
  for (let i = 0; i < bytes.length; i++) bytes[i] = random();
  return bytes;
}

/**
 * Noise that gets somewhere: legal instructions that load and store all over RAM and above all at the register page, with a
 * trap handler that skips what traps. Register 1 holds the page, 2 the middle of the program.
 */
function mischief(random: () => number): Uint8Array {
  const words: number[] = [];
  const below = (n: number): number => random() % n;
  const register = (): number => 3 + below(29);
  words.push(jal(0, 32));
  // the handler: skips the instruction that trapped
  words.push(csr("csrrs", 31, 0x341, 0), opImm("addi", 31, 31, 4), csr("csrrw", 0, 0x341, 31), MRET);
  while (words.length < 8) words.push(opImm("addi", 0, 0, 0));
  words.push(...li(31, RAM_BASE + 4), csr("csrrw", 0, 0x305, 31));
  words.push(...li(1, ATTACH_BASE), ...li(2, RAM_BASE + 8192));
  words.push(...li(31, -1), csr("csrrw", 0, 0x304, 31));
  words.push(...li(31, 0x0c000000), ...li(30, -1), store("sw", 30, 31, 4));
  while (words.length < 3000) {
    const at = REGISTERS[below(REGISTERS.length)] as number;
    switch (below(12)) {
      case 0:
      case 1:
        words.push(store("sw", register(), 1, at));
        break;
      case 2: {
        // a call: a block somewhere in the program, a length that a call may have, a vector
        const block = 8 + below(4000);
        words.push(opImm("addi", 3, 2, block & 0x7f8), store("sw", 3, 1, 0x10), store("sw", 0, 1, 0x14));
        words.push(opImm("addi", 4, 0, [16, 16, 24, 32][below(4)] as number), store("sw", 4, 1, 0x18));
        words.push(opImm("addi", 5, 0, below(5)), store("sw", 5, 1, 0x1c), load("lw", 6, 1, 0x20));
        break;
      }
      case 3: {
        // a NEGOTIATE that works, so that the rest meets a bridge that listens
        const [high, low] = li(7, 0xbf53eef5 | 0);
        words.push(high, low, store("sw", 7, 2, 0), opImm("addi", 7, 0, 1), store("sw", 7, 2, 4));
        words.push(store("sw", 2, 1, 0x10), store("sw", 0, 1, 0x14), opImm("addi", 7, 0, 16));
        words.push(store("sw", 7, 1, 0x18), store("sw", 0, 1, 0x1c));
        break;
      }
      case 4:
        words.push(load(["lw", "lh", "lb"][below(3)] as "lw", register(), 1, at + below(4)));
        break;
      case 5:
        words.push(store("sw", register(), 2, below(4096) - 2048));
        break;
      case 6:
        words.push(load("lw", register(), 2, (below(4096) - 2048) & ~3));
        break;
      case 7:
        words.push(
          op(
            (["add", "xor", "mul", "divu", "sll"] as const)[below(5)] as "add",
            register(),
            register(),
            register(),
          ),
        );
        break;
      case 8:
        words.push(branch("beq", register(), register(), 4 * (1 + below(30))));
        break;
      case 9:
        words.push(below(4) === 0 ? WFI : csr("csrrsi", 0, 0x300, 8));
        break;
      case 10:
        words.push(auipc(register(), 0), random());
        break;
      default:
        words.push(opImm("addi", register(), 0, below(64)));
    }
  }
  words.push(jal(0, -4 * Math.min(words.length - 30, 2900)));
  const bytes = new Uint8Array(words.length * 4);
  const view = new DataView(bytes.buffer);
  for (const [i, word] of words.entries()) view.setUint32(4 * i, word, true);
  return bytes;
}

describe(`a guest that executes garbage (seed ${seed})`, () => {
  it.each([
    ["noise", noise],
    ["instructions that know where the registers are", mischief],
  ] as const)("%s: the host survives, and its other guest notices nothing", async (_name, make) => {
    const random = generator(seed);
    let calls = 0;
    let refused = 0;
    for (let n = 0; n < PROGRAMS; n++) {
      const errors: unknown[] = [];
      const lab = await Lab.build({ program: make(random), onError: (error) => errors.push(error) });
      const { machine, attachment, net } = lab;
      for (let executed = 0; executed < INSTRUCTIONS && !machine.cpu.idle; executed += 1000)
        machine.step(1000);
      await new Promise((resolve) => setImmediate(resolve));
      const counters = attachment.counters();
      calls += counters.calls;
      refused += counters.strayDoorbells + counters.ignored;
      expect(net.balance().balanced).toBe(true);
      // the bus, and the other guest on it, are as they were
      expect(lab.vbus.tree()).toContain("nic-peer");
      expect(errors.filter((error) => !(error instanceof Error))).toEqual([]);
      await lab.close();
    }
    if (make === mischief) {
      expect(calls).toBeGreaterThan(PROGRAMS); // it got as far as the bridge
      expect(refused).toBeGreaterThan(PROGRAMS);
    }
  });
});
