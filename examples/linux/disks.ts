/** Disks and a console for a Linux guest, on the bus: files as `/dev/vblk0`, `/dev/vblk1` …, a terminal as `/dev/hvc0`. */
import { vblkClass, type BlockBackend } from "vbus/devices/vblk";
import { openFileBackend } from "vbus/devices/vblk/node-file";
import type { Terminal } from "vbus/devices/vconsole";
import { vconsoleClass } from "vbus/devices/vconsole";
import type { V86Device } from "vbus/emulators/v86";
import { isSameFile, UserError } from "../../bench/harness/command-line.js";
import type { Machine } from "./machine.js";

/** Driver of disks, by its name in the guest. */
export const DISK_DRIVER = "vblk.ko";
/** Driver of consoles. */
export const CONSOLE_DRIVER = "vconsole.ko";
/** What `mount -t ext4` takes, in the order to load it. */
const FILE_SYSTEM = ["crc32c_generic", "crc16", "mbcache", "jbd2", "ext4"];
const READY_MS = 30_000;

/**
 * Opens image files as disks. They stay open until the bus is closed.
 * @throws UserError when two are the same file; VbusError EINVAL when a size is no multiple of 512; what `fs.promises.open` throws
 */
export async function fileDisks(files: readonly string[]): Promise<V86Device[]> {
  for (const [n, file] of files.entries()) {
    for (const other of files.slice(0, n)) {
      if (await isSameFile(file, other))
        throw new UserError(`${other} and ${file} are one file; two disks that write to it would ruin it`);
    }
  }
  const backends: BlockBackend[] = [];
  try {
    for (const file of files) backends.push(await openFileBackend(file));
  } catch (error) {
    for (const backend of backends) await backend.close();
    throw error;
  }
  return backends.map((backend, n) => disk(`disk${n}`, backend));
}

/** A disk. @param name - unique on the bus */
export function disk(name: string, backend: BlockBackend): V86Device {
  return { name, class: vblkClass({ name: `${name}-class`, backend: () => backend }) };
}

/** A console, and the terminal that it is connected to. @param name - unique on the bus */
export function consoleOf(name: string, terminal: Terminal): V86Device {
  return { name, class: vconsoleClass({ name: `${name}-class`, terminal: () => terminal }) };
}

/** Waits until the guest has that many disks. @throws GuestError */
export async function disksReady(machine: Machine, count: number): Promise<void> {
  const there = `[ -b /dev/vblk${count - 1} ]`;
  await machine.check(`n=0; until ${there} || [ $n -ge 100 ]; do n=$((n+1)); usleep 50000; done; ${there}`, {
    timeoutMs: READY_MS,
  });
}

/** Makes `mount -t ext4` work. */
export async function loadFileSystem(machine: Machine): Promise<void> {
  for (const name of FILE_SYSTEM)
    await machine.check(`[ -e /sys/module/${name} ] || insmod /lib/modules/${name}.ko`);
}

/** Starts a shell of its own on a terminal device of the guest. It ends when the terminal hangs up. */
export async function startShell(machine: Machine, device: string): Promise<void> {
  const there = `[ -c ${device} ]`;
  await machine.check(`n=0; until ${there} || [ $n -ge 100 ]; do n=$((n+1)); usleep 50000; done; ${there}`, {
    timeoutMs: READY_MS,
  });
  // not in the shell's background, which would have it ignore Ctrl-C
  await machine.check(
    `start-stop-daemon -S -b -p /none -a /bin/sh -- -c 'exec setsid -c sh <${device} >${device} 2>&1'`,
  );
}
