/** Types of newc.mjs, for tests. */

/** A file of an archive; parents first. Without content it is a folder, with a device a character device. */
export interface ArchiveFile {
  name: string;
  content?: Uint8Array;
  mode?: number;
  device?: [number, number];
}

/** Writes an uncompressed archive that is the same for the same input: no times, all owned by root. */
export function newc(files: ArchiveFile[]): Uint8Array;
