/**
 * A stock guest boots from a virtio disk, the whole way: SeaBIOS, GRUB, Debian's kernel and an initramfs, all read from the disk by
 * their own drivers; its root file system is there, too, and its shell is on a virtio console. v86 is given nothing but a BIOS.
 */
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { MemoryBackend } from "vbus/devices/vblk";
import { Terminal } from "vbus/devices/vconsole";
import { virtioBlk } from "vbus/devices/virtio-blk";
import { virtioConsole } from "vbus/devices/virtio-console";
import { attachVirtio, type V86VirtioHost } from "vbus/emulators/v86";
import { EventLoopScheduler } from "vbus/scheduler";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Console } from "../../examples/linux/console.js";
import { COMMAND_LINE, emulatorOptions, startGuest, stopGuest } from "../../examples/linux/guest.js";
import { readImage, readPieces } from "../../examples/linux/pieces.js";
import { allowOptimising, forbidOptimising } from "../../examples/linux/tiers.js";
import { GRUB_SAYS, grubDisk, KERNEL_FILE, savePartition } from "./grub-disk.js";
import { checkFileSystem, readFrom } from "./root-disk.js";

const { resolve } = createRequire(import.meta.url);
const SIZE = 32 << 20;
const LINES = 10_000;
/** Ends what hangs; nothing is judged by it. */
const SHELL_MS = 240_000;

describe("a stock guest whose disk and console are virtio devices of this package", () => {
  const errors: unknown[] = [];
  const onError = (error: unknown): void => void errors.push(error);
  const screen = new Terminal();
  const shell = new Console({ send: (text) => void screen.write(Buffer.from(text)) });
  screen.onData = (bytes) => {
    for (const byte of bytes) shell.receive(byte);
  };
  const pieces = readPieces();
  const consoles = virtioConsole({ name: "console", ports: [{ terminal: screen }], onError });
  let folder: string;
  let content: MemoryBackend;
  let disk: ReturnType<typeof virtioBlk>;
  let hosts: V86VirtioHost[] = [];
  let guest: Awaited<ReturnType<typeof startGuest>>;
  let said = "";

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "vbus-grub-"));
    content = new MemoryBackend(await grubDisk(pieces, folder, { size: SIZE, commandLine: COMMAND_LINE }));
    disk = virtioBlk({ name: "boot", backend: content, onError });
    const core = await WebAssembly.compile(await readFile(resolve("v86/build/v86.wasm")));
    const options = emulatorOptions({ core, bios: await readImage(pieces.bios), from: null }, {});
    const answering = shell.start(SHELL_MS); // from now on: it asks for the cursor's position behind its first prompt
    const starting = startGuest(options, {
      prepare: async (emulator) => {
        emulator.add_listener("serial0-output-byte", (byte) => (said += String.fromCharCode(byte)));
        const scheduler = new EventLoopScheduler(onError);
        hosts = await Promise.all([
          attachVirtio(emulator, { device: disk, slot: 0x13, scheduler, onError }),
          attachVirtio(emulator, { device: consoles, slot: 0x14, scheduler, onError }),
        ]);
      },
      running: forbidOptimising,
    });
    [guest] = await Promise.all([starting, answering]);
  });

  afterAll(async () => {
    shell.close();
    await stopGuest(guest.emulator);
    allowOptimising();
    for (const host of hosts) host.close();
    consoles.close();
    await disk.close();
    await rm(folder, { recursive: true, force: true });
  });

  it("is started by GRUB, which has read its kernel from the disk", async () => {
    expect(said, "on COM1").toContain(GRUB_SAYS);
    expect(await shell.check("cat /proc/cmdline")).toMatch(`BOOT_IMAGE=${KERNEL_FILE} `);
  });

  it("has its root on the disk, and its shell on the console", async () => {
    expect(await shell.check("tty")).toBe("/dev/hvc0\n");
    expect(await shell.check("cat /proc/mounts")).toMatch(/^\/dev\/(root|vda1) \/ ext4 rw/m);
    expect(await shell.check("cat /proc/1/comm")).toBe("sh\n");
  });

  it("works on it, and leaves it clean, with what was written", async () => {
    await shell.check(`seq 1 ${LINES} >/work/numbers && sync && echo 3 >/proc/sys/vm/drop_caches`);
    expect(await shell.check("tail -n 1 /work/numbers"), "read from the disk").toBe(`${LINES}\n`);
    await shell.check("mount -o remount,ro /");
    const image = join(folder, "after");
    await savePartition(content.bytes, image);
    await checkFileSystem(image);
    const numbers = Array.from({ length: LINES }, (_, n) => `${n + 1}\n`).join("");
    expect((await readFrom(image, "/work/numbers", folder)).toString("latin1") === numbers).toBe(true);
    const { failed, unsupported, cancelled, outstanding, operations } = disk.statistics;
    expect({ failed, unsupported, cancelled, outstanding }).toEqual({
      failed: 0,
      unsupported: 0,
      cancelled: 0,
      outstanding: 0,
    });
    expect(operations.flush, "a journal flushes").toBeGreaterThan(0);
    // SeaBIOS starts each function once, the kernel again; GRUB works through the BIOS
    for (const host of hosts) expect(host.counters()).toMatchObject({ refusals: 0, needsReset: 0 });
    expect(errors).toEqual([]);
  });
});
