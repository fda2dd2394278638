import { mkdtemp, readdir, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Console, GuestError } from "../../examples/linux/console.js";
import { Machine } from "../../examples/linux/machine.js";
import { readPieces } from "../../examples/linux/pieces.js";
import { SavedState } from "../../examples/linux/saved-state.js";
import { tell } from "./fixture.js";

let cache: string;

beforeAll(async () => {
  cache = await mkdtemp(join(tmpdir(), "vbus-guest-"));
});

afterAll(async () => {
  await rm(cache, { recursive: true });
});

const pieces = () => ({ ...readPieces(), cache });

describe("a Linux guest", () => {
  it("boots without a saved state, leaves one, and starts from it the next time, twice in one process", async () => {
    const first = await Machine.start({ pieces: pieces(), progress: tell });
    try {
      expect(first.restored).toBe(false);
      expect(await first.check("uname -sm")).toBe("Linux i686\n");
      await first.check("echo remembered >/tmp/note");
    } finally {
      await first.close();
    }
    expect(await readdir(cache)).toEqual([expect.stringMatching(/^state-/)]);
    const machines = await Promise.all(
      ["second", "third"].map((name) => Machine.start({ pieces: pieces(), name, progress: tell })),
    );
    try {
      for (const [n, machine] of machines.entries()) {
        expect(machine.restored).toBe(true);
        // saved before anything was done with it
        expect((await machine.run("cat /tmp/note")).status).toBe(1);
        await machine.check(`echo ${n} >/tmp/own`);
      }
      for (const [n, machine] of machines.entries())
        expect(await machine.check("cat /tmp/own")).toBe(`${n}\n`);
    } finally {
      for (const machine of machines) await machine.close();
    }
  });
});

describe("the shell of a Linux guest", () => {
  let machine: Machine;

  beforeAll(async () => {
    machine = await Machine.start({ pieces: readPieces(), progress: tell });
  });

  afterAll(async () => {
    await machine.close();
    await machine.close();
  });

  it("says how a command ended and what it wrote", async () => {
    expect(await machine.run("echo out; echo err >&2; false")).toEqual({ status: 1, output: "out\nerr\n" });
    expect(await machine.run("(exit 42)")).toEqual({ status: 42, output: "" });
    expect(await machine.run("printf 'no end of line'")).toEqual({ status: 0, output: "no end of line" });
  });

  it("takes quotes, dollars, and commands in the background as they are", async () => {
    expect(await machine.check(`echo "it's" 'a "$dollar"' \\\\`)).toBe(`it's a "$dollar" \\\n`);
    expect(await machine.check("sleep 0.2 & echo at once")).toBe("at once\n");
  });

  it("answers while children of its shell end at any moment", async () => {
    const ending = "(while [ ! -e /tmp/enough ]; do kill -CHLD $$; usleep 1000; done) &"; // what the kernel sends then
    await machine.check(`rm -f /tmp/enough; ${ending} ${ending} ${ending}`);
    for (let i = 0; i < 300; i++)
      expect(await machine.check(`echo ${i}`, { timeoutMs: 20_000 })).toBe(`${i}\n`);
    await machine.check("touch /tmp/enough");
  });

  it("is not confused by output that looks like its own marks", async () => {
    expect(await machine.check("echo 'guest# Z7Z:1:0:'; echo 'guest# '")).toBe("guest# Z7Z:1:0:\nguest# \n");
  });

  it("hands over long output completely", async () => {
    const output = await machine.check("seq 1 3000");
    expect(output).toBe(Array.from({ length: 3000 }, (_, i) => `${i + 1}\n`).join(""));
  });

  it("runs commands in the order in which they were given", async () => {
    const outputs = await Promise.all([1, 2, 3].map((n) => machine.check(`echo ${n}`)));
    expect(outputs).toEqual(["1\n", "2\n", "3\n"]);
  });

  it("gives up on a command that does not end, says so with the console's last words, and goes on", async () => {
    const waited = machine.run("echo last words; sleep 1000", { timeoutMs: 1500 });
    await expect(waited).rejects.toThrow(GuestError);
    await expect(waited).rejects.toThrow(/waited 1.5 s for the end of "echo last words; sleep 1000"/);
    await expect(waited).rejects.toThrow(/console said last:[^]*last words/);
    expect(await machine.check("echo alive")).toBe("alive\n");
  });

  it("makes an error of a command that must not fail", async () => {
    await expect(machine.check("echo why; false")).rejects.toThrow(/"echo why; false" ended with 1:\nwhy/);
  });

  it.each([
    { what: "two lines", command: "echo one\necho two" },
    { what: "a control character", command: "a bell\x07" },
    { what: "more than the terminal takes", command: "x".repeat(5000) },
  ])("refuses $what", ({ command }) => {
    expect(() => machine.run(command)).toThrow(RangeError);
  });

  it("ends all waiting when the guest's kernel panics, and says what it said", async () => {
    const own = await Machine.start({ pieces: readPieces(), name: "the guest that panics", progress: tell });
    try {
      const crash = own.run("echo c >/proc/sysrq-trigger");
      await expect(crash).rejects.toThrow(/the guest's kernel panicked[^]*sysrq/i);
      await expect(own.run("true")).rejects.toThrow(/panicked/);
    } finally {
      await own.close();
    }
  });
});

describe("a console", () => {
  it("rejects what waits when it is closed", async () => {
    const console = new Console({ send: () => undefined });
    const waiting = console.start(60_000);
    console.close();
    await expect(waiting).rejects.toThrow(/was closed while waiting for the shell's prompt/);
  });
});

/** A state as v86 writes them: its header, and what that says of the rest. */
function stateOf(...bytes: number[]): ArrayBuffer {
  const info = new TextEncoder().encode("{}");
  const state = new Uint8Array(16 + info.length + bytes.length);
  new Uint32Array(state.buffer, 0, 4).set([0x86768676, 6, state.length, info.length]);
  state.set(info, 16);
  state.set(bytes, 16 + info.length);
  return state.buffer;
}

describe("a saved state", () => {
  it("is there after it was stored, belongs to its ingredients alone, and goes when it is the oldest of many", async () => {
    const folder = await mkdtemp(join(tmpdir(), "vbus-states-"));
    try {
      const state = new SavedState(folder, ["a", "bc"]);
      expect(await state.load()).toBeUndefined();
      await state.store(stateOf(1, 2, 3));
      expect(await state.load()).toEqual(stateOf(1, 2, 3));
      expect(await new SavedState(folder, ["ab", "c"]).load()).toBeUndefined();
      for (let i = 0; i < 8; i++) {
        await new Promise((resolve) => setTimeout(resolve, 20));
        await new SavedState(folder, [`${i}`]).store(stateOf(i));
      }
      expect(await state.load()).toBeUndefined();
      expect(await new SavedState(folder, ["7"]).load()).toBeDefined();
      await new SavedState(folder, ["7"]).remove();
      expect(await new SavedState(folder, ["7"]).load()).toBeUndefined();
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  it.each<{ what: string; damage: (file: string) => Promise<void> }>([
    { what: "is empty", damage: (file) => truncate(file) },
    { what: "ends in its header", damage: (file) => truncate(file, 15) },
    { what: "has lost its end", damage: (file) => truncate(file, 20) },
    { what: "has grown", damage: (file) => truncate(file, 100) },
    { what: "is something else", damage: (file) => writeFile(file, "not a state at all") },
    { what: "has a hole", damage: (file) => writeFile(file, new Uint8Array(stateOf(1)).fill(0, 16)) },
    {
      what: "says that it begins with more than it has",
      damage: (file) => writeFile(file, new Uint8Array(stateOf(1)).fill(255, 12, 16)),
    },
  ])("that $what is removed, and that is said", async ({ damage }) => {
    const folder = await mkdtemp(join(tmpdir(), "vbus-states-"));
    try {
      const state = new SavedState(folder, ["a"]);
      await state.store(stateOf(1, 2, 3));
      await damage(state.file);
      const told: string[] = [];
      expect(await state.load((message) => told.push(message))).toBeUndefined();
      expect(told).toEqual([`the saved state ${state.file} is damaged: removed, and made anew`]);
      expect(await readdir(folder)).toEqual([]);
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});
