/** The README's example, run as it stands there. */
import { execFile } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import process from "node:process";
import { promisify } from "node:util";
import ts from "typescript";
import { expect, it } from "vitest";

const run = promisify(execFile);
const ROOT = path.join(import.meta.dirname, "../..");

it("the example of the README does what it shows, and ends by itself", async () => {
  const readme = fs.readFileSync(path.join(ROOT, "README.md"), "utf8");
  const examples = [...readme.matchAll(/^```ts\n(.*?)^```$/gms)].map(([, code]) => code as string);
  expect(examples).toHaveLength(1);
  const { outputText } = ts.transpileModule(examples[0]!, {
    compilerOptions: { target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ESNext },
  });
  // rejects when it does not end
  const { stdout } = await run(process.execPath, ["--input-type=module", "--eval", outputText], {
    cwd: ROOT,
    timeout: 60_000,
  });
  expect(stdout).toMatch(/136, 181,\s+42\s/);
  expect(stdout).toContain("├── nic-a\n");
});
