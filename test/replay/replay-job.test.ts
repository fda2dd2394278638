import { readFileSync } from "node:fs";

import { readCapture } from "vbus/net";
import { afterEach, describe, expect, it } from "vitest";

import { Job, type JobResult } from "../../examples/replay/job.js";
import { DEFAULT_OPTIONS, type JobOptions } from "../../examples/replay/options.js";
import { formatReport } from "../../examples/replay/report.js";
import { ALL, frame, mac, pcap, pcapng } from "./replay-captures.js";

const program = (name: string): URL => new URL(`../../.build/examples/replay/${name}.js`, import.meta.url);
const segments = new Uint8Array(readFileSync(new URL("../data/segments.pcap.gz", import.meta.url)));
const SMALL: JobOptions = { ...DEFAULT_OPTIONS, repetitions: 2, rounds: 20, captureFrames: 0 };
const NO_FAULTS = { loss: 0, duplicate: 0, reorder: 0, corrupt: 0, delay: 0, delayMs: 5, seed: 7 };

let job: Job | null = null;

afterEach(() => {
  job?.close();
});

async function run(
  options: Partial<JobOptions>,
  capture = segments,
  quietMs = 3000,
): Promise<JobResult & { log: string[] }> {
  const log: string[] = [];
  job = new Job(
    { ...SMALL, ...options },
    {
      host: program("host"),
      guest: program("guest"),
      capture,
      superframes: null,
      capturePath: null,
      quietMs,
      log: (line) => log.push(line),
      progress: () => {},
    },
  );
  return { ...(await job.run()), log };
}

/** Everything arrived, nothing was lost on the way, and the report says so. */
function expectFlawless(result: JobResult, flooded = 0): void {
  expect(result.complaints).toEqual([]);
  expect(result.ok).toBe(true);
  expect(result.directions).toHaveLength(4);
  for (const { received, frames, bytes, unicast } of result.directions) {
    expect(frames).toBeGreaterThan(0);
    expect(received.unexpected).toBe(0);
    expect(received.missing).toBe(received.missingFlooded);
    expect(received.matched + received.missing).toBe(frames);
    expect(unicast).toBeLessThanOrEqual(received.matched);
    expect(received.bytes).toBe(bytes);
  }
  const lost = result.directions.reduce((sum, { received }) => sum + received.missing, 0);
  expect(lost).toBeLessThanOrEqual(flooded);
  expect(result.equation).toMatchObject({
    balanced: true,
    inFlight: 0,
    drops: lost === 0 ? {} : { "switch: queue-full": lost },
  });
  for (const { lost: unanswered, rounds, p50, p99 } of result.latency) {
    expect(unanswered).toBe(0);
    expect(rounds).toBe(result.options.rounds);
    expect(p50).toBeGreaterThan(0);
    expect(p99).toBeGreaterThanOrEqual(p50);
  }
  const text = formatReport(result);
  expect(text).toContain("in flight: holds");
  expect(text.endsWith("\nok")).toBe(true);
}

describe("the job replays the real capture without a loss", () => {
  const variants: [string, Partial<JobOptions>][] = [
    ["as it is", {}],
    ["with lazily written indexes", { lazy: true }],
    ["polling before it sleeps", { spin: 500 }],
    ["through rings of one descriptor", { rxRing: 1, txRing: 1, repetitions: 1, rounds: 5 }],
    ["through rings of two", { rxRing: 2, txRing: 2, repetitions: 1 }],
    ["through rings of three", { rxRing: 3, txRing: 3, repetitions: 1 }],
    ["through rings of one and 2048", { rxRing: 1, txRing: 2048, repetitions: 1 }],
    ["through rings of 2048 and one", { rxRing: 2048, txRing: 1, repetitions: 1 }],
    ["through rings of 64", { rxRing: 64, txRing: 64 }],
    ["through rings of 2048, lazily", { rxRing: 2048, txRing: 2048, lazy: true }],
    ["frame by frame", { batch: 1, repetitions: 1 }],
    ["a thousand frames at once", { batch: 1000 }],
    ["with jumbo frames", { mtu: 9000 }],
    [
      "with the largest MTU and the largest rings",
      { mtu: 65000, rxRing: 2048, txRing: 2048, repetitions: 1 },
    ],
  ];
  it.each(variants)("%s", async (_name, options) => {
    const result = await run(options);
    expectFlawless(result);
    expect(result.workload).toMatchObject({ a: 1563, b: 1563, left: 0, unfit: 0, mirrored: true });
    expect(result.equation.sent).toBeGreaterThanOrEqual(4 * 1563 * result.options.repetitions);
    expect(result.tree).toContain("client_mac");
  });
});

describe("the job under faults", () => {
  it("counts every loss, copy and damage, and its equation holds", async () => {
    const faults = { ...NO_FAULTS, loss: 0.02, duplicate: 0.03, reorder: 0.02, corrupt: 0.02, delay: 0.01 };
    const result = await run({ faults, rounds: 10 }, segments, 500);
    expect(result.complaints).toEqual([]);
    expect(result.ok).toBe(true);
    const { equation, directions } = result;
    expect(equation.balanced).toBe(true);
    expect(equation.replicated).toBeGreaterThan(0);
    expect(equation.drops["switch: fault"]).toBeGreaterThan(0);
    for (const { received } of directions) {
      expect(received.missing).toBeGreaterThan(0);
      expect(received.unexpected).toBeGreaterThan(0);
      expect(received.matched).toBeGreaterThan(received.missing);
    }
  });

  it("repeats itself with the same seed", async () => {
    const faults = { ...NO_FAULTS, loss: 0.1 };
    const lost = async (seed: number): Promise<number[]> => {
      const { directions, ok } = await run(
        { faults: { ...faults, seed }, rounds: 0, repetitions: 1 },
        segments,
        1000,
      );
      expect(ok).toBe(true);
      return directions.map(({ received }) => received.missing);
    };
    const [first, again, other] = [await lost(3), await lost(3), await lost(4)];
    expect(again).toEqual(first);
    expect(other).not.toEqual(first);
  });

  it("survives a network that loses everything", async () => {
    const result = await run({ faults: { ...NO_FAULTS, loss: 1 }, rounds: 2, repetitions: 1 }, segments, 500);
    expect(result.ok).toBe(true);
    expect(result.equation.balanced).toBe(true);
    for (const { received } of result.directions)
      expect(received).toMatchObject({ matched: 0, unexpected: 0 });
    for (const { lost, rounds } of result.latency) expect(lost).toBe(rounds);
    formatReport(result);
  });
});

describe("a user's own capture", () => {
  const [A, B, C, D] = [mac(1), mac(2), mac(3), mac(4)];

  it("of two ways: each frame is sent by the guest that owns its source, and others are left out and counted", async () => {
    const frames: Uint8Array[] = [];
    for (let i = 0; i < 300; i++) {
      frames.push(frame(B, A, 60 + ((i * 13) % 1400), i));
      if (i % 2 === 0) frames.push(frame(A, B, 60 + ((i * 17) % 1400), i));
      if (i % 10 === 0) frames.push(frame(D, C, 100, i)); // two strangers: no guest owns either
      if (i % 20 === 0) frames.push(frame(ALL, A, 80, i));
      if (i % 50 === 0) frames.push(frame(ALL, C, 80, i)); // a stranger to all: goes with A
    }
    for (const file of [pcap(frames), pcapng(frames)]) {
      const result = await run({}, file);
      expectFlawless(result);
      expect(result.workload).toEqual({ a: 300 + 15 + 6, b: 150, left: 30, unfit: 0, mirrored: false });
      expect(result.log.join("\n")).toContain("guest A owns 02:00:00:00:01:01 and sends 321 frames");
      expect(result.log.join("\n")).toContain("guest B owns 02:00:00:00:01:02 and sends 150");
      expect(result.log.join("\n")).toContain("30 frames between other stations left out");
    }
  });

  it("of one station and many others: the switch knows all of them", async () => {
    const frames: Uint8Array[] = [];
    for (let i = 0; i < 400; i++) {
      frames.push(frame(mac(10 + (i % 40)), A, 64 + i, i));
      if (i % 3 === 0) frames.push(frame(A, mac(10 + (i % 20)), 64 + i, i));
    }
    const result = await run({ repetitions: 5, rxRing: 8 }, pcap(frames));
    expectFlawless(result);
    expect(result.workload).toMatchObject({ a: 400, b: 134, left: 0, mirrored: false });
  });

  it("with tags of 802.1Q, up to the limits of the NIC", async () => {
    const vlan: [number, number] = [0x8100, 0x2064];
    const service: [number, number] = [0x88a8, 100];
    const frames = [
      frame(B, A, 18, 0, [vlan]),
      frame(B, A, 1518, 1, [vlan]), // MTU, header, one tag
      frame(B, A, 1518, 2, [service, vlan]),
      frame(A, B, 64, 3, [vlan]),
      frame(A, B, 1514, 4),
      frame(B, A, 14, 5),
      frame(B, A, 1515, 6), // too long: no tag
      frame(B, A, 1519, 7, [vlan]),
      frame(B, A, 1522, 8, [service, vlan]), // more than the driver posts
      frame(B, A, 13, 9),
      frame(B, [3, 0, 0, 0, 0, 1], 60, 10), // nobody's address
      frame(B, [0, 0, 0, 0, 0, 0], 60, 11),
    ];
    const result = await run({ repetitions: 50 }, pcap(frames));
    expectFlawless(result);
    expect(result.workload).toMatchObject({ a: 4, b: 2, left: 0, unfit: 6 });
  });

  it("with the smallest MTU: what does not fit is left out", async () => {
    const sizes = [14, 60, 68, 82, 83, 86, 87, 1514];
    const frames = sizes.flatMap((size, i) => [frame(B, A, size, i), frame(A, B, size, i)]);
    const result = await run({ mtu: 68, repetitions: 20 }, pcap(frames));
    expectFlawless(result);
    expect(result.workload).toMatchObject({ a: 4, b: 4, unfit: 8 });
  });

  it("full of broadcasts: what nobody has room for is told, and order holds although the queue fills", async () => {
    const frames: Uint8Array[] = [];
    for (let i = 0; i < 1000; i++) {
      const [to, source] = i % 2 === 0 ? [B, A] : [A, B];
      frames.push(frame(i % 5 < 2 ? ALL : to, source, 60 + (i % 64), i));
    }
    const result = await run({ repetitions: 20, rxRing: 4, rounds: 0 }, pcap(frames), 500);
    expectFlawless(result, Infinity);
    const wild = frames.map((bytes, i) => frame(ALL, [...bytes.subarray(6, 12)], 60, i));
    expectFlawless(await run({ rounds: 0 }, pcap(wild), 500), Infinity);
  });

  it("of broadcasts alone has a stand-in for the other side", async () => {
    const frames = Array.from({ length: 20 }, (_, i) =>
      frame(ALL, [0xfe, 0xff, 0xff, 0xff, 0xff, 0xfe], 60, i),
    );
    const result = await run({ batch: 4 }, pcap(frames), 500);
    expectFlawless(result, Infinity);
    expect(result.workload).toMatchObject({ a: 20, b: 20, mirrored: true });
    expect(result.log.join("\n")).toContain("guest B owns 02:00:00:00:00:01");
  });

  it.each([
    ["empty", pcap([]), /EINVAL: the capture holds no frames/],
    [
      "of another link type",
      pcap([frame(B, A, 60, 1)], { linkType: 101 }),
      /EINVAL: none of the capture's 1 frames/,
    ],
    [
      "whose frames are cut off",
      pcap([frame(B, A, 60, 1)], { cut: 1 }),
      /EINVAL: none of the capture's 1 frames/,
    ],
    ["of frames that are too long", pcap([frame(B, A, 9000, 1)]), /none of the .* or a larger --mtu/],
    ["of a station that talks to itself", pcap([frame(A, A, 60, 1)]), /EINVAL: all 1 frames/],
    [
      "with half a record",
      pcap([frame(B, A, 60, 1)]).slice(0, -1),
      /EINVAL: capture file, offset 24: .* truncated/,
    ],
    ["with half a header", pcap([]).slice(0, 20), /EINVAL: capture file, offset 0: truncated/],
    ["that is none", new Uint8Array(100), /EINVAL: capture file, offset 0: begins with 0x00000000/],
    ["of no bytes", new Uint8Array(0), /EINVAL: capture file, offset 0: only 0 bytes/],
    ["with half of its gzip", segments.slice(0, 10_000), /EINVAL: capture file: the gzip data is damaged/],
  ])("%s is refused before any thread runs", async (_name, file, message) => {
    await expect(run({}, file)).rejects.toThrow(message);
  });
});

describe("what crossed the switch", () => {
  it("comes back as a capture: frames of each guest, in order, and statistics", async () => {
    const result = await run({ captureFrames: 1000, repetitions: 1, rounds: 0 });
    expectFlawless(result);
    const { bytes, size, path } = result.capture!;
    expect(path).toBeNull();
    expect(bytes!.length).toBe(size);
    const written = await readCapture(bytes!);
    expect(written.interfaces.map(({ name }) => name)).toEqual(["nic0", "nic1"]);
    const source = (await readCapture(segments)).frames;
    // announcements come first, then what A sent, until the limit of frames per port
    const sent = written.frames.filter((f) => f.interface === 0 && f.direction === "outbound").slice(1);
    const got = written.frames.filter((f) => f.interface === 1 && f.direction === "inbound").slice(1);
    expect(sent.length).toBeGreaterThan(900);
    for (const list of [sent, got])
      for (const [i, { data, truncated }] of list.entries()) {
        expect(truncated).toBe(false);
        expect(Buffer.compare(data, source[i]!.data)).toBe(0);
      }
    expect(written.interfaces[0]!.received).toBe(4 * 1563 + 2); // both ways, two phases, announcements
    expect(written.interfaces[0]!.dropped).toBe(4 * 1563 + 2 - 1000); // not recorded
  });
});

describe("a guest of the job that dies", () => {
  it("ends the run with an error instead of hanging", async () => {
    const running = run({ repetitions: 2000, rounds: 0 });
    const failed = expect(running).rejects.toThrow(/thread vbus-guest-B ended|ENOTCONN/);
    while (job!.guests.length < 2) await new Promise((resolve) => setTimeout(resolve, 10));
    await new Promise((resolve) => setTimeout(resolve, 500));
    job!.guests[1]!.terminate();
    await failed;
  });
});
