import { MemorySpace } from "vbus/memory";
import { FaultInjector, Random, Switch, type FaultOptions } from "vbus/net";
import { VirtualScheduler } from "vbus/scheduler";
import { beforeEach, describe, expect, it } from "vitest";

import { BROADCAST, frame, range, Station, station } from "./rig.js";

let scheduler: VirtualScheduler;
let space: MemorySpace;

beforeEach(async () => {
  scheduler = new VirtualScheduler();
  space = await MemorySpace.host();
});

function faulty(options: Partial<FaultOptions>) {
  const net = new Switch({ scheduler, space });
  const injector = new FaultInjector(net.addPort("a"), { scheduler, space, ...options });
  const a = new Station(injector, scheduler, space);
  const b = new Station(net.addPort("b"), scheduler, space);
  const balanced = (): boolean =>
    net.balance().balanced &&
    (["transmit", "receive"] as const).every((way) => injector.balance(way)?.balanced ?? true);
  return { net, injector, a, b, balanced };
}

const numbered = (n: number): Uint8Array[] =>
  range(0, n).map((i) => frame(BROADCAST, station(0), i, 60 + (i % 100)));

describe("the generator", () => {
  it("gives the same numbers for the same seed, evenly", () => {
    const a = new Random(7);
    const b = new Random(7);
    const numbers = range(0, 10_000).map(() => a.fraction());
    expect(numbers).toEqual(range(0, 10_000).map(() => b.fraction()));
    expect(new Random(8).fraction()).not.toBe(numbers[0]);
    for (let tenth = 0; tenth < 10; tenth++) {
      const share = numbers.filter((x) => Math.floor(x * 10) === tenth).length;
      expect(share).toBeGreaterThan(850);
      expect(share).toBeLessThan(1150);
    }
  });
});

describe("the fault injector", () => {
  it("changes nothing when no fault is asked for", () => {
    const { a, b, injector, balanced } = faulty({ direction: "both" });
    a.send(...numbered(500));
    b.send(...numbered(500));
    scheduler.run();
    expect(b.received).toEqual(numbered(500));
    expect(a.received).toEqual(numbered(500));
    expect(injector.faults()).toEqual({ lost: 0, duplicated: 0, reordered: 0, delayed: 0, corrupted: 0 });
    expect(balanced()).toBe(true);
  });

  it("loses about the share that was asked for, and counts it", () => {
    const { a, b, injector, balanced } = faulty({ loss: 0.1 });
    a.send(...numbered(5000));
    scheduler.run();
    const { lost } = injector.faults();
    expect(lost).toBeGreaterThan(400);
    expect(lost).toBeLessThan(600);
    expect(b.received.length).toBe(5000 - lost);
    expect(injector.counters()).toMatchObject({ received: 5000, drops: { fault: lost } });
    expect(balanced()).toBe(true);
  });

  it("duplicates frames, and counts the copies as replicated", () => {
    const { a, b, injector, balanced } = faulty({ duplicate: 0.2 });
    a.send(...numbered(1000));
    scheduler.run();
    const { duplicated } = injector.faults();
    expect(duplicated).toBeGreaterThan(100);
    expect(b.received.length).toBe(1000 + duplicated);
    expect(injector.balance("transmit")).toMatchObject({
      received: 1000,
      replicated: duplicated,
      balanced: true,
    });
    expect(balanced()).toBe(true);
  });

  it("lets exactly the wanted number of frames overtake a reordered one, or its time run out", () => {
    const { a, b, injector } = faulty({ reorder: 0.05, reorderDistance: 2, reorderMs: 20 });
    a.send(...numbered(1000));
    scheduler.run();
    scheduler.advance(20);
    const serials = b.serials();
    expect(injector.faults().reordered).toBeGreaterThan(20);
    expect([...serials].sort((x, y) => x - y)).toEqual(range(0, 1000));
    const late = serials.filter((serial, at) => serials.slice(0, at).some((earlier) => earlier > serial));
    expect(late.length).toBeGreaterThan(20);
    for (const [at, serial] of serials.entries()) expect(Math.abs(at - serial)).toBeLessThanOrEqual(4);
  });

  it("delays frames by the time asked for, and lets others pass", () => {
    const { a, b, injector, balanced } = faulty({ delay: 0.5, delayMs: 30 });
    a.send(...numbered(100));
    scheduler.advance(29);
    const { delayed } = injector.faults();
    expect(b.received.length).toBe(100 - delayed);
    expect(injector.counters().inFlight).toBe(delayed);
    expect(balanced()).toBe(true);
    scheduler.advance(1);
    expect(b.serials().sort((x, y) => x - y)).toEqual(range(0, 100));
  });

  it("inverts exactly one bit of a corrupted frame, in a copy", () => {
    const { a, b, injector } = faulty({ corrupt: 0.3 });
    const sent = numbered(300);
    a.send(...sent);
    scheduler.run();
    const flipped = b.received.map((bytes, i) =>
      bytes.reduce(
        (sum, byte, at) =>
          sum + (byte ^ ((sent[i] as Uint8Array)[at] as number)).toString(2).replaceAll("0", "").length,
        0,
      ),
    );
    expect(flipped.filter((n) => n === 1).length).toBe(injector.faults().corrupted);
    expect(flipped.filter((n) => n > 1)).toEqual([]);
    expect(sent).toEqual(numbered(300));
  });

  it("keeps the other faults where they are when one probability changes", () => {
    const losses = [0, 0.5].map((corrupt) => {
      const { a, b } = faulty({ loss: 0.1, corrupt, seed: 42 });
      a.send(...numbered(200).map((bytes) => bytes));
      scheduler.run();
      return b.received.map((bytes) => bytes.length);
    });
    expect(losses[1]).toEqual(losses[0]);
  });

  describe("on a grid of loss and buffer, with a receiver that takes a little at a time", () => {
    for (const loss of [0, 0.01, 0.1, 0.5, 1]) {
      for (const maxFrames of [1, 4, 64]) {
        it(`loss ${loss}, buffer ${maxFrames}: what is not lost arrives once and in order, both ways`, () => {
          const { a, b, injector, net, balanced } = faulty({ loss, maxFrames, direction: "both", seed: 5 });
          a.room = b.room = 0;
          a.transmit(frame(station(9), station(0), 0)); // unknown: nobody takes it, but the switch learns
          b.transmit(frame(station(9), station(1), 0));
          for (let k = 0; k < 20; k++) {
            a.makeRoom(20);
            b.makeRoom(20);
            scheduler.run();
          }
          a.received.length = b.received.length = 0;
          a.send(...range(0, 300).map((i) => frame(station(1), station(0), i)));
          b.send(...range(0, 300).map((i) => frame(station(0), station(1), i)));
          for (let round = 0; round < 200; round++) {
            scheduler.advance(1);
            expect(balanced()).toBe(true);
            a.makeRoom(5);
            b.makeRoom(3);
          }
          scheduler.run();
          expect([a.backlog, b.backlog]).toEqual([[], []]);
          for (const side of [a, b]) {
            const serials = side.serials();
            expect(serials).toEqual([...new Set(serials)].sort((x, y) => x - y));
          }
          const { lost } = injector.faults();
          const out = injector.balance("transmit");
          const back = injector.balance("receive");
          expect((out?.drops.fault ?? 0) + (back?.drops.fault ?? 0)).toBe(lost);
          expect(net.balance()).toMatchObject({ inFlight: 0, balanced: true });
          if (loss === 0) expect([a.serials(), b.serials()]).toEqual([range(0, 300), range(0, 300)]);
          if (loss === 1) expect([a.received, b.received]).toEqual([[], []]);
        });
      }
    }
  });

  it("counts what it holds as closed or no-link when the port is closed or unplugged, in every order", () => {
    for (const order of ["ic", "ci", "di", "id"]) {
      const { a, b, injector, net, balanced } = faulty({ delay: 1, delayMs: 50, direction: "both" });
      a.send(...numbered(10));
      b.send(...numbered(10));
      scheduler.run();
      expect(injector.counters().inFlight).toBe(20);
      for (const what of order) {
        if (what === "i") injector.close();
        if (what === "c") net.close();
        if (what === "d") a.port.detach();
        expect(balanced()).toBe(true);
      }
      scheduler.advance(1000);
      expect(injector.counters()).toMatchObject({ inFlight: 0 });
      expect(balanced()).toBe(true);
      expect(a.transmit(frame(BROADCAST, station(0), 1))).toBe(1);
      expect(() => {
        injector.attach(b);
      }).toThrow(/ENOTCONN/);
    }
  });

  it("refuses probabilities outside 0 … 1 and limits that are not positive", () => {
    expect(() => faulty({ loss: 1.1 })).toThrow(RangeError);
    expect(() => faulty({ delayMs: 0 })).toThrow(RangeError);
  });
});
