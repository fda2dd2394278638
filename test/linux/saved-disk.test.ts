/**
 * A Linux guest with two disks in files, one by vblk and one by virtio-blk, that is saved while it writes to ext4 file systems on
 * both, and goes on in another machine with copies of the files.
 */
import { copyFile, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openFileBackend } from "vbus/devices/vblk/node-file";
import { virtioBlk } from "vbus/devices/virtio-blk";
import { attachVbus, attachVirtio, saveMachine } from "vbus/emulators/v86";
import { EventLoopScheduler } from "vbus/scheduler";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { DISK_DRIVER, disk, disksReady, loadFileSystem } from "../../examples/linux/disks.js";
import { Machine, type MachineOptions } from "../../examples/linux/machine.js";
import { readPieces } from "../../examples/linux/pieces.js";
import { adoptFunction } from "../../examples/linux/virtio-function.js";
import { tell, until } from "./fixture.js";
import { checkFileSystem, emptyFileSystem, filesIn, readFrom, replayJournal } from "./root-disk.js";

const SIZE = 8 << 20;
const SLOT = 0x13;
/** Files that are kept; older ones are removed. */
const KEPT = 8;
const NAMES = ["vblk", "virtio"] as const;

let folder: string;
let errors: unknown[];
let closers: (() => void | Promise<void>)[];

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "vbus-saved-disk-"));
  errors = [];
  closers = [];
});

afterEach(async () => {
  await closeAll();
  await rm(folder, { recursive: true, force: true });
});

async function closeAll(): Promise<void> {
  for (let close = closers.pop(); close !== undefined; close = closers.pop()) await close();
}

const imageOf = (name: string, set: string): string => join(folder, `${name}-${set}`);

/** A machine whose disks are the files of a set. */
async function start(set: string, options: Partial<MachineOptions> = {}): Promise<Machine> {
  const scheduler = new EventLoopScheduler((error) => errors.push(error));
  const onError = (error: unknown): void => {
    errors.push(error);
  };
  const [first, second] = [
    await openFileBackend(imageOf("vblk", set)),
    await openFileBackend(imageOf("virtio", set)),
  ];
  const machine = await Machine.start({
    pieces: readPieces(),
    progress: tell,
    preparedAs: `vbus-pci bridge in slot 0x10; virtio-blk in slot 0x${SLOT.toString(16)}`,
    prepare: async (emulator) => {
      const device = virtioBlk({ name: "virtio", backend: second, onError });
      const [host, pci] = await Promise.all([
        attachVbus(emulator, { scheduler, devices: [disk("vblk", first)], onError }),
        attachVirtio(emulator, { device, slot: SLOT, scheduler, onError }),
      ]);
      closers.push(
        () => device.close(),
        () => {
          pci.close();
          host.close();
        },
      );
    },
    ...options,
  });
  closers.push(() => machine.close());
  return machine;
}

/** What the guest does to the file system on each disk, for ever: "done" names the last file that was synced. */
const WORK = [
  "cd $1; n=0; while n=$((n+1)); do",
  "seq $((n*100)) $((n*100+n%50*20)) | dd of=file$n conv=fsync 2>/dev/null;",
  "echo $n | dd of=next conv=fsync 2>/dev/null; mv next done;",
  `[ $n -le ${KEPT} ] || rm file$((n-${KEPT})); [ ! -e /tmp/stop ] || break; done`,
].join(" ");

const lines = (from: number, count: number): string =>
  Array.from({ length: count }, (_, n) => `${from + n}\n`).join("");

/** How far the guest has come on a disk. */
async function progressOf(machine: Machine, name: string): Promise<number> {
  return Number((await machine.run(`cat /mnt/${name}/done`)).output);
}

/** A file system that is whole: every file up to the last one that was synced. Returns the number of that. */
async function checkFiles(image: string): Promise<number> {
  await checkFileSystem(image);
  expect(await filesIn(image, "/")).toContain("done");
  const last = Number((await readFrom(image, "/done", folder)).toString());
  expect(last).toBeGreaterThan(0);
  for (let file = Math.max(1, last - KEPT + 1); file <= last; file++) {
    const content = (await readFrom(image, `/file${file}`, folder)).toString();
    expect(content === lines(file * 100, (file % 50) * 20 + 1), `file${file} of ${image}`).toBe(true);
  }
  return last;
}

describe("a Linux guest that is saved while it writes to disks in files", () => {
  it("goes on in another machine with the files as they were, writes on, and leaves file systems without a fault", async () => {
    const empty = await emptyFileSystem(folder, SIZE);
    for (const name of NAMES) await writeFile(imageOf(name, "first"), empty);
    const machine = await start("first");
    for (const driver of ["vbus.ko", DISK_DRIVER]) await machine.check(`insmod /lib/vbus/${driver}`);
    await machine.check("insmod /lib/modules/virtio_blk.ko");
    await disksReady(machine, 1);
    const device = await adoptFunction(machine, SLOT);
    const node = (await machine.check(`ls /sys/bus/virtio/devices/${device}/block`)).trim();
    await machine.check(`[ -e /dev/${node} ] || mknod /dev/${node} b $(tr : ' ' </sys/block/${node}/dev)`);
    await loadFileSystem(machine);
    await machine.check(`printf %s '${WORK}' >/tmp/work`);
    for (const [name, from] of [
      ["vblk", "vblk0"],
      ["virtio", node],
    ] as const) {
      await machine.check(
        `mkdir -p /mnt/${name} && mount -t ext4 -o init_itable=0 /dev/${from} /mnt/${name}`,
      );
      await machine.check(`(sh /tmp/work /mnt/${name} >/dev/null 2>&1; echo >/tmp/ended-${name}) &`);
    }
    for (const name of NAMES)
      await until(`files on ${name}`, async () => (await progressOf(machine, name)) > 1);

    const state = await saveMachine(machine.emulator, {
      atStandstill: async () => {
        for (const name of NAMES) {
          await copyFile(imageOf(name, "first"), imageOf(name, "second"));
          await copyFile(imageOf(name, "first"), imageOf(name, "found"));
        }
      },
    });
    await closeAll(); // the guest that was saved had gone on with its own files

    // what was copied is what a loss of power would have left, with all that was flushed
    const saved: Record<string, number> = {};
    for (const name of NAMES) {
      await replayJournal(imageOf(name, "found"));
      saved[name] = await checkFiles(imageOf(name, "found"));
    }

    const moved = await start("second", { moved: state });
    for (const name of NAMES)
      await until(`the guest to go on with ${name}`, async () => {
        return (await progressOf(moved, name)) > saved[name]!;
      });
    await moved.check("touch /tmp/stop");
    for (const name of NAMES)
      await until(`the end of the work on ${name}`, async () => {
        return (await moved.run(`[ -e /tmp/ended-${name} ]`)).status === 0;
      });
    await moved.check(NAMES.map((name) => `umount /mnt/${name}`).join(" && "));
    const log =
      "dmesg | grep -v 'oops=panic' | grep -iE 'oops|bug:|warning:|call trace|i/o error|ext4-fs error'";
    expect((await moved.run(log)).output).toBe("");
    await closeAll();
    for (const name of NAMES) expect(await checkFiles(imageOf(name, "second"))).toBeGreaterThan(saved[name]!);
    expect(errors).toEqual([]);
  });
});
