import { MemorySpace } from "vbus/memory";
import { Switch } from "vbus/net";
import { EventLoopScheduler } from "vbus/scheduler";
import { describe, expect, it } from "vitest";
import { NetPeer } from "../support/net-peer.js";
import {
  EchoStream,
  PatternStream,
  type PatternStreamOptions,
  type StreamContext,
} from "../support/streams.js";
import { A, B, errorsOf, Network, OFFLOAD_CASES } from "./network.js";

/** A factory that remembers what it made. */
function remembered(options: PatternStreamOptions) {
  const streams: PatternStream[] = [];
  const factory = (context: StreamContext): PatternStream => {
    const stream = new PatternStream(context, options);
    streams.push(stream);
    return stream;
  };
  return { streams, factory };
}

const PATHS = [
  { path: "IPv4", to: B.ip4, tag: -1 },
  { path: "IPv6", to: B.ip6, tag: -1 },
  { path: "IPv4 with a VLAN tag", to: B.ip4, tag: 0x6064 },
  { path: "IPv6 with a VLAN tag", to: B.ip6, tag: 100 },
];

const clean = { retransmissions: 0, timeouts: 0, duplicates: 0, outOfOrder: 0, unacceptable: 0, failed: 0 };

describe.each(OFFLOAD_CASES)("TCP with $name", (options) => {
  it.each(PATHS)("carries streams both ways at once, verified, over $path", async ({ to, tag }) => {
    const network = await Network.open({ ...options, apart: true });
    const { a, b } = network;
    const there = remembered({ send: 3_000_001, sendSeed: 5, receiveSeed: 9 });
    const here = remembered({ send: 2_000_003, sendSeed: 9, receiveSeed: 5 });
    b.tcp.listen(5001, there.factory);
    const connection = await network.until(a.tcp.connect(to, 5001, here.factory, { tag }));
    expect(await network.until(connection.closed)).toBe("finished");
    network.pass(1000);
    expect(here.streams[0]).toMatchObject({ received: 3_000_001, delivered: 2_000_003, patternErrors: 0 });
    expect(there.streams[0]).toMatchObject({ received: 2_000_003, delivered: 3_000_001, patternErrors: 0 });
    expect(errorsOf(a, b)).toBe(0);
    expect(a.counters.tcp).toMatchObject(clean);
    expect(b.counters.tcp).toMatchObject({
      ...clean,
      bytesReceived: 2_000_003,
      bytesAcknowledged: 3_000_001,
    });
    expect(a.tcp.connections).toEqual([]);
    expect(b.tcp.connections).toEqual([]);
    expect(network.complaints()).toEqual([]);
    network.close();
  });

  it("echoes a stream through a buffer that is smaller than it", async () => {
    const network = await Network.open(options);
    const { a, b } = network;
    b.tcp.listen(7, (context) => new EchoStream(context, 50_001));
    const here = remembered({ send: 1_000_001, sendSeed: 77, receiveSeed: 77 });
    const connection = await network.until(a.tcp.connect(B.ip6, 7, here.factory));
    expect(await network.until(connection.closed)).toBe("finished");
    expect(here.streams[0]).toMatchObject({ received: 1_000_001, delivered: 1_000_001, patternErrors: 0 });
    expect(errorsOf(a, b)).toBe(0);
    expect(a.counters.tcp).toMatchObject({ retransmissions: 0, timeouts: 0 });
    network.close();
  });
});

describe("TCP", () => {
  it("sends superframes of whole segments to those who take them, and frames of the MSS to those who do not", async () => {
    for (const takes of [undefined, 0]) {
      const network = await Network.open({ b: takes === undefined ? {} : { takes } });
      const { a, b } = network;
      const there = remembered({});
      b.tcp.listen(9, there.factory);
      const connection = await network.until(
        a.tcp.connect(B.ip4, 9, (context) => new PatternStream(context, { send: 10_000_000 })),
      );
      await network.until(connection.closed);
      const { received } = b.counters;
      if (takes === undefined) {
        expect(received.superframes).toBeGreaterThan(150);
        expect(received.frames).toBeLessThan(230);
        expect(received.partialChecksums).toBe(received.frames - 1); // all but ARP
      } else {
        expect(received.superframes).toBe(0);
        expect(received.partialChecksums).toBe(0);
        expect(received.frames).toBeGreaterThanOrEqual(Math.ceil(10_000_000 / 1460));
        expect(received.longestBurst).toBeGreaterThan(16);
      }
      expect(a.counters.sent.superframes).toBeGreaterThan(150);
      expect(there.streams[0]?.received).toBe(10_000_000);
      network.close();
    }
  });

  it("keeps to the smaller MSS, whoever has it", async () => {
    for (const mtus of [
      [576, 1500],
      [1500, 576],
      [9000, 1500],
      [65000, 65000],
    ] as const) {
      const network = await Network.open({
        both: { takes: 0 },
        a: { mtu: mtus[0] },
        b: { mtu: mtus[1] },
        apart: true,
      });
      const { a, b } = network;
      const streams = remembered({ send: 300_000 });
      b.tcp.listen(9, streams.factory);
      const connection = await network.until(a.tcp.connect(B.ip4, 9, streams.factory));
      await network.until(connection.closed);
      for (const stream of streams.streams) {
        expect(stream).toMatchObject({ received: 300_000, patternErrors: 0 });
      }
      expect(connection.sender.mss).toBe(Math.min(...mtus) - 40);
      expect(errorsOf(a, b)).toBe(0);
      expect(network.complaints()).toEqual([]);
      network.close();
    }
  });

  it("serves two hundred connections at once, each with a stream of its own", async () => {
    const network = await Network.open({ apart: true });
    const { a, b } = network;
    b.tcp.listen(80, (context) => new EchoStream(context, 16_384));
    const streams = Array.from({ length: 200 }, (_, seed) =>
      remembered({ send: 20_000 + seed, sendSeed: seed, receiveSeed: seed }),
    );
    const connections = await network.until(
      Promise.all(streams.map(({ factory }, i) => a.tcp.connect(i % 2 === 0 ? B.ip4 : B.ip6, 80, factory))),
    );
    const ends = await network.until(Promise.all(connections.map(({ closed }) => closed)));
    expect(new Set(ends)).toEqual(new Set(["finished"]));
    for (const [seed, { streams: made }] of streams.entries()) {
      expect(made[0]).toMatchObject({ received: 20_000 + seed, patternErrors: 0 });
    }
    expect(b.counters.tcp.established).toBe(200);
    network.pass(1000);
    expect(b.tcp.connections).toEqual([]);
    expect(network.complaints()).toEqual([]);
    network.close();
  });

  it("sends for ever until somebody stops it, and leaves the event loop its turns", async () => {
    const scheduler = new EventLoopScheduler();
    const space = await MemorySpace.host();
    const net = new Switch({ scheduler, space });
    const a = new NetPeer({ port: net.addPort("a"), scheduler, space, ...A });
    const b = new NetPeer({ port: net.addPort("b"), scheduler, space, ...B });
    b.tcp.listen(19, (context) => new PatternStream(context, { send: Infinity }));
    const here = remembered({ send: Infinity });
    const connection = await a.tcp.connect(B.ip4, 19, here.factory);
    while (here.streams[0]!.received < 20e6) await new Promise(setImmediate);
    here.streams[0]!.stop();
    connection.refresh();
    expect(await connection.closed).toBe("finished");
    expect(here.streams[0]?.delivered).toBeGreaterThan(10e6);
    expect(errorsOf(a, b)).toBe(0);
    for (const one of [a, b, net]) one.close();
  });

  it("refuses where nobody listens, and says so", async () => {
    const network = await Network.open();
    const call = network.a.tcp.connect(B.ip4, 81, (context) => new PatternStream(context));
    await expect(network.until(call)).rejects.toThrow(/ECONNREFUSED.*10\.0\.0\.2 port 81/);
    expect(network.b.counters.tcp.resetsSent).toBe(1);
    expect(network.a.tcp.connections).toEqual([]);
    const nobody = network.a.tcp.connect("10.0.0.99", 81, (context) => new PatternStream(context));
    await expect(network.until(nobody)).rejects.toThrow(/EHOSTUNREACH/);
    network.close();
  });

  it("ends both sides when one of them aborts", async () => {
    const network = await Network.open();
    const { a, b } = network;
    const ends: string[] = [];
    b.tcp.listen(
      9,
      (context) => new PatternStream(context),
      (connection) => void connection.closed.then((end) => ends.push(end)),
    );
    const connection = await network.until(a.tcp.connect(B.ip4, 9, (context) => new PatternStream(context)));
    network.pass(10);
    connection.abort();
    expect(await network.until(connection.closed)).toBe("aborted");
    network.pass(10);
    await Promise.resolve();
    expect(ends).toEqual(["reset"]);
    expect(b.tcp.connections).toEqual([]);
    network.close();
  });

  it("waits for a receiver without room, and goes on when there is some", async () => {
    const network = await Network.open();
    const { a, b } = network;
    class Lazy extends PatternStream {
      limit = 100_000;
      override window(): number {
        return Math.max(0, this.limit - this.received);
      }
    }
    let lazy: Lazy | undefined;
    b.tcp.listen(9, (context) => (lazy = new Lazy(context)));
    const connection = await network.until(
      a.tcp.connect(B.ip4, 9, (context) => new PatternStream(context, { send: 400_000 })),
    );
    network.pass(20_000);
    expect(lazy?.received).toBeGreaterThan(100_000 - 128); // windows are told in units of 128 bytes
    expect(lazy?.received).toBeLessThanOrEqual(100_000);
    expect(a.counters.tcp.timeouts).toBe(0); // probes are none
    lazy!.limit = Infinity;
    expect(await network.until(connection.closed)).toBe("finished");
    expect(lazy).toMatchObject({ received: 400_000, patternErrors: 0 });
    network.close();
  });

  it("negotiates ECN, echoes congestion marks, and sends superframes that carry CWR", async () => {
    const tcp = { ecn: true, markEvery: 500_000 };
    for (const tcpOfB of [tcp, {}]) {
      const network = await Network.open({ a: { tcp }, b: { tcp: tcpOfB }, apart: true });
      const { a, b } = network;
      const streams = remembered({ send: 8_000_000 });
      b.tcp.listen(9, streams.factory);
      const connection = await network.until(a.tcp.connect(B.ip6, 9, streams.factory));
      await network.until(connection.closed);
      for (const stream of streams.streams) {
        expect(stream).toMatchObject({ received: 8_000_000, patternErrors: 0 });
      }
      expect(errorsOf(a, b)).toBe(0);
      for (const { counters } of [a, b]) {
        if (tcpOfB === tcp) {
          expect(counters.tcp.ecn).toBe(1);
          expect(counters.tcp.congestionMarks).toBeGreaterThan(4);
          expect(counters.tcp.congestionEchoes).toBeGreaterThan(2);
          expect(counters.received.ecnSuperframes).toBeGreaterThan(2);
        } else {
          expect(counters.tcp).toMatchObject({ ecn: 0, congestionMarks: 0, congestionEchoes: 0 });
          expect(counters.received.ecnSuperframes).toBe(0);
        }
      }
      network.close();
    }
  });

  it("does not lose a frame to a port that takes only a few at a time", async () => {
    let port: { room: number } | undefined;
    const network = await Network.open({
      both: { sends: 0 },
      wrap: (inner) => {
        const narrow = {
          room: 3,
          get name() {
            return inner.name;
          },
          offloads: 0,
          transmit: (...[batch, from, to]: Parameters<typeof inner.transmit>) => {
            const n = Math.min(to - from, narrow.room);
            if (n < to - from) {
              network.scheduler.after(1, () => {
                network.a.writable();
              });
            }
            return n === 0 ? 0 : inner.transmit(batch, from, from + n);
          },
          attach: (...args: Parameters<typeof inner.attach>) => inner.attach(...args),
          detach: () => inner.detach(),
          ready: () => inner.ready(),
          counters: () => inner.counters(),
          close: () => inner.close(),
        };
        port = narrow;
        return narrow;
      },
    });
    const { a, b } = network;
    const there = remembered({ receiveSeed: 4 });
    b.tcp.listen(9, there.factory);
    const connection = await network.until(
      a.tcp.connect(B.ip4, 9, (context) => new PatternStream(context, { send: 500_000, sendSeed: 4 })),
    );
    expect(port?.room).toBe(3);
    expect(await network.until(connection.closed)).toBe("finished");
    expect(there.streams[0]).toMatchObject({ received: 500_000, patternErrors: 0 });
    expect(a.counters.pushedBack).toBeGreaterThan(50);
    expect(a.counters.tcp.retransmissions).toBe(0);
    expect(a.counters.sent.longestBurst).toBe(3);
    expect(network.complaints()).toEqual([]);
    network.close();
  });

  it("says who a station is to those who ask, and only for its own addresses", async () => {
    const network = await Network.open();
    const { a, b } = network;
    expect(await network.until(a.icmp.ping(B.ip4))).toBeGreaterThanOrEqual(0);
    expect(await network.until(a.icmp.ping(B.ip6))).toBeGreaterThanOrEqual(0);
    await expect(network.until(a.icmp.ping("fd00::99"))).rejects.toThrow(/EHOSTUNREACH/);
    expect(b.counters.fates).toMatchObject({ arp: 1, neighbour: 1, icmp: 2 });
    expect(A.ip4).not.toBe(B.ip4);
    network.close();
  });
});
