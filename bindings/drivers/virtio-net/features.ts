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
import type { GrantedOffloads, SuperframeOptions } from "../venet/offloads.js";
import type { ResolvedVirtioNicOptions } from "./options.js";

const mask = (...bits: number[]): bigint => bits.reduce((all, bit) => all | (1n << BigInt(bit)), 0n);

/** Features of one direction. */
interface Direction {
  readonly checksum: bigint;
  readonly tcp4: bigint;
  readonly tcp6: bigint;
  readonly udp: bigint;
  readonly ecn: bigint;
}

const TRANSMIT: Direction = {
  checksum: mask(VIRTIO_NET_F_CSUM),
  tcp4: mask(VIRTIO_NET_F_HOST_TSO4),
  tcp6: mask(VIRTIO_NET_F_HOST_TSO6),
  udp: mask(VIRTIO_NET_F_HOST_USO),
  ecn: mask(VIRTIO_NET_F_HOST_ECN),
};
const RECEIVE: Direction = {
  checksum: mask(VIRTIO_NET_F_GUEST_CSUM),
  tcp4: mask(VIRTIO_NET_F_GUEST_TSO4),
  tcp6: mask(VIRTIO_NET_F_GUEST_TSO6),
  udp: mask(VIRTIO_NET_F_GUEST_USO4, VIRTIO_NET_F_GUEST_USO6),
  ecn: mask(VIRTIO_NET_F_GUEST_ECN),
};

/** The superframes of a direction to ask for; of ECN just where there are TCP superframes, which it needs (5.1.3.1). */
function superframes(direction: Direction, wanted: boolean | SuperframeOptions): bigint {
  if (wanted === false) return 0n;
  const { tcp4 = true, tcp6 = true, udp = true, ecn = true } = wanted === true ? {} : wanted;
  return (
    (tcp4 ? direction.tcp4 : 0n) |
    (tcp6 ? direction.tcp6 : 0n) |
    (udp ? direction.udp : 0n) |
    (ecn && (tcp4 || tcp6) ? direction.ecn : 0n)
  );
}

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
    const { offloads } = options;
    const { transmit = true, receive = true } =
      typeof offloads === "object" ? offloads : { transmit: offloads, receive: offloads };
    if (transmit !== false) wanted |= TRANSMIT.checksum;
    if (receive !== false) wanted |= RECEIVE.checksum;
    const chosen = wanted & offered;
    // kinds that need a checksum feature which the device does not offer would make it refuse all of them
    const has = (feature: bigint): boolean => (chosen & feature) !== 0n;
    const out = has(TRANSMIT.checksum) ? superframes(TRANSMIT, transmit) : 0n;
    // each would need a buffer of 64 KiB if frames could not lie in several
    const large = has(RECEIVE.checksum) && has(mask(VIRTIO_NET_F_MRG_RXBUF));
    return chosen | ((out | (large ? superframes(RECEIVE, receive) : 0n)) & offered);
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
