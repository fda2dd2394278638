// npm run guest [-- options]: the experiment with a real Linux guest. Other scripts start it, too.
import path from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { ensure } from "./ensure.mjs";
import { guestPieces, PIECES_VARIABLE } from "./guest-pieces.mjs";
import { ROOT, main, printHelp, runProgram } from "./step.mjs";

/** The environment for programs that start Linux guests. @throws {StepError} when the pieces cannot be had */
export async function guestEnvironment() {
  return { [PIECES_VARIABLE]: JSON.stringify(await guestPieces()) };
}

/** Runs the experiment; resolves with its exit code. */
export function runGuest(args, environment) {
  const program = path.join(ROOT, ".build/examples/linux/main.js");
  return runProgram([program, ...args], { ...process.env, ...environment });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await main(async () => {
    const args = process.argv.slice(2);
    if (args.includes("--help")) return printHelp("examples/linux");
    await ensure({ bench: false });
    return runGuest(args, await guestEnvironment());
  });
}
