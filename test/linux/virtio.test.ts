/** Debian's unmodified virtio drivers on functions of this package: entropy, in every kind of ring and interrupt. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { virtioEntropy, type VirtioEntropy } from "vbus/devices/virtio-rng";
import { attachVbus, attachVirtio, type V86Host, type V86VirtioHost } from "vbus/emulators/v86";
import { EventLoopScheduler } from "vbus/scheduler";
import type { VirtioRingOptions } from "vbus/virtio";
import { Machine } from "../../examples/linux/machine.js";
import { readPieces } from "../../examples/linux/pieces.js";
import { generator } from "../engine/seed.js";
import { tell } from "./fixture.js";
import { abandonFunction, adoptFunction, interruptsOf } from "../../examples/linux/virtio-function.js";

interface Function {
  name: string;
  slot: number;
  rings: VirtioRingOptions;
  vectors?: number;
  /** What the guest calls its interrupts. */
  interrupts: RegExp;
}

const FUNCTIONS: Function[] = [
  { name: "packed rings, MSI-X", slot: 0x11, rings: {}, interrupts: /^PCI-MSI/ },
  { name: "split rings, MSI-X", slot: 0x13, rings: { packed: false }, interrupts: /^PCI-MSI/ },
  {
    name: "split rings without event index or indirect tables, MSI-X with one vector",
    slot: 0x14,
    rings: { packed: false, eventIndex: false, indirect: false },
    vectors: 1,
    interrupts: /IO-APIC/,
  },
  { name: "packed rings, INTx", slot: 0x15, rings: {}, vectors: 0, interrupts: /IO-APIC/ },
];

/** Random numbers that can be recognised: a long sequence, and how much of it was given away. */
class Sequence {
  readonly bytes: number[] = [];
  readonly #next: () => number;
  constructor(seed: number) {
    this.#next = generator(seed);
  }
  readonly fill = (into: Uint8Array): void => {
    for (let i = 0; i < into.length; i++) this.bytes.push((into[i] = this.#next() & 0xff));
  };
  hex(): string {
    return Buffer.from(this.bytes).toString("hex");
  }
}

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
    preparedAs: "vbus-pci bridge in slot 0x10; entropy in 0x11, 0x13, 0x14, 0x15 with 2, 2, 1, 0 vectors",
    prepare: async (emulator) => {
      // all at once: a saved state is applied as soon as the first of them is there
      const attaching = attachVbus(emulator, { scheduler, devices: [] });
      const functions = FUNCTIONS.map(async ({ slot, rings, vectors, name }) => {
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
      await Promise.all(functions);
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

describe.each(FUNCTIONS)("entropy for Debian's virtio_rng by $name", ({ slot, interrupts }) => {
  it("reaches /dev/hwrng byte for byte, in interrupts of the kind that was offered", async () => {
    const { device, sequence } = devices.get(slot)!;
    const host = hosts.get(slot)!;
    const guest = machine!;
    const name = await adoptFunction(guest, slot);
    await guest.check(
      `echo virtio_rng.0 >/sys/class/misc/hw_random/rng_current; grep -q virtio_rng /sys/class/misc/hw_random/rng_current`,
    );
    const got = await guest.check("head -c 512 /dev/hwrng | hexdump -v -e '/1 \"%02x\"'");
    expect(got.trim()).toHaveLength(1024);
    expect(sequence.hex()).toContain(got.trim());
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
