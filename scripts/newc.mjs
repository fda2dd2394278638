// An initramfs: a cpio archive in the "newc" format of the kernel's early user space, written without cpio and
// without root, because the format holds device nodes and owners as plain numbers.
const MAGIC = "070701";
const S_IFDIR = 0o040000;
const S_IFCHR = 0o020000;
const S_IFREG = 0o100000;

const padding = (length) => Buffer.alloc(-length & 3);

function entry(inode, name, mode, content, [major, minor] = [0, 0]) {
  // ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
  const fields = [inode, mode, 0, 0, 1, 0, content.length, 0, 0, major, minor, name.length + 1, 0];
  const header = Buffer.from(
    `${MAGIC}${fields.map((field) => field.toString(16).padStart(8, "0")).join("")}${name}\0`,
    "latin1",
  );
  return [header, padding(header.length), content, padding(content.length)];
}

/**
 * Writes an uncompressed archive that is the same for the same input: no times, all owned by root.
 * @param {{ name: string, content?: Uint8Array, mode?: number, device?: [number, number] }[]} files parents first; a
 *   name without content is a folder, one with a device a character device
 */
export function newc(files) {
  const nothing = Buffer.alloc(0);
  const parts = files.flatMap(({ name, content, mode = 0o755, device }, i) =>
    device !== undefined
      ? entry(i + 1, name, S_IFCHR | mode, nothing, device)
      : entry(i + 1, name, (content === undefined ? S_IFDIR : S_IFREG) | mode, content ?? nothing),
  );
  return Buffer.concat([...parts, ...entry(0, "TRAILER!!!", 0, nothing)]);
}
