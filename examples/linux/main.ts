/** `npm run guest`: a Linux guest with virtio-net and venet side by side, with a command line. */
import { parseArgs } from "node:util";
import { GuestError } from "./console.js";
import { runExperiment } from "./experiment.js";
import { CARD_NAMES, Lab, type CardName } from "./lab.js";
import { readPieces } from "./pieces.js";
import { formatReport, rowsOf } from "./report.js";
import { runShell } from "./shell.js";

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
  --shell             an interactive console instead of the measurements; Ctrl-] ends it
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
    shell: values.shell ?? false,
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
  const lab = await Lab.open({
    pieces: readPieces(),
    cards: options.cards,
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
      progress("the guest's console; Ctrl-] ends it");
      await runShell(lab.machine);
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
