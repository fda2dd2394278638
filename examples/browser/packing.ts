/** gzip for files of the page, piece by piece: guests go on meanwhile, and whoever waits sees how far it is. */
import { PageError } from "./page-error.js";

/** Told how far something is, from 0 to 1; null: nobody knows how much there is. */
export type Progress = (part: number | null) => void;

/** Most that a file may have, packed or not. A machine of the page has some 40 MiB. */
const MOST_BYTES = 512 << 20;

type Bytes = Uint8Array<ArrayBuffer>;

/** Passes bytes on and tells how many of them have come. */
export function counted(
  total: number | null,
  progress: Progress | undefined,
  most = MOST_BYTES,
): TransformStream<Bytes, Bytes> {
  let seen = 0;
  return new TransformStream({
    transform: (chunk, controller) => {
      seen += chunk.length;
      if (seen > most) {
        controller.error(new PageError(`it has more than ${most >> 20} MiB`));
        return;
      }
      progress?.(total === null ? null : Math.min(1, seen / total));
      controller.enqueue(chunk);
    },
  });
}

/** Packs bytes. */
export async function pack(bytes: Bytes, progress?: Progress): Promise<Blob> {
  const packed = new Blob([bytes])
    .stream()
    .pipeThrough(counted(bytes.length, progress))
    .pipeThrough(new CompressionStream("gzip"));
  return new Blob([await new Response(packed).blob()], { type: "application/gzip" });
}

/**
 * A file as it is, or what gzip packed into it.
 * @param what - what the file is, for messages
 * @throws PageError when it cannot be unpacked
 */
export async function unpack(file: Blob, what: string, progress?: Progress): Promise<ArrayBuffer> {
  if (file.size > MOST_BYTES)
    throw new PageError(`${what} has ${file.size >> 20} MiB: nothing that this page opens is that large`);
  const [first, second] = new Uint8Array(await file.slice(0, 2).arrayBuffer());
  if (first !== 0x1f || second !== 0x8b) return file.arrayBuffer();
  const unpacked = file
    .stream()
    .pipeThrough(counted(file.size, progress))
    .pipeThrough(new DecompressionStream("gzip"))
    .pipeThrough(counted(null, undefined));
  try {
    return await new Response(unpacked).arrayBuffer();
  } catch (error) {
    if (error instanceof PageError) throw new PageError(`${what} cannot be unpacked: ${error.message}`);
    throw new PageError(`${what} is damaged: it was cut off or altered; fetch it once more`, {
      cause: error,
    });
  }
}
