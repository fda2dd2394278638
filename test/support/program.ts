/** A program of the project, run as a user would, in a process of its own. */
import { spawn } from "node:child_process";

/** How it ended, and what it wrote. */
export interface Outcome {
  /** Null when it was killed. */
  code: number | null;
  signal: NodeJS.Signals | null;
  out: string;
  err: string;
}

/** Where it runs. */
export interface RunOptions {
  cwd: string;
  /** All of its environment; default that of the tests. */
  env?: NodeJS.ProcessEnv;
  /** When it has not ended by then it is killed, which shows as a signal; default never. */
  timeoutMs?: number;
}

/** The tests' environment without variables of these first letters, and with others. */
export function environmentWithout(
  prefix: string,
  variables: Readonly<Record<string, string>>,
): NodeJS.ProcessEnv {
  const others = Object.entries(process.env).filter(([name]) => !name.startsWith(prefix));
  return { ...Object.fromEntries(others), ...variables };
}

/** Runs a script with Node until it has ended, and nobody is left who could have inherited its pipes. */
export function runProgram(
  script: string,
  args: readonly string[],
  { cwd, env = process.env, timeoutMs }: RunOptions,
): Promise<Outcome> {
  const child = spawn(process.execPath, [script, ...args], { cwd, env, stdio: ["ignore", "pipe", "pipe"] });
  let out = "";
  let err = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => (out += text));
  child.stderr.setEncoding("utf8").on("data", (text: string) => (err += text));
  const timer = timeoutMs === undefined ? undefined : setTimeout(() => child.kill("SIGKILL"), timeoutMs);
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code, signal) => {
      clearTimeout(timer);
      resolve({ code, signal, out, err });
    });
  });
}
