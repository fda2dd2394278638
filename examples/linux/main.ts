/** `npm run guest`: a Linux guest with virtio-net and venet side by side, with a command line. */
import { parseArgs } from "node:util";
import { Terminal } from "vbus/devices/vconsole";
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

const HELP = `npm run guest -- [options]

Boots an unmodified Debian kernel in an unmodified v86, with v86's own virtio-net as eth0 and venet as eth1, and compares
them: ping, 60-byte frames (pktgen), and TCP in both directions with verified contents, both cards in turn, in one guest.

  --nics <names>      which of eth0,eth1,eth2 (default all)
  --mtu <n>           68 to 65000 (default ${DEFAULTS.mtu})
  --seconds <s>       per measurement (default ${DEFAULTS.seconds})
  --rounds <n>        that count (default ${DEFAULTS.rounds}), after --warm-up rounds that do not (default ${DEFAULTS.warmUp})
  --seed <n>          of the patterns (default ${DEFAULTS.seed})
  --capture <file>    writes everything that crosses the cards, as pcapng; slows both down
  --inspect <socket>  serves what "vbus inspect <socket>" shows: bus, queues, switches, counters
  --two-guests        two Linux guests on one switch instead, and one written in TypeScript: ping, verified streams, counters
  --threads           the network in a thread of its own, measured against everything in one; --spin <n> polls before it sleeps
  --shell             an interactive console instead of the measurements; Ctrl-] ends it
  --disk <file>       with a shell: an image file as /dev/vblk0; again for /dev/vblk1 ... The guest writes to it
  --console           the shell is on a vconsole (/dev/hvc0), not on the serial line, and has the window's size
  --boot              boot even when there is a saved state
  --json              print the result as JSON on standard output
  --help              this text

npm start does this, too, where it can; npm start -- --replay does the run with guests written in TypeScript.

Exit code 0: measured, and everything arrived as it was sent. 1: it did not. 2: the command line is wrong.
`;

/** A wrong command line. */
class UsageError extends Error {}

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
    throw new UsageError(`--${name} ${text}: give a number from ${min} to ${max}`);
  return value;
}

function cardsOption(text: string | undefined): readonly CardName[] {
  if (text === undefined) return CARD_NAMES;
  const names = text.split(",").map((name) => name.trim());
  const unknown = names.find((name) => !CARD_NAMES.some((card) => card === name));
  if (unknown !== undefined) throw new UsageError(`--nics ${text}: there are ${CARD_NAMES.join(", ")}`);
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
  let values;
  try {
    ({ values } = parseArgs({ args: argv, options }));
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
  if (values.help === true) return null;
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

async function main(): Promise<number> {
  const options = readOptions(process.argv.slice(2));
  if (options === null) {
    process.stdout.write(HELP);
    return 0;
  }
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
    throw new UsageError(`--disk: ${(error as Error).message}`);
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

try {
  process.exitCode = await main();
} catch (error) {
  const usage = error instanceof UsageError;
  const text =
    usage || error instanceof GuestError
      ? (error as Error).message
      : ((error as Error).stack ?? String(error));
  process.stderr.write(`vbus: ${text}\n`);
  process.exitCode = usage ? 2 : 1;
}
