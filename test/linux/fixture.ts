/** A Linux guest for a test file: started once, before its first test, and switched off after its last. */
import { afterAll, beforeAll } from "vitest";
import { Lab, type LabOptions } from "../../examples/linux/lab.js";
import { readPieces } from "../../examples/linux/pieces.js";

/** Says what is waited for, past vitest, which shows no output of a test that passes. */
export function tell(message: string): void {
  process.stderr.write(`vbus: ${message}\n`);
}

/**
 * A lab for the tests of a file (`cards`: which cards it has). The function that comes back gives it, to tests only.
 */
export function linuxLab(options: Omit<LabOptions, "pieces" | "progress"> = {}): () => Lab {
  let lab: Lab | undefined;
  beforeAll(async () => {
    lab = await Lab.open({ pieces: readPieces(), progress: tell, ...options });
  });
  afterAll(async () => {
    await lab?.close();
  });
  return () => {
    if (lab === undefined) throw new Error("the lab exists while tests run");
    return lab;
  };
}

/** `name=value` pairs that netprobe printed, behind the word that begins its line. */
export function probed(output: string, first: string): Record<string, number> {
  const line = output.split("\n").find((candidate) => candidate.startsWith(`${first} `));
  if (line === undefined) throw new Error(`netprobe did not say what it ${first}:\n${output}`);
  const result: Record<string, number> = {};
  for (const [, name = "", value] of line.matchAll(/(\w+)=(\d+)/g)) result[name] = Number(value);
  return result;
}
