import fc from "fast-check";
import { MemorySpace } from "vbus/memory";
import { Switch, totalDrops, type Port } from "vbus/net";
import { VirtualScheduler } from "vbus/scheduler";
import { describe, expect, it } from "vitest";

import { BROADCAST, frame, range, senderOf, serialOf, Station, station } from "./rig.js";

const PORTS = 5;

type Step =
  | { kind: "send"; from: number; to: number[] }
  | { kind: "room"; at: number; n: number; say: boolean }
  | { kind: "dead"; at: number }
  | { kind: "time"; ms: number }
  | { kind: "run" }
  | { kind: "close"; at: number }
  | { kind: "replug"; at: number };

const port = fc.nat(PORTS - 1);
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({
      kind: fc.constant("send" as const),
      from: port,
      to: fc.array(fc.nat(PORTS), { minLength: 1, maxLength: 40 }),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({ kind: fc.constant("room" as const), at: port, n: fc.nat(30), say: fc.boolean() }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("dead" as const), at: port }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant("time" as const), ms: fc.nat(80) }) },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant("run" as const) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("close" as const), at: port }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("replug" as const), at: port }) },
);

describe("any sequence of sending, refusing, stalling, closing and plugging", () => {
  it("keeps the frame equation at every step, and the order of each flow", async () => {
    const space = await MemorySpace.host();
    const guests = await MemorySpace.host();
    fc.assert(
      fc.property(fc.array(step, { minLength: 5, maxLength: 60 }), (steps) => {
        const scheduler = new VirtualScheduler();
        const net = new Switch({
          scheduler,
          space,
          stallMs: 50,
          egressFrames: 8,
          egressBytes: 2000,
          maxMacs: 4,
          ageMs: 300,
        });
        const open = (i: number): Station =>
          new Station(
            net.addPort(`port${i}.${scheduler.now()}.${net.ports.length}.${serial}`),
            scheduler,
            guests,
            16,
          );
        let serial = 1;
        const live: Station[] = [];
        for (const i of range(0, PORTS)) live.push(open(i));
        const everybody: Station[] = [...live];
        const everyPort: Port[] = live.map((peer) => peer.port);
        const at = (i: number): Station => live[i] as Station;

        for (const action of steps) {
          switch (action.kind) {
            case "send":
              at(action.from).send(
                ...action.to.map((to) =>
                  frame(
                    to === PORTS ? BROADCAST : station(to),
                    station(action.from),
                    serial++,
                    60 + (serial % 7) * 100,
                  ),
                ),
              );
              break;
            case "room":
              at(action.at).room = at(action.at).room === Infinity ? action.n : at(action.at).room + action.n;
              if (action.say) at(action.at).port.ready();
              break;
            case "dead":
              at(action.at).room = 0;
              break;
            case "time":
              scheduler.advance(action.ms);
              break;
            case "run":
              scheduler.run();
              break;
            case "close": {
              at(action.at).port.close();
              const next = open(action.at);
              live[action.at] = next;
              everybody.push(next);
              everyPort.push(next.port);
              break;
            }
            case "replug": {
              const { port: same } = at(action.at);
              same.detach();
              const next = new Station(same, scheduler, guests, 16);
              live[action.at] = next;
              everybody.push(next);
              break;
            }
          }
          const balance = net.balance();
          expect(balance.balanced).toBe(true);
          expect(balance.inFlight).toBeLessThanOrEqual(PORTS * 8);
        }

        // nobody is dead any more: everything that waits arrives
        for (const peer of live) peer.makeRoom(1e9);
        scheduler.run();
        scheduler.advance(200);
        for (const peer of live) expect(peer.backlog).toEqual([]);
        const balance = net.balance();
        expect(balance).toMatchObject({ inFlight: 0, balanced: true });

        // the switch's sums are the sums of its ports', and of what the peers saw
        const counters = everyPort.map((each) => each.counters());
        const sum = (pick: (each: (typeof counters)[number]) => number): number =>
          counters.reduce((total, each) => total + pick(each), 0);
        expect(sum((each) => each.received)).toBe(balance.received);
        expect(sum((each) => each.delivered)).toBe(balance.delivered);
        expect(sum((each) => totalDrops(each.drops))).toBe(totalDrops(balance.drops));
        expect(everybody.reduce((total, peer) => total + peer.received.length, 0)).toBe(balance.delivered);

        for (const peer of everybody) {
          const last = new Map<number, number>();
          for (const bytes of peer.received) {
            expect(serialOf(bytes)).toBeGreaterThan(last.get(senderOf(bytes)) ?? 0);
            last.set(senderOf(bytes), serialOf(bytes));
          }
        }
        net.close();
      }),
      { numRuns: 150 },
    );
  });
});
