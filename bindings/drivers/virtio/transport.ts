import type { DriverVirtQueue, VirtQueueFormat } from "../../engine/virtqueue.js";
import type { GuestMemory } from "../../memory/guest.js";
import type { Scheduler } from "../../scheduler.js";

/** How a driver wants a queue. Format, event index and the like follow from the features that were negotiated. */
export interface VirtioDriverQueueOptions {
  /** Descriptors wanted; the most is {@link VirtioDriverTransport.queueSizeMax}. Default: as many as the device takes. */
  size?: number;
  /**
   * Longest chain that goes into an indirect table, where these were negotiated. Default: all chains are direct, and take a
   * descriptor for each piece.
   */
  indirectPieces?: number;
  /**
   * The device used buffers (or may have: it can find nothing). Usually the `wakeup` of a `VirtQueueWakeups`. Never called
   * from within {@link VirtioDriverQueue.kick}. Masked at first, like the ring: `ring.enable()` asks for interrupts.
   */
  onInterrupt: () => void;
}

/** A queue as its driver sees it: the driver's end of the ring, and notifications both ways. */
export interface VirtioDriverQueue {
  /** Its index on the device. */
  readonly index: number;
  /** `split` or `packed`, as negotiated. */
  readonly format: VirtQueueFormat;
  /** The driver's end. Its memory and the ring are the transport's: it closes them in `reset` and `close`. */
  readonly ring: DriverVirtQueue;
  /** Notifies the device: call it when the ring's `add` says so. Harmless after the queue has gone. */
  kick(): void;
}

/**
 * What a virtio driver in TypeScript needs of whatever carries its device (virtio 1.2: 2, 3.1). One thread, the guest's. Calls
 * reject with a `VbusError`: the device's errno, or ENOTCONN / ETIMEDOUT when the host is gone or does not answer.
 *
 * The order is that of 1.2: 3.1.1; `initializeVirtio` takes the steps up to FEATURES_OK:
 *
 * ```
 * const features = await initializeVirtio(transport, (offered) => offered & MINE);
 * const rx = await transport.createQueue(0, { onInterrupt });
 * await transport.setStatus(VIRTIO_STATUS_DRIVER_OK);
 * ```
 */
export interface VirtioDriverTransport {
  /** The guest's memory; buffers are allocated from its `ram`. Give it back only once `close`, `reset` or `resetQueue` returned true. */
  readonly memory: GuestMemory;
  /** Where deferred work of the guest's thread runs. */
  readonly scheduler: Scheduler;
  /** What kind of device it is: `VIRTIO_ID_…`. */
  readonly deviceType: number;
  /** Number of queues that the device has. */
  readonly queueCount: number;
  /** Bytes of device configuration. */
  readonly configSize: number;
  /** Features that were negotiated; 0n before. */
  readonly features: bigint;

  /** The device's status: `VIRTIO_STATUS_…` bits. */
  status(): Promise<number>;
  /** Adds bits to the device's status. Resolves with the status that the device shows afterwards: look for what did not stick. */
  setStatus(bits: number): Promise<number>;
  /**
   * Resets the device: all queues and their rings are gone. Resolves with true when the device confirmed that; with false when
   * it did not answer: then what it was given, buffers too, must never be used again.
   */
  reset(): Promise<boolean>;

  /** Feature bits that the device offers, those of ring and transport among them. */
  offeredFeatures(): Promise<bigint>;
  /** Tells the device which of them are used. Before FEATURES_OK. */
  acceptFeatures(features: bigint): Promise<void>;

  /**
   * A range of the device's configuration, from one state of it, however long the range is; yours. Little-endian.
   * @throws VbusError EINVAL outside of `configSize`
   */
  readConfig(offset: number, length: number): Promise<Uint8Array>;
  /** Writes configuration. @throws VbusError EINVAL outside of `configSize` */
  writeConfig(offset: number, bytes: Uint8Array): Promise<void>;

  /** Most descriptors of a queue. @throws VbusError EINVAL for a queue that the device does not have */
  queueSizeMax(index: number): Promise<number>;
  /**
   * Sets a queue up: memory, ring, notifications. After FEATURES_OK.
   * @throws VbusError EEXIST when it is there already, EINVAL (index, size), ENOMEM, errno of the device
   */
  createQueue(index: number, options: VirtioDriverQueueOptions): Promise<VirtioDriverQueue>;
  /**
   * Resets one queue (VIRTIO_F_RING_RESET was negotiated): what was in it does not come back. It may be created anew. Resolves as
   * {@link VirtioDriverTransport.reset}. @throws VbusError EOPNOTSUPP when that was not negotiated
   */
  resetQueue(index: number): Promise<boolean>;

  /** The configuration changed, or the device shows DEVICE_NEEDS_RESET. Set it before DRIVER_OK. */
  onConfigChange: (() => void) | null;
  /** The device was unplugged, or the host is gone; once. `remove` of the driver follows. */
  onGone: ((error: Error | null) => void) | null;
}

/** A driver for one kind of virtio device, whatever carries it. */
export interface VirtioDriver<Instance = unknown> {
  /** Kind of devices that it drives: `VIRTIO_ID_…`. */
  readonly deviceType: number;
  /** Takes a device, as the transport found it: begins with `initializeVirtio`. Rejecting resets the device. */
  probe(transport: VirtioDriverTransport): Promise<Instance>;
  /** The device is going, or the driver is to let go of it: resets the device and gives its buffers back. */
  remove(instance: Instance, transport: VirtioDriverTransport): Promise<void>;
}
