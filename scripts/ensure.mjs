// What every entry point does first: the right Node, the dependencies, the build; for tests the programs that
// come from outside of npm. Node built-ins only.
import fs from "node:fs";
import path from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { build } from "./build.mjs";
import { canInstall, findOnPath, installPackages, isExecutable } from "./programs.mjs";
import { ROOT, StepError, main, runTool } from "./step.mjs";

const MINIMUM_NODE = [20, 19];

/** What compiles the toy emulator's guest program, which lies there compiled: Debian package, variable, names as below. */
export const TOY_COMPILER = [
  { package: "clang", variable: "VBUS_CLANG", names: ["clang"] },
  { package: "lld", variable: "VBUS_LLD", names: ["ld.lld"] },
];

/** Programs that tests start: Debian package, environment variable that names a binary, names to look for. */
const TEST_PROGRAMS = [
  ...TOY_COMPILER,
  {
    package: "chromium",
    variable: "VBUS_CHROMIUM",
    names: ["chromium", "chromium-browser", "google-chrome-stable", "google-chrome"],
  },
  { package: "tshark", variable: "VBUS_TSHARK", names: ["tshark"] },
  { package: "e2fsprogs", variable: "VBUS_MKE2FS", names: ["mke2fs"] },
  { package: "e2fsprogs", variable: "VBUS_E2FSCK", names: ["e2fsck"] },
  { package: "e2fsprogs", variable: "VBUS_DEBUGFS", names: ["debugfs"] },
  { package: "grub-common", variable: "VBUS_GRUB_MKIMAGE", names: ["grub-mkimage"] },
  // no program, but what grub-mkimage makes one of
  { package: "grub-pc-bin", variable: "VBUS_GRUB_MODULES", folder: "/usr/lib/grub/i386-pc" },
];

function checkNode() {
  const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);
  if (major > MINIMUM_NODE[0] || (major === MINIMUM_NODE[0] && minor >= MINIMUM_NODE[1])) return;
  throw new StepError(
    `Node ${MINIMUM_NODE.join(".")} or newer is needed, this is ${process.versions.node}: install a newer Node.js and run the command again`,
  );
}

/** Whether everything the lock file asks for (but other platforms' optional binaries) is installed in that version. */
function isInstalled(lock, installed) {
  const read = (file) => JSON.parse(fs.readFileSync(file, "utf8")).packages;
  const present = read(installed);
  return Object.entries(read(lock)).every(
    ([folder, { version, optional, devOptional, peer }]) =>
      folder === "" ||
      present[folder]?.version === version ||
      (present[folder] === undefined && (optional || devOptional || peer)),
  );
}

async function ensureDependencies() {
  const lock = path.join(ROOT, "package-lock.json");
  const installed = path.join(ROOT, "node_modules", ".package-lock.json");
  if (fs.existsSync(installed)) {
    if (fs.statSync(installed).mtimeMs >= fs.statSync(lock).mtimeMs) return;
    // A checkout gives the lock file a new time even when it did not change.
    if (isInstalled(lock, installed)) return;
  }
  const npm = process.platform === "win32" ? "npm.cmd" : "npm";
  await runTool("installing the dependencies (npm ci)", npm, ["ci", "--no-audit", "--no-fund"], {
    shell: process.platform === "win32",
  });
}

/** Where a program is: what its variable names, or what is on PATH; undefined when it is not there. A folder likewise. */
export function findProgram({ variable, names, folder }) {
  const given = process.env[variable];
  const isFolder = (name) => fs.statSync(name, { throwIfNoEntry: false })?.isDirectory() === true;
  if (given !== undefined && given !== "") {
    if (folder === undefined ? isExecutable(given) : isFolder(given)) return given;
    const what = folder === undefined ? "an executable file" : "a folder";
    throw new StepError(`${variable} is set to ${given}, which is not ${what}: correct or unset it`);
  }
  if (folder !== undefined) return isFolder(folder) ? folder : undefined;
  // file system tools are there for everybody, but not on everybody's PATH
  return findOnPath(...names) ?? names.map((name) => path.join("/usr/sbin", name)).find(isExecutable);
}

/**
 * Finds programs, installing them where this can be done without asking: as root on a system with apt.
 * @param {typeof TEST_PROGRAMS} wanted which
 * @param {string} needed begins the sentence that says what is missing
 * @returns {Promise<Record<string, string>>} their variables, for the environment of whoever starts them
 */
export async function ensurePrograms(wanted, needed) {
  const missing = wanted.filter((program) => findProgram(program) === undefined);
  if (missing.length > 0) {
    const packages = [...new Set(missing.map((program) => program.package))];
    const variables = missing.map((program) => program.variable).join(" and ");
    if (!canInstall()) {
      throw new StepError(
        `${needed} ${packages.join(" and ")}: install with your system's package manager (Debian: ` +
          `apt-get install ${packages.join(" ")}), or point ${variables} at what is there`,
      );
    }
    await installPackages(packages);
  }
  const found = {};
  for (const program of wanted) {
    const file = findProgram(program);
    if (file === undefined) {
      const absent =
        program.folder === undefined
          ? `none of ${program.names.join(", ")} is on PATH`
          : `there is no ${program.folder}`;
      throw new StepError(`${program.package} was installed but ${absent}: set ${program.variable}`);
    }
    found[program.variable] = file;
  }
  return found;
}

/** Everything that tests start. */
export function ensureTestPrograms() {
  return ensurePrograms(TEST_PROGRAMS, "the tests need");
}

/**
 * Checks Node, installs the dependencies when they are missing or older than the lock file, builds what is stale; without
 * `bench` not what only benchmarks take, which is half of the time of a first build.
 */
export async function ensure({ programs = true, bench = true, building = true } = {}) {
  checkNode();
  await ensureDependencies();
  if (building) await build({ programs, bench });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await main(() => ensure({ building: !process.argv.includes("--no-build") }));
}
