/** File systems for a Linux guest's disks, made with e2fsprogs and read back with it, and an initramfs that makes one the root. */
import { execFile } from "node:child_process";
import { chmod, copyFile, mkdir, readFile, writeFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { promisify } from "node:util";
import { newc } from "../../scripts/newc.mjs";
import type { Pieces } from "../../examples/linux/pieces.js";

const run = promisify(execFile);
/** What e2fsck ends with when it has changed something. */
const CORRECTED = 1;

/** A tool, as `npm test` found it. @param packages - where it comes from, for messages */
export function tool(variable: string, packages = "e2fsprogs"): string {
  const file = process.env[variable];
  if (file === undefined || file === "")
    throw new Error(
      `${variable} is not set: start the test with npm test, or set it to what ${packages} has under that name`,
    );
  return file;
}

/** What ext4 has today, by names that every mke2fs knows: what a machine's own configuration says does not matter. */
const FEATURES = [
  ...[
    "none",
    "has_journal",
    "ext_attr",
    "resize_inode",
    "dir_index",
    "filetype",
    "extent",
    "64bit",
    "flex_bg",
  ],
  ...["sparse_super", "large_file", "huge_file", "dir_nlink", "extra_isize", "metadata_csum"],
].join(",");

/** What ext4 takes, in the order to load it. */
const FILE_SYSTEM = [
  "crypto/crc32c_generic.ko",
  "lib/crc16.ko",
  "fs/mbcache.ko",
  "fs/jbd2/jbd2.ko",
  "fs/ext4/ext4.ko",
];

/** How a guest gets to its disk. */
export interface RootRecipe {
  /** The disk in the guest. */
  device: string;
  /** Modules of the kernel's, in the order to load them. */
  modules: readonly string[];
  /** Drivers of ours, after those. */
  drivers: readonly string[];
}

/** With a virtio disk and a virtio console. */
export const VIRTIO_ROOT: RootRecipe = {
  device: "/dev/vda",
  modules: [
    "drivers/virtio/virtio.ko",
    "drivers/virtio/virtio_ring.ko",
    "drivers/virtio/virtio_pci_legacy_dev.ko",
    "drivers/virtio/virtio_pci_modern_dev.ko",
    "drivers/virtio/virtio_pci.ko",
    "drivers/block/virtio_blk.ko",
    "drivers/char/virtio_console.ko",
    ...FILE_SYSTEM,
  ],
  drivers: [],
};

/** With vblk and vconsole. */
export const VBUS_ROOT: RootRecipe = {
  device: "/dev/vblk0",
  modules: FILE_SYSTEM,
  drivers: ["vbus.ko", "vblk.ko", "vconsole.ko"],
};

/** First process of the initramfs: loads drivers, mounts the disk, and makes it the root. */
function earlyInit({ device, modules, drivers }: RootRecipe): string {
  const names = [...modules.map((name) => basename(name)), ...drivers];
  return `#!/bin/busybox sh
/bin/busybox mount -t devtmpfs devtmpfs /dev
for module in ${names.join(" ")}; do
  /bin/busybox insmod /lib/$module || echo "cannot load $module"
done
until [ -b ${device} ] && [ -c /dev/hvc0 ]; do /bin/busybox usleep 10000; done
/bin/busybox mount -t ext4 ${device} /root || echo "cannot mount the root file system"
/bin/busybox umount /dev
exec /bin/busybox switch_root /root /sbin/init
`;
}

/** First process on the disk: a shell on the serial line, and one on the console. */
const INIT = `#!/bin/busybox sh
/bin/busybox mount -t devtmpfs devtmpfs /dev
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox --install -s /bin
export PATH=/bin HOME=/ TERM=dumb PS1='guest# '
setsid sh -c 'exec sh </dev/hvc0 >/dev/hvc0 2>&1' &
exec setsid cttyhack sh
`;

/** An initramfs that knows nothing but how to get to the disk. */
export async function rootInitrd({ sources }: Pieces, recipe: RootRecipe): Promise<Uint8Array> {
  const ours = recipe.drivers.map((name) => {
    if (sources.drivers === undefined) throw new Error(`the guest has no ${name}`);
    return join(sources.drivers, name);
  });
  const modules = await Promise.all(
    [...recipe.modules.map((name) => join(sources.modules, "kernel", name)), ...ours].map(async (file) => ({
      name: `lib/${basename(file)}`,
      content: await readFile(file),
      mode: 0o644,
    })),
  );
  return newc([
    ...["bin", "dev", "lib", "root"].map((name) => ({ name })),
    { name: "dev/console", mode: 0o600, device: [5, 1] },
    { name: "init", content: Buffer.from(earlyInit(recipe)) },
    { name: "bin/busybox", content: await readFile(sources.busybox) },
    ...modules,
  ]);
}

async function makeFileSystem(root: string, image: string, size: number): Promise<Buffer> {
  await run(tool("VBUS_MKE2FS"), [
    ...["-q", "-F", "-t", "ext4", "-b", "4096", "-O", FEATURES, "-d", root],
    ...[image, String(size / 4096)],
  ]);
  return readFile(image);
}

/** An ext4 file system with nothing in it. @param folder - for what is needed to make it */
export async function emptyFileSystem(folder: string, size: number): Promise<Buffer> {
  const root = join(folder, "empty");
  await mkdir(root);
  return makeFileSystem(root, join(folder, "empty-image"), size);
}

/**
 * An ext4 file system with busybox and an init.
 * @param folder - for what is needed to make it
 * @param files - what else is on it
 */
export async function rootFileSystem(
  { sources }: Pieces,
  folder: string,
  size: number,
  files: Readonly<Record<string, string | Uint8Array>> = {},
): Promise<Buffer> {
  const root = join(folder, "root");
  for (const name of ["bin", "sbin", "dev", "proc", "sys", "work"])
    await mkdir(join(root, name), { recursive: true });
  await copyFile(sources.busybox, join(root, "bin/busybox"));
  await writeFile(join(root, "sbin/init"), INIT);
  for (const name of ["bin/busybox", "sbin/init"]) await chmod(join(root, name), 0o755);
  for (const [name, content] of Object.entries(files)) {
    await mkdir(dirname(join(root, name)), { recursive: true });
    await writeFile(join(root, name), content);
  }
  return makeFileSystem(root, join(folder, "image"), size);
}

/** Does what mounting a file system does first that was not unmounted. @throws Error when that is not enough to mount it */
export async function replayJournal(image: string): Promise<void> {
  await run(tool("VBUS_E2FSCK"), ["-y", "-E", "journal_only", image]).catch((error: unknown) => {
    if ((error as { code?: unknown }).code !== CORRECTED) throw error;
  });
}

/** Names in a folder of a file system that is not mounted. */
export async function filesIn(image: string, path: string): Promise<string[]> {
  const { stdout } = await run(tool("VBUS_DEBUGFS"), ["-R", `ls -p ${path}`, image]);
  return stdout.split("\n").flatMap((line) => line.split("/")[5] ?? []);
}

/** Checks a file system that was unmounted; changes nothing. @throws Error with what is wrong with it */
export async function checkFileSystem(image: string): Promise<void> {
  await run(tool("VBUS_E2FSCK"), ["-f", "-n", image]);
}

/** A file of a file system that is not mounted. */
export async function readFrom(image: string, file: string, folder: string): Promise<Buffer> {
  const copy = join(folder, "copy");
  await run(tool("VBUS_DEBUGFS"), ["-R", `dump ${file} ${copy}`, image]);
  return readFile(copy);
}
