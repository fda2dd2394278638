// npm test [-- filters and vitest options]: unit tests, then stress, then the browser, then Linux guests.
import fs from "node:fs";
import path from "node:path";
import process from "node:process";
import { ensure, ensureTestPrograms } from "./ensure.mjs";
import { guestEnvironment } from "./guest.mjs";
import { ROOT, main, runProgram } from "./step.mjs";

const LINUX_TESTS = "test/linux";

/** Whether filters leave the tests of Linux guests out. With an option among them only vitest knows. */
function leavesLinuxOut(args) {
  if (args.length === 0 || args.some((arg) => arg.startsWith("-"))) return false;
  const files = fs.readdirSync(path.join(ROOT, LINUX_TESTS)).map((name) => `${LINUX_TESTS}/${name}`);
  return !files.some((file) => args.some((filter) => file.includes(filter)));
}

await main(async () => {
  const args = process.argv.slice(2);
  await ensure();
  const programs = await ensureTestPrograms();
  const guest = leavesLinuxOut(args) ? {} : await guestEnvironment();
  process.chdir(ROOT);
  const vitest = path.join(ROOT, "node_modules/vitest/vitest.mjs");
  return runProgram([vitest, "run", ...args], { ...process.env, ...programs, ...guest });
});
