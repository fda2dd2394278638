import { describe, expect, it } from "vitest";
import { EchoStream, PatternStream } from "../support/streams.js";
import { seedOr } from "../engine/seed.js";
import { B, Network, OFFLOAD_CASES } from "./network.js";

const FAULTS = [
  { what: "loss", chances: { loss: 0.05 } },
  { what: "duplication", chances: { duplicate: 0.05 } },
  { what: "reordering", chances: { reorder: 0.05 } },
  { what: "all of it", chances: { loss: 0.03, duplicate: 0.03, reorder: 0.03 } },
];
/** Found by complete checksums only. */
const CORRUPTION = [
  { what: "corruption", chances: { corrupt: 0.02 } },
  { what: "everything", chances: { loss: 0.02, duplicate: 0.03, reorder: 0.03, corrupt: 0.01 } },
];
const LENGTH = 1_500_007;
const FINISHED = "no offloads at all";

describe.each(OFFLOAD_CASES)("a network with faults and $name", (options) => {
  it.each(options.name === FINISHED ? [...FAULTS, ...CORRUPTION] : FAULTS)(
    "delivers every byte once and in order in spite of $what",
    async ({ chances }) => {
      const seed = seedOr(42);
      console.log(`faults: seed ${seed}, ${JSON.stringify(chances)}`);
      let faults = 0;
      for (const sack of [true, false]) {
        const network = await Network.open({
          ...options,
          both: { ...options.both, tcp: { sack } },
          faults: { seed, ...chances },
          apart: true,
        });
        const { a, b, injector } = network;
        const streams: PatternStream[] = [];
        const exchange = { send: LENGTH, sendSeed: 6, receiveSeed: 6 };
        b.tcp.listen(9, (context) => {
          const stream = new PatternStream(context, exchange);
          streams.push(stream);
          return stream;
        });
        b.tcp.listen(7, (context) => new EchoStream(context, 60_000));
        const open = async (to: string, port: number) => {
          const made: PatternStream[] = [];
          const connection = await a.tcp.connect(to, port, (context) => {
            made.push(new PatternStream(context, exchange));
            return made[0]!;
          });
          expect(await connection.closed).toBe("finished");
          expect(made[0]).toMatchObject({ received: LENGTH, delivered: LENGTH, patternErrors: 0 });
        };
        await network.until(Promise.all([open(B.ip4, 9), open(B.ip6, 7)]), 600_000);
        network.pass(5000);
        expect(streams[0]).toMatchObject({ received: LENGTH, patternErrors: 0 });
        const { lost, corrupted, duplicated, reordered } = injector!.faults();
        faults += lost + corrupted + duplicated + reordered;
        const counters = [a.counters, b.counters];
        const sum = (pick: (of: (typeof counters)[number]) => number): number =>
          counters.reduce((total, one) => total + pick(one), 0);
        // a few faults may all have met acknowledgements, of which there are always more
        if (lost + corrupted > 20) expect(sum(({ tcp }) => tcp.retransmissions)).toBeGreaterThan(0);
        if (duplicated > 20) expect(sum(({ tcp }) => tcp.duplicates + tcp.unacceptable)).toBeGreaterThan(0);
        if (corrupted === 0) expect(sum(({ fates }) => fates.checksum + fates.malformed)).toBe(0);
        expect(a.tcp.connections).toEqual([]);
        expect(injector!.balance("transmit")?.balanced).toBe(true);
        expect(injector!.balance("receive")?.balanced).toBe(true);
        network.close();
      }
      expect(faults).toBeGreaterThan(0);
    },
  );
});

describe("the pattern", () => {
  it("finds corruption that a partial checksum does not cover", async () => {
    const seed = seedOr(42);
    console.log(`faults: seed ${seed}`);
    const network = await Network.open({ faults: { seed, corrupt: 0.1 } });
    const { a, b, injector } = network;
    b.tcp.listen(9, (context) => new PatternStream(context));
    const connection = await network.until(
      a.tcp.connect(B.ip4, 9, (context) => new PatternStream(context, { send: 10_000_000 })),
      600_000,
    );
    await network.until(connection.closed, 600_000);
    expect(injector!.faults().corrupted).toBeGreaterThan(5);
    expect(b.counters.patternErrors).toBeGreaterThan(5);
    network.close();
  });
});
