/** A disk that a machine boots from by itself: GRUB behind the master boot record, and one partition with all the rest. */
import { execFile } from "node:child_process";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { gzipSync } from "node:zlib";
import type { Pieces } from "../../examples/linux/pieces.js";
import { rootFileSystem, rootInitrd, tool, VIRTIO_ROOT, type RootRecipe } from "./root-disk.js";

const run = promisify(execFile);
const SECTOR = 512;
/** Where partitions begin today: 1 MiB. What is in front of it belongs to the boot loader. */
const FIRST_SECTOR = 2048;
const PARTITION_TABLE = 446;
const LINUX = 0x83;
const ACTIVE = 0x80;
const PARTITION = "(hd0,msdos1)";
/** All that GRUB needs here; `linux` brings what starts a kernel, `normal` what reads a configuration. */
const MODULES = ["biosdisk", "part_msdos", "ext2", "normal", "linux", "echo", "serial", "terminal"];

/** What GRUB says before it reads the kernel. */
export const GRUB_SAYS = "GRUB reads the kernel";
/** What it is started from. */
export const KERNEL_FILE = "/boot/vmlinuz";
/** Offset of the partition in bytes. */
export const PARTITION_OFFSET = FIRST_SECTOR * SECTOR;

/** The root is a partition of a virtio disk. */
const RECIPE: RootRecipe = { ...VIRTIO_ROOT, device: "/dev/vda1" };

const configuration = (commandLine: string): string => `serial --unit=0 --speed=115200
terminal_output serial
set timeout=0
menuentry "Debian" {
  echo "${GRUB_SAYS}"
  linux ${KERNEL_FILE} ${commandLine}
  initrd /boot/initrd.img
}
`;

/**
 * The content of such a disk: Debian's kernel as its package has it, an initramfs that loads the drivers, busybox.
 *
 * @param folder - for what is needed to make it
 * @param options - `size` of the partition in bytes; the kernel's command line
 */
export async function grubDisk(
  pieces: Pieces,
  folder: string,
  { size, commandLine }: { size: number; commandLine: string },
): Promise<Uint8Array> {
  const modules = tool("VBUS_GRUB_MODULES", "grub-pc-bin");
  const core = join(folder, "core.img");
  await run(tool("VBUS_GRUB_MKIMAGE", "grub-common"), [
    ...["-O", "i386-pc", "-d", modules, "-p", `${PARTITION}/boot/grub`, "-o", core],
    ...MODULES,
  ]);
  const partition = await rootFileSystem(pieces, folder, size, {
    "boot/grub/grub.cfg": configuration(commandLine),
    [KERNEL_FILE.slice(1)]: await readFile(pieces.sources.kernel),
    "boot/initrd.img": gzipSync(await rootInitrd(pieces, RECIPE)), // what is small is read soon
  });
  const loader = await readFile(core);
  if (SECTOR + loader.length > PARTITION_OFFSET)
    throw new Error(`GRUB has ${loader.length} bytes: there is no room for them in front of the partition`);

  const disk = new Uint8Array(PARTITION_OFFSET + size);
  disk.set((await readFile(join(modules, "boot.img"))).subarray(0, PARTITION_TABLE));
  disk.set(loader, SECTOR); // where boot.img looks for it
  disk.set(partition, PARTITION_OFFSET);
  disk[PARTITION_TABLE] = ACTIVE;
  disk[PARTITION_TABLE + 4] = LINUX;
  const view = new DataView(disk.buffer);
  view.setUint32(PARTITION_TABLE + 8, FIRST_SECTOR, true);
  view.setUint32(PARTITION_TABLE + 12, size / SECTOR, true);
  view.setUint16(SECTOR - 2, 0xaa55, true);
  return disk;
}

/** Writes the partition of a disk to a file, for those who check it. */
export async function savePartition(disk: Uint8Array, file: string): Promise<void> {
  await writeFile(file, disk.subarray(PARTITION_OFFSET));
}
