/** G1: the engine's bursts against the same algorithm in C, same layout, same barriers. */
import type { BenchContext } from "../harness/context.js";
import { nativeOf, nativeReason } from "../harness/context.js";
import { inTurn, pairedRows, time } from "../harness/interleave.js";
import { linkUnsharedLoops, type OneThreadLoops } from "../harness/loops.js";
import { missingRow, ratioRow, type Row, type Target } from "../harness/result.js";
import { BUFFERS_GPA, setStage, STAGE, STAGE_PAGES } from "../harness/stage.js";
import { ringJob } from "../harness/stage-jobs.js";
import type { NativeAnswer } from "../harness/native.js";
import type { BracketedSample } from "../harness/placement.js";

const RING = 256;
const ONE_THREAD: Target = { sense: "at most", value: 1.15 };
const TWO_THREADS: Target = { sense: "at most", value: 1.25 };

/** A native answer as a bracketed sample. */
export function bracketed(answer: NativeAnswer): BracketedSample {
  return { ns: answer["ns"] as number, before: answer["before"] as number, after: answer["after"] as number };
}

/** Measures G1. */
export async function measureNativeRing(context: BenchContext): Promise<Row[]> {
  const native = nativeOf(context);
  const base = { goal: "G1", unit: "ns/descriptor" } as const;
  if (native === null) {
    const reason = nativeReason(context);
    return [
      missingRow({ ...base, name: "burst 32, one thread", target: ONE_THREAD }, reason),
      missingRow({ ...base, name: "burst 32, two threads", target: TWO_THREADS }, reason),
    ];
  }
  const rows: Row[] = [];
  const plain = new WebAssembly.Memory({ initial: STAGE_PAGES, maximum: STAGE_PAGES });
  const unshared = linkUnsharedLoops(plain);
  const oneThread = async (
    name: string,
    loops: OneThreadLoops,
    memory: WebAssembly.Memory,
    burst: number,
    lazy: boolean,
    target: Target | null,
    note: string,
  ): Promise<void> => {
    context.progress(`G1 ${name}`);
    setStage(loops, memory, { count: RING, lazy, pattern: "transmit" });
    const rounds = Math.ceil(60_000 / burst);
    const ours = (): number =>
      time(() => {
        const { northEndpoint, southEndpoint, northTable, southTable } = STAGE;
        const result = loops.ringRounds(
          northEndpoint,
          southEndpoint,
          northTable,
          southTable,
          burst,
          rounds,
          BUFFERS_GPA,
        );
        if (result !== 0) throw new Error(`${name}: the engine answers ${result}`);
      }, rounds * burst);
    const rival = async (): Promise<number> =>
      (await native.ask(`one ${burst} ${rounds} ${lazy ? 1 : 0}`))["ns"] as number;
    const [a = [], b = []] = await inTurn([ours, rival], context.effort);
    rows.push(ratioRow({ ...base, name, placement: null, target, note }, a, b, "ours/rival"));
  };
  const { memory, loops } = context.pair;
  const barriers = "shared flavour: the same barriers as C";
  await oneThread("burst 32, one thread", loops, memory, 32, false, ONE_THREAD, barriers);
  await oneThread("burst 32, one thread, lazy indexes", loops, memory, 32, true, null, barriers);
  await oneThread(
    "burst 32, one thread, unshared",
    unshared,
    plain,
    32,
    false,
    null,
    "no barriers, C keeps its own",
  );
  await oneThread("per op, one thread", loops, memory, 1, false, null, barriers);

  const twoThreads = async (
    name: string,
    burst: number,
    lazy: boolean,
    target: Target | null,
  ): Promise<void> => {
    context.progress(`G1 ${name}`);
    const descriptors = burst === 1 ? 10_000 : 64_000;
    const ours = async (): Promise<BracketedSample> => {
      context.pair.set({ count: RING, lazy, pattern: "transmit" });
      return context.pair.sample(ringJob(burst, RING, descriptors), descriptors);
    };
    const rival = async (): Promise<BracketedSample> =>
      bracketed(await native.ask(`two ${burst} ${RING} ${descriptors} ${lazy ? 1 : 0}`));
    rows.push(
      ...(await pairedRows({ ...base, name, target, note: "" }, ours, rival, "ours/rival", context.effort)),
    );
  };
  await twoThreads("burst 32, two threads", 32, false, TWO_THREADS);
  await twoThreads("burst 32, two threads, lazy indexes", 32, true, null);
  await twoThreads("per op, two threads", 1, false, null);
  await twoThreads("per op, two threads, lazy indexes", 1, true, null);
  return rows;
}
