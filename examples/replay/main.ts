/** `npm start -- --replay`: the job in Node, with a command line. */
import { readFile } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { VbusError } from "vbus";
import {
  checkWritable,
  isSameFile,
  parseCommandLine,
  printHelp,
  runCommand,
  UserError,
} from "../../bench/harness/command-line.js";
import { Job } from "./job.js";
import { DEFAULT_OPTIONS, type JobOptions } from "./options.js";
import { formatReport } from "./report.js";

/** From .build/examples/replay. */
const HELP = new URL("../../../examples/replay/help.txt", import.meta.url);

function numberOption(
  name: string,
  text: string | undefined,
  fallback: number,
  min: number,
  max: number,
  integer = true,
): number {
  if (text === undefined) return fallback;
  const value = Number(text);
  if (text.trim() === "" || !(value >= min && value <= max) || (integer && !Number.isInteger(value))) {
    throw new UserError(`--${name} ${text}: give a ${integer ? "whole " : ""}number from ${min} to ${max}`);
  }
  return value;
}

function readOptions(
  argv: string[],
): { options: JobOptions; file: string | undefined; capture: string; json: boolean } | null {
  const text = { type: "string" } as const;
  const flag = { type: "boolean" } as const;
  const { values } = parseCommandLine({
    args: argv,
    options: {
      file: text,
      repetitions: text,
      batch: text,
      "rx-ring": text,
      "tx-ring": text,
      mtu: text,
      rounds: text,
      lazy: flag,
      spin: text,
      capture: text,
      "capture-frames": text,
      loss: text,
      duplicate: text,
      reorder: text,
      corrupt: text,
      delay: text,
      "delay-ms": text,
      seed: text,
      json: flag,
      help: flag,
    },
  });
  if (values.help === true) return null;
  const d = DEFAULT_OPTIONS;
  const probability = (name: "loss" | "duplicate" | "reorder" | "corrupt" | "delay"): number =>
    numberOption(name, values[name], 0, 0, 1, false);
  const faults = {
    loss: probability("loss"),
    duplicate: probability("duplicate"),
    reorder: probability("reorder"),
    corrupt: probability("corrupt"),
    delay: probability("delay"),
    delayMs: numberOption("delay-ms", values["delay-ms"], 10, 0.01, 60_000, false),
    seed: numberOption("seed", values.seed, 1, 0, 2 ** 32 - 1),
  };
  const anyFault = faults.loss + faults.duplicate + faults.reorder + faults.corrupt + faults.delay > 0;
  return {
    file: values.file,
    capture: values.capture ?? "replay.pcapng",
    json: values.json ?? false,
    options: {
      repetitions: numberOption("repetitions", values.repetitions, d.repetitions, 1, 1e6),
      batch: numberOption("batch", values.batch, d.batch, 1, 65536),
      rxRing: numberOption("rx-ring", values["rx-ring"], d.rxRing, 1, 2048),
      txRing: numberOption("tx-ring", values["tx-ring"], d.txRing, 1, 2048),
      mtu: numberOption("mtu", values.mtu, d.mtu, 68, 65000),
      rounds: numberOption("rounds", values.rounds, d.rounds, 0, 1e6),
      spin: numberOption("spin", values.spin, d.spin, 0, 1e9),
      captureFrames: numberOption("capture-frames", values["capture-frames"], d.captureFrames, 0, 1e9),
      lazy: values.lazy ?? false,
      faults: anyFault ? faults : null,
    },
  };
}

async function main(): Promise<number> {
  const parsed = readOptions(process.argv.slice(2));
  if (parsed === null) {
    printHelp(HELP);
    return 0;
  }
  const { options, file, capture, json } = parsed;
  const log = (line: string): void => {
    (json ? process.stderr : process.stdout).write(`${line}\n`);
  };
  // from .build/examples/replay/ to the project's root
  const path = file ?? new URL("../../../test/data/segments.pcap.gz", import.meta.url);
  let bytes: Uint8Array<ArrayBuffer>;
  try {
    bytes = new Uint8Array(await readFile(path));
  } catch (error) {
    throw new UserError(`cannot read the capture: ${(error as Error).message}`, { cause: error });
  }
  if (options.captureFrames > 0) {
    if (file !== undefined && (await isSameFile(capture, file)))
      throw new UserError(`--capture ${capture} is the file that is read; give another one`);
    await checkWritable("--capture", capture);
  }
  const live = process.stdout.isTTY && !json;
  let width = 0;
  const job = new Job(options, {
    host: new URL("./host.js", import.meta.url),
    guest: new URL("./guest.js", import.meta.url),
    capture: bytes,
    superframes: new Uint8Array(
      await readFile(new URL("../../../test/data/superframes.pcap.gz", import.meta.url)),
    ),
    capturePath: options.captureFrames > 0 ? capture : null,
    log: (line) => {
      log(line);
    },
    progress: (phase, done, rate) => {
      const line = `${phase}: ${(done * 100).toFixed(0)} %, ${Math.round(rate).toLocaleString("en-US")} frames/s`;
      if (live) process.stdout.write(`\r${line.padEnd(width)}`);
      else log(line);
      width = live ? line.length : 0;
    },
  });
  log(`vbus: host thread, 2 guest threads, ${availableParallelism()} cores, Node ${process.versions.node}`);
  try {
    const result = await job.run();
    if (live && width > 0) process.stdout.write(`\r${"".padEnd(width)}\r`);
    if (json) process.stdout.write(`${JSON.stringify(result, null, 2)}\n`);
    else log(`\n${formatReport(result)}`);
    return result.ok ? 0 : 1;
  } finally {
    job.close();
  }
}

await runCommand(main, {
  expected: [[VbusError, 2]],
  hint: " (npm start -- --replay --help explains the options)",
});
