/** Debian's SeaBIOS boots from a virtio disk of this package, and serves INT 13h from it: no kernel is given to v86. */
import { createRequire } from "node:module";
import { V86 } from "v86";
import { MemoryBackend } from "vbus/devices/vblk";
import { virtioBlk } from "vbus/devices/virtio-blk";
import { attachVirtio } from "vbus/emulators/v86";
import { EventLoopScheduler } from "vbus/scheduler";
import { afterEach, describe, expect, it } from "vitest";
import { readImage, readPieces } from "../../examples/linux/pieces.js";
import { generator, seedOr } from "../engine/seed.js";
import {
  BULK_SECTOR,
  BULK_SECTORS,
  bootSector,
  DONE,
  FAILED,
  GREETING,
  RESULT_SECTOR,
  SECTOR,
  TEXT_SECTOR,
} from "./boot-sector.js";
import { until } from "./fixture.js";

const { resolve } = createRequire(import.meta.url);
const SIZE = 4 << 20;
const TEXT = "this is what sector 1 says\r\n";

/** What firmware may find: the disk as it is, and with less to choose from. */
const MACHINES = [
  { what: "as it is", acpi: true, rings: {} },
  {
    what: "without packed rings, indirect tables, event indexes",
    acpi: true,
    rings: { packed: false, indirect: false, eventIndex: false },
  },
  { what: "of a machine without ACPI", acpi: false, rings: {} },
];

const ends: (() => Promise<void> | void)[] = [];
afterEach(async () => {
  for (const end of ends.splice(0)) await end();
});

describe("SeaBIOS boots from a virtio disk", () => {
  it.each(MACHINES)("$what", async ({ acpi, rings }) => {
    const errors: unknown[] = [];
    const onError = (error: unknown): void => {
      errors.push(error);
    };
    const seed = seedOr(13);
    const random = generator(seed);
    const content = new MemoryBackend(SIZE);
    content.bytes.set(bootSector());
    content.bytes.set(Buffer.from(`${TEXT}\0`, "latin1"), TEXT_SECTOR * SECTOR);
    const bulk = content.bytes.subarray(BULK_SECTOR * SECTOR, (BULK_SECTOR + BULK_SECTORS) * SECTOR);
    bulk.forEach((_, i) => (bulk[i] = random()));
    const before = content.bytes.slice();

    const pieces = readPieces();
    const emulator = new V86({
      wasm_path: resolve("v86/build/v86.wasm"),
      memory_size: 32 << 20,
      vga_memory_size: 2 << 20,
      bios: { buffer: await readImage(pieces.bios) },
      acpi,
      autostart: false,
      disable_keyboard: true,
      disable_mouse: true,
      disable_speaker: true,
    });
    let said = "";
    emulator.add_listener("serial0-output-byte", (byte) => (said += String.fromCharCode(byte)));
    const disk = virtioBlk({ name: "boot", backend: content, onError });
    const scheduler = new EventLoopScheduler(onError);
    const host = await attachVirtio(emulator, { device: disk, slot: 0x13, rings, scheduler, onError });
    ends.push(async () => {
      await emulator.stop();
      await emulator.destroy();
      host.close();
      await disk.close();
    });
    await emulator.run();
    await until("the boot sector's last words", () => said.endsWith(DONE) || said.endsWith(FAILED));

    expect(said, "on COM1").toBe(`${GREETING}${TEXT}${DONE}`);
    let sum = 0;
    for (let i = 0; i < bulk.length; i += 2) sum += bulk[i]! | (bulk[i + 1]! << 8);
    const after = before.slice(); // but for one sector
    after.copyWithin(RESULT_SECTOR * SECTOR, TEXT_SECTOR * SECTOR, (TEXT_SECTOR + 1) * SECTOR);
    new DataView(after.buffer).setUint16(RESULT_SECTOR * SECTOR, sum & 0xffff, true);
    expect(Buffer.compare(content.bytes, after), `the disk (VBUS_SEED=${seed})`).toBe(0);
    expect(disk.statistics).toMatchObject({ failed: 0, unsupported: 0, cancelled: 0, outstanding: 0 });
    expect(disk.statistics.operations).toMatchObject({ write: 1 });
    expect(host.counters()).toMatchObject({ starts: 1, refusals: 0, needsReset: 0, ignoredWrites: 0 });
    expect(errors).toEqual([]);
  });
});
