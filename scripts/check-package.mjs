// npm run check:package: packs the package as npm would publish it, outside of the repository, and has publint and
// attw look at the tarball.
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { ensure } from "./ensure.mjs";
import { ROOT, StepError, main, runProgram, runTool } from "./step.mjs";

const tool = (script) => path.join(ROOT, "node_modules", script);

await main(async () => {
  await ensure();
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "vbus-package-"));
  try {
    await runTool("packing", "npm", ["pack", "--pack-destination", folder]);
    const tarball = fs.readdirSync(folder).find((name) => name.endsWith(".tgz"));
    if (tarball === undefined) throw new StepError("npm pack wrote no tarball");
    const file = path.join(folder, tarball);
    console.log(`${tarball}: ${(fs.statSync(file).size / 1024).toFixed(0)} KiB`);
    const checks = [
      [tool("publint/src/cli.js"), file, "--strict"],
      // The wasm files are for those who fetch them by URL; they have no types.
      [
        tool("@arethetypeswrong/cli/dist/index.js"),
        file,
        "--profile",
        "esm-only",
        "--format",
        "table-flipped",
        "--no-emoji",
        "--exclude-entrypoints",
        "./vbus.wasm",
        "./vbus.shared.wasm",
      ],
    ];
    for (const check of checks) {
      const code = await runProgram(check);
      if (code !== 0) return code;
    }
    return 0;
  } finally {
    fs.rmSync(folder, { recursive: true, force: true });
  }
});
