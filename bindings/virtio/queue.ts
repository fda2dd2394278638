import { VIRTQ_MAX_SIZE } from "../../assembly/abi/virtio.js";
import { DeviceVirtQueue, type VirtQueueOptions } from "../engine/virtqueue.js";
import type { MemorySpace } from "../memory/space.js";
import type { StateReader, StateValue } from "../state/reader.js";
import type { VirtioQueue } from "./types.js";

/** The three areas of a queue (virtio 1.2: 2.6). */
export type VirtioQueueArea = "descriptors" | "driver" | "device";

/** Far more than the state of the largest queue has. */
const RING_STATE_MAX = 1 << 20;

/** A queue that is set up, as its device holds it; dead after {@link VirtioQueueSetup.stop}. */
class LiveQueue implements VirtioQueue {
  onKick: (() => void) | null = null;
  live = true;

  constructor(
    readonly index: number,
    readonly ring: DeviceVirtQueue,
    private readonly notify: () => void,
  ) {}

  interrupt(): void {
    if (this.live) this.notify();
  }
}

/**
 * What a driver tells of one queue before it enables it: size and where its areas lie. Once enabled, the registers are fixed
 * until the queue or the device is reset (virtio 1.2: 4.1.4.3.2).
 */
export class VirtioQueueSetup {
  #size: number;
  /** Low and high words, as written: all 64 bits can be read back. */
  readonly #areas = {
    descriptors: new Uint32Array(2),
    driver: new Uint32Array(2),
    device: new Uint32Array(2),
  } satisfies Record<VirtioQueueArea, Uint32Array>;
  #enabled = false;
  #live: LiveQueue | null = null;

  constructor(
    readonly index: number,
    /** Most descriptors. */
    readonly maximum: number,
    private readonly notify: () => void,
  ) {
    this.#size = maximum;
  }

  /** Descriptors, as the driver chose them. */
  get size(): number {
    return this.#size;
  }

  /** The driver enabled it. It may have failed nonetheless: {@link VirtioQueueSetup.queue}. */
  get enabled(): boolean {
    return this.#enabled;
  }

  /** The queue, when it is enabled and its set-up made sense. */
  get queue(): VirtioQueue | null {
    return this.#live;
  }

  /** Sets the size; false when it cannot be changed any more. Whether it makes sense is seen when it is enabled. */
  setSize(size: number): boolean {
    if (this.#enabled) return false;
    this.#size = size;
    return true;
  }

  /** Low or high 32 bits of an area's guest-physical address. */
  address(area: VirtioQueueArea, high: boolean): number {
    return this.#areas[area][high ? 1 : 0] as number;
  }

  /** Sets 32 bits of an area's address; false when it cannot be changed any more. */
  setAddress(area: VirtioQueueArea, high: boolean, value: number): boolean {
    if (this.#enabled) return false;
    this.#areas[area][high ? 1 : 0] = value;
    return true;
  }

  /**
   * The driver enables it. From now on it counts as enabled, even when this throws: only a reset helps then.
   * @throws VbusError EINVAL for a size that cannot be, EFAULT for areas outside of memory, ENOMEM
   */
  enable(memory: MemorySpace, format: Omit<VirtQueueOptions, "size" | VirtioQueueArea>): VirtioQueue {
    this.#enabled = true;
    const ring = DeviceVirtQueue.attach(memory, this.#options(format));
    this.#live = new LiveQueue(this.index, ring, this.notify);
    return this.#live;
  }

  #options(format: Omit<VirtQueueOptions, "size" | VirtioQueueArea>): VirtQueueOptions {
    return {
      ...format,
      // a size beyond what was offered is as wrong as one that no queue can have
      size: this.#size <= this.maximum ? this.#size : VIRTQ_MAX_SIZE + 1,
      descriptors: this.#whole("descriptors"),
      driver: this.#whole("driver"),
      device: this.#whole("device"),
    };
  }

  /** The queue as plain data. */
  save(): StateValue {
    const { descriptors, driver, device } = this.#areas;
    return {
      size: this.#size,
      areas: [...descriptors, ...driver, ...device],
      enabled: this.#enabled,
      ring: this.#live?.ring.exportState() ?? null,
    };
  }

  /** Becomes what was saved; it was stopped. @throws StateError; VbusError ENOMEM */
  restore(
    state: StateReader,
    memory: MemorySpace,
    format: Omit<VirtQueueOptions, "size" | VirtioQueueArea>,
  ): void {
    this.#size = state.get("size").number(0, 0xffffffff);
    const words = state
      .get("areas")
      .tuple(6)
      .map((at) => at.number(0, 0xffffffff));
    for (const [i, area] of (["descriptors", "driver", "device"] as const).entries())
      this.#areas[area].set(words.slice(2 * i, 2 * i + 2));
    this.#enabled = state.get("enabled").boolean();
    const saved = state.get("ring").nullable((at) => at.bytes(0, RING_STATE_MAX));
    if (saved === null) return;
    if (!this.#enabled) state.fail("a ring of a queue that is not enabled");
    const ring = state.rebuild(`queue ${this.index}`, () =>
      DeviceVirtQueue.importState(memory, saved, this.#options(format)),
    );
    this.#live = new LiveQueue(this.index, ring, this.notify);
  }

  /** Closes the ring and forgets what the driver said. The device must have let go of it before. */
  stop(): void {
    const live = this.#live;
    this.#live = null;
    this.#enabled = false;
    this.#size = this.maximum;
    for (const words of Object.values(this.#areas)) words.fill(0);
    if (live === null) return;
    live.live = false;
    live.onKick = null;
    live.ring.close();
  }

  /** Beyond 2^53 it is rounded: no memory is there, and the ring says so. */
  #whole(area: VirtioQueueArea): number {
    return this.address(area, true) * 2 ** 32 + this.address(area, false);
  }
}
