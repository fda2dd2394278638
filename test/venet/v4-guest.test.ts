import { VENET_FLUSHRX, VENET_LINKDOWN, VENET_LINKUP, VENET_MACQUERY } from "vbus/abi";
import { VirtualScheduler } from "vbus/scheduler";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { cable } from "./cable.js";
import { expectFrames, TestMachine, testFrame } from "./machine.js";
import { RawGuest } from "./raw-guest.js";
import { V4Nic } from "./v4-nic.js";

describe.each([
  ["32-byte descriptors", false, 8],
  ["28-byte descriptors", true, 8],
  ["28-byte descriptors in a ring of 1", true, 1],
  ["32-byte descriptors in a ring of 1", false, 1],
])("two hand-written guests of 2009, with %s", (_layout, ilp32, count) => {
  let scheduler: VirtualScheduler;
  let machine: TestMachine;
  let guests: RawGuest[];
  let nics: [V4Nic, V4Nic];

  beforeEach(() => {
    scheduler = new VirtualScheduler();
    const [left, right] = cable();
    machine = new TestMachine((name) => (name === "nic0" ? left : right), scheduler);
    machine.addNic("nic0", { client_mac: "02:00:00:00:00:0a" });
    machine.addNic("nic1", { client_mac: "02:00:00:00:00:0b" });
    guests = ["a", "b"].map((name) => new RawGuest(machine, name));
    nics = guests.map((guest, i) => {
      expect(guest.open(i)).toBeGreaterThan(0);
      const nic = new V4Nic(guest, count, ilp32);
      expect(guest.callWith(VENET_MACQUERY, new Uint8Array(6))).toBe(0);
      expect(guest.call(VENET_LINKUP)).toBe(0);
      return nic;
    }) as [V4Nic, V4Nic];
    scheduler.run();
  });

  afterEach(() => {
    expect(machine.errors).toEqual([]);
    machine.assertBalanced();
  });

  /** Both guests take their interrupts until nothing happens any more. */
  function settle(): void {
    for (let quiet = 0; quiet < 2;) {
      const ran = scheduler.run();
      const served = nics.reduce((sum, nic) => sum + nic.interrupts(), 0);
      quiet = ran + served === 0 ? quiet + 1 : 0;
    }
  }

  it("exchange frames in both directions at once, far more than the rings hold, without a loss", () => {
    const mac = [0x0a, 0x0b].map((last) => [2, 0, 0, 0, 0, last]) as [number[], number[]];
    const frames = [0, 1].map((me) =>
      Array.from({ length: 300 }, (_, n) =>
        testFrame(mac[1 - me] ?? [], mac[me] ?? [], 60 + ((n * 13) % 1400), n),
      ),
    ) as [Uint8Array[], Uint8Array[]];
    const sent: [number, number] = [0, 0];
    for (let rounds = 0; sent[0] + sent[1] < 600; rounds++) {
      expect(rounds).toBeLessThan(2000);
      for (const me of [0, 1] as const) {
        while (sent[me] < 300 && nics[me].send(frames[me][sent[me]] as Uint8Array)) sent[me]++;
        nics[me].reap();
      }
      settle();
    }
    settle();
    expectFrames(nics[1].received, frames[0]);
    expectFrames(nics[0].received, frames[1]);
    const all = machine.assertBalanced();
    for (const nic of ["nic0", "nic1"]) {
      expect(all[nic]?.tx).toMatchObject({ frames: 300, passed: 300 });
      expect(all[nic]?.rx).toMatchObject({ frames: 300, passed: 300 });
    }
  });

  it("wait for a receiver that polls one buffer at a time", () => {
    nics[1].rx.queue.disable();
    const frames = Array.from({ length: 40 }, (_, n) =>
      testFrame([2, 0, 0, 0, 0, 0x0b], [2, 0, 0, 0, 0, 0x0a], 60, n),
    );
    let sent = 0;
    for (let rounds = 0; nics[1].received.length < frames.length; rounds++) {
      expect(rounds).toBeLessThan(1000);
      if (sent < frames.length && nics[0].send(frames[sent] as Uint8Array)) sent++;
      nics[0].reap();
      if (rounds % 2 === 1) nics[1].poll(1);
      scheduler.run();
    }
    expectFrames(nics[1].received, frames);
  });

  it("go on at the same indexes after LINKDOWN and LINKUP, and after FLUSHRX", () => {
    const frame = (n: number): Uint8Array =>
      testFrame([2, 0, 0, 0, 0, 0x0b], [2, 0, 0, 0, 0, 0x0a], 100 + n, n);
    const expected: Uint8Array[] = [];
    for (let n = 0; n < 20; n++) {
      if (n % 3 === 0) {
        expect(guests[1]?.call(VENET_LINKDOWN)).toBe(0);
        settle();
        expect(guests[1]?.call(VENET_LINKUP)).toBe(0);
      }
      if (n % 4 === 0) {
        expect(guests[1]?.call(VENET_FLUSHRX)).toBe(0);
        nics[1].poll();
      }
      expected.push(frame(n));
      expect(nics[0].send(frame(n))).toBe(true);
      settle();
      nics[0].reap();
    }
    expectFrames(nics[1].received, expected);
    expect(machine.statistics("nic1").flushed).toBe(nics[1].flushed);
  });
});
