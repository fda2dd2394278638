import { spawn } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { blockName, blockRate } from "../bench/devices/block.js";
import { positions, runLoad, type BlockLoad, type BlockTarget } from "../bench/devices/block-load.js";
import { buildSegments, HEADERS, pseudoHeaderSum } from "../bench/devices/segments.js";
import { TRAFFIC_CASES } from "../bench/devices/traffic-cases.js";
import { inTurn } from "../bench/harness/interleave.js";
import { NativeBench } from "../bench/harness/native.js";
import { escapeHtml, METHOD, reportHtml, summarySentence, type Report } from "../bench/harness/report.js";
import { pairByPlacement, placementOf, type BracketedSample } from "../bench/harness/placement.js";
import {
  describeTarget,
  describeVerdict,
  failedRow,
  GOALS,
  isFailed,
  missingRow,
  ratioRow,
  verdictOf,
  type GoalName,
  type Row,
} from "../bench/harness/result.js";
import { pairedRatios, quantile, relativeSpread, summarize } from "../bench/harness/statistics.js";
import { figureText, goalTable, trafficTable } from "../bench/harness/text-table.js";
import { trafficRow, type TrafficRow } from "../bench/harness/traffic-result.js";
import { bytePairSum } from "../bench/rivals/byte-pairs.js";
import { UserError } from "../bench/harness/command-line.js";
import { parseOptions } from "../bench/options.js";

const base = { goal: "G1", name: "burst 32", placement: null, unit: "ns", note: "" } as const;
const atMost = (value: number): Row["target"] => ({ sense: "at most", value });
const atLeast = (value: number): Row["target"] => ({ sense: "at least", value });
const sample = (ns: number, before: number, after = before): BracketedSample => ({ ns, before, after });

describe("statistics of the benchmarks", () => {
  it("interpolates quantiles between samples in any order", () => {
    expect(quantile([4, 1, 3, 2], 0.5)).toBe(2.5);
    expect(quantile([5], 0.9)).toBe(5);
    expect(quantile([1, 2, 3, 4, 5], 0.25)).toBe(2);
  });

  it("refuses quantiles of nothing and outside of 0 to 1", () => {
    expect(() => quantile([], 0.5)).toThrow(RangeError);
    expect(() => quantile([1], 1.5)).toThrow(RangeError);
  });

  it("summarizes by median, quartiles and a low percentile, and leaves the samples as they were", () => {
    const samples = [5, 1, 4, 2, 3];
    expect(summarize(samples)).toEqual({ median: 3, low: 2, high: 4, best: 1.4, count: 5 });
    expect(samples).toEqual([5, 1, 4, 2, 3]);
    expect(relativeSpread(summarize(samples))).toBeCloseTo(2 / 3);
  });

  it("pairs samples that were taken one after the other", () => {
    expect(pairedRatios([2, 9], [1, 3])).toEqual([2, 3]);
    expect(() => pairedRatios([1], [])).toThrow(RangeError);
  });
});

describe("the native contestants", () => {
  const program = (text: string, answerMs?: number): NativeBench =>
    new NativeBench(
      spawn(process.execPath, ["-e", text], { stdio: ["pipe", "pipe", "pipe"] }),
      "none",
      answerMs,
    );

  it("answer in JSON, and tell of failures", async () => {
    const echo = program(`process.stdin.on("data", (text) => {
      console.log(String(text).startsWith("bad") ? '{"error":"no such command"}' : '{"ns":7}');
    })`);
    expect(await echo.ask("one")).toEqual({ ns: 7 });
    await expect(echo.ask("bad")).rejects.toThrow('native "bad": no such command');
    echo.close();
  });

  it("that do not answer are ended, so that a late answer is not taken for the next one", async () => {
    const mute = program("process.stdin.resume()", 20);
    const reason = /did not answer "line 4000" within 20 ms: measure on a machine that is less busy/;
    await expect(mute.ask("line 4000")).rejects.toThrow(reason);
    await expect(mute.ask("one")).rejects.toThrow(reason);
  });

  it("that fail leave a row that says so, and is counted", () => {
    const row = failedRow("G3", new Error("the native program ended with code 1"));
    expect(isFailed(row)).toBe(true);
    expect(isFailed(missingRow({ ...base, target: atMost(1) }, "no compiler"))).toBe(false);
    expect(goalTable("G3", [row])).toContain("could not be measured: the native program ended with code 1");
    expect(summarySentence([row])).toBe("0 figures reach their goal, 0 miss it, 1 could not be measured.");
  });
});

describe("placement of the cores", () => {
  it("classes a sample only when both probes agree", () => {
    expect(placementOf(sample(1, 60))).toBe("near");
    expect(placementOf(sample(1, 219))).toBe("far");
    expect(placementOf(sample(1, 60, 219))).toBeNull();
    expect(placementOf(sample(1, 130))).toBeNull();
  });

  it("keeps pairs of one class together and drops those of different classes", () => {
    const sorted = pairByPlacement([
      [sample(10, 60), sample(5, 70)],
      [sample(90, 200), sample(30, 200)],
      [sample(10, 60), sample(30, 200)],
      [sample(10, 130), sample(5, 60)],
    ]);
    expect(sorted.pairs.near).toEqual({ a: [10], b: [5] });
    expect(sorted.pairs.far).toEqual({ a: [90], b: [30] });
    expect(sorted.dropped).toBe(2);
  });
});

describe("sampling in turn", () => {
  it("alternates the contestants and throws the first samples away", async () => {
    const order: string[] = [];
    let n = 0;
    const contestant = (name: string) => () => {
      order.push(name);
      return ++n;
    };
    const samples = await inTurn([contestant("a"), contestant("b")], {
      samples: 2,
      pairs: 0,
      warm: 1,
      rowMs: 1000,
    });
    expect(order).toEqual(["a", "b", "a", "b", "a", "b"]);
    expect(samples).toEqual([
      [3, 5],
      [4, 6],
    ]);
  });
});

describe("verdicts", () => {
  const row = (figure: number, target: Row["target"]): Row =>
    ratioRow({ ...base, target }, [figure, figure, figure], [1, 1, 1], "ours/rival");

  it("reaches a goal at its edge and says by which factor it is missed", () => {
    expect(verdictOf(row(1.15, atMost(1.15)))).toEqual({ kind: "reached" });
    expect(verdictOf(row(2.3, atMost(1.15)))).toEqual({ kind: "missed", by: 2 });
    expect(verdictOf(row(4, atLeast(4)))).toEqual({ kind: "reached" });
    expect(verdictOf(row(2, atLeast(4)))).toEqual({ kind: "missed", by: 2 });
    expect(describeVerdict(verdictOf(row(2, atLeast(4))))).toBe("missed by 2.00×");
  });

  it("judges nothing that has no goal, and nothing that was not measured", () => {
    expect(verdictOf(row(3, null))).toEqual({ kind: "shown" });
    const missing = missingRow({ ...base, target: atMost(1) }, "no compiler");
    expect(verdictOf(missing)).toEqual({ kind: "not measured" });
    expect(goalTable("G1", [missing])).toContain("no compiler");
    expect(describeTarget(atLeast(4))).toBe("≥ 4");
  });

  it("turns the ratio round where more is better", () => {
    const faster = ratioRow({ ...base, target: null }, [1, 2, 4], [4, 8, 16], "rival/ours");
    expect(faster.figure?.median).toBe(4);
    expect(faster.ours?.median).toBe(2);
    expect(faster.atBest).toBeCloseTo(4);
  });

  it("makes no ratio of fewer than three pairs and says so", () => {
    const thin = ratioRow({ ...base, target: atMost(1) }, [1, 2], [1, 1], "ours/rival");
    expect(thin.figure).toBeNull();
    expect(thin.note).toContain("only 2 pairs");
  });
});

describe("the report", () => {
  const rows: Row[] = [
    ratioRow(
      { ...base, name: `<b>"evil" & co</b>`, target: atMost(1.2) },
      [1, 1.1, 1.2],
      [1, 1, 1],
      "ours/rival",
    ),
    ratioRow(
      { ...base, goal: "G6", name: "64 bytes", target: atLeast(10) },
      [1, 1, 1],
      [8, 9, 10],
      "rival/ours",
    ),
    missingRow(
      { goal: "G7", name: "1500 bytes", unit: "GB/s", target: atLeast(0.9) },
      "no compiler: none runs here",
    ),
    {
      ...base,
      goal: "G9",
      name: "burst 32",
      placement: "near",
      ours: null,
      rival: null,
      figure: summarize([0, 0, 0]),
      atBest: null,
      figureUnit: "doorbells per 1000",
      target: atMost(0.1),
    },
  ];
  const traffic: TrafficRow[] = [
    trafficRow({ name: "64 KiB <superframes>", card: "venet", mtu: 1500, note: "2 superframes & more" }, [
      {
        frames: 1000,
        bytes: 65_536_000,
        payload: 65_482_000,
        seconds: 1,
        received: 46_000,
        signals: 5,
        doorbells: 3,
        interrupts: 2,
        copied: 131_072_000,
        verified: 0,
        cpu: 2e9,
      },
    ]),
  ];
  const report: Report = {
    format: 1,
    date: "2026-01-01T00:00:00.000Z",
    command: "npm run bench",
    machine: {
      cpu: "a <processor>",
      cores: 2,
      caches: "L1 48K",
      memory: "8 GiB",
      system: "Linux",
      node: "20",
      v8: "11",
      load: "0 0 0",
    },
    native: "cc -O3",
    method: [...METHOD],
    rows,
    traffic,
    operations: [{ suite: "bursts", name: "post 32", ns: 12.3, margin: 1.5, samples: 20 }],
    seconds: 12,
  };
  const html = reportHtml(report);

  it("is well-formed: every element that is opened is closed, in order", () => {
    const open: string[] = [];
    const isVoid = new Set(["meta", "!doctype"]);
    for (const [, closing, rawName, selfClosing] of html.matchAll(
      /<(\/?)([a-z!][a-z0-9]*)(?:\s[^<>]*?)?(\/?)>/gi,
    )) {
      const name = (rawName as string).toLowerCase();
      if (isVoid.has(name) || selfClosing === "/") continue;
      if (closing === "/") expect(open.pop()).toBe(name);
      else open.push(name);
    }
    expect(open).toEqual([]);
  });

  it("needs nothing from outside: no scripts, no links, no addresses", () => {
    expect(html).not.toMatch(/<script|<link|<img|https?:|url\(|@import|src=/i);
    expect(html).toContain("prefers-color-scheme: dark");
  });

  it("escapes whatever names and machines contain", () => {
    expect(html).not.toContain("<b>");
    expect(html).toContain("a &lt;processor&gt;");
    expect(escapeHtml(`<a href="x">&`)).toBe("&lt;a href=&quot;x&quot;&gt;&amp;");
  });

  it("shows every figure, its goal and its verdict, and draws finite shapes", () => {
    expect(html).toContain("reached");
    expect(html).toContain("missed by 1.11×");
    expect(html).toContain("not measured");
    expect(html).toContain("no compiler: none runs here");
    expect(html).not.toMatch(/NaN|Infinity|undefined/);
    expect(summarySentence(rows)).toBe("2 figures reach their goal, 1 miss it, 1 could not be measured.");
  });

  it("shows traffic between guests with its signals, and leaves the section out when there was none", () => {
    expect(html).toContain("64 KiB &lt;superframes&gt;");
    expect(html).toContain("2 superframes &amp; more");
    expect(html).toContain("signals per 1000");
    expect(reportHtml({ ...report, traffic: [] })).not.toContain("signals per 1000");
  });

  it("survives a round trip through JSON", () => {
    expect(reportHtml(JSON.parse(JSON.stringify(report)) as Report)).toBe(html);
  });
});

describe("options", () => {
  it("measures everything by default", () => {
    const options = parseOptions([]);
    expect([...options.goals]).toEqual(Object.keys(GOALS));
    expect(options).toMatchObject({
      quick: false,
      json: false,
      devices: true,
      block: true,
      operations: true,
    });
  });

  it("takes a list of goals in any case", () => {
    const options = parseOptions(["--quick", "--only", "g1, G7"]);
    expect([...options.goals]).toEqual(["G1", "G7"] satisfies GoalName[]);
    expect(options).toMatchObject({ quick: true, operations: false });
    expect(options).toMatchObject({ devices: false, block: false });
    expect(parseOptions(["--only", "operations"]).operations).toBe(true);
    expect(parseOptions(["--only", "devices, g9"])).toMatchObject({ devices: true, block: false });
    expect(parseOptions(["--only", "block"])).toMatchObject({
      devices: false,
      block: true,
      goals: new Set(),
    });
  });

  it("refuses goals that do not exist and options that nobody knows", () => {
    expect(() => parseOptions(["--only", "G99"])).toThrow(/G99: use G1, /);
    expect(() => parseOptions(["--only", "toString"])).toThrow(UserError);
    expect(() => parseOptions(["--fast"])).toThrow(UserError);
  });
});

describe("frames of the traffic figures", () => {
  const ETHERNET = 14;
  const TRANSPORT = 34;
  const bytes = (data: Uint8Array | readonly Uint8Array[]): Uint8Array => data as Uint8Array;
  const view = (frame: Uint8Array): DataView => new DataView(frame.buffer);

  it.each(TRAFFIC_CASES.map((test) => [test.name, test] as const))(
    "are right: %s",
    (_name, { mtu, plan }) => {
      const frames = buildSegments(plan, 1, 2);
      expect(frames).toHaveLength(plan.count);
      let next: number | null = null;
      for (const { data, checksum, gso } of frames) {
        const frame = bytes(data);
        expect(frame).toHaveLength(plan.length);
        expect(bytePairSum(frame.subarray(ETHERNET, TRANSPORT))).toBe(0xffff);
        expect(view(frame).getUint16(ETHERNET + 2)).toBe(plan.length - ETHERNET);
        const sequence = view(frame).getUint32(TRANSPORT + 4);
        expect(sequence).toBe(next ?? sequence);
        next = sequence + plan.length - HEADERS;
        if (plan.checksum === "complete") {
          const sum = pseudoHeaderSum(frame) + bytePairSum(frame.subarray(TRANSPORT));
          expect((sum & 0xffff) + (sum >>> 16)).toBe(0xffff);
          expect(checksum).toBeUndefined();
        } else {
          expect(view(frame).getUint16(TRANSPORT + 16)).toBe(pseudoHeaderSum(frame));
          expect(checksum).toEqual({ start: TRANSPORT, offset: 16 });
        }
        expect(gso?.size ?? null).toBe(plan.segment);
        if (plan.segment === null) expect(plan.length).toBeLessThanOrEqual(mtu + ETHERNET);
        else expect(plan.segment + HEADERS).toBeLessThanOrEqual(mtu + ETHERNET);
      }
    },
  );

  it("become rates by the time until the last one arrived", () => {
    const samples = [1, 2, 4].map((seconds) => ({
      frames: 2000,
      bytes: 1_000_000_000,
      seconds,
      payload: 900_000_000,
      received: 1000,
      signals: 30,
      doorbells: 20,
      interrupts: 10,
      copied: 2_000_000_000,
      verified: 0,
      cpu: 3e9,
    }));
    const row = trafficRow({ name: "frames", card: "venet", mtu: 1500, note: "merged" }, samples);
    expect(row.kiloframes).toMatchObject({ median: 1, count: 3 });
    expect(row.gigabits.median).toBe(4);
    expect(row.signals.median).toBe(15);
    expect(row.received.median).toBe(0.5);
    const lines = trafficTable([row]).split("\n");
    expect(lines[1]).toContain("Gbit/s");
    expect(lines[2]).toMatch(/frames +1500 +1\.00 +±\d+% +4\.00 +±\d+% +15\.0 +0\.50 +merged$/);
  });
});

describe("loads of the block figures", () => {
  const load: BlockLoad = { operation: "read", order: "random", length: 4096, depth: 4 };

  it("go over the medium in order and begin again, or stay inside of it at random, the same for the same seed", () => {
    const inOrder = positions("sequential", 512, 1600, 1);
    expect([inOrder(), inOrder(), inOrder(), inOrder()]).toEqual([512, 1024, 0, 512]);
    const size = 100 * 4096 + 1;
    const take = (): number[] => Array.from({ length: 500 }, positions("random", 4096, size, 7));
    const found = take();
    expect(found).toEqual(take());
    expect(new Set(found).size).toBeGreaterThan(90);
    for (const at of found) {
      expect(at % 4096).toBe(0);
      expect(at + 4096).toBeLessThanOrEqual(size);
    }
    expect(() => positions("random", 4096, 4095, 1)).toThrow(RangeError);
  });

  it("keep as many requests outstanding as asked, and count them all", async () => {
    let outstanding = 0;
    let most = 0;
    let done = 0;
    const request = async (): Promise<void> => {
      most = Math.max(most, ++outstanding);
      await new Promise((resolve) => setImmediate(resolve));
      outstanding--;
      done++;
    };
    const target: BlockTarget = { read: request, write: () => Promise.reject(new Error("read-only")) };
    const { requests, seconds } = await runLoad(target, load, 1 << 20, 5, 1);
    expect(most).toBe(4);
    expect(requests).toBe(done);
    expect(seconds).toBeGreaterThan(0);
    await expect(runLoad(target, { ...load, operation: "write" }, 1 << 20, 5, 1)).rejects.toThrow(
      "read-only",
    );
  });

  it("are judged by requests at random, by bytes in order", () => {
    expect(blockRate(load, { requests: 50, seconds: 0.5 })).toBe(100);
    expect(
      blockRate({ ...load, order: "sequential", length: 131_072 }, { requests: 1000, seconds: 0.5 }),
    ).toBe(262.144);
    expect(blockName(load, "file")).toBe("random reads of 4 KiB, depth 4, file");
  });
});

describe("the rivals", () => {
  it("sum byte pairs as RFC 1071 does, odd lengths and carries included", () => {
    const bytes = new Uint8Array(65536).fill(255);
    expect(bytePairSum(bytes)).toBe(0xffff);
    expect(bytePairSum(Uint8Array.of(0x00, 0x01, 0xf2))).toBe(0xf201);
    expect(bytePairSum(Uint8Array.of(0xff, 0xff, 0x00, 0x01))).toBe(1);
  });

  it("name their compiler flags where the sources are, and all sources exist", () => {
    const folder = path.join(import.meta.dirname, "../bench/native");
    for (const file of ["main.c", "ring.c", "ring.h", "checksum.c", "checksum.h"]) {
      expect(fs.existsSync(path.join(folder, file)), file).toBe(true);
    }
  });

  it("print figures with a few significant digits", () => {
    expect([0, 0.0061, 0.25, 9.999, 12.34, 123.4].map(figureText)).toEqual([
      "0",
      "0.006",
      "0.25",
      "10.00",
      "12.3",
      "123",
    ]);
  });
});
