/** virtio devices behind registers, without an emulator: saved and put back while requests are on their way. */
import { VIRTIO_BLK_S_OK, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT } from "vbus/abi";
import { MemoryBackend } from "vbus/devices/vblk";
import { Terminal } from "vbus/devices/vconsole";
import { VirtioBlk } from "vbus/devices/virtio-blk";
import { VirtioConsole } from "vbus/devices/virtio-console";
import { virtioEntropy } from "vbus/devices/virtio-rng";
import { quiesce, restoreState, StateError, type Saveable } from "vbus/state";
import { afterEach, describe, expect, it } from "vitest";
import { generator, seedOr } from "../engine/seed.js";
import { turns } from "../event-loop.js";
import { head } from "../virtio-blk/machine.js";
import {
  EVENT_IDX,
  INDIRECT_DESC,
  RING_PACKED,
  TRANSPORTS,
  VERSION_1,
  VirtioMachine,
} from "../virtio/machine.js";
import { memoryImage } from "./client-part.js";

const SEED = seedOr(20261126);
const ROUNDS = 100;
const SECTOR = 512;
const RINGS: [string, bigint][] = [
  ["split rings", VERSION_1],
  ["packed rings with everything", VERSION_1 | RING_PACKED | EVENT_IDX | INDIRECT_DESC],
];

const machines: VirtioMachine[] = [];

async function machineOf(
  ...[transport, face]: Parameters<typeof VirtioMachine.create>
): Promise<VirtioMachine> {
  const machine = await VirtioMachine.create(transport, face);
  machines.push(machine);
  return machine;
}

afterEach(() => {
  for (const machine of machines.splice(0)) {
    machine.close();
    expect(machine.memory.arena.available).toBe(machine.free);
    expect(machine.errors).toEqual([]);
  }
});

const partOf = ({ fn, registers }: VirtioMachine): Saveable => (fn ?? registers)!;

/** Numbers below `sides`. */
const dice =
  (next: () => number) =>
  (sides: number): number =>
    next() % sides;

/** Saves a device and the guest's memory, lets go of both, and puts both back. Returns the state. */
async function rewind(machine: VirtioMachine): Promise<Uint8Array> {
  const part = partOf(machine);
  const quiesced = await quiesce([part]);
  const state = quiesced.save();
  const line = machine.line;
  const putBack = memoryImage(machine.memory);
  quiesced.resume();
  await restoreState([part], state, {
    memory: () => {
      putBack();
      machine.line = line; // the emulator's interrupt controller, which is saved by itself
    },
  });
  return state;
}

/** Lets the host and its back ends do what they have to. */
async function settle(machine: VirtioMachine): Promise<void> {
  for (let i = 0; i < 4; i++) {
    machine.scheduler.run();
    await turns(1);
  }
}

describe.each(TRANSPORTS)("virtio devices behind %s registers", (transport) => {
  describe.each(RINGS)("with %s", (_what, features) => {
    it("an entropy device is restored a hundred times, and answers every buffer once", async () => {
      const machine = await machineOf(transport, virtioEntropy());
      machine.bringUp(features);
      const queue = machine.queues.get(0)!;
      const roll = dice(generator(SEED));
      for (let round = 0; round < ROUNDS; round++) {
        const n = 1 + roll(16);
        machine.offer(queue, n);
        if (roll(2) === 0) machine.scheduler.run(); // answers are in the ring already
        await rewind(machine);
        machine.scheduler.run();
        expect(machine.reap(queue)).toEqual(
          Array.from({ length: n }, (_, cookie) => ({ cookie, length: queue.bufferSize })),
        );
        queue.ring.enable();
      }
    });

    it("a disk is restored a hundred times, and every request is answered once and rightly", async () => {
      const backend = new MemoryBackend(64 * SECTOR);
      const machine = await machineOf(transport, new VirtioBlk({ name: "disk", backend }));
      machine.bringUp(features & machine.offered);
      const queue = machine.queues.get(0)!;
      const { ram, space } = machine.guest;
      const [request, data, answer] = [16, SECTOR, 1].map((size) => ram.allocate(size, 16)) as [
        number,
        number,
        number,
      ];
      const roll = dice(generator(SEED));
      const ask = async (type: number, sector: number): Promise<void> => {
        space.copyTo(request, head(type, sector));
        space.copyTo(answer, Uint8Array.of(0xff));
        const [front, body, status] = [
          { gpa: request, length: 16 },
          { gpa: data, length: SECTOR },
          { gpa: answer, length: 1 },
        ] as const;
        if (type === VIRTIO_BLK_T_OUT) queue.chains.setChain(0, [front, body], [status]);
        else queue.chains.setChain(0, [front], [body, status]);
        queue.table.setCookie(0, sector);
        if (queue.ring.add(queue.chains, 1)) machine.door.kick(0);
        if (roll(2) === 0) machine.scheduler.run(); // the back end has it
        await rewind(machine);
        await settle(machine);
        expect(machine.reap(queue)).toEqual([
          { cookie: sector, length: type === VIRTIO_BLK_T_OUT ? 1 : SECTOR + 1 },
        ]);
        expect(space.copyFrom(answer, 1)[0]).toBe(VIRTIO_BLK_S_OK);
        queue.ring.enable();
      };
      for (let round = 0; round < ROUNDS / 2; round++) {
        const sector = roll(64);
        const bytes = Uint8Array.from({ length: SECTOR }, () => roll(256));
        space.copyTo(data, bytes);
        await ask(VIRTIO_BLK_T_OUT, sector);
        space.copyTo(data, new Uint8Array(SECTOR));
        await ask(VIRTIO_BLK_T_IN, sector);
        expect(Buffer.compare(space.copyFrom(data, SECTOR), bytes)).toBe(0);
      }
    });

    it("a console is restored a hundred times, and not a byte is lost or doubled in either direction", async () => {
      const terminal = new Terminal();
      let said = "";
      terminal.onData = (bytes) => {
        said += Buffer.from(bytes).toString("latin1");
      };
      const machine = await machineOf(
        transport,
        new VirtioConsole({ name: "console", ports: [{ terminal }] }),
      );
      // without the feature of several ports: queues 0 and 1 are the console
      machine.bringUp(features & machine.offered);
      const [input, output] = [machine.queues.get(0)!, machine.queues.get(1)!];
      const { ram, space } = machine.guest;
      const text = ram.allocate(64, 16);
      let wanted = "";
      let typed = "";
      let heard = "";
      for (let round = 0; round < ROUNDS; round++) {
        const words = `guest ${round}, `;
        space.copyTo(text, Buffer.from(words, "latin1"));
        output.chains.setChain(0, [{ gpa: text, length: words.length }], []);
        if (output.ring.add(output.chains, 1)) machine.door.kick(1);
        wanted += words;
        machine.offer(input, 1);
        const keys = `host ${round}, `;
        expect(terminal.tryWrite(Buffer.from(keys, "latin1"))).toBe(keys.length);
        typed += keys;
        if (round % 2 === 0) machine.scheduler.run();
        await rewind(machine);
        await settle(machine);
        expect(machine.reap(output)).toHaveLength(1);
        for (const { length } of machine.reap(input))
          heard += Buffer.from(space.copyFrom(input.buffers, length)).toString("latin1");
        input.ring.enable();
        output.ring.enable();
      }
      expect(said).toBe(wanted);
      expect(heard).toBe(typed);
    });
  });

  it("a state of another device, and one that was tampered with, leave the device as it was, or as after a reset", async () => {
    const machine = await machineOf(transport, virtioEntropy());
    machine.bringUp(VERSION_1);
    const state = await rewind(machine);
    const disk = await machineOf(
      transport,
      new VirtioBlk({ name: "disk", backend: new MemoryBackend(SECTOR) }),
    );
    disk.bringUp(VERSION_1);
    await expect(restoreState([partOf(disk)], state)).rejects.toThrow(StateError);
    expect(disk.door.status()).toBe(machine.door.status());
    const spoilt = state.slice();
    spoilt[spoilt.length >> 1]! ^= 1;
    await expect(restoreState([partOf(machine)], spoilt)).rejects.toThrow(StateError);
    machine.exercise();
  });
});
