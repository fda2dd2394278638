/** A Linux guest in v86: boots, or starts from a saved state, and has its shell driven. */
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { V86, type V86Options } from "v86";
import { restoreMachine } from "vbus/emulators/v86";
import { Console, type CommandResult } from "./console.js";
import { readImage, type Pieces } from "./pieces.js";
import { SavedState } from "./saved-state.js";
import { allowOptimising, forbidOptimising } from "./tiers.js";

/** Changes when saved states of before cannot be used any more for a reason that is not among the ingredients. */
const STATE_FORMAT = "2";
const MIB = 1 << 20;
const BOOT_MS = 240_000;
const RESTORE_MS = 60_000;
const WAITING_MS = 2000;
const REPEAT_MS = 5000;

/**
 * The kernel's command line. nokaslr: nobody relocates a flat kernel. acpiphp.disable=1: v86 has no hot-plug ports, and
 * Linux reads their absence as "all devices are gone". oops=panic: a guest that is broken says so at once. The rest
 * leaves out what takes seconds in an emulator: self tests, probing for hardware of another age, mitigations.
 */
const COMMAND_LINE = [
  "console=ttyS0 quiet nokaslr acpiphp.disable=1 oops=panic",
  "cryptomgr.notests noisapnp mitigations=off no_timer_check tsc=reliable edd=off",
  "initcall_blacklist=init_kprobe_trace,load_system_certificate_list,isapnp_init",
].join(" ");

const { resolve } = createRequire(import.meta.url);
let core: Promise<WebAssembly.Module> | undefined;

/** v86's own wasm, compiled once for all machines of the process. */
function compileCore(): Promise<WebAssembly.Module> {
  core ??= readFile(resolve("v86/build/v86.wasm")).then((bytes) => WebAssembly.compile(bytes));
  return core;
}

/** What a machine is made from. */
export interface MachineOptions {
  pieces: Pieces;
  /** For messages. */
  name?: string;
  /** RAM in MiB; v86 puts the initramfs at 64 MiB. Default 128. */
  memory?: number;
  /** MTU that v86's virtio-net offers. Default 1500. */
  mtu?: number;
  /** False: a machine without ACPI, and so without a local APIC: no messages, interrupts of old. Default true. */
  acpi?: boolean;
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
  /** Has the modules that v86 makes of the guest's code optimised by V8: slower, see tiers.ts. */
  optimise?: boolean;
  /** Told what is waited for, when it takes more than two seconds. */
  progress?: (message: string) => void;
}

/** A running guest. Several can run in one process; each takes its turns on the thread. */
export class Machine {
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
    const { pieces, name = "guest", state: policy = "use", optimise = false, moved } = options;
    const began = performance.now();
    const saved = new SavedState(pieces.cache, await ingredients(options));
    const state = policy === "use" && moved === undefined ? await saved.load() : undefined;
    const restored = state !== undefined || moved !== undefined;
    const what = restored ? `restoring ${name}` : `booting ${name}`;
    return waiting(what, options.progress, async () => {
      const module = await compileCore();
      const emulator = new V86(await emulatorOptions(options, module, state));
      const ready = new Promise<void>((done) => emulator.add_listener("emulator-loaded", () => done()));
      const console = new Console({ send: (text) => emulator.serial0_send(text) });
      emulator.add_listener("serial0-output-byte", (byte) => console.receive(byte));
      await options.prepare?.(emulator);
      await ready;
      if (!optimise) forbidOptimising();
      try {
        if (moved !== undefined) await restoreMachine(emulator, moved);
        await emulator.run();
        if (!restored) {
          await console.start(BOOT_MS);
          if (policy !== "ignore") {
            await emulator.stop();
            await saved.store(await emulator.save_state());
            await emulator.run();
          }
        }
        await console.run("true", { timeoutMs: RESTORE_MS });
      } catch (error) {
        if (!optimise) allowOptimising();
        await destroy(emulator);
        throw error;
      }
      const startMs = performance.now() - began;
      return new Machine(emulator, name, optimise, { console, restored, startMs });
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
    await destroy(this.emulator);
    if (!this.optimise) allowOptimising();
  }
}

async function destroy(emulator: V86): Promise<void> {
  await emulator.stop();
  await emulator.destroy();
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
    commandLine,
    String(memory),
    String(mtu),
    preparedAs,
    Buffer.from(options.earlyArchive ?? []).toString("base64"),
    options.acpi === false ? "no ACPI" : "",
  ];
}

async function emulatorOptions(
  options: MachineOptions,
  module: WebAssembly.Module,
  state: ArrayBuffer | undefined,
): Promise<V86Options> {
  const { pieces, memory = 128, mtu = 1500, commandLine } = options;
  // v86 writes into the kernel's image: each machine reads one of its own.
  const image = async (file: string): Promise<{ buffer: ArrayBuffer }> => ({ buffer: await readImage(file) });
  return {
    wasm_fn: async (imports) => (await WebAssembly.instantiate(module, imports)).exports,
    memory_size: memory * MIB,
    vga_memory_size: 2 * MIB,
    bios: await image(pieces.bios),
    ...(pieces.vgaBios === undefined ? {} : { vga_bios: await image(pieces.vgaBios) }),
    ...(options.moved !== undefined
      ? {}
      : state === undefined
        ? {
            bzimage: await image(pieces.kernel),
            initrd: { buffer: inFront(options.earlyArchive, await readImage(pieces.initrd)) },
            cmdline: commandLine === undefined ? COMMAND_LINE : `${COMMAND_LINE} ${commandLine}`,
          }
        : { initial_state: { buffer: state } }),
    acpi: options.acpi ?? true, // its interrupt controller is what MSI needs
    autostart: false,
    disable_keyboard: true,
    disable_mouse: true,
    disable_speaker: true,
    net_device: { type: "virtio", mtu },
    preserve_mac_from_state_image: true, // the guest's driver has read it already
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
