import { GSO_TCP4, GSO_TCP6, GSO_UDP_L4 } from "../../../assembly/abi/arena.js";
import { NET_GRANT_CSUM } from "../../../assembly/abi/arena-virtio-net.js";
import {
  VIRTIO_NET_F_CSUM,
  VIRTIO_NET_F_CTRL_GUEST_OFFLOADS,
  VIRTIO_NET_F_CTRL_MAC_ADDR,
  VIRTIO_NET_F_CTRL_RX,
  VIRTIO_NET_F_CTRL_RX_EXTRA,
  VIRTIO_NET_F_CTRL_VLAN,
  VIRTIO_NET_F_CTRL_VQ,
  VIRTIO_NET_F_GUEST_ANNOUNCE,
  VIRTIO_NET_F_GUEST_CSUM,
  VIRTIO_NET_F_GUEST_ECN,
  VIRTIO_NET_F_GUEST_TSO4,
  VIRTIO_NET_F_GUEST_TSO6,
  VIRTIO_NET_F_GUEST_USO4,
  VIRTIO_NET_F_GUEST_USO6,
  VIRTIO_NET_F_HOST_ECN,
  VIRTIO_NET_F_HOST_TSO4,
  VIRTIO_NET_F_HOST_TSO6,
  VIRTIO_NET_F_HOST_USO,
  VIRTIO_NET_F_MAC,
  VIRTIO_NET_F_MQ,
  VIRTIO_NET_F_MRG_RXBUF,
  VIRTIO_NET_F_MTU,
  VIRTIO_NET_F_NOTF_COAL,
  VIRTIO_NET_F_SPEED_DUPLEX,
  VIRTIO_NET_F_STATUS,
  VIRTIO_NET_F_VQ_NOTF_COAL,
} from "../../../assembly/abi/virtio-net.js";
import { OFFLOAD_CSUM, OFFLOAD_ECN, OFFLOAD_TCP4, OFFLOAD_TCP6, OFFLOAD_UDP_L4 } from "../../net/port.js";

/** A feature as a mask. */
const mask = (...bits: number[]): bigint => bits.reduce((all, bit) => all | (1n << BigInt(bit)), 0n);

/** True when a feature is among those given. */
export function hasFeature(features: bigint, bit: number): boolean {
  return ((features >> BigInt(bit)) & 1n) !== 0n;
}

const ALWAYS = mask(
  VIRTIO_NET_F_MTU,
  VIRTIO_NET_F_MAC,
  VIRTIO_NET_F_STATUS,
  VIRTIO_NET_F_CTRL_VQ,
  VIRTIO_NET_F_CTRL_RX,
  VIRTIO_NET_F_CTRL_VLAN,
  VIRTIO_NET_F_CTRL_RX_EXTRA,
  VIRTIO_NET_F_GUEST_ANNOUNCE,
  VIRTIO_NET_F_CTRL_MAC_ADDR,
  VIRTIO_NET_F_VQ_NOTF_COAL,
  VIRTIO_NET_F_NOTF_COAL,
  VIRTIO_NET_F_SPEED_DUPLEX,
);

/** What the guest takes unfinished, as features: what `CTRL_GUEST_OFFLOADS` changes. */
const GUEST_OFFLOADS = mask(
  VIRTIO_NET_F_GUEST_CSUM,
  VIRTIO_NET_F_GUEST_TSO4,
  VIRTIO_NET_F_GUEST_TSO6,
  VIRTIO_NET_F_GUEST_ECN,
  VIRTIO_NET_F_GUEST_USO4,
  VIRTIO_NET_F_GUEST_USO6,
);

const OFFLOADS =
  GUEST_OFFLOADS |
  mask(
    VIRTIO_NET_F_CSUM,
    VIRTIO_NET_F_CTRL_GUEST_OFFLOADS,
    VIRTIO_NET_F_HOST_TSO4,
    VIRTIO_NET_F_HOST_TSO6,
    VIRTIO_NET_F_HOST_ECN,
    VIRTIO_NET_F_HOST_USO,
  );

/** What a card may offer at this moment. */
export interface FeaturePolicy {
  /** Checksums and superframes, both ways. */
  readonly offloads: boolean;
  /** Received frames may lie in several buffers. */
  readonly mergeable: boolean;
  /** Pairs of queues. */
  readonly pairs: number;
}

/** The features of a card (virtio 1.2: 5.1.3; USO and coalescing of single queues 1.3). */
export function netFeatures({ offloads, mergeable, pairs }: FeaturePolicy): bigint {
  return (
    ALWAYS |
    (offloads ? OFFLOADS : 0n) |
    (mergeable ? mask(VIRTIO_NET_F_MRG_RXBUF) : 0n) |
    (pairs > 1 ? mask(VIRTIO_NET_F_MQ) : 0n)
  );
}

/** Each feature, and one of which it needs (5.1.3.1). */
const NEEDS: readonly (readonly [number, ...number[]])[] = [
  [VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_CSUM],
  [VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_GUEST_CSUM],
  [VIRTIO_NET_F_GUEST_USO4, VIRTIO_NET_F_GUEST_CSUM],
  [VIRTIO_NET_F_GUEST_USO6, VIRTIO_NET_F_GUEST_CSUM],
  [VIRTIO_NET_F_GUEST_ECN, VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6],
  [VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_CSUM],
  [VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_CSUM],
  [VIRTIO_NET_F_HOST_USO, VIRTIO_NET_F_CSUM],
  [VIRTIO_NET_F_HOST_ECN, VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6],
  [VIRTIO_NET_F_CTRL_RX, VIRTIO_NET_F_CTRL_VQ],
  [VIRTIO_NET_F_CTRL_RX_EXTRA, VIRTIO_NET_F_CTRL_VQ],
  [VIRTIO_NET_F_CTRL_VLAN, VIRTIO_NET_F_CTRL_VQ],
  [VIRTIO_NET_F_GUEST_ANNOUNCE, VIRTIO_NET_F_CTRL_VQ],
  [VIRTIO_NET_F_MQ, VIRTIO_NET_F_CTRL_VQ],
  [VIRTIO_NET_F_CTRL_MAC_ADDR, VIRTIO_NET_F_CTRL_VQ],
  [VIRTIO_NET_F_CTRL_GUEST_OFFLOADS, VIRTIO_NET_F_CTRL_VQ],
  [VIRTIO_NET_F_NOTF_COAL, VIRTIO_NET_F_CTRL_VQ],
  [VIRTIO_NET_F_VQ_NOTF_COAL, VIRTIO_NET_F_CTRL_VQ],
];

/** True when every feature has one of those that it needs (5.1.3.1). */
export function featuresFit(features: bigint): boolean {
  return NEEDS.every(
    ([feature, ...needed]) =>
      !hasFeature(features, feature) || needed.some((bit) => hasFeature(features, bit)),
  );
}

/** What the guest may send unfinished, as the engine wants it: bit 1 << GSO_…, bit 0 for ECN, `NET_GRANT_CSUM`. */
export function transmitGrants(features: bigint): number {
  return (
    (hasFeature(features, VIRTIO_NET_F_CSUM) ? NET_GRANT_CSUM : 0) |
    (hasFeature(features, VIRTIO_NET_F_HOST_ECN) ? 1 : 0) |
    (hasFeature(features, VIRTIO_NET_F_HOST_TSO4) ? 1 << GSO_TCP4 : 0) |
    (hasFeature(features, VIRTIO_NET_F_HOST_TSO6) ? 1 << GSO_TCP6 : 0) |
    (hasFeature(features, VIRTIO_NET_F_HOST_USO) ? 1 << GSO_UDP_L4 : 0)
  );
}

/** What the guest takes unfinished (`OFFLOAD_…` bits). UDP superframes only when it takes them of both families. */
export function receiveOffloads(features: bigint): number {
  if (!hasFeature(features, VIRTIO_NET_F_GUEST_CSUM)) return 0;
  const udp = hasFeature(features, VIRTIO_NET_F_GUEST_USO4) && hasFeature(features, VIRTIO_NET_F_GUEST_USO6);
  return (
    OFFLOAD_CSUM |
    (hasFeature(features, VIRTIO_NET_F_GUEST_TSO4) ? OFFLOAD_TCP4 : 0) |
    (hasFeature(features, VIRTIO_NET_F_GUEST_TSO6) ? OFFLOAD_TCP6 : 0) |
    (hasFeature(features, VIRTIO_NET_F_GUEST_ECN) ? OFFLOAD_ECN : 0) |
    (udp ? OFFLOAD_UDP_L4 : 0)
  );
}

/** Those of some features that a driver may give up and take again while it works. */
export function guestOffloads(features: bigint): bigint {
  return features & GUEST_OFFLOADS;
}

/**
 * The features in force after the driver asked for `wanted` of what it negotiated (5.1.6.5.8), or null when it may not have
 * that: others than it negotiated, or one without what it needs.
 */
export function changeGuestOffloads(negotiated: bigint, wanted: bigint): bigint | null {
  if ((wanted & ~(negotiated & GUEST_OFFLOADS)) !== 0n) return null;
  const features = (negotiated & ~GUEST_OFFLOADS) | wanted;
  return featuresFit(features) ? features : null;
}
