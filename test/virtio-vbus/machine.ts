/** A host with one virtio device on a bus, and a guest that writes every byte of the wire by hand. One thread, virtual time. */
import { Vbus, type Bus, type BusEvent, type Client } from "vbus/bus";
import { virtioClass } from "vbus/devices/virtio-vbus";
import { BurstTable, CHAIN_WRITABLE, DriverVirtQueue, Signal } from "vbus/engine";
import { allocateGuestMemory, GuestMemory, openHostView, type MemorySpace } from "vbus/memory";
import { VirtualScheduler } from "vbus/scheduler";
import type { VirtioFace, VirtioRingOptions } from "vbus/virtio";

/** Calls, from docs/abi/virtio-vbus.md section 3. */
export const QUERY = 0;
export const GET_FEATURES = 1;
export const SET_FEATURES = 2;
export const GET_STATUS = 3;
export const SET_STATUS = 4;
export const READ_CONFIG = 5;
export const WRITE_CONFIG = 6;
export const GET_QUEUE = 7;
export const ENABLE_QUEUE = 8;
export const RESET_QUEUE = 9;
/** Segment of the configuration. */
export const CONFIG = 0x10000;

/** Status bits (virtio 1.2: 2.1). */
export const ACKNOWLEDGE = 1;
export const DRIVER = 2;
export const DRIVER_OK = 4;
export const FEATURES_OK = 8;
export const NEEDS_RESET = 0x40;
export const FAILED = 0x80;

/** Feature bits (6). */
export const VERSION_1 = 1n << 32n;
export const EVENT_IDX = 1n << 29n;
export const RING_PACKED = 1n << 34n;
export const RING_RESET = 1n << 40n;

/** Errors. */
export const ENOENT = 2;
export const ENXIO = 6;
export const EFAULT = 14;
export const EBUSY = 16;
export const EEXIST = 17;
export const EINVAL = 22;
export const EOPNOTSUPP = 95;

/** Where a signal of a test lies. */
export interface SharedSignal {
  id: number;
  gpa: number;
  /** Handle to ring. */
  handle: number;
  north: Signal;
}

/** A queue as its driver holds it: one buffer for each descriptor. */
export interface HandQueue {
  ring: DriverVirtQueue;
  areas: { descriptors: number; driver: number; device: number };
  table: BurstTable;
  buffers: number;
}

const BUFFER = 64;

export class WireMachine {
  readonly scheduler = new VirtualScheduler();
  readonly vbus = new Vbus({ scheduler: this.scheduler });
  readonly bus: Bus;
  readonly errors: unknown[] = [];
  /** Handle of the session. */
  handle = 0;
  readonly signals = new Map<number, SharedSignal>();
  /** Bytes of the host's arena that were free before the device was opened. */
  readonly free: number;
  readonly client: Client;

  private constructor(
    face: VirtioFace,
    rings: VirtioRingOptions,
    readonly guest: GuestMemory,
    readonly host: MemorySpace,
  ) {
    this.vbus.on("error", (event) => this.errors.push(event));
    this.vbus.registerClass(virtioClass({ name: "virtio-test", create: () => ({ face }), rings }));
    this.bus = this.vbus.createBus("bus0");
    this.bus.connect(this.vbus.createDevice("device0", "virtio-test"));
    this.bus.admit("guest");
    this.client = this.bus.openClient({ member: "guest", memory: host });
    this.client.listen();
    this.free = host.arena.available;
  }

  static async create(face: VirtioFace, rings: VirtioRingOptions = {}): Promise<WireMachine> {
    const init = allocateGuestMemory({ size: 1 << 20, arenaSize: 1 << 19 });
    return new WireMachine(face, rings, await GuestMemory.open(init), await openHostView(init));
  }

  /** Opens the device. The result, for what is refused. */
  open(version = 1): number {
    const result = this.client.open(0, version);
    if (result > 0) this.handle = result;
    return result;
  }

  close(): void {
    this.client.close(this.handle);
    for (const { north, gpa } of this.signals.values()) {
      north.close();
      this.guest.ram.free(gpa);
    }
    this.signals.clear();
  }

  /** Calls with these bytes; they become what the device answers. */
  call(func: number, data: Uint8Array = new Uint8Array(0)): number {
    if (data.length === 0) return this.client.call(this.handle, func, 0xdead_beef, 0, 0);
    const gpa = this.guest.ram.allocate(data.length, 8);
    this.guest.space.copyTo(gpa, data);
    const result = this.client.call(this.handle, func, gpa, data.length, 0);
    data.set(this.guest.space.copyFrom(gpa, data.length));
    this.guest.ram.free(gpa);
    return result;
  }

  status(): number {
    return this.call(GET_STATUS);
  }

  /** Result of SET_STATUS. */
  setStatus(status: number): number {
    return this.call(SET_STATUS, words(status));
  }

  offered(): bigint {
    const block = new Uint8Array(16);
    this.call(GET_FEATURES, block);
    return new DataView(block.buffer).getBigUint64(0, true);
  }

  setFeatures(features: bigint): number {
    const block = new Uint8Array(8);
    new DataView(block.buffer).setBigUint64(0, features, true);
    return this.call(SET_FEATURES, block);
  }

  /** Steps 1 to 6 of a driver. Status afterwards. */
  negotiate(features = this.offered()): number {
    this.setStatus(0);
    this.setStatus(ACKNOWLEDGE);
    this.setStatus(ACKNOWLEDGE | DRIVER);
    this.setFeatures(features);
    return this.setStatus(ACKNOWLEDGE | DRIVER | FEATURES_OK);
  }

  run(): number {
    return this.setStatus(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
  }

  /** Shares a signal in a segment of its own, or says why not. */
  share(id: number): number {
    const gpa = this.guest.ram.allocate(16, 64);
    const north = Signal.create(this.guest.space, gpa);
    const result = this.client.shm(this.handle, id, gpa, 16, { offset: 0, prio: 0, cookie: id }, 0);
    if (result < 0) {
      north.close();
      this.guest.ram.free(gpa);
      return result;
    }
    north.enable();
    this.signals.set(id, { id, gpa, handle: result, north });
    return result;
  }

  /** Makes a queue in the guest's memory. */
  makeQueue(size: number, features: bigint): HandQueue {
    const format = (features & RING_PACKED) === 0n ? "split" : "packed";
    const sizes = DriverVirtQueue.areaSizes(format, size);
    const areas = {
      descriptors: this.guest.ram.allocate(sizes.descriptors.size, 64),
      driver: this.guest.ram.allocate(sizes.driver.size, 64),
      device: this.guest.ram.allocate(sizes.device.size, 64),
    };
    const ring = DriverVirtQueue.create(this.guest.space, {
      format,
      size,
      ...areas,
      eventIndex: (features & EVENT_IDX) !== 0n,
      indirect: false,
      inOrder: ((features >> 35n) & 1n) !== 0n,
    });
    const buffers = this.guest.ram.allocate(size * BUFFER, 64);
    return { ring, areas, buffers, table: BurstTable.allocate(this.guest.space, size) };
  }

  /** Puts it in service; result of the call. */
  enable(index: number, { ring, areas }: HandQueue): number {
    return this.call(ENABLE_QUEUE, rings(index, ring.size, areas));
  }

  /** Makes `n` buffers available that the device may write, and kicks when the ring says so. True when it did. */
  offer(index: number, queue: HandQueue, n: number): boolean {
    const { table, ring, buffers } = queue;
    for (let i = 0; i < n; i++) {
      table.setBuffer(i, 0, BUFFER);
      table.setGpa(i, buffers + i * BUFFER);
      table.setFlags(i, CHAIN_WRITABLE);
      table.setCookie(i, i);
    }
    const kick = ring.add(table, n);
    if (kick) this.kick(index);
    return kick;
  }

  /** Injects on a queue's signal, and rings when that says so. True when it rang. */
  kick(index: number): boolean {
    const signal = this.signals.get(index)!;
    const bell = signal.north.inject();
    if (bell) this.client.signal(signal.handle);
    return bell;
  }

  /** What was used: cookies. */
  reap({ ring, table }: HandQueue): number[] {
    const n = ring.reap(table, table.capacity);
    return Array.from({ length: n }, (_, i) => table.cookie(i));
  }

  /** Events that came: SHMSIGNALs by their segments, the others by what they are. */
  events(): (number | string)[] {
    const all: (number | string)[] = [];
    for (let event: BusEvent | null; (event = this.client.nextEvent()) !== null;)
      all.push(
        event.kind === "shmsignal"
          ? (event.cookie as number)
          : `${event.kind} ${"id" in event ? event.id : (event.cookie as number)}`,
      );
    return all;
  }

  /** Lets a woken signal of the guest settle, as its wake-up would after it looked. Returns whether there was a cause. */
  settle(id: number): boolean {
    const { north } = this.signals.get(id)!;
    let turns = 0;
    for (let turn = north.wakeupBegin(16); turn === 1; turn = north.wakeupNext()) turns++;
    return turns > 0;
  }

  attribute(name: string): string {
    return this.bus.read(`devices/device0/${name}`);
  }
}

/** 32-bit little-endian numbers as bytes. */
export function words(...values: number[]): Uint8Array<ArrayBuffer> {
  const view = new DataView(new ArrayBuffer(4 * values.length));
  for (const [i, value] of values.entries()) view.setUint32(4 * i, value, true);
  return new Uint8Array(view.buffer);
}

/** The block of ENABLE_QUEUE. */
export function rings(
  index: number,
  size: number,
  areas: Record<"descriptors" | "driver" | "device", number | bigint>,
): Uint8Array<ArrayBuffer> {
  const block = new Uint8Array(32);
  const view = new DataView(block.buffer);
  view.setUint32(0, index, true);
  view.setUint32(4, size, true);
  view.setBigUint64(8, BigInt(areas.descriptors), true);
  view.setBigUint64(16, BigInt(areas.driver), true);
  view.setBigUint64(24, BigInt(areas.device), true);
  return block;
}

/** A config block. */
export function config(offset: number, length: number, ...bytes: number[]): Uint8Array<ArrayBuffer> {
  const block = new Uint8Array(8 + length);
  block.set(words(offset));
  block.set(bytes, 8);
  return block;
}
