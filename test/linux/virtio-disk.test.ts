/** Debian's unmodified virtio_blk on a disk of this package: a file system is made, filled, read back. */
import { createHash } from "node:crypto";
import { MemoryBackend } from "vbus/devices/vblk";
import { virtioBlk, type VirtioBlk } from "vbus/devices/virtio-blk";
import { attachVirtio, type V86VirtioHost } from "vbus/emulators/v86";
import { EventLoopScheduler } from "vbus/scheduler";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Machine } from "../../examples/linux/machine.js";
import { readPieces } from "../../examples/linux/pieces.js";
import { generator } from "../engine/seed.js";
import { tell, until } from "./fixture.js";
import { abandonFunction, adoptFunction } from "../../examples/linux/virtio-function.js";

const SIZE = 24 << 20;
const DISKS = [
  { slot: 0x13, name: "packed", rings: {} },
  { slot: 0x14, name: "split", rings: { packed: false }, vectors: 0 },
];

let machine: Machine;
const disks = new Map<number, { disk: VirtioBlk; content: MemoryBackend; host: V86VirtioHost }>();
const errors: unknown[] = [];

beforeAll(async () => {
  const scheduler = new EventLoopScheduler((error) => errors.push(error));
  machine = await Machine.start({
    pieces: readPieces(),
    progress: tell,
    preparedAs: "virtio-blk in slots 0x13, 0x14 with default and no vectors",
    prepare: async (emulator) => {
      const attaching = DISKS.map(async ({ slot, name, rings, vectors }) => {
        const content = new MemoryBackend(SIZE);
        const disk = virtioBlk({
          name,
          backend: content,
          serial: `vbus-${name}`,
          onError: (error) => errors.push(error),
        });
        const host = await attachVirtio(emulator, {
          device: disk,
          slot,
          rings,
          scheduler,
          ...(vectors === undefined ? {} : { vectors }),
          onError: (error) => errors.push(error),
        });
        disks.set(slot, { disk, content, host });
      });
      await Promise.all(attaching); // at once: a function that comes later misses what a saved state says of it
    },
  });
  await machine.check("insmod /lib/modules/virtio_blk.ko");
});

afterAll(async () => {
  for (const { host } of disks.values()) host.close();
  await machine.close();
});

describe.each(DISKS)("a virtio disk in a Linux guest, $name rings", ({ slot, name }) => {
  let node = "";
  const there = () => {
    const found = disks.get(slot);
    if (found === undefined) throw new Error(`no disk in slot ${slot}`);
    return found;
  };

  it("is found, with its size and serial number", async () => {
    const device = await adoptFunction(machine, slot);
    node = (await machine.check(`ls /sys/bus/virtio/devices/${device}/block`)).trim();
    expect(node).toMatch(/^vd[a-z]$/);
    expect(await machine.check(`cat /sys/block/${node}/size`)).toBe(`${SIZE / 512}\n`);
    expect((await machine.check(`cat /sys/block/${node}/serial`)).trim()).toBe(`vbus-${name}`);
    expect((await machine.check(`cat /sys/block/${node}/queue/physical_block_size`)).trim()).toBe("4096");
    await machine.check(`[ -e /dev/${node} ] || mknod /dev/${node} b $(tr : ' ' </sys/block/${node}/dev)`);
  });

  it("holds what is written to it, byte for byte, and gives it back", async () => {
    const { content, disk } = there();
    const random = generator(slot);
    const bytes = Uint8Array.from({ length: 4 << 20 }, () => random() & 255);
    content.bytes.set(bytes, 1 << 20);
    const sum = createHash("md5").update(bytes).digest("hex");
    const read = await machine.check(`dd if=/dev/${node} bs=64k skip=16 count=64 2>/dev/null | md5sum`, {
      timeoutMs: 60_000,
    });
    expect(read.slice(0, 32)).toBe(sum);
    await machine.check(
      `dd if=/dev/${node} bs=64k skip=16 count=64 2>/dev/null | dd of=/dev/${node} bs=48k seek=200 conv=notrunc,fsync 2>/dev/null`,
      { timeoutMs: 60_000 },
    );
    const copy = content.bytes.subarray(200 * 48 * 1024, 200 * 48 * 1024 + bytes.length);
    expect(Buffer.compare(copy, bytes)).toBe(0);
    const { failed, unsupported, operations } = disk.statistics;
    expect({ failed, unsupported }).toEqual({ failed: 0, unsupported: 0 });
    expect(operations.flush, "fsync reaches the disk").toBeGreaterThan(0);
  });

  it("becomes larger while the guest looks", async () => {
    const { disk } = there();
    await disk.resize(SIZE + (1 << 20));
    await until(
      "the new size",
      async () => (await machine.check(`cat /sys/block/${node}/size`)) === `${(SIZE + (1 << 20)) / 512}\n`,
    );
  });

  it("is taken away and given back, with what it holds", async () => {
    await machine.check(
      `dd if=/dev/zero of=/dev/${node} bs=4k count=1 conv=notrunc 2>/dev/null; echo vbus | dd of=/dev/${node} conv=notrunc 2>/dev/null; sync`,
    );
    await abandonFunction(machine, slot);
    expect(there().disk.open).toBe(false);
    const device = await adoptFunction(machine, slot);
    node = (await machine.check(`ls /sys/bus/virtio/devices/${device}/block`)).trim();
    await machine.check(`[ -e /dev/${node} ] || mknod /dev/${node} b $(tr : ' ' </sys/block/${node}/dev)`);
    expect(await machine.check(`head -c 5 /dev/${node}`)).toBe("vbus\n");
  });

  it("nothing failed", () => {
    const { requests, completed, failed, unsupported, cancelled, outstanding } = there().disk.statistics;
    expect({ failed, unsupported, cancelled, outstanding }).toEqual({
      failed: 0,
      unsupported: 0,
      cancelled: 0,
      outstanding: 0,
    });
    expect(requests).toBe(completed);
    expect(errors).toEqual([]);
  });
});
