/** Thread of the conformance tests: holds south's engine and does what it is told (`test/engine/remote-side.ts`). */
import { workerData } from "node:worker_threads";
import { MemorySpace, type GuestMemoryInit } from "vbus/memory";
import { serveRemote } from "../engine/remote-call.js";
import type { RemoteRequest } from "../engine/remote-side.js";
import type { Cursor, Pattern } from "../engine/ring-side.js";
import { WasmSide } from "../engine/wasm-side.js";

const { init, block } = workerData as { init: GuestMemoryInit; block: SharedArrayBuffer };
const space = MemorySpace.attachSync(init.memory, init.layout.hostArena, init.layout.regions);

type Methods = Record<string, (...args: unknown[]) => unknown>;

let side: WasmSide | undefined;
const cursors: Cursor[] = [];

function toThread(method: string, args: unknown[]): unknown {
  if (method === "stop") return "stop";
  const [pattern, gpa, length, accept] = args as [Pattern, number, number, number];
  side = WasmSide.attach(space, pattern, gpa, length, accept);
  return null;
}

serveRemote(block, (request) => {
  const { target, method, args } = request as RemoteRequest;
  if (target === "thread") return toThread(method, args);
  const object = (target === "side" ? side : cursors[target]) as unknown as Methods;
  const result = object[method]?.(...args);
  if (target !== "side" || method !== "cursor") return result;
  return cursors.push(result as Cursor) - 1;
});
