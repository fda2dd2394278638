/** What all programs' command lines have in common: mistakes of whoever started one are told in a sentence. */
import { readFileSync } from "node:fs";
import { access, constants, open, stat } from "node:fs/promises";
import path from "node:path";
import process from "node:process";
import { parseArgs, type ParseArgsConfig } from "node:util";

/** A mistake of whoever started the program: {@link runCommand} prints its message alone, and ends with 2. */
export class UserError extends Error {
  override readonly name = "UserError";
}

/** How a program ends. */
export interface CommandOptions {
  /** Errors besides {@link UserError} that are no fault of the program, and the exit codes for them. */
  expected?: readonly (readonly [kind: new (...args: never[]) => Error, exitCode: number])[];
  /** What is added to the message of an expected error, such as where help is. */
  hint?: string;
}

/** Runs a program's main function. Resolves with the exit code: errors that nobody expects keep their stack, and end with 1. */
export async function exitCodeOf(
  work: () => Promise<number>,
  { expected = [], hint = "" }: CommandOptions = {},
): Promise<number> {
  try {
    return await work();
  } catch (error) {
    const known = error instanceof UserError ? 2 : expected.find(([kind]) => error instanceof kind)?.[1];
    const { message, stack } = error instanceof Error ? error : new Error(String(error));
    process.stderr.write(`vbus: ${known === undefined ? (stack ?? message) : `${message}${hint}`}\n`);
    return known ?? 1;
  }
}

/** As {@link exitCodeOf}, for the program that this process is. */
export async function runCommand(work: () => Promise<number>, options?: CommandOptions): Promise<void> {
  process.exitCode = await exitCodeOf(work, options);
}

/** Prints a help text. It lies beside the sources: the scripts print it before anything is compiled. */
export function printHelp(file: URL): void {
  process.stdout.write(readFileSync(file, "utf8"));
}

/** `parseArgs` of Node. @throws UserError where that throws */
export function parseCommandLine<T extends ParseArgsConfig>(config: T): ReturnType<typeof parseArgs<T>> {
  try {
    return parseArgs(config);
  } catch (error) {
    throw new UserError((error as Error).message, { cause: error });
  }
}

/** How an option gets along with others: any of them it needs, or none of them it goes with. */
export type OptionRule = readonly [option: string, relation: "needs" | "excludes", ...others: string[]];

/** Refuses options that would be ignored. @throws UserError */
export function checkTogether(values: Readonly<Record<string, unknown>>, rules: readonly OptionRule[]): void {
  const isGiven = (name: string): boolean => values[name] !== undefined && values[name] !== false;
  const list = (names: readonly string[], word: string): string =>
    names.map((name) => `--${name}`).join(` ${word} `);
  for (const [option, relation, ...others] of rules) {
    if (!isGiven(option)) continue;
    const given = others.filter(isGiven);
    if (relation === "needs" && given.length === 0)
      throw new UserError(`--${option} needs ${list(others, "or")}: give that, too, or leave it out`);
    if (relation === "excludes" && given.length > 0)
      throw new UserError(`--${option} does not go with ${list(given, "and")}: leave one or the other out`);
  }
}

/** The file that a path names, as something to compare; the path itself where there is none. */
async function identityOf(file: string): Promise<string> {
  return stat(file, { bigint: true }).then(
    ({ dev, ino }) => `${dev}:${ino}`,
    () => path.resolve(file),
  );
}

/** Whether two paths name the same file, by whatever links. */
export async function isSameFile(one: string, other: string): Promise<boolean> {
  return (await identityOf(one)) === (await identityOf(other));
}

/** @throws UserError when there is no folder for a file that is to be made */
export async function checkFolderOf(option: string, file: string): Promise<void> {
  const folder = path.dirname(path.resolve(file));
  const found = await stat(folder).catch(() => null);
  if (found?.isDirectory() !== true)
    throw new UserError(`cannot write ${option} ${file}: ENOENT: there is no folder ${folder}`);
  try {
    await access(folder, constants.W_OK);
  } catch (error) {
    throw new UserError(`cannot write ${option} ${file}: ${(error as Error).message}`, { cause: error });
  }
}

/** Finds out before any work is done whether a file can be written; creates nothing. @throws UserError */
export async function checkWritable(option: string, file: string): Promise<void> {
  try {
    await (await open(file, "r+")).close();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT")
      throw new UserError(`cannot write ${option} ${file}: ${(error as Error).message}`, { cause: error });
    await checkFolderOf(option, file);
  }
}
