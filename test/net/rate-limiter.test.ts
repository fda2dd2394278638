import { MemorySpace } from "vbus/memory";
import { RateLimiter, Switch, type RateLimiterOptions } from "vbus/net";
import { VirtualScheduler } from "vbus/scheduler";
import { beforeEach, describe, expect, it } from "vitest";

import { BROADCAST, frame, range, Station, station } from "./rig.js";

let scheduler: VirtualScheduler;
let space: MemorySpace;

beforeEach(async () => {
  scheduler = new VirtualScheduler();
  space = await MemorySpace.host();
});

function limited(options: Omit<RateLimiterOptions, "scheduler">) {
  const net = new Switch({ scheduler, space, stallMs: 10_000 });
  const limiter = new RateLimiter(net.addPort("a"), { scheduler, ...options });
  const a = new Station(limiter, scheduler, space);
  const b = new Station(net.addPort("b"), scheduler, space);
  return { net, limiter, a, b };
}

const numbered = (n: number, length = 60): Uint8Array[] =>
  range(0, n).map((i) => frame(BROADCAST, station(0), i, length));

describe("the rate limiter", () => {
  it("lets a burst pass, then frames at the rate, and loses none", () => {
    const { a, b } = limited({ framesPerSecond: 1000, burstFrames: 10 });
    a.send(...numbered(110));
    scheduler.run();
    expect(b.received.length).toBe(10);
    scheduler.advance(50);
    expect(b.received.length).toBe(60);
    scheduler.advance(50);
    expect(b.serials()).toEqual(range(0, 110));
    scheduler.advance(1000);
    a.send(...numbered(100));
    scheduler.run();
    expect(b.received.length).toBe(120); // silence saves up a burst, no more
  });

  it("limits bits, and lets a frame pass that is larger than the burst, at its price", () => {
    const { a, b } = limited({ bitsPerSecond: 8_000_000, burstBits: 8000 });
    a.send(...numbered(11, 2000)); // 2 ms each
    scheduler.run();
    expect(b.received.length).toBe(1);
    scheduler.advance(20);
    expect(b.received.length).toBe(11);
    expect(a.transmitCalls).toBeLessThan(30);
  });

  it("obeys the stricter of two rates", () => {
    const { a, b } = limited({
      framesPerSecond: 1000,
      burstFrames: 1,
      bitsPerSecond: 4_800_000,
      burstBits: 480,
    });
    a.send(...numbered(100, 60)); // 480 bits: 0.1 ms by bits, 1 ms by frames
    scheduler.advance(49.5);
    expect(b.received.length).toBe(50);
  });

  it("drops and counts frames above the rate in mode drop", () => {
    const { a, b, limiter } = limited({ framesPerSecond: 1000, burstFrames: 10, mode: "drop" });
    a.send(...numbered(100));
    scheduler.advance(20);
    expect(b.serials()).toEqual(range(0, 10));
    expect(limiter.counters()).toMatchObject({ received: 100, drops: { rate: 90 } });
    a.send(...numbered(100));
    scheduler.run();
    expect(b.received.length).toBe(20);
  });

  it("limits what the peer receives when told so, and holds it back in the network", () => {
    const { a, b, net } = limited({ framesPerSecond: 1000, burstFrames: 4, direction: "receive" });
    a.send(...numbered(40));
    scheduler.run();
    expect(b.received.length).toBe(40);
    b.send(...numbered(40));
    scheduler.run();
    expect(a.received.length).toBe(4);
    expect(net.balance()).toMatchObject({ inFlight: 36, balanced: true });
    scheduler.advance(36);
    expect(a.serials()).toEqual(range(0, 40));
  });

  it("charges nothing for frames that the network pushed back", () => {
    const { a, b } = limited({ framesPerSecond: 1000, burstFrames: 10 });
    b.send(frame(BROADCAST, station(1), 0));
    scheduler.run();
    b.room = 3;
    a.send(...range(0, 10).map((i) => frame(station(1), station(0), i)));
    scheduler.run();
    b.makeRoom(100);
    scheduler.run();
    expect(b.serials()).toEqual(range(0, 10)); // the whole burst, at once
  });

  it("stops its timers when it is closed, and refuses rates that mean nothing", () => {
    const { a, b, limiter, net } = limited({ framesPerSecond: 10, burstFrames: 1 });
    a.send(...numbered(5));
    scheduler.run();
    limiter.close();
    limiter.close();
    scheduler.advance(10_000);
    expect(b.received.length).toBe(1);
    expect(net.balance().balanced).toBe(true);
    expect(() => limited({})).toThrow(/needs framesPerSecond/);
    expect(() => limited({ framesPerSecond: 0 })).toThrow(RangeError);
  });
});
