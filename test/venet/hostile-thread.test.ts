import { VENET_LINKUP } from "vbus/abi";
import { OFFLOAD_ALL } from "vbus/net";
import { VirtualScheduler } from "vbus/scheduler";
import { describe, expect, it } from "vitest";
import { HostileThread } from "../engine/hostile-thread.js";
import { seedOr } from "../engine/seed.js";
import { superframes } from "../offload/captures.js";
import { TestMachine } from "./machine.js";
import { EVERYTHING, ModernNic, type KernelFrame } from "./modern-nic.js";
import { TestPort } from "./port.js";
import { RawGuest } from "./raw-guest.js";

const captured = superframes();
const SENDS = 4000;
const SEED = seedOr(0x5eed);

describe(`a guest whose other thread rewrites its scatter-gather descriptors while the host reads them (seed ${SEED})`, () => {
  it.each([
    ["that are cut", 0, false],
    ["that pass", OFFLOAD_ALL, false],
    ["that are cut, 12-byte pieces", 0, true],
  ])(
    "gets every descriptor of frames %s back, every frame is accounted for, and the host notices nothing",
    async (_what, offloads, ilp32) => {
      const scheduler = new VirtualScheduler();
      const port = new TestPort();
      port.offloads = offloads;
      const machine = new TestMachine(() => port, scheduler);
      machine.addNic("nic0");
      const guest = new RawGuest(machine, "guest", { size: 4 << 20, shared: true });
      guest.open();
      const nic = new ModernNic(guest, { sg: EVERYTHING, uso: EVERYTHING, count: 16, ilp32 });
      expect(guest.call(VENET_LINKUP)).toBe(0);
      const guards = Array.from({ length: 4 }, () => guest.host.allocate(512, 64));
      for (const guard of guards) guest.host.bytes.fill(0x5a, guard, guard + 512);

      const [region] = guest.memory.space.regions;
      if (region === undefined) throw new Error("a guest without memory");
      const thread = new HostileThread({
        memory: guest.memory.space.engine.memory,
        address: region.address + nic.txPool - region.gpa,
        length: nic.count * nic.slotSize,
        stride: 36, // hits every member of a slot, one time or another
        header: 0,
        seed: SEED + offloads + Number(ilp32),
      });
      let longest = 0;
      let runs = 0;
      let sends = 0;
      const send = (): void => {
        nic.send(captured[sends++ % captured.length] as KernelFrame, [20, 60]);
      };
      const run = (): void => {
        scheduler.run();
        nic.reap();
        for (const sent of port.sent.splice(0)) longest = Math.max(longest, sent.length);
        port.needs.length = 0;
      };
      try {
        await thread.started();
        while (sends < SENDS) {
          send();
          if (nic.room && sends % 3 !== 0) continue;
          // now and then it surely writes between the guest and the host; else when it happens to
          if (runs++ % 16 === 0) thread.letWrite(8);
          run();
        }
        expect(await thread.stop()).toBeGreaterThan(0);
        run();
        const hurt = machine.statistics("nic0").tx;
        expect(hurt.frames).toBe(SENDS);
        expect(Object.keys(hurt.drops).length).toBeGreaterThan(0);
        for (let n = 0; n < 10; n++) send(); // nobody disturbs these
        run();
        const { tx } = machine.assertBalanced()["nic0"] ?? {};
        expect(tx?.frames).toBe(sends);
        expect(tx?.passed).toBeGreaterThanOrEqual(hurt.passed + 10);
        expect(tx?.drops).toEqual(hurt.drops);
        expect(tx?.held).toBe(0);
        expect(nic.freed).toHaveLength(sends);
        expect(longest).toBeLessThanOrEqual(offloads === 0 ? 1522 : 65536);
        expect(machine.errors).toEqual([]);
        for (const guard of guards)
          expect(guest.host.bytes.subarray(guard, guard + 512).every((byte) => byte === 0x5a)).toBe(true);
      } finally {
        await thread.terminate();
      }
    },
  );
});
