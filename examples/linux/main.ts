/** `npm run guest`: a Linux guest with virtio-net and venet side by side, with a command line. */
import { Terminal } from "vbus/devices/vconsole";
import {
  checkFolderOf,
  checkTogether,
  checkWritable,
  isSameFile,
  parseCommandLine,
  printHelp,
  runCommand,
  UserError,
  type OptionRule,
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
import { CARD_NAMES, Lab, type CardName } from "./lab.js";
import { readPieces } from "./pieces.js";
import { formatReport, rowsOf } from "./report.js";
import { runShell, runTerminal } from "./shell.js";
import { formatThreads, runThreads } from "../threads/compare.js";
import { runTwoGuests } from "./two-guests.js";

const DEFAULTS = { seconds: 2, rounds: 5, warmUp: 2, mtu: 1500, seed: 1 };

/** From .build/examples/linux. */
const HELP = new URL("../../../examples/linux/help.txt", import.meta.url);

/** What would be ignored is refused. */
const TOGETHER: readonly OptionRule[] = [
  ["two-guests", "excludes", "threads", "shell", "console", "disk", "nics", "inspect", "json", "spin"],
  ["threads", "excludes", "shell", "console", "disk", "nics", "capture", "inspect", "boot"],
  ["spin", "needs", "threads"],
  ...["shell", "console", "disk"].map((option): OptionRule => [
    option,
    "excludes",
    "json",
    "seconds",
    "rounds",
    "warm-up",
    "seed",
  ]),
];

function numberOption(
  name: string,
  text: string | undefined,
  fallback: number,
  min: number,
  max: number,
): number {
  if (text === undefined) return fallback;
  const value = Number(text);
  if (
    text.trim() === "" ||
    !(value >= min && value <= max) ||
    (name !== "seconds" && !Number.isInteger(value))
  )
    throw new UserError(`--${name} ${text}: give a number from ${min} to ${max}`);
  return value;
}

function cardsOption(text: string | undefined): readonly CardName[] {
  if (text === undefined) return CARD_NAMES;
  const names = text.split(",").map((name) => name.trim());
  const unknown = names.find((name) => !CARD_NAMES.some((card) => card === name));
  if (unknown !== undefined) throw new UserError(`--nics ${text}: there are ${CARD_NAMES.join(", ")}`);
  return CARD_NAMES.filter((card) => names.includes(card));
}

function readOptions(argv: string[]) {
  const text = { type: "string" } as const;
  const flag = { type: "boolean" } as const;
  const options = {
    nics: text,
    mtu: text,
    seconds: text,
    rounds: text,
    "warm-up": text,
    seed: text,
    capture: text,
    inspect: text,
    shell: flag,
    "two-guests": flag,
    threads: flag,
    spin: text,
    disk: { type: "string", multiple: true } as const,
    console: flag,
    boot: flag,
    json: flag,
    help: flag,
  };
  const { values } = parseCommandLine({ args: argv, options });
  if (values.help === true) return null;
  checkTogether(values, TOGETHER);
  return {
    cards: cardsOption(values.nics),
    capture: values.capture,
    inspect: values.inspect,
    threads: values.threads ?? false,
    spin: numberOption("spin", values.spin, 0, 0, 1e6),
    twoGuests: values["two-guests"] ?? false,
    shell: (values.shell ?? false) || values.console === true || values.disk !== undefined,
    disks: values.disk ?? [],
    console: values.console ?? false,
    boot: values.boot ?? false,
    json: values.json ?? false,
    experiment: {
      mtu: numberOption("mtu", values.mtu, DEFAULTS.mtu, 68, 65000),
      seconds: numberOption("seconds", values.seconds, DEFAULTS.seconds, 0.05, 3600),
      rounds: numberOption("rounds", values.rounds, DEFAULTS.rounds, 1, 1000),
      warmUp: numberOption("warm-up", values["warm-up"], DEFAULTS.warmUp, 0, 1000),
      seed: numberOption("seed", values.seed, DEFAULTS.seed, 0, 2 ** 31),
    },
  };
}

/** Finds out before a guest boots what is wrong with the files that are to be written. */
async function checkFiles({
  capture,
  inspect,
  disks,
}: NonNullable<ReturnType<typeof readOptions>>): Promise<void> {
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
