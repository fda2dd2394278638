/** The network of cards that are plugged in while a guest runs, beside those of `examples/linux/cards.ts`. */
import { networkAddresses, type CardAddresses } from "../linux/cards.js";

/** Of all cards of the page. */
export const MTU = 1500;
const NETWORK = 3;

/** The station behind such cards. */
export const SPARE_STATION: CardAddresses = networkAddresses(NETWORK, 1);

/** What such a card of a guest is given; guests are counted from 1. */
export function spareAddresses(guest: number): CardAddresses {
  return networkAddresses(NETWORK, guest + 1);
}
