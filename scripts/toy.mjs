// npm run toy [-- options]: the toy emulator with its guest and a second one on a switch; --build compiles its guest program.
import path from "node:path";
import process from "node:process";
import { ensure, ensurePrograms, TOY_COMPILER } from "./ensure.mjs";
import { ROOT, main, printHelp, runProgram } from "./step.mjs";
import { buildToyGuest, TOY_IMAGE } from "./toy-guest.mjs";

await main(async () => {
  const args = process.argv.slice(2);
  if (args.includes("--help")) return printHelp("examples/toy-emulator");
  await ensure({ bench: false });
  if (args.includes("--build")) {
    Object.assign(process.env, await ensurePrograms(TOY_COMPILER, "compiling the guest program needs"));
    const size = await buildToyGuest();
    process.stdout.write(`${path.relative(ROOT, TOY_IMAGE)}: ${size} bytes of program\n`);
    return 0;
  }
  return runProgram([path.join(ROOT, ".build/examples/toy-emulator/main.js"), TOY_IMAGE, ...args]);
});
