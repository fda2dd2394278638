/** What virtio-mmio adds to the rules of virtio: its registers and its interrupt (virtio 1.2: 4.2). */
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { VirtioMmio } from "vbus/connectors/virtio-mmio";
import { MmioDoor } from "./doors.js";
import { RING_RESET, VERSION_1, VirtioMachine } from "./machine.js";
import { Recorder, RECORDER_TYPE } from "./recorder.js";

let face: Recorder;
let machine: VirtioMachine;
let registers: VirtioMmio;
let door: MmioDoor;

beforeEach(async () => {
  face = new Recorder();
  machine = await VirtioMachine.create("mmio", face);
  registers = machine.registers!;
  door = new MmioDoor(registers);
});
afterEach(() => {
  machine.close();
  expect(machine.line).toBe(false);
  expect(machine.memory.arena.available).toBe(machine.free);
});

const WRITE_ONLY = [
  0x014, 0x020, 0x024, 0x030, 0x038, 0x050, 0x064, 0x080, 0x084, 0x090, 0x0a0, 0x0a4, 0x0ac,
];
const READ_ONLY = [0x000, 0x004, 0x008, 0x00c, 0x010, 0x034, 0x060, 0x0b0, 0x0b4, 0x0b8, 0x0bc, 0x0fc];

describe("memory-mapped registers", () => {
  it("say who they are", () => {
    expect([0x000, 0x004, 0x008].map((offset) => door.read(offset))).toEqual([0x74726976, 2, RECORDER_TYPE]);
    expect(door.read(0x00c)).toBe(0x11da);
    const other = new VirtioMmio({
      face,
      memory: machine.memory,
      scheduler: machine.scheduler,
      interrupt: () => undefined,
      vendor: 0x12345678,
    });
    expect(other.read(0x00c, 4)).toBe(0x12345678);
    other.close();
  });

  it("read as 0 where they are write-only, and keep what is read-only", () => {
    machine.bringUp();
    const before = READ_ONLY.map((offset) => door.read(offset));
    for (const offset of READ_ONLY) door.write(offset, 0xa5a5a5a5);
    expect(READ_ONLY.map((offset) => door.read(offset))).toEqual(before);
    expect(WRITE_ONLY.map((offset) => door.read(offset))).toEqual(WRITE_ONLY.map(() => 0));
    machine.exercise();
  });

  it("are accessed with 32 bits: other widths read as 0, and change nothing", () => {
    machine.bringUp();
    for (let offset = 0; offset < 0x100; offset++)
      for (const width of [1, 2] as const) {
        expect(registers.read(offset, width)).toBe(0);
        registers.write(offset, width, 0);
      }
    for (let offset = 1; offset < 0x100; offset += 2) registers.write(offset, 4, 0);
    expect(door.status()).toBe(0xf);
    machine.exercise();
  });

  it("say that there is no shared memory, whichever region is asked for", () => {
    for (const region of [0, 1, 255]) {
      door.write(0x0ac, region);
      expect([0x0b0, 0x0b4, 0x0b8, 0x0bc].map((offset) => door.read(offset))).toEqual(
        Array(4).fill(0xffffffff),
      );
    }
  });

  it("stop a queue by QueueReady, with or without RING_RESET", () => {
    machine.bringUp(machine.offered & ~RING_RESET);
    machine.exercise();
    door.write(0x030, 0);
    door.write(0x044, 2); // nonsense
    expect(door.enabled(0)).toBe(true);
    door.write(0x044, 0);
    expect(door.read(0x044)).toBe(0);
    expect(face.log.at(-1)).toBe("queue 0 stopped");
    machine.queues.delete(0);
    machine.exercise();
    machine.makeQueue(0, 8);
    machine.exercise();
  });

  it("reset a queue by QueueReset, which reads as 0 when that is over", () => {
    machine.bringUp();
    door.write(0x030, 1);
    door.write(0x0c0, 2); // nonsense
    expect(door.enabled(1)).toBe(true);
    door.write(0x0c0, 1);
    expect([door.read(0x0c0), door.read(0x044)]).toEqual([0, 0]);
    machine.makeQueue(1);
    machine.exercise();
  });

  it("take all 32 bits of a queue's number for what they are", () => {
    machine.bringUp();
    door.write(0x050, 0x10000);
    expect(machine.counters()["strayKicks"]).toBe(1);
    door.write(0x030, 0x10000);
    expect(door.read(0x034)).toBe(0);
  });
});

describe("the interrupt of memory-mapped registers", () => {
  it("is high until everything was acknowledged", () => {
    machine.bringUp(VERSION_1);
    machine.exercise();
    expect([machine.line, door.read(0x060)]).toEqual([true, 1]);
    door.write(0x064, 2); // not that
    expect(machine.line).toBe(true);
    door.write(0x064, 1);
    expect([machine.line, door.read(0x060)]).toEqual([false, 0]);
    expect(machine.raised).toBe(1);
  });

  it("is an edge again when there is more to it than was acknowledged", () => {
    machine.bringUp(VERSION_1);
    machine.exercise();
    face.context!.configChanged();
    expect(door.read(0x060)).toBe(3);
    door.write(0x064, 1);
    expect([machine.line, machine.raised]).toEqual([true, 2]); // down and up
    door.write(0x064, 2);
    expect(machine.line).toBe(false);
    expect(registers.counters()).toMatchObject({ lines: 2, acknowledged: 2 });
  });

  it("is low after a reset of the device or of the machine", () => {
    machine.bringUp(VERSION_1);
    machine.exercise();
    door.writeStatus(0);
    expect([machine.line, door.read(0x060)]).toEqual([false, 0]);
    machine.bringUp(VERSION_1);
    machine.exercise();
    registers.machineReset();
    expect([machine.line, door.status()]).toEqual([false, 0]);
  });
});
