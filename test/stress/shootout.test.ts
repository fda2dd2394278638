import { execFile } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import process from "node:process";
import { promisify } from "node:util";
import { chromium } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { DEVICE_CONTESTANTS } from "../../bench/shootout/devices/measure.js";
import { failuresOf, type Shootout } from "../../bench/shootout/model.js";
import { RING_CONTESTANTS } from "../../bench/shootout/rings/contestants.js";
import { shootoutPage } from "../../bench/shootout/report/page.js";
import { shootoutText } from "../../bench/shootout/report/text.js";

/** A small shoot-out, by the command that users give: its figures are worth nothing, its structure is what counts. */
describe("a tiny shoot-out of rings and devices", () => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "vbus-shootout-test-"));
  let report: Shootout;
  let text: string;

  beforeAll(async () => {
    const args = ["shootout", "--tiny", "--only", "rings,devices", "--out", folder];
    const program = path.join(import.meta.dirname, "../../.build/bench/shootout/cli.js");
    ({ stdout: text } = await promisify(execFile)(process.execPath, [program, ...args], {
      maxBuffer: 1 << 26,
    }));
    report = JSON.parse(fs.readFileSync(path.join(folder, "shootout.json"), "utf8")) as Shootout;
  });

  afterAll(() => {
    fs.rmSync(folder, { recursive: true });
  });

  it("fails nobody, and has every study with every contestant or the reason why not", () => {
    expect(failuresOf(report)).toEqual([]);
    const parts = { rings: RING_CONTESTANTS, devices: DEVICE_CONTESTANTS, linux: [] };
    const all = [...parts.rings, ...parts.devices];
    expect(report.contestants.map(({ id }) => id)).toEqual(all.map(({ id }) => id));
    expect(report.studies.filter(({ part }) => part === "rings").length).toBeGreaterThanOrEqual(11);
    expect(report.studies.filter(({ part }) => part === "devices")).toHaveLength(4);
    for (const study of report.studies) {
      expect(study.settings.length, study.title).toBeGreaterThan(0);
      for (const { cells, absent } of study.settings) {
        const named = [...cells, ...absent].map(({ contestant }) => contestant);
        expect(new Set(named)).toEqual(new Set(parts[study.part].map(({ id }) => id)));
        for (const { value } of cells) {
          expect(value.median).toBeGreaterThan(0);
          expect(value.high).toBeGreaterThanOrEqual(value.low);
        }
        for (const { reason } of absent) expect(reason).not.toBe("");
      }
    }
  });

  it("measures everybody in one thread, where no core can move away", () => {
    const study = report.studies.find(({ id }) => id === "descriptors-1-notified")!;
    const present = new Set(study.settings.flatMap(({ cells }) => cells.map(({ contestant }) => contestant)));
    for (const { id, runs } of RING_CONTESTANTS) if (runs !== "native") expect(present, id).toContain(id);
  });

  it("counts signals, copies and processor time of everybody who carries frames", () => {
    const placed = report.studies
      .filter(({ part, id }) => part === "devices" && id !== "devices-trips")
      .flatMap(({ settings }) => settings.flatMap(({ cells }) => cells));
    for (const { extras } of placed) {
      for (const name of ["doorbells", "interrupts", "cpu"] as const)
        expect(extras[name]!.median).toBeGreaterThan(0);
      // the sender's driver and the host, each at least once
      expect(extras.copies!.low).toBeGreaterThanOrEqual(1.99);
      expect(extras.copies!.high).toBeLessThan(8);
    }
  });

  it("wants no signals for what was sent: two doorbells and two interrupts for a frame there and back", () => {
    const trips = report.studies.find(({ id }) => id === "devices-trips")!;
    const cells = trips.settings.flatMap(({ cells }) => cells);
    expect(cells.map(({ contestant }) => contestant)).toEqual(DEVICE_CONTESTANTS.map(({ id }) => id));
    for (const { contestant, extras } of cells) {
      expect(extras.doorbells!.high, contestant).toBeLessThanOrEqual(2200);
      expect(extras.interrupts!.high, contestant).toBeLessThanOrEqual(2200);
      for (const name of ["p50", "p90", "p99", "max"] as const)
        expect(extras[name]!.median, `${contestant}, ${name}`).toBeGreaterThan(0);
    }
  });

  it("gives a verdict on G2 and G4, whatever it is", () => {
    expect(new Set(report.goals.map(({ goal }) => goal))).toEqual(new Set(["G2", "G4"]));
    for (const { figure, note } of report.goals) expect(figure === null ? note : "").not.toBe(null);
    expect(report.goals.filter(({ target }) => target !== null).length).toBeGreaterThanOrEqual(16);
  });

  it("prints tables with all studies and writes one page that needs nothing else", () => {
    for (const { title } of report.studies) expect(text).toContain(title);
    expect(shootoutText(report)).not.toMatch(/NaN|Infinity|undefined/);
    const page = fs.readFileSync(path.join(folder, "shootout.html"), "utf8");
    expect(page).toBe(shootoutPage(report));
    expect(page).not.toMatch(/<script|<link|<img|https?:|url\(|@import|src=/i);
    expect(page).not.toMatch(/NaN|Infinity|undefined/);
  });

  it.each([
    [1280, "light"],
    [1280, "dark"],
    [390, "light"],
    [390, "dark"],
  ] as const)("fits a window of %i px in %s colours, in Chromium", async (width, colorScheme) => {
    const executablePath = process.env["VBUS_CHROMIUM"]!;
    const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
    try {
      const page = await browser.newPage({ viewport: { width, height: 900 }, colorScheme });
      const errors: string[] = [];
      page.on("pageerror", (error) => errors.push(String(error)));
      page.on("request", (request) => {
        if (!request.url().startsWith("file:")) errors.push(request.url());
      });
      await page.goto(`file://${path.join(folder, "shootout.html")}`);
      // as text: these run in the page, and the tests know no document
      const ask = (expression: string): Promise<number> => page.evaluate(expression);
      const root = "document.documentElement";
      expect(await ask(`${root}.scrollWidth - ${root}.clientWidth`)).toBe(0);
      const charts = `[...document.querySelectorAll("svg")].filter((svg) => svg.getBBox().width > 0).length`;
      expect(await ask(charts)).toBeGreaterThan(0);
      expect(await ask(`document.querySelectorAll("section").length`)).toBe(report.studies.length);
      const red = await ask(`parseInt(getComputedStyle(document.body).backgroundColor.slice(4))`);
      expect(errors).toEqual([]);
      if (colorScheme === "dark") expect(red).toBeLessThan(60);
      else expect(red).toBeGreaterThan(200);
    } finally {
      await browser.close();
    }
  });
});
