/**
 * A Linux guest in v86, without a word about where its files come from: what is the same in Node (`machine.ts`) and in a
 * page (`examples/browser/`).
 */
import { V86, type V86Options } from "v86";
import { restoreMachine } from "vbus/emulators/v86";
import type { MacPolicy } from "vbus/state";
import { Console, GuestError, type CommandResult } from "./console.js";

const MIB = 1 << 20;
const BOOT_MS = 240_000;
const RESTORE_MS = 60_000;
/** v86 throws where nobody can catch it when it cannot apply a state. */
const LOAD_MS = 60_000;

/**
 * The kernel's command line. nokaslr: nobody relocates a flat kernel. acpiphp.disable=1: v86 has no hot-plug ports, and
 * Linux reads their absence as "all devices are gone". oops=panic: a guest that is broken says so at once. The rest
 * leaves out what takes seconds in an emulator: self tests, probing for hardware of another age, mitigations.
 */
export const COMMAND_LINE = [
  "console=ttyS0 quiet nokaslr acpiphp.disable=1 oops=panic",
  "cryptomgr.notests noisapnp mitigations=off no_timer_check tsc=reliable edd=off",
  "initcall_blacklist=init_kprobe_trace,load_system_certificate_list,isapnp_init",
].join(" ");

/** What a machine is like, as far as its guest can tell. */
export interface GuestHardware {
  /** RAM in MiB; v86 puts the initramfs at 64 MiB. Default 128. */
  memory?: number;
  /** MTU that v86's virtio-net offers. Default 1500. */
  mtu?: number;
  /** False: a machine without ACPI, and so without a local APIC: no messages, interrupts of old. Default true. */
  acpi?: boolean;
  /** A second serial line, `ttyS1`, for people: the first one belongs to programs. Default false. */
  secondLine?: boolean;
}

/** What a guest boots from. v86 writes into the kernel's image: each guest needs one of its own. */
export interface BootImages {
  kernel: ArrayBuffer;
  initrd: ArrayBuffer;
  /** What is added to {@link COMMAND_LINE}. */
  commandLine?: string | undefined;
}

/** All that v86 is given. */
export interface GuestImages {
  /** v86's own code. */
  core: WebAssembly.Module;
  bios: ArrayBuffer;
  vgaBios?: ArrayBuffer | undefined;
  /** What it starts from: files to boot, the state of a guest that has booted on the same hardware, or null (see `moved`). */
  from: BootImages | { state: ArrayBuffer } | null;
}

/** What v86 is made with. */
export function emulatorOptions(images: GuestImages, hardware: GuestHardware): V86Options {
  const { core, bios, vgaBios, from } = images;
  const { memory = 128, mtu = 1500, acpi = true, secondLine = false } = hardware;
  return {
    wasm_fn: async (imports) => (await WebAssembly.instantiate(core, imports)).exports,
    memory_size: memory * MIB,
    vga_memory_size: 2 * MIB,
    bios: { buffer: bios },
    ...(vgaBios === undefined ? {} : { vga_bios: { buffer: vgaBios } }),
    ...(from === null
      ? {}
      : "state" in from
        ? { initial_state: { buffer: from.state } }
        : {
            bzimage: { buffer: from.kernel },
            initrd: { buffer: from.initrd },
            cmdline: from.commandLine === undefined ? COMMAND_LINE : `${COMMAND_LINE} ${from.commandLine}`,
          }),
    acpi, // its interrupt controller is what MSI needs
    ...(secondLine ? { uart1: true } : {}),
    autostart: false,
    disable_keyboard: true,
    disable_mouse: true,
    disable_speaker: true,
    net_device: { type: "virtio", mtu },
    preserve_mac_from_state_image: true, // the guest's driver has read it already
  };
}

/** What happens on the way to a shell. */
export interface StartSteps {
  /** The emulator was made and has not run: the place to attach devices. Awaited before the guest starts. */
  prepare?: ((emulator: V86) => Promise<void> | void) | undefined;
  /** What `saveMachine` saved of a guest that goes on here. */
  moved?: Uint8Array | undefined;
  /** What becomes of the addresses of its cards; default `keep`. */
  macs?: MacPolicy | undefined;
  /** Called right before the guest runs. */
  running?: (() => void) | undefined;
  /** A guest has booted, and is stopped: the moment to save it. Not called for one that came from a state. */
  booted?: ((emulator: V86) => Promise<void>) | undefined;
}

/** A guest whose shell answers. */
export interface StartedGuest {
  readonly emulator: V86;
  readonly console: Console;
}

/** What measures and sets up a guest needs of it. */
export interface GuestShell {
  /** The emulator, for those who look into it. */
  readonly emulator: V86;
  /** Runs one line of shell, see {@link Console.run}. */
  run(command: string, options?: { timeoutMs?: number }): Promise<CommandResult>;
  /** Runs one line of shell that must succeed, and returns its output, see {@link Console.check}. */
  check(command: string, options?: { timeoutMs?: number }): Promise<string>;
}

/**
 * Makes an emulator and runs its guest until the shell answers.
 * @throws GuestError when it does not get there; what the steps throw. The emulator is gone then.
 */
export async function startGuest(options: V86Options, steps: StartSteps): Promise<StartedGuest> {
  const emulator = new V86(options);
  const ready = new Promise<void>((done) => emulator.add_listener("emulator-loaded", () => done()));
  const console = new Console({ send: (text) => emulator.serial0_send(text) });
  emulator.add_listener("serial0-output-byte", (byte) => console.receive(byte));
  await steps.prepare?.(emulator);
  try {
    await loaded(ready);
    steps.running?.();
    const { moved, macs = "keep" } = steps;
    if (moved !== undefined) await restoreMachine(emulator, moved, { macs });
    await emulator.run();
    if (options.initial_state === undefined && moved === undefined) {
      await console.start(BOOT_MS);
      if (steps.booted !== undefined) {
        await emulator.stop();
        await steps.booted(emulator);
        await emulator.run();
      }
    }
    await console.run("true", { timeoutMs: RESTORE_MS });
  } catch (error) {
    await stopGuest(emulator);
    throw error;
  }
  return { emulator, console };
}

async function loaded(ready: Promise<void>): Promise<void> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_done, fail) => {
    timer = setTimeout(() => {
      const why = "is the state that it starts from one of such a machine?";
      fail(new GuestError(`v86 did not come up within ${LOAD_MS / 1000} s: ${why}`));
    }, LOAD_MS);
  });
  try {
    await Promise.race([ready, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Ends an emulator. */
export async function stopGuest(emulator: V86): Promise<void> {
  await emulator.stop();
  await emulator.destroy();
}
