/**
 * Debian's kernel with its root file system, ext4, on a disk of this package, and a shell on a console: both virtio, with the
 * kernel's drivers, and both on the bus, with ours.
 */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { MemoryBackend } from "vbus/devices/vblk";
import { Terminal } from "vbus/devices/vconsole";
import { virtioBlk } from "vbus/devices/virtio-blk";
import { virtioConsole } from "vbus/devices/virtio-console";
import { attachVbus, attachVirtio, type V86Emulator } from "vbus/emulators/v86";
import { EventLoopScheduler } from "vbus/scheduler";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Console } from "../../examples/linux/console.js";
import { consoleOf, disk } from "../../examples/linux/disks.js";
import { Machine } from "../../examples/linux/machine.js";
import { readPieces } from "../../examples/linux/pieces.js";
import { tell } from "./fixture.js";
import type { DiskCounts } from "./disks.js";
import {
  checkFileSystem,
  readFrom,
  rootFileSystem,
  rootInitrd,
  VBUS_ROOT,
  VIRTIO_ROOT,
  type RootRecipe,
} from "./root-disk.js";

const SIZE = 32 << 20;
const LINES = 4000;
const COPIES = 100;
/** Ends what hangs; nothing is judged by it. */
const SHELL_MS = 240_000;

/** What is attached, seen from outside. */
interface Attached {
  counts: () => Pick<DiskCounts, "failed" | "cancelled" | "outstanding" | "operations">;
  close: () => void | Promise<void>;
}

interface Setup {
  what: string;
  recipe: RootRecipe;
  attach: (
    emulator: V86Emulator,
    parts: { content: MemoryBackend; screen: Terminal; scheduler: EventLoopScheduler; errors: unknown[] },
  ) => Promise<Attached>;
}

const SETUPS: Setup[] = [
  {
    what: "a virtio disk",
    recipe: VIRTIO_ROOT,
    attach: async (emulator, { content, screen, scheduler, errors }) => {
      const onError = (error: unknown): void => void errors.push(error);
      const root = virtioBlk({ name: "root", backend: content, onError });
      const device = virtioConsole({ name: "console", ports: [{ terminal: screen }], onError });
      const hosts = await Promise.all([
        attachVirtio(emulator, { device: root, slot: 0x13, scheduler, onError }),
        attachVirtio(emulator, { device, slot: 0x14, scheduler, onError }),
      ]);
      return {
        counts: () => root.statistics,
        close: async () => {
          for (const host of hosts) host.close();
          device.close();
          await root.close();
        },
      };
    },
  },
  {
    what: "a vblk disk",
    recipe: VBUS_ROOT,
    attach: async (emulator, { content, screen, scheduler, errors }) => {
      const onError = (error: unknown): void => void errors.push(error);
      const devices = [disk("root", content), consoleOf("console0", screen)];
      const host = await attachVbus(emulator, { devices, scheduler, onError });
      host.vbus!.on("error", onError);
      return {
        counts: () => JSON.parse(host.vbus!.read("devices/root/statistics")) as DiskCounts,
        close: () => {
          host.close();
        },
      };
    },
  },
];

describe.each(SETUPS)("a Linux guest whose root file system is $what", ({ recipe, attach }) => {
  let folder: string;
  let content: MemoryBackend;
  let machine: Machine;
  let attached: Attached;
  const errors: unknown[] = [];
  const screen = new Terminal();
  const shell = new Console({ send: (text) => void screen.write(Buffer.from(text)) });
  screen.onData = (bytes) => {
    for (const byte of bytes) shell.receive(byte);
  };

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "vbus-root-"));
    const pieces = readPieces();
    const initrd = join(folder, "initrd");
    await writeFile(initrd, await rootInitrd(pieces, recipe));
    content = new MemoryBackend(SIZE);
    content.bytes.set(await rootFileSystem(pieces, folder, SIZE));
    const scheduler = new EventLoopScheduler((error) => errors.push(error));
    const answering = shell.start(SHELL_MS); // from now on: it asks for the cursor's position behind its first prompt
    const starting = Machine.start({
      pieces: { ...pieces, initrd },
      state: "ignore",
      progress: tell,
      prepare: async (emulator) => {
        attached = await attach(emulator, { content, screen, scheduler, errors });
      },
    });
    [machine] = await Promise.all([starting, answering]);
  });

  afterAll(async () => {
    shell.close();
    await attached.close();
    await machine.close();
    await rm(folder, { recursive: true, force: true });
  });

  it("has it as its root, and its shell on the console", async () => {
    expect(await shell.check("tty")).toBe("/dev/hvc0\n");
    expect(await shell.check("cat /proc/mounts")).toMatch(/^\/dev\/(root|vda|vblk0) \/ ext4 rw/m);
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
    const { failed, cancelled, outstanding, operations } = attached.counts();
    expect({ failed, cancelled, outstanding }).toEqual({ failed: 0, cancelled: 0, outstanding: 0 });
    expect(operations.flush, "a journal flushes").toBeGreaterThan(0);
    expect(errors).toEqual([]);
  });
});
