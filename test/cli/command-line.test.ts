import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { StateError } from "vbus/state";
import { afterEach, describe, expect, it, vi } from "vitest";
import { checkTogether, runCommand, UserError } from "../../bench/harness/command-line.js";
import { DEFAULT_OPTIONS } from "../../examples/replay/options.js";
import { CaptureFile } from "../../examples/linux/capture-file.js";
import { DEFAULTS } from "../../examples/linux/options.js";
import { readFile } from "node:fs/promises";

describe("how a program ends", () => {
  afterEach(() => {
    vi.restoreAllMocks();
    process.exitCode = undefined;
  });

  /** What is printed, and the exit code, of a program that throws this. */
  async function endOf(error: Error): Promise<{ told: string; code: unknown }> {
    let told = "";
    vi.spyOn(process.stderr, "write").mockImplementation((text) => {
      told += String(text);
      return true;
    });
    await runCommand(() => Promise.reject(error), {
      expected: [[StateError, 3]],
      hint: " (see --help)",
    });
    return { told, code: process.exitCode };
  }

  it("is a sentence for a mistake of its user", async () => {
    const end = await endOf(new UserError("there is no x"));
    expect(end).toEqual({ told: "vbus: there is no x (see --help)\n", code: 2 });
  });

  it("is a sentence for what it expects", async () => {
    const { told, code } = await endOf(new StateError("mismatch", "another machine"));
    expect(told).toMatch(/^vbus: .*another machine \(see --help\)\n$/);
    expect(code).toBe(3);
  });

  it("is a stack for a mistake of its own", async () => {
    const { told, code } = await endOf(new TypeError("x is undefined"));
    expect(told).toMatch(/^vbus: TypeError: x is undefined\n +at .*command-line/);
    expect(code).toBe(1);
  });
});

describe("options", () => {
  const rules = [
    ["threads", "excludes", "json", "disk"],
    ["spin", "needs", "threads", "poll"],
  ] as const;

  it.each([{}, { json: true, disk: ["x"] }, { threads: true, spin: "5", json: false }, { poll: true, spin: "5" }])(
    "%j go together",
    (values) => {
      expect(() => {
        checkTogether(values, rules);
      }).not.toThrow();
    },
  ); // prettier-ignore

  it("that do not are all named", () => {
    expect(() => {
      checkTogether({ threads: true, json: true, disk: ["x"] }, rules);
    }).toThrow("--threads does not go with --json and --disk: leave one or the other out");
    expect(() => {
      checkTogether({ spin: "5" }, rules);
    }).toThrow("--spin needs --threads or --poll: give that, too, or leave it out");
  });

  /** Expects that a program's help names these defaults. */
  async function expectDefaults(program: string, defaults: Readonly<Record<string, number>>): Promise<void> {
    const help = await readFile(new URL(`../../examples/${program}/help.txt`, import.meta.url), "utf8");
    for (const [name, value] of Object.entries(defaults))
      expect(help).toMatch(new RegExp(`--${name} .*\\(default ${value}\\b`));
  }

  it("of the replay have the defaults that its help names", async () => {
    const { repetitions, batch, rxRing, txRing, mtu, rounds, captureFrames, spin } = DEFAULT_OPTIONS;
    const wanted = { repetitions, batch, "rx-ring": rxRing, "tx-ring": txRing, mtu, rounds, spin };
    await expectDefaults("replay", { ...wanted, "capture-frames": captureFrames });
  });

  it("of the guest have the defaults that its help names", async () => {
    const { warmUp, ...defaults } = DEFAULTS;
    await expectDefaults("linux", { ...defaults, "warm-up": warmUp });
  });
});

describe("a capture", () => {
  it("that cannot be written says so when it is closed, as often as it is written to", async () => {
    const folder = mkdtempSync(join(tmpdir(), "vbus-cli-"));
    try {
      const file = new CaptureFile(join(folder, "no/such/folder.pcapng"));
      await new Promise((resolve) => setTimeout(resolve, 50));
      await expect(file.close()).rejects.toThrow(UserError);
      await expect(new CaptureFile(folder).close()).rejects.toThrow(/the capture .* is not complete: EISDIR/);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
