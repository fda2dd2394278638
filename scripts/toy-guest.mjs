// The guest program of examples/toy-emulator: C sources, and the image that is built of them and lies beside them, so that the
// example runs where there is no compiler for RISC-V. The image says of which sources it was made; a test holds both together.
import crypto from "node:crypto";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { findProgram, TOY_COMPILER } from "./ensure.mjs";
import { ROOT, StepError, runTool } from "./step.mjs";

const SOURCES = path.join(ROOT, "examples/toy-emulator/guest");
/** The image, as text. */
export const TOY_IMAGE = path.join(SOURCES, "program.hex");
const BYTES_PER_LINE = 32;

const FLAGS = [
  "--target=riscv32-unknown-elf",
  "-march=rv32ima",
  "-mabi=ilp32",
  "-mno-relax",
  "-std=c11",
  "-O2",
  "-Wall",
  "-Wextra",
  "-Werror",
  "-ffreestanding",
  "-fno-builtin",
  "-nostdlib",
  "-static",
  "-Wl,--oformat=binary",
  "-Wl,--build-id=none",
];

const sources = (...kinds) =>
  fs
    .readdirSync(SOURCES)
    .filter((name) => kinds.includes(path.extname(name)))
    .sort();

/** SHA-256 of everything that the image is made of: sources and how they are compiled. */
export function toySourcesDigest() {
  const hash = crypto.createHash("sha256").update(FLAGS.join("\n"));
  for (const name of sources(".c", ".h", ".S", ".ld"))
    hash.update(`\n${name}\n`).update(fs.readFileSync(path.join(SOURCES, name)));
  return hash.digest("hex");
}

function compiler() {
  const [clang, lld] = TOY_COMPILER.map(findProgram);
  if (clang === undefined || lld === undefined)
    throw new StepError(
      "the toy emulator's guest program is compiled by clang with lld: install them with your system's package manager (Debian: apt-get install clang lld), or point VBUS_CLANG and VBUS_LLD at the binaries",
    );
  return { clang, lld };
}

/** Compiles the sources. Returns the image, and what it was compiled by. @throws {StepError} */
export async function compileToyGuest() {
  const { clang, lld } = compiler();
  const version =
    /version ([\d.]+)/.exec(await runTool("asking clang", clang, ["--version"]))?.[1] ?? "unknown";
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "vbus-toy-"));
  try {
    const out = path.join(folder, "program.bin");
    // names without folders: the image must not depend on where it is built
    await runTool(
      "compiling the toy emulator's guest program",
      clang,
      [...FLAGS, `--ld-path=${lld}`, "-T", "link.ld", "-o", out, ...sources(".S", ".c")],
      { cwd: SOURCES },
    );
    return { bytes: new Uint8Array(fs.readFileSync(out)), compiler: `clang ${version}` };
  } finally {
    fs.rmSync(folder, { recursive: true });
  }
}

/** Compiles the sources and writes the image. Returns its size in bytes. */
export async function buildToyGuest() {
  const { bytes, compiler } = await compileToyGuest();
  const lines = [
    "# The guest program of this example, as it lies in RAM from 0x80000000 on. Built by `npm run toy -- --build`.",
    `# sources: sha256 ${toySourcesDigest()}`,
    `# compiler: ${compiler}`,
  ];
  for (let at = 0; at < bytes.length; at += BYTES_PER_LINE)
    lines.push(Buffer.from(bytes.subarray(at, at + BYTES_PER_LINE)).toString("hex"));
  fs.writeFileSync(TOY_IMAGE, `${lines.join("\n")}\n`);
  return bytes.length;
}

/** What the image says of itself. */
export function toyImageOrigin() {
  const text = fs.readFileSync(TOY_IMAGE, "utf8");
  return {
    text,
    digest: /^# sources: sha256 ([0-9a-f]{64})$/m.exec(text)?.[1] ?? null,
    compiler: /^# compiler: (.+)$/m.exec(text)?.[1] ?? null,
  };
}
