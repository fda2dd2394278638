// npm run bench [-- options]: the benchmarks and their report.
import path from "node:path";
import process from "node:process";
import { ensure } from "./ensure.mjs";
import { ROOT, main, runProgram } from "./step.mjs";

await main(async () => {
  await ensure();
  return runProgram([path.join(ROOT, ".build/bench/main.js"), ...process.argv.slice(2)]);
});
