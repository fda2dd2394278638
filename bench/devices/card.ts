/** Network cards of the traffic figures: which there are, how a guest takes one, and what it asks for. */
import type { ProxyBus } from "vbus/drivers";
import { VenetDriver, type SuperframeOptions, type VenetNic } from "vbus/drivers/venet";
import { virtioBusDriver } from "vbus/drivers/virtio";
import { VirtioNetDriver, type VirtioNic } from "vbus/drivers/virtio-net";
import { takeDevice, type Taken } from "./join.js";

/** venet, or virtio-net over the same bus with rings of one format. */
export type TrafficCard = "venet" | "split" | "packed";

/** What a guest asks of its card in one direction. Plain data. */
export interface CardOffloads extends Required<Omit<SuperframeOptions, "ecn">> {
  /** Frames may have partial checksums; without, no superframes either. */
  checksum: boolean;
  /** Received frames may lie in several buffers; without, none is longer than a buffer. */
  mergeable: boolean;
}

/** Everything that there is. */
export const ALL_OFFLOADS: CardOffloads = {
  checksum: true,
  tcp4: true,
  tcp6: true,
  udp: true,
  mergeable: true,
};
/** Finished frames, one to a buffer. */
export const NO_OFFLOADS: CardOffloads = {
  checksum: false,
  tcp4: false,
  tcp6: false,
  udp: false,
  mergeable: false,
};

/** How a card is to be opened. Plain data. */
export interface CardOrder {
  card: TrafficCard;
  mtu: number;
  transmit: CardOffloads;
  receive: CardOffloads;
}

/** Takes a card, and sees to it that its link is up. */
export async function takeCard(
  bus: ProxyBus,
  { card, mtu, transmit, receive }: CardOrder,
): Promise<Taken<VenetNic | VirtioNic>> {
  const kinds = ({ checksum, tcp4, tcp6, udp }: CardOffloads): false | SuperframeOptions =>
    checksum ? { tcp4, tcp6, udp } : false;
  if (card === "venet") {
    // frames in several buffers and partial checksums are one thing there: a descriptor that can say so
    const offloads = { transmit: kinds(transmit), receive: receive.mergeable && kinds(receive) };
    const venet = await takeDevice(bus, new VenetDriver(undefined, { mtu, offloads }));
    await venet.device.open();
    return venet;
  }
  const found: VirtioNic[] = [];
  const driver = virtioBusDriver([
    new VirtioNetDriver((nic) => found.push(nic), {
      packed: card === "packed",
      offloads: { transmit: kinds(transmit), receive: kinds(receive) },
      mergeable: receive.mergeable,
    }),
  ]);
  const binding = await takeDevice(bus, driver);
  const [nic] = found;
  if (nic === undefined) throw new Error("the virtio device is no network card");
  return { device: nic, giveBack: () => binding.giveBack() };
}
