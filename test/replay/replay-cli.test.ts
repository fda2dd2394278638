import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import { readCapture } from "vbus/net";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

import type { JobResult } from "../../examples/replay/job.js";
import { runProgram, type Outcome } from "../support/program.js";
import { frame, mac, pcap } from "./replay-captures.js";

const PROGRAM = fileURLToPath(new URL("../../.build/examples/replay/main.js", import.meta.url));
const SEGMENTS = fileURLToPath(new URL("../data/segments.pcap.gz", import.meta.url));
const TSHARK = process.env.VBUS_TSHARK ?? "/usr/bin/tshark";
const QUICK = ["--repetitions", "1", "--rounds", "5"];

let folder: string;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "vbus-replay-"));
});

afterAll(() => {
  rmSync(folder, { recursive: true });
});

/** Runs the command in the test's folder. */
const replay = (...args: string[]): Promise<Outcome> =>
  runProgram(PROGRAM, args, { cwd: folder, timeoutMs: 120_000 });

function file(name: string, bytes: Uint8Array): string {
  const path = join(folder, name);
  writeFileSync(path, bytes);
  return path;
}

function tshark(...args: string[]): string {
  if (!existsSync(TSHARK))
    throw new Error(`${TSHARK} is not there: install tshark, or point VBUS_TSHARK at one`);
  return execFileSync(TSHARK, ["-n", ...args], {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "pipe"],
    maxBuffer: 1 << 28,
  });
}

describe("the command line", () => {
  it("explains itself", async () => {
    const { code, out, err } = await replay("--help");
    expect({ code, err }).toEqual({ code: 0, err: "" });
    for (const option of ["--file", "--repetitions", "--rx-ring", "--batch", "--loss", "--json", "--capture"])
      expect(out).toContain(option);
    expect(Math.max(...out.split("\n").map((line) => line.length))).toBeLessThanOrEqual(130);
    expect(readdirSync(folder)).toEqual([]);
  });

  it("prints JSON on standard output, and everything else on standard error", async () => {
    const { code, out, err } = await replay(
      ...QUICK,
      "--json",
      "--capture-frames",
      "0",
      "--rx-ring",
      "64",
      "--lazy",
    );
    expect(code).toBe(0);
    const result = JSON.parse(out) as JobResult;
    expect(result).toMatchObject({ ok: true, complaints: [], capture: null });
    expect(result.options).toMatchObject({ repetitions: 1, rounds: 5, rxRing: 64, lazy: true, faults: null });
    expect(result.equation).toMatchObject({ balanced: true, drops: {}, inFlight: 0 });
    expect(result.directions.map(({ received }) => received.matched)).toEqual([1563, 1563, 1563, 1563]);
    expect(result.latency.map(({ rounds, lost }) => ({ rounds, lost }))).toEqual([
      { rounds: 5, lost: 0 },
      { rounds: 5, lost: 0 },
    ]);
    expect(err).toContain("found vbus-proxy:virtual-ethernet");
    expect(readdirSync(folder)).toEqual([]);
  });

  it("prints the tree, a table, the equation; and with faults their drops", async () => {
    const { code, out, err } = await replay(
      ...QUICK,
      "--capture-frames",
      "0",
      "--loss",
      "0.01",
      "--seed",
      "5",
    );
    expect({ code, err }).toEqual({ code: 0, err: "" });
    expect(out).toContain("client_mac: 02:00:00:00:00:0a");
    expect(out).toMatch(/^phase +direction +unicast +flooded +bytes +frames\/s +Gbit\/s +signals\/1000/m);
    expect(out).toMatch(/frame equation: [\d,]+ sent \+ 0 replicated = .* in flight: holds/);
    expect(out).toMatch(/dropped \d+: switch: fault/);
    expect(out.trimEnd().endsWith("\nok")).toBe(true);
  });
});

describe("the written capture", () => {
  it("opens in tshark without a complaint, and holds what was sent, byte for byte", async () => {
    const path = join(folder, "crossed.pcapng");
    const { code } = await replay(
      "--repetitions",
      "1",
      "--rounds",
      "0",
      "--capture",
      path,
      "--capture-frames",
      "2000",
    );
    expect(code).toBe(0);
    const source = (await readCapture(new Uint8Array(readFileSync(SEGMENTS)))).frames;
    const written = await readCapture(new Uint8Array(readFileSync(path)));
    const { status, stderr } = spawnSync(TSHARK, ["-n", "-r", path, "-q"], { encoding: "utf8" });
    const told = stderr.split("\n").filter((line) => line !== "" && !line.startsWith("Running as user"));
    expect({ status, told }).toEqual({ status: 0, told: [] });
    const rows = tshark("-r", path, "-T", "fields", "-e", "frame.interface_name", "-e", "frame.packet_flags_direction",
      "-e", "frame.len", "-e", "frame.cap_len").trimEnd().split("\n").map((line) => line.split("\t")); // prettier-ignore
    expect(rows.length).toBe(written.frames.length);
    for (const [i, { data, originalLength, interface: number }] of written.frames.entries()) {
      expect(rows[i]!.slice(0, 1)).toEqual([`nic${number}`]);
      expect(rows[i]!.slice(2)).toEqual([String(originalLength), String(data.length)]);
    }
    // what left A's NIC, after its announcement, is the capture; and so is what B's NIC was given
    for (const [number, direction] of [
      [0, "outbound"],
      [1, "inbound"],
    ] as const) {
      const frames = written.frames
        .filter((f) => f.interface === number && f.direction === direction)
        .slice(1);
      expect(frames.length).toBeGreaterThanOrEqual(1563);
      for (const [i, { data }] of source.entries()) expect(Buffer.compare(data, frames[i]!.data)).toBe(0);
    }
    // the same bytes as tshark sees them: every TCP payload of A's side, by the tool's own dissection
    const fields = ["-T", "fields", "-e", "eth.src", "-e", "eth.dst", "-e", "eth.type", "-e", "ip.checksum", "-e", "tcp.payload", "-e", "udp.payload"]; // prettier-ignore
    const original = tshark("-r", SEGMENTS, ...fields);
    const filter = "frame.interface_id == 1 && frame.packet_flags_direction == 1";
    const copy = tshark("-r", path, "-Y", filter, ...fields).split("\n");
    expect(copy.slice(1, 1 + 1563)).toEqual(original.trimEnd().split("\n"));
  });
});

describe("wrong use", () => {
  const cases: [string, string[], RegExp][] = [
    ["an unknown option", ["--bogus"], /Unknown option '--bogus'/],
    ["an argument", ["capture.pcap"], /Unexpected argument 'capture.pcap'/],
    ["an option without its value", ["--file"], /--file/],
    ["a value where none belongs", ["--json=3"], /'--json' does not take an argument/],
    ["words for numbers", ["--repetitions", "many"], /--repetitions many: give a whole number from 1/],
    ["no number", ["--repetitions", ""], /--repetitions : give a whole number from 1/],
    ["fractions", ["--batch", "1.5"], /--batch 1.5: give a whole number from 1 to 65536/],
    ["negative numbers", ["--rounds=-1"], /--rounds -1: give a whole number from 0/],
    ["no repetitions", ["--repetitions", "0"], /--repetitions 0: give a whole number from 1/],
    ["a ring of none", ["--rx-ring", "0"], /--rx-ring 0: give a whole number from 1 to 2048/],
    ["too large a ring", ["--tx-ring", "2049"], /--tx-ring 2049: give a whole number from 1 to 2048/],
    ["too small an MTU", ["--mtu", "67"], /--mtu 67: give a whole number from 68 to 65000/],
    ["too large an MTU", ["--mtu", "65001"], /--mtu 65001: give a whole number from 68 to 65000/],
    ["more than certainty", ["--loss", "1.01"], /--loss 1.01: give a number from 0 to 1/],
    ["not a number", ["--delay", "NaN"], /--delay NaN: give a number from 0 to 1/],
    ["a missing file", ["--file", "missing.pcap"], /cannot read the capture: ENOENT/],
    ["a folder", ["--file", "."], /cannot read the capture: EISDIR/],
    ["a capture to a folder", ["--capture", "."], /cannot write --capture \.: EISDIR/],
    ["a capture to nowhere", ["--capture", "no/such/folder.pcapng"], /cannot write --capture no\/such\/folder.pcapng: ENOENT/],
    ["a capture over its source", ["--file", "two.pcap", "--capture", "./two.pcap"], /is the file that is read/],
    ["a capture that is truncated", ["--file", "cut.pcap"], /EINVAL: capture file, offset 24: .* truncated/],
    ["half a gzip file", ["--file", "half.gz"], /EINVAL: capture file: the gzip data is damaged or truncated/],
    ["something that is no capture", ["--file", "text.txt"], /EINVAL: capture file, offset 0: .* neither pcap nor pcapng/],
    ["an empty file", ["--file", "empty"], /EINVAL: capture file, offset 0: only 0 bytes/],
    ["a capture without frames", ["--file", "none.pcap"], /EINVAL: the capture holds no frames/],
    ["a capture of frames that are too long", ["--file", "long.pcap"], /EINVAL: none of the capture's 2 frames .* larger --mtu/],
  ]; // prettier-ignore

  beforeAll(() => {
    const two = pcap([frame(mac(1), mac(2), 60, 1), frame(mac(2), mac(1), 60, 2)]);
    file("two.pcap", two);
    file("cut.pcap", two.slice(0, 60));
    file("half.gz", readFileSync(SEGMENTS).subarray(0, 5000));
    file("text.txt", new TextEncoder().encode("not a capture at all"));
    file("empty", new Uint8Array(0));
    file("none.pcap", pcap([]));
    file("long.pcap", pcap([frame(mac(1), mac(2), 1515, 1), frame(mac(2), mac(1), 9000, 2)]));
  });

  it("is told in one line, with exit code 2, and writes nothing", async () => {
    const before = readdirSync(folder);
    const outcomes: Outcome[] = [];
    // two at a time: starting a process costs more than anything that it does here
    for (let i = 0; i < cases.length; i += 2)
      outcomes.push(...(await Promise.all(cases.slice(i, i + 2).map(([, args]) => replay(...args)))));
    for (const [i, [name, args, message]] of cases.entries()) {
      const { code, signal, err } = outcomes[i]!;
      const what = `${name} (${args.join(" ")}): ${err}`;
      expect({ code, signal }, what).toEqual({ code: 2, signal: null });
      expect(err.trimEnd().split("\n"), what).toHaveLength(1);
      expect(err, what).toMatch(message);
      expect(err, what).toContain("--help explains");
      expect(err, what).not.toMatch(/^ +at /m);
    }
    expect(readdirSync(folder)).toEqual(before);
  });

  it("leaves the source alone", async () => {
    const two = await readCapture(new Uint8Array(readFileSync(join(folder, "two.pcap"))));
    expect(two.frames).toHaveLength(2);
  });
});
