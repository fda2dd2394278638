// npm start [-- options]: the main job, two guests and a switch on real traffic.
import path from "node:path";
import process from "node:process";
import { ensure } from "./ensure.mjs";
import { ROOT, main, runProgram } from "./step.mjs";

await main(async () => {
  await ensure();
  return runProgram([path.join(ROOT, ".build/examples/replay/main.js"), ...process.argv.slice(2)]);
});
