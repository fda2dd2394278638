import { MemorySpace } from "vbus/memory";
import { HostFrames, Switch, type Port, type PortPeer } from "vbus/net";
import { VirtualScheduler } from "vbus/scheduler";
import { describe, expect, it } from "vitest";

import { BROADCAST, frame, range, station } from "./rig.js";

const PORTS = 1000;

describe("a switch with a thousand ports", () => {
  it("delivers each frame to its station only, floods to all others, and holds nothing for idle ports", async () => {
    const scheduler = new VirtualScheduler();
    const space = await MemorySpace.host();
    const net = new Switch({ scheduler, space });
    const received: number[] = new Array<number>(PORTS).fill(0);
    const ports: Port[] = range(0, PORTS).map((i) => {
      const port = net.addPort(`port${i}`);
      const peer: PortPeer = {
        receive: (_, from, to) => {
          received[i] = (received[i] as number) + (to - from);
          return to - from;
        },
        writable: () => undefined,
      };
      port.attach(peer);
      return port;
    });
    const free = space.arena.available;

    ports.forEach((port, i) => {
      const hello = HostFrames.of(space, [frame(BROADCAST, station(i), i)]);
      expect(port.transmit(hello.batch, 0, 1)).toBe(1);
      hello.close();
    });
    expect(received.every((n) => n === PORTS - 1)).toBe(true);
    expect(net.stations().length).toBe(PORTS);

    received.fill(0);
    ports.forEach((port, i) => {
      const batch = HostFrames.of(
        space,
        range(0, 32).map((k) => frame(station((i + 1 + k * 31) % PORTS), station(i), k)),
      );
      expect(port.transmit(batch.batch, 0, 32)).toBe(32);
      batch.close();
    });
    expect(received.every((n) => n === 32)).toBe(true);
    expect(net.counters()).toMatchObject({
      unicast: PORTS * 32,
      flooded: PORTS,
      replicated: PORTS * (PORTS - 2),
      inFlight: 0,
      balanced: true,
    });
    expect(space.arena.available).toBe(free);

    for (const port of ports.slice(0, PORTS - 1)) port.close();
    expect(net.ports.length).toBe(1);
    expect(net.stations().length).toBe(1);
    expect(net.balance().balanced).toBe(true);
  });
});
