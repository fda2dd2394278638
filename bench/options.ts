import { parseCommandLine, UserError } from "./harness/command-line.js";
import { GOALS, type GoalName } from "./harness/result.js";

/** What the command line asks for. */
export interface BenchOptions {
  quick: boolean;
  /** Goals to measure. */
  goals: ReadonlySet<GoalName>;
  /** Whether to measure traffic between guests. */
  devices: boolean;
  /** Whether to measure block devices. */
  block: boolean;
  /** Whether to run the Benchmark.js suites. */
  operations: boolean;
  /** JSON on stdout instead of the table. */
  json: boolean;
  help: boolean;
}

/** What `--help` prints. */
export const HELP = `npm run bench [-- options]

  --quick          fewer samples: one to two minutes
  --only A,B       only these: ${Object.keys(GOALS).join(", ")}, devices (traffic between guests),
                   block (disks), operations
  --json           print the results as JSON instead of a table (in a file: npm run -s bench)
  --help           this text

Every run writes bench/report/report.html and bench/report/report.json. Missed goals are printed, and are no failure.
`;

const isGoal = (name: string): name is GoalName => name in GOALS;
const isOther = <T extends object>(name: string, others: T): name is string & keyof T =>
  Object.hasOwn(others, name);

/** Reads the command line. @throws UserError for what it does not understand */
export function parseOptions(args: string[]): BenchOptions {
  const { values } = parseCommandLine({
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
  const common = { quick, json, help };
  if (values.only === undefined)
    return { ...common, goals: new Set(all), devices: true, block: true, operations: true };
  const goals = new Set<GoalName>();
  const others = { devices: false, block: false, operations: false };
  for (const name of values.only.split(",").map((part) => part.trim())) {
    if (isGoal(name.toUpperCase())) goals.add(name.toUpperCase() as GoalName);
    else if (isOther(name, others)) others[name] = true;
    else
      throw new UserError(
        `--only ${name}: use ${[...all, ...Object.keys(others)].join(", ")}, separated by commas`,
      );
  }
  return { ...common, goals, ...others };
}
