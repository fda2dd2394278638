/** The scripts that fetch and build what the guest is made of, as a user meets them. */
import {
  copyFileSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { readPieces, type Pieces } from "../../examples/linux/pieces.js";
import { environmentWithout, runProgram, type Outcome } from "../support/program.js";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const PIECES = join(ROOT, "scripts/guest-pieces.mjs");
const START = join(ROOT, "scripts/start.mjs");
const GUEST = join(ROOT, "scripts/guest.mjs");

let folder: string;
let cache: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "vbus-pieces-"));
  cache = join(folder, "cache");
});

afterEach(() => {
  rmSync(folder, { recursive: true });
});

const run = (script: string, args: string[], variables: Record<string, string>): Promise<Outcome> =>
  runProgram(script, args, {
    cwd: folder,
    env: environmentWithout("VBUS_GUEST_", { VBUS_CACHE: cache, ...variables }),
  });

/** A folder with a few programs, to be the whole PATH of a system that has no others. */
function pathWith(...names: string[]): string {
  const bin = mkdtempSync(join(folder, "bin-"));
  for (const name of names) {
    const found = (process.env.PATH ?? "")
      .split(delimiter)
      .map((candidate) => join(candidate, name))
      .find((candidate) => existsSync(candidate));
    if (found === undefined) throw new Error(`there is no ${name} here`);
    symlinkSync(found, join(bin, name));
  }
  return bin;
}

/** The variables that give every piece. */
function everything(): Record<string, string> {
  const { sources, bios, vgaBios, hostile } = readPieces();
  return {
    VBUS_GUEST_KERNEL: sources.kernel,
    VBUS_GUEST_MODULES: sources.modules,
    VBUS_GUEST_BUSYBOX: sources.busybox,
    VBUS_GUEST_TOOLS: sources.tools,
    VBUS_GUEST_BIOS: bios,
    VBUS_GUEST_HOSTILE: hostile,
    ...(sources.drivers === undefined ? {} : { VBUS_GUEST_DRIVERS: sources.drivers }),
    ...(vgaBios === undefined ? {} : { VBUS_GUEST_VGABIOS: vgaBios }),
  };
}

describe("the pieces of the guest", () => {
  it("are made from given files alone, where nothing can be fetched or compiled", async () => {
    const { code, out, err } = await run(PIECES, [], { ...everything(), PATH: pathWith("xz") });
    expect(err).not.toContain("downloading");
    expect(code).toBe(0);
    const made = JSON.parse(out) as Pieces;
    const known = readPieces();
    expect(made.cache).toBe(cache);
    expect(made.key).toBe(known.key);
    expect(readFileSync(made.initrd).equals(readFileSync(known.initrd))).toBe(true);
    expect(readFileSync(made.kernel).equals(readFileSync(known.kernel))).toBe(true);
  });

  it("are made once by two processes at the same time, and nothing is left behind", async () => {
    const outcomes = await Promise.all([1, 2, 3].map(() => run(PIECES, [], everything())));
    for (const { code, out } of outcomes) {
      expect(code).toBe(0);
      expect(out).toBe(outcomes[0]!.out);
    }
    const left = readdirSync(cache).map((name) => name.replace(/-[0-9a-f]{16}$/, ""));
    expect(left.sort()).toEqual(["initrd", "kernel"]);
  });

  it("have another key when one of them is another", async () => {
    const other = join(folder, "bios.bin");
    const bios = readFileSync(readPieces().bios);
    bios[bios.length - 1]! ^= 1;
    writeFileSync(other, bios);
    const { code, out } = await run(PIECES, [], { ...everything(), VBUS_GUEST_BIOS: other });
    expect(code).toBe(0);
    expect((JSON.parse(out) as Pieces).key).not.toBe(readPieces().key);
  });

  it("that cannot be fetched here are listed, with the variables that give them", async () => {
    const { code, out, err } = await run(PIECES, [], { PATH: pathWith("xz") });
    expect({ code, out }).toEqual({ code: 1, out: "" });
    expect(err).toContain("this system has no apt-get");
    for (const name of ["KERNEL", "MODULES", "KDIR", "DRIVERS", "BUSYBOX", "BIOS", "TOOLS"])
      expect(err).toContain(`VBUS_GUEST_${name}: `);
    expect(err).not.toContain("    at "); // no stack
  });

  it("that are given but not there are named", async () => {
    const missing = join(folder, "no such file");
    const { code, err } = await run(PIECES, [], { ...everything(), VBUS_GUEST_BUSYBOX: missing });
    expect(code).toBe(1);
    expect(err).toBe(
      `vbus: VBUS_GUEST_BUSYBOX is set to ${missing}, which does not exist: correct or unset it\n`,
    );
  });

  it("of a kernel are given together or not at all", async () => {
    const { VBUS_GUEST_KERNEL: kernel = "", VBUS_GUEST_MODULES: modules = "" } = everything();
    const without = await run(PIECES, [], { VBUS_GUEST_KERNEL: kernel });
    expect(without.code).toBe(1);
    expect(without.err).toContain("VBUS_GUEST_MODULES: its modules");
    const orphan = await run(PIECES, [], { VBUS_GUEST_MODULES: modules });
    expect(orphan.code).toBe(1);
    expect(orphan.err).toContain("VBUS_GUEST_MODULES is set but VBUS_GUEST_KERNEL is not");
  });

  it("that are no kernel are refused", async () => {
    const file = join(folder, "vmlinuz");
    copyFileSync(readPieces().bios, file);
    const { code, err } = await run(PIECES, [], { ...everything(), VBUS_GUEST_KERNEL: file });
    expect(code).toBe(1);
    expect(err).toContain("the kernel is not a bzImage");
  });
});

describe("npm start", () => {
  it("does the TypeScript run where no Linux guest can be had, and says so in its first line", async () => {
    const { code, out } = await run(START, ["--rounds", "3"], { PATH: pathWith("xz") });
    expect(out.split("\n")[0]).toMatch(
      /^vbus: no Linux guest here, so this is the run with guests in TypeScript: /,
    );
    expect(out).toContain("switch");
    expect(code).toBe(0);
  });

  it("does that run when asked to, or given an option that only it has", async () => {
    const asked = await run(START, ["--replay", "--help"], {});
    expect(asked.code).toBe(0);
    expect(asked.out).toContain("--repetitions");
    const given = await run(
      START,
      ["--repetitions", "1", "--rounds", "2", "--capture-frames", "0", "--json"],
      {},
    );
    expect(given.code).toBe(0);
    expect(JSON.parse(given.out)).toBeTypeOf("object");
  });

  it("explains the experiment otherwise, and how to get the other run", async () => {
    const { code, out } = await run(START, ["--help"], {});
    expect(code).toBe(0);
    expect(out).toContain("--nics");
    expect(out).toContain("--replay");
  });
});

describe("npm run guest", () => {
  it.each([
    { what: "a card that there is none of", args: ["--nics", "eth3"], why: "there are eth0, eth1, eth2" },
    { what: "an MTU beyond all frames", args: ["--mtu", "70000"], why: "give a number from 68 to 65000" },
    { what: "an unknown option", args: ["--fast"], why: "--fast" },
    { what: "half a round", args: ["--rounds", "1.5"], why: "--rounds 1.5" },
  ])("refuses $what", async ({ args, why }) => {
    const { code, out, err } = await run(GUEST, args, everything());
    expect({ code, out }).toEqual({ code: 2, out: "" });
    expect(err).toContain(why);
  });

  it("measures a card and prints the result as JSON, with all that crossed it in a capture", async () => {
    const capture = join(folder, "eth0.pcapng");
    const args = ["--nics", "eth0", "--seconds", "0.2", "--rounds", "1", "--warm-up", "0", "--seed", "7"];
    const variables = { VBUS_CACHE: readPieces().cache };
    const { code, out, err } = await run(GUEST, [...args, "--json", "--capture", capture], variables);
    expect(code, err).toBe(0);
    const result = JSON.parse(out) as { rows: { title: string; values: { eth0: number; eth1?: number } }[] };
    expect(result.rows.map(({ title }) => title)).toEqual([
      "ping, median",
      "60-byte frames out",
      "TCP out",
      "TCP in",
    ]);
    for (const { title, values } of result.rows) {
      expect(values.eth0, title).toBeGreaterThan(0);
      expect(values.eth1, title).toBeUndefined();
    }
    expect(readFileSync(capture).length).toBeGreaterThan(100_000);
  });
});
