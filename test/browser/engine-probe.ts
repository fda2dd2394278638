/** What a thread of a browser can do with the engine; runs in the page and in a worker. */
import {
  Checksum,
  Engine,
  engineModule,
  provideEngineModule,
  VbusError,
  type EngineFlavour,
} from "vbus/engine";
import { MemorySpace } from "vbus/memory";
import type { EngineOutcome, ErrorOutcome } from "./outcome.js";

/** How the engine gets linked: from the embedded bytes, or from the shipped files by URL. */
export type LinkWay = "async" | "sync" | "url";

/** An error as data. */
export function errorOutcome(error: unknown): ErrorOutcome {
  if (!(error instanceof Error)) return { name: typeof error, code: null, message: String(error) };
  return { name: error.name, code: error instanceof VbusError ? error.code : null, message: error.message };
}

/** RFC 1071, word by word, as little-endian words. */
function plainSum(bytes: Uint8Array): number {
  let sum = 0;
  for (let i = 0; i < bytes.length; i += 2) sum += (bytes[i] ?? 0) | ((bytes[i + 1] ?? 0) << 8);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return sum;
}

async function fetchModule(flavour: EngineFlavour): Promise<WebAssembly.Module> {
  const name = flavour === "shared" ? "vbus.shared.wasm" : "vbus.wasm";
  return WebAssembly.compileStreaming(fetch(new URL(name, location.href)));
}

/** Links each flavour that this thread can have memory for. */
export async function probeEngine(way: LinkWay): Promise<EngineOutcome> {
  const isolated = crossOriginIsolated;
  const flavours: EngineFlavour[] = isolated ? ["unshared", "shared"] : ["unshared"];
  const outcome: EngineOutcome = { isolated, links: {}, checksum: [0, 0] };
  for (const flavour of flavours) {
    const memory = new WebAssembly.Memory({ initial: 4, maximum: 4, shared: flavour === "shared" });
    try {
      if (way === "url") {
        const module = await fetchModule(flavour);
        provideEngineModule(flavour, module);
        if ((await engineModule(flavour)) !== module) throw new Error("another module is used");
        if (Engine.linkSync(memory).flavour !== flavour) throw new Error("it links, but not to its flavour");
      }
      const engine = way === "sync" ? Engine.linkSync(memory) : await Engine.link(memory);
      outcome.links[flavour] = engine.flavour;
    } catch (error) {
      outcome.links[flavour] = errorOutcome(error);
      continue;
    }
    const space = MemorySpace.attachSync(memory, { address: 65536, size: 65536 }, []);
    const bytes = Uint8Array.from({ length: 256 }, (_, i) => i);
    const at = space.allocate(bytes.length);
    space.bytes.set(bytes, at);
    outcome.checksum = [new Checksum(space).range(at, bytes.length), plainSum(bytes)];
  }
  return outcome;
}
