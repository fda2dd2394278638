import { checkTogether, parseCommandLine, UserError, type OptionRule } from "../harness/command-line.js";
import { PARTS, type PartName } from "./model.js";
import type { EffortName } from "./rings/studies.js";

/** What the command line asks for. */
export interface ShootoutOptions {
  effort: EffortName;
  parts: ReadonlySet<PartName>;
  /** Folder for the report. */
  out: string;
  /** JSON on stdout instead of tables. */
  json: boolean;
  /** A result to print as Markdown instead of measuring; null: measure. */
  markdown: string | null;
  help: boolean;
}

/** What `--help` prints. */
export const SHOOTOUT_HELP = `vbus shootout [options]: IOQ, venet and their rivals, side by side

  --quick          about two minutes (the default); longer where the machine is busy or slow
  --full           about a quarter of an hour, up to twice that: more settings, more samples
  --only A,B       only these parts: ${Object.keys(PARTS).join(", ")}
  --out FOLDER     where shootout.html and shootout.json go (default vbus-shootout)
  --json           print the results as JSON instead of tables (in a file: npm run -s shootout)
  --markdown FILE  measure nothing: print the tables of this shootout.json as Markdown
  --help           this text

Missed goals are printed, and are no failure. Close what else keeps the processor busy: the figures are about threads that
wait for each other.
`;

const TOGETHER: readonly OptionRule[] = [
  ["quick", "excludes", "full", "tiny"],
  ["full", "excludes", "tiny"],
  ["markdown", "excludes", "quick", "full", "tiny", "only", "json"],
];

const isPart = (name: string): name is PartName => Object.hasOwn(PARTS, name);

/** Reads the command line. @throws UserError for what it does not understand */
export function parseShootout(args: string[]): ShootoutOptions {
  const { values } = parseCommandLine({
    args,
    options: {
      quick: { type: "boolean", default: false },
      full: { type: "boolean", default: false },
      tiny: { type: "boolean", default: false },
      only: { type: "string" },
      out: { type: "string", default: "vbus-shootout" },
      json: { type: "boolean", default: false },
      markdown: { type: "string" },
      help: { type: "boolean", default: false },
    },
  });
  if (!values.help) checkTogether(values, TOGETHER);
  const chosen = (["quick", "full", "tiny"] as const).find((name) => values[name]);
  const parts = new Set<PartName>();
  for (const name of (values.only ?? Object.keys(PARTS).join(",")).split(",").map((part) => part.trim())) {
    if (!isPart(name))
      throw new UserError(`--only ${name}: use ${Object.keys(PARTS).join(", ")}, separated by commas`);
    parts.add(name);
  }
  const { out, json, help, markdown = null } = values;
  return { effort: chosen ?? "quick", parts, out, json, markdown, help };
}
