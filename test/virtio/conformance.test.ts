/** The rules of virtio 1.2 that are the same for every transport: status, features, queues, configuration. */
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { VbusError } from "vbus";
import {
  ACKNOWLEDGE,
  DRIVER,
  DRIVER_OK,
  EVENT_IDX,
  FAILED,
  FEATURES_OK,
  INDIRECT_DESC,
  IN_ORDER,
  NEEDS_RESET,
  NOTIFICATION_DATA,
  RING_PACKED,
  RING_RESET,
  TRANSPORTS,
  VERSION_1,
  VirtioMachine,
  type MachineOptions,
} from "./machine.js";
import { FEATURE_A, FEATURE_B, Recorder } from "./recorder.js";

const TAKEN = ACKNOWLEDGE | DRIVER | FEATURES_OK;

describe.each(TRANSPORTS)("a virtio device behind %s registers", (transport) => {
  let face: Recorder;
  let machine: VirtioMachine;

  async function make(options: MachineOptions = {}): Promise<void> {
    face = new Recorder();
    machine = await VirtioMachine.create(transport, face, options);
  }
  beforeEach(() => make());
  afterEach(() => {
    machine.close();
    machine.close();
    expect(machine.line).toBe(false);
    expect(machine.memory.arena.available).toBe(machine.free);
  });

  const errorsAre = (...codes: string[]): void => {
    expect(machine.errors.map((error) => (error as VbusError).code)).toEqual(codes);
    machine.errors.length = 0;
  };

  describe("negotiates features", () => {
    it("and offers the device's own, and those of rings and transport", () => {
      const rings = INDIRECT_DESC | EVENT_IDX | RING_PACKED | IN_ORDER | RING_RESET;
      expect(machine.offered).toBe(FEATURE_A | FEATURE_B | VERSION_1 | rings);
      expect(machine.door.offered(4)).toBe(0);
      expect(machine.door.offered(0xffffffff)).toBe(0);
    });

    it.each([
      ["packed", RING_PACKED],
      ["eventIndex", EVENT_IDX],
      ["indirect", INDIRECT_DESC],
      ["inOrder", IN_ORDER],
      ["reset", RING_RESET],
    ] as const)("without %s, when an option says so", async (option, bit) => {
      const all = machine.offered;
      machine.close();
      await make({ rings: { [option]: false } });
      expect(machine.offered).toBe(all & ~bit);
    });

    it("and offers what a device says at the moment, from one reset to the next", () => {
      machine.door.writeStatus(0);
      expect(machine.offered & FEATURE_B).toBe(FEATURE_B);
      face.features = FEATURE_A;
      expect(machine.offered & FEATURE_B).toBe(FEATURE_B);
      machine.door.writeStatus(0);
      expect(machine.offered & FEATURE_B).toBe(0n);
    });

    it("never offers bits that are not the device's to offer", async () => {
      machine.close();
      face = new Recorder();
      face.features = (1n << 128n) - 1n;
      machine = await VirtioMachine.create(transport, face, { rings: { packed: false } });
      expect(machine.offered & ~((1n << 24n) - 1n) & ((1n << 50n) - 1n)).toBe(
        VERSION_1 | INDIRECT_DESC | EVENT_IDX | IN_ORDER | RING_RESET,
      );
    });

    it("and accepts every subset of the offer that makes sense", () => {
      for (const features of [
        VERSION_1,
        VERSION_1 | FEATURE_A,
        VERSION_1 | FEATURE_A | FEATURE_B,
        VERSION_1 | EVENT_IDX,
        machine.offered,
      ]) {
        expect(machine.negotiate(features), features.toString(16)).toBe(true);
        expect(machine.device.negotiated).toBe(features);
        expect(machine.door.status()).toBe(TAKEN);
      }
    });

    it.each([
      ["nothing at all", 0n],
      ["everything but VERSION_1", FEATURE_A],
      ["a bit that was not offered", VERSION_1 | (1n << 7n)],
      ["a transport bit that was not offered", VERSION_1 | NOTIFICATION_DATA],
      ["a bit of the last word", VERSION_1 | (1n << 127n)],
      ["a bit without the one that it needs", VERSION_1 | FEATURE_B],
    ])("and refuses %s: FEATURES_OK does not stick, and the driver may choose again", (_what, features) => {
      expect(machine.negotiate(features)).toBe(false);
      expect(machine.door.status()).toBe(ACKNOWLEDGE | DRIVER);
      expect(machine.device.negotiated).toBe(0n);
      machine.choose(VERSION_1);
      machine.door.writeStatus(TAKEN);
      expect(machine.door.status()).toBe(TAKEN);
      expect(machine.counters()["refusals"]).toBe(1);
    });

    it("and refuses bits beyond all that can be offered, until a reset", () => {
      machine.door.writeStatus(ACKNOWLEDGE | DRIVER);
      machine.choose(VERSION_1);
      machine.door.choose(4, 1);
      machine.door.writeStatus(TAKEN);
      expect(machine.door.status()).toBe(ACKNOWLEDGE | DRIVER);
      expect(machine.negotiate(VERSION_1)).toBe(true);
    });

    it("but not before there is a driver", () => {
      machine.choose(VERSION_1);
      machine.door.writeStatus(FEATURES_OK);
      expect(machine.door.status()).toBe(0);
      machine.door.writeStatus(ACKNOWLEDGE | FEATURES_OK);
      expect(machine.door.status()).toBe(ACKNOWLEDGE);
      machine.door.writeStatus(TAKEN); // in one go, with the driver
      expect(machine.door.status()).toBe(TAKEN);
    });

    it("and ignores what a driver chooses after FEATURES_OK", () => {
      machine.negotiate(VERSION_1);
      machine.choose(VERSION_1 | FEATURE_A);
      expect(machine.device.negotiated).toBe(VERSION_1);
      machine.makeQueue(0);
      machine.driverOk();
      machine.choose(machine.offered);
      expect(machine.device.negotiated).toBe(VERSION_1);
      expect(machine.counters()["ignoredWrites"]).toBe(8);
    });

    it("and ignores FEATURES_OK that comes again, or after DRIVER_OK", () => {
      machine.bringUp();
      machine.door.writeStatus(TAKEN | DRIVER_OK);
      expect(machine.device.running).toBe(true);
      machine.exercise();
    });
  });

  describe("keeps its status", () => {
    it("and takes bits one by one, but clears none of them except by a reset", () => {
      machine.bringUp();
      machine.door.writeStatus(ACKNOWLEDGE);
      expect(machine.door.status()).toBe(TAKEN | DRIVER_OK);
      expect(machine.counters()["ignoredWrites"]).toBe(1);
      machine.exercise();
      machine.door.writeStatus(0);
      expect(machine.door.status()).toBe(0);
    });

    it("and knows no bits that are not the driver's to set", () => {
      machine.door.writeStatus(0x30 | NEEDS_RESET);
      expect(machine.door.status()).toBe(0);
    });

    it("needs a reset when DRIVER_OK comes without FEATURES_OK, and says so", () => {
      machine.door.writeStatus(ACKNOWLEDGE | DRIVER);
      machine.door.writeStatus(ACKNOWLEDGE | DRIVER | DRIVER_OK);
      expect(machine.door.status()).toBe(ACKNOWLEDGE | DRIVER | DRIVER_OK | NEEDS_RESET);
      expect(machine.door.acknowledge()).toBe(2);
      expect(face.log).toEqual([]);
      machine.choose(VERSION_1);
      machine.door.writeStatus(0xf); // late
      expect(machine.door.status() & FEATURES_OK).toBe(0);
      expect(machine.device.running).toBe(false);
      errorsAre("EPROTO");
      machine.bringUp(); // only a reset helps, and it does
      machine.exercise();
    });

    it("stops when its driver gives it up, and works for the next one", () => {
      machine.bringUp();
      machine.door.writeStatus(FAILED);
      expect(machine.door.status()).toBe(TAKEN | DRIVER_OK | FAILED);
      expect(face.log).toEqual(["start ++", "stop"]);
      const queue = machine.queues.get(0)!;
      machine.offer(queue, 1, 0, "always");
      expect(machine.reap(queue)).toEqual([]);
      machine.door.writeStatus(TAKEN | DRIVER_OK);
      expect(machine.device.running).toBe(false);
      machine.bringUp();
      machine.exercise();
      expect(machine.counters()).toMatchObject({ failures: 1, strayKicks: 1, starts: 2 });
    });

    it("needs a reset when the device cannot start, and says so", () => {
      face.refuses = new VbusError("EBUSY", "another machine has it");
      machine.negotiate();
      machine.makeQueue(0);
      machine.driverOk();
      expect(machine.door.status()).toBe(TAKEN | DRIVER_OK | NEEDS_RESET);
      expect(machine.door.acknowledge()).toBe(2);
      errorsAre("EBUSY");
      face.refuses = null;
      machine.bringUp();
      machine.exercise();
    });

    it("needs a reset when the device says so, and goes on with what is healthy", () => {
      machine.bringUp();
      face.context!.needsReset(new VbusError("EIO", "the disk is gone"));
      face.context!.needsReset(new VbusError("EIO", "and again"));
      expect(machine.door.status()).toBe(TAKEN | DRIVER_OK | NEEDS_RESET);
      expect(machine.door.acknowledge()).toBe(2);
      expect(machine.counters()["needsReset"]).toBe(1);
      errorsAre("EIO", "EIO");
      machine.exercise();
    });

    it("hears nothing from a session that has ended", () => {
      machine.bringUp();
      const context = face.context!;
      const queue = face.queues.get(0)!;
      machine.bringUp();
      const { line, raised } = machine;
      context.needsReset(new Error("late"));
      context.configChanged();
      queue.interrupt();
      expect(context.queue(0)).toBeNull();
      expect([machine.line, machine.raised]).toEqual([line, raised]);
      expect(machine.door.status() & NEEDS_RESET).toBe(0);
      errorsAre();
    });
  });

  describe("sets queues up", () => {
    it("and tells how large they may be; 0 for one that does not exist", () => {
      expect([0, 1, 2, 3, 0xffff].map((queue) => machine.door.queueMax(queue))).toEqual([64, 16, 0, 0, 0]);
    });

    it.each([
      ["split", VERSION_1],
      ["split, event index and indirect tables", VERSION_1 | EVENT_IDX | INDIRECT_DESC],
      ["packed", VERSION_1 | RING_PACKED],
      ["packed, in order, with everything", VERSION_1 | RING_PACKED | EVENT_IDX | INDIRECT_DESC | IN_ORDER],
    ])("that work: %s", (_what, features) => {
      machine.bringUp(features);
      for (let i = 0; i < 20; i++) machine.exercise(1 + (i % 16));
      expect(face.answered).toBe(2 * [...Array(20).keys()].reduce((sum, i) => sum + 1 + (i % 16), 0));
    });

    it("smaller than they may be, when the driver wants them so", () => {
      machine.negotiate();
      machine.makeQueue(0, 4);
      machine.makeQueue(1, 1);
      machine.driverOk();
      for (let i = 0; i < 9; i++) machine.exercise(1);
      expect(face.queues.get(0)!.ring.size).toBe(4);
    });

    it("and starts with those that were enabled", () => {
      machine.negotiate();
      machine.makeQueue(1);
      machine.driverOk();
      expect(face.log).toEqual(["start -+"]);
      machine.exercise();
      machine.makeQueue(0);
      expect(face.log.at(-1)).toBe("queue 0 started");
      machine.exercise();
    });

    it("and changes nothing of one that is enabled", () => {
      machine.bringUp();
      const { door, device } = machine;
      const before = device.queue(0)!.address("descriptors", false);
      door.setSize(0, 8);
      door.setArea(0, "descriptors", 0, 1);
      door.enable(0);
      expect(device.queue(0)!.size).toBe(64);
      expect(device.queue(0)!.address("descriptors", false)).toBe(before);
      expect(machine.counters()["ignoredWrites"]).toBe(4);
      machine.exercise();
    });

    it("but not before FEATURES_OK, when their layout is unknown", () => {
      machine.door.writeStatus(ACKNOWLEDGE | DRIVER);
      machine.choose(VERSION_1);
      machine.door.enable(0);
      expect(machine.door.enabled(0)).toBe(false);
      expect(machine.door.status() & NEEDS_RESET).toBe(NEEDS_RESET);
      errorsAre("EPROTO");
      machine.bringUp();
      machine.exercise();
    });

    const impossible: [string, (machine: VirtioMachine) => void, string][] = [
      ["0 descriptors", ({ door }) => door.setSize(0, 0), "EINVAL"],
      ["more descriptors than it may have", ({ door }) => door.setSize(0, 128), "EINVAL"],
      ["a size that is no power of two", ({ door }) => door.setSize(0, 3), "EINVAL"],
      ["an area outside of memory", ({ door }) => door.setArea(0, "device", 0xf0000000, 0), "EFAULT"],
      ["an area above 4 GiB", ({ door }) => door.setArea(0, "driver", 0x20000, 1), "EFAULT"],
      ["an area where addresses end", ({ door }) => door.setArea(0, "descriptors", -16, -1), "EFAULT"],
      ["an area that is not aligned", ({ door }) => door.setArea(0, "descriptors", 0x20001, 0), "EINVAL"],
      ["no address at all", ({ door }) => door.setArea(0, "descriptors", 0, 0), "EFAULT"],
    ];
    it.each(impossible)("and needs a reset after %s", (_what, spoil, code) => {
      machine.negotiate(VERSION_1);
      machine.door.setSize(0, 16);
      machine.door.setArea(0, "descriptors", 0x20000, 0);
      machine.door.setArea(0, "driver", 0x30000, 0);
      machine.door.setArea(0, "device", 0x40000, 0);
      spoil(machine);
      machine.door.enable(0);
      expect(machine.door.status() & NEEDS_RESET).toBe(NEEDS_RESET);
      expect(machine.counters()).toMatchObject({ badQueues: 1, needsReset: 1 });
      errorsAre(code);
      machine.driverOk();
      expect(machine.door.acknowledge()).toBe(2); // now it can be told
      expect(machine.device.running).toBe(false);
      machine.bringUp();
      machine.exercise();
    });

    it("and needs a reset when there is no memory left for them", async () => {
      machine.close();
      await make({ arenaSize: 65536 });
      const hog = machine.memory.arena.allocate(machine.memory.arena.available - 64);
      machine.negotiate();
      machine.makeQueue(0);
      expect(machine.door.status() & NEEDS_RESET).toBe(NEEDS_RESET);
      errorsAre("ENOMEM");
      machine.memory.arena.free(hog);
    });

    it("that break one by one, with those that do not going on", () => {
      machine.bringUp();
      const queue = face.queues.get(0)!;
      queue.ring.violate("request");
      expect(() => queue.ring.peek).not.toThrow();
      machine.queues.delete(0);
      machine.exercise();
      expect(machine.counters()["needsReset"]).toBe(0); // the device's own decision
    });
  });

  describe("resets queues one by one", () => {
    it("and sets them up again, while the others work", () => {
      machine.bringUp();
      machine.exercise();
      machine.door.reset(0);
      expect(machine.door.enabled(0)).toBe(false);
      expect(machine.door.queueMax(0)).toBe(64);
      expect(face.log.at(-1)).toBe("queue 0 stopped");
      const [first, second] = [machine.queues.get(0)!, machine.queues.get(1)!];
      machine.offer(first, 1, 0, "always"); // to nobody
      machine.offer(second, 1);
      expect(machine.reap(second)).toHaveLength(1);
      expect(machine.counters()).toMatchObject({ strayKicks: 1, queueResets: 1 });
      machine.makeQueue(0, 32);
      expect(face.log.at(-1)).toBe("queue 0 started");
      machine.exercise();
    });

    it("in the midst of a burst", () => {
      machine.bringUp();
      face.interlude = () => {
        face.interlude = null;
        machine.door.reset(0);
      };
      const queue = machine.queues.get(0)!;
      machine.offer(queue, 5);
      expect(machine.reap(queue)).toEqual([]);
      machine.makeQueue(0);
      machine.exercise();
      errorsAre();
    });

    it("but not when that was not negotiated", () => {
      machine.bringUp(machine.offered & ~RING_RESET);
      machine.door.reset(0);
      expect(machine.door.enabled(0)).toBe(true);
      expect(machine.counters()).toMatchObject({ queueResets: 0, ignoredWrites: 1 });
      machine.exercise();
    });

    it("and does nothing to one that is not enabled, or does not exist", () => {
      machine.negotiate();
      machine.door.reset(0);
      machine.door.reset(7);
      expect(machine.counters()).toMatchObject({ queueResets: 0, ignoredWrites: 2 });
    });
  });

  describe("is reset", () => {
    it("to what it was before any driver came", () => {
      machine.bringUp();
      machine.exercise();
      expect(machine.line).toBe(true);
      machine.door.writeStatus(0);
      expect(machine.line).toBe(false);
      expect(machine.door.acknowledge()).toBe(0);
      expect(machine.door.enabled(0)).toBe(false);
      expect(machine.device.queue(0)!.address("driver", false)).toBe(0);
      expect(machine.device.chosenWord(0)).toBe(0);
      expect(face.log).toEqual(["start ++", ...face.log.slice(1, -1), "stop"]);
    });

    it("in the midst of a burst, and the burst ends there", () => {
      machine.bringUp();
      const queue = machine.queues.get(0)!;
      face.interlude = () => {
        face.interlude = null;
        machine.door.writeStatus(0);
      };
      machine.offer(queue, 10);
      expect(machine.reap(queue)).toEqual([]);
      expect(face.answered).toBe(0);
      machine.bringUp();
      machine.exercise();
      errorsAre();
    });

    it("a hundred times in a row without a leak", () => {
      for (let i = 0; i < 100; i++) {
        if (i % 20 === 0) machine.bringUp();
        machine.door.writeStatus(0);
        expect(machine.memory.arena.available).toBe(machine.free);
      }
    });
  });

  describe("is kicked", () => {
    it("and works within the kick", () => {
      machine.bringUp();
      const queue = machine.queues.get(0)!;
      machine.offer(queue, 3);
      expect(machine.reap(queue)).toHaveLength(3);
      expect(machine.door.acknowledge()).toBe(1);
    });

    it("for queues that do not exist, are not there yet, or too early: ignored and counted", () => {
      machine.door.kick(0);
      machine.negotiate();
      machine.makeQueue(1);
      machine.door.kick(1);
      machine.driverOk();
      for (const queue of [0, 2, 77, 0xffff]) machine.door.kick(queue);
      expect(machine.counters()).toMatchObject({ strayKicks: 6, kicks: 0 });
      machine.exercise();
    });

    it("with the ring's position besides, where that was negotiated", async () => {
      machine.close();
      await make({ rings: { notificationData: true } });
      machine.bringUp();
      const queue = machine.queues.get(1)!;
      machine.offer(queue, 1, 0, "never");
      if (machine.fn !== null) machine.fn.barWrite(0, 0x40, 4, 0x80010001);
      else machine.registers!.write(0x050, 4, 0x80010001);
      expect(machine.reap(queue)).toHaveLength(1);
    });
  });

  describe("shows its configuration", () => {
    it("in every width at every offset, and nothing behind its end", () => {
      for (const width of [1, 2, 4] as const)
        for (let offset = 0; offset < 32; offset++) {
          let expected = 0;
          for (let i = 0; i < width; i++)
            expected += (offset + i < 23 ? 0x40 + offset + i : 0) * 2 ** (8 * i);
          expect(machine.door.config(offset, width), `${width} at ${offset}`).toBe(expected);
        }
    });

    it("for the features that were negotiated", () => {
      expect(machine.door.config(23, 1)).toBe(0);
      machine.negotiate(VERSION_1 | FEATURE_A);
      expect(machine.door.config(23, 1)).toBe(Number(FEATURE_A));
    });

    it("and takes writes of every width at every offset, those bytes that lie inside", () => {
      for (const width of [1, 2, 4] as const)
        for (let offset = 0; offset < 30; offset++) machine.door.writeConfig(offset, width, 0x04030201);
      const expected = [1, 2, 4].flatMap((width) =>
        Array.from({ length: 24 }, (_, offset) => [
          offset,
          [1, 2, 3, 4].slice(0, Math.min(width, 24 - offset)),
        ]),
      );
      expect(face.written).toEqual(expected);
    });

    it("with a generation that changes when it does, and only then", () => {
      const { door } = machine;
      const first = door.generation();
      for (let i = 0; i < 10; i++) door.config(4 * (i % 4), 4);
      expect(door.generation()).toBe(first);
      face.settings[3] = 1;
      expect(door.generation()).not.toBe(first);
      const second = door.generation();
      expect(door.generation()).toBe(second);
    });

    it("so that a driver that reads it in pieces never believes a mix of two states", () => {
      const { door } = machine;
      face.settings.fill(1, 0, 8);
      const before = door.generation();
      expect(door.config(0, 4)).toBe(0x01010101);
      face.settings.fill(2, 0, 8); // in between
      const torn = [door.config(0, 4), door.config(4, 4)];
      expect(torn[1]).toBe(0x02020202);
      expect(door.generation()).not.toBe(before); // so it reads again
    });

    it("and tells the driver when it changes, once it is there", () => {
      machine.negotiate();
      machine.makeQueue(0);
      machine.driverOk();
      const before = machine.door.generation();
      face.settings[0] = 9;
      face.context!.configChanged();
      expect(machine.line).toBe(true);
      expect(machine.door.generation()).not.toBe(before);
      expect(machine.door.acknowledge()).toBe(2);
      expect(machine.line).toBe(false);
    });

    it("though the device throws, what nobody should", () => {
      face.readConfig = () => {
        throw new Error("no configuration today");
      };
      face.writeConfig = () => {
        throw new Error("nor is there any to write");
      };
      machine.door.config(0, 4);
      machine.door.writeConfig(0, 4, 1);
      expect(machine.errors).toHaveLength(2);
      machine.errors.length = 0;
    });
  });

  it("refuses devices that no transport can carry", async () => {
    const odd = (change: Partial<Recorder>): Recorder => Object.assign(new Recorder(), change);
    for (const [face_, message] of [
      [odd({ configSize: 185 }), /0 to 184/],
      [odd({ queueSizes: [48] }), /powers of two/],
      [odd({ queueSizes: [65536] }), /powers of two/],
    ] as const)
      await expect(VirtioMachine.create(transport, face_)).rejects.toThrow(message);
  });
});
