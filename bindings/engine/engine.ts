import { instantiate, instantiateSync } from "@assemblyscript/loader";
import { VbusError } from "../errors.js";
import type { EngineExports } from "./exports.js";
import { sharedBytes, unsharedBytes } from "./wasm-bytes.js";

/** Which build of the engine: `unshared` links onto an emulator's own memory, `shared` onto memory between threads. */
export type EngineFlavour = "unshared" | "shared";

/** The bytes of a flavour's wasm, embedded in this package (also files: `vbus/vbus.wasm`, `vbus/vbus.shared.wasm`). */
export function engineBytes(flavour: EngineFlavour): Uint8Array {
  return flavour === "shared" ? sharedBytes() : unsharedBytes();
}

/** Modules of this thread that are compiled already. */
const compiled = new Map<EngineFlavour, WebAssembly.Module>();
/** Modules of this thread that are being compiled. */
const compiling = new Map<EngineFlavour, Promise<WebAssembly.Module>>();

/**
 * Compiles a flavour once per thread, from the bytes in this package.
 * @throws VbusError EPERM in a page whose content security policy lacks `'wasm-unsafe-eval'`, EOPNOTSUPP where
 *   WebAssembly lacks what the engine uses, ENOMEM
 */
export function engineModule(flavour: EngineFlavour): Promise<WebAssembly.Module> {
  const ready = compiled.get(flavour);
  if (ready !== undefined) return Promise.resolve(ready);
  let module = compiling.get(flavour);
  if (module === undefined) {
    module = compile(flavour).finally(() => {
      compiling.delete(flavour);
    });
    compiling.set(flavour, module);
  }
  return module;
}

async function compile(flavour: EngineFlavour): Promise<WebAssembly.Module> {
  const bytes = engineBytes(flavour) as Uint8Array<ArrayBuffer>;
  let module: WebAssembly.Module;
  try {
    module = await WebAssembly.compile(bytes);
  } catch (cause) {
    if (cause instanceof RangeError)
      throw new VbusError("ENOMEM", `no memory to compile the ${flavour} engine`, { cause });
    throw compileError(flavour, bytes, cause);
  }
  // one that was provided meanwhile stays
  const known = compiled.get(flavour) ?? module;
  compiled.set(flavour, known);
  return known;
}

function compileNow(flavour: EngineFlavour): WebAssembly.Module {
  let module = compiled.get(flavour);
  if (module !== undefined) return module;
  const bytes = engineBytes(flavour) as Uint8Array<ArrayBuffer>;
  try {
    module = new WebAssembly.Module(bytes);
  } catch (cause) {
    // what browsers throw for a module that is too large for synchronous compilation in a page
    if (cause instanceof RangeError) {
      throw new VbusError(
        "EOPNOTSUPP",
        "this thread may not compile wasm synchronously; use Engine.link(), or provideEngineModule() before",
        { cause },
      );
    }
    throw compileError(flavour, bytes, cause);
  }
  compiled.set(flavour, module);
  return module;
}

/** The bytes are good, so it is the platform that cannot, or the page that may not. */
function compileError(flavour: EngineFlavour, bytes: Uint8Array<ArrayBuffer>, cause: unknown): VbusError {
  if (!WebAssembly.validate(bytes)) {
    return new VbusError(
      "EOPNOTSUPP",
      `WebAssembly lacks something here that the ${flavour} engine uses (SIMD, bulk memory` +
        `${flavour === "shared" ? ", threads" : ""}); use a newer browser or Node`,
      { cause },
    );
  }
  return new VbusError(
    "EPERM",
    "this page's content security policy forbids WebAssembly; add 'wasm-unsafe-eval' to its script-src " +
      "(and to that of the worker's own response)",
    { cause },
  );
}

/**
 * Gives this thread a compiled module of a flavour, which every link from then on uses instead of the bytes in this
 * package: for pages that fetch `vbus/vbus.wasm` and `vbus/vbus.shared.wasm` by URL
 * (`WebAssembly.compileStreaming(fetch(url))`), or that compile once and post the module to their workers.
 * @throws VbusError EINVAL when it is not the engine; a flavour that does not fit shows when linking
 */
export function provideEngineModule(flavour: EngineFlavour, module: WebAssembly.Module): void {
  const imports = WebAssembly.Module.imports(module);
  const exports = WebAssembly.Module.exports(module);
  const [memory] = imports;
  if (
    imports.length !== 1 ||
    memory?.kind !== "memory" ||
    !exports.some(({ name, kind }) => name === "ringCreate" && kind === "function")
  ) {
    throw new VbusError(
      "EINVAL",
      `this is not the engine's module; give the one of ${flavour === "shared" ? "vbus.shared.wasm" : "vbus.wasm"}`,
    );
  }
  compiled.set(flavour, module);
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
   * @throws VbusError EINVAL when the memory is not a 32-bit WebAssembly.Memory that the engine can import; as
   *   {@link engineModule}
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
   * A module that this thread has compiled or was given ({@link provideEngineModule}) is used as it is.
   * @throws VbusError EOPNOTSUPP where synchronous compilation is forbidden: use {@link Engine.link}; EINVAL and EPERM as
   *   there
   */
  static linkSync(memory: WebAssembly.Memory): Engine {
    const flavour: EngineFlavour = isShared(memory) ? "shared" : "unshared";
    const module = compileNow(flavour);
    try {
      const { exports } = instantiateSync<Record<string, unknown>>(module, { env: { memory } });
      return new Engine(memory, flavour, exports as unknown as EngineExports);
    } catch (cause) {
      throw linkError(flavour, cause);
    }
  }

  /** A shared buffer that grew is not detached, so only comparing (which is not cheap) tells. */
  #mayGrow = true;

  /** Promises that the memory never grows (its initial size is its maximum): access to shared memory gets cheaper. */
  assumeFixedSize(): void {
    this.#mayGrow = false;
  }

  #refresh(): void {
    // growing an unshared memory detaches its views, which shows in their length
    if (this.#bytes.length !== 0 && !(this.shared && this.#mayGrow)) return;
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
