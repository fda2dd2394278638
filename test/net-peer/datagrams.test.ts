import { describe, expect, it } from "vitest";
import { B, errorsOf, Network, OFFLOAD_CASES } from "./network.js";

const PATHS = [
  { path: "IPv4", to: B.ip4, tag: -1, headers: 28 },
  { path: "IPv6", to: B.ip6, tag: -1, headers: 48 },
  { path: "IPv4 with a VLAN tag", to: B.ip4, tag: 5, headers: 28 },
  { path: "IPv6 with a VLAN tag", to: B.ip6, tag: 0xe005, headers: 48 },
];

describe.each(OFFLOAD_CASES)("datagrams with $name", (options) => {
  it.each(PATHS)("arrive whole in every size over $path", async ({ to, tag, headers }) => {
    const network = await Network.open({ ...options, apart: true });
    const { a, b } = network;
    const sink = b.udp.sink(9, 3);
    const longest = 1500 - headers;
    const count = longest + 1;
    await network.until(a.udp.send(to, 9, { count, size: (n) => n, seed: 3, tag }));
    network.pass(10);
    const bytes = (longest * count) / 2;
    expect(sink).toMatchObject({ datagrams: count, bytes, patternErrors: 0, duplicates: 0, late: 0 });
    expect(errorsOf(a, b)).toBe(0);
    expect(network.complaints()).toEqual([]);
    await expect(network.until(a.udp.send(to, 9, { count: 1, size: longest + 1 }))).rejects.toThrow(
      /EMSGSIZE/,
    );
    network.close();
  });

  it.each(PATHS)("go out as superframes, and come back from an echo, over $path", async ({ to, tag }) => {
    const network = await Network.open({ ...options, apart: true });
    const { a, b } = network;
    b.udp.echo(7);
    const sink = a.udp.sink(40000, 8);
    await network.until(a.udp.send(to, 7, { count: 603, size: 1201, seed: 8, tag, segments: 50 }));
    network.pass(10);
    expect(sink).toMatchObject({ datagrams: 603, patternErrors: 0, duplicates: 0, late: 0, missing: 0 });
    if (options.name === "superframes both ways") {
      expect(b.counters.received.superframes).toBe(13);
      expect(a.counters.received.superframes).toBe(13);
    }
    if (options.name === "no offloads at all") {
      expect(b.counters.received).toMatchObject({ superframes: 0, partialChecksums: 0 });
    }
    expect(errorsOf(a, b)).toBe(0);
    expect(network.complaints()).toEqual([]);
    network.close();
  });
});

describe("pings", () => {
  it.each(PATHS)("come back in every size over $path", async ({ to, tag, headers }) => {
    const network = await Network.open({ both: { takes: 0 }, apart: true });
    const { a, b } = network;
    for (let size = 0; size <= 1500 - headers; size += 61) {
      expect(await network.until(a.icmp.ping(to, { size, tag }))).toBeGreaterThanOrEqual(0);
    }
    expect(errorsOf(a, b)).toBe(0);
    expect(b.counters.fates.icmp).toBe(Math.floor((1500 - headers) / 61) + 1);
    network.close();
  });

  it("measure the time on the way in microseconds", async () => {
    const network = await Network.open({ faults: { delay: 1, delayMs: 10 } });
    await network.until(network.a.icmp.ping(B.ip4));
    expect(await network.until(network.a.icmp.ping(B.ip4))).toBe(20_000);
    network.close();
  });

  it("give up when nobody answers", async () => {
    const network = await Network.open();
    await network.until(network.a.icmp.ping(B.ip4));
    network.b.close();
    await expect(network.until(network.a.icmp.ping(B.ip4, { timeoutMs: 50 }))).rejects.toThrow(/ETIMEDOUT/);
    network.close();
  });
});

describe("a sink of datagrams", () => {
  it("counts what is missing, what comes twice, and what is overtaken", async () => {
    const faults = { seed: 21, loss: 0.05, duplicate: 0.04, reorder: 0.03, direction: "transmit" as const };
    console.log(`faults: ${JSON.stringify(faults)}`);
    const network = await Network.open({ faults });
    const { a, b, injector } = network;
    const sink = b.udp.sink(9);
    await network.until(a.icmp.ping(B.ip4, { timeoutMs: 100 }).catch(() => 0));
    const before = injector!.faults();
    await network.until(a.udp.send(B.ip4, 9, { count: 5000, size: 100 }));
    network.pass(100);
    const { lost, duplicated } = injector!.faults();
    const lostNow = lost - before.lost;
    expect(lostNow).toBeGreaterThan(150);
    expect(sink.missing).toBe(lostNow);
    expect(sink.duplicates).toBe(duplicated - before.duplicated);
    expect(sink.late).toBeGreaterThan(sink.duplicates);
    expect(sink.patternErrors).toBe(0);
    network.close();
  });
});
