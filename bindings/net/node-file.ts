/**
 * Capture files on disk, for Node. Not part of `vbus/net`, which also runs in pages.
 * @module
 */
import { closeSync, openSync, writeSync } from "node:fs";
import type { CaptureSink } from "./pcapng.js";

/** A file that a `PcapngWriter` writes to. */
export interface FileSink {
  /** Hand this to the writer. Writes synchronously: what is captured is never queued in memory. */
  sink: CaptureSink;
  /** Closes the file; close the writer first. Closing twice is harmless. */
  close(): void;
}

/** Creates a file, or empties it. @throws what `fs.openSync` throws */
export function fileSink(path: string): FileSink {
  const file = openSync(path, "w");
  let open = true;
  return {
    sink: (chunk) => {
      for (let at = 0; at < chunk.length;) at += writeSync(file, chunk, at);
    },
    close: () => {
      if (!open) return;
      open = false;
      closeSync(file);
    },
  };
}
