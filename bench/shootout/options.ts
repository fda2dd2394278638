import { parseArgs } from "node:util";
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

  --quick          two minutes at most (the default)
  --full           thirty minutes at most: more settings, more samples
  --only A,B       only these parts: ${Object.keys(PARTS).join(", ")}
  --out FOLDER     where shootout.html and shootout.json go (default vbus-shootout)
  --json           print the results as JSON instead of tables
  --markdown FILE  measure nothing: print the tables of this shootout.json as Markdown
  --help           this text

Missed goals are printed, and are no failure. Close what else keeps the processor busy: the figures are about threads that
wait for each other.
`;

const isPart = (name: string): name is PartName => Object.hasOwn(PARTS, name);

/** Reads the command line. @throws TypeError, with a message for the user, for what it does not understand */
export function parseShootout(args: string[]): ShootoutOptions {
  const { values } = parseArgs({
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
  const chosen = (["quick", "full", "tiny"] as const).filter((name) => values[name]);
  if (chosen.length > 1) throw new TypeError(`--${chosen.join(" and --")} exclude each other`);
  const parts = new Set<PartName>();
  for (const name of (values.only ?? Object.keys(PARTS).join(",")).split(",").map((part) => part.trim())) {
    if (!isPart(name))
      throw new TypeError(`--only ${name}: use ${Object.keys(PARTS).join(", ")}, separated by commas`);
    parts.add(name);
  }
  const { out, json, help, markdown = null } = values;
  return { effort: chosen[0] ?? "quick", parts, out, json, markdown, help };
}
