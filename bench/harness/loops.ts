import fs from "node:fs";
import { fileURLToPath } from "node:url";
import type { EngineExports } from "vbus/engine";

/** What `bench/assembly` exports: the engine's own code, called in loops inside wasm. Results are signed. */
export interface OneThreadLoops extends Pick<EngineExports, "ringCreate" | "ringAttach" | "ringNegotiated"> {
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

/** The loops that need shared memory. Those of the stage's sides are called by name, see `bench/assembly/two-threads.ts`. */
export interface TwoThreadLoops extends OneThreadLoops {
  stageSide(
    at: number,
    endpoint: number,
    table: number,
    reapTable: number,
    buffers: number,
    same: number,
  ): void;
  pingPong(line: number, side: number, base: number, rounds: number, polls: number): number;
}

/** Outcomes of a two-thread loop, as in `bench/assembly/contest/loops.ts`. */
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

/** Loops by name, as the heads of `bench/assembly/contestants.ts` and `two-threads.ts` say. */
export type NamedLoops = Readonly<Record<string, unknown>>;
/** One of them. Results are signed. */
export type NamedLoop = (...args: number[]) => number;

/** Links the contestants of the shoot-out onto a memory, in the flavour that it needs. */
export function linkContestants(memory: WebAssembly.Memory): NamedLoops {
  const shared = typeof SharedArrayBuffer !== "undefined" && memory.buffer instanceof SharedArrayBuffer;
  return instantiate(shared ? "contestants-shared" : "contestants", memory);
}

/** The loop of that name. @throws Error when there is none */
export function loopOf(loops: NamedLoops, name: string): NamedLoop {
  const loop = loops[name];
  if (typeof loop !== "function") throw new Error(`there is no loop ${name}`);
  return loop as NamedLoop;
}
