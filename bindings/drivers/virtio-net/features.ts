import { VIRTIO_F_EVENT_IDX, VIRTIO_F_IN_ORDER, VIRTIO_F_RING_PACKED } from "../../../assembly/abi/virtio.js";
import {
  VIRTIO_NET_F_CSUM,
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
  VIRTIO_NET_F_MRG_RXBUF,
  VIRTIO_NET_F_MTU,
  VIRTIO_NET_F_STATUS,
} from "../../../assembly/abi/virtio-net.js";
import type { GrantedOffloads } from "../venet/offloads.js";
import type { ResolvedVirtioNicOptions } from "./options.js";

const mask = (...bits: number[]): bigint => bits.reduce((all, bit) => all | (1n << BigInt(bit)), 0n);

const TRANSMIT = mask(
  VIRTIO_NET_F_CSUM,
  VIRTIO_NET_F_HOST_TSO4,
  VIRTIO_NET_F_HOST_TSO6,
  VIRTIO_NET_F_HOST_ECN,
  VIRTIO_NET_F_HOST_USO,
);
/** Superframes towards the driver: each would need a buffer of 64 KiB if frames could not lie in several. */
const LARGE = mask(
  VIRTIO_NET_F_GUEST_TSO4,
  VIRTIO_NET_F_GUEST_TSO6,
  VIRTIO_NET_F_GUEST_ECN,
  VIRTIO_NET_F_GUEST_USO4,
  VIRTIO_NET_F_GUEST_USO6,
);

/** What a driver and its card agreed on (virtio 1.2: 5.1.3), by what it means here. */
export class VirtioNetFeatures {
  /** @param bits - the features that were negotiated */
  constructor(readonly bits: bigint) {}

  /** Whether a feature was negotiated. */
  has(bit: number): boolean {
    return ((this.bits >> BigInt(bit)) & 1n) !== 0n;
  }

  /** The features to take, of those offered. */
  static choose(offered: bigint, options: ResolvedVirtioNicOptions): bigint {
    let wanted = mask(VIRTIO_NET_F_MAC, VIRTIO_NET_F_MTU, VIRTIO_NET_F_STATUS, VIRTIO_F_IN_ORDER);
    if (options.packed) wanted |= mask(VIRTIO_F_RING_PACKED);
    if (options.eventIndex) wanted |= mask(VIRTIO_F_EVENT_IDX);
    if (options.mergeable) wanted |= mask(VIRTIO_NET_F_MRG_RXBUF);
    if (options.offloads) wanted |= TRANSMIT | mask(VIRTIO_NET_F_GUEST_CSUM);
    const chosen = wanted & offered;
    const large = options.offloads && (chosen & mask(VIRTIO_NET_F_MRG_RXBUF)) !== 0n;
    return large ? chosen | (LARGE & offered) : chosen;
  }

  /** What the device takes unfinished. */
  get tx(): GrantedOffloads {
    const checksum = this.has(VIRTIO_NET_F_CSUM);
    return {
      scatterGather: true,
      checksum,
      tcp4: checksum && this.has(VIRTIO_NET_F_HOST_TSO4),
      tcp6: checksum && this.has(VIRTIO_NET_F_HOST_TSO6),
      udp: checksum && this.has(VIRTIO_NET_F_HOST_USO),
      ecn: this.has(VIRTIO_NET_F_HOST_ECN),
    };
  }

  /** What the device may deliver unfinished. */
  get rx(): GrantedOffloads {
    const checksum = this.has(VIRTIO_NET_F_GUEST_CSUM);
    return {
      scatterGather: this.has(VIRTIO_NET_F_MRG_RXBUF),
      checksum,
      tcp4: checksum && this.has(VIRTIO_NET_F_GUEST_TSO4),
      tcp6: checksum && this.has(VIRTIO_NET_F_GUEST_TSO6),
      udp: checksum && this.has(VIRTIO_NET_F_GUEST_USO4) && this.has(VIRTIO_NET_F_GUEST_USO6),
      ecn: this.has(VIRTIO_NET_F_GUEST_ECN),
    };
  }
}
