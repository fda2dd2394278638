import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { MemorySpace } from "vbus/memory";
import { capturePort, PcapngWriter, readCapture, Switch, type CaptureSink } from "vbus/net";
import { fileSink } from "vbus/net/node-file";
import { VirtualScheduler } from "vbus/scheduler";
import { afterEach, beforeEach, describe, expect, it } from "vitest";

import { BROADCAST, frame, range, realFrames, Station, station } from "./rig.js";

const TSHARK = process.env.VBUS_TSHARK ?? "/usr/bin/tshark";
const EPOCH = 1_700_000_000_123_456_789n;

let scheduler: VirtualScheduler;
let space: MemorySpace;
let folder: string;

beforeEach(async () => {
  scheduler = new VirtualScheduler();
  space = await MemorySpace.host();
  folder = mkdtempSync(join(tmpdir(), "vbus-capture-"));
});

afterEach(() => {
  rmSync(folder, { recursive: true });
});

function memorySink(): { sink: CaptureSink; file(): Uint8Array<ArrayBuffer>; chunks: Uint8Array[] } {
  const chunks: Uint8Array[] = [];
  return {
    chunks,
    sink: (chunk) => chunks.push(chunk),
    file: () => new Uint8Array(Buffer.concat(chunks)),
  };
}

function tshark(...args: string[]): string {
  if (!existsSync(TSHARK)) {
    throw new Error(`${TSHARK} is not there: install tshark, or point VBUS_TSHARK at one`);
  }
  return execFileSync(TSHARK, ["-n", ...args], { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
}

describe("capturing the real traffic on its way through a switch", () => {
  it("writes a file that tshark and our own reader read back, frame for frame", async () => {
    const path = join(folder, "switch.pcapng");
    const file = fileSink(path);
    const writer = new PcapngWriter({
      sink: file.sink,
      clock: scheduler,
      epochNs: EPOCH,
      comment: "real traffic",
    });
    const net = new Switch({ scheduler, space });
    const a = new Station(
      capturePort(net.addPort("a"), writer, { description: "the sending side" }),
      scheduler,
      space,
    );
    const b = new Station(capturePort(net.addPort("b"), writer, { name: "guest b" }), scheduler, space);
    const frames = (await realFrames()).map(({ data }) => data);
    a.send(...frames);
    scheduler.run();
    expect(b.received.length).toBe(frames.length);
    b.port.close(); // one side ends before the writer does
    writer.close();
    writer.close();
    file.close();
    file.close();

    const read = await readCapture(new Uint8Array(readFileSync(path)));
    expect(read.comments).toEqual(["real traffic"]);
    expect(read.interfaces).toEqual([
      {
        linkType: 1,
        snapLength: 262144,
        name: "a",
        description: "the sending side",
        received: frames.length,
        dropped: 0,
      },
      { linkType: 1, snapLength: 262144, name: "guest b", received: frames.length, dropped: 0 },
    ]);
    for (const [id, direction] of [
      [0, "outbound"],
      [1, "inbound"],
    ] as const) {
      const side = read.frames.filter((each) => each.interface === id);
      expect(side.length).toBe(frames.length);
      side.forEach((each, i) => {
        expect(Buffer.compare(each.data, frames[i] as Uint8Array)).toBe(0);
        expect(each).toMatchObject({ direction, truncated: false, timestampNs: EPOCH });
      });
    }

    // Every frame is in the file twice, once per port: what looks at streams would see retransmissions and is off here.
    const stateless = [
      "tcp.analyze_sequence_numbers",
      "tcp.desegment_tcp_streams",
      "ip.defragment",
      "ipv6.defragment",
    ];
    const preferences = stateless.flatMap((name) => ["-o", `${name}:FALSE`]);
    preferences.push("--disable-protocol", "gryphon"); // owns TCP port 7000, which the recorded sockets happened to use
    const warning = "0x00600000";
    expect(
      tshark("-r", path, ...preferences, "-Y", `_ws.malformed || _ws.expert.severity >= ${warning}`),
    ).toBe("");
    const lines = tshark("-r", path, "-T", "fields", "-e", "frame.interface_name", "-e", "frame.len");
    expect(lines.trim().split("\n").length).toBe(2 * frames.length);
    // what the dissectors say about the traffic is what they say about the original
    const summary = ["-T", "fields", "-e", "_ws.col.Protocol", "-e", "_ws.col.Info"];
    const copy = tshark(
      "-r",
      path,
      "-Y",
      "frame.interface_id == 1",
      "-2",
      "-R",
      "frame.interface_id == 1",
      ...summary,
    );
    expect(copy).toBe(
      tshark("-r", new URL("../data/segments.pcap.gz", import.meta.url).pathname, "-2", ...summary),
    );
  });

  it("gets no complaint from tshark on its error output", () => {
    const path = join(folder, "small.pcapng");
    const file = fileSink(path);
    const writer = new PcapngWriter({ sink: file.sink, clock: scheduler, comment: "ä".repeat(40_000) });
    const id = writer.addInterface({ name: "one", comment: "a comment" });
    for (const length of [14, 15, 16, 17, 60, 65_022])
      writer.frame(id, frame(1, 2, 3, Math.max(18, length)).subarray(0, length), "inbound");
    writer.statistics(id, 6, 2 ** 33);
    writer.close();
    file.close();
    const script = `"${TSHARK}" -n -r "${path}" 2>&1 >/dev/null | grep -v '^Running as user'; true`;
    expect(execFileSync("sh", ["-c", script], { encoding: "utf8" })).toBe("");
  });
});

describe("the writer", () => {
  it("records frames when they cross: pushed back ones later, once; drops are counted at the end", async () => {
    const { sink, file } = memorySink();
    const writer = new PcapngWriter({ sink, clock: scheduler, epochNs: 0n });
    const net = new Switch({ scheduler, space });
    const a = new Station(net.addPort("a"), scheduler, space);
    const b = new Station(capturePort(net.addPort("b"), writer), scheduler, space);
    b.send(frame(BROADCAST, station(1), 0));
    scheduler.run();
    b.room = 2;
    a.send(...range(1, 6).map((i) => frame(station(1), station(0), i)));
    scheduler.advance(50);
    b.makeRoom(1);
    scheduler.advance(50.5);
    b.room = 0;
    scheduler.advance(100);
    writer.close();
    const { frames, interfaces } = await readCapture(file());
    expect(frames.map(({ timestampNs, direction }) => [Number(timestampNs) / 1e6, direction])).toEqual([
      [0, "outbound"],
      [0, "inbound"],
      [0, "inbound"],
      [50, "inbound"],
    ]);
    expect(interfaces[0]).toMatchObject({ received: 4, dropped: 2 });
    expect(() => writer.addInterface({ name: "late" })).toThrow(/ENOTCONN/);
  });

  it("keeps its memory to one buffer, whatever is captured, and gives chunks away for good", () => {
    const { sink, chunks, file } = memorySink();
    const writer = new PcapngWriter({ sink, clock: scheduler, bufferSize: 4096 });
    const id = writer.addInterface({ name: "x" });
    for (let i = 0; i < 100; i++) writer.frame(id, frame(1, 2, i, 1000), "inbound");
    expect(chunks.length).toBeGreaterThan(20);
    expect(Math.max(...chunks.map((chunk) => chunk.length))).toBeLessThanOrEqual(4096);
    const before = file();
    writer.close();
    expect(file().subarray(0, before.length)).toEqual(before);
  });

  it("cuts frames at the snap length and says so", async () => {
    const { sink, file } = memorySink();
    const writer = new PcapngWriter({ sink, clock: scheduler, snapLength: 101 });
    writer.frame(writer.addInterface({ name: "x" }), frame(1, 2, 3, 1000), "inbound");
    writer.close();
    const { frames } = await readCapture(file());
    expect(frames[0]).toMatchObject({
      originalLength: 1000,
      truncated: true,
      data: frame(1, 2, 3, 1000).subarray(0, 101),
    });
  });

  it("stops recording when its sink fails, counts what is lost, and throws the reason at close; traffic goes on", () => {
    const writer = new PcapngWriter({
      sink: () => {
        throw new Error("disk full");
      },
      clock: scheduler,
      bufferSize: 1000,
    });
    const net = new Switch({ scheduler, space });
    const a = new Station(capturePort(net.addPort("a"), writer), scheduler, space);
    const b = new Station(net.addPort("b"), scheduler, space);
    a.send(...range(0, 100).map((i) => frame(BROADCAST, station(0), i)));
    scheduler.run();
    expect(b.serials()).toEqual(range(0, 100));
    expect(writer.lost).toBeGreaterThan(80);
    expect(() => {
      writer.close();
    }).toThrow(/EIO: the capture is incomplete, \d+ frames are missing/);
    writer.close();
  });

  it("keeps nanoseconds exact over hours, across the carry between the halves of a stamp", async () => {
    const { sink, file } = memorySink();
    let now = 1000;
    const epochNs = (5n << 32n) - 3n;
    const writer = new PcapngWriter({ sink, clock: { now: () => now }, epochNs });
    const id = writer.addInterface({ name: "x" });
    const after = [0, 2e-6, 3e-6, 4, 36e5 + 1e-6, 864e5];
    for (const ms of after) {
      now = 1000 + ms;
      writer.frame(id, frame(1, 2, 3), "inbound");
    }
    writer.close();
    const { frames } = await readCapture(file());
    expect(frames.map(({ timestampNs }) => timestampNs - epochNs)).toEqual(
      after.map((ms) => BigInt(Math.round(ms * 1e6))),
    );
  });
});
