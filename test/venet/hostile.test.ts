import { fc, test } from "@fast-check/vitest";
import { VENET_FLUSHRX, VENET_LINKDOWN, VENET_LINKUP } from "vbus/abi";
import { VbusError } from "vbus/engine";
import { VirtualScheduler } from "vbus/scheduler";
import { totalDrops } from "vbus/net";
import { describe, expect } from "vitest";
import { TestMachine, testFrame } from "./machine.js";
import { hostBatch, TestPort } from "./port.js";
import { RawGuest } from "./raw-guest.js";
import { V4Nic } from "./v4-nic.js";

const MAC = [2, 0, 0, 0, 0, 0x0a];
const COUNT = 4;
const frame = testFrame(MAC, [2, 0, 0, 0, 0, 1], 60);
const batch = await hostBatch([frame, frame]);

/** What a guest that means no good may do, at any time. */
const deed = fc.oneof(
  fc.record({
    kind: fc.constant("scribble" as const),
    ring: fc.constantFrom("rx" as const, "tx" as const),
    offset: fc.integer({ min: 0, max: 56 + COUNT * 32 - 1 }),
    value: fc.constantFrom(0, 1, 2, 7, 0x7f, 0x80, 0xff),
    length: fc.integer({ min: 1, max: 8 }),
  }),
  fc.record({
    kind: fc.constantFrom("send", "deliver", "doorbell", "flush", "relink", "wait", "poll" as const),
  }),
);

/** A guest may fall over what it wrote itself: that is its own affair. */
function stumble(step: () => unknown): void {
  try {
    step();
  } catch (error) {
    expect(error).toBeInstanceOf(VbusError);
  }
}

describe("a guest that writes anything anywhere in its rings, at any time", () => {
  test.prop({ deeds: fc.array(deed, { minLength: 1, maxLength: 40 }), ilp32: fc.boolean() }, { numRuns: 80 })(
    "breaks its own rings at most: every frame is accounted for, errors are typed and told once, the other NIC goes on, and so does this one after a reopen",
    ({ deeds, ilp32 }) => {
      const scheduler = new VirtualScheduler();
      const ports = [new TestPort("bad"), new TestPort("good")] as const;
      const machine = new TestMachine((name) => ports[Number(name.slice(3))] as TestPort, scheduler);
      machine.addNic("nic0");
      machine.addNic("nic1");
      const [bad, good] = [0, 1].map((id) => {
        const guest = new RawGuest(machine, `guest${id}`, { size: 1 << 18, arenaSize: 1 << 18 });
        guest.open(id);
        return guest;
      }) as [RawGuest, RawGuest];
      const villain = new V4Nic(bad, COUNT, ilp32);
      const bystander = new V4Nic(good, COUNT, ilp32);
      for (const guest of [bad, good]) expect(guest.call(VENET_LINKUP)).toBe(0);
      const innocent = (): void => {
        expect(bystander.send(frame)).toBe(true);
        expect(ports[1].peer?.receive(batch, 0, 1)).toBe(1);
        scheduler.run();
        expect(bystander.reap()).toBe(1);
        expect(bystander.poll()).toBe(1);
      };

      for (const act of deeds) {
        if (act.kind === "scribble") {
          const { gpa, length } = villain[act.ring];
          const size = Math.min(act.length, length - act.offset);
          if (size > 0) bad.memory.space.copyTo(gpa + act.offset, new Uint8Array(size).fill(act.value));
        } else if (act.kind === "send") {
          stumble(() => villain.send(frame));
        } else if (act.kind === "deliver") {
          const taken = ports[0].peer?.receive(batch, 0, 2) ?? 0;
          expect(taken).toBeLessThanOrEqual(2);
        } else if (act.kind === "doorbell") {
          bad.client.signal(0);
          bad.client.signal(1);
        } else if (act.kind === "flush") {
          bad.call(VENET_FLUSHRX);
        } else if (act.kind === "relink") {
          bad.call(VENET_LINKDOWN);
          expect(bad.call(VENET_LINKUP)).toBe(0);
        } else if (act.kind === "poll") {
          stumble(() => villain.poll(COUNT));
        } else {
          scheduler.advance(250);
        }
        scheduler.run();
        machine.assertBalanced();
        innocent();
      }

      const reports = machine.errors.splice(0) as { source: string; error: unknown }[];
      expect(reports.length).toBeLessThanOrEqual(2); // one for each ring
      for (const report of reports)
        expect(report).toMatchObject({ source: "devices/nic0", error: { code: "EPROTO" } });
      const { tx } = machine.statistics("nic1");
      expect(tx).toMatchObject({ frames: deeds.length, passed: deeds.length });
      expect(totalDrops(tx.drops)).toBe(0);

      expect(bad.client.close(bad.handle)).toBe(0);
      machine.errors.length = 0;
      expect(bad.open(0)).toBeGreaterThan(0);
      const reformed = new V4Nic(bad, COUNT, ilp32);
      expect(bad.call(VENET_LINKUP)).toBe(0);
      const before = ports[0].sent.length;
      reformed.send(frame);
      scheduler.run();
      expect(ports[0].sent).toHaveLength(before + 1);
      expect(ports[0].peer?.receive(batch, 0, 2)).toBe(2);
      expect(reformed.poll()).toBe(2);
      machine.assertBalanced();
      expect(machine.errors).toEqual([]);
    },
  );
});
