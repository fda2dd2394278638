/** A virtqueue, each of its sides by the engine or by the reference model: what random runs compare. */
import { DeviceVirtQueue, DriverVirtQueue, type VirtQueueFormat } from "vbus/engine";
import { openGuest } from "./guest.js";
import { PackedDevice, PackedDriver } from "./reference/virtqueue-packed.js";
import { SplitDevice, SplitDriver } from "./reference/virtqueue-split.js";
import {
  Memory,
  type Back,
  type Done,
  type Found,
  type Offer,
  type ReferenceDevice,
  type ReferenceDriver,
  type Setup,
} from "./reference/virtqueue.js";
import { VirtQueuePair } from "./virtqueue-pair.js";

/** What was negotiated. */
export interface Negotiated {
  format: VirtQueueFormat;
  size: number;
  eventIndex: boolean;
  inOrder: boolean;
  indirect: number;
}

/** Who stands on which side. */
export interface LaneKind {
  name: string;
  shared: boolean;
  driver: "engine" | "model";
  device: "engine" | "model";
}

/** The model first: the others are compared with it. */
export const LANE_KINDS: readonly LaneKind[] = [
  { name: "model", shared: false, driver: "model", device: "model" },
  { name: "engine, unshared", shared: false, driver: "engine", device: "engine" },
  { name: "engine, shared", shared: true, driver: "engine", device: "engine" },
  { name: "engine's driver, model's device", shared: true, driver: "engine", device: "model" },
  { name: "model's driver, engine's device", shared: false, driver: "model", device: "engine" },
];

/** The engine's driver as the model's. */
class EngineDriver implements ReferenceDriver {
  constructor(readonly pair: VirtQueuePair) {}

  free(): number {
    return this.pair.driver.free;
  }

  add(offers: readonly Offer[]): boolean {
    return this.pair.add(offers);
  }

  reap(max: number): Back[] {
    return this.pair.reap(max);
  }

  enable(): boolean {
    return this.pair.driver.enable();
  }

  enableDelayed(): boolean {
    return this.pair.driver.enableDelayed();
  }

  disable(): void {
    this.pair.driver.disable();
  }
}

/** The engine's device as the model's. */
class EngineDevice implements ReferenceDevice {
  #taken = 0;

  constructor(readonly pair: VirtQueuePair) {}

  get #device(): DeviceVirtQueue {
    return this.pair.device;
  }

  peek(max: number): Found[] {
    const seen = this.pair.peek(max);
    const { chains } = this.pair;
    this.#taken = 0;
    return seen.map((pieces, i) => ({ ...pieces, id: chains.id(i), slots: chains.slots(i) }));
  }

  advance(n: number): void {
    this.#device.advance(n);
    this.#taken += n;
  }

  /** Bursts that are the last peek's by the table, others one by one, as devices that finish in any order do. */
  complete(done: readonly Done[]): boolean {
    const { chains } = this.pair;
    const first = done.length <= this.#taken && done.every(({ id }, i) => chains.id(i) === id);
    if (!first) {
      return done.map(({ id, slots, used }) => this.#device.completeOne(id, slots, used)).includes(true);
    }
    for (const [i, { used }] of done.entries()) chains.setUsed(i, used);
    return this.#device.complete(chains, 0, done.length);
  }

  enable(pastPeeked: boolean): boolean {
    return this.#device.enable(pastPeeked);
  }

  disable(): void {
    this.#device.disable();
  }
}

/** One lane: a queue in a memory of its own. */
export class Lane {
  readonly driver: ReferenceDriver;
  readonly device: ReferenceDevice;
  /** Guest-physical address of the first buffer; the same in every lane. */
  readonly buffers: number;
  readonly #pair: VirtQueuePair;

  constructor(
    readonly kind: LaneKind,
    negotiated: Negotiated,
  ) {
    const guest = openGuest({ shared: kind.shared, size: 1 << 17, arenaSize: 1 << 17 });
    const pair = new VirtQueuePair({ ...negotiated, shared: kind.shared }, guest);
    this.#pair = pair;
    this.buffers = pair.buffers;
    const { descriptors, driver, device, tables } = pair.options;
    const setup: Setup = {
      size: negotiated.size,
      descriptors,
      driver,
      device,
      eventIndex: negotiated.eventIndex,
      inOrder: negotiated.inOrder,
      pieces: negotiated.indirect,
      tables: tables?.gpa ?? 0,
    };
    const region = guest.north.regions[0] as { gpa: number; address: number; length: number };
    const memory = new Memory(guest.init.memory.buffer, region.address, region.length, region.gpa);
    const split = negotiated.format === "split";
    const referenceDriver = split ? new SplitDriver(memory, setup) : new PackedDriver(memory, setup);
    const referenceDevice = split ? new SplitDevice(memory, setup) : new PackedDevice(memory, setup);
    this.driver = kind.driver === "model" ? referenceDriver : new EngineDriver(pair);
    this.device = kind.device === "model" ? referenceDevice : new EngineDevice(pair);
  }

  /** All of the queue's areas, indirect tables included. */
  bytes(): Uint8Array {
    const { guest } = this.#pair;
    return guest.ram.slice(0, this.buffers - guest.gpa);
  }

  /** Why a side of the engine broke, or null. */
  broken(): string | null {
    return this.#pair.driver.broken ?? this.#pair.device.broken;
  }

  /** Replaces the engine's sides that are in use by ones that import their state. */
  relocate(): void {
    const { guest, device, driver } = this.#pair;
    if (this.kind.driver === "engine") {
      const state = driver.exportState();
      driver.close();
      Object.assign(this.#pair, { driver: DriverVirtQueue.importState(guest.north, state) });
    }
    if (this.kind.device === "engine") {
      const state = device.exportState();
      device.close();
      Object.assign(this.#pair, { device: DeviceVirtQueue.importState(guest.south, state) });
    }
  }
}
