/** What virtio-pci adds to the rules of virtio: capabilities, registers, interrupts (virtio 1.2: 4.1). */
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { MsixTable, type MsiMessage } from "vbus/connectors/pci";
import type { VirtioPci } from "vbus/connectors/virtio-pci";
import { decodeState, encodeState, StateError, type StateReader, type StateValue } from "vbus/state";
import { capabilityOf, PciDoor, structuresOf } from "./doors.js";
import { RING_PACKED, VERSION_1, VirtioMachine, type MachineOptions } from "./machine.js";
import { Recorder, RECORDER_TYPE } from "./recorder.js";

const NO_VECTOR = 0xffff;
const ENABLE = 0x8000;
const MASK = 0x4000;

let face: Recorder;
let machine: VirtioMachine;
let fn: VirtioPci;
let door: PciDoor;

async function make(options: MachineOptions = {}): Promise<void> {
  face = new Recorder();
  machine = await VirtioMachine.create("pci", face, options);
  fn = machine.fn!;
  door = PciDoor.of(machine.door);
}

async function remake(options: MachineOptions): Promise<void> {
  machine.close();
  await make(options);
}

beforeEach(() => make());
afterEach(() => {
  machine.close();
  expect(machine.line).toBe(false);
  expect(machine.memory.arena.available).toBe(machine.free);
});

/** MSI-X as a driver sees it. */
const msix = {
  control(value: number): void {
    fn.configWrite(capabilityOf(fn, 0x11) + 2, 2, value);
  },
  entry(vector: number, address: number, data: number, control = 0): void {
    fn.barWrite(1, 16 * vector, 4, address % 2 ** 32);
    fn.barWrite(1, 16 * vector + 4, 4, Math.floor(address / 2 ** 32));
    fn.barWrite(1, 16 * vector + 8, 4, data);
    fn.barWrite(1, 16 * vector + 12, 4, control);
  },
  mask(vector: number, masked: boolean): void {
    fn.barWrite(1, 16 * vector + 12, 4, masked ? 1 : 0);
  },
  pending(): number {
    return fn.barRead(1, 0x800, 4);
  },
  on(): void {
    for (let vector = 0; vector < 3; vector++) this.entry(vector, 0xfee00000, 0x40 + vector);
    this.control(ENABLE);
  },
};

function bringUpWithVectors(): void {
  msix.on();
  if (!machine.negotiate()) throw new Error("FEATURES_OK did not stick");
  door.mapConfig(0);
  for (const index of [0, 1]) {
    machine.makeQueue(index);
    door.mapQueue(index, index + 1);
  }
  machine.driverOk();
}

describe("a virtio function's configuration space", () => {
  it("says who it is", () => {
    expect(fn.configRead(0x00, 4)).toBe(((0x1040 + RECORDER_TYPE) << 16) | 0x1af4);
    expect(fn.configRead(0x08, 1)).toBe(1); // revision
    expect(fn.configRead(0x2c, 4)).toBe(0x00401af4);
    expect(fn.configRead(0x3d, 1)).toBe(1); // INTA
    expect(fn.configRead(0x06, 2) & 0x10).toBe(0x10); // a capability list
  });

  it("says where everything is", () => {
    const structures = structuresOf(fn);
    expect([...structures.keys()]).toEqual([1, 2, 3, 4, 5]);
    expect(structures.get(1)).toMatchObject({ bar: 0, offset: 0, length: 60 });
    expect(structures.get(2)).toMatchObject({ bar: 0, offset: 0x40, length: 4 });
    expect(fn.configRead(structures.get(2)!.at + 16, 4)).toBe(0); // one notification register for all queues
    expect(structures.get(3)).toMatchObject({ bar: 0, length: 1 });
    expect(structures.get(4)).toMatchObject({ bar: 0, length: 24 });
    for (const { at, offset, length } of structures.values()) {
      expect(fn.configRead(at + 2, 1)).toBeGreaterThanOrEqual(16);
      expect(offset + length).toBeLessThanOrEqual(256);
    }
    const at = capabilityOf(fn, 0x11);
    expect(fn.configRead(at + 2, 2)).toBe(2); // three vectors, off
    expect(fn.configRead(at + 4, 4)).toBe(0x001);
    expect(fn.configRead(at + 8, 4)).toBe(0x801);
    expect(capabilityOf(fn, 5)).toBe(0);
  });

  it("has BARs of the kinds and sizes that were asked for", async () => {
    const probe = (bar: number): number => {
      fn.configWrite(0x10 + 4 * bar, 4, 0xffffffff);
      return fn.configRead(0x10 + 4 * bar, 4);
    };
    expect([0, 1, 2].map(probe)).toEqual([0xffffff01, 0xfffff000, 0]);
    await remake({ pci: { place: { registers: "memory" }, vectors: 0, msi: true } });
    expect([0, 1, 2].map(probe)).toEqual([0xfffff000, 0, 0]);
    expect(capabilityOf(fn, 0x11)).toBe(0);
    expect(fn.configRead(capabilityOf(fn, 5), 1)).toBe(5);
    machine.bringUp();
    machine.exercise();
  });

  it("refuses vectors and places that cannot be", async () => {
    for (const [pci, message] of [
      [{ vectors: 129 }, /0 to 128/],
      [{ vectors: -1 }, /0 to 128/],
      [{ place: { registerAddress: 0xd010 } }, /multiple of 256/],
      [{ place: { msixAddress: 0xfea00010 } }, /multiple of 4096/],
    ] as const)
      await expect(VirtioMachine.create("pci", new Recorder(), { pci })).rejects.toThrow(message);
  });

  it("reaches BARs through its access capability, with side effects", () => {
    machine.bringUp();
    const { at } = structuresOf(fn).get(5)!;
    const window = (bar: number, offset: number, length: number): void => {
      fn.configWrite(at + 4, 1, bar);
      fn.configWrite(at + 8, 4, offset);
      fn.configWrite(at + 12, 4, length);
    };
    window(0, 0x14, 1);
    expect(fn.configRead(at + 16, 1)).toBe(door.status());
    window(0, 0x04, 4);
    expect(fn.configRead(at + 16, 4)).toBe(door.offered(0));
    const queue = machine.queues.get(1)!;
    machine.offer(queue, 1, 0, "never");
    window(0, 0x40, 2);
    fn.configWrite(at + 16, 2, 1); // a kick
    expect(machine.reap(queue)).toHaveLength(1);
    window(0, 0x44, 1);
    expect(fn.configRead(at + 16, 1)).toBe(1);
    expect(machine.line).toBe(false); // the read acknowledged
    for (const [bar, offset, length] of [
      [9, 0, 4],
      [0, 0x14, 3],
      [0, 0x15, 4],
      [0, 0, 0],
      [1, 0xffffffff, 1],
      [0, 0xfffffffc, 4],
    ] as const) {
      window(bar, offset, length);
      fn.configWrite(at + 16, 4, 0); // to status, it would reset
      fn.configRead(at + 16, 4);
    }
    machine.exercise();
  });
});

describe("the common configuration", () => {
  it("reads the same in every width, and nothing behind its end", () => {
    machine.bringUp();
    door.write(0x00, 4, 1);
    door.write(0x08, 4, 0);
    door.select(1);
    const bytes = Array.from({ length: 64 }, (_, offset) => door.read(offset, 1));
    for (const width of [2, 4] as const)
      for (let offset = 0; offset < 60; offset++) {
        let expected = 0;
        for (let i = 0; i < width; i++) expected += (bytes[offset + i] ?? 0) * 2 ** (8 * i);
        expect(door.read(offset, width), `${width} at 0x${offset.toString(16)}`).toBe(expected);
      }
    expect(bytes.slice(60)).toEqual([0, 0, 0, 0]);
    expect(bytes[0x12]).toBe(2); // queues
  });

  it("takes each field in its own width only", () => {
    machine.negotiate(VERSION_1);
    const widths = new Map<number, number>([
      ...[0x00, 0x08, 0x20, 0x24, 0x28, 0x2c, 0x30, 0x34].map((at) => [at, 4] as const),
      ...[0x10, 0x16, 0x18, 0x1a].map((at) => [at, 2] as const),
    ]);
    for (const [offset, own] of widths)
      for (const width of [1, 2, 4] as const) {
        if (width === own) continue;
        const before = door.read(offset, own as 2 | 4);
        door.write(offset, width, 0xffffffff);
        expect(door.read(offset, own as 2 | 4), `${width} at 0x${offset.toString(16)}`).toBe(before);
      }
    for (const readOnly of [0x04, 0x12, 0x15, 0x1e, 0x38]) {
      const before = door.read(readOnly, 2);
      for (const width of [1, 2, 4] as const) door.write(readOnly, width, 0);
      expect(door.read(readOnly, 2)).toBe(before);
    }
    expect(machine.device.negotiated).toBe(VERSION_1);
  });

  it("keeps 64 bits of an address, and says 0 of queues that do not exist", () => {
    machine.negotiate(VERSION_1);
    door.setArea(0, "driver", 0x89abcdef, 0xfedcba98);
    expect([door.read(0x28, 4), door.read(0x2c, 4)]).toEqual([0x89abcdef, 0xfedcba98]);
    door.select(2);
    for (let offset = 0x18; offset < 0x38; offset += 2)
      expect(door.read(offset, 2), `0x${offset.toString(16)}`).toBe(offset === 0x1a ? NO_VECTOR : 0);
    door.setArea(2, "driver", 1, 1);
    door.enable(2);
    expect(machine.device.status & 0x40).toBe(0);
  });

  it("neither enables by anything but 1, nor disables", () => {
    machine.bringUp();
    door.select(0);
    for (const value of [0, 2, 0xffff]) door.write(0x1c, 2, value);
    for (const value of [0, 2, 0xffff]) door.write(0x3a, 2, value);
    expect(door.enabled(0)).toBe(true);
    machine.exercise();
  });
});

describe("a virtio function interrupts", () => {
  it("by its line, until the guest reads why", () => {
    machine.bringUp();
    machine.exercise();
    expect(machine.line).toBe(true);
    expect(machine.raised).toBe(1); // once, for both queues
    expect(fn.configRead(0x06, 2) & 8).toBe(8);
    face.context!.configChanged();
    expect(door.acknowledge()).toBe(3);
    expect(machine.line).toBe(false);
    expect(fn.configRead(0x06, 2) & 8).toBe(0);
    expect(door.acknowledge()).toBe(0);
    expect(machine.messages).toEqual([]);
    expect(fn.counters()).toMatchObject({ lines: 1, acknowledged: 1 });
  });

  it("by its line when it may again, if it was forbidden", () => {
    machine.bringUp();
    fn.configWrite(0x04, 2, 0x407);
    machine.exercise();
    expect(machine.line).toBe(false);
    fn.configWrite(0x04, 2, 0x007);
    expect(machine.line).toBe(true);
    fn.configWrite(0x04, 2, 0x407);
    expect(machine.line).toBe(false);
    expect(door.acknowledge()).toBe(1);
    fn.configWrite(0x04, 2, 0x007);
    expect(machine.line).toBe(false);
  });

  it("by the MSI-X vectors that the driver mapped", () => {
    bringUpWithVectors();
    machine.exercise();
    expect(machine.messages).toEqual([
      { address: 0xfee00000, data: 0x41 },
      { address: 0xfee00000, data: 0x42 },
    ]);
    face.context!.configChanged();
    expect(machine.messages.at(-1)).toEqual({ address: 0xfee00000, data: 0x40 });
    expect(machine.raised).toBe(0);
    expect(door.acknowledge()).toBe(0);
  });

  it("not at all where a vector was not mapped, and counts that", () => {
    msix.on();
    machine.bringUp();
    expect([door.mapQueue(0, NO_VECTOR), door.read(0x10, 2)]).toEqual([NO_VECTOR, NO_VECTOR]);
    machine.exercise();
    face.context!.configChanged();
    expect([machine.messages, machine.raised]).toEqual([[], 0]);
    expect(fn.counters().unwanted).toBe(3);
  });

  it("and answers NO_VECTOR for vectors that it does not have", () => {
    machine.negotiate();
    expect([0, 2, 3, 128, 0xfffe].map((vector) => door.mapQueue(0, vector))).toEqual([
      0,
      2,
      ...[NO_VECTOR, NO_VECTOR, NO_VECTOR],
    ]);
    expect([1, 3, NO_VECTOR].map((vector) => door.mapConfig(vector))).toEqual([1, NO_VECTOR, NO_VECTOR]);
    expect(door.mapQueue(5, 1)).toBe(NO_VECTOR); // no such queue
    door.mapConfig(1);
    door.mapQueue(0, 1);
    machine.door.writeStatus(0);
    expect([door.read(0x10, 2), door.read(0x1a, 2)]).toEqual([NO_VECTOR, NO_VECTOR]);
  });

  it.each([
    ["one vector", (masked: boolean) => msix.mask(1, masked)],
    ["the function", (masked: boolean) => msix.control(ENABLE | (masked ? MASK : 0))],
  ])("when %s is unmasked, once, if it had something to say while it was masked", (_what, mask) => {
    bringUpWithVectors();
    mask(true);
    const queue = machine.queues.get(0)!;
    for (let i = 0; i < 3; i++) {
      machine.offer(queue, 1);
      machine.reap(queue);
      queue.ring.enable();
    }
    expect(machine.messages).toEqual([]);
    expect(msix.pending()).toBe(2);
    fn.barWrite(1, 0x800, 4, 0); // no guest clears it
    expect(msix.pending()).toBe(2);
    mask(false);
    expect(machine.messages).toEqual([{ address: 0xfee00000, data: 0x41 }]);
    expect(msix.pending()).toBe(0);
  });

  it("never by what was pending before a reset", () => {
    bringUpWithVectors();
    msix.mask(1, true);
    machine.exercise();
    machine.door.writeStatus(0);
    expect(msix.pending()).toBe(0);
    msix.mask(1, false);
    expect(machine.messages).toEqual([{ address: 0xfee00000, data: 0x42 }]);
  });

  it("with all vectors masked at first, and after the machine was reset", () => {
    const controls = (): number[] => [0, 1, 2].map((vector) => fn.barRead(1, 16 * vector + 12, 4));
    expect(controls()).toEqual([1, 1, 1]);
    bringUpWithVectors();
    expect(controls()).toEqual([0, 0, 0]);
    fn.machineReset();
    expect(controls()).toEqual([1, 1, 1]);
    expect(fn.configRead(capabilityOf(fn, 0x11) + 2, 2)).toBe(2);
    machine.bringUp();
    machine.exercise();
    expect(machine.line).toBe(true);
  });

  it("by its line again, when MSI-X is switched off", () => {
    bringUpWithVectors();
    machine.exercise();
    msix.control(0);
    machine.exercise();
    expect(machine.line).toBe(true);
    msix.control(ENABLE);
    expect(machine.line).toBe(false);
  });

  it("by one MSI message, where that is offered and enabled", async () => {
    await remake({ pci: { msi: true } });
    const at = capabilityOf(fn, 5);
    fn.configWrite(at + 4, 4, 0xfee00000);
    fn.configWrite(at + 8, 2, 0x55);
    fn.configWrite(at + 2, 2, 1);
    machine.bringUp();
    machine.exercise();
    expect(machine.messages).toEqual(Array(2).fill({ address: 0xfee00000, data: 0x55 }));
    expect(machine.raised).toBe(0);
    expect(door.acknowledge()).toBe(1);
  });

  it("and does not let a sink that throws hurt the guest", () => {
    machine.bringUp();
    const sink = fn as unknown as { config: VirtioPci["config"] };
    expect(sink.config.intxDisabled).toBe(false);
    machine.line = true; // so that the machine's own sink objects
    machine.exercise();
    expect(machine.errors).toHaveLength(1);
    machine.line = true;
    machine.errors.length = 0;
    expect(door.acknowledge()).toBe(1);
  });
});

describe("a saved MSI-X table", () => {
  const table = (): { table: MsixTable; sent: MsiMessage[] } => {
    const sent: MsiMessage[] = [];
    return { table: new MsixTable(3, (message) => sent.push(message)), sent };
  };
  const reader = (state: StateValue): StateReader => decodeState(encodeState(state));

  it("sends what was pending when the vector is unmasked", () => {
    const { table: saved } = table();
    saved.control(true, false);
    saved.writeTable(16, 4, 0xfee00000);
    saved.writeTable(24, 4, 0x41);
    saved.notify(1);
    const { table: restored, sent } = table();
    restored.restore(reader(saved.save()), true, false);
    expect(sent).toEqual([]);
    restored.writeTable(28, 4, 0);
    expect(sent).toEqual([{ address: 0xfee00000, data: 0x41 }]);
  });

  it("in which a vector is pending that does not exist is refused, and no access throws afterwards", () => {
    const { table: restored, sent } = table();
    const { table: entries } = table().table.save() as { table: Uint8Array };
    for (const vector of [3, 7, 63]) {
      const pending = new Uint8Array(8);
      pending[vector >>> 3] = 1 << (vector & 7);
      expect(() => {
        restored.restore(reader({ table: entries, pending }), true, false);
      }).toThrow(StateError);
      restored.control(true, false);
      for (let at = 0; at < 64 * 16; at += 4) restored.writeTable(at, 4, 0);
    }
    expect(sent).toEqual([]);
  });
});

describe("a virtio function that loses bus mastering", () => {
  it("reaches memory no more, and works again when it was set up anew", () => {
    fn.configWrite(0x04, 2, 0x007);
    machine.bringUp();
    fn.configWrite(0x04, 2, 0x003);
    expect(door.status()).toBe(0);
    expect(face.log).toEqual(["start ++", "stop"]);
    fn.configWrite(0x04, 2, 0x007);
    machine.bringUp(VERSION_1 | RING_PACKED);
    machine.exercise();
  });
});

describe("a virtio function that was closed", () => {
  it("answers its registers, and nothing happens", () => {
    machine.bringUp();
    const queue = machine.queues.get(0)!;
    fn.close();
    expect(face.log.at(-1)).toBe("stop");
    machine.offer(queue, 1, 0, "always");
    door.writeStatus(0xf);
    door.enable(0);
    door.choose(0, 1);
    door.reset(0);
    expect(door.status()).toBe(0);
    fn.machineReset();
    fn.configWrite(0x04, 2, 0);
    fn.close();
  });
});
