/** Debian's unmodified virtio drivers on functions of this package: entropy, in every kind of ring and interrupt. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { virtioEntropy, type VirtioEntropy } from "vbus/devices/virtio-rng";
import { attachVbus, attachVirtio, type V86Host, type V86VirtioHost } from "vbus/emulators/v86";
import { EventLoopScheduler } from "vbus/scheduler";
import type { VirtioRingOptions } from "vbus/virtio";
import { Machine } from "../../examples/linux/machine.js";
import { readPieces } from "../../examples/linux/pieces.js";
import { tell } from "./fixture.js";
import { abandonFunction, adoptFunction, interruptsOf } from "../../examples/linux/virtio-function.js";
import { Sequence } from "./sequence.js";

interface Function {
  name: string;
  slot: number;
  rings: VirtioRingOptions;
  vectors?: number;
  /** What the guest calls its interrupts. */
  interrupts: RegExp;
}

const WITH_ACPI: Function[] = [
  { name: "packed rings, MSI-X", slot: 0x11, rings: {}, interrupts: /^PCI-MSI/ },
  { name: "split rings, MSI-X", slot: 0x13, rings: { packed: false }, interrupts: /^PCI-MSI/ },
  {
    name: "split rings without event index or indirect tables, too few vectors",
    slot: 0x14,
    rings: { packed: false, eventIndex: false, indirect: false },
    vectors: 1,
    interrupts: /IO-APIC/,
  },
  { name: "packed rings, INTx", slot: 0x15, rings: {}, vectors: 0, interrupts: /IO-APIC/ },
];
const WITHOUT_ACPI: Function[] = [
  { name: "packed rings", slot: 0x11, rings: {}, interrupts: /XT-PIC/ },
  { name: "split rings, on the same line", slot: 0x15, rings: { packed: false }, interrupts: /XT-PIC/ },
];

describe.each([
  { what: "a local APIC", acpi: true, functions: WITH_ACPI },
  { what: "no local APIC", acpi: false, functions: WITHOUT_ACPI },
])("in a machine with $what, Debian's virtio_rng gets entropy", ({ acpi, functions }) => {
  let machine: Machine | undefined;
  let bridge: V86Host | undefined;
  const hosts = new Map<number, V86VirtioHost>();
  const devices = new Map<number, { device: VirtioEntropy; sequence: Sequence }>();
  const errors: unknown[] = [];

  beforeAll(async () => {
    const scheduler = new EventLoopScheduler((error) => errors.push(error));
    machine = await Machine.start({
      pieces: readPieces(),
      progress: tell,
      acpi,
      preparedAs: JSON.stringify(["vbus-pci bridge in slot 0x10, entropy", functions]),
      prepare: async (emulator) => {
        // all at once: a saved state is applied as soon as the first of them is there
        const attaching = attachVbus(emulator, { scheduler, devices: [] });
        const all = functions.map(async ({ slot, rings, vectors, name }) => {
          const sequence = new Sequence(slot);
          const device = virtioEntropy({ name, source: sequence.fill });
          devices.set(slot, { device, sequence });
          const host = await attachVirtio(emulator, {
            device,
            slot,
            rings,
            onError: (error) => errors.push(error),
            ...(vectors === undefined ? {} : { vectors }),
          });
          hosts.set(slot, host);
        });
        bridge = await attaching;
        await Promise.all(all);
      },
    });
    await machine.check("insmod /lib/modules/virtio-rng.ko");
  });

  afterAll(async () => {
    for (const host of hosts.values()) host.close();
    bridge?.close();
    await machine?.close();
    expect(errors).toEqual([]);
  });

  it.each(functions)("by $name: byte for byte, with the interrupts that were offered", async (place) => {
    const { slot, interrupts } = place;
    const { device, sequence } = devices.get(slot)!;
    const host = hosts.get(slot)!;
    const guest = machine!;
    const name = await adoptFunction(guest, slot);
    const current = "/sys/class/misc/hw_random/rng_current";
    await guest.check(`echo virtio_rng.0 >${current}; grep -q virtio_rng ${current}`);
    const got = await guest.check("head -c 512 /dev/hwrng | hexdump -v -e '/1 \"%02x\"'");
    const bytes = Buffer.from(got.trim(), "hex");
    expect(bytes).toHaveLength(512);
    expect(sequence.gave(bytes)).toBe(true);
    expect(device.counters().requests).toBeGreaterThan(0);
    const lines = await interruptsOf(guest, name);
    expect(lines.map(({ how }) => how).join()).toMatch(interrupts);
    expect(lines.reduce((sum, { count }) => sum + count, 0)).toBeGreaterThan(0);
    const counters = host.counters();
    expect(counters).toMatchObject({ starts: 1, needsReset: 0, badQueues: 0, strayKicks: 0, impossible: 0 });
    expect(counters.kicks).toBeGreaterThan(0);
    await abandonFunction(guest, slot);
    expect(host.function.device.status).toBe(0);
  });
});
