/** Disks for tests with a Linux guest: plugged in and taken away while it runs, with back ends that do what a test wants. */
import { MemoryBackend, type BlockBackend } from "vbus/devices/vblk";
import { disk } from "../../examples/linux/disks.js";
import type { Lab } from "../../examples/linux/lab.js";
import type { Machine } from "../../examples/linux/machine.js";
import { generator } from "../engine/seed.js";
import { until } from "./fixture.js";

/** What the device counted. */
export interface DiskCounts {
  requests: number;
  completed: number;
  failed: number;
  cancelled: number;
  outstanding: number;
  violations: number;
  events: number;
  errors: Record<string, number>;
  operations: Record<"read" | "write" | "flush" | "discard" | "writeZeroes" | "getId", number>;
}

/** Plugs a disk in, and waits until the guest has it. Returns its name there, such as `vblk0`. */
export async function plug(
  lab: Lab,
  name: string,
  backend: BlockBackend,
  attributes: Readonly<Record<string, string>> = {},
): Promise<string> {
  const { vbus, bus } = lab.host!;
  const device = disk(name, backend);
  vbus!.registerClass(device.class);
  bus.connect(vbus!.createDevice(name, device.class.name, attributes));
  return nodeOf(lab.machine, name);
}

/** Waits for the disk with a serial number: until somebody writes another one it is the device's name. */
export async function nodeOf(machine: Machine, serial: string): Promise<string> {
  let node = "";
  await until(`the disk ${serial}`, async () => {
    const { output } = await machine.run(`grep -lx ${serial} /sys/block/vblk*/serial`);
    node = /vblk\d+/.exec(output)?.[0] ?? "";
    return node !== "" && (await machine.run(`[ -b /dev/${node} ]`)).status === 0;
  });
  return node;
}

/** Takes a disk away for good, its class too, and waits until the guest knows. */
export async function unplug(lab: Lab, name: string, node: string): Promise<void> {
  lab.host!.vbus!.removeDevice(name);
  await until(`${node} to go`, async () => (await lab.machine.run(`[ -e /sys/block/${node} ]`)).status !== 0);
}

/** Counters of a disk. */
export function countsOf(lab: Lab, name: string): DiskCounts {
  return JSON.parse(lab.host!.vbus!.read(`devices/${name}/statistics`)) as DiskCounts;
}

/** A disk in memory whose operations end in an order of its own, and are counted. */
export class ShuffledBackend extends MemoryBackend {
  /** Most that were under way at a time. */
  peak = 0;
  /** Flushes, those that a FUA causes too. */
  flushes = 0;
  #running = 0;
  readonly #random: () => number;

  constructor(content: number | Uint8Array, seed: number) {
    super(content);
    this.#random = generator(seed);
  }

  async #later(): Promise<void> {
    this.peak = Math.max(this.peak, ++this.#running);
    for (let turns = this.#random() % 8; turns > 0; turns--) await new Promise(setImmediate);
    this.#running--;
  }

  override async read(offset: number, target: Uint8Array<ArrayBuffer>): Promise<void> {
    await this.#later();
    await super.read(offset, target);
  }

  override async write(offset: number, data: Uint8Array<ArrayBuffer>): Promise<void> {
    await this.#later();
    await super.write(offset, data);
  }

  override async flush(): Promise<void> {
    this.flushes++;
    await this.#later();
    await super.flush();
  }
}

/** A disk with a cache that a loss of power empties: what was written since the last flush may be there or not, by sectors. */
export class VolatileBackend implements BlockBackend {
  readonly description = "memory with a volatile cache";
  readonly readOnly = false;
  /** Operations so far. */
  operations = 0;
  /** Called after each operation. */
  onOperation: () => void = () => {};
  readonly #current: MemoryBackend;
  readonly #durable: Uint8Array;
  #cached: { offset: number; data: Uint8Array }[] = [];

  constructor(content: Uint8Array) {
    this.#current = new MemoryBackend(content);
    this.#durable = Uint8Array.from(content);
  }

  get size(): number {
    return this.#durable.length;
  }

  async read(offset: number, target: Uint8Array<ArrayBuffer>): Promise<void> {
    await this.#current.read(offset, target);
  }

  async write(offset: number, data: Uint8Array<ArrayBuffer>): Promise<void> {
    await this.#current.write(offset, data);
    this.#cached.push({ offset, data: Uint8Array.from(data) });
    this.#done();
  }

  async writeZeroes(offset: number, length: number): Promise<void> {
    await this.write(offset, new Uint8Array(length));
  }

  async flush(): Promise<void> {
    for (const { offset, data } of this.#cached) this.#durable.set(data, offset);
    this.#cached = [];
    this.#done();
  }

  async close(): Promise<void> {
    await this.#current.close();
  }

  #done(): void {
    this.operations++;
    this.onOperation();
  }

  /** What would be left if the power failed now. */
  afterPowerLoss(random: () => number): Uint8Array {
    const left = Uint8Array.from(this.#durable);
    for (const { offset, data } of this.#cached)
      for (let at = 0; at < data.length; at += 512)
        if (random() & 1) left.set(data.subarray(at, at + 512), offset + at);
    return left;
  }

  /** Writes that are in the cache. */
  get cached(): number {
    return this.#cached.length;
  }
}
