import { DriverVirtQueue, type VirtQueueFormat } from "../../engine/virtqueue.js";
import type { GuestMemory } from "../../memory/guest.js";
import type { VirtioDriverQueue, VirtioDriverQueueOptions } from "./transport.js";

/** What was negotiated of rings. */
export interface RingFeatures {
  format: VirtQueueFormat;
  eventIndex: boolean;
  indirect: boolean;
  inOrder: boolean;
}

/** Where the areas of a queue lie: guest-physical addresses. */
export interface QueueAreas {
  descriptors: number;
  driver: number;
  device: number;
}

/** What each side writes starts on a cache line of its own. */
const LINE = 64;
const lines = (bytes: number): number => Math.ceil(bytes / LINE) * LINE;

/** A virtqueue in the guest's memory: one allocation for its areas and, when wanted, its indirect tables. */
export class VbusVirtioQueue implements VirtioDriverQueue {
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
    private readonly inject: () => void,
  ) {
    this.format = ring.format;
  }

  /** @throws VbusError EINVAL (size), ENOMEM */
  static create(
    memory: GuestMemory,
    index: number,
    size: number,
    features: RingFeatures,
    options: VirtioDriverQueueOptions,
    inject: () => void,
  ): VbusVirtioQueue {
    const { indirectPieces = 0 } = options;
    const { descriptors, driver, device } = DriverVirtQueue.areaSizes(features.format, Math.max(size, 1));
    const tables = features.indirect && indirectPieces > 1;
    const driverAt = lines(descriptors.size);
    const deviceAt = driverAt + lines(driver.size);
    const tablesAt = deviceAt + lines(device.size);
    const length = tablesAt + (tables ? DriverVirtQueue.tablesSize(size, indirectPieces) : 0);
    const gpa = memory.ram.allocate(length, LINE);
    try {
      const areas = { descriptors: gpa, driver: gpa + driverAt, device: gpa + deviceAt };
      const ring = DriverVirtQueue.create(memory.space, {
        ...features,
        ...areas,
        size,
        ...(tables ? { tables: { gpa: gpa + tablesAt, pieces: indirectPieces } } : {}),
      });
      return new VbusVirtioQueue(memory, index, ring, areas, gpa, options.onInterrupt, inject);
    } catch (error) {
      memory.ram.free(gpa);
      throw error;
    }
  }

  /** {@inheritDoc VirtioDriverQueue.kick} */
  kick(): void {
    if (!this.#closed) this.inject();
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
