import { afterEach, describe, expect, it } from "vitest";
import { virtioEntropy, type VirtioEntropyOptions } from "vbus/devices/virtio-rng";
import { EVENT_IDX, INDIRECT_DESC, RING_PACKED, TRANSPORTS, VERSION_1, VirtioMachine } from "./machine.js";

const machines: VirtioMachine[] = [];

async function machineWith(
  transport: (typeof TRANSPORTS)[number],
  options: VirtioEntropyOptions,
  device = virtioEntropy(options),
): Promise<{ machine: VirtioMachine; device: typeof device }> {
  const machine = await VirtioMachine.create(transport, device);
  machines.push(machine);
  return { machine, device };
}

/** A source that counts. */
function counting(): (into: Uint8Array) => void {
  let next = 0;
  return (into) => into.forEach((_, i) => (into[i] = next++));
}

afterEach(() => {
  for (const machine of machines.splice(0)) {
    machine.close();
    expect(machine.memory.arena.available).toBe(machine.free);
    expect(machine.errors).toEqual([]);
  }
});

describe.each(TRANSPORTS)("an entropy device behind %s registers", (transport) => {
  it.each([
    ["split rings", VERSION_1],
    ["packed rings with everything", VERSION_1 | RING_PACKED | EVENT_IDX | INDIRECT_DESC],
  ])("fills every buffer that the driver offers, in order: %s", async (_what, features) => {
    const { machine, device } = await machineWith(transport, { source: counting() });
    machine.bringUp(features);
    const queue = machine.queues.get(0)!;
    for (let round = 0; round < 40; round++) {
      const n = 1 + (round % 17);
      machine.offer(queue, n);
      machine.scheduler.run();
      expect(machine.reap(queue)).toEqual(
        Array.from({ length: n }, (_, cookie) => ({ cookie, length: queue.bufferSize })),
      );
      const bytes = machine.guest.space.copyFrom(queue.buffers, n * queue.bufferSize);
      expect([...bytes.slice(1)]).toEqual([...bytes.slice(0, -1)].map((byte) => (byte + 1) & 0xff));
      queue.ring.enable();
    }
    const { requests, bytes, cut } = device.counters();
    expect([bytes, cut]).toEqual([requests * queue.bufferSize, 0]);
    expect(machine.raised).toBeGreaterThan(0);
  });

  it("answers what was offered before DRIVER_OK, without a kick", async () => {
    const { machine } = await machineWith(transport, { source: counting() });
    machine.negotiate();
    const queue = machine.makeQueue(0);
    machine.offer(queue, 3, 0, "never");
    machine.driverOk();
    machine.scheduler.run();
    expect(machine.reap(queue)).toHaveLength(3);
  });

  it("gives a request no more than it may have, and something in any case", async () => {
    const { machine, device } = await machineWith(transport, { source: counting(), requestMax: 10 });
    machine.bringUp(VERSION_1);
    const queue = machine.queues.get(0)!;
    queue.chains.setChain(
      0,
      [],
      [
        { gpa: queue.buffers, length: 4 },
        { gpa: queue.buffers + 100, length: 4 },
        { gpa: queue.buffers + 200, length: 40 },
      ],
    );
    machine.guest.space.view(queue.buffers, 256).fill(0xee);
    if (queue.ring.add(queue.chains, 1)) machine.door.kick(0);
    machine.scheduler.run();
    expect(machine.reap(queue)).toEqual([{ cookie: expect.any(Number) as number, length: 10 }]);
    const at = (offset: number): number[] => [...machine.guest.space.copyFrom(queue.buffers + offset, 5)];
    expect([at(0), at(100), at(200)]).toEqual([
      [0, 1, 2, 3, 0xee],
      [4, 5, 6, 7, 0xee],
      [8, 9, 0xee, 0xee, 0xee],
    ]);
    expect(device.counters()).toEqual({ requests: 1, bytes: 10, cut: 1 });
  });

  it("gives nothing to a request that has no room, and never writes where it may only read", async () => {
    const { machine } = await machineWith(transport, { source: counting() });
    machine.bringUp(VERSION_1);
    const queue = machine.queues.get(0)!;
    machine.guest.space.view(queue.buffers, 64).fill(0xee);
    queue.chains.setChain(0, [{ gpa: queue.buffers, length: 8 }], []);
    queue.chains.setChain(1, [{ gpa: queue.buffers, length: 8 }], [{ gpa: queue.buffers + 32, length: 8 }]);
    if (queue.ring.add(queue.chains, 2)) machine.door.kick(0);
    machine.scheduler.run();
    expect(machine.reap(queue).map(({ length }) => length)).toEqual([0, 8]);
    expect([...machine.guest.space.copyFrom(queue.buffers, 8)]).toEqual(Array(8).fill(0xee));
  });

  it("serves one guest at a time: another one's device needs a reset", async () => {
    const { machine, device } = await machineWith(transport, {});
    const { machine: second } = await machineWith(transport, {}, device);
    machine.bringUp();
    second.negotiate();
    second.makeQueue(0);
    second.driverOk();
    expect(second.door.status() & 0x40).toBe(0x40);
    expect(second.errors.splice(0)).toMatchObject([{ code: "EBUSY" }]);
    machine.door.writeStatus(0);
    second.bringUp();
    const queue = second.queues.get(0)!;
    second.offer(queue, 1);
    second.scheduler.run();
    expect(second.reap(queue)).toHaveLength(1);
  });

  it("needs a reset when its source fails, or its queue breaks, and works after it", async () => {
    let fails = true;
    const { machine } = await machineWith(transport, {
      source: (into) => {
        if (fails) throw new Error("the lava lamp is cold");
        into.fill(1);
      },
    });
    machine.bringUp(VERSION_1);
    machine.offer(machine.queues.get(0)!, 1);
    machine.scheduler.run();
    expect(machine.door.status() & 0x40).toBe(0x40);
    expect(machine.errors.splice(0)).toHaveLength(1);
    fails = false;
    machine.bringUp(VERSION_1);
    const { space } = machine.guest;
    const driver = machine.device.queue(0)!.address("driver", false);
    space.copyTo(driver + 2, Uint8Array.of(0xff, 0xff)); // 65535 chains at once
    machine.door.kick(0);
    machine.scheduler.run();
    expect(machine.door.status() & 0x40).toBe(0x40);
    expect(machine.errors.splice(0)).toMatchObject([{ code: "EPROTO" }]);
    machine.bringUp();
    machine.exercise();
  });

  it("lets go of everything when its own source has it reset", async () => {
    let machine: VirtioMachine | null = null;
    ({ machine } = await machineWith(transport, {
      source: () => machine?.door.writeStatus(0),
    }));
    machine.bringUp();
    machine.offer(machine.queues.get(0)!, 5);
    machine.scheduler.run();
    expect(machine.door.status()).toBe(0);
    expect(machine.memory.arena.available).toBe(machine.free);
  });
});

it("an entropy device gives numbers that nobody can foresee, by itself", async () => {
  const { machine } = await machineWith("pci", {});
  machine.bringUp();
  const queue = machine.queues.get(0)!;
  machine.offer(queue, 4);
  machine.scheduler.run();
  machine.reap(queue);
  const seen = new Set(machine.guest.space.copyFrom(queue.buffers, 256));
  expect(seen.size).toBeGreaterThan(100); // of 256 bytes; 162 are expected
});

it("an entropy device refuses requests that cannot be", () => {
  for (const requestMax of [0, -1, 1.5, 65537])
    expect(() => virtioEntropy({ requestMax })).toThrow(/1 to 65536/);
});
