import { MemorySpace } from "vbus/memory";
import { Random, Switch } from "vbus/net";
import { VirtualScheduler } from "vbus/scheduler";
import { describe, expect, it } from "vitest";

import { BROADCAST, frame, Station, station } from "./rig.js";

describe("an egress queue that fills to its brim", () => {
  it.each([1, 2, 3, 15, 16, 17, 32, 64, 256])(
    "of %i frames hands everything over in the order in which it came",
    async (egressFrames) => {
      const scheduler = new VirtualScheduler();
      const space = await MemorySpace.host();
      const net = new Switch({ scheduler, space, egressFrames });
      const [a, b] = ["a", "b"].map((name) => new Station(net.addPort(name), scheduler, space)) as [
        Station,
        Station,
      ];
      b.send(frame(BROADCAST, station(1), 0));
      scheduler.run();
      b.room = 0;
      const random = new Random(egressFrames);
      let sent = 0;
      for (let round = 0; round < 200; round++) {
        const n = 1 + Math.floor(random.fraction() * 40);
        for (let i = 0; i < n; i++) {
          const unicast = random.fraction() < 0.7;
          a.send(frame(unicast ? station(1) : BROADCAST, station(0), sent++));
        }
        scheduler.run();
        b.makeRoom(Math.floor(random.fraction() * 40));
        scheduler.advance(1);
      }
      b.makeRoom(sent);
      scheduler.advance(10);
      const serials = b.serials();
      expect(serials).toEqual([...serials].sort((x, y) => x - y));
      expect(new Set(serials).size).toBe(serials.length);
      const { balanced, inFlight, drops } = net.balance();
      expect({ balanced, inFlight }).toEqual({ balanced: true, inFlight: 0 });
      expect(serials.length + (drops["queue-full"] ?? 0)).toBe(sent);
      expect(Object.keys(drops).filter((reason) => reason !== "queue-full" && reason !== "no-port")).toEqual(
        [],
      );
    },
  );
});
