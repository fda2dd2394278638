// The parts of the Linux guest that are Debian packages: an i386 kernel with its headers, a static busybox, SeaBIOS.
// They are downloaded with apt and unpacked with dpkg into the cache; nothing is installed. apt works on lists of its
// own in the cache, with i386 among the architectures: neither root nor a change of the system's settings is needed.
import fs from "node:fs";
import path from "node:path";
import process from "node:process";
import { findOnPath, refreshPackageLists } from "./programs.mjs";
import { StepError, runTool, step } from "./step.mjs";

const ARCHITECTURE = "i386";
const FLAVOUR = "686";
/** Changes when what an older version of this script unpacked is not enough. */
const FORMAT = 2;
/** What builds modules for the kernel above; Debian has the kernel's build programs for these. */
const BUILD_ARCHITECTURES = ["amd64", "i386"];

/** Tries out whether Debian packages can be fetched here. @returns {string | undefined} why not */
export function whyNoDebian() {
  if (process.platform !== "linux") return `this is ${process.platform}`;
  const missing = ["apt-get", "apt-cache", "dpkg", "dpkg-deb", "tar"].filter(
    (name) => findOnPath(name) === undefined,
  );
  if (missing.length > 0) return `this system has no ${missing.join(", ")}`;
  return undefined;
}

class Apt {
  constructor(folder) {
    for (const below of ["lists/partial", "cache/archives/partial"])
      fs.mkdirSync(path.join(folder, below), { recursive: true });
    this.folder = folder;
  }

  async prepare() {
    this.native = (await runTool("asking dpkg", "dpkg", ["--print-architecture"])).trim();
    this.options = [
      `Dir::State::Lists=${path.join(this.folder, "lists")}`,
      `Dir::Cache=${path.join(this.folder, "cache")}`,
      // Container images switch these off, and every look-up reads all lists again.
      "Dir::Cache::pkgcache=pkgcache.bin",
      "Dir::Cache::srcpkgcache=srcpkgcache.bin",
      `APT::Architectures::=${this.native}`,
      ...(this.native === ARCHITECTURE ? [] : [`APT::Architectures::=${ARCHITECTURE}`]),
      "Acquire::Languages=none",
      "APT::Sandbox::User=root",
    ].flatMap((option) => ["-o", option]);
    const update = [...this.options, "update"];
    await refreshPackageLists("fetching Debian's package lists for the guest", "apt-get", update);
  }

  /** Names of the packages that a package depends on. */
  async dependencies(name) {
    const text = await runTool(`looking up ${name}`, "apt-cache", [
      ...this.options,
      "depends",
      "--important",
      `${name}:${ARCHITECTURE}`,
    ]).catch((error) => {
      if (!(error instanceof StepError)) throw error;
      throw new StepError(
        `Debian's package lists hold no ${name}:${ARCHITECTURE}. Debian 12 is the last release with an i386 kernel: ` +
          "add its sources to apt, or give the guest's kernel with VBUS_GUEST_KERNEL and what belongs to it",
      );
    });
    return [...text.matchAll(/Depends: <?([^\s:>]+)/g)].map(([, dependency]) => dependency);
  }

  /** Downloads packages into a folder. */
  async download(names, folder) {
    fs.mkdirSync(folder, { recursive: true });
    const label = "downloading the guest's kernel, headers, busybox and BIOS (70 MB)";
    await runTool(label, "apt-get", [...this.options, "download", ...names], { cwd: folder });
    return fs.readdirSync(folder).filter((file) => file.endsWith(".deb"));
  }
}

/** The ABI name of the kernel that Debian offers now, such as 6.1.0-1-686: it moves with each point release. */
async function findRelease(apt) {
  const names = await apt.dependencies(`linux-image-${FLAVOUR}`);
  const image = names.find((name) => name.startsWith("linux-image-") && name.endsWith(`-${FLAVOUR}`));
  if (image === undefined) throw new StepError(`linux-image-${FLAVOUR} depends on no kernel image`);
  return image.slice("linux-image-".length);
}

/** The only absolute name in the headers is the one of their common half. */
function makeRelocatable(tree, release) {
  const file = path.join(tree, `usr/src/linux-headers-${release}/Makefile`);
  const text = fs.readFileSync(file, "utf8");
  const relative = text.replace(/^include \/usr\/src\//gm, "include $(dir $(lastword $(MAKEFILE_LIST)))../");
  if (relative === text)
    throw new StepError(`${file} includes nothing below /usr/src: the headers have changed`);
  fs.writeFileSync(file, relative);
}

/**
 * Fetches and unpacks the packages, or finds them from the last time. Runs under the cache's lock.
 * @param {string} cache the cache folder
 * @returns {Promise<{ tree: string, release: string, headers: string | undefined }>} the folder that is the root of all
 *   unpacked packages, the kernel's ABI name, and the folder to build modules with, on machines that can
 * @throws {StepError} when apt cannot deliver them
 */
export async function debianPackages(cache) {
  const note = path.join(cache, "debian.json");
  if (fs.existsSync(note)) {
    const known = JSON.parse(fs.readFileSync(note, "utf8"));
    if (known.format === FORMAT && fs.existsSync(path.join(cache, known.folder)))
      return describe(cache, known);
  }
  const apt = new Apt(path.join(cache, "apt"));
  await apt.prepare();
  const release = await findRelease(apt);
  const builds = BUILD_ARCHITECTURES.includes(apt.native);
  const names = [`linux-image-${release}:${ARCHITECTURE}`, `busybox-static:${ARCHITECTURE}`, "seabios"];
  if (builds) {
    const headers = `linux-headers-${release}`;
    const needed = (await apt.dependencies(headers)).filter((name) => /^linux-(headers|kbuild)-/.test(name));
    names.push(`${headers}:${ARCHITECTURE}`, ...needed);
  }
  const folder = `debian-${release}`;
  const temporary = path.join(cache, `.${folder}.${process.pid}`);
  try {
    const tree = path.join(temporary, "tree");
    const packages = path.join(temporary, "packages");
    const files = await apt.download(names, packages);
    for (const file of files)
      await runTool(`unpacking ${file}`, "dpkg", ["-x", path.join(packages, file), tree]);
    if (builds) makeRelocatable(tree, release);
    await step("removing older packages", async () => {
      fs.rmSync(path.join(cache, folder), { recursive: true, force: true });
      fs.renameSync(tree, path.join(cache, folder));
    });
    const known = { format: FORMAT, folder, release, builds, packages: files.sort() };
    fs.writeFileSync(path.join(temporary, "note"), JSON.stringify(known, null, 2));
    fs.renameSync(path.join(temporary, "note"), note);
    fs.rmSync(apt.folder, { recursive: true }); // 140 MB that would be out of date when they are needed again
    return describe(cache, known);
  } finally {
    fs.rmSync(temporary, { recursive: true, force: true });
  }
}

function describe(cache, { folder, release, builds }) {
  const tree = path.join(cache, folder);
  const headers = builds ? path.join(tree, `usr/src/linux-headers-${release}`) : undefined;
  return { tree, release, headers };
}
