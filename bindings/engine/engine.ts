import { instantiate, instantiateSync } from "@assemblyscript/loader";
import { VbusError } from "../errors.js";
import type { EngineExports } from "./exports.js";
import { sharedBytes, unsharedBytes } from "./wasm-bytes.js";

/** Which build of the engine: `unshared` links onto an emulator's own memory, `shared` onto memory between threads. */
export type EngineFlavour = "unshared" | "shared";

/** The bytes of a flavour's wasm, embedded in this package (the same files are exported as `vbus/vbus.wasm`). */
export function engineBytes(flavour: EngineFlavour): Uint8Array {
  return flavour === "shared" ? sharedBytes() : unsharedBytes();
}

const modules = new Map<EngineFlavour, Promise<WebAssembly.Module>>();

/** Compiles a flavour once per thread. A page needs `'wasm-unsafe-eval'` in its content security policy. */
export function engineModule(flavour: EngineFlavour): Promise<WebAssembly.Module> {
  let module = modules.get(flavour);
  if (module === undefined) {
    module = WebAssembly.compile(engineBytes(flavour) as Uint8Array<ArrayBuffer>);
    modules.set(flavour, module);
  }
  return module;
}

function isShared(memory: WebAssembly.Memory): boolean {
  return typeof SharedArrayBuffer !== "undefined" && memory.buffer instanceof SharedArrayBuffer;
}

/**
 * The engine, linked onto one memory, for one thread. Not re-entrant; one instance per (memory, thread).
 * It owns nothing: all its state lies in an arena of that memory (`MemorySpace`).
 */
export class Engine {
  #buffer: ArrayBufferLike | undefined;
  #bytes = new Uint8Array(0);
  #words = new Uint32Array(0);
  #data = new DataView(new ArrayBuffer(0));

  private constructor(
    /** The memory that the engine works on. */
    readonly memory: WebAssembly.Memory,
    /** Which build is linked. */
    readonly flavour: EngineFlavour,
    /** The raw exports; see {@link EngineExports} for who may call them. */
    readonly exports: EngineExports,
  ) {}

  /**
   * Links the flavour that fits the memory. Works everywhere.
   * @throws VbusError EINVAL when the memory is not a 32-bit WebAssembly.Memory that the engine can import
   */
  static async link(memory: WebAssembly.Memory): Promise<Engine> {
    const flavour: EngineFlavour = isShared(memory) ? "shared" : "unshared";
    const module = await engineModule(flavour);
    try {
      const { exports } = await instantiate<Record<string, unknown>>(module, { env: { memory } });
      return new Engine(memory, flavour, exports as unknown as EngineExports);
    } catch (cause) {
      throw linkError(flavour, cause);
    }
  }

  /**
   * Links synchronously: in Node, in workers, and (where the browser allows compiling this few bytes) in pages.
   * @throws VbusError EOPNOTSUPP where synchronous compilation is forbidden: use {@link Engine.link}; EINVAL as there
   */
  static linkSync(memory: WebAssembly.Memory): Engine {
    const flavour: EngineFlavour = isShared(memory) ? "shared" : "unshared";
    let module: WebAssembly.Module;
    try {
      module = new WebAssembly.Module(engineBytes(flavour) as Uint8Array<ArrayBuffer>);
    } catch (cause) {
      throw new VbusError("EOPNOTSUPP", "this thread may not compile wasm synchronously; use Engine.link()", {
        cause,
      });
    }
    try {
      const { exports } = instantiateSync<Record<string, unknown>>(module, { env: { memory } });
      return new Engine(memory, flavour, exports as unknown as EngineExports);
    } catch (cause) {
      throw linkError(flavour, cause);
    }
  }

  #refresh(): void {
    const buffer = this.memory.buffer;
    if (buffer === this.#buffer) return;
    this.#buffer = buffer;
    this.#bytes = new Uint8Array(buffer);
    this.#words = new Uint32Array(buffer);
    this.#data = new DataView(buffer);
  }

  /** All of the memory as bytes. Borrowed: dead after the memory grows, so fetch it anew for every use. */
  get bytes(): Uint8Array {
    this.#refresh();
    return this.#bytes;
  }

  /** All of the memory as 32-bit words (index = address / 4). Borrowed like {@link Engine.bytes}. */
  get words(): Uint32Array {
    this.#refresh();
    return this.#words;
  }

  /** All of the memory as a DataView, for unaligned members. Borrowed like {@link Engine.bytes}. */
  get data(): DataView {
    this.#refresh();
    return this.#data;
  }

  /** True when other threads may see the memory. */
  get shared(): boolean {
    return this.flavour === "shared";
  }

  /** Reads a 64-bit counter as a number (exact below 2^53). `address` is a multiple of 8. */
  counter(address: number): number {
    const words = this.words;
    return (words[address >>> 2] ?? 0) + (words[(address >>> 2) + 1] ?? 0) * 0x100000000;
  }
}

function linkError(flavour: EngineFlavour, cause: unknown): VbusError {
  return new VbusError(
    "EINVAL",
    `cannot link the ${flavour} engine onto this memory; give it a 32-bit WebAssembly.Memory ` +
      `(a shared one needs a maximum of at most 65536 pages)`,
    { cause },
  );
}
