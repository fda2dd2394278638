/** A disk and an initramfs for a Linux guest whose root file system is the disk: made with e2fsprogs, read back with it. */
import { execFile } from "node:child_process";
import { chmod, copyFile, mkdir, readFile, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { promisify } from "node:util";
import { newc } from "../../scripts/newc.mjs";
import type { Pieces } from "../../examples/linux/pieces.js";

const run = promisify(execFile);

/** A tool, as `npm test` found it. */
function tool(variable: string): string {
  const file = process.env[variable];
  if (file === undefined || file === "")
    throw new Error(
      `${variable} is not set: start the test with npm test, or set it to the tool of e2fsprogs`,
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

/** In the order to load them. */
const MODULES = [
  "drivers/virtio/virtio.ko",
  "drivers/virtio/virtio_ring.ko",
  "drivers/virtio/virtio_pci_legacy_dev.ko",
  "drivers/virtio/virtio_pci_modern_dev.ko",
  "drivers/virtio/virtio_pci.ko",
  "drivers/block/virtio_blk.ko",
  "drivers/char/virtio_console.ko",
  "crypto/crc32c_generic.ko",
  "lib/crc16.ko",
  "fs/mbcache.ko",
  "fs/jbd2/jbd2.ko",
  "fs/ext4/ext4.ko",
];

/** First process of the initramfs: loads drivers, mounts the disk, and makes it the root. */
const EARLY_INIT = `#!/bin/busybox sh
/bin/busybox mount -t devtmpfs devtmpfs /dev
for module in ${MODULES.map((name) => basename(name)).join(" ")}; do
  /bin/busybox insmod /lib/$module || echo "cannot load $module"
done
until [ -b /dev/vda ] && [ -c /dev/hvc0 ]; do /bin/busybox usleep 10000; done
/bin/busybox mount -t ext4 /dev/vda /root || echo "cannot mount the root file system"
/bin/busybox umount /dev
exec /bin/busybox switch_root /root /sbin/init
`;

/** First process on the disk: a shell on the serial line, and one on the virtio console. */
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
export async function rootInitrd({ sources }: Pieces): Promise<Uint8Array> {
  const modules = await Promise.all(
    MODULES.map(async (name) => ({
      name: `lib/${basename(name)}`,
      content: await readFile(join(sources.modules, "kernel", name)),
      mode: 0o644,
    })),
  );
  return newc([
    ...["bin", "dev", "lib", "root"].map((name) => ({ name })),
    { name: "dev/console", mode: 0o600, device: [5, 1] },
    { name: "init", content: Buffer.from(EARLY_INIT) },
    { name: "bin/busybox", content: await readFile(sources.busybox) },
    ...modules,
  ]);
}

/** An ext4 file system with busybox and an init. @param folder - for what is needed to make it */
export async function rootFileSystem({ sources }: Pieces, folder: string, size: number): Promise<Buffer> {
  const root = join(folder, "root");
  for (const name of ["bin", "sbin", "dev", "proc", "sys", "work"])
    await mkdir(join(root, name), { recursive: true });
  await copyFile(sources.busybox, join(root, "bin/busybox"));
  await writeFile(join(root, "sbin/init"), INIT);
  for (const name of ["bin/busybox", "sbin/init"]) await chmod(join(root, name), 0o755);
  const image = join(folder, "image");
  const blocks = String(size / 4096);
  await run(tool("VBUS_MKE2FS"), [
    ...["-q", "-F", "-t", "ext4", "-b", "4096", "-O", FEATURES, "-d", root],
    ...[image, blocks],
  ]);
  return readFile(image);
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
