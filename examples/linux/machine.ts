/** A Linux guest in v86: boots, or starts from a saved state, and has its shell driven. */
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import type { V86 } from "v86";
import type { MacPolicy } from "vbus/state";
import { LOOP, type CommandResult, type Console } from "./console.js";
import {
  COMMAND_LINE,
  emulatorOptions,
  startGuest,
  stopGuest,
  type GuestHardware,
  type GuestImages,
  type GuestShell,
} from "./guest.js";
import { readImage, type Pieces } from "./pieces.js";
import { SavedState } from "./saved-state.js";
import { allowOptimising, forbidOptimising } from "./tiers.js";

/** Changes when saved states of before cannot be used any more for a reason that is not among the ingredients. */
const STATE_FORMAT = "2";
const WAITING_MS = 2000;
const REPEAT_MS = 5000;

const { resolve } = createRequire(import.meta.url);
let core: Promise<WebAssembly.Module> | undefined;

/** v86's own wasm, compiled once for all machines of the process. */
function compileCore(): Promise<WebAssembly.Module> {
  core ??= readFile(resolve("v86/build/v86.wasm")).then((bytes) => WebAssembly.compile(bytes));
  return core;
}

/** What a machine is made from. */
export interface MachineOptions extends GuestHardware {
  pieces: Pieces;
  /** For messages. */
  name?: string;
  /** What is added to the kernel's command line. */
  commandLine?: string;
  /** A cpio archive in front of the initramfs, such as one with ACPI tables. */
  earlyArchive?: Uint8Array;
  /**
   * Called right after the emulator was made, before it runs: the place to attach a device. Awaited before the guest
   * starts.
   */
  prepare?: (emulator: V86) => Promise<void> | void;
  /** Names what `prepare` attaches, as far as the guest's kernel sees it at boot: part of the saved state's key. */
  preparedAs?: string;
  /**
   * "use" (the default): start from a saved state when there is one, and save one after booting when there is none.
   * "renew": boot, and save. "ignore": boot, save nothing.
   */
  state?: "use" | "renew" | "ignore";
  /** A state that `saveMachine` saved of a machine with the same options: the guest goes on from there, and nothing boots. */
  moved?: Uint8Array;
  /** What becomes of the addresses of its cards then; default `keep`. */
  macs?: MacPolicy | undefined;
  /** Has the modules that v86 makes of the guest's code optimised by V8: slower, see tiers.ts. */
  optimise?: boolean;
  /** Told what is waited for, when it takes more than two seconds. */
  progress?: (message: string) => void;
}

/** A running guest. Several can run in one process; each takes its turns on the thread. */
export class Machine implements GuestShell {
  /** Whether it came from a saved state. */
  readonly restored: boolean;
  /** Milliseconds from the call to a shell that answers. */
  readonly startMs: number;
  /** The guest's shell. */
  readonly console: Console;
  #closed = false;

  private constructor(
    /** The emulator, for those who attach things to it. */
    readonly emulator: V86,
    readonly name: string,
    private readonly optimise: boolean,
    started: { console: Console; restored: boolean; startMs: number },
  ) {
    this.console = started.console;
    this.restored = started.restored;
    this.startMs = started.startMs;
  }

  /**
   * Starts a guest and waits for its shell.
   * @throws GuestError when it does not get there
   */
  static async start(options: MachineOptions): Promise<Machine> {
    const { pieces, name = "guest", state: policy = "use", optimise = false, moved, macs } = options;
    const began = performance.now();
    const saved = new SavedState(pieces.cache, await ingredients(options));
    const state = policy === "use" && moved === undefined ? await saved.load(options.progress) : undefined;
    const restored = state !== undefined || moved !== undefined;
    const what = restored ? `restoring ${name}` : `booting ${name}`;
    return waiting(what, options.progress, async () => {
      let release = (): void => undefined;
      try {
        const images = await readImages(options, state);
        const { emulator, console } = await startGuest(emulatorOptions(images, options), {
          prepare: options.prepare,
          moved,
          macs,
          running: () => {
            if (optimise) return;
            forbidOptimising();
            release = allowOptimising;
          },
          ...(policy === "ignore"
            ? {}
            : { booted: async (booted) => saved.store(await booted.save_state()) }),
        });
        const startMs = performance.now() - began;
        return new Machine(emulator, name, optimise, { console, restored, startMs });
      } catch (error) {
        release();
        throw error;
      }
    });
  }

  /** Runs one line of shell, see {@link Console.run}. */
  run(command: string, options?: { timeoutMs?: number }): Promise<CommandResult> {
    return this.console.run(command, options);
  }

  /** Runs one line of shell that must succeed, and returns its output, see {@link Console.check}. */
  check(command: string, options?: { timeoutMs?: number }): Promise<string> {
    return this.console.check(command, options);
  }

  /** Switches the guest off. Closing twice is harmless. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.console.close();
    await stopGuest(this.emulator);
    if (!this.optimise) allowOptimising();
  }
}

/**
 * The file with the state of a booted guest, which is made first when there is none: for those who hand it on.
 * @throws GuestError when the guest does not boot
 */
export async function savedStateFile(options: Omit<MachineOptions, "state">): Promise<string> {
  const saved = new SavedState(options.pieces.cache, await ingredients(options));
  if ((await saved.load(options.progress)) === undefined)
    await (await Machine.start({ ...options, state: "renew" })).close();
  return saved.file;
}

/** Everything that makes a state useless when it changes. */
async function ingredients(options: MachineOptions): Promise<string[]> {
  const version = await readFile(resolve("v86/package.json"), "utf8");
  const { memory = 128, mtu = 1500, commandLine = "", preparedAs = "" } = options;
  return [
    STATE_FORMAT,
    (JSON.parse(version) as { version: string }).version,
    options.pieces.key,
    COMMAND_LINE,
    LOOP, // runs already
    commandLine,
    String(memory),
    String(mtu),
    preparedAs,
    Buffer.from(options.earlyArchive ?? []).toString("base64"),
    options.acpi === false ? "no ACPI" : "",
    ...(options.secondLine === true ? ["second serial line"] : []),
  ];
}

/** v86 writes into the kernel's image: each machine reads one of its own. */
async function readImages(options: MachineOptions, state: ArrayBuffer | undefined): Promise<GuestImages> {
  const { pieces, commandLine, earlyArchive } = options;
  return {
    core: await compileCore(),
    bios: await readImage(pieces.bios),
    vgaBios: pieces.vgaBios === undefined ? undefined : await readImage(pieces.vgaBios),
    from:
      state === undefined
        ? {
            kernel: await readImage(pieces.kernel),
            initrd: inFront(earlyArchive, await readImage(pieces.initrd)),
            commandLine,
          }
        : { state },
  };
}

/** An archive in front of another one. */
function inFront(early: Uint8Array | undefined, archive: ArrayBuffer): ArrayBuffer {
  if (early === undefined) return archive;
  const both = new Uint8Array(early.length + archive.byteLength);
  both.set(early);
  both.set(new Uint8Array(archive), early.length);
  return both.buffer;
}

/** Says what is waited for, when that takes long. */
async function waiting<T>(
  what: string,
  progress: ((message: string) => void) | undefined,
  work: () => Promise<T>,
): Promise<T> {
  const began = performance.now();
  const tell = (): void => {
    progress?.(`${what} … ${((performance.now() - began) / 1000).toFixed(1)} s`);
    timer = setTimeout(tell, REPEAT_MS);
  };
  let timer = setTimeout(tell, WAITING_MS);
  try {
    return await work();
  } finally {
    clearTimeout(timer);
  }
}
