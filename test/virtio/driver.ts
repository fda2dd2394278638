import { ChainTable, DriverVirtQueue, type BurstTable } from "vbus/engine";
import type { GuestMemory } from "vbus/memory";
import type { Door } from "./doors.js";

/** Status bits (virtio 1.2: 2.1). */
export const ACKNOWLEDGE = 1;
export const DRIVER = 2;
export const DRIVER_OK = 4;
export const FEATURES_OK = 8;
export const NEEDS_RESET = 0x40;
export const FAILED = 0x80;

/** Feature bits (6). */
export const INDIRECT_DESC = 1n << 28n;
export const EVENT_IDX = 1n << 29n;
export const VERSION_1 = 1n << 32n;
export const RING_PACKED = 1n << 34n;
export const IN_ORDER = 1n << 35n;
export const NOTIFICATION_DATA = 1n << 38n;
export const RING_RESET = 1n << 40n;

/** A queue as its driver holds it. */
export interface DriverQueue {
  index: number;
  ring: DriverVirtQueue;
  chains: ChainTable;
  table: BurstTable;
  /** Buffers: one for each descriptor. */
  buffers: number;
  bufferSize: number;
  /** All memory of it. */
  memory: number[];
}

/** A virtio driver written by hand, over the registers of any transport. Runs the host by {@link RegisterDriver.settle}. */
export class RegisterDriver {
  readonly queues = new Map<number, DriverQueue>();
  /** What was chosen. */
  features = 0n;

  constructor(
    readonly door: Door,
    readonly guest: GuestMemory,
    /** Number of queues to bring up. */
    readonly queueCount: number,
    /** Lets the host do what it has to do. */
    readonly settle: () => void,
  ) {}

  /** All bits that are offered. */
  get offered(): bigint {
    let all = 0n;
    for (let word = 0; word < 4; word++) all |= BigInt(this.door.offered(word)) << BigInt(32 * word);
    return all;
  }

  choose(features: bigint): void {
    this.features = features;
    for (let word = 0; word < 4; word++)
      this.door.choose(word, Number((features >> BigInt(32 * word)) & 0xffffffffn));
  }

  /** Steps 1 to 6 of a driver (3.1.1). False when FEATURES_OK did not stick. */
  negotiate(features = this.offered): boolean {
    this.door.writeStatus(0);
    this.forgetQueues();
    this.door.writeStatus(ACKNOWLEDGE);
    this.door.writeStatus(ACKNOWLEDGE | DRIVER);
    this.choose(features);
    this.door.writeStatus(ACKNOWLEDGE | DRIVER | FEATURES_OK);
    return (this.door.status() & FEATURES_OK) !== 0;
  }

  /** Sets a queue up. */
  makeQueue(index: number, size = this.door.queueMax(index), bufferSize = 64): DriverQueue {
    const has = (bit: bigint): boolean => (this.features & bit) !== 0n;
    const format = has(RING_PACKED) ? "packed" : "split";
    const areas = DriverVirtQueue.areaSizes(format, size);
    const { ram, space } = this.guest;
    const place = ({ size: bytes, align }: { size: number; align: number }): number =>
      ram.allocate(bytes, align);
    const options = {
      format,
      size,
      descriptors: place(areas.descriptors),
      driver: place(areas.driver),
      device: place(areas.device),
      eventIndex: has(EVENT_IDX),
      indirect: has(INDIRECT_DESC),
      inOrder: has(IN_ORDER),
    } as const;
    const ring = DriverVirtQueue.create(space, options);
    this.door.setSize(index, size);
    this.door.setArea(index, "descriptors", options.descriptors, 0);
    this.door.setArea(index, "driver", options.driver, 0);
    this.door.setArea(index, "device", options.device, 0);
    this.door.enable(index);
    const chains = ChainTable.allocate(space, size, 4);
    const buffers = ram.allocate(size * bufferSize, 64);
    const { descriptors, driver, device } = options;
    const memory = [descriptors, driver, device, buffers];
    const queue = { index, ring, chains, table: chains.table, buffers, bufferSize, memory };
    this.queues.set(index, queue);
    ring.enable();
    return queue;
  }

  /** The device was reset: closes the driver's ends, and gives the guest's memory back to it. */
  forgetQueues(): void {
    for (const { ring, chains, memory } of this.queues.values()) {
      ring.close();
      chains.close();
      for (const gpa of memory) this.guest.ram.free(gpa);
    }
    this.queues.clear();
  }

  /** Step 8. */
  driverOk(): void {
    this.door.writeStatus(this.door.status() | DRIVER_OK);
  }

  /** A driver from reset to DRIVER_OK, with all queues. */
  bringUp(features = this.offered): void {
    if (!this.negotiate(features)) throw new Error("FEATURES_OK did not stick");
    for (let index = 0; index < this.queueCount; index++) this.makeQueue(index);
    this.driverOk();
    if (this.door.status() !== (ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK))
      throw new Error(`status 0x${this.door.status().toString(16)}`);
  }

  /** Offers the device n buffers to write to, with cookies from `first` on; kicks when the ring says so, or always. */
  offer(queue: DriverQueue, n: number, first = 0, kick: "needed" | "always" | "never" = "needed"): void {
    for (let i = 0; i < n; i++) {
      queue.chains.setChain(i, [], [{ gpa: queue.buffers + i * queue.bufferSize, length: queue.bufferSize }]);
      queue.table.setCookie(i, first + i);
    }
    const wanted = queue.ring.add(queue.chains, n);
    if (kick === "always" || (kick === "needed" && wanted)) this.door.kick(queue.index);
  }

  /** What the device has used: cookies and lengths. */
  reap(queue: DriverQueue): { cookie: number; length: number }[] {
    const used = [];
    for (let n; (n = queue.ring.reap(queue.table, 16)) > 0;)
      for (let i = 0; i < n; i++) used.push({ cookie: queue.table.cookie(i), length: queue.table.length(i) });
    return used;
  }

  /** One round trip of every queue, to see that all works. */
  exercise(n = 5): void {
    for (const queue of this.queues.values()) {
      this.offer(queue, n);
      this.settle();
      const used = this.reap(queue);
      if (used.length !== n || used.some(({ length }) => length !== queue.bufferSize))
        throw new Error(`queue ${queue.index} answered ${JSON.stringify(used)}`);
      queue.ring.enable();
    }
  }
}
