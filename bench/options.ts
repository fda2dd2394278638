import { parseArgs } from "node:util";
import { GOALS, type GoalName } from "./harness/result.js";

/** What the command line asks for. */
export interface BenchOptions {
  quick: boolean;
  /** Goals to measure. */
  goals: ReadonlySet<GoalName>;
  /** Whether to run the Benchmark.js suites. */
  operations: boolean;
  /** JSON on stdout instead of the table. */
  json: boolean;
  help: boolean;
}

/** What `--help` prints. */
export const HELP = `npm run bench [-- options]

  --quick          fewer samples: under two minutes
  --only A,B       only these: ${Object.keys(GOALS).join(", ")}, operations
  --json           print the results as JSON instead of a table
  --help           this text

Every run writes bench/report/report.html and bench/report/report.json. Missed goals are printed, and are no failure.
`;

const isGoal = (name: string): name is GoalName => name in GOALS;

/** Reads the command line. @throws TypeError, with a message for the user, for what it does not understand */
export function parseOptions(args: string[]): BenchOptions {
  const { values } = parseArgs({
    args,
    options: {
      quick: { type: "boolean", default: false },
      only: { type: "string" },
      json: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  const all = Object.keys(GOALS) as GoalName[];
  const { quick, json, help } = values;
  if (values.only === undefined) return { quick, json, help, goals: new Set(all), operations: true };
  const goals = new Set<GoalName>();
  let operations = false;
  for (const name of values.only.split(",").map((part) => part.trim())) {
    if (isGoal(name.toUpperCase())) goals.add(name.toUpperCase() as GoalName);
    else if (name === "operations") operations = true;
    else throw new TypeError(`--only ${name}: use ${all.join(", ")} or operations, separated by commas`);
  }
  return { quick, json, help, goals, operations };
}
