/** G7: the Internet checksum in wasm against SSE2 in C, in cache. */
import type { BenchContext } from "../harness/context.js";
import { nativeOf, nativeReason } from "../harness/context.js";
import { inTurn, time } from "../harness/interleave.js";
import { linkUnsharedLoops } from "../harness/loops.js";
import { missingRow, ratioRow, type Row, type Target } from "../harness/result.js";
import { STAGE, STAGE_PAGES } from "../harness/stage.js";

const TARGET: Target = { sense: "at least", value: 0.9 };
const LENGTHS = [64, 256, 1500, 4096, 9000, 16_384, 65_536];
/** The goal begins here; shorter ranges are shown. */
const FROM = 1500;
const BYTES_PER_SAMPLE = 24 << 20;

/** The pseudo-random bytes that the native program sums too. */
export function fillPattern(bytes: Uint8Array): void {
  let x = 1;
  for (let i = 0; i < bytes.length; i++) {
    x = (Math.imul(x, 1664525) + 1013904223) >>> 0;
    bytes[i] = x >>> 24;
  }
}

/** Measures G7. */
export async function measureChecksum(context: BenchContext): Promise<Row[]> {
  const native = nativeOf(context);
  const memory = new WebAssembly.Memory({ initial: STAGE_PAGES, maximum: STAGE_PAGES });
  const loops = linkUnsharedLoops(memory);
  fillPattern(new Uint8Array(memory.buffer, STAGE.ram, 1 << 20));
  const rows: Row[] = [];
  for (const length of LENGTHS) {
    const target = length >= FROM ? TARGET : null;
    const base = { goal: "G7", name: `${length} bytes`, unit: "GB/s", target } as const;
    if (native === null) {
      rows.push(missingRow(base, nativeReason(context)));
      continue;
    }
    context.progress(`G7 ${length} bytes`);
    const known = await native.ask(`sum ${length}`);
    const ourSum = loops.checksumRounds(STAGE.ram, length, 1);
    if (known["sum"] !== ourSum || known["sum2"] !== ourSum) {
      throw new Error(
        `checksums of ${length} bytes differ: wasm ${ourSum}, native ${known["sum"] ?? "none"}`,
      );
    }
    // short ranges cost far more per byte: the same number of calls would take too long
    const times = Math.ceil(Math.min(BYTES_PER_SAMPLE / length, 60_000));
    const rate = (ns: number): number => length / ns;
    const ours = (): number => rate(time(() => void loops.checksumRounds(STAGE.ram, length, times), times));
    const by = (kind: number) => async (): Promise<number> =>
      rate((await native.ask(`checksum ${kind} ${length} ${times}`))["ns"] as number);
    const [a = [], masks = [], madd = []] = await inTurn([ours, by(0), by(1)], context.effort);
    const best = masks.map((value, i) => Math.max(value, madd[i] as number));
    const note = "in cache; the faster of two native ways (masks and shifts, multiply-add)";
    rows.push(ratioRow({ ...base, placement: null, note }, a, best, "ours/rival"));
  }
  return rows;
}
