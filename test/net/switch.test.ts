import { FRAME_GSO, FRAME_NEEDS_CSUM, FRAME_TOO_LONG, GSO_TCP4 } from "vbus/engine";
import { MemorySpace } from "vbus/memory";
import { HostFrames, OFFLOAD_CSUM, OFFLOAD_TCP4, Switch, type SwitchOptions } from "vbus/net";
import { VirtualScheduler } from "vbus/scheduler";
import { beforeEach, describe, expect, it } from "vitest";

import { BROADCAST, frame, range, Station, station } from "./rig.js";

let scheduler: VirtualScheduler;
let space: MemorySpace;
let guests: MemorySpace;

beforeEach(async () => {
  scheduler = new VirtualScheduler();
  space = await MemorySpace.host();
  guests = await MemorySpace.host();
});

function network(n: number, options: Partial<SwitchOptions> = {}) {
  const net = new Switch({ scheduler, space, ...options });
  const stations = range(0, n).map((i) => new Station(net.addPort(`port${i}`), scheduler, guests));
  return { net, stations: stations as [Station, Station, Station, ...Station[]] };
}

/** Makes the switch know every station; forgets what was received meanwhile. */
function announce(stations: readonly Station[]): void {
  stations.forEach((peer, i) => peer.send(frame(BROADCAST, station(i), 0)));
  scheduler.run();
  for (const peer of stations) {
    peer.received.length = 0;
    peer.receiveCalls = 0;
  }
}

describe("learning", () => {
  it("floods frames to unknown stations, and sends those to known ones to their port only", () => {
    const { net, stations } = network(3);
    const [a, b, c] = stations;
    a.transmit(frame(station(1), station(0), 1));
    expect([b.serials(), c.serials()]).toEqual([[1], [1]]);
    b.transmit(frame(station(0), station(1), 2));
    a.transmit(frame(station(1), station(0), 3));
    expect([a.serials(), b.serials(), c.serials()]).toEqual([[2], [1, 3], [1]]);
    expect(net.counters()).toMatchObject({ unicast: 2, flooded: 1, replicated: 1, learned: 2 });
    expect(net.stations()).toEqual([
      { mac: "02:00:00:00:00:00", port: "port0", idleMs: 0 },
      { mac: "02:00:00:00:00:01", port: "port1", idleMs: 0 },
    ]);
  });

  it("forgets a station that was silent for longer than ageMs, and not before", () => {
    const { stations } = network(3, { ageMs: 1000 });
    const [a, b, c] = stations;
    announce(stations);
    scheduler.advance(1000);
    a.transmit(frame(station(1), station(0), 1));
    expect(c.serials()).toEqual([]);
    scheduler.advance(1);
    a.transmit(frame(station(1), station(0), 2));
    expect([b.serials(), c.serials()]).toEqual([[1, 2], [2]]);
  });

  it("keeps a station that goes on sending, also from the cache of its port", () => {
    const { stations } = network(3, { ageMs: 1000 });
    const [a, b, c] = stations;
    announce(stations);
    for (let i = 0; i < 5; i++) {
      scheduler.advance(900);
      b.transmit(frame(station(2), station(1), i));
    }
    c.received.length = 0;
    a.transmit(frame(station(1), station(0), 1));
    expect(c.serials()).toEqual([]);
  });

  it("learns nobody new while the table is full of active stations, counts it, and learns again when one aged", () => {
    const { net, stations } = network(3, { ageMs: 1000, maxMacs: 2 });
    const [a, b, c] = stations;
    announce(stations);
    expect(net.counters()).toMatchObject({ learned: 2, tableFull: 1 });
    a.transmit(frame(station(2), station(0), 1));
    expect([b.serials(), c.serials()]).toEqual([[1], [1]]); // flooded: c is unknown
    scheduler.advance(900);
    b.transmit(frame(station(0), station(1), 2)); // stays active
    scheduler.advance(150);
    c.transmit(frame(BROADCAST, station(2), 3)); // takes the place of a
    expect(net.stations().map(({ mac }) => mac)).toEqual(["02:00:00:00:00:01", "02:00:00:00:00:02"]);
  });

  it("follows a station that moves to another port", () => {
    const { net, stations } = network(3);
    const [a, b, c] = stations;
    announce(stations);
    c.transmit(frame(BROADCAST, station(1), 1));
    a.transmit(frame(station(1), station(0), 2));
    expect([b.serials(), c.serials()]).toEqual([[1], [2]]);
    expect(net.counters().moved).toBe(1);
    b.transmit(frame(BROADCAST, station(1), 3));
    a.transmit(frame(station(1), station(0), 4));
    expect([b.serials(), c.serials()]).toEqual([
      [1, 4],
      [2, 3],
    ]);
  });

  it("never learns a group address as a source", () => {
    const { net, stations } = network(2);
    stations[0].transmit(frame(station(1), 0x01005e000001, 1), frame(station(1), BROADCAST, 2));
    expect(net.stations()).toEqual([]);
    expect(stations[1].serials()).toEqual([1, 2]);
  });

  it("forgets the stations of a port that is closed", () => {
    const { net, stations } = network(3);
    const [a, b, c] = stations;
    announce(stations);
    b.port.close();
    a.transmit(frame(station(1), station(0), 1));
    expect(c.serials()).toEqual([1]);
    expect(net.ports.map(({ name }) => name)).toEqual(["port0", "port2"]);
  });
});

describe("forwarding", () => {
  it("hands a run of frames for one station over in one call", () => {
    const { stations } = network(3);
    const [a, b, c] = stations;
    announce(stations);
    a.transmit(
      ...range(0, 8).map((i) => frame(station(1), station(0), i)),
      ...range(8, 12).map((i) => frame(station(2), station(0), i)),
      ...range(12, 14).map((i) => frame(station(1), station(0), i)),
    );
    expect([b.receiveCalls, c.receiveCalls]).toEqual([2, 1]);
    expect(b.serials()).toEqual([...range(0, 8), 12, 13]);
    expect(c.serials()).toEqual(range(8, 12));
  });

  it("delivers bytes unchanged, whether they waited or not", () => {
    const { stations } = network(2);
    const [a, b] = stations;
    announce(stations);
    b.room = 2;
    const frames = [60, 61, 1514, 64, 9000, 65022].map((n, i) => frame(station(1), station(0), i, n));
    a.transmit(...frames, frame(BROADCAST, station(0), 6));
    b.makeRoom(10);
    scheduler.run();
    expect(b.received).toEqual([...frames, frame(BROADCAST, station(0), 6)]);
  });

  it("drops and counts what is too short, too long, or came from the port it is for", () => {
    const { net, stations } = network(2);
    const [a, b] = stations;
    announce(stations);
    const frames = [
      frame(station(1), station(0), 0).subarray(0, 13),
      frame(station(1), station(0), 1, 65537),
      frame(station(0), station(0), 2),
      frame(station(1), station(0), 3),
    ];
    expect(a.transmit(...frames)).toBe(4);
    expect(b.serials()).toEqual([3]);
    expect(a.port.counters().drops).toEqual({ undersize: 1, oversize: 1, "source-port": 1 });
    expect(net.balance().balanced).toBe(true);
  });

  it("drops as no-port when there is nobody else, and as no-link when the port has no peer", () => {
    const { net, stations } = network(2);
    const [a, b] = stations;
    announce(stations);
    b.port.detach();
    expect(a.transmit(frame(station(1), station(0), 1), frame(BROADCAST, station(0), 2))).toBe(2);
    expect(net.balance()).toMatchObject({ drops: { "no-link": 1, "no-port": 1 }, balanced: true });
  });

  it("refuses to be called from within receive, and lets the error surface without hurting the sender", () => {
    const { net, stations } = network(3);
    const [a, , c] = stations;
    const b = net.addPort("naughty");
    b.attach({
      receive: (batch, from, to) => b.transmit(batch, from, to),
      writable: () => undefined,
    });
    expect(a.transmit(frame(BROADCAST, station(0), 1))).toBe(1);
    expect(c.serials()).toEqual([1]);
    expect(() => scheduler.run()).toThrow(/EBUSY: transmit into switch from within receive/);
    expect(net.balance()).toMatchObject({ drops: { broken: 1 }, balanced: true });
  });
});

describe("back-pressure", () => {
  it("pushes back at once, without a copy, when the rest of the batch is for the same port", () => {
    const { net, stations } = network(2);
    const [a, b] = stations;
    announce(stations);
    b.room = 3;
    expect(a.transmit(...range(0, 8).map((i) => frame(station(1), station(0), i)))).toBe(3);
    expect(net.balance()).toMatchObject({ inFlight: 0, balanced: true });
    a.send(...range(3, 8).map((i) => frame(station(1), station(0), i)));
    scheduler.run();
    expect(a.writableCalls).toBe(0);
    b.makeRoom(5);
    scheduler.run();
    expect(b.serials()).toEqual(range(0, 8));
    expect(a.writableCalls).toBe(1);
  });

  it("lets frames wait so that others behind them get through, up to the limits, then pushes back", () => {
    const { net, stations } = network(3, { egressFrames: 4 });
    const [a, b, c] = stations;
    announce(stations);
    b.room = 0;
    const mixed = range(0, 16).map((i) => frame(station(1 + (i % 2)), station(0), i));
    expect(a.transmit(...mixed)).toBe(8);
    expect(c.serials()).toEqual([1, 3, 5, 7]);
    expect(net.balance()).toMatchObject({ inFlight: 4, balanced: true });
    a.send(...mixed.slice(8));
    b.makeRoom(100);
    scheduler.run();
    expect(b.serials()).toEqual([0, 2, 4, 6, 8, 10, 12, 14]);
    expect(c.serials()).toEqual([1, 3, 5, 7, 9, 11, 13, 15]);
  });

  it("limits what waits by bytes, too", () => {
    const { net, stations } = network(3, { egressBytes: 3000 });
    const [a, b] = stations;
    announce(stations);
    b.room = 0;
    const big = range(0, 8).map((i) => frame(station(1), station(0), i, 1000));
    expect(a.transmit(...big, frame(station(2), station(0), 9))).toBe(3);
    expect(net.balance().inFlight).toBe(3);
  });

  it("lets sources that wait for one port take turns, however little room there is", () => {
    const { stations } = network(4);
    const [target, ...sources] = stations as Station[] as [Station, ...Station[]];
    announce(stations);
    target.room = 0;
    sources.forEach((source, k) => {
      source.send(...range(0, 40).map((i) => frame(station(0), station(k + 1), i)));
    });
    scheduler.run();
    for (let i = 0; i < 30; i++) {
      target.makeRoom(2);
      scheduler.run();
    }
    for (const k of [1, 2, 3]) expect(target.serials(station(k) % 2 ** 32)).toEqual(range(0, 20));
  });

  it("drops the copy of a flooded frame at a port without room, and counts it there", () => {
    const { net, stations } = network(3, { egressFrames: 2 });
    const [a, b, c] = stations;
    announce(stations);
    b.room = 0;
    expect(a.transmit(...range(0, 5).map((i) => frame(BROADCAST, station(0), i)))).toBe(5);
    expect(c.serials()).toEqual(range(0, 5));
    expect(b.port.counters()).toMatchObject({ drops: { "queue-full": 3 }, inFlight: 2 });
    expect(net.balance().balanced).toBe(true);
    b.makeRoom(9);
    scheduler.run();
    expect(b.serials()).toEqual([0, 1]);
  });

  it("does not show one receiver of a flooded frame what another noted in its flags", () => {
    const { net, stations } = network(2);
    const seen: number[] = [];
    for (const name of ["first", "second"]) {
      net.addPort(name).attach({
        receive: (batch, from, to) => {
          for (let i = from; i < to; i++) {
            seen.push(batch.table.flags(i) & FRAME_TOO_LONG);
            batch.table.setFlags(i, batch.table.flags(i) | FRAME_TOO_LONG);
          }
          return to - from;
        },
        writable: () => undefined,
      });
    }
    stations[0].transmit(frame(BROADCAST, station(0), 1), frame(BROADCAST, station(0), 2));
    expect(seen).toEqual([0, 0, 0, 0]);
  });

  it("does not spin with a peer that says ready while it refuses, and gets its frames through later", () => {
    const { stations } = network(2);
    const [a, b] = stations;
    announce(stations);
    const receive = b.receive.bind(b);
    b.room = 0;
    b.receive = (batch, from, to) => {
      const n = receive(batch, from, to);
      if (n < to - from) b.port.ready();
      if (b.receiveCalls === 3) b.room = 100;
      return n;
    };
    a.send(...range(0, 4).map((i) => frame(station(1), station(0), i)));
    scheduler.run();
    expect(b.serials()).toEqual(range(0, 4));
    expect(b.receiveCalls).toBe(4);
  });

  it("does not let a flooded or a new frame overtake one that waits", () => {
    const { stations } = network(3);
    const [a, b] = stations;
    announce(stations);
    b.room = 0;
    a.transmit(frame(station(1), station(0), 1), frame(BROADCAST, station(0), 2));
    b.room = 9; // has room, has not said so
    a.transmit(frame(station(1), station(0), 3), frame(BROADCAST, station(0), 4));
    b.port.ready();
    scheduler.run();
    expect(b.serials()).toEqual([1, 2, 3, 4]);
  });
});

describe("offloads", () => {
  // a UDP checksum over 8 + 4 bytes at 34, stored at 34 + 6; the field holds the pseudo-header's part
  const partial = { flags: FRAME_NEEDS_CSUM, checksumStart: 34, checksumOffset: 6 };

  function capture(port: Station): { flags: number[] } {
    const seen = { flags: [] as number[] };
    const receive = port.receive.bind(port);
    port.receive = (batch, from, to) => {
      for (let i = from; i < to; i++) seen.flags.push(batch.table.flags(i));
      return receive(batch, from, to);
    };
    return seen;
  }

  function setUp(offloads: number) {
    const net = new Switch({ scheduler, space });
    const a = new Station(net.addPort("a", { offloads: -1 }), scheduler, guests);
    const b = new Station(net.addPort("b", { offloads }), scheduler, guests);
    announce([a, b]);
    return { net, a, b, seen: capture(b) };
  }

  function reference(bytes: Uint8Array): Uint8Array {
    let sum = 0;
    for (let i = 34; i < bytes.length; i += 2) sum += ((bytes[i] ?? 0) << 8) | (bytes[i + 1] ?? 0);
    while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
    const done = bytes.slice();
    const result = ~sum & 0xffff || 0xffff;
    done[40] = result >>> 8;
    done[41] = result & 0xff;
    return done;
  }

  it("passes a partial checksum on to a port that takes it, and completes it for one that does not", () => {
    const bytes = frame(station(1), station(0), 7, 47);
    for (const [offloads, expected] of [
      [OFFLOAD_CSUM, bytes],
      [0, reference(bytes)],
    ] as const) {
      const { net, a, b, seen } = setUp(offloads);
      const frames = new HostFrames(guests);
      frames.add(frame(station(1), station(0), 1));
      frames.add(bytes, partial);
      frames.add(frame(station(1), station(0), 2));
      expect(a.port.transmit(frames.batch, 0, 3)).toBe(3);
      expect(b.received[1]).toEqual(expected);
      expect(b.serials()).toEqual([1, 7, 2]);
      expect((seen.flags[1] as number) & FRAME_NEEDS_CSUM).toBe(offloads === 0 ? 0 : FRAME_NEEDS_CSUM);
      expect(frames.batch.copy(1)).toEqual(bytes); // the sender's own frame is left alone
      expect(net.balance().balanced).toBe(true);
    }
  });

  it("drops as bad-offload: checksum places outside the frame, superframes nobody asked for, unknown kinds", () => {
    const { net, a, b } = setUp(OFFLOAD_CSUM | OFFLOAD_TCP4);
    const { b: plain, a: sender, net: other } = setUp(0);
    const bytes = frame(station(1), station(0), 7, 200);
    const frames = new HostFrames(guests);
    frames.add(bytes, { flags: FRAME_GSO | FRAME_NEEDS_CSUM, gsoKind: GSO_TCP4, gsoSize: 100 });
    frames.add(bytes, { flags: FRAME_GSO | FRAME_NEEDS_CSUM, gsoKind: 9, gsoSize: 100 });
    frames.add(bytes, { flags: FRAME_NEEDS_CSUM, checksumStart: 190, checksumOffset: 9 });
    expect(a.port.transmit(frames.batch, 0, 3)).toBe(3);
    expect(b.received.length).toBe(2); // the port that takes checksums is given the places as they are
    expect(net.balance()).toMatchObject({ drops: { "bad-offload": 1 }, balanced: true });
    expect(sender.port.transmit(frames.batch, 0, 3)).toBe(3);
    expect(plain.received).toEqual([]);
    expect(other.balance()).toMatchObject({ drops: { "bad-offload": 3 }, balanced: true });
  });

  it("pushes a frame that needs completing back like any other when the port has no room", () => {
    const { a, b } = setUp(0);
    b.room = 1;
    const frames = new HostFrames(guests);
    for (const serial of [1, 2, 3]) frames.add(frame(station(1), station(0), serial), partial);
    expect(a.port.transmit(frames.batch, 0, 3)).toBe(1);
    b.makeRoom(5);
    scheduler.run();
    expect(a.writableCalls).toBe(1);
    expect(a.port.transmit(frames.batch, 1, 3)).toBe(2);
    expect(b.serials()).toEqual([1, 2, 3]);
  });
});

describe("closing", () => {
  it("counts frames that waited at a closed port as closed, and tells the source that waited for it", () => {
    const { net, stations } = network(3);
    const [a, b] = stations;
    announce(stations);
    b.room = 0;
    a.send(
      frame(station(1), station(0), 1),
      frame(station(2), station(0), 2),
      frame(station(1), station(0), 3),
    );
    scheduler.run();
    expect(net.balance().inFlight).toBe(1);
    b.port.close();
    b.port.close();
    scheduler.run();
    expect(a.backlog).toEqual([]);
    expect(net.balance()).toMatchObject({ inFlight: 0, drops: { closed: 1 }, balanced: true });
    expect(() => b.port.attach(b)).toThrow(/ENOTCONN/);
    expect(b.transmit(frame(station(0), station(1), 4))).toBe(1);
    expect(net.balance()).toMatchObject({ drops: { closed: 2 }, balanced: true });
  });

  it("lets a peer close its own port, or another, in the middle of a delivery", () => {
    const { net, stations } = network(4);
    const [a, b, c, d] = stations as Station[] as [Station, Station, Station, Station];
    announce(stations);
    const receive = b.receive.bind(b);
    b.receive = (batch, from, to) => {
      b.port.close();
      d.port.close();
      a.port.close();
      return receive(batch, from, to);
    };
    expect(
      a.transmit(...[1, 2, 3].map((i) => frame(BROADCAST, station(0), i)), frame(station(1), station(0), 4)),
    ).toBe(4);
    expect([b.serials(), c.serials(), d.serials()]).toEqual([[1, 2, 3], [1, 2, 3, 4], []]);
    expect(net.ports.length).toBe(1);
    expect(net.stations().map(({ port }) => port)).toEqual(["port2"]);
    expect(net.balance().balanced).toBe(true);
  });

  it("closes ports and switch in every order with frames in every place, and stays balanced", () => {
    const orders = ["abs", "asb", "bas", "bsa", "sab", "sba"];
    for (const order of orders) {
      const { net, stations } = network(3);
      const [a, b] = stations;
      announce(stations);
      b.room = 0;
      a.send(
        frame(station(1), station(0), 1),
        frame(station(2), station(0), 2),
        frame(station(1), station(0), 3),
      );
      scheduler.run();
      for (const what of order) {
        if (what === "a") a.port.close();
        if (what === "b") b.port.close();
        if (what === "s") net.close();
        expect(net.balance().balanced).toBe(true);
        scheduler.run();
      }
      scheduler.advance(1000);
      expect(net.balance()).toMatchObject({ inFlight: 0, balanced: true });
      expect(() => net.addPort("late")).toThrow(/ENOTCONN/);
    }
  });

  it("refuses a second peer, a name that is taken, and limits that are not positive", () => {
    const { net, stations } = network(2);
    expect(() => stations[0].port.attach(stations[1])).toThrow(/EBUSY: port port0 has a peer already/);
    expect(() => net.addPort("port1")).toThrow(/EBUSY/);
    expect(() => new Switch({ scheduler, space, stallMs: 0 })).toThrow(RangeError);
  });

  it("gives all its memory back", () => {
    const before = space.arena.available;
    const { net, stations } = network(3);
    announce(stations);
    stations[1].room = 0;
    stations[0].transmit(...range(0, 50).map((i) => frame(BROADCAST, station(0), i, 1500)));
    expect(net.balance().inFlight).toBe(50);
    const grown = space.arena.end;
    net.close();
    // what stays is the scratch area of the copy routine, kept as long as the space
    expect(space.arena.end - space.arena.start - space.arena.available).toBeLessThan(160 * 1024);
    expect(space.arena.end).toBe(grown);
    expect(before).toBeGreaterThan(0);
  });
});
