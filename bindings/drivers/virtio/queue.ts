import { DriverVirtQueue, type VirtQueueFormat } from "../../engine/virtqueue.js";
import type { GuestMemory } from "../../memory/guest.js";
import { ringFormat } from "../../virtio/features.js";
import type { VirtioDriverQueue, VirtioDriverQueueOptions } from "./transport.js";

/** Where the areas of a queue lie: guest-physical addresses. */
export interface QueueAreas {
  descriptors: number;
  driver: number;
  device: number;
}

/** What each side writes starts on a cache line of its own. */
const LINE = 64;
const lines = (bytes: number): number => Math.ceil(bytes / LINE) * LINE;

/** A virtqueue in the guest's memory, for any transport: one allocation for its areas and, when wanted, its indirect tables. */
export class GuestVirtioQueue implements VirtioDriverQueue {
  readonly format: VirtQueueFormat;
  #closed = false;

  private constructor(
    private readonly memory: GuestMemory,
    readonly index: number,
    readonly ring: DriverVirtQueue,
    /** Where its areas lie. */
    readonly areas: QueueAreas,
    private readonly gpa: number,
    private readonly interrupted: () => void,
    private readonly notify: () => void,
  ) {
    this.format = ring.format;
  }

  /**
   * @param features - all that was negotiated
   * @param notify - tells the device that there is something
   * @throws VbusError EINVAL (size), ENOMEM
   */
  static create(
    memory: GuestMemory,
    index: number,
    size: number,
    features: bigint,
    options: VirtioDriverQueueOptions,
    notify: () => void,
  ): GuestVirtioQueue {
    const { indirectPieces = 0 } = options;
    const rings = ringFormat(features, {});
    const { descriptors, driver, device } = DriverVirtQueue.areaSizes(rings.format, Math.max(size, 1));
    const tables = rings.indirect && indirectPieces > 1;
    const driverAt = lines(descriptors.size);
    const deviceAt = driverAt + lines(driver.size);
    const tablesAt = deviceAt + lines(device.size);
    const length = tablesAt + (tables ? DriverVirtQueue.tablesSize(size, indirectPieces) : 0);
    const gpa = memory.ram.allocate(length, LINE);
    try {
      const areas = { descriptors: gpa, driver: gpa + driverAt, device: gpa + deviceAt };
      const ring = DriverVirtQueue.create(memory.space, {
        ...rings,
        ...areas,
        size,
        ...(tables ? { tables: { gpa: gpa + tablesAt, pieces: indirectPieces } } : {}),
      });
      return new GuestVirtioQueue(memory, index, ring, areas, gpa, options.onInterrupt, notify);
    } catch (error) {
      memory.ram.free(gpa);
      throw error;
    }
  }

  /** {@inheritDoc VirtioDriverQueue.kick} */
  kick(): void {
    if (!this.#closed) this.notify();
  }

  /** The device interrupted. */
  onInterrupt(): void {
    if (!this.#closed) this.interrupted();
  }

  /** Ends it; its memory is used again only when the device has let go of it. */
  close(free: boolean): void {
    if (this.#closed) return;
    this.#closed = true;
    this.ring.close();
    if (free) this.memory.ram.free(this.gpa);
  }
}
