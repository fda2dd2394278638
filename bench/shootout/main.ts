/** The command: runs the shoot-out, prints it, writes the report. */
import fs from "node:fs";
import path from "node:path";
import process from "node:process";
import { exitCodeOf, UserError } from "../harness/command-line.js";
import { busyWarning } from "../harness/machine.js";
import { failuresOf, SHOOTOUT_FORMAT, type Shootout } from "./model.js";
import { parseShootout, SHOOTOUT_HELP } from "./options.js";
import { shootoutMarkdown } from "./report/markdown.js";
import { goalsSentence, shootoutPage } from "./report/page.js";
import { shootoutText } from "./report/text.js";
import { runShootout } from "./run.js";

function progress(what: string): void {
  process.stderr.write(process.stderr.isTTY ? `\r\u001b[2K${what} …` : `${what} …\n`);
}

function write(folder: string, report: Shootout): string {
  fs.mkdirSync(folder, { recursive: true });
  fs.writeFileSync(path.join(folder, "shootout.json"), `${JSON.stringify(report, null, 2)}\n`);
  const page = path.join(folder, "shootout.html");
  fs.writeFileSync(page, shootoutPage(report));
  return page;
}

/** Makes the folder for the report before anything is measured. @throws UserError when it cannot be written */
function makeFolder(folder: string): void {
  try {
    fs.mkdirSync(folder, { recursive: true });
    fs.accessSync(folder, fs.constants.W_OK);
  } catch (error) {
    throw new UserError(`--out ${folder}: ${(error as Error).message}; give a folder`, { cause: error });
  }
}

/** A result that was written before. @throws UserError for what is none */
function read(file: string): Shootout {
  let report: { format?: unknown };
  try {
    report = JSON.parse(fs.readFileSync(file, "utf8")) as { format?: unknown };
  } catch (error) {
    throw new UserError(`--markdown ${file}: ${(error as Error).message}`, { cause: error });
  }
  if (report.format !== SHOOTOUT_FORMAT)
    throw new UserError(
      `--markdown ${file}: no result of this version (format ${String(report.format)} instead of ${SHOOTOUT_FORMAT}); measure again`,
    );
  return report as Shootout;
}

/**
 * Runs the command. Resolves with its exit code: 0 also when goals are missed, 1 when something failed, 2 for a wrong
 * command line.
 */
export function shootoutMain(args: string[]): Promise<number> {
  return exitCodeOf(() => shootout(args), { hint: " (--help explains the options)" });
}

async function shootout(args: string[]): Promise<number> {
  const options = parseShootout(args);
  if (options.help) {
    process.stdout.write(SHOOTOUT_HELP);
    return 0;
  }
  if (options.markdown !== null) {
    console.log(shootoutMarkdown(read(options.markdown)));
    return 0;
  }
  const { effort, parts, out } = options;
  makeFolder(out);
  const busy = busyWarning();
  if (busy !== null) process.stderr.write(`vbus: ${busy}\n`);
  const report = await runShootout({
    effort,
    parts,
    command: ["vbus shootout", ...args].join(" "),
    progress,
    // a run that is ended in its middle leaves what it has
    done: (sofar) => write(out, sofar),
  });
  const page = write(out, report);
  if (process.stderr.isTTY) process.stderr.write("\r\u001b[2K");
  const failures = failuresOf(report);
  if (options.json) {
    process.stdout.write(`${JSON.stringify(report, null, 2)}\n`);
  } else {
    console.log(shootoutText(report));
    console.log(`\n${goalsSentence(report)} Took ${report.seconds.toFixed(0)} s. Report: ${page}`);
  }
  for (const failure of failures) process.stderr.write(`failed: ${failure}\n`);
  return failures.length > 0 ? 1 : 0;
}
