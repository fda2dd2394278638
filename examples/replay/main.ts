/** `npm start`: the job in Node, with a command line. */
import { access, constants, open, readFile } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { dirname, resolve } from "node:path";
import { parseArgs } from "node:util";
import { VbusError } from "vbus";
import { Job } from "./job.js";
import { DEFAULT_OPTIONS, type JobOptions } from "./options.js";
import { formatReport } from "./report.js";

const HELP = `npm start -- [options]

Two guests, each in a thread and a memory of its own, find the bus of a host thread, take a venet NIC each, and replay
a capture through the host's switch at full speed; every frame is compared byte for byte and in order. A to B, B to A,
both at once, then one frame outstanding for latency.

  --file <capture>      pcap or pcapng, micro- or nanoseconds, may be gzipped (default: the capture that comes along).
                        Each frame is sent by the guest that owns its source address: A owns the busiest source, B all
                        stations that A exchanges frames with. A one-way capture is mirrored for the way back.
  --repetitions <n>     times each direction is replayed (default ${DEFAULT_OPTIONS.repetitions})
  --batch <n>           frames handed to the ring at once (default ${DEFAULT_OPTIONS.batch})
  --rx-ring <n>         descriptors of the RX rings, 1 to 2048 (default ${DEFAULT_OPTIONS.rxRing})
  --tx-ring <n>         descriptors of the TX rings, 1 to 2048 (default ${DEFAULT_OPTIONS.txRing})
  --mtu <n>             68 to 65000 (default ${DEFAULT_OPTIONS.mtu})
  --rounds <n>          rounds of the latency run (default ${DEFAULT_OPTIONS.rounds}; 0: none)
  --lazy                negotiate lazily written indexes (an extension of IOQ v4)
  --spin <polls>        poll before sleeping; useful with more cores than threads (default 0)
  --capture <file>      where to write what crossed the switch, as pcapng (default replay.pcapng)
  --capture-frames <n>  frames captured per port; more are only counted in the file (default ${DEFAULT_OPTIONS.captureFrames}; 0: no file)
  --loss <p> --duplicate <p> --reorder <p> --corrupt <p> --delay <p> --delay-ms <ms> --seed <n>
                        faults between each guest and the switch: probabilities 0 to 1; delayed by 10 ms
  --json                print the result as JSON on standard output, everything else on standard error
  --help                this text

Exit code 0: every frame arrived unchanged and in order (or faults were asked for) and the frame equation holds;
flooded frames that a full port had no room for are told, but no failure: a switch never waits with those.
1: it did not. 2: the command line, or a file that it names, is wrong.
`;

/** A wrong command line. */
class UsageError extends Error {}

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
    throw new UsageError(`--${name} ${text}: give a ${integer ? "whole " : ""}number from ${min} to ${max}`);
  }
  return value;
}

function readOptions(
  argv: string[],
): { options: JobOptions; file: string | undefined; capture: string; json: boolean } | null {
  const text = { type: "string" } as const;
  const flag = { type: "boolean" } as const;
  let values;
  try {
    ({ values } = parseArgs({
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
    }));
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
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

/** Finds out before any thread runs whether the capture can be written; never over the one that is read. */
async function checkWritable(capture: string, file: string | undefined): Promise<void> {
  if (file !== undefined && resolve(capture) === resolve(file))
    throw new UsageError(`--capture ${capture} is the file that is read; give another one`);
  try {
    await (await open(capture, "r+")).close();
    return;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT")
      throw new UsageError(`cannot write --capture ${capture}: ${(error as Error).message}`);
  }
  try {
    await access(dirname(capture), constants.W_OK); // it is created when the run begins
  } catch (error) {
    throw new UsageError(`cannot write --capture ${capture}: ${(error as Error).message}`);
  }
}

async function main(): Promise<number> {
  const parsed = readOptions(process.argv.slice(2));
  if (parsed === null) {
    process.stdout.write(HELP);
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
    throw new UsageError(`cannot read the capture: ${(error as Error).message}`);
  }
  if (options.captureFrames > 0) await checkWritable(capture, file);
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

main().then(
  (code) => {
    process.exitCode = code;
  },
  (error: unknown) => {
    const expected = error instanceof UsageError || error instanceof VbusError;
    if (expected) process.stderr.write(`${error.message} (npm start -- --help explains the options)\n`);
    else process.stderr.write(`${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`);
    process.exitCode = expected ? 2 : 1;
  },
);
