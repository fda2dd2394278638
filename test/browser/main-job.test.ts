import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, statSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import process from "node:process";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import type { JobResult } from "../../examples/replay/job.js";
import { Surroundings } from "./surroundings.js";

const REPETITIONS = 2;
const ROUNDS = 50;
const CAPTURED = 400;
const QUERY = `?auto&repetitions=${REPETITIONS}&rounds=${ROUNDS}&captureFrames=${CAPTURED}`;

describe("the main job in a page", () => {
  let surroundings: Surroundings;
  let folder: string;

  beforeAll(async () => {
    folder = mkdtempSync(path.join(os.tmpdir(), "vbus-browser-"));
    surroundings = await Surroundings.start();
  });
  afterAll(async () => {
    await surroundings.close();
    rmSync(folder, { recursive: true });
  });
  afterEach(() => {
    expect(surroundings.complaints).toEqual([]);
  });

  it("with isolation every frame arrives byte for byte and in order, and tshark reads the capture", async () => {
    const file = path.join(folder, "replay.pcapng");
    const result = await surroundings.visit("isolated", QUERY, async (page, state) => {
      expect([state, await page.locator("#status").textContent()]).toEqual([
        "done",
        expect.stringMatching(/^ok/),
      ]);
      expect(await page.locator("#directions tr").count()).toBe(5);
      expect(await page.locator("#conclusions .problem").count()).toBe(0);
      const download = page.waitForEvent("download");
      await page.locator("#capture").click();
      await (await download).saveAs(file);
      return JSON.parse((await page.locator("#json").textContent()) ?? "") as JobResult;
    });

    expect(result).toMatchObject({ ok: true, complaints: [] });
    expect(result.equation).toMatchObject({ balanced: true, inFlight: 0 });
    const { a, b } = result.workload;
    expect(result.directions.map(({ phase, from, frames }) => [phase, from, frames])).toEqual([
      ["A to B", "A", a * REPETITIONS],
      ["B to A", "B", b * REPETITIONS],
      ["both at once", "A", a * REPETITIONS],
      ["both at once", "B", b * REPETITIONS],
    ]);
    // no port ever waits with a flooded frame: on a busy machine the few of the capture may be lost, counted; no other
    let flooded = 0;
    for (const { frames, received } of result.directions) {
      expect(received).toMatchObject({ unexpected: 0, complaint: null });
      expect(received.matched + received.missingFlooded).toBe(frames);
      flooded += received.missingFlooded;
    }
    expect(Object.values(result.equation.drops).reduce((sum, n) => sum + n, 0)).toBe(flooded);
    for (const { rounds, lost, p50 } of result.latency) {
      expect(rounds).toBe(ROUNDS);
      expect(lost).toBeLessThan(ROUNDS);
      expect(p50).toBeGreaterThan(0);
    }
    expect(result.equation.sent).toBeGreaterThan(2 * (a + b) * REPETITIONS + 2 * ROUNDS);

    expect(statSync(file).size).toBe(result.capture?.size);
    const tshark = process.env.VBUS_TSHARK ?? path.join("/usr/bin", "tshark");
    const fields = ["frame.interface_name", "eth.src"].flatMap((field) => ["-e", field]);
    const lines = execFileSync(tshark, ["-n", "-r", file, "-T", "fields", ...fields], {
      encoding: "utf8",
      stdio: ["ignore", "pipe", "pipe"],
    })
      .trimEnd()
      .split("\n");
    const perPort = (name: string): number => lines.filter((line) => line.startsWith(name)).length;
    expect([lines.length, perPort("nic0"), perPort("nic1")]).toEqual([2 * CAPTURED, CAPTURED, CAPTURED]);
  });

  it("without isolation the page says why it cannot run, and what can", async () => {
    await surroundings.visit("plain", QUERY, async (page, state) => {
      expect(state).toBe("failed");
      const status = (await page.locator("#status").textContent()) ?? "";
      expect(status).toMatch(/^EOPNOTSUPP: .*cross-origin isolated.*use the local connector/);
      expect(await page.locator("#start").isEnabled()).toBe(true);
    });
  });
});
