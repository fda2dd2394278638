/**
 * Block requests of a guest in a thread of its own, through vblk to a disk in memory and to one in a file, against the same
 * requests from a thread to that file itself.
 */
import fs from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { allocateGuestMemory } from "vbus/memory";
import { inTurn, type Effort } from "../harness/interleave.js";
import { ratioRow, type Row } from "../harness/result.js";
import { BenchThread } from "../harness/thread.js";
import type { BlockRunOrder } from "./block-guest.js";
import type { BlockDiskOrder } from "./block-host.js";
import type { BlockLoad, BlockSample } from "./block-load.js";

/** Milliseconds of one sample. */
const SAMPLE_MS = { quick: 50, normal: 100 };
/** Samples: fewer than of other figures, for each is long. */
const EFFORT_PART = 3;
/** Milliseconds of each kind of load beforehand, while V8 compiles. */
const WARM_MS = 150;
const DISK_SIZE = 32 << 20;
const GUEST_RAM = 32 << 20;
const RANDOM = 4096;
const SEQUENTIAL = 131_072;
const DEPTHS = [1, 32];

const LOADS: readonly BlockLoad[] = (["random", "sequential"] as const).flatMap((order) =>
  (["read", "write"] as const).flatMap((operation) =>
    DEPTHS.map((depth) => ({ operation, order, depth, length: order === "random" ? RANDOM : SEQUENTIAL })),
  ),
);

/** Figure of a sample: requests per second at random, megabytes per second in order. */
export function blockRate({ order, length }: BlockLoad, { requests, seconds }: BlockSample): number {
  return order === "random" ? requests / seconds : (requests * length) / seconds / 1e6;
}

/** Name of a row. */
export function blockName({ operation, order, length, depth }: BlockLoad, backend: string): string {
  return `${order} ${operation}s of ${length >> 10} KiB, depth ${depth}, ${backend}`;
}

/** Measures all loads; the contestants of each in turn. */
export async function measureBlock(
  effort: Effort,
  quick: boolean,
  progress: (what: string) => void,
): Promise<Row[]> {
  const folder = await fs.mkdtemp(path.join(os.tmpdir(), "vbus-bench-"));
  const threads: BenchThread[] = [];
  const start = (program: string): BenchThread => {
    const thread = new BenchThread(new URL(`./${program}.js`, import.meta.url), `bench-${program}`);
    threads.push(thread);
    return thread;
  };
  try {
    const file = path.join(folder, "disk");
    await fs.writeFile(file, new Uint8Array(DISK_SIZE).fill(0x5a));
    const host = start("block-host");
    const disk = async (name: string, backend: BlockDiskOrder["backend"]): Promise<BenchThread> => {
      const init = allocateGuestMemory({ size: GUEST_RAM, shared: true });
      await host.call("addDisk", { name, init, backend } satisfies BlockDiskOrder);
      const guest = start("block-guest");
      await guest.call("joinDisk", { init });
      return guest;
    };
    const contestants = [
      await disk("memory", { size: DISK_SIZE }),
      await disk("file", { path: file }),
      start("block-guest"),
    ] as const;
    await contestants[2].call("openFile", { path: file });

    for (const load of LOADS.filter(({ depth }) => depth > 1)) {
      progress("block: warming up");
      for (const thread of contestants) {
        await thread.call("run", { load, ms: WARM_MS, seed: 0 } satisfies BlockRunOrder);
      }
    }
    const rows: Row[] = [];
    for (const load of LOADS) {
      progress(`block: ${blockName(load, "vblk and direct")}`);
      rows.push(...(await measureLoad(load, contestants, effort, quick)));
    }
    for (const contestant of contestants) await contestant.call("close");
    const errors = await host.call<string[]>("finish");
    if (errors.length > 0) throw new Error(`the host of the block figures: ${errors.join("; ")}`);
    return rows;
  } finally {
    await Promise.all(threads.map((thread) => thread.close()));
    await fs.rm(folder, { recursive: true });
  }
}

async function measureLoad(
  load: BlockLoad,
  contestants: readonly BenchThread[],
  effort: Effort,
  quick: boolean,
): Promise<Row[]> {
  const ms = quick ? SAMPLE_MS.quick : SAMPLE_MS.normal;
  let taken = 0;
  const samples = await inTurn(
    contestants.map((thread) => async () => {
      const seed = 1 + Math.floor(taken++ / contestants.length); // all contestants of a round ask for the same blocks
      return blockRate(
        load,
        await thread.call<BlockSample>("run", { load, ms, seed } satisfies BlockRunOrder),
      );
    }),
    { ...effort, samples: Math.ceil(effort.samples / EFFORT_PART), warm: 2 },
  );
  const direct = samples[2] ?? [];
  const unit = load.order === "random" ? "requests/s" : "MB/s";
  return ["memory", "file"].map((backend, i) => {
    const base = {
      goal: "block",
      name: blockName(load, backend),
      unit,
      target: null,
      placement: null,
    } as const;
    const note =
      backend === "file"
        ? "the same file as the rival's, in the page cache"
        : "the rival's file is in the page cache";
    return ratioRow({ ...base, note }, samples[i] ?? [], direct, "ours/rival");
  });
}
