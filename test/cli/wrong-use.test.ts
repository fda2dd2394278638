/** Mistakes on command lines, as users make them: one sentence, exit code 2, no stack, and nothing is begun. */
import {
  copyFileSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { environmentWithout, runProgram, type Outcome } from "../support/program.js";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const GUEST = [".build/examples/linux/main.js"];
const TOY = [".build/examples/toy-emulator/main.js", join(ROOT, "examples/toy-emulator/guest/program.hex")];
const SHOOTOUT = ["dist/bindings/cli/vbus.js", "shootout"];
const INSPECT = ["dist/bindings/cli/vbus.js", "inspect"];
const PIECES = ["scripts/guest-pieces.mjs"];

let folder: string;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "vbus-cli-"));
  mkdirSync(join(folder, "empty"));
  writeFileSync(join(folder, "file"), "a file");
  writeFileSync(join(folder, "image"), new Uint8Array(4096));
  symlinkSync("image", join(folder, "link"));
});

afterAll(() => {
  rmSync(folder, { recursive: true });
});

/** Runs a program of the project in the test's folder. */
const run = (program: string, args: string[], variables: Record<string, string> = {}): Promise<Outcome> =>
  runProgram(program, args, {
    cwd: folder,
    env: environmentWithout("VBUS_", variables),
    timeoutMs: 120_000,
  });

/** As far as these tests get no guest is made of them. */
const SOME_PIECES = { VBUS_GUEST_PIECES: JSON.stringify({ drivers: ["vbus.ko", "venet.ko"] }) };

type Case = readonly [what: string, program: readonly string[], args: string, told: RegExp];

const CASES: readonly Case[] = [
  ["a capture to nowhere", GUEST, "--capture no/such/x.pcapng", /cannot write --capture no\/such\/x.pcapng: ENOENT/],
  ["a capture to a folder, with a shell", GUEST, "--shell --capture empty", /cannot write --capture empty: EISDIR/],
  ["a capture to a folder, of two guests", GUEST, "--two-guests --capture empty", /cannot write --capture empty: EISDIR/],
  ["a socket nowhere", GUEST, "--inspect no/such/x.sock", /cannot write --inspect no\/such\/x.sock: ENOENT: there is no folder/],
  ["a socket that is a file", GUEST, "--inspect file", /cannot serve --inspect: EEXIST: "file" is there already/],
  ["a card without its driver", GUEST, "--disk image", /the guest has no vblk.ko/],
  ["two guests and what they ignore", GUEST, "--two-guests --inspect x --json --disk image --shell --nics eth1",
    /--two-guests does not go with --shell and --disk and --nics and --inspect and --json: leave/],
  ["two guests and threads", GUEST, "--two-guests --threads --capture x", /--two-guests does not go with --threads/],
  ["threads and a capture", GUEST, "--threads --capture x", /--threads does not go with --capture/],
  ["spinning without threads", GUEST, "--spin 5", /--spin needs --threads/],
  ["a console and JSON", GUEST, "--console --json", /--console does not go with --json/],
  ["one image as two disks", GUEST, "--disk image --disk ./image", /image and .\/image are one file/],
  ["one image as two disks, by a link", GUEST, "--disk image --disk link", /image and link are one file/],
  ["a capture over a disk", GUEST, "--disk image --capture link", /--capture link would overwrite a disk/],
  ["a disk that is not there", GUEST, "--disk nowhere", /--disk: ENOENT/],
  ["a state that is not there", TOY, "--load nope", /cannot read --load nope: ENOENT/],
  ["a state that is a folder", TOY, "--load empty", /cannot read --load empty: EISDIR/],
  ["a state that is none", TOY, "--load file", /E[A-Z]+: .* no state/],
  ["a state to nowhere", TOY, "--save no/such/state", /cannot write --save no\/such\/state: ENOENT/],
  ["a state to a folder", TOY, "--save empty", /cannot write --save empty: EISDIR/],
  ["an argument", TOY, "extra", /extra: there are options only/],
  ["a report into a file", SHOOTOUT, "--only linux --out file", /--out file: EEXIST/],
  ["a report into a file, of rings", SHOOTOUT, "--only rings --out file", /--out file: EEXIST/],
  ["a report below a file", SHOOTOUT, "--only rings --out file/below", /--out file\/below: ENOTDIR/],
  ["two ways to measure", SHOOTOUT, "--quick --full", /--quick does not go with --full/],
  ["a result and parts", SHOOTOUT, "--markdown file --only rings", /--markdown does not go with --only/],
  ["a result that is none", SHOOTOUT, "--markdown file", /--markdown file: /],
]; // prettier-ignore

describe("wrong use", () => {
  it.each(CASES)("%s is told in one line", async (_what, [program = "", ...first], args, told) => {
    const before = readdirSync(folder);
    const words = [...first, ...args.split(" ")];
    const { code, out, err } = await run(join(ROOT, program), words, SOME_PIECES);
    expect({ code, out }, err).toEqual({ code: 2, out: "" });
    expect(err).toMatch(told);
    expect(err).toMatch(/^vbus: .*\n$/);
    expect(readdirSync(folder)).toEqual(before);
  });

  it.each([
    ["a file", "file", /"file" is no socket/],
    ["a folder", "empty", /"empty" is no socket/],
    ["nothing", "nowhere", /there is no "nowhere"/],
  ])("inspecting %s says so", async (_what, socket, told) => {
    const [program = "", ...first] = INSPECT;
    const { code, out, err } = await run(join(ROOT, program), [...first, socket]);
    expect({ code, out }).toEqual({ code: 1, out: "" });
    expect(err).toMatch(told);
  });
});

describe("what a guest is made of", () => {
  const all = { VBUS_GUEST_KERNEL: "file", VBUS_GUEST_MODULES: "modules" };
  const cases: [what: string, variables: Record<string, string>, told: RegExp][] = [
    ["a cache that is a file", { VBUS_CACHE: "file" }, /the cache folder .*file cannot be used .*set VBUS_CACHE/],
    ["a cache below a file", { VBUS_CACHE: "file/x" }, /the cache folder .*file.x cannot be used .*set VBUS_CACHE/],
    ["a folder without drivers", { ...all, VBUS_GUEST_DRIVERS: "." }, /DRIVERS is set to \., which lacks vblk.ko, vbus.ko/],
    ["a file with drivers", { ...all, VBUS_GUEST_DRIVERS: "file" }, /DRIVERS is set to file, which is no folder/],
    ["a folder without modules", { VBUS_GUEST_MODULES: "empty" }, /MODULES is set to empty, which lacks kernel/],
    ["a folder as a program", { VBUS_GUEST_BUSYBOX: "empty" }, /BUSYBOX is set to empty, which is no file/],
  ]; // prettier-ignore

  it.each(cases)("is not %s, which is told in one line", async (_what, variables, told) => {
    mkdirSync(join(folder, "modules/kernel"), { recursive: true });
    const cache = join(folder, "cache");
    const { code, out, err } = await run(join(ROOT, ...PIECES), [], { VBUS_CACHE: cache, ...variables });
    expect({ code, out }).toEqual({ code: 1, out: "" });
    expect(err).toMatch(told);
    expect(err).toMatch(/^vbus: .*\n$/);
  });
});

describe("help", () => {
  it.each([
    { command: "start.mjs", args: [], first: "npm run guest -- [options]" },
    { command: "start.mjs", args: ["--replay"], first: "npm start -- --replay [options]" },
    { command: "start.mjs", args: ["--spin", "5"], first: "npm start -- --replay [options]" },
    { command: "start.mjs", args: ["--threads", "--spin", "5"], first: "npm run guest -- [options]" },
    { command: "guest.mjs", args: ["--shell"], first: "npm run guest -- [options]" },
    { command: "toy.mjs", args: [], first: "npm run toy -- [options]" },
  ])("of $command $args is printed where nothing is installed or built", async ({ command, args, first }) => {
    const checkout = mkdtempSync(join(folder, "checkout-"));
    cpSync(join(ROOT, "scripts"), join(checkout, "scripts"), { recursive: true });
    for (const name of ["linux", "replay", "toy-emulator"]) {
      const file = join("examples", name, "help.txt");
      mkdirSync(dirname(join(checkout, file)), { recursive: true });
      copyFileSync(join(ROOT, file), join(checkout, file));
    }
    const { code, out, err } = await run(join(checkout, "scripts", command), [...args, "--help"]);
    expect({ code, out: out.split("\n")[0], err }).toEqual({ code: 0, out: first, err: "" });
    expect(readdirSync(checkout).sort()).toEqual(["examples", "scripts"]);
  });
});
