/** `npm run toy`: boots the toy machine, pings it, has it flood, switches it off. */
import { readFile, writeFile } from "node:fs/promises";
import process from "node:process";
import { Lab } from "./lab.js";
import { parseProgram } from "./program.js";
import { restoreToy, saveToy } from "./saved.js";
import { StateError } from "vbus/state";
import {
  checkWritable,
  parseCommandLine,
  printHelp,
  runCommand,
  UserError,
} from "../../bench/harness/command-line.js";

/** From .build/examples/toy-emulator. */
const HELP = new URL("../../../examples/toy-emulator/help.txt", import.meta.url);

interface Options {
  image: string;
  pings: number;
  frames: number;
  size: number;
  save: string | undefined;
  load: string | undefined;
}

function readOptions(args: string[]): Options | null {
  const text = { type: "string" } as const;
  const { values, positionals } = parseCommandLine({
    args,
    options: { pings: text, frames: text, size: text, save: text, load: text, help: { type: "boolean" } },
    allowPositionals: true,
  });
  if (values.help === true) return null;
  const whole = (
    name: "pings" | "frames" | "size",
    fallback: number,
    least: number,
    most: number,
  ): number => {
    const given = values[name];
    const value = given === undefined ? fallback : Number(given);
    if (!(Number.isInteger(value) && value >= least && value <= most))
      throw new UserError(`--${name} ${String(given)}: give a whole number from ${least} to ${most}`);
    return value;
  };
  const [image] = positionals;
  if (image === undefined) throw new UserError("start this with npm run toy");
  const others = positionals.slice(1).join(" ");
  if (others !== "") throw new UserError(`${others}: there are options only; --help explains them`);
  return {
    image,
    pings: whole("pings", 100, 1, 1_000_000),
    frames: whole("frames", 5000, 1, 100_000_000),
    size: whole("size", 1514, 60, 1514),
    save: values.save,
    load: values.load,
  };
}

/** Prints what the guest prints, line by line, marked as the guest's. */
function linePrinter(): (byte: number) => void {
  let line = "";
  return (byte) => {
    if (byte !== 10) {
      line += String.fromCharCode(byte);
      return;
    }
    process.stdout.write(`guest| ${line}\n`);
    line = "";
  };
}

/** A state that was saved before. @throws UserError when it cannot be read */
async function readState(file: string): Promise<Uint8Array> {
  return readFile(file).catch((error: unknown) => {
    throw new UserError(`cannot read --load ${file}: ${(error as Error).message}`, { cause: error });
  });
}

async function run({ image, pings, frames, size, save, load }: Options): Promise<number> {
  const loaded = load === undefined ? null : await readState(load);
  if (save !== undefined) await checkWritable("--save", save);
  const errors: unknown[] = [];
  const lab = await Lab.build({
    program: parseProgram(await readFile(image, "utf8")),
    print: linePrinter(),
    onError: (error) => errors.push(error),
  });
  const { machine, peer, net, attachment } = lab;
  const began = performance.now();
  if (loaded !== null) {
    try {
      await restoreToy(machine, loaded);
    } catch (error) {
      await lab.close();
      throw error;
    }
  }
  let ended = machine.run();
  const toy = await peer.find(Uint8Array.of(10, 0, 0, 2));
  process.stdout.write(`host | the machine answers after ${(performance.now() - began).toFixed(0)} ms\n`);
  const times: number[] = [];
  for (let i = 0; i < pings; i++) times.push(await peer.ping(toy, i));
  times.sort((a, b) => a - b);
  process.stdout.write(`host | ${pings} pings, median ${(times[pings >> 1] as number).toFixed(3)} ms\n`);
  if (save !== undefined) {
    await machine.halt();
    const state = await saveToy(machine);
    await writeFile(save, state);
    process.stdout.write(`host | saved in ${save}, ${state.length} bytes\n`);
    ended = machine.run();
  }
  const before = machine.cpu.instructions;
  const flood = await peer.flood(toy, frames, size);
  const seconds = flood.ms / 1000;
  process.stdout.write(
    `host | ${flood.frames} frames of ${size} bytes in ${seconds.toFixed(2)} s: ` +
      `${(flood.frames / seconds / 1000).toFixed(1)} kframes/s, ${((flood.frames * size) / seconds / 1e6).toFixed(1)} MB/s, ` +
      `${((machine.cpu.instructions - before) / flood.ms / 1000).toFixed(0)} MIPS\n`,
  );
  await peer.powerOff(toy);
  const code = await ended;
  const { balanced } = net.balance();
  const { calls, events, interrupts, signalDoorbells } = attachment.counters();
  process.stdout.write(
    `host | ${calls} bridge calls, ${events} events, ${interrupts} interrupts, ${signalDoorbells} doorbells; ` +
      `exit code ${String(code)}, frames ${balanced ? "add up" : "do NOT add up"}\n`,
  );
  await lab.close();
  for (const error of errors) process.stderr.write(`vbus: ${String(error)}\n`);
  return code === 0 && balanced && errors.length === 0 ? 0 : 1;
}

async function main(): Promise<number> {
  const options = readOptions(process.argv.slice(2));
  if (options !== null) return run(options);
  printHelp(HELP);
  return 0;
}

await runCommand(main, { expected: [[StateError, 2]] });
