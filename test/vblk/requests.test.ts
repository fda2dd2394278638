import { MemoryBackend } from "vbus/devices/vblk";
import { VbusError } from "vbus/engine";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { ControlledBackend } from "./controlled.js";
import { codeOf, DiskMachine, expectBytes, pattern, settle, type DiskGuest } from "./machine.js";

const SECTORS = 4096;

describe("a disk in memory", () => {
  let backend: MemoryBackend;
  let machine: DiskMachine;
  let guest: DiskGuest;

  beforeEach(async () => {
    backend = new MemoryBackend(SECTORS * 512);
    machine = new DiskMachine(backend, { serial: "SN-0001" });
    guest = await machine.addGuest();
  });
  afterEach(() => machine.close());

  it("tells what it is", async () => {
    const { disk } = guest;
    expect(disk).toMatchObject({
      sectorSize: 512,
      capacity: SECTORS,
      size: SECTORS * 512,
      readOnly: false,
      canDiscard: true,
      canWriteZeroes: true,
      queueDepth: 64,
      maxRequest: 1 << 17,
      pending: 0,
    });
    expect(await disk.id()).toBe("SN-0001");
    machine.set("serial", "exactly-20-characters".slice(0, 20));
    expect(await disk.id()).toBe("exactly-20-character");
    machine.set("serial", "");
    expect(await disk.id()).toBe("");
  });

  it.each([512, 4096, 512 * 255, 1 << 17, (1 << 17) + 512, 1 << 20, 1_500_160])(
    "gives back %i bytes as they were written, and touches nothing around them",
    async (length) => {
      const before = pattern(backend.size, 9);
      backend.bytes.set(before);
      const data = pattern(length, length);
      await guest.disk.write(7, data);
      expectBytes(await guest.disk.read(7, length), data);
      const into = new Uint8Array(length);
      await guest.disk.readInto(7, into);
      expectBytes(into, data);
      before.set(data, 7 * 512);
      expectBytes(backend.bytes, before);
      expect(machine.statistics()).toMatchObject({ bytesWritten: length, bytesRead: 2 * length, failed: 0 });
    },
  );

  it("reads and writes memory of the guest's own, scattered over up to 16 pieces of any length", async () => {
    const { ram, space } = guest.memory;
    const gpa = ram.allocate(16384, 1);
    for (const lengths of [
      [512],
      [1, 511],
      [3, 5, 500, 4],
      Array.from({ length: 16 }, (_, i) => (i < 15 ? 33 : 1024 - 495)),
    ]) {
      const total = lengths.reduce((a, b) => a + b, 0);
      const data = pattern(total, total);
      let at = gpa;
      let from = 0;
      const pieces = lengths.map((length) => {
        space.copyTo(at, data.subarray(from, from + length));
        from += length;
        const piece = { gpa: at, length };
        at += length + 9;
        return piece;
      });
      await guest.disk.writePieces(3, pieces, { fua: true });
      expectBytes(await guest.disk.read(3, total), data);
      for (const piece of pieces) space.view(piece.gpa, piece.length).fill(0);
      await guest.disk.readPieces(3, pieces.toReversed());
      const gathered = new Uint8Array(total);
      let to = 0;
      for (const piece of pieces.toReversed()) {
        gathered.set(space.view(piece.gpa, piece.length), to);
        to += piece.length;
      }
      expectBytes(gathered, data);
    }
    const tooMany = Array.from({ length: 17 }, () => ({ gpa, length: 512 }));
    expect(await codeOf(guest.disk.readPieces(0, tooMany))).toBe("EINVAL");
    expect(await codeOf(guest.disk.readPieces(0, []))).toBe("EINVAL");
    expect(await codeOf(guest.disk.readPieces(0, [{ gpa, length: 100 }]))).toBe("EINVAL");
    expect(await codeOf(guest.disk.readPieces(0, [{ gpa: 2 ** 40, length: 512 }]))).toBe("EFAULT");
    expect(await codeOf(guest.disk.readPieces(0, [{ gpa, length: (1 << 20) + 512 }]))).toBe("EINVAL");
    ram.free(gpa);
  });

  it("zeroes and discards ranges, also longer ones than a request takes", async () => {
    backend.bytes.fill(0xaa);
    await guest.disk.writeZeroes(2, 3 * 512, { fua: true });
    await guest.disk.discard(100, 512);
    const expected = new Uint8Array(backend.size).fill(0xaa);
    expected.fill(0, 2 * 512, 5 * 512);
    expected.fill(0, 100 * 512, 101 * 512);
    expectBytes(backend.bytes, expected);
    await guest.disk.flush();
    expect(machine.statistics().operations).toMatchObject({ writeZeroes: 1, discard: 1, flush: 1 });
  });

  it("cuts what is longer than a request may be", async () => {
    const large = new MemoryBackend((40 << 20) + 512);
    const other = new DiskMachine(large);
    const { disk } = await other.addGuest();
    large.bytes.fill(1);
    await disk.writeZeroes(1, 40 << 20);
    expect(large.bytes.findIndex((byte) => byte === 0)).toBe(512);
    expect(large.bytes.indexOf(1, 512)).toBe(-1);
    expect(other.statistics().operations.writeZeroes).toBe(3);
    await other.close();
  });

  it("refuses what lies beyond its end with ENOSPC, whatever the operation, and does nothing", async () => {
    const { disk } = guest;
    const last = SECTORS - 1;
    await disk.write(last, pattern(512));
    for (const sector of [last, SECTORS, SECTORS + 1, 2 ** 31, 2 ** 32, 2 ** 44, Number.MAX_SAFE_INTEGER]) {
      for (const attempt of [
        disk.read(sector, 1024),
        disk.write(sector, new Uint8Array(1024)),
        disk.discard(sector, 1024),
        disk.writeZeroes(sector, 1024),
      ])
        expect(await codeOf(attempt)).toBe("ENOSPC");
    }
    expectBytes(await disk.read(last, 512), pattern(512));
    expect(machine.statistics()).toMatchObject({ failed: 28, errors: { ENOSPC: 28 }, completed: 2 });
  });

  it("refuses lengths and positions that are none, before anything is sent", async () => {
    const { disk } = guest;
    for (const length of [1, 511, 513, -512, 0.5, NaN, Infinity]) {
      expect(await codeOf(disk.read(0, length))).toBe("EINVAL");
      expect(await codeOf(disk.discard(0, length))).toBe("EINVAL");
    }
    for (const sector of [-1, 0.5, NaN, 2 ** 53])
      expect(await codeOf(disk.write(sector, new Uint8Array(512)))).toBe("EINVAL");
    expect(await disk.read(0, 0)).toHaveLength(0);
    await disk.write(0, new Uint8Array(0));
    expect(machine.statistics().requests).toBe(0);
  });

  it("can only be read when it is read-only, and says so", async () => {
    await guest.disk.write(0, pattern(512));
    await guest.bus.close();
    machine.set("read_only", "1");
    const { disk } = await machine.addGuest();
    expect(disk).toMatchObject({ readOnly: true, canDiscard: false, canWriteZeroes: false });
    expect(await codeOf(disk.write(0, new Uint8Array(512)))).toBe("EROFS");
    expect(await codeOf(disk.writeZeroes(0, 512))).toBe("EROFS");
    expect(await codeOf(disk.discard(0, 512))).toBe("EOPNOTSUPP");
    await disk.flush();
    expectBytes(await disk.read(0, 512), pattern(512));
  });

  it("takes any number of requests at once: what has no tag yet waits in order", async () => {
    const { disk } = guest;
    const writes = Array.from({ length: 500 }, (_, i) => disk.write(i, pattern(512, i)));
    await Promise.all(writes);
    for (let i = 0; i < 500; i++)
      expectBytes(backend.bytes.subarray(i * 512, (i + 1) * 512), pattern(512, i));
    const statistics = disk.statistics();
    expect(statistics).toMatchObject({ requests: 500, completed: 500, failed: 0 });
    expect(statistics.waits).toBeGreaterThan(0);
    expect(statistics.requestQueue.violations).toEqual({});
  });

  it("signals once for many completions", async () => {
    await Promise.all(Array.from({ length: 64 }, (_, i) => guest.disk.read(i, 512)));
    const { sent } = guest.disk.statistics().requestQueue;
    expect(sent).toBeLessThan(8);
  });
});

describe("a guest with little memory", () => {
  it("waits for memory of requests under way, and rejects only what finds none when nothing is", async () => {
    const machine = new DiskMachine(new MemoryBackend(1 << 20));
    const { disk, memory } = await machine.addGuest({ maxRequest: 1 << 15 }, { size: 1 << 17 });
    const data = pattern(1 << 20, 3);
    await disk.write(0, data);
    expectBytes(await disk.read(0, 1 << 20), data);
    const rest = memory.ram.allocate(memory.ram.available - 8192);
    await disk.read(0, 4096);
    expect(await codeOf(disk.read(0, 1 << 15))).toBe("ENOMEM");
    await disk.read(0, 4096);
    memory.ram.free(rest);
    await disk.read(0, 1 << 15);
    await machine.close();
  });

  it("is told so at the probe when rings and records do not fit, and has its memory back", async () => {
    const machine = new DiskMachine(new MemoryBackend(512), { queue_depth: "1024" });
    const attempt = machine.addGuest({ queueDepth: 1024 }, { size: 1 << 17 });
    await expect(attempt).rejects.toMatchObject({ code: "ENOMEM" });
    // the session was closed, so the next guest may have the disk
    const { disk } = await machine.addGuest({ queueDepth: 4 }, { size: 1 << 17 });
    await disk.read(0, 512);
    await machine.close();
  });
});

describe("requests that the back end answers out of order", () => {
  let backend: ControlledBackend;
  let machine: DiskMachine;
  let guest: DiskGuest;

  beforeEach(async () => {
    backend = new ControlledBackend(64 * 512);
    machine = new DiskMachine(backend);
    guest = await machine.addGuest({ queueDepth: 16 });
  });
  afterEach(async () => {
    backend.release();
    await machine.close();
  });

  it("complete in the back end's order", async () => {
    const order: number[] = [];
    const reads = Array.from({ length: 8 }, async (_, i) => {
      await guest.disk.read(i, 512);
      order.push(i);
    });
    await settle();
    expect(backend.held.map(({ offset }) => offset / 512)).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
    for (const i of [5, 2, 7, 0, 6, 1, 4, 3]) {
      backend.held.find(({ offset }) => offset === i * 512)?.proceed();
      await settle();
    }
    await Promise.all(reads);
    expect(order).toEqual([5, 2, 7, 0, 6, 1, 4, 3]);
  });

  it("are never more than the queue depth, and those behind start as others end", async () => {
    const all = Array.from({ length: 40 }, (_, i) => guest.disk.write(i, pattern(512, i)));
    await settle();
    expect(backend.held).toHaveLength(16);
    expect(guest.disk.pending).toBe(40);
    backend.held[3]?.proceed();
    await settle();
    expect(backend.held).toHaveLength(16);
    backend.release();
    await Promise.all(all);
    expect(backend.peak).toBe(16);
    expect(machine.statistics()).toMatchObject({ requests: 40, completed: 40 });
  });

  it("that overlap wait for each other, those that do not go past them, reads share", async () => {
    const { disk } = guest;
    const ended: string[] = [];
    const note = (name: string, promise: Promise<unknown>): Promise<void> =>
      promise.then(() => void ended.push(name));
    const all = [
      note("write 0-3", disk.write(0, pattern(4 * 512, 1))),
      note("write 2-5", disk.write(2, pattern(4 * 512, 2))),
      note("read 5-6", disk.read(5, 1024)),
      note("read 8", disk.read(8, 512)),
      note("read 8 again", disk.read(8, 512)),
      note("flush", disk.flush()),
    ];
    await settle();
    // the read of sector 5 waits for the write that waits: nothing overtakes what it overlaps
    const begun = (): string[] => backend.held.map(({ kind, offset }) => `${kind} ${offset / 512}`);
    expect(begun()).toEqual(["write 0", "read 8", "read 8", "flush 0"]);
    backend.held[0]?.proceed();
    await settle();
    expect(begun()).toEqual(["read 8", "read 8", "flush 0", "write 2"]);
    backend.held[3]?.proceed();
    await settle();
    expect(begun()).toEqual(["read 8", "read 8", "flush 0", "read 5"]);
    backend.release();
    await Promise.all(all);
    expect(ended.slice(0, 2)).toEqual(["write 0-3", "write 2-5"]);
  });

  it("flush before they complete when they are forced", async () => {
    const { disk } = guest;
    const write = disk.write(0, pattern(512), { fua: true });
    let durable = false;
    void write.then(() => (durable = true));
    await settle();
    backend.held[0]?.proceed();
    await settle();
    expect(backend.held.map(({ kind }) => kind)).toEqual(["flush"]);
    expect(durable).toBe(false);
    backend.held[0]?.proceed();
    await write;
  });

  it("fail one by one with the error that the back end names; the disk goes on", async () => {
    const { disk } = guest;
    const failures: [Error, string][] = [
      [new VbusError("ENOSPC", "full"), "ENOSPC"],
      [Object.assign(new Error("node"), { code: "EIO" }), "EIO"],
      [Object.assign(new Error("node"), { code: "ENOMEM" }), "ENOMEM"],
      [Object.assign(new Error("node"), { code: "EBADF" }), "EIO"],
      [new Error("whatever"), "EIO"],
    ];
    for (const [error, code] of failures) {
      const read = codeOf(disk.read(0, 512));
      const write = disk.write(1, pattern(512));
      await settle();
      backend.held[0]?.fail(error);
      backend.held[0]?.proceed();
      expect(await read).toBe(code);
      await write;
    }
    expect(machine.statistics()).toMatchObject({ completed: 5, failed: 5, errors: { EIO: 3 } });
    // each failure came after a success, so each was told
    expect(machine.errors.splice(0)).toHaveLength(5);
  });

  it("fail as EIO when the back end throws instead, or rejects with nothing; a run of failures is told once", async () => {
    backend.hold = false;
    const { flush } = backend;
    backend.flush = () => {
      throw new Error("at once");
    };
    expect(await codeOf(guest.disk.flush())).toBe("EIO");
    // eslint-disable-next-line @typescript-eslint/prefer-promise-reject-errors -- what a careless back end does
    backend.flush = () => Promise.reject(undefined);
    expect(await codeOf(guest.disk.flush())).toBe("EIO");
    expect(machine.errors.splice(0)).toHaveLength(1);
    backend.flush = flush;
    await guest.disk.flush();
  });

  it("of a long transfer have all ended when it rejects", async () => {
    backend.release();
    const small = new ControlledBackend(64 * 512);
    const other = new DiskMachine(small);
    const { disk } = await other.addGuest({ maxRequest: 1024 });
    const target = new Uint8Array(8 * 1024);
    let settled = false;
    const read = codeOf(disk.readInto(0, target)).finally(() => (settled = true));
    await settle();
    expect(small.held).toHaveLength(8);
    small.held[4]?.fail(new VbusError("EIO", "a bad sector"));
    await settle();
    expect(settled).toBe(false);
    small.release();
    expect(await read).toBe("EIO");
    other.errors.length = 0;
    await other.close();
  });
});
