/** Debian's unmodified virtio_mmio and virtio_rng on memory-mapped registers of this package. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { virtioEntropy, type VirtioEntropy } from "vbus/devices/virtio-rng";
import { attachVirtioMmio, type V86VirtioMmioHost } from "vbus/emulators/v86";
import { EventLoopScheduler } from "vbus/scheduler";
import type { VirtioRingOptions } from "vbus/virtio";
import { Machine } from "../../examples/linux/machine.js";
import { readPieces } from "../../examples/linux/pieces.js";
import { virtioMmioTables } from "./acpi-table.js";
import { tell } from "./fixture.js";
import { Sequence } from "./sequence.js";

const DEVICES: { name: string; memoryAddress: number; irq: number; rings: VirtioRingOptions }[] = [
  { name: "packed rings", memoryAddress: 0xfea40000, irq: 5, rings: {} },
  { name: "split rings", memoryAddress: 0xfea41000, irq: 7, rings: { packed: false } },
];

let machine: Machine | undefined;
const hosts: V86VirtioMmioHost[] = [];
const devices: VirtioEntropy[] = [];
const sequences = DEVICES.map((_, i) => new Sequence(i + 1));
const errors: unknown[] = [];

beforeAll(async () => {
  const scheduler = new EventLoopScheduler((error) => errors.push(error));
  machine = await Machine.start({
    pieces: readPieces(),
    progress: tell,
    earlyArchive: virtioMmioTables(DEVICES),
    prepare: async (emulator) => {
      const attaching = DEVICES.map((place, i) => {
        const device = virtioEntropy({ name: place.name, source: sequences[i]!.fill });
        devices.push(device);
        const onError = (error: unknown): number => errors.push(error);
        return attachVirtioMmio(emulator, { ...place, device, scheduler, onError });
      });
      hosts.push(...(await Promise.all(attaching)));
    },
  });
  await machine.check("insmod /lib/modules/virtio_mmio.ko && insmod /lib/modules/virtio-rng.ko");
});

afterAll(async () => {
  for (const host of hosts) host.close();
  await machine?.close();
  expect(errors).toEqual([]);
});

describe.each(DEVICES.map((device, index) => ({ ...device, index })))(
  "entropy for Debian's virtio_mmio by $name",
  ({ index, irq }) => {
    it("reaches /dev/hwrng byte for byte, though its registers cannot be answered with interrupts at once", async () => {
      const guest = machine!;
      await guest.check(`echo virtio_rng.${index} >/sys/class/misc/hw_random/rng_current`);
      const got = await guest.check("head -c 512 /dev/hwrng | hexdump -v -e '/1 \"%02x\"'");
      const bytes = Buffer.from(got.trim(), "hex");
      expect(bytes).toHaveLength(512);
      expect(sequences[index]!.gave(bytes)).toBe(true);
      const interrupts = await guest.check("cat /proc/interrupts");
      const line = interrupts.split("\n").find((text) => new RegExp(`^\\s*${irq}:.*virtio`).test(text));
      expect(Number(/:\s+(\d+)/.exec(line ?? "")?.[1]), interrupts).toBeGreaterThan(0);
      const counters = hosts[index]!.counters();
      expect(counters).toMatchObject({ starts: 1, needsReset: 0, badQueues: 0, strayKicks: 0 });
      expect(counters.postponed).toBe(counters.kicks);
      expect(devices[index]!.counters().requests).toBeGreaterThan(0);
    });
  },
);
