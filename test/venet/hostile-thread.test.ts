import { Worker } from "node:worker_threads";
import { VENET_LINKUP } from "vbus/abi";
import { OFFLOAD_ALL } from "vbus/net";
import { VirtualScheduler } from "vbus/scheduler";
import { describe, expect, it } from "vitest";
import { superframes } from "../offload/captures.js";
import type { HostileWork } from "../workers/hostile.js";
import { TestMachine } from "./machine.js";
import { EVERYTHING, ModernNic, type KernelFrame } from "./modern-nic.js";
import { TestPort } from "./port.js";
import { RawGuest } from "./raw-guest.js";

const captured = superframes();
const SENDS = 4000;

describe("a guest whose other thread rewrites its scatter-gather descriptors while the host reads them", () => {
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
      const control = new SharedArrayBuffer(4);
      const work: HostileWork = {
        memory: guest.memory.space.engine.memory,
        address: region.address + nic.txPool - region.gpa,
        length: nic.count * nic.slotSize,
        stride: 36, // hits every member of a slot, one time or another
        header: 0,
        seed: 0x5eed + offloads + Number(ilp32),
        control,
      };
      const thread = new Worker(new URL("../../.build/test/workers/hostile.js", import.meta.url), {
        workerData: work,
      });
      try {
        const over = new Promise<number>((resolve, reject) => {
          thread.once("message", resolve);
          thread.once("error", reject);
        });
        const running = new Int32Array(control);
        for (let n = 0; Atomics.load(running, 0) !== 1; n++) {
          expect(n).toBeLessThan(10_000);
          await new Promise((resolve) => setTimeout(resolve, 1));
        }
        let longest = 0;
        // on a busy machine the threads seldom run at once: go on until they did, at most ten seconds
        const start = Date.now();
        const hit = (): boolean => Object.keys(machine.statistics("nic0").tx.drops).length > 0;
        let sends = 0;
        for (; sends < SENDS || sends % 1000 !== 0 || (!hit() && Date.now() - start < 10_000); sends++) {
          const n = sends;
          nic.send(captured[n % captured.length] as KernelFrame, [20, 60]);
          if (nic.room && n % 3 !== 0) continue;
          scheduler.run();
          nic.reap();
          for (const sent of port.sent.splice(0)) longest = Math.max(longest, sent.length);
          port.needs.length = 0;
        }
        Atomics.store(running, 0, 2);
        expect(await over).toBeGreaterThan(0);
        scheduler.run();
        nic.reap();
        const { tx } = machine.assertBalanced()["nic0"] ?? {};
        expect(tx?.frames).toBe(sends);
        expect(tx?.passed).toBeGreaterThan(0);
        expect(Object.keys(tx?.drops ?? {}).length).toBeGreaterThan(0);
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
