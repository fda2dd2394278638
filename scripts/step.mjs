// Running the tools and telling the person in front of the terminal what takes so long.
// Node built-ins only: these scripts run before `npm ci` has.
import { spawn } from "node:child_process";
import fs from "node:fs";
import { fileURLToPath } from "node:url";
import path from "node:path";
import process from "node:process";

/** The project's root folder. */
export const ROOT = path.dirname(path.dirname(fileURLToPath(import.meta.url)));

/** A failure that the user can act on: printed as one message, without a stack. */
export class StepError extends Error {
  /**
   * @param {string} message what went wrong and what to do
   * @param {number} [exitCode] what the program ends with
   */
  constructor(message, exitCode = 1) {
    super(message);
    this.name = "StepError";
    this.exitCode = exitCode;
  }
}

const QUIET_MS = 2000;
const REPEAT_MS = 5000;

/**
 * Runs `work`; says nothing when it ends within two seconds, else prints what is being done and for how long.
 * Progress goes to stderr, so that the output of the program that follows stays clean.
 */
export async function step(label, work) {
  const began = performance.now();
  const seconds = () => ((performance.now() - began) / 1000).toFixed(1);
  let timer;
  let spoke = false;
  const tick = () => {
    spoke = true;
    process.stderr.write(`vbus: ${label} … ${seconds()} s\n`);
    timer = setTimeout(tick, REPEAT_MS);
  };
  timer = setTimeout(tick, QUIET_MS);
  try {
    const result = await work();
    if (spoke) process.stderr.write(`vbus: ${label}: done in ${seconds()} s\n`);
    return result;
  } finally {
    clearTimeout(timer);
  }
}

/**
 * Runs a tool to its end with its output held back, and shows that output only when the tool fails.
 * @throws {StepError} when it ends with another code than 0 or cannot be started
 */
export function runTool(label, command, args, options = {}) {
  return step(
    label,
    () =>
      new Promise((resolve, reject) => {
        const child = spawn(command, args, { cwd: ROOT, stdio: ["ignore", "pipe", "pipe"], ...options });
        const output = [];
        child.stdout.on("data", (chunk) => output.push(chunk));
        child.stderr.on("data", (chunk) => output.push(chunk));
        child.on("error", (cause) => {
          reject(new StepError(`${label}: cannot run ${command}: ${cause.message}`));
        });
        child.on("close", (code, signal) => {
          if (code === 0) {
            resolve(Buffer.concat(output).toString());
            return;
          }
          process.stderr.write(Buffer.concat(output));
          reject(new StepError(`${label} failed (${signal ?? `exit code ${code}`}), see above`));
        });
      }),
  );
}

/** Runs a Node script of an installed package. `script` is its path below `node_modules`. */
export function runNodeTool(label, script, args) {
  return runTool(label, process.execPath, [path.join(ROOT, "node_modules", script), ...args]);
}

/**
 * Hands the terminal over to a Node program and resolves with its exit code. Signals that reach this process
 * are passed on, so that the program decides how it ends.
 */
export function runProgram(args, env = process.env) {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, args, { cwd: process.cwd(), stdio: "inherit", env });
    // A terminal sends ^C to the whole foreground group: the child has it already, and a second one would
    // read as the user's demand to stop at once.
    const onInterrupt = () => {
      if (!process.stdin.isTTY) child.kill("SIGINT");
    };
    const onTerminate = () => child.kill("SIGTERM");
    process.on("SIGINT", onInterrupt);
    process.on("SIGTERM", onTerminate);
    const settle = () => {
      process.off("SIGINT", onInterrupt);
      process.off("SIGTERM", onTerminate);
    };
    child.on("error", (cause) => {
      settle();
      reject(new StepError(`cannot start ${args[0]}: ${cause.message}`));
    });
    child.on("close", (code, signal) => {
      settle();
      resolve(
        code ?? 128 + (signal === "SIGINT" ? 2 : signal === "SIGTERM" ? 15 : signal === "SIGKILL" ? 9 : 1),
      );
    });
  });
}

/** Prints the help of one of the programs, which takes no build. `folder` is where its sources are. */
export function printHelp(folder) {
  process.stdout.write(fs.readFileSync(path.join(ROOT, folder, "help.txt"), "utf8"));
  return 0;
}

/** Runs a script's main function; its result is the exit code. */
export async function main(work) {
  try {
    process.exitCode = (await work()) ?? 0;
  } catch (error) {
    if (!(error instanceof StepError)) throw error;
    process.stderr.write(`vbus: ${error.message}\n`);
    process.exitCode = error.exitCode;
  }
}
