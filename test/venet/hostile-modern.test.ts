import { fc, test } from "@fast-check/vitest";
import { VENET_FLUSHRX, VENET_LINKDOWN, VENET_LINKUP } from "vbus/abi";
import { VbusError } from "vbus/engine";
import { MemorySpace } from "vbus/memory";
import { HostFrames, OFFLOAD_ALL } from "vbus/net";
import { VirtualScheduler } from "vbus/scheduler";
import { describe, expect } from "vitest";
import { superframes } from "../offload/captures.js";
import { TestMachine, testFrame } from "./machine.js";
import { EVERYTHING, ModernNic, type KernelFrame } from "./modern-nic.js";
import { TestPort } from "./port.js";
import { RawGuest } from "./raw-guest.js";

const COUNT = 4;
const MAC = [2, 0, 0, 0, 0, 0x0b];
const captured = superframes();
const small = testFrame(MAC, [2, 0, 0, 0, 0, 1], 60);
const host = await MemorySpace.host(4 << 20);

/** Frames for the guest: ordinary ones, with partial checksums, and superframes. */
const incoming = captured.slice(52, 60).map((frame, i) => {
  const batch = new HostFrames(host, 3, 1 << 17);
  for (const { bytes, flags, kind, size, start, offset } of [
    { ...frame, flags: 0, kind: 0, bytes: small },
    frame,
    captured[i] ?? frame,
  ]) {
    batch.add(bytes, { flags, gsoKind: kind, gsoSize: size, checksumStart: start, checksumOffset: offset });
  }
  return batch.batch;
});

const AREAS = ["rx", "tx", "events", "pages", "txPool", "rxPool", "eventPool"] as const;
const scribble = fc.record({
  kind: fc.constant("scribble" as const),
  area: fc.constantFrom(...AREAS),
  offset: fc.nat({ max: 1400 }),
  value: fc.constantFrom(0, 1, 2, 7, 0x30, 0x7f, 0x80, 0xff),
  length: fc.constantFrom(1, 2, 4, 8),
});
const deed = fc.oneof(
  { weight: 2, arbitrary: scribble },
  {
    weight: 3,
    arbitrary: fc.record({ kind: fc.constantFrom("send", "deliver" as const), n: fc.nat({ max: 7 }) }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constantFrom(
        "poll",
        "reap",
        "events",
        "flush",
        "relink",
        "wait",
        "carrier",
        "refill" as const,
      ),
    }),
  },
);

/** A guest may fall over what it wrote itself: that is its own affair. */
function stumble(step: () => unknown): void {
  try {
    step();
  } catch (error) {
    if (!(error instanceof VbusError) && !(error instanceof Error)) throw error;
  }
}

describe("a guest with everything negotiated that writes anything anywhere, at any time", () => {
  test.prop(
    {
      deeds: fc.array(deed, { minLength: 1, maxLength: 40 }),
      ilp32: fc.boolean(),
      offloads: fc.constantFrom(0, OFFLOAD_ALL),
      room: fc.constantFrom(2, Infinity),
    },
    { numRuns: 120 },
  )(
    "breaks its own rings at most: every frame is accounted for, nothing outside what it gave is written, and a new session works",
    ({ deeds, ilp32, offloads, room }) => {
      const scheduler = new VirtualScheduler();
      const port = new TestPort();
      port.offloads = offloads;
      port.room = room;
      const machine = new TestMachine(() => port, scheduler);
      machine.addNic("nic0", { txc: "1" });
      const guest = new RawGuest(machine, "guest", { size: 1 << 20, arenaSize: 1 << 20 });
      const plug = (): ModernNic => {
        expect(guest.open()).toBeGreaterThan(0);
        const options = { sg: EVERYTHING, events: EVERYTHING, l4ro: EVERYTHING, uso: EVERYTHING };
        const nic = new ModernNic(guest, { count: COUNT, ilp32, pages: 20, ...options });
        expect(guest.call(VENET_LINKUP)).toBe(0);
        return nic;
      };
      const guards = Array.from({ length: 6 }, () => guest.host.allocate(512, 64));
      const nic = plug();
      for (let i = 1; i < 6; i += 2) guest.host.free(guards[i] as number); // holes for what comes later
      const kept = guards.filter((_guard, i) => i % 2 === 0);
      for (const guard of kept) guest.host.bytes.fill(0x5a, guard, guard + 512);
      const places: Record<(typeof AREAS)[number], [number, number]> = {
        rx: [nic.rx.gpa, nic.rx.length],
        tx: [nic.tx.gpa, nic.tx.length],
        events: [nic.eventRing?.gpa ?? 0, nic.eventRing?.length ?? 0],
        pages: [nic.pageRing?.gpa ?? 0, nic.pageRing?.length ?? 0],
        txPool: [nic.txPool, COUNT * nic.slotSize],
        rxPool: [nic.rxPool, COUNT * nic.slotSize],
        eventPool: [nic.eventPool, COUNT * 24],
      };
      let down = false;
      for (const act of deeds) {
        switch (act.kind) {
          case "scribble": {
            const [gpa, length] = places[act.area];
            const at = act.offset % length;
            const size = Math.min(act.length, length - at);
            guest.memory.space.copyTo(gpa + at, new Uint8Array(size).fill(act.value));
            break;
          }
          case "send":
            stumble(() => nic.send(captured[50 + act.n * 3] as KernelFrame, [act.n * 5, 40]));
            break;
          case "deliver": {
            const batch = incoming[act.n];
            if (batch !== undefined && port.peer !== null) {
              expect(port.peer.receive(batch, 0, 3)).toBeLessThanOrEqual(3);
            }
            break;
          }
          case "poll":
            stumble(() => nic.poll(COUNT));
            break;
          case "reap":
            stumble(() => nic.reap());
            break;
          case "events":
            stumble(() => nic.takeEvents(COUNT));
            break;
          case "refill":
            stumble(() => nic.refill(3));
            break;
          case "flush":
            guest.call(VENET_FLUSHRX);
            break;
          case "relink":
            guest.call(VENET_LINKDOWN);
            expect(guest.call(VENET_LINKUP)).toBe(0);
            break;
          case "carrier":
            down = !down;
            machine.bus.write("devices/nic0/link", down ? "down" : "up");
            break;
          default:
            port.open(room);
            scheduler.advance(150);
        }
        scheduler.run();
        machine.assertBalanced();
      }
      const reports = machine.errors.splice(0);
      expect(reports.length).toBeLessThanOrEqual(4); // one for each ring
      for (const report of reports)
        expect(report).toMatchObject({ source: "devices/nic0", error: { code: "EPROTO" } });
      for (const guard of kept)
        expect(guest.host.bytes.subarray(guard, guard + 512).every((byte) => byte === 0x5a)).toBe(true);

      expect(guest.client.close(guest.handle)).toBe(0);
      machine.errors.length = 0;
      machine.bus.write("devices/nic0/link", "up");
      port.open(Infinity);
      port.sent.length = 0;
      const reformed = plug();
      reformed.send({ bytes: small }, [20]);
      scheduler.run();
      expect(port.sent).toEqual([small]);
      expect(port.peer?.receive(incoming[0] as never, 0, 1)).toBe(1);
      expect(reformed.poll()).toBe(1);
      expect(reformed.arrived[0]?.bytes).toEqual(small);
      reformed.takeEvents();
      expect(reformed.freed).toHaveLength(1);
      machine.assertBalanced();
      expect(machine.errors).toEqual([]);
    },
  );
});
