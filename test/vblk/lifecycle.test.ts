import { MemoryBackend } from "vbus/devices/vblk";
import { afterEach, describe, expect, it } from "vitest";
import { ControlledBackend } from "./controlled.js";
import { codeOf, DiskMachine, expectBytes, pattern, settle } from "./machine.js";
import { RawDisk } from "./raw-disk.js";

let machine: DiskMachine;
afterEach(() => machine.close());

describe("a guest that leaves while requests are under way", () => {
  it("has them all rejected; the next guest has the disk, and waits only where the old requests are", async () => {
    const backend = new ControlledBackend(64 * 512);
    machine = new DiskMachine(backend);
    const first = await machine.addGuest();
    const codes = Array.from({ length: 8 }, (_, i) => codeOf(first.disk.write(i, pattern(512, i))));
    const waiting = codeOf(first.disk.write(0, pattern(512, 99)));
    await settle();
    await first.disk.close();
    expect(new Set(await Promise.all([...codes, waiting]))).toEqual(new Set(["ENOTCONN"]));
    expect(await codeOf(first.disk.read(0, 512))).toBe("ENOTCONN");
    expect(first.disk.statistics()).toMatchObject({ requests: 9, completed: 0 });
    await first.disk.close();
    await first.bus.close();

    const second = await machine.addGuest();
    const same = second.disk.write(3, pattern(512, 50));
    const other = second.disk.write(20, pattern(512, 51));
    await settle();
    backend.held.find(({ offset }) => offset === 20 * 512)?.proceed();
    await other; // what a guest that is gone left behind holds up nobody else
    expect(backend.held).toHaveLength(8);
    backend.release();
    await same;
    expectBytes(await second.disk.read(3, 512), pattern(512, 50)); // not overtaken by the old write
    expect(machine.statistics()).toMatchObject({ cancelled: 9, outstanding: 0 });
  });

  it("leaves with a back end that never answers, and the device can be removed", async () => {
    const backend = new ControlledBackend(64 * 512);
    machine = new DiskMachine(backend);
    const { disk, bus } = await machine.addGuest();
    const read = codeOf(disk.read(0, 512));
    await settle();
    await bus.close();
    expect(await read).toBe("ENOTCONN");
    machine.bus.disconnect("disk0");
    machine.vbus.removeDevice("disk0");
    await settle();
    expect(backend.closed).toBe(0); // not under an operation's feet
    backend.release();
    await settle();
    expect(backend.closed).toBe(1);
  });
});

describe("a host that goes", () => {
  it("rejects everything with ENOTCONN and is told once", async () => {
    const backend = new ControlledBackend(64 * 512);
    machine = new DiskMachine(backend);
    const { disk, client } = await machine.addGuest({ queueDepth: 4 });
    const told: unknown[] = [];
    disk.onError = (error) => told.push((error as { code: string }).code);
    const codes = Array.from({ length: 9 }, (_, i) => codeOf(disk.read(i, 512)));
    await settle();
    machine.bus.expel(client.member);
    expect(new Set(await Promise.all(codes))).toEqual(new Set(["ENOTCONN"]));
    expect(await codeOf(disk.flush())).toBe("ENOTCONN");
    expect(told).toEqual(["ENOTCONN"]);
    backend.release();
  });

  it("a device that is unplugged is taken from its driver; what is under way rejects", async () => {
    const backend = new ControlledBackend(64 * 512);
    machine = new DiskMachine(backend);
    const { disk, bus } = await machine.addGuest();
    const read = codeOf(disk.read(0, 512));
    await settle();
    machine.bus.disconnect("disk0");
    expect(await read).toBe("ENOTCONN");
    await bus.settled();
    expect(bus.devices).toEqual([]);
    backend.release();
    // and plugged in again it is there for a driver
    machine.bus.connect("disk0");
    await settle();
    expect(bus.devices).toHaveLength(1);
  });

  it("a ring that breaks under the driver's feet ends the disk with an error, until it is probed again", async () => {
    const backend = new MemoryBackend(64 * 512);
    machine = new DiskMachine(backend);
    const { disk, memory } = await machine.addGuest();
    const told: unknown[] = [];
    disk.onError = (error) => told.push(error);
    await disk.read(0, 512);
    // the first thing in the guest's memory is the request ring: an owner that is none
    const ring = memory.space.regions[0]?.gpa as number;
    for (let i = 0; i < 64; i++) memory.space.view(ring + 8 + 56 + i * 32 + 25, 1)[0] = 9;
    const code = await codeOf(disk.read(1, 512));
    expect(["EPROTO", "ENOTCONN"]).toContain(code);
    expect(told).toHaveLength(1);
    machine.errors.length = 0;
  });
});

describe("a disk that is opened and closed over and over", () => {
  it("leaves nothing behind on either side, in memory or on the bus", async () => {
    machine = new DiskMachine(new MemoryBackend(64 * 512));
    const raw = new RawDisk(machine);
    const guest = await machine.addGuest({ queueDepth: 8 });
    const { ram, space } = guest.memory;
    await guest.bus.close();
    const free = { ram: ram.available, guest: space.arena.available, host: guest.host.arena.available };
    const arena = raw.client.memory.arena.available;
    for (let cycle = 0; cycle < 20; cycle++) {
      expect(raw.open()).toBeGreaterThan(0);
      raw.rings(8, 8);
      raw.send({ tag: 1 }, { tag: 2, op: 1, sector: 9 });
      if (cycle % 2 === 0) await settle(2);
      expect(raw.client.close(raw.handle)).toBe(0);
      raw.events();
      for (const ring of [raw.request, raw.completion]) {
        ring.queue.close();
        raw.memory.ram.free(ring.gpa);
      }
      expect(raw.client.memory.arena.available).toBe(arena);
    }
    expect({ ram: ram.available, guest: space.arena.available, host: guest.host.arena.available }).toEqual(
      free,
    );
    expect(machine.statistics()).toMatchObject({ outstanding: 0 });
  });

  it("by drivers, with requests left under way, gives all memory back each time", async () => {
    const backend = new ControlledBackend(64 * 512);
    machine = new DiskMachine(backend);
    for (let cycle = 0; cycle < 20; cycle++) {
      backend.hold = cycle % 3 === 0;
      const { disk, bus, memory, host } = await machine.addGuest({ queueDepth: 8 }, { size: 1 << 18 });
      const codes = Array.from({ length: 20 }, (_, i) => codeOf(disk.write(i, pattern(512))));
      await settle(cycle % 4);
      await bus.close();
      for (const code of await Promise.all(codes)) expect([null, "ENOTCONN"]).toContain(code);
      expect(memory.ram.available).toBe(memory.ram.size);
      expect(memory.space.arena.available).toBe(memory.space.arena.size - 256);
      expect(host.arena.available).toBe(host.arena.size - 256);
      backend.release();
      await settle();
    }
    expect(machine.statistics()).toMatchObject({ outstanding: 0 });
  });
});
