// npm run shootout [-- options]: IOQ, venet and their rivals side by side, with a Linux guest where one can be had.
import path from "node:path";
import process from "node:process";
import { ensure } from "./ensure.mjs";
import { guestEnvironment } from "./guest.mjs";
import { ROOT, StepError, main, runProgram } from "./step.mjs";

await main(async () => {
  const args = process.argv.slice(2);
  await ensure();
  const only = args[args.indexOf("--only") + 1] ?? "";
  const measures = !args.includes("--help") && !args.includes("--markdown");
  const wantsGuest = measures && (!args.includes("--only") || only.includes("linux"));
  let environment = {};
  if (wantsGuest) {
    try {
      environment = await guestEnvironment();
    } catch (error) {
      if (!(error instanceof StepError)) throw error;
      environment = { VBUS_NO_GUEST: `no Linux guest can be had here: ${error.message}` };
    }
  }
  const out = args.includes("--out") ? [] : ["--out", path.join(ROOT, "bench/report")];
  const program = path.join(ROOT, ".build/bench/shootout/cli.js");
  return runProgram([program, "shootout", ...args, ...out], { ...process.env, ...environment });
});
