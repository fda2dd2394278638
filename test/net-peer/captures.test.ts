/** Judges that share no code with the peers: what a Linux kernel sent, and what tshark says about what they send. */
import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { MemorySpace } from "vbus/memory";
import { capturePort, HostFrames, PcapngWriter, Switch } from "vbus/net";
import { VirtualScheduler } from "vbus/scheduler";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { segments, superframes } from "../offload/captures.js";
import { finished } from "../offload/rig.js";
import { NetPeer } from "../support/net-peer.js";
import { PatternStream } from "../support/streams.js";
import { B, errorsOf, Network } from "./network.js";

const TSHARK = process.env.VBUS_TSHARK ?? "/usr/bin/tshark";

let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "vbus-peer-"));
});

afterEach(() => {
  rmSync(folder, { recursive: true });
});

function tshark(path: string, ...args: string[]): string {
  if (!existsSync(TSHARK)) {
    throw new Error(`${TSHARK} is not there: install tshark, or point VBUS_TSHARK at one`);
  }
  return execFileSync(TSHARK, ["-n", "-r", path, ...args], {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "pipe"],
    maxBuffer: 1 << 26,
  });
}

const VERIFIED = ["ip.check_checksum", "tcp.check_checksum", "udp.check_checksum"].flatMap((name) => [
  "-o",
  `${name}:TRUE`,
]);

const text = (bytes: Uint8Array, from: number, n: number): string =>
  n === 4
    ? [...bytes.subarray(from, from + 4)].join(".")
    : Array.from({ length: 8 }, (_, i) =>
        Buffer.from(bytes)
          .subarray(from + 2 * i, from + 2 * i + 2)
          .toString("hex"),
      ).join(":");

describe.each([
  { what: "frames of a Linux kernel", frames: () => segments().map((bytes) => finished(bytes)) },
  { what: "superframes of a Linux kernel", frames: superframes },
])("$what", ({ frames }) => {
  it("are parsed, and their checksums are found right, by whoever has their address", async () => {
    const scheduler = new VirtualScheduler();
    const space = await MemorySpace.host();
    const net = new Switch({ scheduler, space });
    const all = frames();
    const toB = all.find(({ bytes }) => bytes[5] === 0x0b && bytes[12] === 8 && bytes[13] === 0)!.bytes;
    const toB6 = all.find(({ bytes }) => bytes[5] === 0x0b && bytes[12] === 0x86 && bytes[20] === 6)!.bytes;
    const peer = new NetPeer({
      port: net.addPort("peer"),
      scheduler,
      space,
      mac: Buffer.from(toB.subarray(0, 6))
        .toString("hex")
        .replace(/(..)(?=.)/g, "$1:"),
      ip4: text(toB, 30, 4),
      ip6: text(toB6, 38, 16),
    });
    const port = net.addPort("kernel");
    for (const { bytes, flags, kind, size, start, offset } of all) {
      const host = new HostFrames(space, 1, 1 << 17);
      host.add(bytes, { flags, gsoKind: kind, gsoSize: size, checksumStart: start, checksumOffset: offset });
      port.transmit(host.batch, 0, 1);
      host.close();
      scheduler.run();
    }
    const { fates, checksumErrors, received } = peer.counters;
    expect(checksumErrors).toEqual({ ip: 0, icmp: 0, udp: 0, tcp: 0 });
    expect(fates).toMatchObject({ malformed: 0, checksum: 0 });
    expect(Object.values(fates).reduce((sum, n) => sum + n, 0)).toBe(received.frames);
    expect(fates.tcp).toBeGreaterThan(50);
    expect(received.frames).toBeGreaterThan(150);
    // a bit that falls over is found, in headers and payload alike; what a partial checksum covers nobody can tell
    const victims = all.filter(
      ({ bytes, flags }) => flags === 0 && bytes[5] === 0x0b && bytes[12] === 8 && bytes[23] === 6,
    );
    for (const [n, { bytes }] of victims.entries()) {
      const spoilt = bytes.slice();
      const end = 14 + new DataView(bytes.buffer, bytes.byteOffset).getUint16(16);
      const at = 34 + ((n * 7919) % (end - 34));
      spoilt[at]! ^= 1 << (n % 8);
      const before = fates.checksum + fates.malformed;
      const host = HostFrames.of(space, [spoilt]);
      port.transmit(host.batch, 0, 1);
      scheduler.run();
      expect(fates.checksum + fates.malformed, `byte ${at} of frame ${n}`).toBe(before + 1);
      host.close();
    }
    expect(victims.length > 100).toBe(all.every(({ flags }) => flags === 0));
    peer.close();
    net.close();
  });
});

describe("a session of two peers", () => {
  it.each([
    { what: "finished frames", both: { takes: 0, sends: 0 }, b: {} },
    { what: "frames that the engine finished", both: {}, b: { takes: 0, sends: 0 } },
  ])(
    "of $what gets no complaint from tshark",
    async ({ both, b: ofB }) => {
      const chunks: Uint8Array[] = [];
      let time = 0;
      const writer = new PcapngWriter({
        sink: (chunk) => chunks.push(chunk),
        clock: { now: () => (time += 0.01) },
      });
      const tcp = { ecn: true, markEvery: 100_000 };
      const network = await Network.open({
        both: { ...both, tcp },
        b: ofB,
        wrap: (port) => (ofB.takes === 0 ? port : capturePort(port, writer)),
        wrapB: (port) => (ofB.takes === 0 ? capturePort(port, writer) : port),
      });
      const { a, b } = network;
      b.udp.echo(47007);
      const answers = a.udp.sink(40000, 2);
      b.tcp.listen(5001, (context) => new PatternStream(context, { send: 200_003, receiveSeed: 4 }));
      for (const [to, tag] of [
        [B.ip4, -1],
        [B.ip6, -1],
        [B.ip4, 7],
        [B.ip6, 7],
      ] as const) {
        await network.until(a.icmp.ping(to, { size: 333, tag }));
        await network.until(a.udp.send(to, 47007, { count: 64, size: (n) => 4 + n * 22, seed: 2, tag }));
        network.pass(1);
        await network.until(a.udp.send(to, 47007, { count: 64, size: 1001, seed: 2, tag, segments: 32 }));
        network.pass(1);
        const connection = await network.until(
          a.tcp.connect(to, 5001, (context) => new PatternStream(context, { send: 300_001, sendSeed: 4 }), {
            tag,
          }),
        );
        expect(await network.until(connection.closed)).toBe("finished");
        network.pass(600);
      }
      expect(answers).toMatchObject({ datagrams: 512, patternErrors: 0 });
      expect(errorsOf(a, b)).toBe(0);
      network.close();
      writer.close();
      const path = join(folder, "session.pcapng");
      writeFileSync(path, Buffer.concat(chunks));
      const bad = [
        "_ws.malformed",
        "ip.checksum.status == 0",
        "tcp.checksum.status == 0",
        "udp.checksum.status == 0",
        "icmp.checksum.status == 0",
        "icmpv6.checksum.status == 0",
        "tcp.analysis.retransmission",
        "tcp.analysis.out_of_order",
        "tcp.analysis.lost_segment",
        "tcp.analysis.ack_lost_segment",
        "tcp.analysis.duplicate_ack",
        "_ws.expert.severity >= 0x00800000",
      ].join(" || ");
      expect(tshark(path, ...VERIFIED, "-Y", bad)).toBe("");
      // what it was asked to verify was there, and was verified: status 1
      const fields = [
        "ip.checksum.status",
        "tcp.checksum.status",
        "udp.checksum.status",
        "vlan.id",
        "tcp.flags.cwr",
        "tcp.len",
        "arp.opcode",
        "icmpv6.type",
      ];
      const rows = tshark(path, ...VERIFIED, "-T", "fields", ...fields.flatMap((name) => ["-e", name]))
        .trimEnd()
        .split("\n")
        .map((line) => line.split("\t"));
      const count = (column: number, value: RegExp): number =>
        rows.filter((row) => value.test(row[column] ?? "")).length;
      for (const column of [0, 1, 2]) expect(count(column, /^1$/)).toBe(count(column, /./));
      expect(count(0, /1/)).toBeGreaterThan(1000);
      expect(count(1, /1/)).toBeGreaterThan(1000);
      expect(count(2, /1/)).toBe(1024);
      expect(count(3, /^7$/)).toBeGreaterThan(1000);
      expect(rows.filter((row) => row[4] === "1" && Number(row[5]) > 0).length).toBeGreaterThan(4);
      expect(count(6, /./)).toBe(4);
      expect(count(7, /^135$/)).toBe(2);
    },
    60_000,
  );
});
