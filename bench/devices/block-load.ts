/** Requests to something that holds blocks: several at a time, counted for a while. */

/** What requests go to. */
export interface BlockTarget {
  /** Reads bytes from a position on into `target`, filling it. */
  read(offset: number, target: Uint8Array<ArrayBuffer>): Promise<void>;
  /** Writes `data` from a position on. */
  write(offset: number, data: Uint8Array<ArrayBuffer>): Promise<void>;
}

/** A kind of load. Plain data. */
export interface BlockLoad {
  operation: "read" | "write";
  order: "random" | "sequential";
  /** Bytes of each request. */
  length: number;
  /** Requests outstanding. */
  depth: number;
}

/** What a run of a load counted. */
export interface BlockSample {
  requests: number;
  seconds: number;
}

/** Positions of requests: every whole multiple of `length` below `size`, in order or at random, the same for the same seed. */
export function positions(
  order: BlockLoad["order"],
  length: number,
  size: number,
  seed: number,
): () => number {
  const blocks = Math.floor(size / length);
  if (blocks < 1) throw new RangeError(`no request of ${length} bytes fits ${size}; use a larger medium`);
  let at = seed >>> 0;
  return () => {
    if (order === "sequential") return (at++ % blocks) * length;
    at = (Math.imul(at, 1664525) + 1013904223) >>> 0;
    return Math.floor((at / 2 ** 32) * blocks) * length;
  };
}

/** Keeps `depth` requests outstanding for about `ms` milliseconds, each with a buffer of its own. Rejects when one fails. */
export async function runLoad(
  target: BlockTarget,
  load: BlockLoad,
  size: number,
  ms: number,
  seed: number,
): Promise<BlockSample> {
  const { operation, order, length, depth } = load;
  const next = positions(order, length, size, seed);
  let requests = 0;
  const begin = performance.now();
  const lane = async (): Promise<void> => {
    const buffer = new Uint8Array(length).fill(seed);
    do {
      if (operation === "read") await target.read(next(), buffer);
      else await target.write(next(), buffer);
      requests++;
    } while (performance.now() - begin < ms);
  };
  await Promise.all(Array.from({ length: depth }, lane));
  return { requests, seconds: (performance.now() - begin) / 1000 };
}
