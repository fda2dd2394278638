/**
 * A virtio device and its driver in one thread.
 * @module
 */
import { VIRTIO_F_RING_RESET } from "../../assembly/abi/virtio.js";
import { GuestVirtioQueue } from "../drivers/virtio/queue.js";
import type {
  VirtioDriverQueue,
  VirtioDriverQueueOptions,
  VirtioDriverTransport,
} from "../drivers/virtio/transport.js";
import { VbusError } from "../errors.js";
import type { GuestMemory } from "../memory/guest.js";
import type { MemorySpace } from "../memory/space.js";
import type { Scheduler } from "../scheduler.js";
import { featureMask } from "../virtio/features.js";
import {
  VirtioDevice,
  type VirtioDeviceCounters,
  type VirtioFace,
  type VirtioRingOptions,
} from "../virtio/index.js";

/** Pieces of an indirect table when the driver does not say: a superframe's. */
const TABLE_PIECES = 20;

/** How a {@link VirtioLocal} is wired. */
export interface VirtioLocalOptions {
  /** The device. */
  readonly face: VirtioFace;
  /** The guest's view of its memory. */
  readonly guest: GuestMemory;
  /** The host's view of the same memory. */
  readonly host: MemorySpace;
  /** The thread's scheduler. */
  readonly scheduler: Scheduler;
  /** What is offered of rings. */
  readonly rings?: VirtioRingOptions;
  /** Told of errors that hurt nothing but this device. */
  readonly onError?: (error: unknown) => void;
}

/**
 * A virtio device and its driver in one thread: the counterpart of `LocalConnector` for drivers in TypeScript. Calls are direct;
 * kicks and interrupts are tasks of the thread's scheduler, so that neither side ever runs inside the other.
 */
export class VirtioLocal implements VirtioDriverTransport {
  /** The device's side, for who looks at it. */
  readonly device: VirtioDevice;
  onConfigChange: (() => void) | null = null;
  onGone: ((error: Error | null) => void) | null = null;
  readonly #queues = new Map<number, GuestVirtioQueue>();
  readonly #kicked = new Set<number>();
  readonly #interrupted = new Set<number>();
  #configTold = false;
  #gone = false;

  constructor(private readonly options: VirtioLocalOptions) {
    const { face, host, scheduler, rings, onError } = options;
    this.device = new VirtioDevice({
      face,
      memory: host,
      scheduler,
      ...(rings === undefined ? {} : { rings }),
      ...(onError === undefined ? {} : { onError }),
      queueInterrupt: (index) => {
        this.#later(this.#interrupted, index, (each) => {
          this.#queues.get(each)?.onInterrupt();
        });
      },
      configInterrupt: () => {
        if (this.#configTold) return;
        this.#configTold = true;
        scheduler.post(() => {
          this.#configTold = false;
          this.onConfigChange?.();
        });
      },
    });
  }

  /** Does something for each member of a set soon. When it throws, that hurts no other member: their turn comes. */
  #later(set: Set<number>, index: number, act: (index: number) => void): void {
    if (set.size === 0) {
      const turn = (): void => {
        const all = [...set];
        set.clear();
        for (const [i, each] of all.entries()) {
          try {
            act(each);
          } catch (error) {
            for (const left of all.slice(i + 1)) this.#later(set, left, act);
            throw error;
          }
        }
      };
      this.scheduler.post(turn);
    }
    set.add(index);
  }

  /** As `VirtioDriverTransport.memory` says. */
  get memory(): GuestMemory {
    return this.options.guest;
  }

  /** As `VirtioDriverTransport.scheduler` says. */
  get scheduler(): Scheduler {
    return this.options.scheduler;
  }

  /** As `VirtioDriverTransport.deviceType` says. */
  get deviceType(): number {
    return this.device.face.deviceType;
  }

  /** As `VirtioDriverTransport.queueCount` says. */
  get queueCount(): number {
    return this.device.queues.length;
  }

  /** As `VirtioDriverTransport.configSize` says. */
  get configSize(): number {
    return this.device.config.size;
  }

  /** As `VirtioDriverTransport.features` says. */
  get features(): bigint {
    return this.device.negotiated;
  }

  /** What the device's side counted. */
  counters(): VirtioDeviceCounters {
    return this.device.counters();
  }

  #assertThere(): void {
    if (this.#gone) throw new VbusError("ENOTCONN", "the device was unplugged");
  }

  /** As `VirtioDriverTransport.status` says. */
  async status(): Promise<number> {
    this.#assertThere();
    return this.device.status;
  }

  /** As `VirtioDriverTransport.setStatus` says. */
  async setStatus(bits: number): Promise<number> {
    this.#assertThere();
    this.device.writeStatus(this.device.status | bits);
    return this.device.status;
  }

  /** As `VirtioDriverTransport.reset` says. */
  async reset(): Promise<boolean> {
    if (!this.#gone) this.device.reset();
    this.#dropAll();
    return true;
  }

  #dropAll(): void {
    for (const index of [...this.#queues.keys()]) this.#drop(index);
  }

  #drop(index: number): void {
    const queue = this.#queues.get(index);
    if (queue === undefined) return;
    this.#queues.delete(index);
    queue.close(true);
  }

  /** As `VirtioDriverTransport.offeredFeatures` says. */
  async offeredFeatures(): Promise<bigint> {
    this.#assertThere();
    return this.device.offered;
  }

  /** As `VirtioDriverTransport.acceptFeatures` says. */
  async acceptFeatures(features: bigint): Promise<void> {
    this.#assertThere();
    for (let word = 0; word < 4; word++)
      this.device.chooseWord(word, Number((features >> BigInt(32 * word)) & 0xffffffffn));
  }

  /** As `VirtioDriverTransport.readConfig` says. */
  async readConfig(offset: number, length: number): Promise<Uint8Array> {
    this.#assertThere();
    this.#checkConfig(offset, length);
    return this.device.config.image().slice(offset, offset + length);
  }

  /** As `VirtioDriverTransport.writeConfig` says. */
  async writeConfig(offset: number, bytes: Uint8Array): Promise<void> {
    this.#assertThere();
    this.#checkConfig(offset, bytes.length);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    // numbers as a driver would write them: whole where they are aligned
    for (let at = 0; at < bytes.length;) {
      const left = bytes.length - at;
      const width = left >= 4 && (offset + at) % 4 === 0 ? 4 : left >= 2 && (offset + at) % 2 === 0 ? 2 : 1;
      const value =
        width === 4 ? view.getUint32(at, true) : width === 2 ? view.getUint16(at, true) : view.getUint8(at);
      this.device.config.write(offset + at, width, value);
      at += width;
    }
  }

  #checkConfig(offset: number, length: number): void {
    if (!(offset >= 0 && length >= 0 && offset + length <= this.configSize))
      throw new VbusError(
        "EINVAL",
        `configuration ${offset} + ${length} of a device that has ${this.configSize} bytes of it`,
      );
  }

  /** As `VirtioDriverTransport.queueSizeMax` says. */
  async queueSizeMax(index: number): Promise<number> {
    this.#assertThere();
    const queue = this.device.queue(index);
    if (queue === undefined)
      throw new VbusError("EINVAL", `queue ${index} of a device that has ${this.queueCount}`);
    return queue.maximum;
  }

  /** As `VirtioDriverTransport.createQueue` says. */
  async createQueue(index: number, options: VirtioDriverQueueOptions): Promise<VirtioDriverQueue> {
    const most = await this.queueSizeMax(index);
    if (this.#queues.has(index)) throw new VbusError("EEXIST", `there is a queue ${index} already`);
    const wanted = { indirectPieces: TABLE_PIECES, ...options };
    const { size = most } = wanted;
    if (!(size >= 1 && size <= most))
      throw new VbusError("EINVAL", `a queue of ${size} descriptors; the device takes 1 to ${most}`);
    const queue = GuestVirtioQueue.create(this.memory, index, size, this.features, wanted, () => {
      this.#later(this.#kicked, index, (kicked) => {
        this.device.kick(kicked);
      });
    });
    queue.ring.disable();
    this.#queues.set(index, queue);
    this.device.setQueueSize(index, size);
    for (const area of ["descriptors", "driver", "device"] as const) {
      const gpa = queue.areas[area];
      this.device.setQueueAddress(index, area, false, gpa >>> 0);
      this.device.setQueueAddress(index, area, true, Math.floor(gpa / 2 ** 32));
    }
    this.device.enableQueue(index);
    return queue;
  }

  /** As `VirtioDriverTransport.resetQueue` says. */
  async resetQueue(index: number): Promise<boolean> {
    if ((this.features & featureMask(VIRTIO_F_RING_RESET)) === 0n)
      throw new VbusError("EOPNOTSUPP", "queues cannot be reset one by one: that was not negotiated");
    this.device.resetQueue(index);
    this.#drop(index);
    return true;
  }

  /** The host unplugs the device: its driver hears of it once, and can do nothing any more. Twice is harmless. */
  unplug(error: Error | null = null): void {
    if (this.#gone) return;
    this.#gone = true;
    this.device.close();
    this.#dropAll();
    this.onGone?.(error);
  }
}
