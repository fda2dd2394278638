/** Two Linux guests, and one written in TypeScript, on one switch: superframes from kernel to kernel, and nothing done to them. */
import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { readPieces } from "../../examples/linux/pieces.js";
import { TwoGuests } from "../../examples/linux/two-guests.js";
import { PatternStream } from "../support/streams.js";
import { probed, tell, until } from "./fixture.js";
import { MEGABYTE, SEED } from "./traffic.js";

const TSHARK = process.env.VBUS_TSHARK ?? "/usr/bin/tshark";

describe("two Linux guests on one switch", () => {
  const folder = mkdtempSync(join(tmpdir(), "vbus-two-guests-"));
  const capture = join(folder, "two.pcapng");
  let guests: TwoGuests;

  beforeAll(async () => {
    guests = await TwoGuests.open({ pieces: readPieces(), progress: tell, capture, typescript: true });
  });
  afterAll(async () => {
    await guests.close();
    rmSync(folder, { recursive: true });
  });

  it("ping each other", async () => {
    const { a, b } = guests;
    await guests.ping(a, b.address);
    await guests.ping(b, a.address);
  });

  it("send each other streams, as superframes that nobody cuts and checksums that nobody computes", async () => {
    const { a, b, net } = guests;
    const names = ["a", "b"] as const;
    const before = names.map((name) => guests.statistics(name));
    const { superframes_passed } = net.counters();
    await guests.stream(a, b, { bytes: 3 * MEGABYTE + 1, seed: SEED });
    await guests.stream(b, a, { bytes: 3 * MEGABYTE + 1, seed: SEED + 1 });
    for (const [i, name] of names.entries()) {
      const after = guests.statistics(name);
      expect(after, name).toMatchObject({ segmented: 0, checksummed: 0 });
      expect(after.superframes_passed - before[i]!.superframes_passed).toBeGreaterThan(100);
      expect([after.tx.drops, after.rx.drops]).toEqual([{}, {}]);
    }
    const counters = net.counters();
    expect(counters).toMatchObject({ segmented: 0, checksummed: 0, balanced: true });
    expect(counters.superframes_passed - superframes_passed).toBeGreaterThan(100);
    // full-size frames would have been a multiple of what there was
    const frames = names.map((name, i) => guests.statistics(name).tx.frames - before[i]!.tx.frames);
    expect(Math.max(...frames)).toBeLessThan((3 * MEGABYTE) / 1448);
  });

  it("send streams both ways at once", async () => {
    const { a, b } = guests;
    const receive = `netprobe tcp-both -p 6999 -n ${2 * MEGABYTE} -s 5 -r 6`;
    await b.machine.check(`rm -f /tmp/both.status; (${receive} >/tmp/both; echo $? >/tmp/both.status) &`);
    await b.machine.check("until grep -qi ':1B57 ' /proc/net/tcp /proc/net/tcp6; do usleep 10000; done");
    const command = `netprobe tcp-both -h ${b.address} -p 6999 -n ${2 * MEGABYTE} -s 6 -r 5`;
    const here = await a.machine.check(command, { timeoutMs: 120_000 });
    await b.machine.check("until [ -s /tmp/both.status ]; do usleep 10000; done", { timeoutMs: 60_000 });
    const there = await b.machine.check("cat /tmp/both /tmp/both.status");
    for (const output of [here, there])
      expect(probed(output, "received")).toMatchObject({ bytes: 2 * MEGABYTE, errors: 0 });
  });

  it("talk to a guest written in TypeScript: round trips, and streams both ways", async () => {
    const { a, typescript, typescriptAddress } = guests;
    await guests.ping(a, typescriptAddress);
    const { stack } = typescript!;
    const streams: PatternStream[] = [];
    const size = 3 * MEGABYTE;
    stack.tcp.listen(7001, (context) => {
      const stream = new PatternStream(context, { send: size, sendSeed: SEED, receiveSeed: SEED + 1 });
      streams.push(stream);
      return stream;
    });
    const command = `netprobe tcp-both -h ${typescriptAddress} -p 7001 -n ${size} -s ${SEED + 1} -r ${SEED}`;
    const output = await a.machine.check(command, { timeoutMs: 120_000 });
    expect(probed(output, "received")).toMatchObject({ bytes: size, errors: 0 });
    await until("the end of the stream", () => streams[0]!.received >= size);
    expect(streams[0]).toMatchObject({ received: size, patternErrors: 0 });
    expect(guests.statistics("typescript")).toMatchObject({ segmented: 0, checksummed: 0 });
    expect(guests.statistics("typescript").superframes_passed).toBeGreaterThan(50);
    expect(stack.counters.received.superframes).toBeGreaterThan(10);
  });

  it("leave a capture in which tshark finds superframes and nothing that is wrong", async () => {
    for (const { machine } of [guests.a, guests.b]) {
      const errors = await machine.check("cat /proc/net/snmp | grep '^Tcp:' | tail -1");
      expect(errors.trim().split(/\s+/).at(-3), "InErrs").toBe("0");
    }
    await guests.close();
    if (!existsSync(TSHARK))
      throw new Error(`${TSHARK} is not there: install tshark, or point VBUS_TSHARK at one`);
    const tshark = (...args: string[]): string =>
      execFileSync(TSHARK, ["-n", "-r", capture, ...args], {
        encoding: "utf8",
        maxBuffer: 1 << 28,
        stdio: ["ignore", "pipe", "ignore"],
      });
    const fields = [
      "-T",
      "fields",
      "-e",
      "frame.interface_name",
      "-e",
      "frame.len",
      "-e",
      "ip.src",
      "-e",
      "ip.dst",
    ];
    const rows = tshark("-Y", "tcp && frame.len > 1514", ...fields)
      .trim()
      .split("\n");
    const { a, b } = guests;
    for (const [from, to] of [
      [a, b],
      [b, a],
    ] as const) {
      const of = (card: string): string[] =>
        rows.filter(
          (row) => row.startsWith(`nic-${card}\t`) && row.endsWith(`\t${from.address}\t${to.address}`),
        );
      const [out, into] = [of(from.name), of(to.name)];
      expect(out.length, `superframes from ${from.name} to ${to.name}`).toBeGreaterThan(100);
      // each of them, with the same length, at the other card: nothing was cut and nothing merged on the way
      const lengths = (list: string[]): number[] => list.map((row) => Number(row.split("\t")[1]));
      expect(lengths(into)).toEqual(lengths(out));
    }
    expect(tshark("-Y", "_ws.malformed", "-T", "fields", "-e", "frame.number")).toBe("");
  });
});
