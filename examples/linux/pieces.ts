/** What the Linux guest is made of, as `scripts/guest-pieces.mjs` hands it to programs. */
import { readFile } from "node:fs/promises";
import { UserError } from "../../bench/harness/command-line.js";

/** Where the pieces are. All file names are absolute. */
export interface Pieces {
  /** An i386 kernel (bzImage). */
  kernel: string;
  /** The initramfs: busybox, modules, tools. */
  initrd: string;
  /** SeaBIOS. */
  bios: string;
  /** SeaBIOS's VGA BIOS; a guest on a serial line can do without. */
  vgaBios?: string;
  /** The folder for everything that can be made again, saved states for example. */
  cache: string;
  /** A multiboot program that does its worst to the host, for tests. */
  hostile: string;
  /** The drivers of this project in the guest's `/lib/vbus`, such as `venet.ko`. */
  drivers: string[];
  /** What the pieces were made of: the values that `VBUS_GUEST_KERNEL`, …, would have. */
  sources: { kernel: string; modules: string; busybox: string; tools: string; drivers?: string };
  /** Changes whenever the content of one of the pieces does. */
  key: string;
}

const VARIABLE = "VBUS_GUEST_PIECES";

/**
 * The pieces that the script which started this program has made.
 * @throws UserError when it was started without
 */
export function readPieces(): Pieces {
  const text = process.env[VARIABLE];
  if (text === undefined || text === "")
    throw new UserError(
      `${VARIABLE} is not set: start the program with npm run guest, npm start or npm test, which make the guest's ` +
        "pieces, or set it to what node scripts/guest-pieces.mjs prints",
    );
  return JSON.parse(text) as Pieces;
}

/** A file as the ArrayBuffer of exactly its bytes that v86 asks for; every machine needs one of its own. */
export async function readImage(file: string): Promise<ArrayBuffer> {
  const bytes = await readFile(file);
  return bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);
}
