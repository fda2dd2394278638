import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterAll, describe, expect, it, vi } from "vitest";
import { busyWarning } from "../../bench/harness/machine.js";
import { summarize } from "../../bench/harness/statistics.js";
import { shootoutMain } from "../../bench/shootout/main.js";
import { SHOOTOUT_FORMAT, type Cell, type Setting, type Shootout } from "../../bench/shootout/model.js";
import { barChart, barsAreLogarithmic, type Bar } from "../../bench/shootout/report/charts.js";
import { headlines } from "../../bench/shootout/report/headlines.js";
import { shootoutMarkdown } from "../../bench/shootout/report/markdown.js";
import { goalsSentence, shootoutPage } from "../../bench/shootout/report/page.js";
import { shootoutText } from "../../bench/shootout/report/text.js";

const cell = (contestant: string, median: number, extras: Cell["extras"] = {}): Cell => ({
  contestant,
  value: summarize([median * 0.9, median, median * 1.1]),
  ratio: contestant === "ioq" || contestant === "venet" ? null : summarize([0.5, 0.5, 0.5]),
  extras,
});
const setting = (at: number, name: string, cells: Cell[], placement: Setting["placement"]): Setting => ({
  at,
  name,
  placement,
  cells,
  absent: [],
  duels: [],
  dropped: 0,
});

const contestant = (id: string, name: string) => ({
  id,
  name,
  about: `${name} | explained`,
  runs: "wasm" as const,
  copies: null,
});
const REPORT: Shootout = {
  format: SHOOTOUT_FORMAT,
  date: "2026-01-02T03:04:05.000Z",
  command: "vbus shootout --full",
  effort: "full",
  machine: {
    cpu: "a processor",
    cores: 2,
    caches: "L1 48K",
    memory: "8 GiB",
    system: "Linux",
    node: "20",
    v8: "11",
    load: "0 0 0",
  },
  native: "cc: -O3",
  method: ["in turn"],
  contestants: [
    contestant("ioq", "IOQ strict v4"),
    contestant("split", "virtio split"),
    contestant("venet", "venet"),
    contestant("virtio-split", "our virtio-net, split"),
  ],
  studies: [
    {
      id: "descriptors-2-notified",
      part: "rings",
      title: "Descriptors there and back",
      about: "as it says",
      axis: "descriptors per burst",
      unit: "ns/descriptor",
      lower: true,
      reference: "ioq",
      settings: [1, 8, 32].flatMap((at) => [
        setting(at, `burst ${at}`, [cell("ioq", 100 / at), cell("split", 200 / at)], "near"),
        setting(at, `burst ${at}`, [cell("ioq", 300 / at), cell("split", 900 / at)], "far"),
      ]),
    },
    {
      id: "devices-off",
      part: "devices",
      title: "All on, then one off",
      about: "as it says",
      axis: "setting",
      unit: "Gbit/s of payload",
      lower: false,
      reference: "venet",
      settings: [
        setting(
          0,
          "all on",
          [
            cell("venet", 50, {
              doorbells: summarize([10, 20, 30]),
              interrupts: summarize([4, 4, 4]),
              copies: summarize([4, 4, 4]),
              cpu: summarize([1, 2, 3]),
            }),
            cell("virtio-split", 40, { doorbells: summarize([11, 11, 11]) }),
          ],
          "near",
        ),
        setting(1, "TSO off", [cell("venet", 10)], "near"),
      ],
    },
  ],
  goals: [
    {
      goal: "G2",
      name: "bursts",
      placement: "near",
      figure: summarize([2, 2, 2]),
      target: { sense: "at least", value: 3 },
      note: "",
    },
    { goal: "G4", name: "ring", placement: null, figure: null, target: null, note: "no compiler" },
  ],
  absent: [],
  seconds: 42,
};

describe("a report as Markdown", () => {
  const text = shootoutMarkdown(REPORT);
  const lines = text.split("\n");

  it("says where, when and by what it was measured", () => {
    expect(lines[0]).toContain("`vbus shootout --full` on 2026-01-02: 42 s, a processor, 2 cores");
  });

  it("has a table for each class of cores, contestants in rows where settings are a range", () => {
    expect(text).toContain("**Descriptors there and back** (ns/descriptor, near cores):");
    expect(text).toContain("**Descriptors there and back** (ns/descriptor, far cores):");
    expect(lines).toContain("| virtio split | 200 ±5% | 25.0 ±5% | 6.25 ±5% |");
    expect(lines).toContain("| virtio split | 900 ±5% | 113 ±5% | 28.1 ±5% |");
  });

  it("has contestants in columns where settings are cases, and below what each took, with its spread", () => {
    expect(lines).toContain("| all on | 50.0 ±5% | 40.0 ±5%, 0.50× |");
    expect(lines).toContain("| TSO off | 10.0 ±5% | – |");
    expect(lines).toContain("| doorbells, per 1000: all on | 20.0 ±25% | 11.0 |");
    expect(lines).toContain("| processor time, s/GB: all on | 2.00 ±25% | – |");
    expect(text).not.toContain("copies, of each byte: TSO off");
  });

  it("has the goals with their verdicts, or why there is none", () => {
    expect(lines).toContain("| G2: bursts | near | 2.00× ±0% | ≥ 3 | missed by 1.50× |");
    expect(lines).toContain("| G4: ring |  | – | (shown) | no compiler |");
  });
});

describe("shootout --markdown", () => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "vbus-markdown-test-"));
  afterAll(() => {
    fs.rmSync(folder, { recursive: true });
  });

  async function run(contents: string): Promise<{ code: number; out: string; error: string }> {
    const file = path.join(folder, "shootout.json");
    fs.writeFileSync(file, contents);
    let [out, error] = ["", ""];
    const log = vi.spyOn(console, "log").mockImplementation((text: string) => {
      out += text;
    });
    const write = vi.spyOn(process.stderr, "write").mockImplementation((text) => {
      error += String(text);
      return true;
    });
    try {
      return { code: await shootoutMain(["--markdown", file]), out, error };
    } finally {
      log.mockRestore();
      write.mockRestore();
    }
  }

  it("prints the tables of a result that was written before, and measures nothing", async () => {
    const { code, out } = await run(JSON.stringify(REPORT));
    expect([code, out]).toEqual([0, shootoutMarkdown(REPORT)]);
  });

  it("refuses what is no result, or one of another version", async () => {
    expect(await run("not JSON")).toMatchObject({ code: 2, out: "" });
    const old = await run(JSON.stringify({ ...REPORT, format: 1 }));
    expect(old).toMatchObject({ code: 2, out: "" });
    expect(old.error).toContain("format 1 instead of");
  });
});

describe("the same report for a terminal and as a page", () => {
  it("says in a few sentences who is best, class by class", () => {
    expect(headlines(REPORT)).toEqual([
      "Rings between two threads, in bursts of 32 (near cores), ns/descriptor, best first: IOQ strict v4 3.13; virtio split 6.25.",
      "Rings between two threads, in bursts of 32 (far cores), ns/descriptor, best first: IOQ strict v4 9.38; virtio split 28.1.",
      "Rings between two threads, one descriptor at a time (near cores), ns/descriptor, best first: IOQ strict v4 100; virtio split 200.",
      "Rings between two threads, one descriptor at a time (far cores), ns/descriptor, best first: IOQ strict v4 300; virtio split 900.",
      "TCP between two guests, all offloads on (near cores), Gbit/s of payload, best first: venet 50.0; our virtio-net, split 40.0.",
    ]);
  });

  it.each(["doorbells", "interrupts", "copies", "processor time"])(
    "gives %s with class and spread",
    (title) => {
      expect(shootoutText(REPORT)).toContain(title);
      expect(shootoutPage(REPORT)).toContain(title);
      expect(shootoutText(REPORT)).toContain("all on (near)");
    },
  );

  it("says why a study has no figures, where its table would be", () => {
    const reason = "too few samples of one class";
    const [rings, devices] = REPORT.studies;
    const empty = {
      ...devices!,
      settings: [
        { ...setting(0, "all on", [], null), absent: [{ contestant: "venet", reason, failed: false }] },
      ],
    };
    const report = { ...REPORT, studies: [rings!, empty] };
    expect(shootoutText(report)).toContain(`All on, then one off\n  not measured: ${reason}`);
    expect(shootoutPage(report)).toContain(`Not measured: ${reason}`);
    expect(shootoutMarkdown(report)).toContain(`**All on, then one off**: not measured: ${reason}`);
  });

  it("counts what could not be measured as its table does", () => {
    const unmeasured = REPORT.goals.find(({ figure }) => figure === null)!;
    const wanted = { ...unmeasured, target: { sense: "at least", value: 2 } as const };
    const report = { ...REPORT, goals: [...REPORT.goals, wanted] };
    expect(shootoutText(report).match(/not measured/g)).toHaveLength(2);
    expect(goalsSentence(report)).toBe(
      "0 figures reach their goal, 1 miss it, 2 could not be measured (1 of them have a goal).",
    );
  });

  it("comes with a warning where the machine has more to do than processors", () => {
    expect(busyWarning([2, 9, 9], 2)).toBeNull();
    expect(busyWarning([2.6, 0, 0], 2)).toMatch(/load average 2\.6, 2 processors/);
  });

  it("has bars on one axis from 0, logarithmic only where the short ones would vanish", () => {
    const bar = (value: number): Bar => ({
      name: String(value),
      colour: "red",
      value,
      low: value,
      high: value,
      label: "",
    });
    const groups = [
      { title: "a", bars: [bar(10), bar(20)] },
      { title: "b", bars: [bar(40)] },
    ];
    expect(barsAreLogarithmic(groups)).toBe(false);
    const widths = [...barChart(groups, "").matchAll(/<rect[^>]* width="([\d.]+)"/g)].map(([, width]) =>
      Number(width),
    );
    expect(widths[1]! / widths[0]!).toBeCloseTo(2, 1);
    expect(widths[2]! / widths[0]!).toBeCloseTo(4, 1);
    expect(barsAreLogarithmic([{ title: "", bars: [bar(1), bar(1000)] }])).toBe(true);
    expect(barChart([], "")).toBe("");
  });
});
