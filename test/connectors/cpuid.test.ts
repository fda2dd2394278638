/** How a guest finds the hypercalls: by the leaves of CPUID. */
import { describe, expect, it } from "vitest";
import { VbusHypercall, vbusCpuid, type CpuidRegisters } from "vbus/connectors/mmio";
import { allocateGuestMemory, openHostView } from "vbus/memory";
import { EchoHost } from "./machine.js";

/** What a guest does: looks at all places where hypervisors announce themselves. Returns the leaf after the signature. */
function find(cpuid: (leaf: number) => CpuidRegisters | null): CpuidRegisters | null {
  for (let leaf = 0x40000000; leaf < 0x40010000; leaf += 0x100) {
    const found = cpuid(leaf);
    if (found === null) continue;
    const signature = Buffer.from(new Uint32Array([found.ebx, found.ecx, found.edx]).buffer);
    if (signature.toString("latin1") === "vbusvbusvbus" && found.eax >= leaf + 1) return cpuid(leaf + 1);
  }
  return null;
}

describe("the CPUID leaves of the hypercalls", () => {
  it("are found at any place where a guest looks, and say versions, first number and interrupt", () => {
    for (const leaf of [undefined, 0x40000000, 0x40000100, 0x40008000, 0x4000ff00])
      expect(
        find((at) => vbusCpuid(at, { leaf, irq: 5 })),
        String(leaf),
      ).toEqual({
        eax: 1,
        ebx: 1,
        ecx: 0x76620000,
        edx: 5,
      });
  });

  it("say that there is no interrupt when there is none", () => {
    expect(find((at) => vbusCpuid(at))?.edx).toBe(0xffffffff);
  });

  it("are no others than two, wherever the leaf comes from: a register may be signed", () => {
    expect(vbusCpuid(0x40007602)).toBeNull();
    expect(vbusCpuid(0x400075ff)).toBeNull();
    expect(vbusCpuid(0)).toBeNull();
    expect(vbusCpuid(0xffffffff)).toBeNull();
    expect(vbusCpuid(-1)).toBeNull();
    expect(vbusCpuid(0x40007600 | 0)).not.toBeNull();
  });

  it.each([0x3fffff00, 0x40000080, 0x40010000, -1, 0.5, Number.NaN])(
    "cannot be at 0x%s, where no guest looks",
    (leaf) => {
      expect(() => vbusCpuid(0, { leaf })).toThrow(/multiple of 0x100/);
    },
  );

  it.each([-1, 1.5, 2 ** 32, Number.NaN])("cannot name interrupt %s", (irq) => {
    expect(() => vbusCpuid(0, { irq })).toThrow(/interrupt/);
  });

  it("are those of the object that takes the calls, which checks them before its guest does", async () => {
    const { bus, scheduler } = new EchoHost();
    const memory = await openHostView(allocateGuestMemory({ size: 1 << 16, arenaSize: 1 << 17 }));
    const options = { bus, member: "guest", memory, scheduler, interrupt: () => undefined };
    const free = memory.arena.available;
    expect(() => new VbusHypercall({ ...options, leaf: 1 })).toThrow(/multiple of 0x100/);
    expect(memory.arena.available).toBe(free);
    const hypercall = new VbusHypercall({ ...options, leaf: 0x40000200, irq: 9 });
    expect(find((leaf) => hypercall.cpuid(leaf))?.edx).toBe(9);
    hypercall.close();
  });
});
