import fs from "node:fs";
import { fileURLToPath } from "node:url";

/** What `bench/assembly` exports: the engine's own code, called in loops inside wasm. Results are signed. */
export interface OneThreadLoops {
  ringCreate(
    endpoint: number,
    regions: number,
    gpaLow: number,
    gpaHigh: number,
    count: number,
    ilp32: number,
    owned: number,
    offer: number,
  ): number;
  ringAttach(
    endpoint: number,
    regions: number,
    gpaLow: number,
    gpaHigh: number,
    length: number,
    limit: number,
    owned: number,
    accept: number,
  ): number;
  ringNegotiated(endpoint: number): number;
  ringEnable(endpoint: number, recheck: number): number;
  ringRounds(
    north: number,
    south: number,
    northTable: number,
    southTable: number,
    n: number,
    rounds: number,
    buffers: number,
  ): number;
  ringsRounds(
    norths: number,
    souths: number,
    rings: number,
    northTable: number,
    southTable: number,
    n: number,
    rounds: number,
    buffers: number,
    first: number,
  ): number;
  checksumRounds(address: number, length: number, times: number): number;
}

/** The loops that need shared memory. */
export interface TwoThreadLoops extends OneThreadLoops {
  northRounds(
    endpoint: number,
    table: number,
    n: number,
    window: number,
    target: number,
    buffers: number,
    progress: number,
    polls: number,
  ): number;
  roundTrips(
    endpoint: number,
    table: number,
    reapTable: number,
    target: number,
    buffers: number,
    same: number,
    progress: number,
    polls: number,
  ): number;
  answerTrips(endpoint: number, table: number, target: number, progress: number, polls: number): number;
  southRounds(
    endpoint: number,
    table: number,
    n: number,
    target: number,
    progress: number,
    polls: number,
  ): number;
  feedRounds(
    endpoint: number,
    table: number,
    n: number,
    target: number,
    source: number,
    length: number,
    progress: number,
    polls: number,
  ): number;
  takeRounds(
    endpoint: number,
    table: number,
    n: number,
    target: number,
    sink: number,
    progress: number,
    polls: number,
  ): number;
  wakeupRounds(
    endpoint: number,
    table: number,
    n: number,
    target: number,
    sink: number,
    progress: number,
    polls: number,
    budget: number,
  ): number;
  pingPong(line: number, side: number, base: number, rounds: number, polls: number): number;
}

/** Outcomes of a two-thread loop, as in `bench/assembly/two-threads.ts`. */
export const LOOP_DONE = 0;
/** Call again. */
export const LOOP_AGAIN = 1;
/** Ring the doorbell, or call at once. */
export const LOOP_DOORBELL = 2;

function instantiate(target: string, memory: WebAssembly.Memory): WebAssembly.Exports {
  // beside the compiled program; a test runs the source, whose wasm lies where it was built
  const folders = ["../wasm/", "../../.build/bench/wasm/"];
  const files = folders.map((folder) => fileURLToPath(new URL(`${folder}${target}.wasm`, import.meta.url)));
  const file = files.find((candidate) => fs.existsSync(candidate));
  if (file === undefined) throw new Error(`${target}.wasm is missing: npm run build makes it`);
  const module = new WebAssembly.Module(fs.readFileSync(file));
  return new WebAssembly.Instance(module, { env: { memory } }).exports;
}

/** Links the loops without barriers onto an unshared memory. */
export function linkUnsharedLoops(memory: WebAssembly.Memory): OneThreadLoops {
  return instantiate("loops", memory) as unknown as OneThreadLoops;
}

/** Links the loops with barriers onto a shared memory. */
export function linkSharedLoops(memory: WebAssembly.Memory): TwoThreadLoops {
  return instantiate("loops-shared", memory) as unknown as TwoThreadLoops;
}

/** What `bench/assembly/contestants.ts` exports: loops by name, as its head says. */
export type Contestants = Readonly<Record<string, unknown>>;
/** One of them. Results are signed. */
export type ContestLoop = (...args: number[]) => number;

/** Links the contestants of the shoot-out onto a memory, in the flavour that it needs. */
export function linkContestants(memory: WebAssembly.Memory): Contestants {
  const shared = typeof SharedArrayBuffer !== "undefined" && memory.buffer instanceof SharedArrayBuffer;
  return instantiate(shared ? "contestants-shared" : "contestants", memory);
}

/** The loop of that name. @throws Error when there is none */
export function loopOf(contestants: Contestants, name: string): ContestLoop {
  const loop = contestants[name];
  if (typeof loop !== "function") throw new Error(`the contestants have no loop ${name}`);
  return loop as ContestLoop;
}
