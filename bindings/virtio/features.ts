import {
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_IN_ORDER,
  VIRTIO_F_INDIRECT_DESC,
  VIRTIO_F_NOTIFICATION_DATA,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_RING_RESET,
  VIRTIO_F_VERSION_1,
} from "../../assembly/abi/virtio.js";
import type { VirtioFace } from "./types.js";

/** Which features of rings and transport a device offers besides `VIRTIO_F_VERSION_1`, which every driver must take. */
export interface VirtioRingOptions {
  /** Packed rings (`VIRTIO_F_RING_PACKED`, virtio 1.2: 2.8). Drivers that know them take them. Default true. */
  readonly packed?: boolean;
  /** Notifications by ring position (`VIRTIO_F_EVENT_IDX`, 2.7.7, 2.8.10). Default true. */
  readonly eventIndex?: boolean;
  /** Descriptors in tables of their own (`VIRTIO_F_INDIRECT_DESC`, 2.7.5.3, 2.8.7). Default true. */
  readonly indirect?: boolean;
  /** Buffers are used in order (`VIRTIO_F_IN_ORDER`, 2.7.9). Default true; offered for faces that do so only. */
  readonly inOrder?: boolean;
  /** Queues can be reset one by one (`VIRTIO_F_RING_RESET`, 2.6.1). Default true. */
  readonly reset?: boolean;
  /** Kicks say how far the ring is (`VIRTIO_F_NOTIFICATION_DATA`, 4.1.5.2). Nothing here needs it. Default false. */
  readonly notificationData?: boolean;
  /** Longest chain that a queue takes, in pieces; see `VirtQueueOptions`. */
  readonly maxPieces?: number;
}

/** A feature as a mask. */
export const featureMask = (bit: number): bigint => 1n << BigInt(bit);

/** Bits that belong to the device (virtio 1.2: 2.2); the others belong to rings, transports and the future. */
const DEVICE_BITS = ((1n << 24n) - 1n) | (((1n << 78n) - 1n) << 50n);

/** Bits that are offered to a driver: the device's own, and what the options say. */
export function offeredFeatures(face: VirtioFace, options: VirtioRingOptions): bigint {
  const {
    packed = true,
    eventIndex = true,
    indirect = true,
    inOrder = true,
    reset = true,
    notificationData = false,
  } = options;
  let features = (face.features & DEVICE_BITS) | featureMask(VIRTIO_F_VERSION_1);
  for (const [bit, wanted] of [
    [VIRTIO_F_RING_PACKED, packed],
    [VIRTIO_F_EVENT_IDX, eventIndex],
    [VIRTIO_F_INDIRECT_DESC, indirect],
    [VIRTIO_F_IN_ORDER, inOrder && face.inOrder === true],
    [VIRTIO_F_RING_RESET, reset],
    [VIRTIO_F_NOTIFICATION_DATA, notificationData],
  ] as const) {
    if (wanted) features |= featureMask(bit);
  }
  return features;
}

/** True when a driver's choice is one: nothing that was not offered, VERSION_1, and what the device itself demands. */
export function mayHave(face: VirtioFace, offered: bigint, chosen: bigint): boolean {
  if ((chosen & ~offered) !== 0n || (chosen & featureMask(VIRTIO_F_VERSION_1)) === 0n) return false;
  return face.acceptable(chosen & DEVICE_BITS);
}

/** How the rings of a driver with these features look. */
export function ringFormat(
  features: bigint,
  { maxPieces }: VirtioRingOptions,
): {
  format: "split" | "packed";
  eventIndex: boolean;
  indirect: boolean;
  inOrder: boolean;
  maxPieces?: number;
} {
  const has = (bit: number): boolean => (features & featureMask(bit)) !== 0n;
  return {
    format: has(VIRTIO_F_RING_PACKED) ? "packed" : "split",
    eventIndex: has(VIRTIO_F_EVENT_IDX),
    indirect: has(VIRTIO_F_INDIRECT_DESC),
    inOrder: has(VIRTIO_F_IN_ORDER),
    ...(maxPieces === undefined ? {} : { maxPieces }),
  };
}
