// Programs that come from outside of npm: finding them, and installing them where that can be done without asking.
import fs from "node:fs";
import path from "node:path";
import process from "node:process";
import { StepError, runTool } from "./step.mjs";

/** Whether the path names a file that this user may run. */
export function isExecutable(file) {
  try {
    fs.accessSync(file, fs.constants.X_OK);
    return fs.statSync(file).isFile();
  } catch (error) {
    if (["ENOENT", "EACCES", "ENOTDIR"].includes(error.code)) return false;
    throw error;
  }
}

/** The first of these names that is on PATH, as an absolute path, or undefined. */
export function findOnPath(...names) {
  const folders = (process.env.PATH ?? "").split(path.delimiter).filter((folder) => folder !== "");
  return names.flatMap((name) => folders.map((folder) => path.join(folder, name))).find(isExecutable);
}

/** Whether {@link installPackages} can do its work: as root on a system with apt. */
export function canInstall() {
  return process.getuid?.() === 0 && findOnPath("apt-get") !== undefined;
}

/**
 * Runs apt-get update. A source that cannot be read does not end it: what the others know is mostly enough, and the
 * step that asks for a package says whether it was.
 */
export async function refreshPackageLists(label, command, args, options = {}) {
  try {
    await runTool(label, command, args, options);
  } catch (error) {
    if (!(error instanceof StepError)) throw error;
    process.stderr.write(`vbus: ${label} did not reach every source; going on with those it reached\n`);
  }
}

/** Installs Debian packages. @throws {StepError} when apt cannot */
export async function installPackages(packages) {
  const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive" };
  await refreshPackageLists("refreshing Debian's package lists", "apt-get", ["update"], { env });
  const install = ["install", "-y", "--no-install-recommends", ...packages];
  await runTool(`installing ${packages.join(" and ")}`, "apt-get", install, { env });
}
