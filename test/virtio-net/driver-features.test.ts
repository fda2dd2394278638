import {
  VIRTIO_F_IN_ORDER,
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
} from "vbus/abi";
import { VirtioNet } from "vbus/devices/virtio-net";
import { VirtioNetFeatures, type VirtioNicOptions } from "vbus/drivers/virtio-net";
import { describe, expect, it } from "vitest";
import { bit } from "./machine.js";

const TRANSMIT = [
  VIRTIO_NET_F_CSUM,
  VIRTIO_NET_F_HOST_TSO4,
  VIRTIO_NET_F_HOST_TSO6,
  VIRTIO_NET_F_HOST_ECN,
  VIRTIO_NET_F_HOST_USO,
];
const LARGE = [
  VIRTIO_NET_F_GUEST_TSO4,
  VIRTIO_NET_F_GUEST_TSO6,
  VIRTIO_NET_F_GUEST_ECN,
  VIRTIO_NET_F_GUEST_USO4,
  VIRTIO_NET_F_GUEST_USO6,
];
const OFFLOADS = [...TRANSMIT, VIRTIO_NET_F_GUEST_CSUM, ...LARGE, VIRTIO_NET_F_MRG_RXBUF];

const card = new VirtioNet({ name: "card", pairs: 1 });

/** Offload features that a driver with these options takes of a card that offers everything. */
function taken(options: VirtioNicOptions, offered = card.features): number[] {
  const defaults = { rxRing: 256, txRing: 256, mtu: 1500, receiveBacklog: 1024, superframeMemory: 2 << 20 };
  const wanted = { ...defaults, offloads: true, mergeable: true, packed: true, eventIndex: true, ...options };
  const bits = VirtioNetFeatures.choose(offered | bit(VIRTIO_F_IN_ORDER), wanted);
  expect(card.acceptable(bits), "the card accepts the choice").toBe(true);
  expect(new VirtioNetFeatures(bits).has(VIRTIO_NET_F_MAC)).toBe(true);
  return OFFLOADS.filter((feature) => (bits & bit(feature)) !== 0n).sort((a, b) => a - b);
}
const sorted = (...features: number[]): number[] => features.sort((a, b) => a - b);

describe("the offloads that a virtio-net driver takes", () => {
  it("are all that are offered, or none", () => {
    expect(taken({})).toEqual(sorted(...OFFLOADS));
    expect(taken({ offloads: false })).toEqual([VIRTIO_NET_F_MRG_RXBUF]);
    expect(taken({ offloads: { transmit: false, receive: false }, mergeable: false })).toEqual([]);
  });

  it("are those of one direction", () => {
    expect(taken({ offloads: { receive: false }, mergeable: false })).toEqual(sorted(...TRANSMIT));
    expect(taken({ offloads: { transmit: false } })).toEqual(
      sorted(VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_MRG_RXBUF, ...LARGE),
    );
  });

  it("are checksums and named superframes, with ECN where there is TCP", () => {
    const none = { tcp4: false, tcp6: false, udp: false };
    const transmit = (kinds: object): number[] =>
      taken({ offloads: { transmit: { ...none, ...kinds }, receive: false }, mergeable: false });
    expect(transmit({})).toEqual([VIRTIO_NET_F_CSUM]);
    expect(transmit({ udp: true })).toEqual(sorted(VIRTIO_NET_F_CSUM, VIRTIO_NET_F_HOST_USO));
    expect(transmit({ tcp6: true })).toEqual(
      sorted(VIRTIO_NET_F_CSUM, VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_HOST_ECN),
    );
    expect(transmit({ tcp4: true, ecn: false })).toEqual(sorted(VIRTIO_NET_F_CSUM, VIRTIO_NET_F_HOST_TSO4));
    expect(taken({ offloads: { transmit: false, receive: { ...none, udp: true } } })).toEqual(
      sorted(
        VIRTIO_NET_F_GUEST_CSUM,
        VIRTIO_NET_F_MRG_RXBUF,
        VIRTIO_NET_F_GUEST_USO4,
        VIRTIO_NET_F_GUEST_USO6,
      ),
    );
  });

  it("contain no received superframes where frames cannot lie in several buffers", () => {
    expect(taken({ mergeable: false })).toEqual(sorted(...TRANSMIT, VIRTIO_NET_F_GUEST_CSUM));
  });

  it("contain no superframes where the card offers no checksums, which those need", () => {
    const offered = card.features & ~bit(VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM);
    expect(taken({}, offered)).toEqual([VIRTIO_NET_F_MRG_RXBUF]);
  });
});
