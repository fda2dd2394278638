// npm test [-- filters and vitest options]: unit tests, then stress, then the browser.
import path from "node:path";
import process from "node:process";
import { ensure, ensureTestPrograms } from "./ensure.mjs";
import { ROOT, main, runProgram } from "./step.mjs";

await main(async () => {
  await ensure();
  const programs = await ensureTestPrograms();
  process.chdir(ROOT);
  const vitest = path.join(ROOT, "node_modules/vitest/vitest.mjs");
  return runProgram([vitest, "run", ...process.argv.slice(2)], { ...process.env, ...programs });
});
