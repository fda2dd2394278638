import {
  VIRTIO_STATUS_ACKNOWLEDGE,
  VIRTIO_STATUS_DRIVER,
  VIRTIO_STATUS_DRIVER_OK,
  VIRTIO_STATUS_FAILED,
  VIRTIO_STATUS_FEATURES_OK,
  VIRTIO_STATUS_NEEDS_RESET,
} from "../../assembly/abi/virtio-status.js";
import type { VirtioDevice, VirtioDeviceCounters } from "../virtio/device.js";
import { plain, type Plain } from "./plain.js";
import { inspectQueue, type InspectOptions, type QueueSnapshot } from "./queue.js";

/** A virtio device on a transport of its own (virtio-pci, virtio-mmio). */
export interface VirtioSnapshot {
  /** Its name. */
  name: string;
  /** Its type: 1 network card, 2 block device, 3 console, 4 entropy source … */
  deviceType: number;
  /** Bits of the status field that are set, such as `driver-ok`. */
  status: string[];
  /** Features that both sides agreed on, in hexadecimal. */
  features: string;
  /** Queues that are in service. */
  queues: QueueSnapshot[];
  /** What the status machine counted. */
  counters: VirtioDeviceCounters;
  /** What the device counted, in its own words; null when it does not say. */
  statistics: Plain;
}

const STATUS_NAMES: readonly (readonly [number, string])[] = [
  [VIRTIO_STATUS_ACKNOWLEDGE, "acknowledge"],
  [VIRTIO_STATUS_DRIVER, "driver"],
  [VIRTIO_STATUS_FEATURES_OK, "features-ok"],
  [VIRTIO_STATUS_DRIVER_OK, "driver-ok"],
  [VIRTIO_STATUS_NEEDS_RESET, "needs-reset"],
  [VIRTIO_STATUS_FAILED, "failed"],
];

/** Looks at a virtio device: `VirtioPci.device`, `VirtioMmio.device`, `VirtioLocal.device`. */
export function inspectVirtio(device: VirtioDevice, options: InspectOptions = {}): VirtioSnapshot {
  const { face, status } = device;
  return {
    name: face.name,
    deviceType: face.deviceType,
    status: STATUS_NAMES.filter(([bit]) => (status & bit) !== 0).map(([, name]) => name),
    features: `0x${device.negotiated.toString(16)}`,
    queues: device.queues.flatMap(({ index, queue }) => {
      const snapshot =
        queue === null ? null : inspectQueue({ name: String(index), queue: queue.ring }, options);
      return snapshot === null ? [] : [snapshot];
    }),
    counters: device.counters(),
    statistics: plain(face.statistics ?? null),
  };
}
