/** A host with disks, and its guest, in a module worker: where a browser has synchronous file handles. */
import {
  BlobBackend,
  CowOverlay,
  OpfsBackend,
  type BlockBackend,
  type SyncAccessHandle,
} from "vbus/devices/vblk";
import { serve } from "../../examples/replay/threads.js";
import { DiskMachine, pattern } from "../vblk/machine.js";
import { errorOutcome } from "./engine-probe.js";
import type { DiskOutcome, StoredDiskOutcome } from "./outcome.js";

const SIZE = 256 * 1024;
const same = (a: Uint8Array, b: Uint8Array): boolean =>
  a.length === b.length && a.every((byte, i) => byte === b[i]);

/** Writes, zeroes, flushes and reads back many pieces at a time. */
async function exercise(backend: BlockBackend, content: Uint8Array): Promise<DiskOutcome> {
  const machine = new DiskMachine(backend);
  const { disk } = await machine.addGuest();
  const model = content.slice();
  const before = same(await disk.read(0, SIZE), model);
  const writes: Promise<void>[] = [];
  for (let i = 0; i < 32; i++) {
    const data = pattern(3 * 512, i);
    const sector = i * 15 + 1;
    model.set(data, sector * 512);
    writes.push(disk.write(sector, data));
  }
  await Promise.all(writes);
  await disk.writeZeroes(100, 4096);
  model.fill(0, 100 * 512, 100 * 512 + 4096);
  await disk.flush();
  const after = same(await disk.read(0, SIZE), model);
  let refused: DiskOutcome["refused"] = null;
  try {
    await disk.read(SIZE / 512, 512);
  } catch (error) {
    refused = errorOutcome(error);
  }
  await machine.close();
  return { description: backend.description, before, after, refused };
}

await serve({
  async blob() {
    const content = pattern(SIZE, 5);
    return exercise(new CowOverlay(new BlobBackend(new Blob([content]))), content);
  },

  /** The same file twice, so that the second time shows what the first one stored. */
  async opfs(): Promise<StoredDiskOutcome> {
    const root = await navigator.storage.getDirectory();
    const file = await root.getFileHandle("disk.img", { create: true });
    // the types of the page's world do not have what only workers have
    const handles = file as unknown as { createSyncAccessHandle(): Promise<SyncAccessHandle> };
    const open = async (): Promise<OpfsBackend> => new OpfsBackend(await handles.createSyncAccessHandle());
    const first = await open();
    await first.resize(SIZE);
    const outcome = await exercise(first, new Uint8Array(SIZE));
    const stored = new Uint8Array(await (await file.getFile()).arrayBuffer());
    const again = await exercise(await open(), stored);
    await root.removeEntry("disk.img");
    return { outcome, again, size: stored.length };
  },
});
