import { VbusError } from "vbus/engine";
import type { Port } from "vbus/net";
import { VenetDriver, type VenetNic, type VenetOptions } from "vbus/drivers/venet";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { cable } from "./cable.js";
import { expectFrames, TestMachine, testFrame, type TestGuest } from "./machine.js";

let machine: TestMachine;
let guests: TestGuest[];

/** Rings first, at the start of RAM, where these tests look for them. */
const LINEAR: VenetOptions = { txRing: 16, rxRing: 16, offloads: false };

async function start(count = 2, options: VenetOptions = { txRing: 16, rxRing: 16 }): Promise<void> {
  const ports: Port[] = [];
  for (let i = 0; i < count; i += 2) ports.push(...cable());
  machine = new TestMachine((name) => ports[Number(name.slice(3))] as Port);
  guests = [];
  for (let i = 0; i < count; i++) machine.addNic(`nic${i}`, { client_mac: `02:00:00:00:00:0${i}` });
  for (let i = 0; i < count; i++) {
    const guest = await machine.addGuest(`guest${i}`, i, options);
    await guest.nic.open();
    guests.push(guest);
  }
}

const guest = (i: number): TestGuest => guests[i] as TestGuest;
const frames = (from: number, to: number, count: number): Uint8Array[] =>
  Array.from({ length: count }, (_, n) =>
    testFrame(guest(to).nic.mac, guest(from).nic.mac, 60 + (n % 1000), n),
  );

async function receive(nic: VenetNic, count: number): Promise<Uint8Array[]> {
  const received: Uint8Array[] = [];
  while (received.length < count) received.push(...(await nic.receive()));
  return received;
}

/** Registers a driver for the NIC of a guest once more. */
async function probe(of: TestGuest, id: number, options: VenetOptions = {}): Promise<VenetNic> {
  const driver = new VenetDriver(() => {}, options);
  const device = of.bus.devices.find((d) => d.id === id);
  if (device === undefined) throw new Error(`${of.name} has no device ${id}`);
  try {
    return await driver.probe(device);
  } catch (error) {
    await device.close();
    throw error;
  }
}

afterEach(async () => {
  machine.assertBalanced();
  await machine.close();
  expect(machine.errors.splice(0)).toEqual([]);
});

describe("closing a NIC", () => {
  beforeEach(() => start());

  it("rejects everybody who waits to send or to receive, and everybody who comes later", async () => {
    await guest(1).nic.stop();
    await guest(0).nic.stop();
    const sends = [guest(0).nic.send(frames(0, 1, 100)), guest(0).nic.send(frames(0, 1, 1))];
    const receives = [guest(0).nic.receive(), guest(0).nic.receive()];
    const all = Promise.allSettled([...sends, ...receives]);
    await guest(0).nic.close();
    for (const outcome of await all) {
      expect(outcome).toMatchObject({ status: "rejected", reason: { code: "ENOTCONN" } });
    }
    await expect(guest(0).nic.send(frames(0, 1, 1))).rejects.toMatchObject({ code: "ENOTCONN" });
    await expect(guest(0).nic.receive()).rejects.toMatchObject({ code: "ENOTCONN" });
    await expect(guest(0).nic.open()).rejects.toMatchObject({ code: "ENOTCONN" });
    await expect(guest(0).nic.setMtu(9000)).rejects.toMatchObject({ code: "ENOTCONN" });
    expect(() => guest(0).nic.trySend(frames(0, 1, 1))).toThrow(/ENOTCONN/);
  });

  it("twice, also at once, is harmless; so is stop()", async () => {
    const { nic } = guest(0);
    await Promise.all([nic.close(), nic.close()]);
    await nic.close();
    await nic.stop();
    expect(nic.up).toBe(false);
  });

  it("in the middle of open() leaves it closed", async () => {
    const { nic } = guest(0);
    await nic.stop();
    const opening = nic.open();
    await nic.close();
    await expect(opening).rejects.toMatchObject({ code: "ENOTCONN" });
    expect(nic.up).toBe(false);
    await machine.settle(5);
  });

  it("ends frames() and tells onLink", async () => {
    const links: boolean[] = [];
    guest(1).nic.onLink = (up) => links.push(up);
    const seen: number[] = [];
    const loop = (async () => {
      for await (const batch of guest(1).nic.frames()) seen.push(batch.length);
    })();
    await guest(0).nic.send(frames(0, 1, 5));
    await machine.settle(5);
    await guest(1).nic.close();
    await loop;
    expect(seen.reduce((sum, n) => sum + n, 0)).toBe(5);
    expect(links).toEqual([false]);
  });

  it("keeps the last statistics", async () => {
    const { nic } = guest(0);
    await nic.send(frames(0, 1, 10));
    await machine.settle(5);
    const before = nic.statistics();
    await nic.close();
    expect(nic.statistics()).toEqual(before);
  });

  it("in the middle of traffic counts what was left in the ring, and a new guest takes the NIC over", async () => {
    const sending = guest(0).nic.send(frames(0, 1, 1000));
    sending.catch(() => {});
    await receive(guest(1).nic, 50);
    await guest(0).bus.close();
    await expect(sending).rejects.toMatchObject({ code: "ENOTCONN" });
    await machine.settle(5);
    const { tx } = machine.assertBalanced()["nic0"] ?? { tx: null };
    expect(tx?.frames).toBeGreaterThanOrEqual(50);
    const successor = await machine.addGuest("successor", 0);
    await successor.nic.open();
    guests[0] = successor;
    const echo = frames(1, 0, 20);
    await guest(1).nic.send(echo);
    expectFrames(await receive(successor.nic, 20), echo);
  });

  it("twenty times gives everything back, in the guest and in the host", async () => {
    const { nic, memory, host } = guest(0);
    await guest(0).nic.send(frames(0, 1, 10));
    await receive(guest(1).nic, 10);
    await nic.close();
    let ram = 0;
    let arena = 0;
    let guestArena = 0;
    for (let cycle = 0; cycle < 20; cycle++) {
      const again = await probe(guest(0), 0, { lazyIndexes: cycle % 2 === 0, rxRing: 1 + cycle, txRing: 64 });
      await again.open();
      await again.send(frames(0, 1, 100).slice(0, 80));
      await receive(guest(1).nic, 80);
      await guest(1).nic.send(frames(1, 0, 3));
      await receive(again, 3);
      if (cycle % 3 === 0) await again.stop();
      await again.close();
      if (cycle === 0) {
        ram = memory.ram.available;
        arena = host.arena.available;
        guestArena = memory.space.arena.available;
      }
    }
    expect(memory.ram.available).toBe(ram);
    expect(host.arena.available).toBe(arena);
    expect(memory.space.arena.available).toBe(guestArena);
    expect(ram).toBe(memory.ram.size);
  });
});

describe("a guest without enough memory", () => {
  beforeEach(() => start());

  it.each([
    ["for the buffers", { rxRing: 2048 }],
    ["for buffers of that MTU", { mtu: 65000, rxRing: 100 }],
  ])("%s is told ENOMEM by the probe, which leaves nothing behind", async (_what, options) => {
    const { nic, memory, host } = guest(0);
    await nic.close();
    const before = {
      ram: memory.ram.available,
      arena: host.arena.available,
      own: memory.space.arena.available,
    };
    for (let i = 0; i < 3; i++) {
      const hold = memory.ram.allocate(memory.ram.available - (1 << 20), 64);
      await expect(probe(guest(0), 0, options)).rejects.toMatchObject({ code: "ENOMEM" });
      memory.ram.free(hold);
      expect({
        ram: memory.ram.available,
        arena: host.arena.available,
        own: memory.space.arena.available,
      }).toEqual(before);
    }
    const again = await probe(guest(0), 0);
    await again.open();
    await again.close();
    expect(memory.ram.available).toBe(before.ram);
  });

  it("for the rings fails in the probe, too", async () => {
    const { nic, memory, host } = guest(0);
    await nic.close();
    const before = { ram: memory.ram.available, arena: host.arena.available };
    for (const left of [100, 1000, 3000]) {
      const hold = memory.ram.allocate(memory.ram.available - left, 1);
      await expect(probe(guest(0), 0, { rxRing: 16, txRing: 64 })).rejects.toMatchObject({ code: "ENOMEM" });
      memory.ram.free(hold);
      expect({ ram: memory.ram.available, arena: host.arena.available }).toEqual(before);
    }
  });

  it("for a frame rejects that send and no other", async () => {
    const { nic, memory } = guest(0);
    const hold: number[] = [];
    for (let size = memory.ram.available; size >= 16;) {
      try {
        hold.push(memory.ram.allocate(size, 1));
      } catch {
        size = Math.floor(size / 2);
      }
    }
    await expect(nic.send(frames(0, 1, 3))).rejects.toMatchObject({ code: "ENOMEM" });
    expect(nic.statistics()).toMatchObject({ tx_packets: 0, tx_bytes: 0 });
    for (const gpa of hold) memory.ram.free(gpa);
    const sent = frames(0, 1, 40);
    const sending = nic.send(sent);
    expectFrames(await receive(guest(1).nic, 40), sent);
    await sending;
  });

  it.each([0, -1, 2049, 1.5, NaN, Infinity])(
    "a ring of %d descriptors is refused with a message that says why",
    async (count) => {
      await guest(0).nic.close();
      await expect(probe(guest(0), 0, { rxRing: count })).rejects.toThrow(/EINVAL: rxRing: .*1 to 2048/);
      await expect(probe(guest(0), 0, { txRing: count })).rejects.toThrow(/EINVAL: txRing: .*1 to 2048/);
      await expect(probe(guest(0), 0, { receiveBacklog: 0 })).rejects.toThrow(/EINVAL/);
      await expect(probe(guest(0), 0, { mtu: 67 })).rejects.toThrow(/EINVAL/);
    },
  );
});

describe("a guest that breaks its rings", () => {
  beforeEach(() => start(4, LINEAR));

  /** Guest-physical address of a ring of guest 2. */
  const ringOf = (queue: "rx" | "tx"): number => {
    const { ram, space } = guest(2).memory;
    const first = Math.ceil((ram.start - 8) / 64) * 64 + 8;
    const second = Math.ceil((first + 56 + 16 * 32 - 8) / 64) * 64 + 8;
    const at = queue === "rx" ? first : second;
    expect(new DataView(space.copyFrom(at, 4).buffer).getUint32(0, true)).toBe(0x47fa2fe4);
    return at;
  };

  it.each([
    ["rx", "an owner 7 everywhere", 25, 7, "owner"],
    ["tx", "an owner 7 everywhere", 25, 7, "owner"],
    ["rx", "inuse.head out of range", -20, 0xff, "index"],
  ] as const)(
    "%s with %s: reported once, the other NICs' traffic is unchanged, a reopened device works",
    async (queue, _what, offset, value, violation) => {
      const sent = frames(0, 1, 2000);
      const unaffected = Promise.all([receive(guest(1).nic, sent.length), guest(0).nic.send(sent)]);
      await guest(3).nic.send(frames(3, 2, 10));
      await receive(guest(2).nic, 10);
      const ring = ringOf(queue);
      const { space } = guest(2).memory;
      if (offset < 0) space.copyTo(ring + 36, new Uint8Array([value, value, value, value]));
      else for (let i = 0; i < 16; i++) space.copyTo(ring + 56 + i * 32 + offset, new Uint8Array([value]));
      if (queue === "rx") await guest(3).nic.send(frames(3, 2, 5));
      const [received] = await unaffected;
      expectFrames(received, sent);
      await machine.settle(250); // nobody announces anything on TX: the recheck finds it
      const { violations } = (
        JSON.parse(machine.bus.read("devices/nic2/queues")) as Record<
          string,
          { violations: Record<string, number> }
        >
      )[queue] ?? { violations: {} };
      expect(violations[violation]).toBeGreaterThan(0);
      const reports = machine.errors.splice(0);
      expect(reports).toHaveLength(1);
      expect(reports[0]).toMatchObject({ source: "devices/nic2", error: { code: "EPROTO" } });
      expect(machine.assertBalanced()["nic1"]?.rx).toMatchObject({ frames: 2000, passed: 2000, drops: {} });
      await guest(2).nic.close();
      const again = await probe(guest(2), 2, { txRing: 16, rxRing: 16 });
      await again.open();
      const echo = frames(3, 2, 30);
      const [back] = await Promise.all([receive(again, 30), guest(3).nic.send(echo)]);
      expectFrames(back, echo);
      await again.send(frames(2, 3, 10));
      expectFrames(await receive(guest(3).nic, 10), frames(2, 3, 10));
      await again.close();
    },
  );

  it("link down and up over a broken ring reports nothing again", async () => {
    const ring = ringOf("tx");
    for (let i = 0; i < 16; i++) guest(2).memory.space.copyTo(ring + 56 + i * 32 + 25, new Uint8Array([7]));
    await machine.settle(250);
    await guest(2).nic.stop();
    await guest(2).nic.open();
    await machine.settle(150);
    expect(machine.errors.splice(0)).toHaveLength(1);
  });
});

describe("a host that breaks its word", () => {
  beforeEach(() => start(2, LINEAR));

  it("a returned length beyond the buffer, or another address, is counted and the frame is lost", async () => {
    await guest(1).nic.stop();
    const { ram, space } = guest(1).memory;
    const ring = Math.ceil((ram.start - 8) / 64) * 64 + 8;
    const patch = (position: number, offset: number, ...bytes: number[]): void => {
      space.copyTo(ring + 56 + position * 32 + offset, new Uint8Array(bytes));
    };
    patch(0, 16, 0xff, 0xff); // length
    patch(0, 25, 0); // north's
    patch(1, 8, 0, 0, 2); // address
    patch(1, 25, 0);
    await guest(1).nic.open();
    await machine.settle(5);
    expect(guest(1).nic.statistics()).toMatchObject({ rx_length_errors: 2, rx_packets: 0 });
    // south was not asked, so its own position is two behind: the ring is of no use any more, but nothing else is
    await guest(1).nic.close();
  });

  it("a broken RX ring of the guest ends the NIC once, and whoever waits is told", async () => {
    const { nic, memory } = guest(1);
    const errors: unknown[] = [];
    nic.onError = (error) => errors.push(error);
    const waiting = nic.receive();
    waiting.catch(() => {});
    const ring = Math.ceil((memory.ram.start - 8) / 64) * 64 + 8;
    memory.space.copyTo(ring + 56 + 25, new Uint8Array([9]));
    guest(1).nic.resumeReceive();
    await expect(waiting).rejects.toMatchObject({ code: "EPROTO" });
    await expect(nic.receive()).rejects.toMatchObject({ code: "EPROTO" });
    await expect(nic.send(frames(1, 0, 1))).rejects.toMatchObject({ code: "EPROTO" });
    expect(errors).toHaveLength(1);
    await nic.close();
    await machine.settle(5);
    machine.errors.length = 0;
  });

  it("a connection that is lost fails the NIC, and closing it gives the memory back", async () => {
    const { nic, memory, bus } = guest(0);
    const errors: unknown[] = [];
    nic.onError = (error) => errors.push(error);
    await guest(1).nic.stop();
    await nic.stop();
    const waiting = [nic.receive(), nic.send(frames(0, 1, 100))];
    const outcomes = Promise.allSettled(waiting);
    const gone = new VbusError("ENOTCONN", "the administrator pulled the plug");
    (bus.transport as unknown as { lose: (error: Error) => void }).lose(gone);
    for (const outcome of await outcomes) expect(outcome).toMatchObject({ status: "rejected", reason: gone });
    expect(errors).toEqual([gone]);
    await nic.close();
    expect(memory.ram.available).toBe(memory.ram.size);
  });
});
