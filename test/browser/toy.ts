/** The toy machine in a browser: boots, answers, floods, switches itself off. */
import { Lab } from "../../examples/toy-emulator/lab.js";
import { parseProgram } from "../../examples/toy-emulator/program.js";
import type { ToyOutcome } from "./outcome.js";

const FRAMES = 500;

/** Runs everything that the guest can do. */
export async function runToy(): Promise<ToyOutcome> {
  const response = await fetch(new URL("/toy.hex", location.href));
  const errors: string[] = [];
  let printed = "";
  const lab = await Lab.build({
    program: parseProgram(await response.text()),
    print: (byte) => (printed += String.fromCharCode(byte)),
    onError: (error) => errors.push(String(error)),
  });
  const ended = lab.machine.run();
  const toy = await lab.peer.find(Uint8Array.of(10, 0, 0, 2));
  await lab.peer.ping(toy, 1);
  const { frames } = await lab.peer.flood(toy, FRAMES, 1514);
  await lab.peer.powerOff(toy);
  const exitCode = await ended;
  const { balanced } = lab.net.balance();
  await lab.close();
  return { isolated: crossOriginIsolated, printed, frames, exitCode, balanced, errors };
}
