import { MemorySpace } from "vbus/memory";
import { Switch } from "vbus/net";
import { VirtualScheduler } from "vbus/scheduler";
import { beforeEach, describe, expect, it } from "vitest";

import { BROADCAST, frame, range, Station, station } from "./rig.js";

let scheduler: VirtualScheduler;
let space: MemorySpace;

beforeEach(async () => {
  scheduler = new VirtualScheduler();
  space = await MemorySpace.host();
});

function three(options: { stallMs?: number; egressFrames?: number } = {}) {
  const net = new Switch({ scheduler, space, ...options });
  const peers = [0, 1, 2].map((i) => new Station(net.addPort(`port${i}`), scheduler, space));
  const [a, b, c] = peers as [Station, Station, Station];
  peers.forEach((peer, i) => peer.send(frame(BROADCAST, station(i), 0)));
  scheduler.run();
  for (const peer of peers) peer.received.length = 0;
  return { net, a, b, c };
}

describe("a dead port among three", () => {
  /** Traffic both ways between a and b, with announcements to everybody; c takes all of them or nothing. */
  function run(dead: boolean) {
    const { net, a, b, c } = three();
    if (dead) c.room = 0;
    a.transmitCalls = b.transmitCalls = 0;
    for (let t = 0; t < 50; t++) {
      a.send(
        ...range(0, 20).map((i) => frame(station(1), station(0), t * 100 + i)),
        frame(BROADCAST, station(0), t * 100 + 20),
      );
      b.send(
        ...range(0, 7).map((i) => frame(station(0), station(1), t * 100 + i)),
        frame(BROADCAST, station(1), t),
      );
      scheduler.advance(10);
    }
    expect(net.balance().balanced).toBe(true);
    return { a, b, net, c };
  }

  it("leaves the traffic between the others unchanged: same frames, same order, same number of calls", () => {
    const alive = run(false);
    const dead = run(true);
    for (const side of ["a", "b"] as const) {
      expect(dead[side].serials()).toEqual(alive[side].serials());
      expect(dead[side].received).toEqual(alive[side].received);
      expect(dead[side].transmitCalls).toBe(alive[side].transmitCalls);
      expect(dead[side].receiveCalls).toBe(alive[side].receiveCalls);
    }
    expect(alive.net.dropped).toBe(0);
    expect(dead.c.received).toEqual([]);
    expect(dead.c.port.counters().drops.stalled).toBe(100);
  });

  it("holds a source that sends to it for no longer than stallMs, in all", () => {
    const { net, a, b, c } = three({ stallMs: 100 });
    c.room = 0;
    a.send(...range(0, 1000).map((i) => frame(station(2 - (i % 2)), station(0), i)));
    scheduler.advance(99);
    expect(b.received.length).toBeLessThan(500);
    expect(net.isStalled(c.port)).toBe(false);
    scheduler.advance(1);
    expect(net.isStalled(c.port)).toBe(true);
    expect(b.serials()).toEqual(range(0, 500).map((i) => 2 * i + 1));
    expect(c.port.counters().drops).toEqual({ stalled: 500 });
    const calls = a.transmitCalls;
    a.send(...range(0, 320).map((i) => frame(station(2 - (i % 2)), station(0), 1000 + i)));
    scheduler.run(); // no time passes any more
    expect(a.transmitCalls - calls).toBe(10);
    expect(a.backlog).toEqual([]);
    expect(net.balance()).toMatchObject({ inFlight: 0, balanced: true });
  });
});

describe("the stall rule", () => {
  it("counts from the last frame taken, not from the first that waited", () => {
    const { net, a, c } = three({ stallMs: 100 });
    c.room = 0;
    a.send(...range(0, 10).map((i) => frame(station(2), station(0), i)));
    scheduler.run();
    for (let i = 0; i < 5; i++) {
      scheduler.advance(90);
      c.makeRoom(1);
      scheduler.run();
    }
    expect(net.isStalled(c.port)).toBe(false);
    scheduler.advance(99);
    expect(net.isStalled(c.port)).toBe(false);
    scheduler.advance(26); // a tick that a frame was taken in is not counted
    expect(net.isStalled(c.port)).toBe(true);
    expect(c.serials()).toEqual(range(0, 5));
    expect(net.balance()).toMatchObject({ drops: { stalled: 5 }, balanced: true });
    expect(net.counters().copiedBytes).toBe(0); // they waited where they lay
  });

  it("does not count the time for which the whole thread stood still", () => {
    const { net, a, c } = three({ stallMs: 100 });
    c.room = 0;
    a.send(...range(0, 10).map((i) => frame(station(2), station(0), i)));
    scheduler.run();
    for (let i = 0; i < 3; i++) {
      scheduler.sleep(60_000);
      expect(net.isStalled(c.port)).toBe(false);
    }
    c.makeRoom(10);
    scheduler.run();
    expect(c.serials()).toEqual(range(0, 10));
    expect(net.balance()).toMatchObject({ inFlight: 0, drops: {}, balanced: true });
  });

  it("ends when the port says ready and takes a frame", () => {
    const { net, a, c } = three();
    c.room = 0;
    a.send(frame(station(2), station(0), 1));
    scheduler.advance(100);
    expect(net.isStalled(c.port)).toBe(true);
    c.makeRoom(4);
    expect(net.isStalled(c.port)).toBe(false);
    a.send(frame(station(2), station(0), 2));
    scheduler.run();
    expect(c.serials()).toEqual([2]);
  });

  it("ends when a frame is taken, also without ready", () => {
    const { net, a, c } = three();
    c.room = 0;
    a.send(frame(station(2), station(0), 1));
    scheduler.advance(100);
    c.room = 1;
    a.send(frame(station(2), station(0), 2), frame(station(2), station(0), 3));
    scheduler.run();
    expect(c.serials()).toEqual([2]);
    expect(net.isStalled(c.port)).toBe(false);
    expect(a.backlog.length).toBe(1); // waits again, for another stallMs
    scheduler.advance(100);
    expect(a.backlog.length).toBe(0);
  });

  it("is not outwitted by a port that says ready again and again but takes nothing", () => {
    const { net, a, b, c } = three({ stallMs: 100 });
    c.room = 0;
    a.send(
      ...range(0, 100).map((i) => frame(station(1 + (i % 2)), station(0), i)),
      ...range(100, 200).map((i) => frame(station(2), station(0), i)),
    );
    for (let t = 0; t < 100; t++) {
      c.port.ready();
      scheduler.advance(1);
    }
    expect(a.backlog).toEqual([]);
    a.send(...range(0, 64).map((i) => frame(station(1 + (i % 2)), station(0), i)));
    c.port.ready();
    scheduler.run();
    a.send(...range(0, 64).map((i) => frame(station(2), station(0), i)));
    c.port.ready();
    scheduler.run();
    expect(a.backlog).toEqual([]); // not a moment more
    expect(b.received.length).toBe(50 + 32);
    expect(c.received).toEqual([]);
    scheduler.advance(100);
    expect(net.balance()).toMatchObject({ inFlight: 0, balanced: true });
  });

  it("does not stall a port that nobody waits for, however long it is silent", () => {
    const { net, a, c } = three();
    c.room = 0;
    expect(a.transmit(frame(station(2), station(0), 1))).toBe(0);
    c.makeRoom(1); // a never comes back
    scheduler.advance(1000);
    expect(net.isStalled(c.port)).toBe(false);
    c.room = 0;
    expect(a.transmit(frame(station(2), station(0), 1))).toBe(0);
    scheduler.advance(99);
    expect(net.isStalled(c.port)).toBe(false);
    scheduler.advance(1);
    expect(net.isStalled(c.port)).toBe(true);
  });

  it("applies to flooded frames that wait, too", () => {
    const { net, a, c } = three();
    c.room = 0;
    a.send(frame(BROADCAST, station(0), 1));
    scheduler.advance(100);
    expect(net.isStalled(c.port)).toBe(true);
    expect(c.port.counters()).toMatchObject({ drops: { stalled: 1 }, inFlight: 0 });
  });

  it("is over when another peer is plugged in", () => {
    const { net, a, c } = three();
    c.room = 0;
    a.send(frame(station(2), station(0), 1));
    scheduler.advance(100);
    c.port.detach();
    const d = new Station(c.port, scheduler, space);
    expect(net.isStalled(c.port)).toBe(false);
    a.send(frame(station(2), station(0), 2));
    scheduler.run();
    expect(d.serials()).toEqual([2]);
  });
});
