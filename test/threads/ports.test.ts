/** What every port between threads does, whatever carries its frames. */
import { FRAME_GSO, FRAME_NEEDS_CSUM } from "vbus/engine";
import { HostFrames, joinPorts, OFFLOAD_ALL, Switch, totalDrops } from "vbus/net";
import { WorkerPort } from "vbus/net/threads";
import { describe, expect, it } from "vitest";
import { turns } from "../event-loop.js";
import { generator, seedOr } from "../engine/seed.js";
import { frame, range, serialOf, Station, station } from "../net/rig.js";
import { byFlow, segments, superframes } from "../offload/captures.js";
import { finished, type TestFrame } from "../offload/rig.js";
import { Collector, KINDS, settled, Source, unbalanced, until } from "./pairs.js";

const SEED = seedOr(20091126);
const captured = superframes();

/** Frames of many sizes with serial numbers. */
function numbered(first: number, end: number): TestFrame[] {
  return range(first, end).map((n) => finished(frame(station(2), station(1), n, 60 + ((n * 397) % 4000))));
}

/** How many frames are not the same. */
function different(some: readonly TestFrame[], others: readonly TestFrame[]): number {
  return some.filter(({ bytes }, i) => Buffer.compare(bytes, others[i]!.bytes) !== 0).length;
}

const serials = ({ frames }: Collector): number[] => frames.map(({ bytes }) => serialOf(bytes));

describe.each(KINDS)("two ends of a %s connection", (kind, open) => {
  it("carry frames both ways, in order, as they were sent", async () => {
    const { a, b, space } = await open();
    const [left, right] = [new Collector(a), new Collector(b)];
    const [out, back] = [new Source(a, space, left), new Source(b, space, right)];
    const [there, here] = [numbered(0, 1000), numbered(1000, 1777)];
    out.send(...there);
    back.send(...here);
    await until(() => right.frames.length === 1000 && left.frames.length === 777, "all frames");
    expect(different(right.frames, there)).toBe(0);
    expect(different(left.frames, here)).toBe(0);
    await until(() => a.counters().inFlight === 0 && b.counters().inFlight === 0, "empty books");
    expect(a.counters()).toMatchObject({
      received: 1000,
      sent: 1000,
      acknowledged: 1000,
      arrived: 777,
      delivered: 777,
      drops: {},
      violations: 0,
    });
    expect(b.counters()).toMatchObject({ received: 777, acknowledged: 777, arrived: 1000, delivered: 1000 });
    expect(unbalanced(a.balance(), b.balance())).toEqual([]);
    a.close();
    b.close();
    await Promise.all([settled(a), settled(b)]);
  });

  it("carry superframes and partial checksums untouched to a peer that takes them", async () => {
    const { a, b, space } = await open({ offloads: OFFLOAD_ALL });
    const [left, right] = [new Collector(a), new Collector(b)];
    new Source(a, space, left).send(...captured);
    await until(() => right.frames.length === captured.length, "the captured frames");
    const needs = FRAME_GSO | FRAME_NEEDS_CSUM;
    for (const [i, got] of right.frames.entries()) {
      const sent = captured[i]!;
      expect(Buffer.compare(got.bytes, sent.bytes), `bytes of frame ${i}`).toBe(0);
      expect(got.flags & 7).toBe(sent.flags);
      if ((sent.flags & needs) === 0) continue;
      const { kind, size, start, offset } = sent;
      expect(got).toMatchObject({ kind, size, start, offset });
    }
    const superframesSent = captured.filter(({ flags }) => (flags & FRAME_GSO) !== 0).length;
    expect(b.offloadCounters()).toMatchObject({ superframes_passed: superframesSent, segmented: 0 });
    a.close();
    b.close();
    await Promise.all([settled(a), settled(b)]);
  });

  it("finish frames for a peer that takes finished ones only, exactly as the kernel does", async () => {
    const { a, b, space } = await open({ offloads: 0 });
    const [left, right] = [new Collector(a), new Collector(b)];
    new Source(a, space, left).send(...captured);
    await until(
      () => b.counters().arrived === captured.length && b.counters().inFlight === 0,
      "the segments",
    );
    const expected = byFlow(segments());
    for (const [flow, frames] of byFlow(right.frames.map(({ bytes }) => bytes)))
      expect(frames.join() === expected.get(flow)?.join(), flow).toBe(true);
    expect(right.frames.length).toBeGreaterThan(1500);
    expect(unbalanced(a.balance(), b.balance())).toEqual([]);
    expect(b.counters()).toMatchObject({ replicated: right.frames.length - captured.length, drops: {} });
    a.close();
    b.close();
    await Promise.all([settled(a), settled(b)]);
  });

  it("push back all the way, and lose nothing when the receiver goes on", async () => {
    const { a, b, space } = await open({ frames: 64 });
    const [left, right] = [new Collector(a), new Collector(b)];
    right.room = 10;
    const source = new Source(a, space, left);
    source.send(...numbered(0, 500));
    await until(() => right.frames.length === 10, "what there is room for");
    await turns(50);
    expect(source.waiting).toBeGreaterThanOrEqual(500 - 10 - 64 - 64);
    expect(right.frames).toHaveLength(10);
    for (let more = 1; right.frames.length < 500; more = (more * 3) % 41) {
      right.makeRoom(more);
      await turns(2);
    }
    expect(serials(right)).toEqual(range(0, 500));
    await until(() => a.counters().inFlight === 0, "empty books");
    expect(a.counters()).toMatchObject({ acknowledged: 500, drops: {} });
    a.close();
    b.close();
    await Promise.all([settled(a), settled(b)]);
  });

  it("join switches into one network", async () => {
    const { a, b, space, scheduler } = await open({ frames: 64 });
    const [one, two] = ["one", "two"].map((name) => new Switch({ name, scheduler, space, stallMs: 60_000 }));
    joinPorts(one!.addPort("uplink"), a);
    joinPorts(two!.addPort("uplink"), b);
    const here = new Station(one!.addPort("here"), scheduler, space);
    const there = new Station(two!.addPort("there"), scheduler, space);
    there.send(frame(station(1), station(2), 0)); // flooded: nobody is known yet
    await until(() => here.received.length === 1, "the first frame");
    here.send(...range(0, 2000).map((n) => frame(station(2), station(1), n, 60 + (n % 1400))));
    await until(() => there.received.length === 2000, "all frames");
    expect(there.serials(1)).toEqual(range(0, 2000));
    expect(two!.counters()).toMatchObject({ balanced: true, flooded: 1, drops: {} });
    a.close();
    b.close();
    await Promise.all([settled(a), settled(b)]);
    one!.close();
    two!.close();
  });

  it("count frames for which there is nobody, at whichever end that is", async () => {
    const { a, b, space } = await open();
    const left = new Collector(a);
    new Source(a, space, left).send(...numbered(0, 40));
    await until(() => totalDrops(b.counters().drops) === 40, "the drops");
    expect(b.counters()).toMatchObject({ arrived: 40, delivered: 0, incomingDrops: { "no-link": 40 } });
    b.close();
    await settled(b);
    await until(() => (a instanceof WorkerPort ? !a.up : a.sides === 0), "the other end to go");
    new Source(a, space, left).send(...numbered(0, 7));
    expect(a.counters()).toMatchObject({ received: 47, acknowledged: 40, outgoingDrops: { "no-link": 7 } });
    a.close();
    await settled(a);
    const host = HostFrames.of(space, [frame(1, 2, 3)]);
    expect(a.transmit(host.batch, 0, 1)).toBe(1);
    expect(a.counters().outgoingDrops).toEqual({ "no-link": 7, closed: 1 });
    expect(() => a.attach(left)).toThrow(/ENOTCONN/);
    a.close();
  });

  it("refuse what is no frame, count it, and go on", async () => {
    const { a, b, space } = await open({ offloads: OFFLOAD_ALL });
    const [left, right] = [new Collector(a), new Collector(b)];
    const bogus = captured.find(({ flags }) => (flags & FRAME_GSO) !== 0)!;
    const source = new Source(a, space, left);
    source.send(
      finished(new Uint8Array(13)),
      finished(frame(station(2), station(1), 1)),
      { ...bogus, start: bogus.start + 2 }, // contradicts its headers
      { ...finished(frame(station(2), station(1), 2)), flags: FRAME_NEEDS_CSUM, start: 50, offset: 9 },
      { ...finished(frame(station(2), station(1), 2)), flags: FRAME_GSO, kind: 7, size: 100 },
      finished(frame(station(2), station(1), 3)),
    );
    await until(() => right.frames.length === 2, "the good ones");
    expect(serials(right)).toEqual([1, 3]);
    expect(a.counters().outgoingDrops).toEqual({ undersize: 1 });
    expect(b.counters().incomingDrops).toEqual({ "bad-offload": 3 });
    expect(unbalanced(a.balance(), b.balance())).toEqual([]);
    a.close();
    b.close();
    await Promise.all([settled(a), settled(b)]);
  });

  it.each(["one", "other", "both"])(
    "account for every frame when %s is closed in the middle of traffic both ways",
    async (who) => {
      for (let round = 0; round < 12; round++) {
        const random = generator(SEED + round);
        const { a, b, space } = await open({ frames: 64 });
        const [left, right] = [new Collector(a), new Collector(b)];
        for (const collector of [left, right]) {
          collector.room = random() % 200;
          collector.onReceive = () => {
            if (random() % 8 === 0) collector.makeRoom(random() % 64);
          };
        }
        const sources = [new Source(a, space, left), new Source(b, space, right)];
        const end = (): void => {
          if (who !== "other") a.close();
          if (who !== "one") b.close();
        };
        if (round % 3 === 0) {
          const at = random() % 40; // from within the peer's receive
          right.onReceive = () => {
            if (right.frames.length >= at) end();
          };
        }
        for (const source of sources) source.send(...numbered(0, random() % 300));
        await turns(random() % 6);
        end();
        for (const source of sources) source.send(...numbered(1000, 1000 + (random() % 100)));
        a.close();
        await turns(random() % 3);
        b.close();
        await Promise.all([settled(a), settled(b)]);
        await turns(8);
        const [of, other] = [a.counters(), b.counters()];
        const told = `${kind}, seed ${SEED}, round ${round}: ${JSON.stringify([of, other])}`;
        expect(unbalanced(a.balance(), b.balance()), told).toEqual([]);
        expect([of.inFlight, other.inFlight, of.violations, other.violations], told).toEqual([0, 0, 0, 0]);
        expect(of.acknowledged, told).toBe(other.arrived);
        expect(other.acknowledged, told).toBe(of.arrived);
        expect(of.received, told).toBe(sources[0]!.sent);
        expect(left.frames.length, told).toBe(of.delivered);
        expect(right.frames.length, told).toBe(other.delivered);
        // whatever came, came in order
        for (const collector of [left, right])
          expect(serials(collector), told).toEqual([...serials(collector)].sort((x, y) => x - y));
      }
    },
  );
});
