/** npm run bench: the benchmarks and their report. Ends with 0 when goals are missed, and with 1 when it could not measure. */
import fs from "node:fs";
import path from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { measureBlock } from "./devices/block.js";
import { measureTraffic, TRAFFIC_EFFORTS } from "./devices/traffic.js";
import { measureChecksum } from "./goals/checksum.js";
import { measureDoorbells } from "./goals/doorbells.js";
import { measureFramePath } from "./goals/frame-path.js";
import { measurePorts } from "./goals/growth-ports.js";
import { measureGrowth } from "./goals/growth.js";
import { measureNativeRing } from "./goals/native-ring.js";
import { measureRingbuf } from "./goals/ringbuf.js";
import { measureRoundTrip } from "./goals/round-trip.js";
import { measureSegmentation } from "./goals/segmentation.js";
import { runCommand } from "./harness/command-line.js";
import type { BenchContext } from "./harness/context.js";
import { EFFORTS } from "./harness/interleave.js";
import { busyWarning, machineFacts } from "./harness/machine.js";
import { NATIVE_FLAGS, NativeBench, type NativeAbsent } from "./harness/native.js";
import { ThreadPair } from "./harness/pair.js";
import { METHOD, reportHtml, summarySentence, type Report } from "./harness/report.js";
import { failedRow, GOALS, isFailed, type GoalName, type Row } from "./harness/result.js";
import { figureText, goalTable, trafficTable } from "./harness/text-table.js";
import { measureOperations } from "./operations.js";
import { HELP, parseOptions, type BenchOptions } from "./options.js";

/** This program lies in .build/bench. */
const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const MEASURES: Record<GoalName, readonly ((context: BenchContext) => Promise<Row[]>)[]> = {
  G1: [measureNativeRing],
  G3: [measureRoundTrip],
  G5: [measureRingbuf],
  G6: [measureFramePath],
  G7: [measureChecksum],
  G8: [measureSegmentation],
  G9: [measureDoorbells],
  G12: [measureGrowth, measurePorts],
};
const OPERATION_SECONDS = { quick: 0.15, normal: 1 };

function progress(what: string): void {
  process.stderr.write(process.stderr.isTTY ? `\r\u001b[2K${what} …` : `${what} …\n`);
}

function clearProgress(): void {
  if (process.stderr.isTTY) process.stderr.write("\r\u001b[2K");
}

function startNative(): NativeBench | NativeAbsent {
  return NativeBench.start(path.join(ROOT, "bench/native"), path.join(ROOT, ".build/bench/native"));
}

async function measure(options: BenchOptions): Promise<Report> {
  const begin = performance.now();
  const date = new Date().toISOString();
  const machine = machineFacts();
  let native = startNative();
  let pair = ThreadPair.start();
  const say = (text: string): void => {
    clearProgress();
    if (!options.json) console.log(text);
  };
  const effort = options.quick ? EFFORTS.quick : EFFORTS.normal;
  const rows: Row[] = [];
  try {
    for (const goal of Object.keys(GOALS) as GoalName[]) {
      if (!options.goals.has(goal)) continue;
      const found: Row[] = [];
      try {
        for (const run of MEASURES[goal]) found.push(...(await run({ effort, native, pair, progress })));
      } catch (error) {
        if (!(error instanceof Error)) throw error;
        found.push(failedRow(goal, error));
        // the goals after it get contestants that are known to answer
        if (native instanceof NativeBench) native.close();
        await pair.close();
        native = startNative();
        pair = ThreadPair.start();
      }
      say(`${goalTable(goal, found)}\n`);
      rows.push(...found);
    }
  } finally {
    if (native instanceof NativeBench) native.close();
    await pair.close();
  }
  // after the pair has gone: these have threads of their own, three at a time
  const traffic = options.devices
    ? await measureTraffic(options.quick ? TRAFFIC_EFFORTS.quick : TRAFFIC_EFFORTS.normal, progress)
    : [];
  if (traffic.length > 0) say(`${trafficTable(traffic)}\n`);
  const block = options.block ? await measureBlock(effort, options.quick, progress) : [];
  if (block.length > 0) say(`${goalTable("block", block)}\n`);
  rows.push(...block);
  const seconds = options.quick ? OPERATION_SECONDS.quick : OPERATION_SECONDS.normal;
  const operations = options.operations ? measureOperations(seconds, progress) : [];
  for (const { suite, name, ns, margin } of operations) {
    say(`${suite}: ${name}: ${figureText(ns)} ns ±${margin.toFixed(1)}%`);
  }
  clearProgress();
  return {
    format: 1,
    date,
    command: ["npm run bench --", ...process.argv.slice(2)].join(" ").replace(/ --$/, ""),
    machine,
    native:
      native instanceof NativeBench
        ? `${native.compiler}: ${NATIVE_FLAGS.join(" ")}`
        : `not measured: ${native.reason}`,
    method: [...METHOD],
    rows,
    traffic,
    operations,
    seconds: (performance.now() - begin) / 1000,
  };
}

async function main(): Promise<number> {
  const options = parseOptions(process.argv.slice(2));
  if (options.help) {
    process.stdout.write(HELP);
    return 0;
  }
  const busy = busyWarning();
  if (busy !== null) process.stderr.write(`vbus: ${busy}\n`);
  const report = await measure(options);
  const folder = path.join(ROOT, "bench/report");
  fs.mkdirSync(folder, { recursive: true });
  fs.writeFileSync(path.join(folder, "report.json"), `${JSON.stringify(report, null, 2)}\n`);
  fs.writeFileSync(path.join(folder, "report.html"), reportHtml(report));
  const failed = report.rows.filter(isFailed);
  for (const { goal, note } of failed) process.stderr.write(`${goal} ${note}\n`);
  const code = failed.length > 0 ? 1 : 0;
  if (options.json) {
    process.stdout.write(`${JSON.stringify(report, null, 2)}\n`);
    return code;
  }
  const { machine } = report;
  console.log(
    `${machine.cpu}, ${machine.cores} cores (${machine.caches}); Node ${machine.node}, V8 ${machine.v8}`,
  );
  console.log(`native: ${report.native}`);
  console.log(`load average at the beginning: ${machine.load}; took ${report.seconds.toFixed(0)} s`);
  console.log(`${summarySentence(report.rows)} Report: bench/report/report.html`);
  return code;
}

await runCommand(main, { hint: " (--help explains the options)" });
