/** `npm run guest`: a Linux guest with virtio-net and venet side by side, with a command line. */
import { Terminal } from "vbus/devices/vconsole";
import {
  checkFolderOf,
  checkWritable,
  isSameFile,
  printHelp,
  runCommand,
  UserError,
} from "../../bench/harness/command-line.js";
import { GuestError } from "./console.js";
import {
  CONSOLE_DRIVER,
  consoleOf,
  DISK_DRIVER,
  disksReady,
  fileDisks,
  loadFileSystem,
  startShell,
} from "./disks.js";
import { runExperiment } from "./experiment.js";
import { Lab } from "./lab.js";
import { readOptions, type GuestOptions } from "./options.js";
import { readPieces } from "./pieces.js";
import { formatReport, rowsOf } from "./report.js";
import { runShell, runTerminal } from "./shell.js";
import { formatThreads, runThreads } from "../threads/compare.js";
import { runTwoGuests } from "./two-guests.js";

/** From .build/examples/linux. */
const HELP = new URL("../../../examples/linux/help.txt", import.meta.url);

/** Finds out before a guest boots what is wrong with the files that are to be written. */
async function checkFiles({ capture, inspect, disks }: GuestOptions): Promise<void> {
  if (capture !== undefined) {
    await checkWritable("--capture", capture);
    for (const disk of disks)
      if (await isSameFile(capture, disk)) throw new UserError(`--capture ${capture} would overwrite a disk`);
  }
  if (inspect !== undefined && process.platform !== "win32") await checkFolderOf("--inspect", inspect);
}

async function main(): Promise<number> {
  const options = readOptions(process.argv.slice(2));
  if (options === null) {
    printHelp(HELP);
    return 0;
  }
  await checkFiles(options);
  const progress = (message: string): void => void process.stderr.write(`vbus: ${message}\n`);
  if (options.threads) {
    const threads = { pieces: readPieces(), spin: options.spin, ...options.experiment };
    const rows = await runThreads(threads, progress);
    process.stdout.write(options.json ? `${JSON.stringify(rows, null, 2)}\n` : formatThreads(rows, threads));
    return 0;
  }
  if (options.twoGuests) {
    const { mtu, rounds, warmUp, seconds, seed } = options.experiment;
    const state = options.boot ? "renew" : "use";
    const guests = { pieces: readPieces(), mtu, state, progress } as const;
    const capture = options.capture === undefined ? {} : { capture: options.capture };
    process.stdout.write(
      await runTwoGuests({ ...guests, ...capture }, { rounds, warmUp, seconds, seed }, progress),
    );
    return 0;
  }
  const terminal = new Terminal();
  const devices = await fileDisks(options.disks).catch((error: unknown) => {
    throw new UserError(`--disk: ${(error as Error).message}`, { cause: error });
  });
  const drivers = devices.length > 0 ? [DISK_DRIVER] : [];
  if (options.console) {
    devices.push(consoleOf("console0", terminal));
    drivers.push(CONSOLE_DRIVER);
  }
  const lab = await Lab.open({
    pieces: readPieces(),
    cards: options.cards,
    ...(devices.length === 0 ? {} : { devices, drivers }),
    mtu: options.experiment.mtu,
    state: options.boot ? "renew" : "use",
    progress,
    ...(options.capture === undefined ? {} : { capture: options.capture }),
    ...(options.inspect === undefined ? {} : { inspect: options.inspect }),
  });
  try {
    const how = lab.machine.restored ? "restored" : "booted";
    progress(
      `guest ${how} in ${(lab.machine.startMs / 1000).toFixed(1)} s: ${lab.cards.map(describe).join(", ")}`,
    );
    if (options.shell) {
      // a restored guest has the time of day at which it was saved: what it writes would be dated so
      await lab.machine.check(`date -u -s @${Math.floor(Date.now() / 1000)}`);
      if (options.disks.length > 0) {
        await disksReady(lab.machine, options.disks.length);
        await loadFileSystem(lab.machine);
        const names = options.disks.map((file, n) => `/dev/vblk${n} = ${file}`);
        progress(`${names.join(", ")}; mount -t ext4 /dev/vblk0 /mnt, and umount /mnt before you leave`);
      }
      progress(`the guest's console${options.console ? ", hvc0" : ""}; Ctrl-] ends it`);
      if (!options.console) await runShell(lab.machine);
      else {
        await startShell(lab.machine, "/dev/hvc0");
        await runTerminal(terminal);
      }
      return 0;
    }
    const result = await runExperiment(lab, options.experiment, progress);
    process.stdout.write(
      options.json
        ? `${JSON.stringify({ rows: rowsOf(result), ...result }, null, 2)}\n`
        : formatReport(result),
    );
    return 0;
  } finally {
    await lab.close();
  }
}

function describe({ name, what, guestAddress, peerAddress }: Lab["cards"][number]): string {
  return `${name} = ${what} (${guestAddress}, its peer ${peerAddress})`;
}

await runCommand(main, { expected: [[GuestError, 1]] });
