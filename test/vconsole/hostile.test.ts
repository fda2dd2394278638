import { fc, test } from "@fast-check/vitest";
import { VCONSOLE_BREAK, VCONSOLE_HANGUP } from "vbus/abi";
import { VbusError } from "vbus/engine";
import { VirtualScheduler } from "vbus/scheduler";
import { describe, expect } from "vitest";
import { seedOr } from "../engine/seed.js";
import { expectBytes, pattern, TestMachine } from "./machine.js";
import { RawGuest } from "./raw-guest.js";

const COUNT = 4;

/** What a guest that means no good may do, at any time, and what happens on the host meanwhile. */
const deed = fc.oneof(
  fc.record({
    kind: fc.constant("scribble" as const),
    ring: fc.constantFrom("rx" as const, "tx" as const, "events" as const),
    offset: fc.integer({ min: 0, max: 56 + COUNT * 32 - 1 }),
    value: fc.constantFrom(0, 1, 2, 7, 0x7f, 0x80, 0xff),
    length: fc.integer({ min: 1, max: 8 }),
  }),
  fc.record({
    kind: fc.constantFrom("send", "doorbell", "ready", "hangup", "break", "take", "run" as const),
  }),
  fc.record({
    kind: fc.constantFrom("write", "resize", "host-break", "host-hangup", "open", "read" as const),
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

describe("a guest that writes anything anywhere in its rings and calls whatever it likes, at any time", () => {
  test.prop(
    { deeds: fc.array(deed, { minLength: 1, maxLength: 40 }), ilp32: fc.boolean() },
    { numRuns: 120, seed: seedOr(20090611) },
  )(
    "breaks its own session at most: every byte is accounted for, the error is typed and told once, the other console goes on, and so does this one after a reopen",
    async ({ deeds, ilp32 }) => {
      const scheduler = new VirtualScheduler();
      const machine = new TestMachine(scheduler);
      const terminal = machine.addConsole("console0", { backlog: 200 });
      const other = machine.addConsole("console1");
      const villain = new RawGuest(machine, "villain");
      const bystander = new RawGuest(machine, "bystander");
      villain.open(0);
      villain.setUp(ilp32, COUNT);
      villain.ready();
      bystander.open(1);
      bystander.setUp(false, COUNT);
      bystander.ready();
      let size = 0;
      const act: Record<Exclude<(typeof deeds)[number]["kind"], "scribble">, () => unknown> = {
        send: () => {
          stumble(() => villain.send(pattern(16)));
        },
        doorbell: () => {
          for (const { signal } of Object.values(villain.rings)) villain.client.signal(signal);
        },
        ready: () => villain.ready(),
        hangup: () => villain.call(VCONSOLE_HANGUP),
        break: () => villain.call(VCONSOLE_BREAK),
        take: () => {
          stumble(() => villain.take("rx"));
          stumble(() => villain.take("events"));
        },
        run: () => scheduler.run(),
        write: () => {
          if (terminal.isOpen) terminal.tryWrite(pattern(50));
        },
        resize: () => {
          terminal.resize(++size, 1);
        },
        "host-break": () => {
          if (terminal.isOpen) terminal.sendBreak();
        },
        "host-hangup": () => {
          void terminal.hangup();
        },
        open: () => {
          stumble(() => {
            terminal.open();
          });
        },
        read: () => {
          if (terminal.statistics().tx.held > 0) void terminal.read();
        },
      };

      for (const one of deeds) {
        if (one.kind === "scribble") {
          const { gpa, length } = villain.rings[one.ring];
          const n = Math.min(one.length, length - one.offset);
          if (n > 0) villain.memory.space.copyTo(gpa + one.offset, new Uint8Array(n).fill(one.value));
        } else {
          act[one.kind]();
        }
        scheduler.run();
        machine.assertBalanced();
        expect(terminal.statistics().tx.held).toBeLessThanOrEqual(200 + 65535);
        expect(terminal.statistics().rx.held).toBeLessThanOrEqual(200);
      }

      const reports = machine.errors.splice(0) as { source: string; error: unknown }[];
      expect(reports.length).toBeLessThanOrEqual(1);
      for (const report of reports)
        expect(report).toMatchObject({ source: "devices/console0", error: { code: "EPROTO" } });

      expect(bystander.send(pattern(10, 3))).toBe(true);
      scheduler.run();
      expectBytes(await other.read(), pattern(10, 3));
      other.tryWrite(pattern(10, 4));
      scheduler.run();
      expectBytes(bystander.take("rx")[0]!, pattern(10, 4));

      expect(villain.close()).toBe(0);
      scheduler.run();
      machine.errors.length = 0; // a ring that was scribbled on may be found broken only now
      await terminal.hangup({ now: true });
      terminal.open();
      while (terminal.statistics().tx.held > 0) await terminal.read();
      expect(villain.open(0)).toBeGreaterThan(0);
      villain.setUp(ilp32, COUNT);
      expect(villain.ready()).toBe(1);
      terminal.tryWrite(pattern(12, 5));
      scheduler.run();
      expectBytes(villain.take("rx")[0]!, pattern(12, 5));
      const before = terminal.statistics().tx.bytes;
      villain.send(pattern(9, 6));
      scheduler.run();
      expect(terminal.statistics().tx.bytes).toBe(before + 9);
      machine.assertBalanced();
      expect(machine.errors).toEqual([]);
    },
  );
});
