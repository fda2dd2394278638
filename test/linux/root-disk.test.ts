/** Debian's kernel with its root file system, ext4, on a virtio disk of this package, and a shell on a virtio console. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { MemoryBackend } from "vbus/devices/vblk";
import { Terminal } from "vbus/devices/vconsole";
import { virtioBlk, type VirtioBlk } from "vbus/devices/virtio-blk";
import { virtioConsole, type VirtioConsole } from "vbus/devices/virtio-console";
import { attachVirtio, type V86VirtioHost } from "vbus/emulators/v86";
import { EventLoopScheduler } from "vbus/scheduler";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Console } from "../../examples/linux/console.js";
import { Machine } from "../../examples/linux/machine.js";
import { readPieces } from "../../examples/linux/pieces.js";
import { tell } from "./fixture.js";
import { checkFileSystem, readFrom, rootFileSystem, rootInitrd } from "./root-disk.js";

const SIZE = 32 << 20;
const LINES = 4000;
const COPIES = 100;
/** Ends what hangs; nothing is judged by it. */
const SHELL_MS = 240_000;

let folder: string;
let content: MemoryBackend;
let disk: VirtioBlk;
let device: VirtioConsole;
let machine: Machine;
let hosts: V86VirtioHost[] = [];
const errors: unknown[] = [];
const onError = (error: unknown): void => {
  errors.push(error);
};
const screen = new Terminal();
const shell = new Console({ send: (text) => void screen.write(Buffer.from(text)) });
screen.onData = (bytes) => {
  for (const byte of bytes) shell.receive(byte);
};

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "vbus-root-"));
  const pieces = readPieces();
  const initrd = join(folder, "initrd");
  await writeFile(initrd, await rootInitrd(pieces));
  content = new MemoryBackend(SIZE);
  content.bytes.set(await rootFileSystem(pieces, folder, SIZE));
  disk = virtioBlk({ name: "root", backend: content, onError });
  device = virtioConsole({ name: "console", ports: [{ terminal: screen }], onError });
  const scheduler = new EventLoopScheduler(onError);
  const answering = shell.start(SHELL_MS); // from now on: it asks for the cursor's position behind its first prompt
  const starting = Machine.start({
    pieces: { ...pieces, initrd },
    state: "ignore",
    progress: tell,
    prepare: async (emulator) => {
      hosts = await Promise.all([
        attachVirtio(emulator, { device: disk, slot: 0x13, scheduler, onError }),
        attachVirtio(emulator, { device, slot: 0x14, scheduler, onError }),
      ]);
    },
  });
  [machine] = await Promise.all([starting, answering]);
});

afterAll(async () => {
  shell.close();
  for (const host of hosts) host.close();
  await machine.close();
  device.close();
  await disk.close();
  await rm(folder, { recursive: true, force: true });
});

describe("a Linux guest whose root file system is a virtio disk", () => {
  it("has it as its root, and its shell on the virtio console", async () => {
    expect(await shell.check("tty")).toBe("/dev/hvc0\n");
    expect(await shell.check("cat /proc/mounts")).toMatch(/^\/dev\/(root|vda) \/ ext4 rw/m);
    expect(await shell.check("cat /proc/1/comm")).toBe("sh\n");
  });

  it("works on it", async () => {
    await shell.check(`seq 1 ${LINES} >/work/once && mkdir -p /work/a/b/c`);
    await shell.check(
      `for n in $(seq ${COPIES}); do cat /work/once; done >/work/numbers && ln /work/numbers /work/same`,
    );
    await shell.check("cp /bin/busybox /work/a/b/c/ && for n in $(seq 1 200); do echo $n >/work/a/$n; done");
    await shell.check("sync && echo 3 >/proc/sys/vm/drop_caches"); // what is read now comes from the disk
    await shell.check("cmp /bin/busybox /work/a/b/c/busybox && [ $(cat /work/a/137) = 137 ]");
    await shell.check("rm -r /work/a/b && mv /work/same /work/moved");
  });

  it("leaves it clean, with what was written", async () => {
    await shell.check("mount -o remount,ro /");
    const image = join(folder, "after");
    await writeFile(image, content.bytes);
    await checkFileSystem(image);
    const numbers = Array.from({ length: LINES }, (_, n) => `${n + 1}\n`).join("");
    expect((await readFrom(image, "/work/moved", folder)).toString("latin1") === numbers.repeat(COPIES)).toBe(
      true,
    );
    expect((await readFrom(image, "/work/a/200", folder)).toString()).toBe("200\n");
    const { failed, unsupported, cancelled, outstanding, operations } = disk.statistics;
    expect({ failed, unsupported, cancelled, outstanding }).toEqual({
      failed: 0,
      unsupported: 0,
      cancelled: 0,
      outstanding: 0,
    });
    expect(operations.flush, "a journal flushes").toBeGreaterThan(0);
    expect(errors).toEqual([]);
  });
});
