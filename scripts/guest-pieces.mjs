// What the Linux guest is made of: kernel, BIOS, initramfs with busybox, modules and tools. Fetched, built and kept in
// a cache folder outside of the repository, each product under a hash of all that went into it, so that nothing is done
// twice and several checkouts can share a cache. Kernel and busybox are other people's work under the GPL: they are
// fetched on the machine that needs them and never packed with the package.
//
// Run by itself it prints where the pieces are, as JSON.
import { createHash } from "node:crypto";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { flatKernel } from "./flat-kernel.mjs";
import { debianPackages, whyNoDebian } from "./guest-debian.mjs";
import { withLock } from "./lock.mjs";
import { newc } from "./newc.mjs";
import { canInstall, findOnPath, installPackages } from "./programs.mjs";
import { ROOT, StepError, main, runTool, step } from "./step.mjs";

const DRIVER_FOLDER = path.join(ROOT, "guest/linux");
const TOOLS_FOLDER = path.join(ROOT, "guest/tools");
const HOSTILE_FOLDER = path.join(ROOT, "guest/hostile");
const INIT_FILE = path.join(ROOT, "guest/initramfs/init");

/** Loaded by init, in this order: what the emulator's own network card needs. */
const BOOT_MODULES = [
  "drivers/virtio/virtio.ko",
  "drivers/virtio/virtio_ring.ko",
  "drivers/virtio/virtio_pci_legacy_dev.ko",
  "drivers/virtio/virtio_pci_modern_dev.ko",
  "drivers/virtio/virtio_pci.ko",
  "net/core/failover.ko",
  "drivers/net/net_failover.ko",
  "drivers/net/virtio_net.ko",
];
/**
 * Lie there for those who need them, in the order to load them: 60-byte frames, VLANs, other virtio devices and transports, a
 * file system.
 */
const EXTRA_MODULES = [
  "net/core/pktgen.ko",
  "net/llc/llc.ko",
  "net/802/stp.ko",
  "net/802/garp.ko",
  "net/802/mrp.ko",
  "net/8021q/8021q.ko",
  "drivers/char/hw_random/virtio-rng.ko",
  "drivers/block/virtio_blk.ko",
  "drivers/char/virtio_console.ko",
  "drivers/virtio/virtio_mmio.ko",
  "crypto/crc32c_generic.ko",
  "lib/crc16.ko",
  "fs/mbcache.ko",
  "fs/jbd2/jbd2.ko",
  "fs/ext4/ext4.ko",
];

/** Variables that name a piece instead of fetching or building it. */
const VARIABLES = {
  kernel: ["VBUS_GUEST_KERNEL", "an i386 Linux kernel (bzImage, 6.1 is what is tested)"],
  modules: ["VBUS_GUEST_MODULES", "its modules: the folder that holds kernel/drivers/virtio and so on"],
  headers: ["VBUS_GUEST_KDIR", "the build folder of that kernel, to build the drivers with"],
  drivers: [
    "VBUS_GUEST_DRIVERS",
    "instead of the build folder: a folder with vbus.ko, venet.ko, virtio_vbus.ko, vblk.ko and vconsole.ko for that kernel",
  ],
  busybox: ["VBUS_GUEST_BUSYBOX", "a static i386 busybox"],
  bios: ["VBUS_GUEST_BIOS", "SeaBIOS (bios.bin, 128 KiB)"],
  vgaBios: ["VBUS_GUEST_VGABIOS", "SeaBIOS's vgabios-stdvga.bin; may be left out"],
  tools: ["VBUS_GUEST_TOOLS", "instead of a compiler: the program that guest/tools builds, for i386"],
  hostile: ["VBUS_GUEST_HOSTILE", "instead of a compiler: the multiboot program that guest/hostile builds"],
};

/** What a folder with drivers holds; whatever else is in it is none of ours. */
const DRIVERS = ["vblk.ko", "vbus.ko", "vconsole.ko", "venet.ko", "virtio_vbus.ko"];
/** Pieces that are folders, and what has to be in them; the others are files. */
const FOLDERS = { modules: ["kernel"], headers: ["Module.symvers"], drivers: DRIVERS };

/** Where everything is kept: VBUS_CACHE, or the user's cache folder. */
export function cacheFolder() {
  const given = process.env.VBUS_CACHE;
  if (given !== undefined && given !== "") return path.resolve(given);
  const home = process.env.XDG_CACHE_HOME;
  const base = home !== undefined && path.isAbsolute(home) ? home : path.join(os.homedir(), ".cache");
  return path.join(base, "vbus");
}

/** The cache folder, made when it is not there. @throws {StepError} when it cannot be written */
function ensureCacheFolder() {
  const folder = cacheFolder();
  try {
    fs.mkdirSync(folder, { recursive: true });
    fs.accessSync(folder, fs.constants.W_OK);
  } catch (error) {
    throw new StepError(
      `the cache folder ${folder} cannot be used (${error.message}): set VBUS_CACHE to a folder that can be written`,
    );
  }
  return folder;
}

/** The files and folders that the environment names, checked to be there, and to be that. */
function givenPieces() {
  const given = {};
  for (const [piece, [variable]] of Object.entries(VARIABLES)) {
    const file = process.env[variable];
    if (file === undefined || file === "") continue;
    const refuse = (why) => new StepError(`${variable} is set to ${file}, ${why}: correct or unset it`);
    const found = fs.statSync(file, { throwIfNoEntry: false });
    if (found === undefined) throw refuse("which does not exist");
    const content = FOLDERS[piece];
    const wanted = content === undefined ? "file" : "folder";
    if (found.isDirectory() !== (wanted === "folder")) throw refuse(`which is no ${wanted}`);
    const missing = (content ?? []).filter((name) => !fs.existsSync(path.join(file, name)));
    if (missing.length > 0) throw refuse(`which lacks ${missing.join(", ")}`);
    given[piece] = path.resolve(file);
  }
  return given;
}

const explain = (pieces) =>
  pieces.map((piece) => `\n  ${VARIABLES[piece][0]}: ${VARIABLES[piece][1]}`).join("");

const hasDriver = () => fs.existsSync(path.join(DRIVER_FOLDER, "Makefile"));

/** A kernel, its modules and its drivers only work together: all are given or none. */
function checkKernelGroup(given) {
  if (given.kernel === undefined) {
    const orphan = ["modules", "headers"].find((piece) => given[piece] !== undefined);
    if (orphan !== undefined)
      throw new StepError(
        `${VARIABLES[orphan][0]} is set but ${VARIABLES.kernel[0]} is not: give both or neither`,
      );
    return;
  }
  const missing = [];
  if (given.modules === undefined) missing.push("modules");
  if (hasDriver() && given.headers === undefined && given.drivers === undefined)
    missing.push("headers", "drivers");
  if (missing.length > 0)
    throw new StepError(
      `${VARIABLES.kernel[0]} is set, but what belongs to that kernel is not:${explain(missing)}`,
    );
}

/** Fetches from Debian what the environment does not name. */
async function sourcePieces(cache) {
  const given = givenPieces();
  checkKernelGroup(given);
  const missing = ["kernel", "busybox", "bios"].filter((piece) => given[piece] === undefined);
  if (missing.length === 0) return { vgaBios: undefined, headers: undefined, ...given };
  const reason = whyNoDebian();
  if (reason !== undefined) {
    const wanted = missing.includes("kernel") ? ["kernel", "modules", "headers", "drivers"] : [];
    wanted.push(...missing.filter((piece) => piece !== "kernel"), "vgaBios", "tools", "hostile");
    throw new StepError(
      `the Linux guest needs files that are fetched by themselves on Debian 12 only, and ${reason}. ` +
        `Get them from a Debian package mirror or another machine and set${explain(wanted)}`,
    );
  }
  const { tree, release, headers } = await debianPackages(cache);
  const seabios = path.join(tree, "usr/share/seabios");
  const fetched = {
    busybox: path.join(tree, "bin/busybox"),
    bios: path.join(seabios, "bios.bin"),
    vgaBios: path.join(seabios, "vgabios-stdvga.bin"),
  };
  if (given.kernel === undefined) {
    fetched.kernel = path.join(tree, `boot/vmlinuz-${release}`);
    fetched.modules = path.join(tree, `lib/modules/${release}`);
    fetched.headers = headers;
  }
  // A VGA BIOS from elsewhere is as good, but the BIOS and its VGA BIOS should be of one kind.
  if (given.bios !== undefined) delete fetched.vgaBios;
  return { headers: undefined, vgaBios: undefined, ...fetched, ...given };
}

/** The programs that building takes; installed where this can be done without asking. */
async function buildPrograms(needed) {
  const find = () => ({
    gcc: findOnPath("gcc-12", "gcc"),
    make: findOnPath("make"),
    xz: findOnPath("xz"),
  });
  const packages = { gcc: "gcc", make: "make", xz: "xz-utils" };
  const absent = needed.filter((name) => find()[name] === undefined);
  if (absent.length > 0) {
    const names = absent.map((name) => packages[name]);
    if (!canInstall())
      throw new StepError(
        `the Linux guest is built with ${absent.join(", ")}: install with your system's package manager (Debian: ` +
          `apt-get install ${names.join(" ")}), or give the finished files:${explain(["drivers", "tools", "hostile"])}`,
      );
    await installPackages(names);
    const still = needed.filter((name) => find()[name] === undefined);
    if (still.length > 0) throw new StepError(`${still.join(", ")}: installed, but not on PATH`);
  }
  return find();
}

/** A hash of texts, and of files by their content. */
class Key {
  constructor(name) {
    this.hash = createHash("sha256").update(name);
  }

  text(...texts) {
    for (const text of texts) this.hash.update(`\0${text.length}\0${text}`);
    return this;
  }

  file(...files) {
    for (const file of files) {
      const content = fs.readFileSync(file);
      this.hash.update(`\0${content.length}\0`).update(content);
    }
    return this;
  }

  toString() {
    return this.hash.copy().digest("hex").slice(0, 16);
  }
}

/** Files below a folder that are in the repository's care: no build products, in order. */
function sourcesBelow(folder, pattern) {
  return fs
    .readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && pattern.test(entry.name))
    .map((entry) => path.relative(folder, path.join(entry.parentPath, entry.name)))
    .sort();
}

/**
 * A product is a file or a folder that appears at once: made under another name in the same folder and renamed.
 * `make(temporary)` writes it there.
 */
async function product(cache, name, make) {
  const final = path.join(cache, name);
  if (fs.existsSync(final)) return final;
  const temporary = path.join(cache, `.${name}.${process.pid}`);
  fs.rmSync(temporary, { recursive: true, force: true });
  try {
    await make(temporary);
    fs.renameSync(temporary, final);
  } finally {
    fs.rmSync(temporary, { recursive: true, force: true });
  }
  return final;
}

/** Removes products of the same kind but the `keep` youngest: an edited driver leaves one behind each time. */
function prune(cache, prefix, keep) {
  const old = fs
    .readdirSync(cache)
    .filter((name) => name.startsWith(prefix))
    .map((name) => ({ name, time: fs.statSync(path.join(cache, name)).mtimeMs }))
    .sort((a, b) => b.time - a.time)
    .slice(keep);
  for (const { name } of old) fs.rmSync(path.join(cache, name), { recursive: true, force: true });
}

async function makeKernel(cache, kernel, xz) {
  const key = new Key("kernel 1")
    .file(kernel, path.join(ROOT, "scripts/flat-kernel.mjs"))
    .text(xz === undefined);
  return product(cache, `kernel-${key}`, (temporary) =>
    step("unpacking the guest's kernel", async () => {
      const image = fs.readFileSync(kernel);
      const flat = flatKernel(image, xz);
      if (flat === undefined)
        process.stderr.write(
          "vbus: the guest's kernel is compressed in an unknown way: it unpacks itself, slowly\n",
        );
      fs.writeFileSync(temporary, flat ?? image);
    }),
  );
}

/** Compiler as its version, which is what changes the result. */
async function versionOf(program) {
  return (await runTool(`asking ${path.basename(program)}`, program, ["--version"])).split("\n")[0];
}

/** The drivers of guest/linux for the guest's kernel, stripped. @returns {Promise<string[]>} the .ko files */
async function makeDrivers(cache, { drivers, headers }, { gcc, make }) {
  if (drivers !== undefined) return DRIVERS.map((name) => path.join(drivers, name));
  if (!hasDriver()) return [];
  if (headers === undefined) {
    throw new StepError(
      `the drivers of the guest cannot be built on this kind of machine:${explain(["headers", "drivers"])}`,
    );
  }
  if (/\s/.test(headers) || /\s/.test(cache))
    throw new StepError(
      `the kernel's Makefiles cannot work below ${cache}: set VBUS_CACHE to a folder without spaces`,
    );
  const sources = sourcesBelow(DRIVER_FOLDER, /^(Makefile|Kbuild|.*\.[chS])$/).filter(
    (name) => !name.endsWith(".mod.c"),
  );
  const key = new Key("drivers 1")
    .text(await versionOf(gcc), ...sources)
    .file(...sources.map((name) => path.join(DRIVER_FOLDER, name)), path.join(headers, "Module.symvers"));
  const folder = await product(cache, `drivers-${key}`, async (temporary) => {
    const build = `${temporary}.build`;
    fs.rmSync(build, { recursive: true, force: true });
    try {
      for (const name of sources) {
        fs.mkdirSync(path.dirname(path.join(build, name)), { recursive: true });
        fs.copyFileSync(path.join(DRIVER_FOLDER, name), path.join(build, name));
      }
      const jobs = String(os.availableParallelism());
      const args = ["-C", headers, `M=${build}`, `CC=${gcc}`, `-j${jobs}`, "modules"];
      // What an enclosing make left in the environment is not meant for this one.
      const env = { ...process.env, MAKEFLAGS: "", ARCH: "", CROSS_COMPILE: "" };
      await runTool("building the guest's drivers", make, args, { cwd: build, env });
      fs.mkdirSync(temporary);
      for (const name of sourcesBelow(build, /\.ko$/)) {
        const module = path.join(temporary, path.basename(name));
        fs.copyFileSync(path.join(build, name), module);
        await runTool("stripping the guest's drivers", "strip", ["-g", module]);
      }
    } finally {
      fs.rmSync(build, { recursive: true, force: true });
    }
  });
  prune(cache, "drivers-", 8);
  return sourcesBelow(folder, /\.ko$/).map((name) => path.join(folder, name));
}

/** For programs that need no C library (nor libgcc: there is none for i386). */
const FREESTANDING = [
  ...["-m32", "-march=i686", "-O2", "-static", "-nostdlib", "-ffreestanding", "-fno-pic", "-no-pie"],
  ...["-fno-stack-protector", "-fno-asynchronous-unwind-tables", "-Wall", "-Wextra", "-Werror", "-s"],
];
/** A multiboot loader looks for its header in the first 8 KiB of the file: no padding to pages. */
const MULTIBOOT = ["-Wl,-n,-Ttext=0x200000,--build-id=none,--no-warn-rwx-segments"];

/** One static i386 program from all sources of a folder. */
async function makeProgram(cache, { name, what, folder, flags }, { gcc }) {
  const sources = sourcesBelow(folder, /\.[chS]$/);
  const key = new Key(`${name} 1`)
    .text(await versionOf(gcc), ...flags, ...sources)
    .file(...sources.map((source) => path.join(folder, source)));
  const units = sources.filter((source) => source.endsWith(".c")).map((source) => path.join(folder, source));
  const program = await product(cache, `${name}-${key}`, (temporary) =>
    runTool(`building ${what}`, gcc, [...flags, "-o", temporary, ...units]),
  );
  prune(cache, `${name}-`, 8);
  return program;
}

/** The guest's measuring tools. */
async function makeTools(cache, { tools }, programs) {
  if (tools !== undefined) return tools;
  const what = "the guest's tools";
  return makeProgram(cache, { name: "tools", what, folder: TOOLS_FOLDER, flags: FREESTANDING }, programs);
}

/** The guest that wishes its host ill. */
async function makeHostile(cache, { hostile }, programs) {
  if (hostile !== undefined) return hostile;
  const flags = [...FREESTANDING, "-fno-builtin", ...MULTIBOOT];
  const what = "the hostile guest";
  return makeProgram(cache, { name: "hostile", what, folder: HOSTILE_FOLDER, flags }, programs);
}

async function makeInitrd(cache, { busybox, modules, drivers, tools }) {
  const folders = [
    "bin",
    "dev",
    "etc",
    "lib",
    "lib/modules",
    "lib/vbus",
    "mnt",
    "proc",
    "root",
    "sys",
    "tmp",
  ];
  const stock = [...BOOT_MODULES, ...EXTRA_MODULES].map((name) => ({
    name: `lib/modules/${path.basename(name)}`,
    content: fs.readFileSync(path.join(modules, "kernel", name)),
    mode: 0o644,
  }));
  const list = BOOT_MODULES.map((name) => `${path.basename(name)}\n`).join("");
  const archive = newc([
    ...folders.map((name) => ({ name })),
    { name: "dev/console", mode: 0o600, device: [5, 1] },
    { name: "init", content: fs.readFileSync(INIT_FILE) },
    { name: "bin/busybox", content: fs.readFileSync(busybox) },
    { name: "bin/netprobe", content: fs.readFileSync(tools) },
    { name: "etc/modules", content: Buffer.from(list), mode: 0o644 },
    ...stock,
    ...drivers.map((file) => ({
      name: `lib/vbus/${path.basename(file)}`,
      content: fs.readFileSync(file),
      mode: 0o644,
    })),
  ]);
  const key = createHash("sha256").update(archive).digest("hex").slice(0, 16);
  const initrd = await product(cache, `initrd-${key}`, async (temporary) =>
    fs.writeFileSync(temporary, archive),
  );
  prune(cache, "initrd-", 8);
  return initrd;
}

/**
 * Fetches and builds whatever is missing or stale. Two processes at once do the work once.
 * @returns {Promise<{ kernel: string, initrd: string, bios: string, vgaBios?: string, cache: string, hostile: string,
 *   drivers: string[], sources: Record<string, string>, key: string }>} absolute file names; `key` changes whenever the
 *   content of any of them but `hostile` does; `sources` are what the variables of this script would name
 * @throws {StepError} that says what is missing and how to give it
 */
export function guestPieces() {
  const cache = ensureCacheFolder();
  return withLock(path.join(cache, ".lock"), "another process that makes the guest's pieces", async () => {
    const source = await sourcePieces(cache);
    const needed = ["xz"];
    if (source.tools === undefined || source.hostile === undefined) needed.push("gcc");
    if (source.drivers === undefined && hasDriver()) needed.push("gcc", "make");
    const programs = await buildPrograms([...new Set(needed)]);
    const kernel = await makeKernel(cache, source.kernel, programs.xz);
    const drivers = await makeDrivers(cache, source, programs);
    const tools = await makeTools(cache, source, programs);
    const hostile = await makeHostile(cache, source, programs);
    const initrd = await makeInitrd(cache, { ...source, drivers, tools });
    const bios = source.vgaBios === undefined ? [source.bios] : [source.bios, source.vgaBios];
    const key = new Key("pieces 1").text(path.basename(kernel), path.basename(initrd)).file(...bios);
    return {
      kernel,
      initrd,
      bios: source.bios,
      ...(source.vgaBios === undefined ? {} : { vgaBios: source.vgaBios }),
      cache,
      hostile,
      drivers: drivers.map((file) => path.basename(file)),
      sources: {
        kernel: source.kernel,
        modules: source.modules,
        busybox: source.busybox,
        tools,
        ...(drivers.length === 0 ? {} : { drivers: path.dirname(drivers[0]) }),
      },
      key: key.toString(),
    };
  });
}

/** The environment variable in which programs are told where the pieces are, as JSON. */
export const PIECES_VARIABLE = "VBUS_GUEST_PIECES";

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await main(async () => {
    console.log(JSON.stringify(await guestPieces(), null, 2));
  });
}
