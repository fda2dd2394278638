/** Options of `npm run guest`. */
import {
  checkTogether,
  parseCommandLine,
  UserError,
  type OptionRule,
} from "../../bench/harness/command-line.js";
import { CARD_NAMES, type CardName } from "./lab.js";

/** What is measured with when nothing is said. */
export const DEFAULTS = { seconds: 2, rounds: 5, warmUp: 2, mtu: 1500, seed: 1 };

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

/** Reads the command line; null when only help is wanted. @throws UserError */
export function readOptions(argv: string[]) {
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

/** What a command line asks for. */
export type GuestOptions = NonNullable<ReturnType<typeof readOptions>>;
