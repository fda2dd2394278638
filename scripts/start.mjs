// npm start [-- options]: the main job. Where its pieces are there or can be fetched, that is the experiment with a real
// Linux guest (npm run guest); elsewhere, and with --replay or an option that only that one has, it is the replay of a
// capture between two guests written in TypeScript.
import path from "node:path";
import process from "node:process";
import { ensure } from "./ensure.mjs";
import { guestEnvironment, runGuest } from "./guest.mjs";
import { ROOT, StepError, main, printHelp, runProgram } from "./step.mjs";

/** Options that the replay alone has: who gives one means the replay. */
const REPLAY_OPTIONS = [
  "file",
  "repetitions",
  "batch",
  "rx-ring",
  "tx-ring",
  "lazy",
  "spin",
  "capture-frames",
  "loss",
  "duplicate",
  "reorder",
  "corrupt",
  "delay",
  "delay-ms",
];

/** Which of the two runs is meant; --spin belongs to either. */
const wantsReplay = (args) => {
  const names = args.map((arg) => /^--([^=]+)/.exec(arg)?.[1]);
  const own = REPLAY_OPTIONS.filter((name) => name !== "spin" || !names.includes("threads"));
  return names.some((name) => name === "replay" || own.includes(name));
};

/** Says it where it is the first line that people see, and where it is in no program's way. */
function announce(text, args) {
  (args.includes("--json") ? process.stderr : process.stdout).write(`vbus: ${text}\n`);
}

function runReplay(args) {
  return runProgram([path.join(ROOT, ".build/examples/replay/main.js"), ...args]);
}

await main(async () => {
  const args = process.argv.slice(2);
  const replay = wantsReplay(args);
  if (args.includes("--help")) return printHelp(replay ? "examples/replay" : "examples/linux");
  await ensure({ bench: false });
  if (replay) return runReplay(args.filter((arg) => arg !== "--replay"));
  let environment;
  try {
    environment = await guestEnvironment();
  } catch (error) {
    if (!(error instanceof StepError)) throw error;
    announce(`no Linux guest here, so this is the run with guests in TypeScript: ${error.message}`, args);
    return runReplay(args);
  }
  announce(
    "a Linux guest in v86, virtio-net and venet side by side (npm start -- --replay: guests in TypeScript)",
    args,
  );
  return runGuest(args, environment);
});
