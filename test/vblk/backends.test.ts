import { fc, test } from "@fast-check/vitest";
import { mkdtempSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { BlobBackend, CowOverlay, MemoryBackend, OpfsBackend, type BlockBackend } from "vbus/devices/vblk";
import { openFileBackend } from "vbus/devices/vblk/node-file";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { turns } from "../event-loop.js";
import { codeOf, DiskMachine, expectBytes, pattern } from "./machine.js";

const SIZE = 64 * 512;

/** What a browser's handle does, in an array; `quota`: most bytes that it stores at a time. */
class FakeHandle {
  bytes: Uint8Array;
  closed = 0;
  flushed = 0;
  failure: Error | null = null;
  quota = Infinity;

  constructor(content: Uint8Array) {
    this.bytes = content.slice();
  }
  read(target: Uint8Array, { at }: { at: number }): number {
    if (this.failure !== null) throw this.failure;
    const part = this.bytes.subarray(at, at + target.length);
    target.set(part);
    return part.length;
  }
  write(data: Uint8Array, { at }: { at: number }): number {
    if (this.failure !== null) throw this.failure;
    const n = Math.min(data.length, this.quota);
    this.bytes.set(data.subarray(0, n), at);
    return n;
  }
  truncate(size: number): void {
    const bytes = new Uint8Array(size);
    bytes.set(this.bytes.subarray(0, size));
    this.bytes = bytes;
  }
  getSize(): number {
    return this.bytes.length;
  }
  flush(): void {
    this.flushed++;
  }
  close(): void {
    this.closed++;
  }
}

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(path.join(os.tmpdir(), "vbus-vblk-"));
});
afterEach(() => {
  rmSync(folder, { recursive: true });
});

async function file(content: Uint8Array): Promise<BlockBackend> {
  const name = path.join(folder, "disk.img");
  writeFileSync(name, content);
  return openFileBackend(name);
}

const writable: [string, (content: Uint8Array<ArrayBuffer>) => BlockBackend | Promise<BlockBackend>][] = [
  ["memory", (content) => new MemoryBackend(content)],
  ["a file", file],
  ["a handle of the origin private file system", (content) => new OpfsBackend(new FakeHandle(content))],
  ["an overlay over memory", (content) => new CowOverlay(new MemoryBackend(content, true))],
  [
    "an overlay with the smallest clusters over a blob",
    (content) => new CowOverlay(new BlobBackend(new Blob([content])), { clusterSize: 512 }),
  ],
  [
    "an overlay over an overlay over a file",
    async (content) => new CowOverlay(new CowOverlay(await file(content)), { clusterSize: 4096 }),
  ],
];

describe.each(writable)("%s", (_name, open) => {
  it("behaves as an array of bytes does, through a disk", async () => {
    const model = pattern(SIZE, 2);
    const backend = await open(model.slice());
    const machine = new DiskMachine(backend);
    const { disk } = await machine.addGuest({ maxRequest: 4096 });
    expect(disk.size).toBe(SIZE);
    let x = 12345;
    const next = (below: number): number => (x = (x * 1103515245 + 12345) & 0x7fffffff) % below;
    for (let n = 0; n < 150; n++) {
      const sector = next(64);
      const length = Math.min(1 + next(20), 64 - sector) * 512;
      const range = model.subarray(sector * 512, sector * 512 + length);
      switch (next(5)) {
        case 0:
          await disk.writeZeroes(sector, length);
          range.fill(0);
          break;
        case 1:
          expectBytes(await disk.read(sector, length), range);
          break;
        case 2:
          await disk.flush();
          break;
        default: {
          const data = pattern(length, n);
          await disk.write(sector, data, { fua: n % 2 === 0 });
          range.set(data);
        }
      }
    }
    expectBytes(await disk.read(0, SIZE), model);
    for (const size of [SIZE / 2, SIZE]) {
      machine.set("size", String(size));
      while (disk.size !== size) await turns(1);
    }
    expectBytes(await disk.read(0, SIZE / 2), model.subarray(0, SIZE / 2));
    expectBytes(await disk.read(32, SIZE / 2), new Uint8Array(SIZE / 2));
    await machine.close();
    await backend.close(); // the device did already; twice is harmless
  });
});

describe("a file as a disk", () => {
  it("holds what was written, is flushed, closed with the device, and found again", async () => {
    const name = path.join(folder, "new.img");
    const backend = await openFileBackend(name, { create: 1 << 20 });
    expect(backend.description).toBe(`file ${name}`);
    const machine = new DiskMachine(backend);
    const { disk } = await machine.addGuest();
    const data = pattern(300 * 512, 7);
    await disk.write(100, data);
    await disk.flush();
    await disk.writeZeroes(110, 512 * 600);
    await machine.close();
    const content = readFileSync(name);
    expect(content).toHaveLength(1 << 20);
    const expected = new Uint8Array(1 << 20);
    expected.set(data.subarray(0, 10 * 512), 100 * 512);
    expectBytes(content, expected);

    const again = new DiskMachine(await openFileBackend(name, { readOnly: true }));
    const second = await again.addGuest();
    expect(second.disk.readOnly).toBe(true);
    expectBytes(await second.disk.read(100, 10 * 512), data.subarray(0, 10 * 512));
    await again.close();
    expect(statSync(name).size).toBe(1 << 20);
  });

  it("is refused when it does not fit, exists already or does not exist", async () => {
    const name = path.join(folder, "odd.img");
    writeFileSync(name, new Uint8Array(1000));
    expect(await codeOf(openFileBackend(name))).toBe("EINVAL");
    expect(await codeOf(openFileBackend(name, { create: 512 }))).toBe("EEXIST");
    expect(await codeOf(openFileBackend(path.join(folder, "none.img")))).toBe("ENOENT");
    expect(await codeOf(openFileBackend(path.join(folder, "new.img"), { create: 513 }))).toBe("EINVAL");
    expect(await codeOf(openFileBackend(path.join(folder, "new.img"), { create: 512, readOnly: true }))).toBe(
      "EINVAL",
    );
  });

  it("that somebody cuts short fails reads beyond with EIO, and nothing else", async () => {
    const backend = await file(pattern(SIZE));
    const machine = new DiskMachine(backend);
    const { disk } = await machine.addGuest();
    truncateSync(path.join(folder, "disk.img"), 1024);
    expect(await codeOf(disk.read(1, 1024))).toBe("EIO");
    expectBytes(await disk.read(0, 1024), pattern(SIZE).subarray(0, 1024));
    expect(machine.errors.splice(0)).toHaveLength(1);
    await machine.close();
  });
});

describe("a blob as a disk", () => {
  it("is read-only, also for those who ask it themselves", async () => {
    const blob = new BlobBackend(new File([pattern(1024)], "cd.iso"));
    expect(blob).toMatchObject({ readOnly: true, size: 1024, description: "blob cd.iso" });
    expect(await codeOf(blob.write())).toBe("EROFS");
    expect(await codeOf(blob.writeZeroes())).toBe("EROFS");
    expect(await codeOf(blob.read(512, new Uint8Array(1024)))).toBe("EIO");
    expect(() => new BlobBackend(new Blob([new Uint8Array(100)]))).toThrow(/EINVAL.*pad it/);
  });
});

describe("a handle of the origin private file system as a disk", () => {
  it("is flushed and closed once, tells a full quota from other failures", async () => {
    const handle = new FakeHandle(pattern(SIZE));
    const backend = new OpfsBackend(handle);
    const machine = new DiskMachine(backend);
    const { disk } = await machine.addGuest();
    await disk.write(0, new Uint8Array(512), { fua: true });
    expect(handle.flushed).toBe(1);
    handle.quota = 100;
    expect(await codeOf(disk.write(0, new Uint8Array(512)))).toBe("ENOSPC");
    handle.quota = Infinity;
    handle.failure = Object.assign(new Error("full"), { name: "QuotaExceededError" });
    expect(await codeOf(disk.write(0, new Uint8Array(512)))).toBe("ENOSPC");
    handle.failure = new Error("something else");
    expect(await codeOf(disk.read(0, 512))).toBe("EIO");
    handle.failure = null;
    handle.bytes = handle.bytes.slice(0, 512);
    expect(await codeOf(disk.read(0, 1024))).toBe("EIO");
    machine.errors.length = 0;
    await machine.close();
    await machine.backend.close();
    expect(handle.closed).toBe(1);
  });
});

describe("an overlay", () => {
  it("takes memory for what was written only, gives it back for what was zeroed, and stops at its limit", async () => {
    const overlay = new CowOverlay(new MemoryBackend(pattern(SIZE)), { clusterSize: 4096, maxBytes: 8192 });
    expect(overlay).toMatchObject({ clusters: 0, memoryUsed: 0, description: "overlay over memory" });
    await overlay.write(512, new Uint8Array(512));
    await overlay.write(1024, new Uint8Array(512));
    expect(overlay).toMatchObject({ clusters: 1, memoryUsed: 4096 + 4 });
    await overlay.write(3 * 4096, new Uint8Array(512).fill(1));
    const before = new Uint8Array(SIZE);
    await overlay.read(0, before);
    expect(await codeOf(overlay.write(2 * 4096 - 512, new Uint8Array(1024)))).toBe("ENOSPC");
    const after = new Uint8Array(SIZE);
    await overlay.read(0, after);
    expectBytes(after, before);
    await overlay.writeZeroes(0, 4096);
    expect(overlay).toMatchObject({ clusters: 2, memoryUsed: 4096 + 8 });
    await overlay.write(4096, new Uint8Array(512));
    expect(overlay.memoryUsed).toBe(8192 + 12);
    overlay.reset();
    expect(overlay).toMatchObject({ clusters: 0, memoryUsed: 0 });
    await overlay.read(0, after);
    expectBytes(after, pattern(SIZE));
  });

  it("refuses clusters that are no power of two", () => {
    for (const clusterSize of [0, 256, 1000, 513, 1 << 25, NaN])
      expect(() => new CowOverlay(new MemoryBackend(512), { clusterSize })).toThrow(/EINVAL/);
    expect(() => new CowOverlay(new MemoryBackend(512), { maxBytes: -1 })).toThrow(/EINVAL/);
  });

  it("does not ask its base for what it has", async () => {
    const base = new MemoryBackend(pattern(SIZE));
    let reads = 0;
    const { read } = base;
    base.read = (offset, target) => {
      reads++;
      return read.call(base, offset, target);
    };
    const overlay = new CowOverlay(base);
    await overlay.write(512, pattern(1024, 3));
    const target = new Uint8Array(1024);
    await overlay.read(512, target);
    expectBytes(target, pattern(1024, 3));
    expect(reads).toBe(0);
  });

  const change = fc.record({
    kind: fc.constantFrom("write", "zero", "resize" as const),
    sector: fc.integer({ min: 0, max: 63 }),
    sectors: fc.integer({ min: 1, max: 30 }),
  });
  test.prop({ changes: fc.array(change, { maxLength: 30 }), cluster: fc.constantFrom(512, 2048, 1 << 16) })(
    "leaves its base alone, and commits to it, or to a copy, what a plain disk would have",
    async ({ changes, cluster }) => {
      const base = new MemoryBackend(pattern(SIZE));
      const plain = new MemoryBackend(pattern(SIZE));
      const overlay = new CowOverlay(base, { clusterSize: cluster });
      for (const [n, { kind, sector, sectors }] of changes.entries()) {
        const offset = sector * 512;
        const length = Math.min(sectors * 512, plain.size - offset);
        if (kind === "resize") await Promise.all([overlay, plain].map((b) => b.resize((sector + 1) * 512)));
        else if (length > 0 && kind === "zero")
          await Promise.all([overlay, plain].map((b) => b.writeZeroes(offset, length)));
        else if (length > 0)
          await Promise.all([overlay, plain].map((b) => b.write(offset, pattern(length, n))));
      }
      expectBytes(base.bytes, pattern(SIZE));
      const seen = new Uint8Array(plain.size);
      await overlay.read(0, seen);
      expectBytes(seen, plain.bytes);
      const copy = new MemoryBackend(pattern(SIZE));
      if (copy.size !== overlay.size) expect(await codeOf(overlay.commit(copy))).toBe("EINVAL");
      await copy.resize(overlay.size);
      await overlay.commit(copy);
      expectBytes(copy.bytes, plain.bytes);
      if (base.size === overlay.size) {
        await overlay.commit(base);
        expectBytes(base.bytes, plain.bytes);
        expect(overlay.clusters).toBe(0);
      }
      expect(await codeOf(overlay.commit(new MemoryBackend(512, true)))).toBe("EROFS");
    },
  );
});
