import { VIRTIO_F_RING_RESET } from "../../../assembly/abi/virtio.js";
import { VIRTIO_STATUS_FEATURES_OK } from "../../../assembly/abi/virtio-status.js";
import {
  VIRTIO_VBUS_CONFIG_OFF_DATA,
  VIRTIO_VBUS_CONFIG_OFF_OFFSET,
  VIRTIO_VBUS_ENABLE_QUEUE,
  VIRTIO_VBUS_GET_FEATURES,
  VIRTIO_VBUS_GET_QUEUE,
  VIRTIO_VBUS_GET_STATUS,
  VIRTIO_VBUS_INFO_OFF_CONFIG,
  VIRTIO_VBUS_INFO_OFF_DEVICE,
  VIRTIO_VBUS_INFO_OFF_QUEUES,
  VIRTIO_VBUS_INFO_SIZE,
  VIRTIO_VBUS_MAX_CONFIG,
  VIRTIO_VBUS_MAX_QUEUES,
  VIRTIO_VBUS_QUERY,
  VIRTIO_VBUS_QUEUE_OFF_INDEX,
  VIRTIO_VBUS_QUEUE_OFF_MAX_SIZE,
  VIRTIO_VBUS_QUEUE_SIZE,
  VIRTIO_VBUS_READ_CONFIG,
  VIRTIO_VBUS_RESET_QUEUE,
  VIRTIO_VBUS_RINGS_OFF_DESCRIPTORS,
  VIRTIO_VBUS_RINGS_OFF_DEVICE,
  VIRTIO_VBUS_RINGS_OFF_DRIVER,
  VIRTIO_VBUS_RINGS_OFF_INDEX,
  VIRTIO_VBUS_RINGS_OFF_SIZE,
  VIRTIO_VBUS_RINGS_SIZE,
  VIRTIO_VBUS_SEGMENT_CONFIG,
  VIRTIO_VBUS_SET_FEATURES,
  VIRTIO_VBUS_SET_STATUS,
  VIRTIO_VBUS_VERSION,
  VIRTIO_VBUS_WRITE_CONFIG,
} from "../../../assembly/abi/virtio-vbus.js";
import { VbusError } from "../../errors.js";
import type { GuestMemory } from "../../memory/guest.js";
import type { Scheduler } from "../../scheduler.js";
import { featureMask } from "../../virtio/features.js";
import type { ProxyDevice } from "../proxy.js";
import type { ProxySignal } from "../proxy-signal.js";
import { GuestVirtioQueue } from "./queue.js";
import type { VirtioDriverQueue, VirtioDriverQueueOptions, VirtioDriverTransport } from "./transport.js";

/** 128 feature bits. */
const FEATURE_BYTES = 16;

/** A queue, and the signal that stays when it is reset. */
interface Slot {
  signal: ProxySignal;
  queue: GuestVirtioQueue | null;
}

/** The driver's half of virtio over vbus (`docs/abi/virtio-vbus.md`): any connector may be below. */
export class VbusVirtioTransport implements VirtioDriverTransport {
  onConfigChange: (() => void) | null = null;
  onGone: ((error: Error | null) => void) | null = null;
  readonly #slots = new Map<number, Slot>();
  /** Queues that are being set up. */
  readonly #busy = new Set<number>();
  #status = 0;
  #chosen = 0n;
  #features = 0n;
  #gone = false;

  private constructor(
    private readonly device: ProxyDevice,
    readonly deviceType: number,
    readonly queueCount: number,
    readonly configSize: number,
  ) {
    device.onDrop = () => {
      this.#tellGone(null);
    };
    device.onLost = (error) => {
      this.#tellGone(error);
    };
  }

  /**
   * Opens a device of type `virtio`. Whoever opened it closes it.
   * @throws VbusError EINVAL (version, or the device makes no sense), EBUSY, ENOMEM …
   */
  static async open(device: ProxyDevice): Promise<VbusVirtioTransport> {
    await device.open(VIRTIO_VBUS_VERSION);
    const block = new Uint8Array(VIRTIO_VBUS_INFO_SIZE);
    await device.call(VIRTIO_VBUS_QUERY, block);
    const info = new DataView(block.buffer);
    const queueCount = info.getUint32(VIRTIO_VBUS_INFO_OFF_QUEUES, true);
    const configSize = info.getUint32(VIRTIO_VBUS_INFO_OFF_CONFIG, true);
    if (queueCount > VIRTIO_VBUS_MAX_QUEUES || configSize > VIRTIO_VBUS_MAX_CONFIG) {
      throw new VbusError(
        "EINVAL",
        `the device says that it has ${queueCount} queues and ${configSize} bytes of configuration`,
      );
    }
    const deviceType = info.getUint32(VIRTIO_VBUS_INFO_OFF_DEVICE, true);
    const transport = new VbusVirtioTransport(device, deviceType, queueCount, configSize);
    const signal = await device.createSignal(VIRTIO_VBUS_SEGMENT_CONFIG, {
      notifier: () => transport.onConfigChange?.(),
      onReleased: () => {
        transport.#released();
      },
    });
    signal.wakeups.enable();
    return transport;
  }

  /** {@inheritDoc VirtioDriverTransport.memory} */
  get memory(): GuestMemory {
    return this.device.bus.transport.memory;
  }

  /** {@inheritDoc VirtioDriverTransport.scheduler} */
  get scheduler(): Scheduler {
    return this.device.bus.transport.scheduler;
  }

  /** {@inheritDoc VirtioDriverTransport.features} */
  get features(): bigint {
    return this.#features;
  }

  #tellGone(error: Error | null): void {
    if (this.#gone) return;
    this.#gone = true;
    this.onGone?.(error);
  }

  #released(): void {
    this.#tellGone(new VbusError("ENOTCONN", "the host ended the session of the virtio device"));
  }

  /** {@inheritDoc VirtioDriverTransport.status} */
  status(): Promise<number> {
    return this.device.call(VIRTIO_VBUS_GET_STATUS);
  }

  async #writeStatus(status: number): Promise<number> {
    const block = new Uint8Array(4);
    block[0] = status;
    return this.device.call(VIRTIO_VBUS_SET_STATUS, block);
  }

  /** {@inheritDoc VirtioDriverTransport.setStatus} */
  async setStatus(bits: number): Promise<number> {
    if (!Number.isInteger(bits) || bits < 1 || bits > 255)
      throw new VbusError("EINVAL", `${bits} are no status bits; use reset() for 0`);
    this.#status = await this.#writeStatus(this.#status | bits);
    this.#features = (this.#status & VIRTIO_STATUS_FEATURES_OK) === 0 ? 0n : this.#chosen;
    return this.#status;
  }

  /** {@inheritDoc VirtioDriverTransport.reset} */
  async reset(): Promise<boolean> {
    const confirmed = await this.#confirmed(this.#writeStatus(0));
    this.#status = 0;
    this.#chosen = 0n;
    this.#features = 0n;
    for (const slot of this.#slots.values()) this.#dropQueue(slot, confirmed);
    return confirmed;
  }

  /** False when there was no answer; a session that is gone has let go of everything. */
  async #confirmed(call: Promise<unknown>): Promise<boolean> {
    try {
      await call;
      return true;
    } catch (error) {
      if (!(error instanceof VbusError)) throw error;
      if (error.code === "ETIMEDOUT") return false;
      if (["ENOENT", "ENOTCONN", "EINVAL"].includes(error.code)) return true; // EINVAL: it is closed on this side
      throw error;
    }
  }

  #dropQueue(slot: Slot, confirmed: boolean): void {
    slot.queue?.close(confirmed);
    slot.queue = null;
  }

  /** {@inheritDoc VirtioDriverTransport.offeredFeatures} */
  async offeredFeatures(): Promise<bigint> {
    const block = new Uint8Array(FEATURE_BYTES);
    await this.device.call(VIRTIO_VBUS_GET_FEATURES, block);
    const view = new DataView(block.buffer);
    return view.getBigUint64(0, true) | (view.getBigUint64(8, true) << 64n);
  }

  /** {@inheritDoc VirtioDriverTransport.acceptFeatures} */
  async acceptFeatures(features: bigint): Promise<void> {
    const block = new Uint8Array(FEATURE_BYTES);
    const view = new DataView(block.buffer);
    view.setBigUint64(0, BigInt.asUintN(64, features), true);
    view.setBigUint64(8, BigInt.asUintN(64, features >> 64n), true);
    await this.device.call(VIRTIO_VBUS_SET_FEATURES, block);
    this.#chosen = features;
  }

  #configBlock(offset: number, length: number): Uint8Array {
    if (!Number.isInteger(offset) || offset < 0 || !(offset + length <= this.configSize))
      throw new VbusError(
        "EINVAL",
        `${length} bytes at ${offset} of a configuration of ${this.configSize} bytes`,
      );
    const block = new Uint8Array(VIRTIO_VBUS_CONFIG_OFF_DATA + length);
    new DataView(block.buffer).setUint32(VIRTIO_VBUS_CONFIG_OFF_OFFSET, offset, true);
    return block;
  }

  /** {@inheritDoc VirtioDriverTransport.readConfig} */
  async readConfig(offset: number, length: number): Promise<Uint8Array> {
    const block = this.#configBlock(offset, length);
    await this.device.call(VIRTIO_VBUS_READ_CONFIG, block);
    return block.slice(VIRTIO_VBUS_CONFIG_OFF_DATA);
  }

  /** {@inheritDoc VirtioDriverTransport.writeConfig} */
  async writeConfig(offset: number, bytes: Uint8Array): Promise<void> {
    if (bytes.length === 0) return;
    const block = this.#configBlock(offset, bytes.length);
    block.set(bytes, VIRTIO_VBUS_CONFIG_OFF_DATA);
    await this.device.call(VIRTIO_VBUS_WRITE_CONFIG, block);
  }

  /** {@inheritDoc VirtioDriverTransport.queueSizeMax} */
  async queueSizeMax(index: number): Promise<number> {
    const block = new Uint8Array(VIRTIO_VBUS_QUEUE_SIZE);
    const view = new DataView(block.buffer);
    view.setUint32(VIRTIO_VBUS_QUEUE_OFF_INDEX, index, true);
    await this.device.call(VIRTIO_VBUS_GET_QUEUE, block);
    return view.getUint32(VIRTIO_VBUS_QUEUE_OFF_MAX_SIZE, true);
  }

  /** The signal of a queue: made when the queue is first set up, and kept until the device is closed. */
  async #slot(index: number): Promise<Slot> {
    let slot = this.#slots.get(index);
    if (slot === undefined) {
      const made: Slot = { queue: null, signal: undefined as unknown as ProxySignal };
      made.signal = await this.device.createSignal(index, {
        notifier: () => made.queue?.onInterrupt(),
        onReleased: () => {
          this.#released();
        },
      });
      made.signal.wakeups.enable();
      slot = made;
      this.#slots.set(index, slot);
    }
    return slot;
  }

  /** {@inheritDoc VirtioDriverTransport.createQueue} */
  async createQueue(index: number, options: VirtioDriverQueueOptions): Promise<VirtioDriverQueue> {
    if (this.#busy.has(index) || (this.#slots.get(index)?.queue ?? null) !== null)
      throw new VbusError("EEXIST", `queue ${index} is set up already; reset it first`);
    this.#busy.add(index);
    try {
      const size = options.size ?? (await this.queueSizeMax(index));
      const slot = await this.#slot(index);
      const queue = GuestVirtioQueue.create(this.memory, index, size, this.#features, options, () => {
        slot.signal.wakeups.inject();
      });
      slot.queue = queue; // the device may use it, and interrupt, before its answer is here
      try {
        await this.#enableQueue(queue);
      } catch (error) {
        if (slot.queue === queue) slot.queue = null;
        queue.close(!(error instanceof VbusError) || error.code !== "ETIMEDOUT");
        throw error;
      }
      return queue;
    } finally {
      this.#busy.delete(index);
    }
  }

  async #enableQueue({ index, ring, areas }: GuestVirtioQueue): Promise<void> {
    const block = new Uint8Array(VIRTIO_VBUS_RINGS_SIZE);
    const view = new DataView(block.buffer);
    view.setUint32(VIRTIO_VBUS_RINGS_OFF_INDEX, index, true);
    view.setUint32(VIRTIO_VBUS_RINGS_OFF_SIZE, ring.size, true);
    view.setBigUint64(VIRTIO_VBUS_RINGS_OFF_DESCRIPTORS, BigInt(areas.descriptors), true);
    view.setBigUint64(VIRTIO_VBUS_RINGS_OFF_DRIVER, BigInt(areas.driver), true);
    view.setBigUint64(VIRTIO_VBUS_RINGS_OFF_DEVICE, BigInt(areas.device), true);
    await this.device.call(VIRTIO_VBUS_ENABLE_QUEUE, block);
  }

  /** {@inheritDoc VirtioDriverTransport.resetQueue} */
  async resetQueue(index: number): Promise<boolean> {
    if ((this.#features & featureMask(VIRTIO_F_RING_RESET)) === 0n)
      throw new VbusError("EOPNOTSUPP", "queues are reset one by one only with VIRTIO_F_RING_RESET");
    const block = new Uint8Array(4);
    new DataView(block.buffer).setUint32(0, index, true);
    const confirmed = await this.#confirmed(this.device.call(VIRTIO_VBUS_RESET_QUEUE, block));
    const slot = this.#slots.get(index);
    if (slot !== undefined) this.#dropQueue(slot, confirmed);
    return confirmed;
  }
}
