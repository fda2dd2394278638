/*
 * What a virtio device is, whatever carries it (virtio 1.2 chapter 2). A device implements VirtioFace; a transport, such as
 * virtio-pci or virtio-mmio, drives it and hands it queues that are set up.
 *
 *     face (net, blk, console, rng …)        what the device offers, its configuration, its work
 *       ▲ readConfig, start                  │ queue.ring, interrupt(), configChanged()
 *       │ onKick, queueStopped, stop         ▼
 *     VirtioDevice                           status, features, queues: the rules, once
 *       ▲ register accesses                  │ interrupts
 *       │                                    ▼
 *     registers (virtio-pci, virtio-mmio)    where all that lies in the guest's address space
 */
import type { DeviceVirtQueue } from "../engine/virtqueue.js";
import type { MemorySpace } from "../memory/space.js";
import type { Scheduler } from "../scheduler.js";
import type { StateReader, StateValue } from "../state/reader.js";
import type { RestoreOptions } from "../state/saveable.js";

/**
 * A virtio device without a transport. All calls come on one thread, synchronously from within guest accesses: none may
 * block, and none but {@link VirtioFace.start} may throw.
 */
export interface VirtioFace {
  /** Name for messages. */
  readonly name: string;
  /** Device type: `VIRTIO_ID_…` (virtio 1.2 chapter 5). */
  readonly deviceType: number;
  /**
   * Device-specific feature bits offered at this moment (0 … 23 and 50 … 127; 1.2: 2.2). The transport adds those of ring
   * and transport, as its options say. Read again after each reset.
   */
  readonly features: bigint;
  /** Most descriptors of each queue; the length is the number of queues. Powers of two up to 32768. Never changes. */
  readonly queueSizes: readonly number[];
  /** True when each queue's chains are completed in the order in which they came: then IN_ORDER may be offered. */
  readonly inOrder?: boolean;
  /** Bytes of device configuration, at most 184 (what is left of 256 ports). Never changes. */
  readonly configSize: number;
  /** What it counted, as plain data: numbers, texts, and objects of those. For `vbus/inspect`. */
  readonly statistics?: object;
  /**
   * Its driver uses another address than the device has now: it was restored with `macs: "renew"`, and waits, with its link
   * down, for a driver that starts anew or takes another one. Transports that can plug devices in anew do that.
   */
  readonly renewed?: boolean;
  /**
   * Whether a driver may have this subset of the offered bits (dependencies between them, such as 1.2: 5.1.3.1). False:
   * FEATURES_OK does not stick.
   */
  acceptable(features: bigint): boolean;
  /**
   * Writes the whole configuration image, little-endian, for the features that were negotiated (0n before).
   * @param into - `configSize` bytes, all 0
   */
  readConfig(into: Uint8Array, features: bigint): void;
  /**
   * The driver wrote configuration, of any width at any offset inside of it; nonsense is ignored. May come before
   * DRIVER_OK.
   * @param bytes - a copy, yours
   */
  writeConfig(offset: number, bytes: Uint8Array, features: bigint): void;
  /**
   * DRIVER_OK: the driver is there. Nothing may be taken from or written to a queue before.
   * @throws VbusError EBUSY when another transport has the device; whatever is thrown becomes DEVICE_NEEDS_RESET
   */
  start(context: VirtioSessionContext): VirtioSession;
}

/** What a device may use from DRIVER_OK until {@link VirtioSession.stop}. */
export interface VirtioSessionContext {
  /** The guest's memory. */
  readonly memory: MemorySpace;
  /** Where deferred work runs. */
  readonly scheduler: Scheduler;
  /**
   * True while the machine is being saved or restored: nothing may touch guest memory, and what comes from outside (frames of a
   * port) must wait there. Tasks of the scheduler do not run; `resumed` ends it.
   */
  readonly held: boolean;
  /** All negotiated bits, those of ring and transport among them. */
  readonly features: bigint;
  /** A queue that the driver has enabled; null for one that it has not, or that does not exist. */
  queue(index: number): VirtioQueue | null;
  /** The configuration changed: tells the driver (1.2: 2.3, 2.5). Harmless after `stop`. */
  configChanged(): void;
  /**
   * The device is in a state that only a reset ends (1.2: 2.1.2): shows DEVICE_NEEDS_RESET and tells the driver. The session
   * lives on: what is healthy may go on. Harmless after `stop`.
   * @param error - reported to the transport's `onError`
   */
  needsReset(error: unknown): void;
}

/** A device at work for one driver, from DRIVER_OK to reset. None of its methods may throw. */
export interface VirtioSession {
  /** The driver enabled a queue after DRIVER_OK: after it had reset it (RING_RESET), or late. `context.queue` has it, too. */
  queueStarted?(queue: VirtioQueue): void;
  /**
   * The driver reset a queue: when this returns the device touches its memory no more, nor the ring, which is closed then.
   * May come from within one of the device's own calls to its context or a queue.
   */
  queueStopped(index: number): void;
  /** The driver reset the device, gave it up (FAILED), or the device goes away: the same, for all queues. Once. */
  stop(): void;
  /**
   * The session is about to be saved: finish what takes time, and give every chain back that was taken. Tasks of the scheduler
   * are held already. What it rejects with ends the saving.
   */
  settle?(): Promise<void>;
  /** What the session is beyond its queues and features, as plain data, while held. Absent: it cannot be saved. */
  save?(): StateValue;
  /** Becomes what was saved, right after {@link VirtioFace.start}, while held. @throws StateError; VbusError ENOMEM */
  restore?(state: StateReader, options: RestoreOptions): void;
  /** It goes on after {@link VirtioSession.settle}, or begins to, after it was restored. */
  resumed?(restored: boolean): void;
}

/** A queue that the driver set up: the engine's end of it, and notifications both ways. The transport closes the ring. */
export interface VirtioQueue {
  /** Its index. */
  readonly index: number;
  /** The device's end. */
  readonly ring: DeviceVirtQueue;
  /** Called when the driver kicked; set it in `start` or `queueStarted`. A kick that came before is not repeated. */
  onKick: (() => void) | null;
  /** Interrupts the driver for this queue: call it when the ring said so. Harmless after the queue was stopped. */
  interrupt(): void;
}
