// npm run check:package: packs the package as npm would publish it, outside of the repository, has publint and attw look at
// the tarball, and runs its shoot-out from a folder that has nothing but the package and what that depends on.
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { ensure } from "./ensure.mjs";
import { ROOT, StepError, main, runProgram, runTool } from "./step.mjs";

const tool = (script) => path.join(ROOT, "node_modules", script);

/** The package in a project of its own, as an installation leaves it. Returns the file of its command. */
async function unpack(tarball, folder) {
  const modules = path.join(folder, "node_modules");
  const own = path.join(modules, "vbus");
  fs.mkdirSync(own, { recursive: true });
  await runTool("unpacking", "tar", ["-xzf", tarball, "-C", own, "--strip-components=1"]);
  const { bin, dependencies } = JSON.parse(fs.readFileSync(path.join(own, "package.json"), "utf8"));
  for (const name of Object.keys(dependencies)) {
    const place = path.join(modules, name);
    fs.mkdirSync(path.dirname(place), { recursive: true });
    fs.cpSync(tool(name), place, { recursive: true });
  }
  return path.join(own, bin.vbus);
}

/** Small samples of all that runs without a checkout: figures are worth nothing, but everybody takes part. */
async function runShootout(command, folder) {
  const out = path.join(folder, "report");
  const code = await runProgram([command, "shootout", "--tiny", "--out", out]);
  const report = JSON.parse(fs.readFileSync(path.join(out, "shootout.json"), "utf8"));
  const parts = new Set(report.studies.map(({ part }) => part));
  for (const part of ["rings", "devices"])
    if (!parts.has(part)) throw new StepError(`the packed shoot-out has no part ${part}`);
  const linux = report.absent.find(({ part }) => part === "linux");
  if (linux === undefined || linux.failed)
    throw new StepError("the packed shoot-out does not say why it has no Linux guest");
  return code;
}

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
    return await runShootout(await unpack(file, folder), folder);
  } finally {
    fs.rmSync(folder, { recursive: true, force: true });
  }
});
